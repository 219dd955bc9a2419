"""The deliberately bad policies are worst where they say so: the benchmark can tell bad from good."""

from __future__ import annotations

import math

import pytest

from hvbench.cell import Cell, CellResult, Choice
from hvbench.choices import DEFAULT, parse_choices
from hvbench.metrics import cell_metric
from hvbench.plugins import Policy, Registry, load_registry
from hvbench.simulate import simulate
from hvbench.workload import load_workload

REGISTRY: Registry = load_registry()
CONTROLS = [p for axis in ("scheduler", "memory", "storage", "switch") for p in REGISTRY.axis(axis) if p.control]
STATED = [(p, workload, metric) for p in CONTROLS for workload, metric in p.control.worst_on.items()]
AGAINST = {
    "scheduler": "all",
    "memory": "balloon,overcommit,overcommit+balloon,page-sharing",
    "storage": "das,nas,san",
    "switch": "internal,bridged",
}
"""What a control competes with on its axis; other axes are at what `hvbench run` takes."""


def choices_of(axis: str, text: str) -> list[Choice]:
    return parse_choices(axis, text, REGISTRY)


def result(workload: str, axis: str, choice: Choice) -> CellResult:
    loaded = load_workload(workload)
    chosen = {a: choices_of(a, text)[0] for a, text in DEFAULT.items()}
    chosen[axis] = choice
    return simulate(Cell(loaded, chosen, 1, loaded.horizon_ns, loaded.warmup_ns))


def badness(found: CellResult, metric: str) -> float:
    """How bad a cell is, larger is worse; a stalled one is worst of all, a refused one does not count."""
    if found.status == "stalled":
        return math.inf
    value = float(found.metrics.get(metric, math.nan))
    return value if cell_metric(metric).direction == "lower" else 1 / value


def test_there_is_one_control_on_each_decision_axis() -> None:
    assert sorted(p.axis for p in CONTROLS) == ["memory", "scheduler", "storage", "switch"]
    assert all(p.control.worst_on and p.control.why for p in CONTROLS)


@pytest.mark.parametrize(
    ("policy", "workload", "metric"), STATED, ids=[f"{p.name}-{w}-{m}" for p, w, m in STATED]
)
def test_a_control_is_worst_by_its_margin(policy: Policy, workload: str, metric: str) -> None:
    axis = policy.axis
    assert not any(p.control for c in choices_of(axis, "all") for p, _ in c.policies), "controls are no part of all"
    bad = badness(result(workload, axis, choices_of(axis, policy.name)[0]), metric)
    others = {c.label: result(workload, axis, c) for c in choices_of(axis, AGAINST[axis])}
    measured = {label: badness(r, metric) for label, r in others.items() if r.status == "ok"}
    assert measured, {label: r.reason for label, r in others.items()}
    worst = max(measured.values())
    assert bad >= worst * (1 + policy.control.margin), (bad, measured)
