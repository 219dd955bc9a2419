"""`hvbench fidelity`: published measurements against the model."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.cli import options
from hvbench.cli.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hvbench.fidelity.bars import Bar
    from hvbench.fidelity.run import Outcome


@click.command("fidelity")
@click.argument("bars", nargs=-1, metavar="[BAR]...")
@click.option("--controls", is_flag=True, help="Run the deliberately wrong models instead; each must be refused.")
@click.option("--list", "listed", is_flag=True, help="List the bars; run nothing.")
@click.option(
    "--write", type=click.Path(path_type=Path, file_okay=False), help="Keep the scenarios' workloads and traces here."
)
@click.option("--jobs", type=click.IntRange(min=1), help="Cells computed at once.  [default: one a CPU]")
@options.db_option
@options.fresh_option
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
@options.format_option
def fidelity(
    bars: tuple[str, ...],
    controls: bool,
    listed: bool,
    write: Path | None,
    jobs: int | None,
    db: Path,
    fresh: bool,
    as_json: bool,
    fmt: str,
) -> int:
    """Run the scenarios of published measurements (all BARs by default) and judge what the model says.

    The table shows for each target the published value, the simulated one, the tolerance that was fixed beforehand,
    the verdict and the source. A target that is not met is RED, with the reason.

    Exit code: 0 where every target is met (with --controls: where every wrong model is refused), 1 where one is not,
    2 for bad input.
    """
    from hvbench.drawing import check_format
    from hvbench.executor import leave
    from hvbench.fidelity import report
    from hvbench.fidelity.registry import chosen
    from hvbench.fidelity.run import prepare, run_tasks, tasks_of
    from hvbench.fidelity.stage import Stage
    from hvbench.store import Store

    check_format(fmt)
    wanted = chosen(bars)
    if listed:
        click.echo(report.bar_list(wanted, fmt))
        return 0
    skipped = {bar.name: bar.absent() for bar in wanted if bar.absent()}
    wanted = [bar for bar in wanted if bar.name not in skipped]
    for name, reason in skipped.items():
        click.echo(f"hvbench: {name} is skipped: {reason}", err=True)
    with _folder(write) as folder, Store(db) as store:
        prepared = prepare(tasks_of(wanted, controls), Stage(folder, options.installed()))
        with Progress(len({cell.key for cell in prepared.all_cells})) as progress:
            outcome = run_tasks(prepared, store, jobs=jobs, fresh=fresh, on_row=progress.step)
    if as_json:
        click.echo(report.as_json(wanted, outcome))
    elif outcome.verdicts:
        show = report.controls_report if controls else report.bars_report
        click.echo(show(wanted, outcome, fmt))
    if outcome.interrupted:
        click.echo(f"hvbench: interrupted; finished cells are kept in {db}", err=True)
        leave(130, outcome.leftover_threads)
    return _exit_code(wanted, outcome, controls)


def _exit_code(bars: Sequence[Bar], outcome: Outcome, controls: bool) -> int:
    from hvbench.fidelity.run import Task, refused

    if controls:
        return int(any(refused(task, verdicts) for task, verdicts in outcome.verdicts.items()))
    return int(not all(v.green for bar in bars for v in outcome.verdicts[Task(bar)]))


@contextlib.contextmanager
def _folder(write: Path | None) -> Iterator[Path]:
    """Where the scenarios' files go: a temporary folder unless the user wants to keep them."""
    from hvbench.errors import UserError

    if write is None:
        with tempfile.TemporaryDirectory(prefix="hvbench-fidelity-") as made:
            yield Path(made)
        return
    try:
        write.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{write}: cannot be made: {error.strerror}") from error
    yield write
