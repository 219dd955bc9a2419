"""`hvbench trace`: look into traces, and make others of them."""

from __future__ import annotations

import contextlib
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.errors import UserError
from hvbench.traces.outputs import check_outputs, check_trace_output
from hvbench.words import plural

if TYPE_CHECKING:
    from hvbench.traces.format import Trace

_FILE = click.Path(path_type=Path)


@click.group("trace")
def trace() -> None:
    """Check and describe traces; cut, scale, merge and export them."""


@trace.command("check")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--limit", default=50, show_default=True, help="How many problems of a file are listed.")
def check(files: tuple[Path, ...], limit: int) -> None:
    """Say everything that is wrong with each of FILES; exit code 2 if anything is."""
    from hvbench.traces.check import check_file

    bad = 0
    for path in files:
        try:
            problems = check_file(path, limit)
        except UserError as error:
            click.echo(f"hvbench: {error}", err=True)
            bad += 1
            continue
        for problem in problems:
            click.echo(f"hvbench: {path}: {problem}", err=True)
        if problems:
            bad += 1
        else:
            click.echo(f"{path}: ok")
    if bad:
        raise SystemExit(2)


@trace.command("info")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON, a line a file.")
def info(files: tuple[Path, ...], as_json: bool) -> None:
    """Describe each of FILES: rates, waits, memory over time, sharing potential, flows, what is missing."""
    from hvbench.traces.demand import format_summary, summary
    from hvbench.traces.info import format_info, trace_info

    bad = 0
    for path in files:
        try:
            demand = summary(path)
            if demand is not None:
                click.echo(json.dumps(demand) if as_json else format_summary(demand))
                continue
            figures = trace_info(_read(path))
        except UserError as error:
            click.echo(f"hvbench: {error}", err=True)
            bad += 1
            continue
        click.echo(json.dumps({"file": str(path), **figures.as_dict()}) if as_json else format_info(figures))
    if bad:
        raise SystemExit(2)


_output = click.option("-o", "--output", required=True, type=_FILE, help="The trace to write (.parquet).")


@trace.command("cut")
@click.argument("file", type=_FILE)
@click.option("--from", "begin", default="0s", show_default=True, metavar="TIME", help="Where the part begins.")
@click.option("--to", "end", default="", metavar="TIME", help="Where it ends [default: where the trace ends].")
@_output
def cut(file: Path, begin: str, end: str, output: Path) -> None:
    """Take the part of FILE from one recorded time to another (1.5s, 20min)."""
    from hvbench.traces.handle.cut import cut as cut_trace

    check_trace_output(output, [file])
    begin_ns = _time("--from", begin)
    end_ns = _time("--to", end) if end else None
    source = _read(file)
    made = cut_trace(source, begin_ns, int(source.meta["span_ns"]) if end_ns is None else end_ns)
    _write(made, output)


@trace.command("scale")
@click.argument("file", type=_FILE)
@click.option("--time", default="1", metavar="FACTOR", help="Sleeps, kept waits, recorded times.")
@click.option("--compute", default="1", metavar="FACTOR", help="Time on the CPU.")
@click.option("--memory", default="1", metavar="FACTOR", help="Anonymous memory.")
@click.option("--files", default="1", metavar="FACTOR", help="Files of the VM's own disk.")
@_output
def scale(file: Path, time: str, compute: str, memory: str, files: str, output: Path) -> None:
    """Multiply times, compute or memory of FILE by stated factors (2, 0.5, 1/3)."""
    from hvbench.traces.handle.scale import scale as scale_trace

    check_trace_output(output, [file])
    given = {"time": time, "compute": compute, "memory": memory, "files": files}
    factors = {name: _factor(name, text) for name, text in given.items()}
    _write(scale_trace(_read(file), **factors), output)


@trace.command("merge")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--name", default="", help="The trace's name (default: those of FILES).")
@_output
def merge(files: tuple[Path, ...], name: str, output: Path) -> None:
    """Let the programs of all FILES run side by side in one guest."""
    from hvbench.traces.handle.merge import merge as merge_traces

    check_trace_output(output, files)
    _write(merge_traces([_read(path) for path in files], name), output)


@trace.command("export")
@click.argument("file", type=_FILE)
@click.option("--csv", "csv_path", required=True, metavar="FILE", help="Where the rows go; - for standard output.")
@click.option("--metadata", default=None, type=_FILE, help="Where the metadata goes, as JSON.")
def export(file: Path, csv_path: str, metadata: Path | None) -> None:
    """Write FILE as text: a line an operation."""
    from hvbench.traces.handle.csv import write_csv
    from hvbench.whole import written_whole

    outputs = [("--csv", Path(csv_path))] if csv_path != "-" else []
    check_outputs(outputs + ([("--metadata", metadata)] if metadata is not None else []), [file])
    source = _read(file)
    if csv_path == "-":
        write_csv(source, sys.stdout.buffer)
    else:
        with written_whole(Path(csv_path)) as temporary, temporary.open("wb") as out:
            write_csv(source, out)
    if metadata is not None:
        with written_whole(metadata) as temporary:
            temporary.write_text(json.dumps(source.meta, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if csv_path != "-":
        click.echo(f"{csv_path}: {plural(len(source), 'operation')}")


def _read(path: Path) -> Trace:
    """A trace that is valid; TraceError else."""
    from hvbench.traces.check import open_trace, require_valid

    loaded = open_trace(path)
    require_valid(loaded)
    return loaded


def _write(made: Trace, output: Path) -> None:
    """Check, write and say what was made."""
    from hvbench.traces.check import require_valid
    from hvbench.traces.format import write_trace
    from hvbench.units import rounded_duration

    require_valid(made)
    written = write_trace(output, made.meta, made.columns)
    click.echo(
        f"{output}: {plural(len(written), 'operation')} of {plural(len(written.meta['threads']), 'thread')} in "
        f"{rounded_duration(written.meta['span_ns'])}"
    )


def _time(option: str, text: str) -> int:
    from hvbench import units

    try:
        return int(units.parse_value(text, "ns"))
    except UserError as error:
        raise UserError(f"{option} {text}: {error}") from error


def _factor(name: str, text: str) -> Fraction:
    """A factor exactly as it was written."""
    with contextlib.suppress(ValueError, ZeroDivisionError):
        if len(text) <= 40:
            return Fraction(text)
    raise UserError(f"--{name} {text}: a factor is a number, such as 2, 0.5 or 1/3")
