"""Sharing of results, against brute force on real cells: what is shared is what would have been computed."""

from __future__ import annotations

import pytest

from hvbench.cell import Cell
from hvbench.choices import DEFAULT, parse_choices
from hvbench.plugins import load_registry
from hvbench.simulate import simulate
from hvbench.workload import load_workload


@pytest.mark.parametrize("scheduler", ["null", "credit"])
@pytest.mark.parametrize("workload", ["build", "web"])
def test_an_axis_that_was_never_asked_cannot_have_mattered(scheduler: str, workload: str) -> None:
    registry = load_registry()
    loaded = load_workload(workload)
    shared = 0
    for axis, texts in (("storage", ("das", "san", "nas")), ("switch", ("bridged", "internal"))):
        found = []
        for text in texts:
            chosen = {a: parse_choices(a, t, registry)[0] for a, t in DEFAULT.items()}
            chosen["scheduler"] = parse_choices("scheduler", scheduler, registry)[0]
            chosen[axis] = parse_choices(axis, text, registry)[0]
            found.append(simulate(Cell(loaded, chosen, 1, loaded.horizon_ns, loaded.warmup_ns)))
        silent = [r for r in found if r.status == "ok" and r.axis_asks[axis] == 0]
        if not silent:
            continue
        # one cell never asked: then nobody was asked, and all are the same to the last digit
        shared += 1
        assert len(silent) == len(found)
        assert all(repr(r.metrics) == repr(silent[0].metrics) for r in silent), (workload, scheduler, axis)
    if workload == "build":
        assert shared, "builds send nothing: the switch is never asked"
