"""`hvbench study`: questions that take a matrix at every pressure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.axes import MOST_SEEDS
from hvbench.cli import options
from hvbench.cli.progress import Progress
from hvbench.words import plural

if TYPE_CHECKING:
    from hvbench.study import Finding

STANDARD_STUDY = {
    "scheduler": "credit,credit2,eevdf,cosched-relaxed",
    "memory": "balloon+overcommit,idle-tax+overcommit,ksm+overcommit,esx,overcommit",
    "storage": "das,nas",
    "switch": "bridged",
    "technique": "para,hardware",
    "host": "type1,type2",
}
"""What is compared where nothing is chosen. Memory policies are those that start at every pressure: each has the
hypervisor's swap below it."""


TOUCHED_RATIO = ":ratio_percent=10000"
"""Against what they touch, VMs may be promised many times what there is; admission is not what is asked here."""
STANDARD_TOUCHED = ",".join(stack + TOUCHED_RATIO for stack in STANDARD_STUDY["memory"].split(","))


def _ratios(_: click.Context, option: click.Parameter, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or not all(0 < value <= 1_000 for value in found):
        raise click.BadParameter(f"{text!r} is no list of ratios above 0, such as 0.5,1,2", param=option)
    return sorted(set(found))


@click.group("study")
def study() -> None:
    """Answer a question by a matrix at every pressure."""


@study.command("seed")
@click.argument("workloads", nargs=-1)
@options.axis_options("choices")
@click.option("--cpu", callback=_ratios, default="0.5,1,2,4", show_default=True, help="vCPUs a pCPU.")
@click.option(
    "--overcommit",
    callback=_ratios,
    default="0.7,1,1.3,1.6",
    show_default=True,
    help="The VMs' needs of memory over what the host has for them.",
)
@click.option(
    "--memory-of",
    type=click.Choice(["configured", "touched"]),
    default="configured",
    show_default=True,
    help="A VM's need: what it is configured with, or what it touches where nothing is taken from it.",
)
@click.option("--seeds", type=click.IntRange(1, MOST_SEEDS), default=1, show_default=True, help="Run seeds 1 to N.")
@click.option("--jobs", type=click.IntRange(min=1), help="Cells computed at once.  [default: one a CPU]")
@options.db_option
@options.fresh_option
@options.limit_option
@options.format_option
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw it: .png, .svg or .pdf.")
@click.option("--dry-run", is_flag=True, help="Say how many cells it takes; compute nothing.")
def seed(
    workloads: tuple[str, ...],
    cpu: list[float],
    overcommit: list[float],
    memory_of: str,
    seeds: int,
    jobs: int | None,
    db: Path,
    fresh: bool,
    limit_s: float,
    fmt: str,
    picture: Path | None,
    dry_run: bool,
    **axes: str | None,
) -> int:
    """Does memory policy matter most?

    WORKLOADS (names or files; memory, micro or all; default: all) run at every pair of --cpu and --overcommit:
    schedulers × memory policies on fixed equipment, and storage × switch × technique × host under fixed policies. What
    is fixed is the first choice of its axis, for storage, switch, technique and host, and credit and
    balloon+overcommit. Both slowdown and, where requests are marked, their p99 response time are analysed.
    """
    from hvbench.axes import AXES
    from hvbench.choices import parse_choice
    from hvbench.drawing import check_format
    from hvbench.executor import leave, run_cells
    from hvbench.matrix import choose, load_workloads
    from hvbench.picture import check_picture, draw_study
    from hvbench.store import Store
    from hvbench.study import analyse, cells_of, grid, responses_of, roomy_cell, together, touched_pages, verdict
    from hvbench.tables import exit_code
    from hvbench.worker import Limits

    check_format(fmt)
    if picture is not None:
        check_picture(picture)
    loaded = load_workloads([name for text in workloads for name in options.names(text)] or ["all"])
    registry = options.installed()
    touched = memory_of == "touched"
    standard = STANDARD_STUDY | ({"memory": STANDARD_TOUCHED} if touched else {})
    texts = {axis: axes.get(axis) or standard[axis] for axis in AXES}
    choices = choose(registry, {axis: (text, Path()) for axis, text in texts.items()})
    fixed = {axis: choices[axis][0] for axis in AXES} | {
        "scheduler": parse_choice("scheduler", "credit", registry),
        "memory": parse_choice("memory", "balloon+overcommit" + (TOUCHED_RATIO if touched else ""), registry),
        "technique": parse_choice("technique", "hardware", registry),
    }
    static = fixed | {"memory": parse_choice("memory", "static", registry)}
    needs: dict[str, int] = {}
    if touched and not dry_run:
        roomy = {workload.name: roomy_cell(workload, static) for workload in loaded}
        with Store(db) as store:
            found = run_cells(list(roomy.values()), store, jobs=jobs, limits=Limits(hook_s=limit_s)).rows
        for workload in loaded:
            pages = touched_pages(workload, found.get(roomy[workload.name].key))
            configured = sum(vm.spec.memory_pages for vm in workload.vms)
            click.echo(f"{workload.name}: its VMs touch {pages // 256} of the {configured // 256} MiB configured")
            needs[workload.name] = pages
    points = grid(loaded, cpu, overcommit, needs)
    cells = {point: cells_of(point, choices, fixed, range(1, seeds + 1)) for point in points}
    every = [cell for some in cells.values() for cell in some]
    if dry_run:
        where = f"{plural(len(loaded), 'workload')} at {plural(len(cpu) * len(overcommit), 'point')}"
        click.echo(f"{where}: {plural(len(every), 'cell')}")
        return 0
    with Store(db) as store:
        store.begin_run(options.command_line(), [cell.key for cell in every])
        with Progress(len({cell.key for cell in every})) as progress:
            summary = run_cells(
                every, store, jobs=jobs, fresh=fresh, limits=Limits(hook_s=limit_s), on_row=progress.step
            )
    findings = []
    for point in points:
        rows = [summary.rows[cell.key] for cell in cells[point] if cell.key in summary.rows]
        findings += [analyse(point, rows, fixed, response) for response in responses_of(rows) if rows]
    for same in together(findings):
        click.echo(_table(same, fmt) + "\n")
    click.echo("Does memory policy matter most?\n" + "\n".join(f"- {sentence}" for sentence in verdict(findings)))
    click.echo(_what_it_cannot_say(findings, seeds))
    if picture is not None and findings:
        draw_study(findings, picture)
    if summary.interrupted:
        click.echo(f"hvbench: interrupted; {len(summary.rows)} of {len(every)} cells are kept in {db}", err=True)
        leave(130, summary.leftover_threads)
    return exit_code(summary.rows.values())


def _table(findings: list[Finding], fmt: str) -> str:
    """A row a point: sizes, effects of every axis, and shares of the policies' variance."""
    from hvbench.axes import EQUIPMENT_AXES, POLICY_AXES
    from hvbench.drawing import draw
    from hvbench.study import INTERACTION, SLOWDOWN

    varied = [axis for axis in (*POLICY_AXES, *EQUIPMENT_AXES) if any(axis in f.effects for f in findings)]
    headers = ["vCPUs/pCPU", "memory", "cells", *varied, "scheduler share", "memory share", "together", "best memory"]
    rows = []
    for finding in findings:
        # Where neither axis does anything, shares of that nothing would look like a finding.
        material = finding.strongest in POLICY_AXES
        shares = [
            f"{100 * s.share:.0f} % ({100 * s.low:.0f} to {100 * s.high:.0f})" if s is not None and material else ""
            for s in (finding.shares.get(e) for e in (("scheduler",), ("memory",), INTERACTION))
        ]
        used = finding.policies.cells if finding.policies is not None else 0
        rows.append(
            [
                f"{finding.cpu_reached:.3g}",
                f"{finding.point.memory:g}",
                f"{used} of {finding.policy_cells}",
                *(f"×{finding.effects[a].ratio:.3f}" if a in finding.effects else "" for a in varied),
                *shares,
                finding.effects["memory"].best if finding.is_material("memory") else "",
            ]
        )
    response = "slowdown" if findings[0].response == SLOWDOWN else "p99 response time of requests"
    title = (
        f"{findings[0].point.base}: {response} under an axis's worst choice over its best (others averaged), and "
        f"shares of the policies' variance of log {response} (range over leaving one choice out):"
    )
    return f"{title}\n{draw(headers, rows, fmt)}"


def _what_it_cannot_say(findings: list[Finding], seeds: int) -> str:
    """Sentences under the answer."""
    said = []
    statuses: dict[str, int] = {}
    for finding in {finding.point.workload.name: finding for finding in findings}.values():
        for status, count in finding.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    other = ", ".join(f"{count} {status}" for status, count in statuses.items() if status != "ok")
    if other:
        said.append(f"{statuses.get('ok', 0)} cells were measured; not so: {other}. `cells` is what is left complete.")
    if seeds == 1:
        said.append("One seed was run: --seeds 3 shows which differences are larger than their spread.")
    said.append("Shares depend on which choices are listed; the ranges in parentheses show how much.")
    return "\nWhat these numbers cannot say:\n" + "\n".join(f"- {sentence}" for sentence in said)
