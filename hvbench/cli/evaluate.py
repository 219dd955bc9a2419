"""`hvbench evaluate`: a candidate's score, and what is wrong with it, as data."""

from __future__ import annotations

from typing import Any

import click

from hvbench.axes import AXES
from hvbench.cli import options


@click.command("evaluate")
@click.argument("policy")
@click.option("--workloads", default="build", show_default=True, help="Names or files, separated by commas.")
@click.option("--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Seeds 1 to N.")
@click.option("--axis", type=click.Choice(AXES), help="The axis, where the name of POLICY is on several.")
@options.axis_options("choice")
@click.option("--stack", default="{}", show_default=True, help="Where a memory policy stands: {}+overcommit.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@options.limit_option
@click.option(
    "--hook-steps", type=click.IntRange(min=1), default=100_000, show_default=True, help="Lines a hook may execute."
)
@click.option("--total", "total_s", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
              help="Seconds that all of it may take.")  # fmt: skip
@options.format_option
def evaluate(
    policy: str,
    workloads: str,
    seeds: int,
    axis: str | None,
    stack: str,
    as_json: bool,
    limit_s: float,
    hook_steps: int,
    total_s: float,
    fmt: str,
    **axes: str | None,
) -> int:
    """Score POLICY (a file, - for source on standard input, or a choice such as credit:timeslice=5ms).

    The score is the geometric mean slowdown over the workloads and seeds: smaller is better, and the same on every
    machine. The candidate runs in a process of its own, with limits. Exit code 1 where something is wrong with it; 2
    where it does not load or takes no such parameter (with --json 1, and the problem as data).
    """
    import json
    import sys

    from hvbench.drawing import check_format
    from hvbench.errors import UserError
    from hvbench.evaluation import Limits
    from hvbench.evaluation import evaluate as judge

    check_format(fmt)
    candidate: Any = sys.stdin.read() + "\n" if policy == "-" else policy
    result = judge(
        candidate,
        options.names(workloads),
        axis=axis,
        choices={name: text for name, text in axes.items() if text is not None},
        stack=stack,
        seeds=range(1, seeds + 1),
        limits=Limits(hook_s=limit_s, hook_steps=hook_steps, total_s=total_s),
    )
    if not result.cells and not as_json and [p.kind for p in result.problems] in (["load"], ["parameter"]):
        raise UserError(result.problems[0].message)
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=1))
    else:
        click.echo(_report(result, fmt))
    return 0 if result.ok else 1


def _report(result: Any, fmt: str) -> str:
    from hvbench.drawing import draw

    score = "none" if result.score is None else f"{result.score:.6f}"
    parts = [f"{result.axis or 'policy'} {result.candidate}: score {score}, in {result.wall_s:.1f} s"]
    if result.cells:
        rows = [
            [c.workload, str(c.seed), c.status, f"{float(c.metrics.get('slowdown_geomean', float('nan'))):.4f}"]
            for c in result.cells
        ]
        parts.append(draw(["workload", "seed", "status", "slowdown"], rows, fmt))
    parts += dict.fromkeys(note for cell in result.cells for note in cell.notes)
    for problem in result.problems:
        place = f", line {problem.line}" if problem.line else ""
        parts.append(f"{problem.kind}{place}: {problem.message}")
    return "\n\n".join(parts)
