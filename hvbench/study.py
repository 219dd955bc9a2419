"""Which axis matters most, and under what pressure: a matrix at every point of a grid of overcommitments.

The question that hvbench began with: is a hypervisor made faster "just by changing memory management policies"? At
each point (vCPUs a pCPU, memory promised over memory there) two factorials are run: the policies (schedulers ×
memory policies, on fixed equipment) and the equipment (storage × switch × technique × host, under fixed policies). They
are analysed apart, per workload, on the logarithm of slowdown; see `hvbench.stats`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from attrs import define

from hvbench import stats
from hvbench.axes import AXES, EQUIPMENT_AXES, POLICY_AXES
from hvbench.cell import MEASURED, Cell, Choice
from hvbench.errors import UserError
from hvbench.matrix import make_cells
from hvbench.pressure import at_pressure, cpu_overcommit
from hvbench.store import Row
from hvbench.workload import Workload

CPU_OVERCOMMIT = (0.5, 1.0, 2.0, 4.0)
MEMORY_OVERCOMMIT = (0.7, 1.0, 1.3, 1.6)

MATERIAL = stats.MATERIAL
SLOWDOWN = stats.RESPONSES[0]

INTERACTION: stats.Effect = POLICY_AXES


@define(frozen=True)
class Point:
    """One workload at one pressure."""

    workload: Workload
    base: str
    cpu: float
    memory: float
    touched: bool = False
    """Whether `memory` counts what the VMs touch instead of what they are configured with."""


@define(frozen=True)
class Effect:
    """What an axis does at a point: its worst choice over its best (others averaged), and which these are."""

    ratio: float
    best: str
    worst: str


@define(frozen=True)
class Finding:
    """What was measured at a point. Shares are of the variance of log response over the policies."""

    point: Point
    cpu_reached: float
    policies: stats.Design | None
    policy_cells: int
    shares: dict[stats.Effect, stats.Share]
    effects: dict[str, Effect]
    statuses: dict[str, int]
    response: str = SLOWDOWN

    @property
    def strongest(self) -> str:
        """The policy axis that does more: "scheduler", "memory"; "neither" where both are immaterial; "" unmeasured."""
        known = [axis for axis in POLICY_AXES if axis in self.effects]
        if len(known) < len(POLICY_AXES):
            return ""
        top = max(known, key=lambda axis: self.effects[axis].ratio)
        return top if self.is_material(top) else "neither"

    def is_material(self, axis: str) -> bool:
        """Whether a choice on the axis decides anything here."""
        return axis in self.effects and self.effects[axis].ratio >= MATERIAL[self.response]


def grid(
    workloads: Iterable[Workload],
    cpus: Sequence[float],
    memories: Sequence[float],
    touched_pages: Mapping[str, int] | None = None,
) -> list[Point]:
    """Every workload at every pressure; with `touched_pages` of each, memory is counted against these."""
    touched = touched_pages or {}
    return [
        Point(
            at_pressure(workload, cpu, memory, touched.get(workload.name)),
            workload.name,
            cpu,
            memory,
            workload.name in touched,
        )
        for workload in workloads
        for cpu, memory in itertools.product(cpus, memories)
    ]


def cells_of(
    point: Point,
    choices: Mapping[str, Sequence[Choice]],
    fixed: Mapping[str, Choice],
    seeds: Iterable[int],
) -> list[Cell]:
    """The cells of a point: the policies on the fixed equipment, the equipment under the fixed policies."""
    seeds = list(seeds)
    cells: dict[str, Cell] = {}
    for varied in (POLICY_AXES, EQUIPMENT_AXES):
        levels = {axis: list(choices[axis]) if axis in varied else [fixed[axis]] for axis in AXES}
        for cell in make_cells([point.workload], levels, seeds):
            cells.setdefault(cell.key, cell)
    return list(cells.values())


def roomy_cell(workload: Workload, static: Mapping[str, Choice]) -> Cell:
    """The cell that says what the VMs touch: memory for all that they are configured with, and a policy that leaves
    it to them."""
    made = at_pressure(workload, cpu_overcommit(workload), 1.0)
    return Cell(made, dict(static), 1, made.horizon_ns, made.warmup_ns)


def touched_pages(workload: Workload, row: Row | None) -> int:
    """Machine pages that the VMs of a roomy cell held together, averaged over what was measured. UserError without."""
    if row is None or row.status not in MEASURED:
        why = "interrupted" if row is None else f"{row.status}, {row.result.reason}"
        raise UserError(f"{workload.name}: what its VMs touch was not measured: {why}")
    return math.ceil(row.result.metrics["resident_pages_avg"])


def responses_of(rows: Iterable[Row]) -> list[str]:
    """What can be analysed: slowdown where it was measured, the response time of requests where they are marked."""
    known = {name for row in rows for name in row.result.metrics}
    return [name for name in stats.RESPONSES if name in known] or [SLOWDOWN]


def analyse(point: Point, rows: Sequence[Row], fixed: Mapping[str, Choice], response: str = SLOWDOWN) -> Finding:
    """Read what the cells of a point say of a response (one of `stats.RESPONSES`)."""
    rows = [row for row in rows if not row.control]
    apart = {varied: _only(rows, varied, fixed) for varied in (POLICY_AXES, EQUIPMENT_AXES)}
    effects: dict[str, Effect] = {}
    designs = {varied: stats.build_design(same, response) for varied, same in apart.items()}
    for varied, design in designs.items():
        if design is None:
            continue
        for axis in varied:
            if len(design.levels[axis]) > 1:
                means = stats.choice_means(design, axis)
                effects[axis] = Effect(means[-1].ratio, means[0].choice, means[-1].choice)
    policies = designs[POLICY_AXES]
    shares = {} if policies is None else {s.effect: s for s in stats.shares_with_ranges(policies.over(POLICY_AXES))}
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row.status] = statuses.get(row.status, 0) + 1
    return Finding(
        point, cpu_overcommit(point.workload), policies, len(apart[POLICY_AXES]), shares, effects, statuses, response
    )


def _only(rows: Iterable[Row], varied: Sequence[str], fixed: Mapping[str, Choice]) -> list[Row]:
    """The rows in which every axis but the varied ones is at its fixed choice."""
    held = {axis: fixed[axis].label for axis in AXES if axis not in varied}
    return [row for row in rows if all(row.labels[axis] == label for axis, label in held.items())]


# --- what it comes to ----------------------------------------------------------------------------------


def verdict(findings: Sequence[Finding]) -> list[str]:
    """The answer in sentences: per workload, where memory policy matters most, where the scheduler, where neither."""
    said = []
    for same in together(findings):
        where = {name: [f for f in same if f.strongest == name] for name in ("memory", "scheduler", "neither", "")}
        parts = [
            f"{text} at {len(where[name])} ({_range(where[name])})"
            for name, text in (
                ("memory", "memory policy matters most"),
                ("scheduler", "the scheduler matters most"),
                ("neither", f"neither makes {100 * (MATERIAL[same[0].response] - 1):.0f} %"),
                ("", "too few cells were measured"),
            )
            if where[name]
        ]
        said.append(f"{subject(same)}: of {len(same)} points, {'; '.join(parts)}.")
        equipment = _largest_equipment(same)
        if equipment:
            said.append(equipment)
    return said


def together(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings by workload and response, in the order in which they come."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.point.base, finding.response), []).append(finding)
    return list(found.values())


def subject(same: Sequence[Finding]) -> str:
    """What findings of one workload and response speak of."""
    return same[0].point.base + ("" if same[0].response == SLOWDOWN else ", p99 response time")


def _range(findings: Sequence[Finding]) -> str:
    """At which pressures: `cpu 2 to 4, memory 1 to 1.6`."""
    ends = []
    for name, values in (
        ("cpu", [f.point.cpu for f in findings]),
        ("memory", [f.point.memory for f in findings]),
    ):
        low, high = min(values), max(values)
        ends.append(f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}")
    return ", ".join(ends)


def _largest_equipment(findings: Sequence[Finding]) -> str:
    """How the policies' effects compare with what the machine itself does."""
    more, known = 0, 0
    for finding in findings:
        policy = max((finding.effects[a].ratio for a in POLICY_AXES if a in finding.effects), default=math.nan)
        other = max((finding.effects[a].ratio for a in EQUIPMENT_AXES if a in finding.effects), default=math.nan)
        if not math.isnan(policy + other):
            known += 1
            more += other > policy
    if not known:
        return ""
    said = f"at {more} of {known} points some choice of equipment does more than any choice of policy"
    return f"{subject(findings)}: {said}."


def measured(finding: Finding) -> int:
    """How many cells of the point were measured."""
    return sum(count for status, count in finding.statuses.items() if status in MEASURED)
