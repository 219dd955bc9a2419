"""`hvbench run`: one cell, every metric."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hvbench.cli import options


@click.command("run")
@click.argument("workload")
@options.axis_options("choice")
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True, help="The seed.")
@options.db_option
@options.fresh_option
@options.limit_option
@options.format_option
@options.output_option
@click.option("--interpret", is_flag=True, help="Run kernel and policies as plain Python: slow, the same bits.")
@click.option("--pdb", "debug", is_flag=True, help="Stop in the debugger at each hook of the policies from files.")
def run(
    workload: str,
    seed: int,
    db: Path,
    fresh: bool,
    limit_s: float,
    fmt: str,
    output: Path | None,
    interpret: bool,
    debug: bool,
    **axes: str | None,
) -> int:
    """Run WORKLOAD (a name or a file) once, and show every metric, per VM too.

    Where an axis is not named: scheduler credit, memory static, storage das, switch bridged, technique
    hardware, host type1.

    With --pdb the cell runs interpreted and in this process, stops at every hook of policies that were given as files
    (of all chosen policies where none was), and its result is not stored.
    """
    if interpret or debug:
        os.environ["HVBENCH_INTERPRET"] = "1"  # for this process and its workers, before anything is compiled
    from hvbench.axes import AXES
    from hvbench.cell import Cell
    from hvbench.choices import DEFAULT, parse_choice
    from hvbench.drawing import check_format
    from hvbench.executor import leave, run_cells
    from hvbench.export import check_output, write_rows
    from hvbench.store import Store
    from hvbench.tables import cell_report, exit_code
    from hvbench.worker import Limits
    from hvbench.workload import load_workload

    check_format(fmt)
    if output is not None:
        check_output(output)
    loaded = load_workload(workload)
    registry = options.installed()
    choices = {axis: parse_choice(axis, axes.get(axis) or DEFAULT[axis], registry) for axis in AXES}
    cell = Cell(loaded, choices, seed, loaded.horizon_ns, loaded.warmup_ns)
    if debug:
        from hvbench.debugger import step_through

        row = step_through(cell)
        click.echo(cell_report(row, fmt))
        return exit_code([row])
    with Store(db) as store:
        store.begin_run(options.command_line(), [cell.key])
        summary = run_cells([cell], store, jobs=1, fresh=fresh, limits=Limits(hook_s=limit_s))
    found = list(summary.rows.values())
    if summary.interrupted:
        click.echo("hvbench: interrupted", err=True)
        leave(130, summary.leftover_threads)
    if output is not None:
        write_rows(found, output)
    for row in found:
        click.echo(cell_report(row, fmt))
    return exit_code(found)
