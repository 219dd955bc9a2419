"""Memory accesses of a program, as valgrind's lackey prints them.

    valgrind --tool=lackey --trace-mem=yes --log-file=log.txt PROGRAM
    hvbench import lackey log.txt -o trace.parquet

A line is `I  ADDRESS,SIZE` (an instruction), ` L ADDRESS,SIZE`, ` S …` (load, store) or ` M …` (both), the address
hexadecimal, the size in bytes. Lines `==PID== …` are valgrind's own.

There is no time, only an order. The program becomes one thread; `--instructions-per-us` says how fast it went (by
default 1000 a microsecond, 1 ns each: choice of this project). For every `--window` of instructions there is a
compute, and before it a touch of each run of neighbouring pages that it used: a write if anything was stored there.
So touches are exact in pages and in the order of windows, and the resolution is stated in the metadata. Which mapping
an address belongs to is not said: all pages, those of instructions too, are taken to be of one anonymous object (their
addresses are numbered by first use). Trap: a write is also a read. Silent: storage, network, system calls. Source:
Valgrind 3.19, lackey/lk_main.c.
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
from hvbench.traces.format import FLAG_WRITE
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.patterns import Matched, Pattern

LINE: Final = Pattern(
    r"(?P<kind>I | S| L| M) (?P<address>[0-9a-f]{1,16}),(?P<size>\d{1,4})",
    {"kind": "code", "address": "hex64", "size": "int"},
    "`I  ADDRESS,SIZE`, ` L …`, ` S …` or ` M …`",
    skip=r"==\d+==.*|--\d+--.*|\*\*\d+\*\*.*| *",
)
PAGE_BITS: Final = np.uint64(12)


@attrs.frozen
class Options:
    instructions_per_us: int = option(1000, help="how fast the program went", metavar="N")
    window: int = option(1000, help="instructions to a row of compute: the resolution of touches", metavar="N")


@define
class Accesses:
    job: Import
    thread: int
    object: int
    window: int
    per_us: int
    begin_ns: int = 0
    instructions: int = 0
    """In the open window and all before."""
    written: int = 0
    """Windows that are rows already."""
    pages: dict[int, int] = field(factory=dict)
    open: NDArray[np.int64] = field(factory=lambda: np.zeros((0, 3), np.int64))
    """Accesses of the window that is not complete: window, page, whether stored."""

    def time_ns(self, window: Any) -> Any:
        return self.begin_ns + window * self.window * 1000 // self.per_us

    def block(self, m: Matched) -> Iterator[Batch]:
        instruction = np.array([kind == "I " for kind in m.words["kind"]], bool)[m["kind"]]
        stores = np.array([kind in (" S", " M") for kind in m.words["kind"]], bool)[m["kind"]]
        count = self.instructions + np.cumsum(instruction)
        window = np.maximum(count - 1, 0) // self.window
        self.instructions = int(count[-1])
        first = (m["address"] >> PAGE_BITS).astype(np.int64)
        last = ((m["address"] + np.maximum(m["size"], 1).astype(np.uint64) - np.uint64(1)) >> PAGE_BITS).astype(
            np.int64
        )
        two = last > first
        used = np.stack([window, first, stores], axis=1)
        if two.any():
            used = np.concatenate([used, np.stack([window[two], last[two], stores[two]], axis=1)])
        used = np.concatenate([self.open, used])
        complete = used[:, 0] < self.instructions // self.window
        self.open = _distinct(used[~complete])
        yield from self._rows(_distinct(used[complete]), self.instructions // self.window)

    def finish(self) -> Iterator[Batch]:
        yield from self._rows(self.open, self.written)
        left = self.instructions - self.written * self.window
        if left > 0:
            time = self.time_ns(self.written)
            yield rows("compute", self.thread, time, user_ns=left * 1000 // self.per_us)
            self.job.until(time + left * 1000 // self.per_us)

    def _rows(self, used: NDArray[np.int64], end: int) -> Iterator[Batch]:
        """Touches of some windows, and the compute of all complete ones up to `end`."""
        if len(used):
            address = used[:, 1]
            known, inverse = np.unique(address, return_inverse=True)
            first = np.full(len(known), len(address), np.int64)
            np.minimum.at(first, inverse.reshape(-1), np.arange(len(address)))
            numbers = np.empty(len(known), np.int64)
            for i in np.argsort(first, kind="stable").tolist():
                numbers[i] = self.pages.setdefault(int(known[i]), len(self.pages))
            page = numbers[inverse.reshape(-1)]
            self.job.reach(self.object, len(self.pages))
            order = np.lexsort((page, used[:, 2], used[:, 0]))
            window, page, stored = used[order, 0], page[order], used[order, 2]
            begins = np.append(True, (np.diff(window) != 0) | (np.diff(stored) != 0) | (np.diff(page) != 1))
            at = np.flatnonzero(begins)
            yield rows(
                "touch",
                self.thread,
                self.time_ns(window[at]),
                object=self.object,
                page=page[at],
                pages=np.diff(np.append(at, len(page))),
                flags=np.where(stored[at] > 0, FLAG_WRITE, 0),
            )
        if end > self.written:
            windows = np.arange(self.written, end)
            time = self.time_ns(windows)
            yield rows("compute", self.thread, time, user_ns=self.time_ns(windows + 1) - time)
            self.written = end
            self.job.until(self.time_ns(end))


def _distinct(used: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each page of a window once, stored if it ever was."""
    if not len(used):
        return used
    order = np.lexsort((used[:, 1], used[:, 0]))
    used = used[order]
    starts = np.flatnonzero(np.append(True, (np.diff(used[:, 0]) != 0) | (np.diff(used[:, 1]) != 0)))
    made = used[starts].copy()
    made[:, 2] = np.maximum.reduceat(used[:, 2], starts)
    return made


def read(job: Import) -> Iterator[Batch]:
    options = job.options
    for name, value in (("--window", options.window), ("--instructions-per-us", options.instructions_per_us)):
        if not 1 <= value <= 1 << 30:
            raise UserError(f"{name} {value}: has to be 1 to {1 << 30}")
    for number, source in enumerate(job.sources()):
        begin = int(job.clock(source).fix(np.zeros(1, np.int64))[0])
        thread = job.thread(f"program {number}", number)
        made = Accesses(job, thread, job.object("anon", 0, number), options.window, options.instructions_per_us, begin)
        for lines in source.blocks():
            m = LINE.parse(job, source, lines)
            if len(m):
                yield from made.block(m)
        yield from made.finish()
    job.meta["touch_resolution_ns"] = options.window * 1000 // options.instructions_per_us
    job.meta["touch_method"] = "every access, by windows of instructions"
    job.note(f"there is no time in the log: {options.instructions_per_us} instructions a us are an assumption")
    job.note("mappings are not in the log: all pages are taken to be anonymous memory")


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    match, wrong = LINE.fits(head.lines(30))
    return 0.8 if match > 5 and not wrong else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="lackey",
        summary="memory accesses, valgrind's lackey",
        read=read,
        sniff=sniff,
        extensions=(".lackey", ".txt"),
        options=Options,
    )
