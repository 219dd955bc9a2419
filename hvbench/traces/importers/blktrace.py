"""Block requests as Linux's blktrace records them: blkparse's text, and the binary per-CPU files.

    blktrace -d /dev/sda -o - | blkparse -i - > sda.txt         (format `blkparse`)
    blktrace -d /dev/sda                                        (sda.blktrace.0, .1 …: format `blktrace`)
    hvbench import blktrace sda.blktrace.* -o sda.parquet

Text, blkparse's default format: `MAJOR,MINOR CPU SEQUENCE SECONDS.NSEC PID ACTION RWBS SECTOR + SECTORS [COMMAND]`;
after an empty line a summary for each CPU, which is not read. Binary, 48 bytes and `pdu_len` more in the byte order of
the machine that recorded: u32 magic (0x65617400 and version 7), u32 sequence, u64 time (ns of CLOCK_MONOTONIC; the
text counts from the first), u64 sector, u32 bytes, u32 action (lower half: what, upper half: class), u32 pid, u32
device (major << 20 | minor), u32 cpu, u16 error, u16 pdu_len.

A request begins where it was issued to the driver (D), or with `--action Q` where it was queued, before merging; its
end (C, of the same device and first sector) gives the recorded latency. Reads and writes have data; flushes and
discards are left out and counted. Each device is a tier of its own.

Traps: sectors are 512 bytes; a partition's requests are queued (Q) at the partition and issued at the disk; per-CPU
files are one recording with one clock, name them all, as a request may end on another CPU. Sources: blkparse(1);
Linux 6.1, include/uapi/linux/blktrace_api.h.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import attrs
import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.latency import Joined, place_key
from hvbench.traces.importers.patterns import Pattern, seconds
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests
from hvbench.traces.importers.sources import BLOCK_BYTES, Lines, Source

LINE: Final = Pattern(
    r" *(?P<major>\d{1,7}),(?P<minor>\d{1,7}) +\d+ +\d+ +(?P<s>\d{1,9})\.(?P<ns>\d{1,9}) +\d+ +"
    r"(?:m +N .*|(?P<action>[A-Z]{1,2}) +(?P<rwbs>[A-Z]+)(?: +(?P<sector>\d{1,15}) +\+ +(?P<sectors>\d{1,9}))?"
    r"(?: .*)?)",
    {
        "major": "int", "minor": "int", "s": "int", "ns": "fraction", "action": "code", "rwbs": "code",
        "sector": "int", "sectors": "int",
    },
    "MAJOR,MINOR CPU SEQUENCE SECONDS.NSEC PID ACTION RWBS SECTOR + SECTORS, as blkparse prints it",
    skip=r" *",
)  # fmt: skip
_SUMMARY: Final = re.compile(rb"^(CPU\s?\d+ \(|Total \(|Input file )", re.MULTILINE)
MAGIC: Final = 0x65617400
VERSION: Final = 7
FIELDS: Final = [
    ("magic", "u4"), ("sequence", "u4"), ("time", "u8"), ("sector", "u8"), ("bytes", "u4"), ("action", "u4"),
    ("pid", "u4"), ("device", "u4"), ("cpu", "u4"), ("error", "u2"), ("pdu", "u2"),
]  # fmt: skip
QUEUED, ISSUED, COMPLETED = 1, 7, 8
"""__BLK_TA_QUEUE, __BLK_TA_ISSUE, __BLK_TA_COMPLETE."""
ACTIONS: Final = {"Q": QUEUED, "D": ISSUED}
C_WRITE, C_NOTIFY, C_DISCARD = 1 << 17, 1 << 26, 1 << 29
"""BLK_TC_WRITE, BLK_TC_NOTIFY, BLK_TC_DISCARD, in the upper half of an action."""
_WHAT: Final = 0xFF


@attrs.frozen
class Options:
    action: str = option("D", legal=("D", "Q"), help="where a request begins: issued to the driver, or queued")
    device: str = option("", help="only these devices, by commas between", metavar="MAJOR:MINOR,…")
    lanes: int = option(LANES, help="requests in flight at most, per device", metavar="N")


@define
class Log:
    """One import of either kind."""

    job: Import
    requests: Requests
    joined: Joined
    devices: frozenset[int]
    begun: int = 0
    others: int = 0
    """Begins of the kind that was not asked for."""

    def block(
        self, source: Source, device: NDArray[np.int64], time: NDArray[np.int64], what: NDArray[np.int64],
        write: NDArray[np.bool_], sector: NDArray[np.int64], sectors: NDArray[np.int64],
    ) -> Iterator[Batch]:  # fmt: skip
        """Rows of a block of events: device (major << 20 | minor), ns, action, and the place; 0 sectors: no data."""
        wanted = ACTIONS[self.job.options.action]
        time = self.job.clock(source).fix(time)
        keep = np.isin(device, list(self.devices)) if self.devices else np.ones(len(device), bool)
        begins = keep & (what == wanted)
        self.others += int((keep & (what == ISSUED + QUEUED - wanted)).sum())
        self.begun += int(begins.sum())
        both = np.flatnonzero((begins | (keep & (what == COMPLETED))) & (sectors > 0))
        self.joined.add(place_key(device[both], sector[both]), time[both], begins[both])
        for number in dict.fromkeys(device[begins].tolist()):
            mine = np.flatnonzero(begins & (device == number))
            name = f"{number >> 20}:{number & 0xFFFFF}"
            yield self.requests.batch(name, time[mine], write[mine], sector[mine], sectors[mine])

    def finish(self) -> None:
        self.requests.finish()
        if not self.begun and self.others:
            wanted = self.job.options.action
            other = "Q" if wanted == "D" else "D"
            raise UserError(f"no {wanted} (--action) in the log, but {self.others} {other}: try --action {other}")


def _devices(text: str) -> frozenset[int]:
    found = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,7}):(\d{1,7})", item)
        if match is None:
            raise UserError(f"--device {item}: has to be MAJOR:MINOR, such as 8:0")
        found.add(int(match[1]) << 20 | int(match[2]))
    return frozenset(found)


def read(job: Import, binary: bool) -> Iterator[Batch]:
    requests = Requests(job, job.options.lanes)
    log = Log(job, requests, Joined(requests), _devices(job.options.device))
    for source in job.sources():
        yield from (_binary if binary else _text)(job, source, log)
    log.finish()


# text -------------------------------------------------------------------------------------------------------


def _text(job: Import, source: Source, log: Log) -> Iterator[Batch]:
    summary = False
    for lines in source.blocks():
        found = None if summary else _SUMMARY.search(lines.data)
        if found:
            lines = Lines(lines.data[: found.start()], lines.first)
        if summary or not lines.data:
            continue
        summary = found is not None
        m = LINE.parse(job, source, lines)
        action, rwbs = m.words["action"], m.words["rwbs"]
        what = np.array([{"Q": QUEUED, "D": ISSUED, "C": COMPLETED}.get(a, 0) for a in action], np.int64)[m["action"]]
        write = np.array(["W" in kind for kind in rwbs], bool)[m["rwbs"]]
        data = np.array([("W" in kind or "R" in kind) and "D" not in kind for kind in rwbs], bool)[m["rwbs"]]
        sectors = np.where(data & (m["sector"] >= 0), m["sectors"], 0)
        device = m["major"] << 20 | m["minor"]
        yield from log.block(source, device, seconds(m["s"], m["ns"]), what, write, m["sector"], sectors)


# binary -----------------------------------------------------------------------------------------------------


def _order(data: bytes) -> str:
    """The byte order of a file, "" where it is none of this kind."""
    for order in "<>":
        if len(data) >= 48 and int(np.frombuffer(data, order + "u4", 1)[0]) >> 8 == MAGIC >> 8:
            return order
    return ""


def _binary(job: Import, source: Source, log: Log) -> Iterator[Batch]:
    order = _order(source.head(48))
    if not order:
        raise UserError(f"{source.name}: expected blktrace records (magic {MAGIC:#x}); blkparse's text is `blkparse`")
    kind = np.dtype([(name, order + size) for name, size in FIELDS])
    rest, position = b"", 0
    while data := source.read(BLOCK_BYTES):
        data = rest + data
        at, runs = _runs(job, source, data, position, kind)
        rest, position = data[at:], position + at
        if not runs:
            continue
        records = np.concatenate(runs) if len(runs) > 1 else runs[0]
        records = records[(records["action"] & C_NOTIFY) == 0]
        action = records["action"].astype(np.int64)
        sectors = (records["bytes"].astype(np.int64) + SECTOR_BYTES - 1) // SECTOR_BYTES
        yield from log.block(
            source,
            records["device"].astype(np.int64),
            records["time"].astype(np.int64),
            action & _WHAT,
            (action & C_WRITE) != 0,
            records["sector"].astype(np.int64),
            np.where(action & C_DISCARD, 0, sectors),
        )
    source.cut_bytes = len(rest)


def _runs(job: Import, source: Source, data: bytes, position: int, kind: Any) -> tuple[int, list[NDArray[Any]]]:
    """Stretches of records without further data, as they lie there; how far the block was read."""
    runs = []
    at = 0
    while len(data) - at >= kind.itemsize:
        records = np.frombuffer(data, kind, (len(data) - at) // kind.itemsize, at)
        good = records["magic"] == MAGIC | VERSION
        ends = ~good | (records["pdu"] > 0)
        stop = int(np.argmax(ends)) if ends.any() else len(records)
        if stop < len(records) and good[stop]:
            after = at + (stop + 1) * kind.itemsize + int(records["pdu"][stop])
            if after > len(data):
                if stop:
                    runs.append(records[:stop])
                return at + stop * kind.itemsize, runs
            runs.append(records[: stop + 1])
            at = after
            continue
        if stop:
            runs.append(records[:stop])
        at += stop * kind.itemsize
        if stop == len(records):
            break
        found = f"{int(records['magic'][stop]):#010x}"
        job.bad_record(f"{source.name} at byte {position + at}", f"a record's magic {MAGIC | VERSION:#x}", found)
        # the next one begins where the magic stands again
        wanted = np.array([MAGIC | VERSION], kind["magic"]).tobytes()
        again = data.find(wanted, at + 1)
        at = again if again >= 0 else len(data)
    return at, runs


# recognising ------------------------------------------------------------------------------------------------


def _sniff_text(head: Head) -> float:
    if not head.is_text:
        return 0.0
    match, wrong = LINE.fits([line for line in head.lines(20) if line.strip()])
    return 0.8 if match and not wrong else 0.0


def _sniff_binary(head: Head) -> float:
    return 1.0 if _order(head.data) else 0.0


@hookimpl
def hvbench_import_format() -> tuple[Format, ...]:
    text = Format(
        name="blkparse",
        summary="blkparse text of block requests",
        read=partial(read, binary=False),
        sniff=_sniff_text,
        extensions=(".txt", ".blkparse"),
        options=Options,
        replay="open",
    )
    binary = attrs.evolve(
        text,
        name="blktrace",
        summary="blktrace's binary per-CPU files",
        read=partial(read, binary=True),
        sniff=_sniff_binary,
        extensions=(),
        clock="mono",
    )
    return text, binary
