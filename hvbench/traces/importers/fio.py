"""fio's I/O logs, version 2 and 3 (`write_iolog=`).

    fio --write_iolog=log.txt … && hvbench import fio log.txt -o trace.parquet

First line `fio version 2 iolog` or `fio version 3 iolog`; then `FILE ACTION` (add, open, close) or `FILE ACTION OFFSET
LENGTH` (read, write, sync, datasync, trim; bytes), in version 3 with a time before it. That is microseconds since the
start, which the documentation does not say (measured with fio 3.33, `--time-unit` for others). Version 2 has no times:
one request follows the other, and `FILE wait USEC` stands between.

fio works on files or devices. As block requests (the default, right for direct I/O) version 3 is replayed open-loop,
each file a disk of its own, the first the tier `guest`; version 2 closed-loop, in one thread a file. With
`--buffered` they are reads, writes and fsyncs of files above the page cache. Syncs and trims have no data: as block
requests they are left out. Silent: compute. Trap: a name with a blank in it cannot be read, by fio neither. Source:
fio's HOWTO, "Trace file format v2" and "v3"; fio 3.33, iolog.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.format import OPS
from hvbench.traces.importers.api import GUEST, Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.clocks import unit_ns
from hvbench.traces.importers.patterns import Matched, Pattern
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests
from hvbench.traces.importers.sources import Source

_ACTIONS: Final = "add|open|close|read|write|sync|datasync|trim|wait"
_KINDS: Final = {"time": "int", "file": "code", "action": "code", "offset": "int", "length": "int"}
_PLACE: Final = r"(?: +(?P<offset>\d{1,16})(?: +(?P<length>\d{1,10}))?)? *"
V2: Final = Pattern(
    rf"(?P<time>)(?P<file>\S+) +(?P<action>{_ACTIONS}){_PLACE}",
    _KINDS,
    f"FILE ACTION [OFFSET LENGTH], the action one of {_ACTIONS.replace('|', ', ')}",
    skip=r"fio version \d+ iolog| *",
)
V3: Final = Pattern(
    rf"(?P<time>\d{{1,16}}) +(?P<file>\S+) +(?P<action>{_ACTIONS.removesuffix('|wait')}){_PLACE}",
    _KINDS,
    f"TIME FILE ACTION [OFFSET LENGTH], the action one of {_ACTIONS.removesuffix('|wait').replace('|', ', ')}",
    skip=r"fio version \d+ iolog| *",
)
PAGE: Final = 4096
US: Final = 1000


@attrs.frozen
class Options:
    buffered: bool = option(False, flag=True, help="requests went through the page cache: operations of files")
    time_unit: str = option("us", help="unit of version 3's times", metavar="UNIT")
    lanes: int = option(LANES, help="requests in flight at most, per file", metavar="N")


def _version(source_head: bytes) -> int:
    first = source_head.partition(b"\n")[0].strip()
    return {b"fio version 2 iolog": 2, b"fio version 3 iolog": 3}.get(first, 0)


@define
class Log:
    job: Import
    requests: Requests
    unit_ns: int
    files: dict[str, int] = field(factory=dict)
    objects: dict[str, int] = field(factory=dict)
    threads: dict[str, int] = field(factory=dict)
    elapsed_ns: int = 0

    def read(self, source: Source, version: int) -> Iterator[Batch]:
        clock = self.job.clock(source)
        self.elapsed_ns = 0
        for lines in source.blocks():
            m = (V3 if version == 3 else V2).parse(self.job, source, lines)
            action, file = m.words["action"], m.words["file"]
            code = {name: action.index(name) if name in action else -1 for name in _ACTIONS.split("|")}
            data = np.isin(m["action"], [code["read"], code["write"]])
            wrong = data & ((m["offset"] < 0) | (m["length"] < 0))
            for row in np.flatnonzero(wrong).tolist():
                self.job.bad_line(source, lines, int(m.numbers[row]), "an offset and a length in bytes")
            sync = np.isin(m["action"], [code["sync"], code["datasync"]])
            self.requests.empty += int((m["action"] == code["trim"]).sum())
            waits = m["action"] == code["wait"]
            keep = (data | sync | waits) & ~wrong
            write = m["action"] == code["write"]
            if version == 3:
                yield from self._timed(m, keep, write, sync, clock.fix(m["time"] * self.unit_ns), file)
            else:
                yield from self._in_turn(m, keep, write, sync, waits, clock, file)

    def _timed(
        self, m: Matched, keep: NDArray[np.bool_], write: NDArray[np.bool_], sync: NDArray[np.bool_],
        time: NDArray[np.int64], names: list[str],
    ) -> Iterator[Batch]:  # fmt: skip
        """Version 3: each when it was."""
        if len(time):
            self.job.until(int(time.max()))
        for number in dict.fromkeys(m["file"][keep].tolist()):
            mine = np.flatnonzero(keep & (m["file"] == number))
            file = self.files.setdefault(names[number], len(self.files))
            if self.job.options.buffered:
                # threads in turn, as for requests
                threads = self.requests.batch("", time[mine], write[mine], mine * 0, mine * 0 + 1)["thread"]
                yield self._file_rows(threads, time[mine], names[number], m, mine, write, sync)
                continue
            first, sectors = _sectors(m["offset"][mine], np.where(sync[mine], 0, m["length"][mine]))
            yield self.requests.batch(str(file) if file else "", time[mine], write[mine], first, sectors)

    def _in_turn(
        self, m: Matched, keep: NDArray[np.bool_], write: NDArray[np.bool_], sync: NDArray[np.bool_],
        waits: NDArray[np.bool_], clock: Any, names: list[str],
    ) -> Iterator[Batch]:  # fmt: skip
        """Version 2: one after the other; only what is waited for takes time."""
        asleep = np.where(waits, np.maximum(m["offset"], 0) * US, 0)
        time = clock.fix(self.elapsed_ns + np.cumsum(asleep) - asleep)
        self.elapsed_ns += int(asleep.sum())
        self.job.until(clock.offset_ns + self.elapsed_ns)
        for number in dict.fromkeys(m["file"][keep].tolist()):
            name = names[number]
            first = len(self.threads)
            process = 0 if self.job.options.buffered else first
            tier = GUEST if self.job.options.buffered or not first else f"disk-{first}"
            if name not in self.threads:
                self.threads[name] = self.job.thread(f"file {first}", process, tier)
            thread = self.threads[name]
            mine = np.flatnonzero(keep & (m["file"] == number))
            asleep_here = mine[waits[mine]]
            work = mine[~waits[mine]]
            if self.job.options.buffered:
                made = self._file_rows(np.full(len(work), thread), time[work], name, m, work, write, sync)
            else:
                self.requests.empty += int(sync[work].sum())
                work = work[~sync[work]]
                at, sectors = _sectors(m["offset"][work], m["length"][work])
                op = np.where(write[work], OPS["blk_write"], OPS["blk_read"])
                made = rows(op, thread, time[work], page=at, pages=sectors)
            # requests and waits of a file in the order of the log
            slept = rows("sleep", thread, time[asleep_here], duration_ns=asleep[asleep_here])
            order = np.argsort(np.concatenate([work, asleep_here]), kind="stable")
            full = {name for batch in (made, slept) for name in batch}
            blank = {"object": -1}
            merged = {}
            for column in full:
                parts = [
                    batch.get(column, np.full(len(batch["op"]), blank.get(column, 0), np.int64))
                    for batch in (made, slept)
                ]
                merged[column] = np.concatenate(parts)[order]
            yield merged

    def _file_rows(
        self, threads: NDArray[Any], time: NDArray[np.int64], name: str, m: Matched, mine: NDArray[np.int64],
        write: NDArray[np.bool_], sync: NDArray[np.bool_],
    ) -> Batch:  # fmt: skip
        if name not in self.objects:
            self.objects[name] = self.job.object("own", 0, name=name)
        number = self.objects[name]
        offset, length = np.maximum(m["offset"][mine], 0), np.maximum(m["length"][mine], 0)
        page = offset // PAGE
        pages = np.where(sync[mine], 0, np.maximum((offset + length - 1) // PAGE - page + 1, 1))
        self.job.reach(number, int((page + pages).max(initial=0)))
        op = np.where(sync[mine], OPS["fsync"], np.where(write[mine], OPS["fwrite"], OPS["fread"]))
        return rows(op, threads, time, object=number, page=np.where(sync[mine], 0, page), pages=pages)


def _sectors(offset: NDArray[np.int64], length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = np.maximum(offset, 0) // SECTOR_BYTES
    last = -(-(np.maximum(offset, 0) + np.maximum(length, 0)) // SECTOR_BYTES)
    return first, np.where(length > 0, last - first, 0)


def read(job: Import) -> Iterator[Batch]:
    log = Log(job, Requests(job, job.options.lanes), unit_ns(job.options.time_unit))
    versions = set()
    for source in job.sources():
        version = _version(source.head(64))
        if not version:
            raise UserError(f"{source.name}:1: expected `fio version 2 iolog` or `fio version 3 iolog`")
        versions.add(version)
        yield from log.read(source, version)
    if 2 in versions:
        job.replay = "closed"
        job.note("version 2 has no times: each request follows the one before it")
    log.requests.finish()


def sniff(head: Head) -> float:
    return 1.0 if _version(head.data[:64]) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="fio",
        summary="fio I/O logs (write_iolog), version 2 and 3",
        read=read,
        sniff=sniff,
        extensions=(".iolog", ".log", ".txt"),
        options=Options,
        replay="open",
    )
