"""Two sets of results side by side: which cells changed, by how much, in which metric, on which axis.

A set is the last run of an `hvbench.db` (another one: `hvbench.db@3`), a `.json` that `hvbench matrix -o` wrote, or
one that pytest-benchmark stored with hvbench's plugin. Cells are the same when workload, choices and seed are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define

from hvbench.axes import AXES
from hvbench.cell import BROKEN
from hvbench.errors import UserError
from hvbench.gate import Rule, check_known
from hvbench.metrics import CELL_METRICS
from hvbench.store import Store

DEFAULT_RULES = ("slowdown_geomean:+1%",)
"""What fails where nothing is asked for: a cell more than 1 % slower."""

SHOWN = (
    "slowdown_geomean",
    "slowdown_worst",
    "request_latency_p99_ns",
    "wakeup_latency_p99_ns",
    "io_latency_p99_ns",
    "host_swap_in_pages",
    "network_frames_dropped",
)
"""Metrics that are shown where nothing is asked for, as far as results have them."""


@define(frozen=True)
class Measured:
    """One cell or benchmark: who it is, how it ended, what was measured."""

    name: str
    labels: dict[str, str]
    status: str
    metrics: dict[str, float]


REAL_CLOCK = "mean_s"
"""Mean seconds of a benchmark that is no cell: not on the virtual clock."""


@define(frozen=True)
class Change:
    """One metric of one cell in both sets; `old` is None where the cell or the metric is new."""

    cell: Measured
    metric: str
    old: float | None
    new: float
    broken: tuple[Rule, ...]

    @property
    def ratio(self) -> float:
        """New over old; nan where there is none."""
        return self.new / self.old if self.old else math.nan

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "different" by the metric's direction."""
        direction = CELL_METRICS[self.metric].direction if self.metric in CELL_METRICS else "lower"
        # a time of the real clock differs from run to run; how much is too much, a rule says
        if self.old is None or direction == "neutral" or (self.metric == REAL_CLOCK and not self.broken):
            return "different"
        return "better" if (self.new < self.old) == (direction == "lower") else "worse"


@define(frozen=True)
class Comparison:
    """What two sets say. `broken_cells` were measured and are not any more."""

    changes: list[Change]
    same: int
    vanished: list[Measured]
    new: list[Measured]
    broken_cells: list[tuple[Measured, Measured]]
    mended_cells: list[tuple[Measured, Measured]]
    levels: dict[str, set[str]]
    """The choices of each axis (and the workloads) among the cells that both sets have."""

    @property
    def failures(self) -> list[Change]:
        """Changes that break a rule."""
        return [change for change in self.changes if change.broken]

    @property
    def failed(self) -> bool:
        """Whether a rule is broken or a cell is."""
        return bool(self.failures or self.broken_cells)


# reading ----------------------------------------------------------------------------------------------------------


def read_results(text: str) -> dict[str, Measured]:
    """A set by file name, `hvbench.db@RUN` included; UserError where it is none."""
    name, at, number = text.rpartition("@")
    run = int(number) if at and number.isdigit() else None
    path = Path(name if run is not None else text)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".json":
        if run is not None:
            raise UserError(f"{path}: a JSON file has no runs; leave out @{run}")
        return _keyed(_from_json(path), path)
    with Store(path, create=False) as store:
        rows = store.run_rows(run)
    if not rows:
        raise UserError(f"{path}: no finished cell; see hvbench results --runs")
    return _keyed(
        (_cell(r.workload, r.labels, r.seed, r.status, r.result.metrics) for r in rows), path
    )  # fmt: skip


def _keyed(cells: Iterable[Measured], path: Path) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    for cell in cells:
        if cell.name in found:
            raise UserError(f"{path}: {cell.name} is there twice; compare one run with one run (FILE@RUN)")
        found[cell.name] = cell
    return found


def _cell(workload: str, labels: Mapping[str, str], seed: int, status: str, metrics: Mapping[str, Any]) -> Measured:
    name = f"{workload}: {', '.join(labels.values())}, seed {seed}"
    numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not math.isnan(v)}
    return Measured(name, {"workload": workload, **labels}, status, numbers)


def _from_json(path: Path) -> list[Measured]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no readable JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("benchmarks"), list):
        return [benchmark_of(entry) for entry in content["benchmarks"]]
    if isinstance(content, list) and all(isinstance(entry, dict) and "workload" in entry for entry in content):
        return [
            _cell(
                str(entry["workload"]),
                {axis: str(entry.get(axis, "")) for axis in AXES},
                int(entry.get("seed", 1)),
                str(entry.get("status", "ok")),
                {k: v for k, v in entry.items() if k in CELL_METRICS},
            )
            for entry in content
        ]
    raise UserError(f"{path}: neither results of hvbench (matrix -o FILE.json) nor of pytest-benchmark")


def benchmark_of(entry: Mapping[str, Any]) -> Measured:
    """A stored benchmark: a cell of hvbench's plugin, or any other, which has its mean time alone."""
    extra = entry.get("extra_info") or {}
    labels = {axis: str(extra[axis]) for axis in ("workload", *AXES) if axis in extra}
    metrics = {k: float(v) for k, v in (extra.get("metrics") or {}).items() if isinstance(v, int | float)}
    stats = entry.get("stats") or {}
    if not metrics and isinstance(stats.get("mean"), int | float):
        metrics = {REAL_CLOCK: float(stats["mean"])}
    return Measured(str(entry.get("fullname", entry.get("name", "?"))), labels, str(extra.get("status", "ok")), metrics)


# comparing --------------------------------------------------------------------------------------------------------


def compare(
    old: Mapping[str, Measured], new: Mapping[str, Measured], rules: Sequence[Rule], shown: Sequence[str] = ()
) -> Comparison:
    """Set two sets beside each other. Changes are of `shown` metrics (default: SHOWN) and of those with a rule."""
    names = {metric for cells in (old, new) for cell in cells.values() for metric in cell.metrics}
    check_known(list(rules), names)
    wanted = list(dict.fromkeys([*(r.metric for r in rules), *(shown or SHOWN), REAL_CLOCK]))
    changes: list[Change] = []
    broken: list[tuple[Measured, Measured]] = []
    mended: list[tuple[Measured, Measured]] = []
    same = 0
    for name, cell in new.items():
        before = old.get(name)
        if before is not None and (cell.status in BROKEN) != (before.status in BROKEN):
            (broken if cell.status in BROKEN else mended).append((before, cell))
        elif before is not None and cell.status != before.status and cell.status == "refused":
            broken.append((before, cell))
        found = _changes(before, cell, wanted, rules)
        changes += found
        same += before is not None and not found and before.status == cell.status
    vanished = [cell for name, cell in old.items() if name not in new]
    fresh = [cell for name, cell in new.items() if name not in old]
    both = [cell for name, cell in new.items() if name in old]
    levels = {axis: {cell.labels[axis] for cell in both if axis in cell.labels} for axis in ("workload", *AXES)}
    return Comparison(changes, same, vanished, fresh, broken, mended, levels)


def _changes(before: Measured | None, cell: Measured, wanted: Sequence[str], rules: Sequence[Rule]) -> list[Change]:
    found = []
    for metric in wanted:
        value = cell.metrics.get(metric)
        if value is None:
            continue
        old = None if before is None else before.metrics.get(metric)
        broken = tuple(rule for rule in rules if rule.metric == metric and rule.breaks(old, value))
        if broken or (old is not None and old != value):
            found.append(Change(cell, metric, old, value, broken))
    return found


def where(comparison: Comparison, metric: str) -> list[str]:
    """On which axes a metric changed with some choices and with others not: `scheduler credit2`."""
    changed = {c.cell.name: c.cell for c in comparison.changes if c.metric == metric and c.old is not None}
    found = []
    for axis, levels in comparison.levels.items():
        labels = {cell.labels.get(axis, "") for cell in changed.values()} - {""}
        if labels and labels != levels:
            found.append(f"{axis} {', '.join(sorted(labels))}")
    return found
