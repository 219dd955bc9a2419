"""`hvbench check`: the conformance kit."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.axes import AXES
from hvbench.cli import options


@click.command("check")
@click.argument("policies", nargs=-1, required=True)
@click.option("--axis", type=click.Choice(AXES), help="The axis of a policy whose name several axes have.")
@click.option("--quick", "effort", flag_value="quick", help="A few hosts for each check: seconds.")
@click.option("--thorough", "effort", flag_value="thorough", help="Thousands of hosts, hypothesis' own among them.")
@click.option("--only", metavar="CHECK,...", help="Make these checks only.")
@click.option("--expect", metavar="CHECK=WHY", multiple=True, help="A check that is known to fail, and why.")
@click.option("--list", "listed", is_flag=True, help="List the checks that would be made, and make none.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Also write the JSON to a file.")
@click.option("--db", type=click.Path(path_type=Path), help="Also keep the report in a results file.")
@options.limit_option
@options.format_option
def check(
    policies: tuple[str, ...],
    axis: str | None,
    effort: str | None,
    only: str | None,
    expect: tuple[str, ...],
    listed: bool,
    as_json: bool,
    output: Path | None,
    db: Path | None,
    limit_s: float,
    fmt: str,
) -> int:
    """Check POLICIES (`./mine.py`, `credit`, `memory.balloon`) for what every policy must do, and for what they claim.

    Exit code 0: nothing failed. 1: a check failed, or could not be made. 2: a policy does not load, or bad arguments.
    """
    from hvbench.drawing import check_format, draw
    from hvbench.errors import UserError
    from hvbench.testing.isolation import check_apart
    from hvbench.testing.kit import Report, find_policies, selection
    from hvbench.testing.report import json_of, store, text_of, write_json

    check_format(fmt)
    for path in (output, db):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: the folder {path.parent} does not exist")
    if output is not None and output.is_dir():
        raise UserError(f"{output}: is a folder")
    expected = dict(_expected(text) for text in expect)
    if listed:
        for name in policies:
            for policy in find_policies(name, axis):
                rows = [[c.id, c.claim, c.title] for c in selection(policy.axis, options.names(only))]
                click.echo(draw(["check", "claim", "what it demands"], rows, fmt))
        return 0
    reports: list[Report] = []
    broken = 0
    for name in policies:
        try:
            made = check_apart(
                name, axis, effort=effort or "normal", only=options.names(only), expected=expected, limit_s=limit_s
            )
        except UserError as error:
            if len(policies) == 1:
                raise
            click.echo(f"hvbench: {error}", err=True)
            broken += 1
            continue
        reports += made
        if not as_json:
            click.echo("\n\n".join(text_of(report, fmt) for report in made) + "\n")
    if as_json:
        click.echo(json_of(reports))
    if output is not None:
        write_json(reports, output)
    if db is not None:
        store(reports, db)
    return 2 if broken else 0 if all(report.good for report in reports) else 1


def _expected(text: str) -> tuple[str, str]:
    name, _, why = text.partition("=")
    return name.strip(), why.strip()
