"""Density: the most tenants at which nobody is slowed down too much.

Consolidation asks how many VMs a machine carries. For a combination of policies it is the largest number of tenants
whose worst slowdown, in every seed, is at most a limit (1.5). It is searched by doubling and halving, which assumes
that another tenant never helps; both sides of the answer are computed and shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from attrs import define, field

from hvbench.cell import Cell, Choice
from hvbench.pressure import tenants, with_tenants
from hvbench.store import Row
from hvbench.workload import MOST_VMS, Workload

WORST_SLOWDOWN = 1.5
"""The limit of model.md's definition."""

WORST = "slowdown_worst"


@define
class Search:
    """The search for one combination: `fits` tenants are known to be carried, `breaks` not (None: not found yet)."""

    workload: Workload
    choices: Mapping[str, Choice]
    limit: float
    most: int
    fits: int = 0
    breaks: int | None = None
    worst: dict[int, float] = field(factory=dict)
    why: dict[int, str] = field(factory=dict)

    @property
    def next_count(self) -> int | None:
        """How many tenants to try next; None when the answer is known."""
        if self.breaks is None:
            if self.fits >= self.most:
                return None
            return min(self.most, max(1, 2 * self.fits) if self.fits else tenants(self.workload))
        middle = (self.fits + self.breaks) // 2
        return middle if self.breaks - self.fits > 1 else None

    def cells(self, count: int, seeds: range) -> list[Cell]:
        """The cells that try `count` tenants."""
        made = with_tenants(self.workload, count)
        return [Cell(made, self.choices, seed, made.horizon_ns, made.warmup_ns) for seed in seeds]

    def learn(self, count: int, rows: list[Row]) -> None:
        """Take in what trying `count` tenants gave."""
        worst = max((float(row.result.metrics.get(WORST, math.inf)) for row in rows), default=math.inf)
        bad = next((row for row in rows if row.status != "ok"), None)
        self.worst[count] = worst
        if bad is not None:
            self.why[count] = f"{bad.status}: {bad.result.reason}" if bad.result.reason else bad.status
        if bad is None and worst <= self.limit:
            self.fits = max(self.fits, count)
        else:
            self.breaks = count if self.breaks is None else min(self.breaks, count)


def find(search: Search, seeds: range, compute: Callable[[list[Cell]], list[Row]]) -> Search:
    """Run a search to its end. `compute` gives the rows of cells, in any order."""
    while (count := search.next_count) is not None:
        search.learn(count, compute(search.cells(count, seeds)))
    return search


def most_tenants(workload: Workload) -> int:
    """The largest number of tenants that a host may have VMs for."""
    sizes: dict[str, int] = {}
    for vm in workload.vms:
        sizes[vm.instance] = sizes.get(vm.instance, 0) + 1
    counts, total, number = list(sizes.values()), 0, 0
    while total + counts[number % len(counts)] <= MOST_VMS:
        total += counts[number % len(counts)]
        number += 1
    return number
