"""Traces that nobody should write and somebody will: named before they are replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, read_trace, write_trace
from hvbench.traces.load import load_trace
from hvbench.workload import bundled_folder

MEMJOB = bundled_folder() / "traces" / "memjob.parquet"


@pytest.mark.parametrize(
    "change",
    [
        {"op": "barrier", "peer": -1, "pages": 50},
        {"op": "barrier", "peer": 2**31 - 1, "pages": 50},
        {"user_ns": 2**63 - 1},
        {"thread": 999},
    ],
)
def test_a_trace_is_checked_before_it_is_replayed(tmp_path: Path, change: dict[str, Any]) -> None:
    trace = read_trace(MEMJOB)
    columns = {name: values.copy() for name, values in trace.columns.items()}
    row = int((columns["op"] == OPS["compute"]).argmax())
    for name, value in change.items():
        columns[name][row] = OPS[value] if name == "op" else value
    write_trace(tmp_path / "bad.parquet", trace.meta, columns)
    with pytest.raises(UserError, match=r"bad\.parquet: row"):
        load_trace(tmp_path / "bad.parquet")


@pytest.mark.parametrize("key", ["threads", "objects", "flows", "tiers", "wait_shares", "span_ns"])
@pytest.mark.parametrize("value", [[5], [{}], [[]], {}, None, "x", -1, 2**70])
def test_metadata_of_any_shape_is_checked(key: str, value: object) -> None:
    trace = read_trace(MEMJOB)
    check_trace(attrs.evolve(trace, meta={**trace.meta, key: value}))
