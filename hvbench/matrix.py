"""The product of choices as cells, and the study file that lists them.

A study is a matrix as a file:

    format = 1
    workloads = ["build", "./mine.toml"]        # names of bundled workloads, or paths relative to the file
    seeds = 3                                   # seeds 1 to 3 in each cell
    [axes]                                      # in the grammar of hvbench.choices; lists or comma-separated
    scheduler = ["all", "./mine.py"]
    memory = "static,overcommit+balloon"
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from hvbench.axes import AXES, MOST_SEEDS
from hvbench.cell import Cell, Choice
from hvbench.choices import STANDARD, parse_choices
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean
from hvbench.plugins import Registry
from hvbench.workload import Workload, bundled_names, load_workload

STUDY_FORMAT = 1


@define(frozen=True)
class Study:
    """What a matrix is made of, as text; `base` is the folder that paths are relative to."""

    workloads: tuple[str, ...] = ()
    seeds: int | None = None
    axes: Mapping[str, str] = field(factory=dict)
    base: Path = Path()
    path: Path | None = None


def make_cells(
    workloads: Iterable[Workload], choices: Mapping[str, list[Choice]], seeds: Iterable[int] = (1,)
) -> list[Cell]:
    """One cell for each workload, seed and combination of choices, in that order of nesting."""
    axes = [axis for axis in AXES if axis in choices]
    return [
        Cell(workload, dict(zip(axes, combination, strict=True)), seed, workload.horizon_ns, workload.warmup_ns)
        for workload in workloads
        for seed in seeds
        for combination in itertools.product(*(choices[axis] for axis in axes))
    ]


def choose(registry: Registry, wanted: Mapping[str, tuple[str, Path]]) -> dict[str, list[Choice]]:
    """The choices of every axis: `wanted` maps an axis to text and base folder; the rest are standard."""
    chosen = {}
    for axis in AXES:
        text, base = wanted.get(axis, (STANDARD[axis], Path()))
        chosen[axis] = parse_choices(axis, text, registry, base)
    return chosen


def load_workloads(names: Iterable[str], base: Path = Path()) -> list[Workload]:
    """Workloads by name or path; `micro` and `memory` are the bundled ones of a class, `all` all of them."""
    found: dict[str, Workload] = {}
    for name in names:
        if name in ("all", "micro", "memory"):
            loaded = [load_workload(bundled) for bundled in bundled_names()]
            chosen = [w for w in loaded if name in ("all", w.klass)]
            if not chosen:
                raise UserError(f"no bundled workload of class {name}; name one, or a file ./mine.toml")
        elif _is_path(name) and base != Path() and not Path(name).is_absolute():
            chosen = [load_workload(str(base / name))]
        else:
            chosen = [load_workload(name)]
        for workload in chosen:
            other = found.setdefault(workload.name, workload)
            if other.path != workload.path:
                raise UserError(f"{workload.path} and {other.path} are both named {workload.name}; rename one")
    return list(found.values())


def _is_path(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def is_study(path: Path) -> bool:
    """Whether a TOML file is a study and not a workload (which has a `[workload]` table)."""
    try:
        return "workload" not in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # its reader as a workload says what is wrong


def load_study(path: Path) -> Study:
    """A study file; UserError that lists every error of its form."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    errors: list[str] = []
    legal = ("format", "workloads", "seeds", "axes")
    errors.extend(
        f"{key}: unknown{did_you_mean(key, legal)}; legal here: {', '.join(legal)}" for key in raw if key not in legal
    )
    if raw.get("format") != STUDY_FORMAT:
        errors.append(f"format: {raw.get('format')!r} is not a known format; write format = {STUDY_FORMAT}")
    workloads = _texts(raw.get("workloads", []), "workloads", errors)
    seeds = raw.get("seeds")
    if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MOST_SEEDS):
        errors.append(f"seeds: {seeds!r} is not a whole number from 1 to {MOST_SEEDS}")
    axes: dict[str, str] = {}
    table = raw.get("axes", {})
    if not isinstance(table, dict):
        errors.append(f"axes: {table!r} is not a table")
        table = {}
    for axis, value in table.items():
        if axis not in AXES:
            errors.append(f"axes.{axis}: no axis{did_you_mean(axis, AXES)}; legal: {', '.join(AXES)}")
        else:
            axes[axis] = ",".join(_texts(value, f"axes.{axis}", errors))
    if errors:
        count = f"{len(errors)} errors: " if len(errors) > 1 else ""
        raise UserError(f"{path}: {count}{'; '.join(errors)}")
    return Study(tuple(workloads), seeds, axes, path.parent, path)


def _texts(value: Any, where: str, errors: list[str]) -> list[str]:
    """A list of texts, or one text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if where == "workloads" else [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        if value or where == "workloads":
            return list(value)
        errors.append(f"{where}: an empty list; leave the axis out for its standard choices")
        return []
    errors.append(f"{where}: {value!r} is neither a text nor a list of texts")
    return []


def memory_bytes(workload: Workload) -> int:
    """About the memory that one cell takes: a row for each guest page and machine frame, and its traces."""
    from hvbench.state import schema

    size = {name: schema.TABLES[name].layout.stride for name in ("page", "mapping", "page_frame", "guest_slot")}
    pages = sum(vm.spec.memory_pages for vm in workload.vms) * (size["page"] + size["mapping"])
    pages += sum(vm.spec.guest.swap_pages for vm in workload.vms) * size["guest_slot"]
    pages += workload.host.memory_pages * size["page_frame"]
    traces = {path for vm in workload.vms for path in (vm.trace_path, vm.image_path) if path is not None}
    # Decoded, a trace takes about ten times its compressed size.
    return pages + 10 * sum(path.stat().st_size for path in traces)
