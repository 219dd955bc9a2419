"""Block requests as delimited text, a line a request, with declared columns and units.

    hvbench import block trace.csv --columns time,op,offset,size --time-unit us -o trace.parquet

Columns: `time`, `op`, `offset` or `sector`, `size` or `sectors`, and, where there are any, `device` and `response`;
`-` for one that is not read. `offset` and `size` are bytes, `sector` and `sectors` count 512 bytes. `op` begins with
r or w, or is listed by --reads and --writes. A first line whose time is no number is a header; lines that begin with
# are comments.

Presets, formats of their own, are the same with columns and units filled in:

- `msr`: MSR Cambridge. Timestamp (FILETIME: 100 ns since 1601), Hostname, DiskNumber, Type, Offset, Size, ResponseTime
- `spc`: SPC and UMass. ASU, LBA (512 bytes), Size (bytes), Opcode, Timestamp (s), further fields ignored
- `systor17`: SYSTOR'17. Timestamp (s), Response (s), IOType, LUN, Offset, Size; an empty IOType is unknown and left out
- `alibaba`: device_id, opcode, offset, length, timestamp (us)
- `tencent`: Timestamp (s), Offset (sectors), Size (sectors), IOType (0 read, 1 write), VolumeID
- `mqsim`: time (ns), device, first sector, sectors, type (0 write, 1 read), by spaces

Each device is a tier of its own (`--device` chooses some). Traps: sectors against bytes; MSR's times overflow 64 bits
when they are taken as ns since 1601; the seconds of Tencent's times are all that is known of them. Sources: SNIA
IOTTA trace repository, the notes of traces 388 (MSR) and 4928 (SYSTOR'17); SPC trace file format specification 1.0.1;
the READMEs of alibaba/block-traces and of the Tencent CBS trace; MQSim's README.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.clocks import TIME_UNITS, unit_ns
from hvbench.traces.importers.delimited import DIGITS, Column, Columns, Table
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests
from hvbench.traces.importers.sources import Lines, Source

COLUMNS: Final = ("time", "op", "offset", "sector", "size", "sectors", "device", "response", "-")
FILETIME: Final = "filetime"
#: 100 ns from 1601 to 1970.
_FILETIME_1970: Final = 116_444_736_000_000_000
_READ, _WRITE, _UNKNOWN, _BAD = 0, 1, 2, 3
_DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " "}
_UNITS: Final = (*TIME_UNITS, FILETIME)


@attrs.frozen
class Options:
    columns: str = option("", help="what the columns are, in order", metavar="NAMES")
    delimiter: str = option("comma", help="what stands between them", legal=tuple(_DELIMITERS))
    time_unit: str = option("s", help="unit of time", legal=_UNITS)
    response_unit: str = option("", help="unit of response (default: that of time)", legal=tuple(TIME_UNITS))
    reads: str = option("", help="values of op that are reads, by commas", metavar="VALUES")
    writes: str = option("", help="values of op that are writes, by commas", metavar="VALUES")
    device: str = option("", help="only these devices, by commas", metavar="NAMES")
    lanes: int = option(LANES, help="requests in flight at most, per device", metavar="N")


@attrs.frozen
class PresetOptions:
    device: str = option("", help="only these devices, by commas", metavar="NAMES")
    lanes: int = option(LANES, help="requests in flight at most, per device", metavar="N")


PRESETS: Final[dict[str, tuple[str, Options]]] = {
    "msr": (
        "MSR Cambridge block traces",
        Options(columns="time,-,device,op,offset,size,response", time_unit=FILETIME, response_unit="100ns"),
    ),
    "spc": ("SPC block traces (UMass)", Options(columns="device,sector,size,op,time", time_unit="s")),
    "systor17": ("SYSTOR'17 block traces", Options(columns="time,response,op,device,offset,size", time_unit="s")),
    "alibaba": ("Alibaba block traces", Options(columns="device,op,offset,size,time", time_unit="us")),
    "tencent": (
        "Tencent CBS block traces",
        Options(columns="time,sector,sectors,op,device", time_unit="s", reads="0", writes="1"),
    ),
    "mqsim": (
        "MQSim block traces",
        Options(columns="time,device,sector,sectors,op", delimiter="space", time_unit="ns", reads="1", writes="0"),
    ),
}
_EXTRA: Final = ("spc",)  # formats whose lines may go on
_CLOCKS: Final = {"msr": "realtime", "systor17": "realtime", "alibaba": "realtime", "tencent": "realtime"}


@attrs.define
class Layout:
    """Options, checked, as what a block of lines is read by."""

    table: Table
    options: Options
    time_ns: int
    response_ns: int
    ops: dict[str, int]
    devices: frozenset[str]

    @property
    def has(self) -> set[str]:
        return {column.name for column in self.table.columns}


def layout(options: Options, first: bytes, extra: bool = False) -> Layout:
    """How to read a file whose first data line is `first`; UserError where the declared columns cannot be."""
    names = [name.strip() for name in options.columns.split(",") if name.strip()]
    if not names:
        raise UserError(f"--columns: say what the columns are, such as time,op,offset,size; of: {', '.join(COLUMNS)}")
    for name in names:
        if name not in COLUMNS:
            raise UserError(f"--columns: {name!r} is no column; legal: {', '.join(COLUMNS)}")
        if name != "-" and names.count(name) > 1:
            raise UserError(f"--columns: {name} stands there twice")
    for wanted in (("time",), ("op",), ("offset", "sector"), ("size", "sectors")):
        if not any(name in names for name in wanted):
            raise UserError(f"--columns {options.columns}: {' or '.join(wanted)} is missing")
    delimiter = _DELIMITERS[options.delimiter]
    fields = first.split() if delimiter == " " else first.split(delimiter.encode())
    columns = []
    for i, name in enumerate(names):
        kind = "text" if name in ("op", "device") else "int"
        if name in ("time", "response") and i < len(fields) and b"." in fields[i]:
            kind = "decimal"
        columns.append(Column(f"-{i}" if name == "-" else name, kind))
    ops = {value.strip().lower(): _READ for value in options.reads.split(",") if value.strip()}
    ops |= {value.strip().lower(): _WRITE for value in options.writes.split(",") if value.strip()}
    at = names.index("time")

    def is_header(line: bytes, number: int) -> bool:
        parts = line.split() if delimiter == " " else line.split(delimiter.encode())
        return line.startswith(b"#") or (number == 1 and len(parts) > at and parts[at].strip()[:1].isalpha())

    table = Table(columns, delimiter, extra, is_header, quick=not (extra and len(fields) > len(names)))
    time = 100 if options.time_unit == FILETIME else unit_ns(options.time_unit)
    response = unit_ns(options.response_unit, "--response-unit") if options.response_unit else time
    devices = frozenset(name.strip() for name in options.device.split(",") if name.strip())
    return Layout(table, options, time, response, ops, devices)


def read(job: Import, preset: str = "") -> Iterator[Batch]:
    options = job.options
    if preset:
        options = attrs.evolve(PRESETS[preset][1], device=options.device, lanes=options.lanes)
    requests = Requests(job, options.lanes)
    for source in job.sources():
        made: Layout | None = None
        for lines in source.blocks():
            if made is None:
                made = layout(options, _first_data(options, lines), preset in _EXTRA)
            yield from _block(job, source, lines, made, requests)
    requests.finish()


def _first_data(options: Options, lines: Lines) -> bytes:
    """The first line that is no header: the one after a first line with letters in the place of its time."""
    split = [line for line in lines.split()[:20] if line.strip() and not line.startswith(b"#")]
    if not split:
        return b""
    is_header = layout(options, split[0]).table.is_header
    return next((line for line in split if not is_header(line, lines.first)), split[0])


def _block(job: Import, source: Source, lines: Lines, made: Layout, requests: Requests) -> Iterator[Batch]:
    columns, numbers = made.table.parse(job, source, lines)
    if not len(numbers):
        return
    kinds = _kinds(columns["op"], made.ops)
    sector, sectors = _place(columns)
    wrong = (kinds == _BAD) | (sector < 0) | (sectors < 0) | (sector >= 1 << 48) | (sectors >= 1 << 31)
    for index in np.flatnonzero(wrong).tolist():
        expected = (
            "an op that is a read or a write (--reads, --writes)"
            if kinds[index] == _BAD
            else ("an address and a size on a disk, 0 or more")
        )
        job.bad_line(source, lines, int(numbers[index]), expected)
    unknown = int((kinds == _UNKNOWN).sum())
    if unknown:
        requests.empty += unknown
    time = _times(columns["time"], made)
    response = None
    if "response" in columns:
        factor = made.response_ns
        decimal = next(c for c in made.table.columns if c.name == "response").kind == "decimal"
        response = columns["response"] * factor // 10**DIGITS if decimal else columns["response"] * factor
    keep = ~wrong & (kinds != _UNKNOWN)
    device = columns.get("device")
    if device is not None and made.devices:
        keep &= np.isin(device, list(made.devices))
    time = job.clock(source).fix(time)
    for name in [""] if device is None else list(dict.fromkeys(device[keep].tolist())):
        mine = np.flatnonzero(keep & (device == name)) if device is not None else np.flatnonzero(keep)
        yield requests.batch(
            str(name),
            time[mine],
            kinds[mine] == _WRITE,
            sector[mine],
            sectors[mine],
            response[mine] if response is not None else None,
        )


def _kinds(op: NDArray[Any], listed: dict[str, int]) -> NDArray[np.int8]:
    """What each value of op is."""
    known: dict[Any, int] = {}
    for value in set(op.tolist()):
        text = str(value).strip().lower()
        if listed:
            known[value] = listed.get(text, _BAD)
        elif not text:
            known[value] = _UNKNOWN
        else:
            known[value] = {"r": _READ, "w": _WRITE}.get(text[0], _BAD)
    if len(known) == 1:
        return np.full(len(op), next(iter(known.values())), np.int8)
    return np.fromiter(map(known.__getitem__, op.tolist()), np.int8, len(op))


def _place(columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First sector and number of sectors: all sectors that the bytes lie in."""
    if "sector" in columns:
        first = columns["sector"]
        if "sectors" in columns:
            return first, columns["sectors"]
        return first, -(-columns["size"] // SECTOR_BYTES)
    first = columns["offset"] // SECTOR_BYTES
    size = columns["size"] if "size" in columns else columns["sectors"] * SECTOR_BYTES
    return first, np.where(size > 0, -(-(columns["offset"] + size) // SECTOR_BYTES) - first, 0)


def _times(values: NDArray[np.int64], made: Layout) -> NDArray[np.int64]:
    decimal = next(column for column in made.table.columns if column.name == "time").kind == "decimal"
    if made.options.time_unit == FILETIME:
        return (values - _FILETIME_1970) * 100
    if not decimal:
        return values * made.time_ns
    per = 10**DIGITS
    return (values // per) * made.time_ns + (values % per) * made.time_ns // per


# recognising ------------------------------------------------------------------------------------------------


def _fields(head: Head, delimiter: bytes, count: int) -> list[list[bytes]]:
    """The first data lines as fields, if all have `count` of them."""
    if not head.is_text:
        return []
    lines = [line.split(delimiter) for line in head.lines(10) if line.strip()]
    return lines if lines and all(len(line) == count for line in lines) else []


def _numbers(values: list[bytes]) -> bool:
    return all(value.strip().replace(b".", b"", 1).isdigit() for value in values)


def _sniff(preset: str, head: Head) -> float:
    first = head.lines(1)[0] if head.is_text and head.data else b""
    sure = 0.0
    if preset == "msr":
        lines = _fields(head, b",", 7)
        if lines and all(_numbers([x[0], *x[4:]]) and len(x[0]) == 18 and x[3] in (b"Read", b"Write") for x in lines):
            sure = 0.9
    elif preset == "spc":
        lines = [line.split(b",") for line in head.lines(10) if line.strip()] if head.is_text else []
        if lines and all(len(x) >= 5 and _numbers([*x[:3], x[4]]) and x[3] in (b"r", b"w", b"R", b"W") for x in lines):
            sure = 0.8
    elif preset == "systor17":
        sure = 0.9 if first.startswith(b"Timestamp,Response,IOType,LUN,Offset,Size") else 0.0
    elif preset == "alibaba":
        lines = _fields(head, b",", 5)
        if lines and all(_numbers([x[0], *x[2:]]) and x[1] in (b"R", b"W") and len(x[4]) == 16 for x in lines):
            sure = 0.9
    elif preset == "tencent":
        lines = _fields(head, b",", 5)
        if lines and all(_numbers(x) and len(x[0]) == 10 and x[3] in (b"0", b"1") for x in lines):
            sure = 0.8
    elif preset == "mqsim":
        lines = _fields(head, b" ", 5)
        if lines and all(_numbers(x) and x[4].strip() in (b"0", b"1") for x in lines):
            sure = 0.5
    return sure


@hookimpl
def hvbench_import_format() -> tuple[Format, ...]:
    made = [
        Format(
            name="block",
            summary="block requests as text, with declared columns and units",
            read=read,
            extensions=(".csv",),
            options=Options,
            replay="open",
        )
    ]
    for name, (summary, _) in PRESETS.items():
        made.append(
            Format(
                name=name,
                summary=summary,
                read=partial(read, preset=name),
                sniff=partial(_sniff, name),
                extensions=(".csv", ".spc", ".trace"),
                options=PresetOptions,
                clock=_CLOCKS.get(name, "relative"),
                replay="open",
            )
        )
    return tuple(made)
