"""System calls as `strace -f -ttt -T` prints them.

    strace -f -ttt -T -yy -o log.txt PROGRAM          (-yy shows paths and connections; without it they are followed)
    hvbench import strace log.txt -o trace.parquet

A line is `PID SECONDS.USEC CALL(ARGUMENTS) = RESULT [ERROR (TEXT)] <SECONDS.USEC>`, its time that of the call's begin,
the last field its duration; `CALL(… <unfinished ...>` and `<... CALL resumed>…` where threads overlap; `+++ exited with
N +++`, `--- SIGNAL {…} ---`. Without -o the thread is `[pid N]`, without -f there is none. Times are CLOCK_REALTIME.

What becomes of it, thread by thread:

- between two calls a thread computes in user mode. strace cannot tell this from waiting for a CPU, and its own stops
  are in it (some 10 to 50 us a call): `--stop TIME` takes that much off each stretch. A call's own time is kernel time
  (`kernel_ns`), if it is none of the following;
- reads, writes and fsyncs of regular files become operations above the page cache. Where one took `--disk` and more,
  it waited for a disk: that is simulated anew and its time dropped; else its time is kernel time;
- reads and writes of TCP and UDP sockets become messages on flows to the world outside (with -yy only);
- sleeping calls, and polls and futex waits that timed out, become `sleep`; a futex wait that another thread's
  FUTEX_WAKE of the same address ended, and a wait for a child that ended, become edges; other calls that wait (pipes,
  polls, accept …) for longer than `WAITED_NS` are kept as durations of unknown cause.

Silent: memory (mapped files and anonymous memory are touched without system calls). Traps: payload is cut off in the
log and not read; a call without a result (`= ?`) has no duration; addresses of futexes are compared within a process.
Source: strace(1); strace 6.1, src/syscall.c (print formats).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.patterns import Pattern, seconds
from hvbench.traces.importers.sources import Source
from hvbench.traces.importers.strace_calls import SPECIAL, Calls

LINE: Final = Pattern(
    r"(?:\[pid +(?P<pid>\d{1,8})\] +|(?P<tid>\d{1,8}) +)?(?P<s>\d{1,10})\.(?P<us>\d{1,9}) "
    r"(?P<mark>\+\+\+|---|<\.\.\.)? ?(?P<call>[A-Za-z_][A-Za-z0-9_]*)?(?: resumed>)?(?P<args>.*)"
    r"(?P<tail> <unfinished \.\.\.>|\) += (?P<ret>-?\d{1,18}|0x[0-9a-f]+|\?)(?P<more>.*?)"
    r"(?: <(?P<ds>\d{1,9})\.(?P<du>\d{1,9})>)?|\+\+\+|---)",
    {
        "pid": "int", "tid": "int", "s": "int", "us": "fraction", "mark": "code", "call": "code", "args": "text",
        "tail": "text", "ret": "text", "more": "text", "ds": "int", "du": "fraction",
    },
    "[PID] SECONDS.USEC CALL(ARGUMENTS) = RESULT <SECONDS> (strace -f -ttt -T)",
    skip=r"strace: .*|(?:\[pid +\d+\] +|\d+ +)?\d+\.\d+ (?:<.* resumed> *)?\?*\(?\)? *",
)  # fmt: skip
DONE, BEGUN, RESUMED, ENDED, SIGNAL = range(5)


@attrs.frozen
class Options:
    stop_ns: int = option(0, unit="ns", help="what strace's stops add to each stretch between calls", metavar="TIME")
    disk_ns: int = option(
        100_000, unit="ns", help="a file's call that took as long waited for a disk", metavar="TIME"
    )  # choice of this project: below any rotating disk, above a copy out of the page cache


@define
class Items:
    """Calls of a block, in order: thread, begin, end (-1: not yet), what kind of line, call, row of the texts."""

    tid: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    kind: NDArray[np.int64]
    call: NDArray[np.int64]
    text: NDArray[np.int64]
    result: NDArray[np.int64]

    def take(self, rows_: NDArray[Any]) -> Items:
        return Items(*(values[rows_] for values in attrs.astuple(self, recurse=False)))


@define
class _Open:
    """A call that has begun."""

    start: int
    call: int
    args: bytes


@define
class Log:
    job: Import
    calls: Calls
    threads: dict[int, int] = field(factory=dict)
    busy_until: dict[int, int] = field(factory=dict)
    """Thread id -> when its last call ended."""
    open: dict[int, _Open] = field(factory=dict)

    def read(self, source: Source) -> Iterator[Batch]:
        clock = self.job.clock(source)
        pattern = LINE
        for lines in source.blocks():
            m = pattern.parse(self.job, source, lines)
            if not len(m):
                continue
            items, args, more, wrong = _items(m)
            for row in np.flatnonzero(wrong).tolist():
                self.job.bad_line(source, lines, int(m.numbers[row]), "a duration <SECONDS> at the end (strace -T)")
            fixed = clock.fix(items.start)
            items.end = np.where(items.end >= 0, items.end + fixed - items.start, -1)
            items.start = fixed
            if wrong.any():
                items = items.take(~wrong)
            yield from self._block(items, args, more, m.words["call"])

    def _block(self, items: Items, args: Any, more: Any, names: list[str]) -> Iterator[Batch]:
        for tid in np.unique(items.tid).tolist():
            if tid not in self.threads:
                self.threads[tid] = self.calls.meet(tid)
        order = np.argsort(items.tid, kind="stable")
        items = items.take(order)
        begun: dict[int, bytes] = {}
        items = self._join(items, args, begun)
        if not len(items.tid):
            return
        last = float(items.end.max())
        self.job.until(int(last))
        # the stretch before each call: since the thread's last one ended
        before = np.empty(len(items.tid), np.int64)
        before[1:] = np.maximum(items.end[:-1], items.start[:-1])
        first = np.append(True, items.tid[1:] != items.tid[:-1])
        for row in np.flatnonzero(first).tolist():
            before[row] = self.busy_until.get(int(items.tid[row]), int(items.start[row]))
        for row in np.flatnonzero(np.append(first[1:], True)).tolist():
            self.busy_until[int(items.tid[row])] = int(items.end[row])
        user = np.maximum(items.start - before - self.job.options.stop_ns, 0)
        took = np.maximum(items.end - items.start, 0)
        special = np.array([name in SPECIAL for name in names], bool)[items.call] & (items.kind != SIGNAL)
        special |= items.kind == ENDED
        kernel = np.where(special, 0, took)
        thread = np.array([self.threads[tid] for tid in items.tid.tolist()], np.int64)
        chosen = np.flatnonzero(special)
        made: list[Batch] = []
        if len(chosen):
            # edges need the calls of all threads in the order in which they matter
            chosen = chosen[np.argsort(items.end[chosen], kind="stable")]
            kernel[chosen], made = self.calls.follow(
                [names[code] for code in items.call[chosen].tolist()], items.kind[chosen] == ENDED,
                items.tid[chosen], items.start[chosen], took[chosen], items.result[chosen],
                [begun.get(row) or args[row].as_py() for row in items.text[chosen].tolist()],
                [more[row].as_py() if row >= 0 else b"" for row in items.text[chosen].tolist()],
            )  # fmt: skip
        keep = (user + kernel > 0) | (items.kind == DONE)
        yield rows(
            "compute",
            thread[keep],
            np.minimum(before, items.start)[keep],
            user_ns=user[keep],
            kernel_ns=kernel[keep],
            syscalls=(items.kind == DONE)[keep].astype(np.int32),
        )
        yield from made

    def _join(self, items: Items, args: Any, begun: dict[int, bytes]) -> Items:
        """Calls that were interrupted in the log as one: what begun lines say of resumed ones."""
        keep = np.ones(len(items.tid), bool)
        for row in np.flatnonzero((items.kind == BEGUN) | (items.kind == RESUMED)).tolist():
            tid = int(items.tid[row])
            if items.kind[row] == BEGUN:
                text = args[int(items.text[row])].as_py()
                self.open[tid] = _Open(int(items.start[row]), int(items.call[row]), text)
                keep[row] = False
                continue
            was = self.open.pop(tid, None)
            if was is None:
                self.job.note("calls that began before the log did are left out")
                keep[row] = False
                continue
            took = int(items.end[row] - items.start[row])
            items.kind[row] = DONE
            items.start[row] = was.start
            items.end[row] = was.start + took
            begun[int(items.text[row])] = was.args
        return items.take(keep)


def _items(m: Any) -> tuple[Items, Any, Any, NDArray[np.bool_]]:
    """The columns of a block as items; their arguments and further words; lines without the duration they need."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tid = np.where(m["pid"] >= 0, m["pid"], np.maximum(m["tid"], 0))
    marks = np.array([("", "+++", "---", "<...").index(word) for word in m.words["mark"]])[m["mark"]]
    unfinished = pc.starts_with(m["tail"], b" <unf").to_numpy(zero_copy_only=False)
    kind = np.select([marks == 1, marks == 2, unfinished, marks == 3], [ENDED, SIGNAL, BEGUN, RESUMED], DONE)
    start = seconds(m["s"], m["us"])
    text = m["ret"].cast(pa.string())
    number = pc.if_else(pc.or_(pc.equal(text, ""), pc.or_(pc.equal(text, "?"), pc.starts_with(text, "0x"))), "0", text)
    result = number.cast(pa.int64()).to_numpy()
    unknown = pc.equal(text, "?").to_numpy(zero_copy_only=False)
    timed = m["ds"] >= 0
    wrong = np.isin(kind, (DONE, RESUMED)) & ~timed & ~unknown
    took = np.where(timed, seconds(np.maximum(m["ds"], 0), m["du"]), 0)
    items = Items(tid, start, start + took, kind.astype(np.int64), m["call"], np.arange(len(tid)), result)
    return items, m["args"], m["more"], wrong


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    lines = [line for line in head.lines(20) if line]
    match, wrong = LINE.fits(lines)
    return 0.8 if match and not wrong and any(re.search(rb"<\d+\.\d{6}>$|unfinished", line) for line in lines) else 0.0


def read(job: Import) -> Iterator[Batch]:
    log = Log(job, Calls(job))
    for source in job.sources():
        yield from log.read(source)
    if log.open:
        job.note(f"{len(log.open)} calls had not returned when the log ended: left out")
    log.calls.finish()


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="strace",
        summary="system calls, strace -f -ttt -T",
        read=read,
        sniff=sniff,
        extensions=(".strace", ".txt"),
        options=Options,
        clock="realtime",
    )
