"""`hvbench density`: how many tenants a host carries."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.axes import MOST_SEEDS
from hvbench.cli import options
from hvbench.cli.progress import Progress

if TYPE_CHECKING:
    from hvbench.density import Search


@click.command("density")
@click.argument("workload")
@options.axis_options("choices")
@click.option(
    "--limit-slowdown",
    type=click.FloatRange(min=1, min_open=True),
    callback=options.number,
    default=1.5,
    show_default=True,
    help="Worst slowdown of any VM, in any seed, that is still good.",
)
@click.option("--most", type=click.IntRange(min=1), help="Look no further than this.  [default: 1024 VMs]")
@click.option("--seeds", type=click.IntRange(1, MOST_SEEDS), default=1, show_default=True, help="Run seeds 1 to N.")
@click.option("--jobs", type=click.IntRange(min=1), help="Cells computed at once.  [default: one a CPU]")
@options.db_option
@options.fresh_option
@options.limit_option
@options.format_option
def density(
    workload: str,
    limit_slowdown: float,
    most: int | None,
    seeds: int,
    jobs: int | None,
    db: Path,
    fresh: bool,
    limit_s: float,
    fmt: str,
    **axes: str | None,
) -> int:
    """The most tenants of WORKLOAD at which no VM is slowed down too much.

    A tenant is a VM of the workload (or the VMs that replay one recording together); they are added in the file's
    order, and over again. Every combination of the choices is searched by doubling and halving. Where an axis is not
    named it has the default of `hvbench run`.
    """
    from hvbench.axes import AXES
    from hvbench.choices import DEFAULT
    from hvbench.density import Search, most_tenants
    from hvbench.drawing import check_format
    from hvbench.executor import leave, run_cells
    from hvbench.matrix import choose
    from hvbench.store import Store
    from hvbench.worker import Limits
    from hvbench.workload import load_workload

    check_format(fmt)
    loaded = load_workload(workload)
    most = min(most or MOST_SEEDS, most_tenants(loaded))
    choices = choose(options.installed(), {axis: (axes.get(axis) or DEFAULT[axis], Path()) for axis in AXES})
    searches = [
        Search(loaded, dict(zip(AXES, combination, strict=True)), limit_slowdown, most)
        for combination in itertools.product(*(choices[axis] for axis in AXES))
    ]
    span = range(1, seeds + 1)
    with Store(db) as store, Progress(0) as progress:
        # A round tries one count for every combination that is still open, so that all CPUs have work.
        while open_ones := [(s, s.next_count) for s in searches if s.next_count is not None]:
            cells = {id(search): search.cells(count, span) for search, count in open_ones if count is not None}
            every = [cell for some in cells.values() for cell in some]
            progress.more(len({cell.key for cell in every}))
            store.begin_run(options.command_line(), [cell.key for cell in every])
            summary = run_cells(
                every, store, jobs=jobs, fresh=fresh, limits=Limits(hook_s=limit_s), on_row=progress.step
            )
            if summary.interrupted:
                click.echo(f"hvbench: interrupted; finished cells are kept in {db}", err=True)
                leave(130, summary.leftover_threads)
            for search, count in open_ones:
                if count is not None:
                    search.learn(count, [summary.rows[cell.key] for cell in cells[id(search)]])
    click.echo(_report(searches, limit_slowdown, fmt))
    return 0


def _report(searches: list[Search], limit: float, fmt: str) -> str:
    """Best combination first."""
    from hvbench.axes import AXES
    from hvbench.drawing import draw

    varied = [axis for axis in AXES if len({s.choices[axis].label for s in searches}) > 1]
    rows = []
    for search in sorted(searches, key=lambda s: -s.fits):
        beyond = search.breaks
        reason = "" if beyond is None else search.why.get(beyond, f"worst slowdown {search.worst[beyond]:.3g}")
        rows.append(
            [
                *(search.choices[axis].label for axis in varied),
                str(search.fits),
                f"{search.worst[search.fits]:.3g}" if search.fits else "",
                f"{beyond}: {reason}" if beyond is not None else f"not reached with {search.most}",
            ]
        )
    head = searches[0]
    fixed = ", ".join(f"{axis} {head.choices[axis].label}" for axis in AXES if axis not in varied)
    table = draw([*varied, "tenants", "worst slowdown", "what ends it"], rows, fmt)
    title = f"{head.workload.name}: the most tenants with a worst slowdown of {limit:g} or less"
    note = "Found by doubling and halving: that more tenants never help is assumed."
    return f"{title}\nthe same in all: {fixed}\n\n{table}\n{note}"
