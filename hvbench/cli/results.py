"""`hvbench results`: stored results again."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.cli import options


@click.command("results")
@click.argument("workloads", nargs=-1)
@options.db_option
@click.option("--run", "run_number", type=int, help="Of this run instead of the last one.")
@click.option("--runs", "list_runs", is_flag=True, help="List the runs.")
@click.option("--every-run", is_flag=True, help="The newest result of every combination, of all runs.")
@click.option(
    "--where", multiple=True, metavar="CONDITION", help="Only rows like scheduler=credit, slowdown_worst<1.5."
)
@click.option("--baseline", metavar="CHOICE", help="Show differences to this choice, the other axes equal.")
@options.table_options
@options.output_option
def results(
    workloads: tuple[str, ...],
    db: Path,
    run_number: int | None,
    list_runs: bool,
    every_run: bool,
    where: tuple[str, ...],
    baseline: str | None,
    rows: int,
    show_all: bool,
    sort: str | None,
    metrics: str | None,
    fmt: str,
    output: Path | None,
) -> int:
    """Show stored results of WORKLOADS (all of them by default), of the last run that finished a cell."""
    from hvbench.drawing import check_format
    from hvbench.errors import UserError
    from hvbench.export import check_output, write_rows
    from hvbench.metrics import cell_metric
    from hvbench.nearest import did_you_mean
    from hvbench.query import parse_where
    from hvbench.store import Store

    check_format(fmt)
    shown = [cell_metric(name).name for name in options.names(metrics)]
    if sort:
        cell_metric(sort)
    if output is not None:
        check_output(output)
    condition = parse_where(where)
    with Store(db, create=False) as store:
        if list_runs:
            _list_runs(store.runs(), fmt)
            return 0
        found = store.all_rows() if every_run else store.run_rows(run_number)
    if not found:
        raise UserError(f"{db}: no finished cell; see hvbench results --runs")
    wanted = [name for text in workloads for name in options.names(text)]
    known = sorted({row.workload for row in found})
    for name in wanted:
        if name not in known:
            raise UserError(f"{db}: no results of workload {name!r}{did_you_mean(name, known, always=True)}")
    kept = [row for row in found if (not wanted or row.workload in wanted) and condition(row)]
    if not kept:
        raise UserError(f"{db}: no result fits the conditions, of {len(found)}")
    if output is not None:
        write_rows(kept, output)
    options.print_reports(
        kept,
        fmt=fmt,
        rows_shown=None if show_all else rows,
        metrics=shown,
        sort=sort,
        baseline=baseline,
    )
    return 0


def _list_runs(runs: list[tuple[int, float, str, int, int]], fmt: str) -> None:
    import datetime

    from hvbench.drawing import draw

    table = [
        [str(number), datetime.datetime.fromtimestamp(start).isoformat(" ", "seconds"), str(cells), str(done), command]
        for number, start, command, cells, done in runs
    ]
    click.echo(draw(["run", "started", "cells", "finished", "command"], table, fmt))
