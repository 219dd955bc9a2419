"""What a bar is: a scenario, what is read from its cells, and the wrong models that it must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.numbers import Inputs, Number
from hvbench.fidelity.stage import Stage

RIGHT = ""
"""The model as it is; any other model is the name of a control."""

Cells = Callable[[Stage, Inputs, str], dict[str, Cell]]
"""The scenario: from a stage, the bar's inputs and the name of the model to cells by name. It sees no targets."""

Read = Callable[[Mapping[str, CellResult], Inputs], dict[str, float]]
"""Simulated values by target, from the cells' results."""


@define(frozen=True)
class Control:
    """A deliberately wrong model. It must miss the targets in `fails`, each of them."""

    why: str
    fails: tuple[str, ...]


def present() -> str:
    """Of a bar that needs nothing but what is part of hvbench: nothing is missing."""
    return ""


@define(frozen=True, eq=False)
class Bar:
    """A published measurement as a test of the model.

    `grade` is A (no free parameter), B (calibrated on one set of points, judged on others) or C (shape only).
    `notes` are what a reader must know, `reasons` says of a target that is known not to be met, why. `slow` bars are
    left out of the test suite's everyday run; the command runs them.
    """

    name: str
    title: str
    grade: str
    scenario: str
    cells: Cells
    read: Read
    controls: Mapping[str, Control]
    notes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(factory=dict)
    slow: bool = False
    absent: Callable[[], str] = present
    """Says what the bar needs that is not here (a recording that is no part of hvbench); it is skipped then."""


@define(frozen=True)
class Verdict:
    """A target, what was simulated, and whether that is good enough. `simulated` is None where nothing could be run."""

    bar: str
    number: Number
    simulated: float | None
    green: bool
    reason: str = ""

    @property
    def word(self) -> str:
        """`green`, `RED`, or `NOT RUN`, which is no better."""
        if self.simulated is None:
            return "NOT RUN"
        return "green" if self.green else "RED"
