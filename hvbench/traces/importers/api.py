"""What an importer is written against: `Format`, `option`, `Import`, `Batch`.

A format's `read(job)` is a generator: it walks over `job.sources()` and yields batches of rows. A batch is a dict of
NumPy arrays of one length, by the columns of `hvbench.traces.format.COLUMNS`: `thread`, `op` (codes), `time_ns` and
whichever others its operations use. Rows may come in any order: they are sorted by thread and time, equal times
in the order in which they were yielded, so that a batch may still hold rows of a time long past. `time_ns` is absolute,
in the clock of the files as `job.clock(source).fix` returned it; the trace's zero is found at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.format import OPS, OUTSIDE, name_hash
from hvbench.traces.importers.clocks import Clock
from hvbench.traces.importers.sources import HEAD_BYTES, Lines, Source

Batch = dict[str, NDArray[Any]]
GUEST: Final = "guest"
LISTED: Final = 5
"""Bad lines that a report quotes; the others are counted."""
AXES: Final = {
    "cpu": ("compute",),
    "memory": ("touch", "mtouch", "content"),
    "storage": ("blk_read", "blk_write", "fread", "fwrite", "fsync"),
    "network": ("send", "recv"),
}
"""What a trace may say something about, and the operations that say it."""
WAIT_CLASSES: Final = ("thread_edge", "timer", "disk", "network", "outside", "unknown")


@frozen
class Head:
    """What a format may look at to recognise itself: the name (without .gz and the like) and the first bytes."""

    name: str
    data: bytes

    def lines(self, most: int = 40) -> list[bytes]:
        """The first whole lines."""
        lines = self.data.split(b"\n", most)
        whole = lines[:most] if len(lines) > most else (lines[:-1] if len(self.data) >= HEAD_BYTES else lines)
        return [line.rstrip(b"\r") for line in whole]

    @property
    def is_text(self) -> bool:
        return b"\0" not in self.data[:4096]


@frozen
class Format:
    """A format: what it is called, how it is recognised, what may be set, how it is read.

    `sniff` answers how sure it is that the head is of its format, from 0 (certainly not) to 1 (a magic number); 0.5 is
    "every line looked at parses". `options` is an attrs class of `option` fields. `read` yields batches of a trace, or,
    where `makes` is "demand", of a demand table (`hvbench.traces.demand`). `clock` is one of `clocks.CLOCKS`.
    """

    name: str
    summary: str
    read: Callable[[Import], Iterator[Batch]]
    sniff: Callable[[Head], float] = field(default=lambda head: 0.0)
    extensions: tuple[str, ...] = ()
    options: type | None = None
    clock: str = "relative"
    makes: str = field(default="trace", validator=attrs.validators.in_(("trace", "demand")))
    replay: str = field(default="closed", validator=attrs.validators.in_(("closed", "open")))
    doc: str = ""


def option(
    default: Any, *, help: str, unit: str = "", legal: tuple[str, ...] = (), metavar: str = "", flag: bool = False
) -> Any:
    """A setting of a format: a field of its options class, `--name VALUE` on the command line.

    Texts, whole numbers, floats and bools; `flag` makes a bool without a value. With a `unit` (ns, bytes, pages) the
    field's name ends in it, its option's does not, and the value is written as a quantity (`--gap 5ms`).
    """
    return attrs.field(
        default=default, metadata={"help": help, "unit": unit, "legal": legal, "metavar": metavar, "flag": flag}
    )


class BadLine(UserError):
    """A line that cannot be read, beyond the number that `--skip-bad` tolerates."""


@define
class Import:
    """One import as a format's `read` sees it."""

    format: Format
    options: Any
    files: Callable[[], Iterator[Source]]
    skip_bad: int = 0
    keep_names: bool = False
    seed: int = 1
    offsets: dict[str, int | None] = field(factory=dict)
    """File (path, name or FILE!MEMBER) -> ns added to its times; None: its first record is put at the first file's."""
    longest_gap_ns: int = 0
    threads: list[dict[str, Any]] = field(factory=list)
    objects: list[dict[str, Any]] = field(factory=list)
    flows: list[dict[str, Any]] = field(factory=list)
    tiers: list[str] = field(factory=list)
    waited_ns: dict[str, int] = field(factory=dict)
    meta: dict[str, Any] = field(factory=dict)
    """What goes into the trace's metadata as it is (`command`, `machine`, `recorded_at` ...)."""
    replay: str = ""
    notes: list[str] = field(factory=list)
    bad: int = 0
    clocks: dict[str, Clock] = field(factory=dict)
    kinds: dict[str, str] = field(factory=dict)
    """The kind of each source's clock."""
    end_ns: int = -(1 << 62)
    lost_events: int = 0
    unsaid: dict[str, str] = field(factory=dict)
    """Axis -> what to do about its silence, where an option would end it."""

    # files ----------------------------------------------------------------------------------------------

    def sources(self) -> Iterator[Source]:
        """The files and members of archives, in order; each is done with when the next is asked for."""
        for source in self.files():
            yield source
            if source.cut_bytes:
                self.note(f"{source.name}: the last {source.cut_bytes} bytes are no whole record (growing?): left out")
            if source.cut:
                self.note(f"{source.name}: the compressed file ends early (still being written?): read up to there")

    def clock(self, source: Source, kind: str = "") -> Clock:
        """The clock of a source, made when first asked for; `kind` (of `CLOCKS`) where the file itself says it."""
        clock = self.clocks.get(source.name)
        if clock is None:
            by_name = {source.name, str(source.path), source.path.name}
            given = [ns for name, ns in self.offsets.items() if name in by_name]
            start = None
            if given == [None]:
                start = next((clock.first_ns for clock in self.clocks.values()), None)
            clock = Clock((given[0] if given else 0) or 0, self.longest_gap_ns, start_ns=start)
            self.clocks[source.name] = clock
            self.kinds[source.name] = kind or self.format.clock
        elif kind:
            self.kinds[source.name] = kind
        return clock

    # what is wrong --------------------------------------------------------------------------------------

    def bad_line(self, source: Source, lines: Lines, number: int, expected: str, text: bytes = b"") -> None:
        """Line `number` of a source cannot be read. Returns where it is tolerated; raises `BadLine` where not.

        The last line of a file that does not end in a newline may be half written: it is left out, and said.
        """
        found = text or lines.split()[number - lines.first]
        if lines.open_end and number == lines.first + lines.data.count(b"\n") - 1:
            self.note(f"{source.name}:{number}: the last line is incomplete (still being written?): left out")
            return
        self.bad_record(f"{source.name}:{number}", expected, found)

    def bad_record(self, where: str, expected: str, found: bytes | str) -> None:
        """The same for what is not a line: `where` is file and byte or record."""
        shown = found.decode("utf-8", "replace") if isinstance(found, bytes) else found
        shown = repr(shown if len(shown) <= 100 else shown[:100] + "…")
        self.bad += 1
        if self.bad > self.skip_bad:
            more = f"; {self.bad - 1} bad ones before it were tolerated" if self.skip_bad else ""
            hint = f"--skip-bad N tolerates up to N such {'lines' if ':' in where else 'records'}"
            raise BadLine(f"{where}: expected {expected}, found {shown}{more}; {hint}")
        if self.bad <= LISTED:
            self.note(f"{where}: left out: expected {expected}, found {shown}")

    def note(self, sentence: str) -> None:
        """Something a person has to know: reported, and kept in the metadata. Said once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    # what the trace is of -------------------------------------------------------------------------------

    def name(self, text: str) -> str:
        """A name as it may be kept: a keyed hash, or itself with --keep-names."""
        return text if self.keep_names else name_hash(text)

    def thread(self, name: str, process: int = 0, tier: str = GUEST, **more: Any) -> int:
        """A new thread; its number. Tier "outside" is the world outside: its compute is think time."""
        role = OUTSIDE if tier == OUTSIDE else GUEST
        if tier != OUTSIDE and tier not in self.tiers:
            self.tiers.append(tier)
        number = len(self.threads)
        self.threads.append(
            {"id": number, "process": process, "tier": tier, "name": self.name(name), "role": role, **more}
        )
        return number

    def object(self, kind: str, pages: int = 0, process: int = -1, name: str = "") -> int:
        """A new object ("anon" memory of a process, or a file: "own", "image"); its number. `reach` makes it larger."""
        entry: dict[str, Any] = {"kind": kind, "pages": pages, "process": process}
        if name:
            entry["name_hash"] = name_hash(name)
        self.objects.append(entry)
        return len(self.objects) - 1

    def reach(self, number: int, pages: int) -> None:
        """An object has at least so many pages."""
        self.objects[number]["pages"] = max(self.objects[number]["pages"], int(pages))

    def flow(self, proto: str, ends: tuple[str, str]) -> int:
        """A new flow between two different tiers; its number."""
        for end in ends:
            if end != OUTSIDE and end not in self.tiers:
                self.tiers.append(end)
        self.flows.append({"proto": proto, "ends": list(ends)})
        return len(self.flows) - 1

    def waited(self, kind: str, ns: int) -> None:
        """Recorded waiting of one of `WAIT_CLASSES`, for the metadata's shares."""
        self.waited_ns[kind] = self.waited_ns.get(kind, 0) + int(ns)

    def until(self, time_ns: int) -> None:
        """The recording lasts at least to then (what the last rows take is not known from their own times)."""
        self.end_ns = max(self.end_ns, int(time_ns))


def rows(op: str | NDArray[Any], thread: Any, time_ns: Any, **columns: Any) -> Batch:
    """A batch of one operation (by its name) or of several (by codes); scalars are repeated."""
    time = np.atleast_1d(np.asarray(time_ns, np.int64))
    count = len(time)
    made: Batch = {"time_ns": time}
    made["op"] = np.full(count, OPS[op], np.int8) if isinstance(op, str) else op.astype(np.int8)
    for name, value in {"thread": thread, **columns}.items():
        made[name] = np.broadcast_to(np.asarray(value), (count,))
    return made


def read_options(format: Format, given: dict[str, Any]) -> Any:
    """A format's options with what was given; UserError for unknown ones."""
    if format.options is None:
        if given:
            raise UserError(f"{format.name} has no options; it was given {', '.join(given)}")
        return None
    known = {a.name: a for a in attrs.fields(format.options)}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{format.name}: no option {name!r}; it has {', '.join(known)}")
        legal = known[name].metadata.get("legal", ())
        if legal and value not in legal:
            raise UserError(f"{format.name}: {name} is {value!r}; legal: {', '.join(legal)}")
    return format.options(**given)


def names_of(paths: tuple[Path, ...]) -> str:
    """Files as one short text."""
    shown = ", ".join(path.name for path in paths[:3])
    return shown + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
