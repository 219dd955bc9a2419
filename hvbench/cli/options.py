"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hvbench.axes import AXES

if TYPE_CHECKING:
    from hvbench.plugins import Registry
    from hvbench.store import Row

F = TypeVar("F", bound=Callable[..., Any])

DB = Path("hvbench.db")

db_option = click.option(
    "--db", type=click.Path(path_type=Path), default=DB, show_default=True, help="The results file."
)
format_option = click.option(
    "--format",
    "fmt",
    default="simple",
    show_default=True,
    help="Table format, any of tabulate's (github, html, ...).",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Also write a record a cell: .csv, .json or .parquet.",
)
fresh_option = click.option("--fresh", is_flag=True, help="Compute again what the results file has.")


def number(_: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse nan, which every comparison of a range lets through."""
    if value != value:
        raise click.BadParameter("nan is not a number", param=option)
    return value


limit_option = click.option(
    "--limit",
    "limit_s",
    type=click.FloatRange(min=0, max=86_400, min_open=True),
    callback=number,
    default=10.0,
    show_default=True,
    help="Seconds after which a hook of a policy from a file counts as hung.",
)


def axis_options(what: str) -> Callable[[F], F]:
    """--scheduler ... --host."""

    def wrap(function: F) -> F:
        for axis in reversed(AXES):
            function = click.option(f"--{axis}", metavar=what, help=f"{what.capitalize()} of the axis {axis}.")(
                function
            )
        return function

    return wrap


def table_options(function: F) -> F:
    """What of a table is shown, and in which order."""
    for option in (
        click.option("--rows", type=click.IntRange(min=1), default=5, show_default=True, help="Best and worst rows."),
        click.option("--all", "show_all", is_flag=True, help="Show all rows."),
        click.option("--sort", metavar="METRIC", help="Sort by this metric, best first."),
        click.option("--metrics", metavar="METRIC,...", help="Show these metrics."),
        format_option,
    ):
        function = option(function)
    return function


def installed(quiet: bool = False) -> Registry:
    """The installed policies; broken plugins are named on standard error and the rest stay usable."""
    from hvbench.plugins import load_registry

    registry = load_registry()
    if not quiet:
        for origin, error in registry.failed:
            click.echo(f"hvbench: warning: {origin} did not load: {error}", err=True)
    return registry


def names(text: str | None) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def print_reports(
    rows: Sequence[Row],
    *,
    fmt: str,
    rows_shown: int | None,
    metrics: Sequence[str] = (),
    sort: str | None = None,
    baseline: str | None = None,
    analysis: bool = True,
    about: dict[str, str] | None = None,
) -> None:
    """One report a workload, in the order of the rows."""
    from hvbench import tables

    by_workload: dict[str, list[Row]] = {}
    for row in rows:
        by_workload.setdefault(row.workload, []).append(row)
    texts = [
        tables.report(
            same,
            fmt=fmt,
            show=rows_shown,
            metrics=metrics,
            sort=sort,
            baseline=baseline,
            analysis=analysis,
            about=(about or {}).get(name, ""),
        )
        for name, same in by_workload.items()
    ]
    click.echo("\n\n\n".join(texts))


def command_line() -> str:
    """What was typed, to name a run by."""
    import shlex

    return shlex.join(["hvbench", *sys.argv[1:]])
