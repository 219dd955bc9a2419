"""`hvbench trace`: look into recorded traces."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hvbench.errors import UserError


@click.group("trace")
def trace() -> None:
    """Check and describe recorded traces."""


@trace.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--limit", default=50, show_default=True, help="How many problems of a file are listed.")
def check(files: tuple[Path, ...], limit: int) -> None:
    """Say everything that is wrong with each of FILES; exit code 2 if anything is."""
    from hvbench.traces.check import check_file

    bad = 0
    for path in files:
        try:
            problems = check_file(path, limit)
        except UserError as error:
            click.echo(str(error), err=True)
            bad += 1
            continue
        for problem in problems:
            click.echo(f"{path}: {problem}", err=True)
        if problems:
            bad += 1
        else:
            click.echo(f"{path}: ok")
    if bad:
        raise SystemExit(2)


@trace.command("info")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON, a line a file.")
def info(files: tuple[Path, ...], as_json: bool) -> None:
    """Describe each of FILES: rates, waits, memory, sharing, flows, what is missing."""
    from hvbench.traces.check import require_valid
    from hvbench.traces.format import read_trace
    from hvbench.traces.info import format_info, trace_info

    bad = 0
    for path in files:
        try:
            loaded = read_trace(path)
            require_valid(loaded)
        except UserError as error:
            click.echo(str(error), err=True)
            bad += 1
            continue
        figures = trace_info(loaded)
        click.echo(json.dumps({"file": str(path), **figures.as_dict()}) if as_json else format_info(figures))
    if bad:
        raise SystemExit(2)
