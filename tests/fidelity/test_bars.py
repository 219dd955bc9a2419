"""Every bar: its targets are met, or red for a stated reason; and every wrong model misses what it has to miss."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.fidelity.numbers import of_bar
from hvbench.fidelity.registry import BARS
from hvbench.fidelity.run import Task, refused
from tests.fidelity.conftest import Runs


def marked(bar: str) -> tuple[Any, ...]:
    absent = BARS[bar].absent()
    skipped = (pytest.mark.skip(absent),) if absent else ()
    return (pytest.mark.slow, *skipped) if BARS[bar].slow else skipped


TARGETS = [
    pytest.param(bar, name, id=number.id, marks=marked(bar))
    for bar in BARS
    for name, number in of_bar(bar, "target").items()
]
CONTROLS = [
    pytest.param(bar.name, control, id=f"{bar.name}-{control}", marks=marked(bar.name))
    for bar in BARS.values()
    for control in bar.controls
]


@pytest.mark.parametrize(("bar", "target"), TARGETS)
def test_target(runs: Runs, bar: str, target: str) -> None:
    number = of_bar(bar, "target")[target]
    verdict = next(v for v in runs.verdicts(bar, "") if v.number == number)
    assert verdict.simulated is not None, verdict.reason
    if target in BARS[bar].reasons:
        assert not verdict.green, f"{number.id} is met now ({verdict.simulated:g}): remove its reason"
        assert verdict.reason == BARS[bar].reasons[target]
    else:
        assert verdict.green, f"published {number.value:g}, simulated {verdict.simulated:g} ({number.tolerance})"


@pytest.mark.parametrize(("bar", "control"), CONTROLS)
def test_control(runs: Runs, bar: str, control: str) -> None:
    """A bar that a wrong model passes measures nothing."""
    task = Task(BARS[bar], control)
    verdicts = runs.verdicts(bar, control)
    assert all(v.simulated is not None for v in verdicts), verdicts[0].reason
    assert refused(task, verdicts) == []


def test_every_bar_has_a_control_that_misses_a_target() -> None:
    for bar in BARS.values():
        assert bar.controls, bar.name
        for name, control in bar.controls.items():
            assert control.fails, name
            assert set(control.fails) <= set(of_bar(bar.name, "target")), name


def test_reasons_are_of_targets() -> None:
    for bar in BARS.values():
        assert set(bar.reasons) <= set(of_bar(bar.name, "target"))


def test_the_calibration_points_of_the_cache_model_are_reproduced(runs: Runs) -> None:
    """What fixed the two parameters comes out again, to the precision of the figure."""
    from hvbench.fidelity.fb1 import BAR
    from hvbench.fidelity.numbers import inputs
    from hvbench.simulate import simulate

    cells = BAR.cells(runs.stage, inputs("FB1"), "")
    results = {name: simulate(cells[name]) for name in ("5ms.n1", "5ms.n4", "5ms.n128")}
    values = BAR.read(results, inputs("FB1"))
    assert values["5ms.n4"] == pytest.approx(inputs("FB1")["5ms.n4"], abs=0.005)
    assert values["5ms.n128"] == pytest.approx(inputs("FB1")["5ms.n128"], abs=0.005)


@pytest.mark.slow
def test_the_disk_demand_is_the_best_fit_to_the_unweighted_curve(runs: Runs) -> None:
    from hvbench.fidelity import fb5
    from hvbench.fidelity.numbers import inputs

    errors = fb5.fit(runs.stage)
    assert min(errors, key=lambda demand: errors[demand]) == inputs("FB5")["b.demand"]


def test_a_disk_that_is_wanted_levels_weights(runs: Runs) -> None:
    """The mechanism behind FB5 (b), whatever the fit says: the more disk, the less the weights count."""
    from hvbench.fidelity import fb5

    ratios = [fb5.ratio(runs.stage, demand) for demand in (0.01, 0.2, 0.4, 0.8)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 7 and ratios[-1] < 1.5
