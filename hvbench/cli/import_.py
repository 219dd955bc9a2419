"""`hvbench import`: make a trace of what people already have. Every format adds its own options."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import attrs
import click

from hvbench.errors import UserError
from hvbench.words import plural

_BOTH = ("-h", "--help", "--list")


def _common_params() -> list[click.Parameter]:
    return [
        click.Option(["-o", "--output"], type=click.Path(path_type=Path), help="The trace to write (.parquet)."),
        click.Option(["--name"], default="", help="The trace's name (default: the file's)."),
        click.Option(["--skip-bad"], default=0, metavar="N", type=click.IntRange(0), help="Tolerate N bad lines."),
        click.Option(
            ["--offset"],
            multiple=True,
            metavar="FILE=TIME",
            help="Add TIME (12.5s, -3ms) to a file's times; FILE=start puts its first record at the first file's.",
        ),
        click.Option(["--longest-gap"], default="", metavar="TIME", help="Shorten gaps between records to TIME."),
        click.Option(["--keep-names"], is_flag=True, help="Keep names; else they are stored as keyed hashes."),
        click.Option(["--seed"], default=1, show_default=True, help="Of whatever has to be drawn."),
        click.Option(["--licence"], default="", help="Said in the metadata."),
        click.Option(["--attribution"], default="", help="Said in the metadata."),
        click.Option(["--list", "list_formats"], is_flag=True, help="List the formats and their options."),
    ]


def _expansion_params() -> list[click.Parameter]:
    """Options of formats that make demand."""
    return [
        click.Option(["--expand"], is_flag=True, help="Make a trace of the averages, with a donor's rhythm."),
        click.Option(
            ["--donor"], default="cc-build", show_default=True, help="A bundled trace, or a file, to borrow from."
        ),
        click.Option(
            ["--vm", "vms"], multiple=True, metavar="NAME", help="Only this VM (by name or number); repeatable."
        ),
        click.Option(["--from", "from_"], default="0s", metavar="TIME", help="Begin there in the table's time."),
        click.Option(["--to"], default="", metavar="TIME", help="End there."),
        click.Option(["--axes"], default="cpu,memory,storage,network", show_default=True, help="Axes to expand."),
        click.Option(["--min-burst"], default="10ms", show_default=True, help="Join shorter bursts of the donor."),
    ]


_EXPANSION = ("expand", "donor", "vms", "from_", "to", "axes", "min_burst")


def _expansion(given: dict[str, Any]) -> Any:
    """What the options say about expanding; None where nothing is to be expanded."""
    from hvbench import units
    from hvbench.traces.expand import Choice

    values = {name: given.pop(name) for name in _EXPANSION if name in given}
    if not values.pop("expand", False):
        return None
    made = Choice(
        donor=values["donor"],
        seed=given["seed"],
        vms=values["vms"],
        from_ns=int(units.parse_value(values["from_"], "ns")),
        to_ns=int(units.parse_value(values["to"], "ns")) if values["to"] else 0,
        axes=tuple(axis.strip() for axis in values["axes"].split(",") if axis.strip()),
        min_burst_ns=int(units.parse_value(values["min_burst"], "ns")),
    )
    made.check()
    return made


def _format_params(options: type | None) -> list[click.Parameter]:
    """A format's options as options of the command."""
    from hvbench.units import canonical_unit

    made: list[click.Parameter] = []
    for attribute in attrs.fields(options) if options is not None else ():
        metadata = attribute.metadata
        flag = "--" + attribute.name.removesuffix("_" + canonical_unit(metadata["unit"] or "none")).replace("_", "-")
        default = attribute.default
        text = metadata["help"]
        kind: Any = type(default)
        if metadata["unit"]:
            kind = str
        elif metadata["legal"]:
            kind = click.Choice(metadata["legal"])
        made.append(
            click.Option(
                [flag, attribute.name],
                default=None if not metadata["flag"] else False,
                is_flag=metadata["flag"],
                type=None if metadata["flag"] else kind,
                metavar=metadata["metavar"] or None,
                help=text if metadata["flag"] or default in ("", None) else f"{text} [default: {default}]",
            )
        )
    return made


def _values(format: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The format's options that were given, quantities converted."""
    from hvbench import units

    values = {}
    for attribute in attrs.fields(format.options) if format.options is not None else ():
        value = given.pop(attribute.name)
        if value is None or value is False:
            continue
        unit = attribute.metadata["unit"]
        try:
            values[attribute.name] = units.parse_value(value, unit) if unit else value
        except UserError as error:
            raise UserError(f"{format.name}: {attribute.name}: {error}") from error
    return values


def _offsets(given: tuple[str, ...]) -> dict[str, int | None]:
    from hvbench import units

    offsets: dict[str, int | None] = {}
    for text in given:
        name, equals, time = text.rpartition("=")
        if not equals or not name:
            raise UserError(f"--offset {text}: has to be FILE=TIME, such as b.pcap=12.5s, or FILE=start")
        try:
            offsets[name] = None if time == "start" else int(units.parse_value(time, "ns"))
        except UserError as error:
            raise UserError(f"--offset {text}: {error}") from error
    return offsets


class _ImportCommand(click.Command):
    """Its options depend on the format: they are known once the arguments were looked at."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        from hvbench.traces.importers.registry import load_formats

        formats = load_formats()
        chosen, named = _choose(formats, args)
        params = [*_common_params(), *(_format_params(chosen.options) if chosen is not None else [])]
        if chosen is not None and chosen.makes == "demand":
            params.extend(_expansion_params())
        params.append(click.Argument(["words"], nargs=-1, metavar="[FORMAT] FILE…"))
        known = ", ".join(sorted(formats.by_name))
        about = f"{chosen.name}: {chosen.doc}" if chosen is not None else f"Formats: {known}."
        inner = click.Command(
            "import",
            params=params,
            callback=lambda **given: _run(formats, chosen, named, given),
            help=f"{self.help}\n\n" + (("\b\n" + about.replace("\n\n", "\n\n\b\n")) if chosen is not None else about),
        )
        return inner.make_context(info_name, args, parent, **extra)


def _choose(formats: Any, args: list[str]) -> tuple[Any, bool]:
    """The format that the arguments name (True) or whose file they name (False); None where neither."""
    flags = {"--keep-names", "--list", "-h", "--help", "--expand"}
    for format in formats.by_name.values():
        for attribute in attrs.fields(format.options) if format.options is not None else ():
            if attribute.metadata["flag"]:
                flags.add("--" + attribute.name.replace("_", "-"))
    at = 0
    while at < len(args):
        word = args[at]
        if word.startswith("-") and word != "-":
            at += 1 if word in flags or "=" in word or (word[1] != "-" and len(word) > 2) else 2
            continue
        if word in formats.by_name or word.endswith(".py"):
            return formats.get(word), True
        path = Path(word)
        if path.exists():
            return formats.guess(path), False
        looks_like_file = os.sep in word or "." in word
        if looks_like_file:
            raise UserError(f"{word}: no such file")
        return formats.get(word), True
    return None, False


def _run(formats: Any, chosen: Any, named: bool, given: dict[str, Any]) -> None:
    from hvbench import units
    from hvbench.traces.importers.run import Settings, import_files

    if given.pop("list_formats"):
        _list(formats, chosen)
        return
    words = given.pop("words")
    paths = tuple(Path(word) for word in (words[1:] if named else words))
    if chosen is None or not paths:
        raise UserError("nothing to import: hvbench import [FORMAT] FILE… -o trace.parquet; --list lists the formats")
    output = given.pop("output")
    if output is None:
        raise UserError("where to? -o names the trace to write (.parquet)")
    expand = _expansion(given)
    options = _values(chosen, given)
    gap = given["longest_gap"]
    settings = Settings(
        name=given["name"],
        skip_bad=given["skip_bad"],
        keep_names=given["keep_names"],
        seed=given["seed"],
        offsets=_offsets(given["offset"]),
        longest_gap_ns=int(units.parse_value(gap, "ns")) if gap else 0,
        licence=given["licence"],
        attribution=given["attribution"],
    )
    report = import_files(chosen, paths, output, settings, options, progress=sys.stderr.isatty(), expand=expand)
    _show(report)


def _by_reason(report: Any) -> dict[str, list[str]]:
    """The silent axes by why they are."""
    found: dict[str, list[str]] = {}
    for axis in report.silent:
        found.setdefault(report.silent_because.get(axis, ""), []).append(axis)
    for axes in [found.pop("")] if "" in found else []:
        found[f"the source says nothing about {'it' if len(axes) == 1 else 'them'}"] = axes
    return found


def _show(report: Any) -> None:
    size = report.path.stat().st_size
    what = f"{plural(report.rows, 'interval')} of {plural(report.threads, 'VM')}"
    if report.kind == "trace":
        what = f"{plural(report.rows, 'operation')} of {plural(report.threads, 'thread')}"
    click.echo(
        f"{report.path}: {report.kind} from {report.format}: {what}, {report.span_ns / 1e9:.6g} s, {size} bytes "
        f"({size / max(report.bytes_read, 1):.1%} of what was read), {report.replay}-loop"
    )
    for reason, axes in _by_reason(report).items():
        click.echo(f"  silent        {', '.join(axes)}: {reason}")
    for note in report.notes:
        click.echo(f"  note          {note}")


def _list(formats: Any, chosen: Any) -> None:
    for format in [chosen] if chosen is not None else sorted(formats.by_name.values(), key=lambda f: f.name):
        endings = f" ({', '.join(format.extensions)})" if format.extensions else ""
        click.echo(f"{format.name:16} {format.summary}{endings}")
        for attribute in attrs.fields(format.options) if format.options is not None else ():
            unit = attribute.metadata["unit"]
            name = "--" + attribute.name.removesuffix(f"_{unit}" if unit else "\0").replace("_", "-")
            click.echo(f"{'':18}{name:18} {attribute.metadata['help']}")
    for origin, error in formats.failed:
        click.echo(f"did not load: {origin}: {error}", err=True)


import_ = _ImportCommand(
    "import",
    help="Make a trace of what you have: hvbench import [FORMAT] FILE… -o trace.parquet. Files may be compressed "
    "(gzip, xz, zstd, bzip2) or archives of several; the format is guessed where it can be.",
)
