"""A whole import: files in, a trace (or a demand table) out, with everything that had to be put right said."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from hvbench import __version__
from hvbench.errors import UserError
from hvbench.traces.check import LONGEST_NS
from hvbench.traces.format import FORMAT_VERSION, OPS, PAGE_SIZE, SALT
from hvbench.traces.importers.api import AXES, LISTED, WAIT_CLASSES, Format, Import, names_of, read_options
from hvbench.traces.importers.sources import RawFile, Source, open_sources
from hvbench.traces.importers.spool import Spool
from hvbench.traces.outputs import check_trace_output


@define
class Settings:
    """What every import may be told; see `hvbench import --help`."""

    name: str = ""
    skip_bad: int = 0
    keep_names: bool = False
    seed: int = 1
    offsets: dict[str, int | None] = field(factory=dict)
    longest_gap_ns: int = 0
    licence: str = ""
    attribution: str = ""


@define
class Report:
    """What came of an import."""

    path: Path
    format: str
    kind: str  # "trace" or "demand"
    rows: int
    span_ns: int
    replay: str
    silent: list[str]
    notes: list[str]
    threads: int = 0
    bytes_read: int = 0
    silent_because: dict[str, str] = field(factory=dict)
    """Axis -> why, where it is not that the source says nothing about it."""


@define
class Files:
    """The files of an import: opened one after the other, measured and digested on the way."""

    paths: tuple[Path, ...]
    advance: Callable[[int], Any]
    digests: list[dict[str, Any]] = field(factory=list)

    def sources(self) -> Iterator[Source]:
        for path in self.paths:
            raw = RawFile(path, self.advance)
            try:
                yield from open_sources(raw)
            finally:
                digest = raw.finish()
            self.digests.append({"file": path.name, "bytes": raw.size, "blake2b": digest})


@contextlib.contextmanager
def _progress(paths: tuple[Path, ...], shown: bool) -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if shown else True, leave=False) as bar:
        yield bar.update


def import_files(
    format: Format,
    paths: tuple[Path, ...],
    output: Path,
    settings: Settings | None = None,
    options: dict[str, Any] | None = None,
    progress: bool = False,
    expand: Any = None,
) -> Report:
    """Import files of one format. Raises UserError; then nothing is left at `output` that was not there before.

    `expand`, a `hvbench.traces.expand.Choice`, makes a trace of a demand table at once.
    """
    settings = settings or Settings()
    if not paths:
        raise UserError("nothing to import: name a file")
    if expand is not None and format.makes != "demand":
        raise UserError(
            f"--expand: {format.name} makes a trace by itself; formats of averages make demand, to be expanded"
        )
    check_trace_output(output, paths)
    given = options or {}
    with _progress(paths, progress) as advance:
        files = Files(paths, advance)
        job = Import(
            format,
            read_options(format, given),
            files.sources,
            skip_bad=settings.skip_bad,
            keep_names=settings.keep_names,
            seed=settings.seed,
            offsets=settings.offsets,
            longest_gap_ns=settings.longest_gap_ns,
        )
        if format.makes == "demand":
            from hvbench.traces.demand import write_demand

            def common() -> dict[str, Any]:
                return _common(job, settings, files, given, output)

            if expand is None:
                return write_demand(job, output, common)
            called = names_of(paths)
            with tempfile.TemporaryDirectory(prefix=output.name + ".", dir=output.parent) as folder:
                return _expand(write_demand(job, Path(folder) / "demand.parquet", common), output, expand, called)
        return _write_trace(job, output, settings, files, given)


def _expand(demand: Report, output: Path, choice: Any, called: str) -> Report:
    """The trace of a demand table that was just made, of files that messages call so."""
    from hvbench.traces.expand import expand_file

    made: Report = expand_file(demand.path, output, choice, called=called)
    made.format = demand.format
    made.bytes_read = demand.bytes_read
    made.notes = [*demand.notes, *made.notes]
    return made


def _write_trace(job: Import, output: Path, settings: Settings, files: Files, given: dict[str, Any]) -> Report:
    spool = Spool(output.parent)
    try:
        for batch in job.format.read(job):
            spool.add(batch)
        check_clocks(job)
        if not spool.rows:
            said = f" ({job.notes[0]})" if job.notes else ""
            raise UserError(f"{names_of(files.paths)}: holds nothing that an import of {job.format.name} replays{said}")
        seen = [clock.first_ns for clock in job.clocks.values() if clock.first_ns is not None]
        start = min(spool.first_ns, *seen)
        span = max(job.end_ns, spool.last_ns) - start
        if span > LONGEST_NS:
            raise UserError(
                f"{names_of(files.paths)}: spans {span / 3.156e16:.1f} years, a trace two at most: times of several "
                "clocks? --offset FILE=start joins files, --longest-gap 1min shortens gaps"
            )
        silent = [axis for axis, ops in AXES.items() if not any(spool.ops[OPS[op]] for op in ops)]
        meta = _common(job, settings, files, given, output)
        meta |= {
            "span_ns": int(span),
            "threads": job.threads,
            "tiers": job.tiers,
            "objects": job.objects,
            "flows": job.flows,
            "silent": silent,
            "warm": [],
            **_waits(job),
            **job.meta,
        }
        spool.write(output, meta, start)
    finally:
        spool.close()
    return Report(
        output,
        job.format.name,
        "trace",
        spool.rows,
        int(span),
        meta["replay"],
        silent,
        job.notes,
        len(job.threads),
        sum(item["bytes"] for item in files.digests),
    )


def check_clocks(job: Import) -> None:
    """Files whose clocks tell different times cannot be laid beside each other without being told how."""
    for name in job.offsets:
        if not any(name == clock or name in (clock.rpartition("/")[2], clock.split("!")[0]) for clock in job.clocks):
            raise UserError(f"--offset {name}: none of the files; there are: {', '.join(list(job.clocks)[:8])}")
    for name, clock in job.clocks.items():
        job.notes.extend(clock.notes(name))
    free = {
        name: job.kinds[name] for name, clock in job.clocks.items() if not clock.offset_ns and clock.start_ns is None
    }
    kinds = sorted(set(free.values()))
    if len(kinds) > 1 and len(job.clocks) > 1:
        first = {kind: next(name for name, k in free.items() if k == kind) for kind in kinds}
        raise UserError(
            "the files' clocks differ: "
            + ", ".join(f"{name} is in {kind} time" for kind, name in first.items())
            + "; say what is to be added to a file's times: --offset FILE=12.5s, or FILE=start"
        )


def _waits(job: Import) -> dict[str, Any]:
    total = sum(job.waited_ns.values())
    shares = {k: round(job.waited_ns.get(k, 0) / total, 6) for k in WAIT_CLASSES} if total else {}
    return {"wait_shares": shares, "waited_ns": dict(job.waited_ns), "kept_waits": {}}


def _common(job: Import, settings: Settings, files: Files, given: dict[str, Any], output: Path) -> dict[str, Any]:
    """The metadata that every import has."""
    if job.bad > LISTED:
        job.note(f"{job.bad} bad lines or records were left out in all")
    return {
        "format": FORMAT_VERSION,
        "name": settings.name or output.stem,
        "command": f"imported from {job.format.name}",
        "recorded_at": "",
        "recorder": {"version": __version__, "mode": f"import {job.format.name}"},
        "machine": {},
        "clock": next(iter(job.kinds.values()), job.format.clock),
        "page_size": PAGE_SIZE,
        "touch_resolution_ns": 0,
        "salt": SALT.hex(),
        "seed": settings.seed,
        "steal_ns": 0,
        "lost_events": job.lost_events,
        "licence": settings.licence,
        "attribution": settings.attribution,
        "replay": job.replay or job.format.replay,
        "privacy": "names kept, no data" if settings.keep_names else "names as keyed hashes, no data",
        "degraded": list(job.notes),
        "import": {
            "format": job.format.name,
            "files": [
                {**item, "file": job.name(item["file"])} if not settings.keep_names else item for item in files.digests
            ],
            "options": {name: value for name, value in given.items() if isinstance(value, str | int | float | bool)},
            "offsets_ns": {job.name(name): clock.offset_ns for name, clock in job.clocks.items() if clock.offset_ns},
            "bad": job.bad,
        },
    }
