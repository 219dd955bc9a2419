"""Rows and metadata of a trace that is made from others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvbench import __version__
from hvbench.errors import UserError
from hvbench.traces.format import ABSENT, COLUMNS, OPS, Trace

Columns = dict[str, NDArray[Any]]


def derivation(command: str, sources: list[Trace], how: dict[str, Any]) -> dict[str, Any]:
    """One entry of `derived`: what was done, to which traces (by digest), with which parameters."""
    return {
        "by": f"hvbench trace {command}",
        "version": __version__,
        "from": [{"name": source.name, "digest": source.digest} for source in sources],
        "how": how,
    }


def needs_operations(trace: Trace, command: str) -> None:
    """Raise UserError for a base image: it is a state, and nothing happens in it."""
    if trace.is_base_image:
        raise UserError(
            f"{trace.path or trace.name}: a base image holds no operations; `hvbench trace {command}` wants a trace"
        )


def is_op(columns: Columns, *names: str) -> NDArray[np.bool_]:
    """The rows of these operations."""
    return np.isin(columns["op"], [OPS[name] for name in names])


def taken(columns: Columns, rows: NDArray[Any]) -> Columns:
    """Copies of some rows (a mask, or indices in the order wanted)."""
    return {name: values[rows].copy() for name, values in columns.items()}


def row(op: str, thread: int, time_ns: int, **values: int) -> dict[str, int]:
    """One new row."""
    return {"op": OPS[op], "thread": thread, "time_ns": time_ns, **values}


def columns_of(rows: list[dict[str, int]]) -> Columns:
    """New rows as columns; what a row leaves out has its absent meaning."""
    return {
        name: np.array([made.get(name, ABSENT.get(name, 0)) for made in rows], dtype=kind)
        for name, kind in COLUMNS.items()
    }


def joined(parts: list[Columns]) -> Columns:
    """Rows of several parts, sorted by thread and time; of equal ones those of the earlier part come first."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    order = np.lexsort((whole["time_ns"], whole["thread"]))
    return taken(whole, order)
