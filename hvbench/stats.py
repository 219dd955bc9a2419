"""What a full factorial says: choice means, variance shares, spread over seeds, identical decisions.

Everything is per workload and on the logarithm of slowdown, so that halving and doubling weigh the same.
Controls are left out; so is the technique `native`, which is a baseline and no competitor. Refused and broken
cells reduce the design to its largest complete sub-factorial before anything is averaged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import define

from hvbench.axes import AXES, EQUIPMENT_AXES, POLICY_AXES
from hvbench.cell import MEASURED
from hvbench.store import Row

RESPONSES = ("slowdown_geomean", "request_latency_p99_ns")
"""What is analysed: the first that the results have (open-loop workloads have no slowdown)."""

MATERIAL: Mapping[str, float] = {"slowdown_geomean": 1.01, "request_latency_p99_ns": 1.05}
"""A best choice less far ahead of the worst decides nothing (choice of this project). Percentiles come from buckets
that are 1/32 wide (`hvbench.kernel.histogram`), so that less than two buckets may be none."""

BASELINES: Mapping[str, frozenset[str]] = {"technique": frozenset({"native"})}
"""Choices that others are measured against, not competitors."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Effect = tuple[str, ...]
HIGHER: Effect = ("three and more together",)
SEEDS: Effect = ("seeds",)


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean; nan of nothing, inf where a value is."""
    logs = [math.log(value) if value > 0 else -math.inf for value in values]
    if not logs:
        return math.nan
    mean = sum(logs) / len(logs)
    return math.inf if mean == math.inf else math.exp(mean)


def mean_over_seeds(values: Sequence[float], unit: str) -> float:
    """Ratios by their geometric mean, everything else by the arithmetic one."""
    return geometric_mean(values) if unit == "ratio" else sum(values) / len(values)


# --- designs -------------------------------------------------------------------------------------------


@define(frozen=True, eq=False)
class Design:
    """A complete factorial: the levels of each axis, and `response[level, ..., seed]`, a logarithm."""

    levels: dict[str, list[str]]
    seeds: list[int]
    response: Floats
    dropped: dict[str, list[str]]
    """Levels left out because cells of theirs are missing."""

    @property
    def axes(self) -> list[str]:
        return list(self.levels)

    @property
    def cells(self) -> int:
        return int(self.response.size)

    def over(self, axes: Iterable[str]) -> Design:
        """The same with all other axes averaged."""
        kept = [axis for axis in self.axes if axis in set(axes)]
        away = tuple(i for i, axis in enumerate(self.axes) if axis not in kept)
        return Design({axis: self.levels[axis] for axis in kept}, self.seeds, self.response.mean(axis=away), {})

    def without(self, axis: str, level: int) -> Design:
        """The same without one level of an axis."""
        levels = dict(self.levels)
        levels[axis] = [name for i, name in enumerate(levels[axis]) if i != level]
        return Design(levels, self.seeds, np.delete(self.response, level, axis=self.axes.index(axis)), {})


def response_name(rows: Iterable[Row]) -> str | None:
    """The metric that is analysed: the first of `RESPONSES` that any measured row has."""
    rows = list(rows)
    return next((name for name in RESPONSES if any(name in row.result.metrics for row in rows)), None)


def build_design(rows: Sequence[Row], response: str | None = None) -> Design | None:
    """The largest complete factorial in one workload's rows; None where nothing is left.

    `response` is one of `RESPONSES`; without it the first that the rows have.
    """
    competitors = [
        row
        for row in rows
        if not row.control and not any(row.labels[axis] in names for axis, names in BASELINES.items())
    ]
    analysed = response or response_name(competitors)
    if analysed is None:
        return None
    values: dict[tuple[str, ...], dict[int, float]] = {}
    for row in competitors:
        value = row.result.metrics.get(analysed)
        if row.status in MEASURED and value is not None and 0 < value < math.inf:
            values.setdefault(tuple(row.labels[axis] for axis in AXES), {})[row.seed] = math.log(value)
    seeds = sorted({row.seed for row in competitors})
    levels = [list(dict.fromkeys(row.labels[axis] for row in competitors)) for axis in AXES]
    present = np.zeros([len(names) for names in levels], dtype=bool)
    for index in np.ndindex(*present.shape):
        combination = tuple(names[i] for names, i in zip(levels, index, strict=True))
        present[index] = len(values.get(combination, {})) == len(seeds)
    kept = complete_subfactorial(present)
    if not all(kept):
        return None
    names_kept = [[levels[i][j] for j in kept[i]] for i in range(len(AXES))]
    logs = np.empty([len(names) for names in names_kept] + [len(seeds)])
    for index in np.ndindex(*logs.shape[:-1]):
        combination = tuple(names[i] for names, i in zip(names_kept, index, strict=True))
        logs[index] = [values[combination][seed] for seed in seeds]
    dropped = {
        axis: [name for j, name in enumerate(levels[i]) if j not in kept[i]]
        for i, axis in enumerate(AXES)
        if len(kept[i]) < len(levels[i])
    }
    return Design(dict(zip(AXES, names_kept, strict=True)), seeds, logs, dropped)


def complete_subfactorial(present: np.ndarray[Any, np.dtype[np.bool_]]) -> list[list[int]]:
    """Levels to keep on each axis so that no cell is missing and the most cells are left.

    Every missing cell has to lose one of its levels; the search branches over which one and gives up branches
    that cannot beat the best found. Empty lists where nothing is left.
    """
    shape = present.shape
    best: list[list[int]] = [[] for _ in shape]
    best_size = 0
    tried: set[tuple[frozenset[int], ...]] = set()
    budget = 2_000

    def search(kept: list[list[int]]) -> None:
        nonlocal best, best_size, budget
        size = math.prod(map(len, kept))
        state = tuple(frozenset(levels) for levels in kept)
        if size <= best_size or state in tried or budget <= 0:
            return
        tried.add(state)
        budget -= 1
        missing = np.argwhere(~present[np.ix_(*kept)])
        if not len(missing):
            best, best_size = [list(levels) for levels in kept], size
            return
        # Dropping the level with the most missing cells first finds a good bound early.
        counts = [np.bincount(missing[:, axis], minlength=len(kept[axis])) for axis in range(len(shape))]
        cell = max(missing, key=lambda index: max(counts[axis][index[axis]] for axis in range(len(shape))))
        order = sorted(range(len(shape)), key=lambda axis: -counts[axis][cell[axis]] / (size / len(kept[axis])))
        for axis in order:
            level = kept[axis][cell[axis]]
            search([[j for j in levels if i != axis or j != level] for i, levels in enumerate(kept)])

    search([list(range(n)) for n in shape])
    return best


# --- variance ------------------------------------------------------------------------------------------


@define(frozen=True)
class Share:
    """The share of the variance that an effect explains, with its range over leaving one level out."""

    effect: Effect
    share: float
    low: float
    high: float


def variance_shares(response: Floats, axes: Sequence[str]) -> dict[Effect, float] | None:
    """Shares of the sum of squares: main effects, two-way interactions, the rest, and seeds.

    `response` has one dimension an axis and a last one for seeds. The shares sum to 1; None where all values
    are equal.
    """
    response = np.asarray(response, dtype=float)
    grand = response.mean()
    total = float(((response - grand) ** 2).sum())
    scale = float((response**2).sum())
    if total <= 1e-24 * max(scale, 1.0):
        return None
    count = response.size
    cells = response.mean(axis=-1)
    shares: dict[Effect, float] = {}
    mains: list[Floats] = []
    for i, axis in enumerate(axes):
        effect = _mean_over(cells, (i,)) - grand
        mains.append(effect)
        if cells.shape[i] > 1:
            shares[(axis,)] = float((effect**2).sum()) * count / cells.shape[i] / total
    for i, j in itertools.combinations(range(len(axes)), 2):
        if cells.shape[i] > 1 and cells.shape[j] > 1:
            effect = _mean_over(cells, (i, j)) - grand - mains[i][:, None] - mains[j][None, :]
            pairs = cells.shape[i] * cells.shape[j]
            shares[axes[i], axes[j]] = float((effect**2).sum()) * count / pairs / total
    between = float(((cells - grand) ** 2).sum()) * response.shape[-1] / total
    if sum(n > 1 for n in cells.shape) > 2:
        shares[HIGHER] = max(0.0, between - sum(shares.values()))
    if response.shape[-1] > 1:
        shares[SEEDS] = max(0.0, 1.0 - between)
    return shares


def _mean_over(cells: Floats, kept: tuple[int, ...]) -> Floats:
    mean: Floats = cells.mean(axis=tuple(i for i in range(cells.ndim) if i not in kept))
    return mean


def shares_with_ranges(design: Design) -> list[Share]:
    """Variance shares of a design, largest first, each with its range over leaving one level out."""
    whole = variance_shares(design.response, design.axes)
    if whole is None:
        return []
    ranges: dict[Effect, list[float]] = {effect: [share] for effect, share in whole.items()}
    for axis in design.axes:
        # With two levels, leaving one out would remove the axis and not test it.
        if len(design.levels[axis]) < 3:
            continue
        for level in range(len(design.levels[axis])):
            part = design.without(axis, level)
            for effect, share in (variance_shares(part.response, part.axes) or {}).items():
                ranges[effect].append(share)
    found = [Share(effect, share, min(ranges[effect]), max(ranges[effect])) for effect, share in whole.items()]
    return sorted(found, key=lambda share: -share.share)


def analyses(design: Design) -> dict[str, Design]:
    """The designs that are analysed apart: policies with the equipment averaged, and the other way round."""
    found = {}
    for name, axes in (("policies", POLICY_AXES), ("equipment", EQUIPMENT_AXES)):
        if any(len(design.levels[axis]) > 1 for axis in axes):
            found[name] = design.over(axes)
    return found


# --- choices -------------------------------------------------------------------------------------------


@define(frozen=True)
class ChoiceMean:
    """What a choice does with the others averaged: `mean` (geometric), `ratio` to the axis's best, and its
    spread over seeds (a factor; nan with one seed)."""

    choice: str
    mean: float
    ratio: float
    spread: float
    cells: int


def choice_means(design: Design, axis: str) -> list[ChoiceMean]:
    """Every choice of an axis, best first."""
    logs = design.over([axis]).response
    best = float(logs.mean(axis=-1).min())
    found = []
    for i, choice in enumerate(design.levels[axis]):
        mean = float(logs[i].mean())
        spread = math.exp(float(logs[i].std(ddof=1))) if len(design.seeds) > 1 else math.nan
        cells = design.cells // len(design.levels[axis])
        found.append(ChoiceMean(choice, math.exp(mean), math.exp(mean - best), spread, cells))
    return sorted(found, key=lambda choice: choice.mean)


def within_seed_spread(design: Design, axis: str) -> list[tuple[str, str, float, float]]:
    """Pairs of choices whose difference is no larger than its own spread over seeds: (a, b, ratio, spread).

    Seeds are shared by all cells, so the difference is taken seed by seed. Empty with one seed.
    """
    if len(design.seeds) < 2:
        return []
    logs = design.over([axis]).response
    found = []
    for i, j in itertools.combinations(range(len(design.levels[axis])), 2):
        difference = logs[j] - logs[i]
        mean, spread = float(difference.mean()), float(difference.std(ddof=1))
        if 0 < abs(mean) <= spread:
            found.append((design.levels[axis][i], design.levels[axis][j], math.exp(mean), math.exp(spread)))
    return found


def identical_groups(rows: Sequence[Row], axis: str) -> list[list[str]]:
    """Choices of an axis that made the same decisions in every cell that they have in common, in groups.

    Decisions are compared by the digest of (hook, arguments, answer); axes that were never asked are left to
    `never_asked`.
    """
    traces: dict[str, dict[tuple[object, ...], str]] = {}
    for row in rows:
        digest = row.result.axis_digest.get(axis)
        if row.status in MEASURED and digest and row.result.axis_asks.get(axis, 1) > 0:
            context = (*(label for other, label in row.labels.items() if other != axis), row.seed)
            traces.setdefault(row.labels[axis], {})[context] = digest
    groups: list[list[str]] = []
    for choice, trace in traces.items():
        for group in groups:
            common = trace.keys() & traces[group[0]].keys()
            if common and all(trace[context] == traces[group[0]][context] for context in common):
                group.append(choice)
                break
        else:
            groups.append([choice])
    return [group for group in groups if len(group) > 1]


def never_asked(rows: Sequence[Row], axis: str) -> list[str]:
    """Choices of an axis that no measured cell ever asked anything."""
    asked: dict[str, bool] = {}
    for row in rows:
        if row.status in MEASURED and axis in row.result.axis_asks:
            label = row.labels[axis]
            asked[label] = asked.get(label, False) or row.result.axis_asks[axis] > 0
    return [label for label, was_asked in asked.items() if not was_asked]
