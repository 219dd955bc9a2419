"""Bars through the executor: all their cells at once, then each target judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field

from hvbench.cell import MEASURED, Cell, CellResult
from hvbench.errors import HvbenchError
from hvbench.executor import run_cells
from hvbench.fidelity.bars import RIGHT, Bar, Verdict
from hvbench.fidelity.numbers import Number, inputs, of_bar
from hvbench.fidelity.stage import Missing, Stage
from hvbench.store import Row, Store
from hvbench.worker import Limits

LIMITS = Limits(hook_s=600.0)
"""Cells with an instrument of a bar's own run in a process that is given up only when it is silent for so long: its
hooks are known to return, and machines may be busy."""

UNEXPLAINED = "outside its tolerance, and nobody has found out why yet"


@define(frozen=True)
class Task:
    """A bar under the model as it is, or under one of its controls."""

    bar: Bar
    model: str = RIGHT


@define
class Outcome:
    """What running tasks gave."""

    verdicts: dict[Task, list[Verdict]] = field(factory=dict)
    interrupted: bool = False
    leftover_threads: int = 0
    computed: int = 0
    wall_s: float = 0.0


def tasks_of(bars: Iterable[Bar], controls: bool) -> list[Task]:
    """The bars themselves, or each of their controls."""
    return [Task(bar, name) for bar in bars for name in (bar.controls if controls else [RIGHT])]


@define
class Prepared:
    """Tasks with their cells, before anything runs."""

    cells: dict[Task, dict[str, Cell]] = field(factory=dict)
    missing: dict[Task, str] = field(factory=dict)

    @property
    def all_cells(self) -> list[Cell]:
        return [cell for mine in self.cells.values() for cell in mine.values()]


def prepare(tasks: Sequence[Task], stage: Stage) -> Prepared:
    """Write the scenarios' files and make their cells; a bar without its policy is kept aside."""
    made = Prepared()
    for task in tasks:
        try:
            made.cells[task] = task.bar.cells(stage, inputs(task.bar.name), task.model)
        except Missing as error:
            made.missing[task] = str(error)
    return made


def run_tasks(
    prepared: Prepared,
    store: Store,
    *,
    jobs: int | None = None,
    fresh: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Outcome:
    """Compute the cells that the store does not hold, and judge. Ctrl-C leaves what is finished in the store."""
    summary = run_cells(prepared.all_cells, store, jobs=jobs, fresh=fresh, limits=LIMITS, on_row=on_row)
    outcome = Outcome(
        interrupted=summary.interrupted,
        leftover_threads=summary.leftover_threads,
        computed=summary.computed,
        wall_s=summary.wall_s,
    )
    for task, cells in prepared.cells.items():
        if all(cell.key in summary.rows for cell in cells.values()):
            outcome.verdicts[task] = judge(task.bar, {k: summary.rows[c.key].result for k, c in cells.items()})
    for task, reason in prepared.missing.items():
        outcome.verdicts[task] = not_run(task.bar, reason)
    return outcome


def judge(bar: Bar, results: Mapping[str, CellResult]) -> list[Verdict]:
    """A verdict on every target of a bar."""
    broken = next(((name, r) for name, r in results.items() if r.status not in MEASURED), None)
    if broken is not None:
        return not_run(bar, f"cell {broken[0]} is {broken[1].status}: {broken[1].reason}")
    simulated = bar.read(results, inputs(bar.name))
    return [verdict(bar, name, number, simulated) for name, number in of_bar(bar.name, "target").items()]


def verdict(bar: Bar, name: str, number: Number, simulated: Mapping[str, float]) -> Verdict:
    """The verdict on one target."""
    if name not in simulated:
        raise HvbenchError(f"{bar.name}: its scenario gives no value for the target {name}")
    assert number.tolerance is not None
    value = simulated[name]
    green = number.tolerance.meets(number.value, value)
    return Verdict(bar.name, number, value, green, "" if green else bar.reasons.get(name, UNEXPLAINED))


def not_run(bar: Bar, reason: str) -> list[Verdict]:
    """Every target of a bar that could not be run: as bad as red."""
    return [Verdict(bar.name, number, None, False, reason) for number in of_bar(bar.name, "target").values()]


def refused(task: Task, verdicts: Sequence[Verdict]) -> list[str]:
    """The targets that a control had to miss and met all the same: where the bar measures nothing."""
    start = len(task.bar.name) + 1
    green = {v.number.id[start:] for v in verdicts if v.green or v.simulated is None}
    return [name for name in task.bar.controls[task.model].fails if name in green]
