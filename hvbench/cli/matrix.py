"""`hvbench matrix`: workloads against every combination of policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.axes import AXES, MOST_SEEDS
from hvbench.cli import options
from hvbench.cli.progress import Progress
from hvbench.words import plural

if TYPE_CHECKING:
    from hvbench.cell import Cell, Choice
    from hvbench.store import Store
    from hvbench.workload import Workload


@click.command("matrix")
@click.argument("workloads", nargs=-1)
@options.axis_options("choices")
@click.option("--seeds", type=click.IntRange(1, MOST_SEEDS), help="Run seeds 1 to N.  [default: 1]")
@click.option("--jobs", type=click.IntRange(min=1), help="Cells computed at once.  [default: one a CPU]")
@options.db_option
@options.fresh_option
@click.option("--dry-run", is_flag=True, help="Say how many cells, how long and how much memory; compute nothing.")
@click.option(
    "--no-share", is_flag=True, help="Compute cells even where an axis that was never asked makes them equal."
)
@options.limit_option
@options.table_options
@options.output_option
@click.pass_context
def matrix(
    ctx: click.Context,
    workloads: tuple[str, ...],
    seeds: int | None,
    jobs: int | None,
    db: Path,
    fresh: bool,
    dry_run: bool,
    no_share: bool,
    limit_s: float,
    rows: int,
    show_all: bool,
    sort: str | None,
    metrics: str | None,
    fmt: str,
    output: Path | None,
    **axes: str | None,
) -> int:
    """Run WORKLOADS against the product of the choices on each axis, and show the best and the worst.

    WORKLOADS are names or files, separated by commas; micro, memory or all bundled ones; or one study.toml.

    Choices: `,` separates, `+` stacks memory policies, `:` sets parameters, braces sweep, `all` is every
    installed policy, a file is written ./mine.py: --scheduler "credit,credit:timeslice={1,5,30}ms,./mine.py"
    (quoted, because shells expand braces).

    Exit code: 0 (refused cells included), 1 where a policy was illegal, stalled, hung or failed, 2 for bad
    input.
    """
    from hvbench.axes import AXES
    from hvbench.choices import STANDARD
    from hvbench.drawing import check_format
    from hvbench.errors import UserError
    from hvbench.executor import default_jobs, leave, run_cells
    from hvbench.export import check_output, write_rows
    from hvbench.matrix import Study, choose, is_study, load_study, load_workloads, make_cells
    from hvbench.metrics import cell_metric
    from hvbench.store import Store
    from hvbench.tables import exit_code
    from hvbench.worker import Limits

    check_format(fmt)
    shown = [cell_metric(name).name for name in options.names(metrics)]
    if sort:
        cell_metric(sort)
    if output is not None:
        check_output(output)
    given = [name for text in workloads for name in options.names(text)]
    if workloads and not given:
        raise UserError("the names of the workloads are empty; leave them out for the bundled micro ones")
    for text in workloads:
        if "=" in text:
            raise UserError(f"{text!r} is no workload; put a sweep in quotes: the shell has expanded its braces")
    study = Study()
    if len(given) == 1 and given[0].endswith(".toml") and is_study(Path(given[0])):
        study, given = load_study(Path(given[0])), []
    loaded = load_workloads(given) if given else load_workloads(study.workloads or ("micro",), study.base)
    wanted = {axis: (STANDARD[axis], Path()) for axis in AXES}
    wanted |= {axis: (text, study.base) for axis, text in study.axes.items()}
    wanted |= {axis: (text, Path()) for axis, text in axes.items() if text is not None}
    choices = choose(options.installed(), wanted)
    cells = make_cells(loaded, choices, range(1, (seeds or study.seeds or 1) + 1))
    jobs = jobs or default_jobs()

    if dry_run:
        _dry_run(loaded, choices, cells, db, fresh, jobs)
        return 0

    with Store(db) as store:
        store.begin_run(options.command_line(), [cell.key for cell in cells])
        with Progress(len({cell.key for cell in cells})) as progress:
            summary = run_cells(
                cells,
                store,
                jobs=jobs,
                fresh=fresh,
                share=not no_share,
                limits=Limits(hook_s=limit_s),
                on_row=progress.step,
            )
    found = [summary.rows[cell.key] for cell in cells if cell.key in summary.rows]
    if found:
        if output is not None:
            write_rows(found, output)
        options.print_reports(
            found,
            fmt=fmt,
            rows_shown=None if show_all else rows,
            metrics=shown,
            sort=sort,
            about={workload.name: _about(workload) for workload in loaded},
        )
    click.echo(
        f"\n{plural(summary.computed, 'cell')} computed, {summary.shared} shared, {summary.stored} from {db}, "
        f"in {summary.wall_s:.1f} s.",
        err=True,
    )
    if summary.interrupted:
        click.echo(f"hvbench: interrupted; {len(found)} of {len(cells)} cells are kept in {db}", err=True)
        leave(130, summary.leftover_threads)
    return exit_code(found)


def _about(workload: Workload) -> str:
    return f"{workload.klass}, {workload.settings.replay} loop"


def _dry_run(
    loaded: list[Workload],
    choices: dict[str, list[Choice]],
    cells: list[Cell],
    db: Path,
    fresh: bool,
    jobs: int,
) -> None:
    """What a run would do: cells, expected time, memory."""
    from hvbench.executor import expected_s
    from hvbench.matrix import memory_bytes
    from hvbench.store import Store
    from hvbench.units import format_size

    product = " × ".join(f"{len(choices[axis])} {axis}" for axis in AXES)
    for workload in loaded:
        click.echo(f"{workload.name}: {plural(sum(cell.workload is workload for cell in cells), 'cell')} ({product})")
    known: set[str] = set()
    means: dict[str, float] = {}
    if db.exists():
        with Store(db, create=False) as store:
            means = store.mean_wall_s()
            known = set() if fresh else set(_known(store, cells))
    left = [cell for cell in cells if cell.key not in known]
    click.echo(f"{plural(len(cells), 'cell')} in all, {len(known)} of them in {db}, {len(left)} to compute")
    seconds = expected_s(left, means, jobs)
    if seconds is None:
        new = sorted({cell.workload.name for cell in left} - set(means))
        click.echo(f"expected time: not known, because no cell of {', '.join(new)} was computed yet")
    else:
        click.echo(f"expected time: {seconds:.1f} s at {plural(jobs, 'cell')} at once, by the mean of the cells so far")
    need = max((memory_bytes(workload) for workload in loaded), default=0)
    click.echo(f"expected memory: about {format_size(jobs * need >> 20 << 20)} for {plural(jobs, 'cell')} at once")


def _known(store: Store, cells: list[Cell]) -> list[str]:
    return list(store.get({cell.key for cell in cells}))
