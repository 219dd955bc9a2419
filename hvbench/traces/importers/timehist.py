"""`perf sched timehist`: a line each time that a thread leaves a CPU, with how long it ran, waited and was delayed.

    perf sched record -- sleep 5 && perf sched timehist -w --state -I > log.txt
    hvbench import timehist log.txt -o trace.parquet

A line is `SECONDS.USEC [CPU] COMM[TID/PID] WAIT DELAY RUN [STATE]`, times in ms with three digits; -w adds
`SECONDS.USEC [CPU] COMM[TID] awakened: COMM[TID]`. `<idle>` is the idle task. SECONDS is when the thread left the CPU,
RUN how long it had run, WAIT how long it had been off the CPU before, DELAY the last part of WAIT, in which it was
runnable.

A run is compute (user and kernel time are not told apart), DELAY is dropped, as that is what a replay predicts, WAIT
less DELAY is a wait. Where -w says which thread of the log ended it, it is an edge; else it is kept as a duration of
unknown cause. A thread that was preempted did not wait: STATE says so (R, of the line before); without --state, a
thread with a DELAY of 0 is taken to have been preempted, as nothing woke it. The recorded delays are kept in the
metadata (`recorded`): they are what a replay's run-queue waits can be set beside.

Traps: times are rounded to us; the clock is perf's own, which is CLOCK_MONOTONIC only with -k mono. `--times runs` is
for listings whose first column was lost: it adds up the runs on each CPU, the idle ones included (-I), and puts a
CPU's first line where it stands in the file. Source: Linux 6.1, tools/perf/builtin-sched.c (timehist_print_sample,
timehist_update_runtime_stats).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.patterns import Matched, Pattern, seconds
from hvbench.traces.importers.requests import Histogram
from hvbench.traces.importers.schedlog import name_pattern
from hvbench.traces.importers.sources import Lines, Source

_TASK: Final = r"(?:<idle>|(?P<comm>.*?)\[(?P<tid>-1|\d{1,7})(?:/(?P<pid>\d{1,7}))?\])"
_WOKEN: Final = r"(?:<idle>|.*?\[(?P<woken>\d{1,7})(?:/\d{1,7})?\])"


def _ms(name: str) -> str:
    return rf"(?P<{name}>\d{{1,9}})\.(?P<{name}_us>\d{{3}})"


LINE: Final = Pattern(
    rf" *(?:(?P<s>\d{{1,10}})\.(?P<us>\d{{1,9}}) |[^\[]*)\[(?P<cpu>\d{{1,5}})\] (?:[ is]* )?{_TASK} +"
    rf"(?:{_ms('wait')} +{_ms('delay')} +{_ms('run')}(?: +(?P<state>[A-Z])\+?)?(?: +next: .*)?|awakened: {_WOKEN}) *",
    {
        "s": "int", "us": "fraction", "cpu": "int", "comm": "code", "tid": "int", "pid": "int", "woken": "int",
        "wait": "int", "wait_us": "fraction", "delay": "int", "delay_us": "fraction", "run": "int",
        "run_us": "fraction", "state": "code",
    },
    "SECONDS [CPU] COMM[TID/PID] WAIT DELAY RUN (ms), as perf sched timehist prints them",
    skip=r" +time +cpu .*| +\[tid/pid\].*|[- ]*|.*\[\d+\] .* migrated: .*|Samples of .*",
)  # fmt: skip
_SUMMARY: Final = re.compile(rb"^\s*(Runtime summary|Idle stats|Wait-time summary)", re.MULTILINE)
MS: Final = 1_000_000


@attrs.frozen
class Options:
    only: str = option("", help="only threads whose name matches (a regular expression)", metavar="REGEX")
    without: str = option("", help="leave out threads whose name matches", metavar="REGEX")
    times: str = option("column", legal=("column", "runs"), help="when lines were: their column, or sums of runs")


@define
class Listing:
    """One import of timehist listings."""

    job: Import
    only: Any
    without: Any
    threads: dict[int, int] = field(factory=dict)
    """Thread id -> its number, -1 for one that is left out."""
    processes: dict[int, int] = field(factory=dict)
    cpus: dict[int, int] = field(factory=dict)
    woken: dict[int, tuple[int, int]] = field(factory=dict)
    """Thread id -> when it was last woken, and by whom."""
    left_as: dict[int, bool] = field(factory=dict)
    """Thread id -> whether it was preempted when it last left a CPU."""
    delays: Histogram = field(factory=Histogram)
    delay_ns: int = 0
    has_idle: bool = False
    nameless: int = 0
    summary: bool = False

    def read(self, source: Source) -> Iterator[Batch]:
        by_runs = self.job.options.times == "runs"
        clock = self.job.clock(source, "relative" if by_runs else "")
        self.summary = False
        self.cpus = {}
        for lines in source.blocks():
            if self.summary:
                continue
            found = _SUMMARY.search(lines.data)
            if found:
                self.summary = True
                lines = Lines(lines.data[: found.start()], lines.first)
            if not lines.data:
                continue
            m = LINE.parse(self.job, source, lines)
            if not by_runs:
                m = self._timed(source, lines, m)
            if not len(m):
                continue
            run = m["run"] * MS + m["run_us"] // 1000
            raw = self._by_runs(m, run) if by_runs else seconds(m["s"], m["us"])
            yield from self._block(m, clock.fix(raw), run)

    def _timed(self, source: Source, lines: Lines, m: Matched) -> Matched:
        bad = m["s"] < 0
        if not bad.any():
            return m
        for row in np.flatnonzero(bad).tolist():
            self.job.bad_line(
                source, lines, int(m.numbers[row]), "a time SECONDS.USEC (--times runs does without, if idle is listed)"
            )
        return Matched(m.numbers[~bad], {k: v[~bad] for k, v in m.columns.items()}, m.words)

    def _by_runs(self, m: Matched, run: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times from the sums of runs on each CPU. Lines without a run stand where they stand in the file."""
        time = np.full(len(run), -1, np.int64)
        cpu = m["cpu"]
        runs = m["run"] >= 0
        new: list[tuple[int, NDArray[np.int64]]] = []
        for number in dict.fromkeys(cpu[runs].tolist()):
            mine = np.flatnonzero((cpu == number) & runs)
            if number in self.cpus:
                time[mine] = self.cpus[number] + np.cumsum(run[mine])
            elif not self.cpus and not new:
                time[mine] = np.cumsum(run[mine])
            else:
                new.append((number, mine))
                continue
            self.cpus[number] = int(time[mine[-1]])
        for number, mine in new:
            before = time[: mine[0]]
            begin = int(before.max()) if len(before) else max(self.cpus.values(), default=0)
            time[mine] = begin + np.cumsum(run[mine]) - run[mine[0]]
            self.cpus[number] = int(time[mine[-1]])
        return np.maximum.accumulate(time) if not runs.all() else time

    def _block(self, m: Matched, time: NDArray[np.int64], run: NDArray[np.int64]) -> Iterator[Batch]:
        self._meet(m)
        nobody = np.array([not word for word in m.words["comm"]])[m["comm"]]
        self.has_idle |= bool(nobody.any())
        self.nameless += int(((m["tid"] < 0) & ~nobody).sum())
        self.job.until(int(time.max()))
        ran = np.flatnonzero((m["run"] >= 0) & (m["tid"] >= 0))
        tid = m["tid"][ran]
        table = np.full(int(m["tid"].max(initial=0)) + 1, -1, np.int64)
        for key, number in self.threads.items():
            if key < len(table):
                table[key] = number
        thread = table[tid]
        wait = m["wait"][ran] * MS + m["wait_us"][ran] // 1000
        delay = m["delay"][ran] * MS + m["delay_us"][ran] // 1000
        begin = time[ran] - run[ran]
        member = thread >= 0
        self.delays.add(delay[member & (delay > 0)])
        self.delay_ns += int(delay[member].sum())
        waited = np.where(self._preempted(m, ran, tid, delay), 0, np.maximum(wait - delay, 0))
        keep = member & (run[ran] > 0)
        waits = np.flatnonzero(member & (waited > 0))
        edges = self._edges(m, time, ran, tid, begin - delay, waits)
        edged = np.zeros(len(ran), bool)
        if edges:
            which, wakers, at = (np.array(column) for column in zip(*edges, strict=True))
            edged[which] = True
            since = (begin - wait)[which]
            yield rows("wait", thread[which], since)
            yield rows("wake", wakers, np.maximum(at, since), peer=thread[which])
            self.job.waited("thread_edge", int(waited[which].sum()))
        waits = waits[~edged[waits]]
        if len(waits):
            yield rows("unknown", thread[waits], (begin - wait)[waits], duration_ns=waited[waits])
            self.job.waited("unknown", int(waited[waits].sum()))
        yield rows("compute", thread[keep], begin[keep], user_ns=run[ran][keep], context_switches=1)

    def _preempted(
        self, m: Matched, ran: NDArray[np.int64], tid: NDArray[np.int64], delay: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each run's thread had been preempted before it: runnable all of its WAIT."""
        words = m.words["state"]
        if not any(words):
            return np.asarray(delay == 0)
        runnable = np.array([word == "R" for word in words])[m["state"][ran]]
        order = np.argsort(tid, kind="stable")
        before = np.empty(len(tid), bool)
        before[order[1:]] = runnable[order[:-1]]
        firsts = np.flatnonzero(np.append(True, tid[order][1:] != tid[order][:-1])[: len(tid)])
        for at in firsts.tolist():
            row = int(order[at])
            before[row] = self.left_as.get(int(tid[row]), False)
        self.left_as.update(zip(tid.tolist(), runnable.tolist(), strict=True))
        return before

    def _edges(
        self, m: Matched, time: NDArray[np.int64], ran: NDArray[np.int64], tid: NDArray[np.int64],
        ready: NDArray[np.int64], waits: NDArray[np.int64],
    ) -> list[tuple[int, int, int]]:  # fmt: skip
        """Waits that a thread of the log ended: (row, waker, time), by the wake-ups listed before each run."""
        wakes = np.flatnonzero(m["woken"] >= 0)
        if not len(wakes) and not self.woken:
            return []
        waiting = set(waits.tolist())
        found = []
        lines = sorted([*((int(w), -1) for w in wakes), *((int(ran[i]), i) for i in range(len(ran)))])
        for line, row in lines:
            if row < 0:
                self.woken[int(m["woken"][line])] = (int(time[line]), int(m["tid"][line]))
                continue
            woken = self.woken.pop(int(tid[row]), None)
            if woken is None or row not in waiting:
                continue
            at, by = woken
            waker = self.threads.get(by, -1)
            if waker >= 0 and by != tid[row] and abs(at - int(ready[row])) <= 2000:  # both are rounded to us
                found.append((row, waker, at))
        return found

    def _meet(self, m: Matched) -> None:
        """Threads that are new in a block, by the names that they have first."""
        tid, first = np.unique(m["tid"], return_index=True)
        for number, row in sorted(zip(tid.tolist(), first.tolist(), strict=True), key=lambda item: item[1]):
            if number < 0 or number in self.threads:
                continue
            name = m.words["comm"][int(m["comm"][row])]
            pid = int(m["pid"][row])
            chosen = (self.only is None or self.only.search(name)) and not (
                self.without is not None and self.without.search(name)
            )
            if not chosen:
                self.threads[number] = -1
                continue
            process = self.processes.setdefault(pid if pid >= 0 else number, len(self.processes))
            self.threads[number] = self.job.thread(name or f"thread {number}", process)


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    if b"sch delay" in head.data[:2000] and b"run time" in head.data[:2000]:
        return 0.9
    match, wrong = LINE.fits([line for line in head.lines(20) if line])
    return 0.5 if match > 2 and not wrong else 0.0


def read(job: Import) -> Iterator[Batch]:
    listing = Listing(job, name_pattern(job.options.only, "only"), name_pattern(job.options.without, "without"))
    for source in job.sources():
        yield from listing.read(source)
    if job.options.times == "runs":
        if not listing.has_idle:
            raise UserError("--times runs: no <idle> in the listing: the runs do not add up; list it with -I")
        job.note("times are sums of the runs on each CPU, rounded to us each")
    if not listing.left_as:
        job.note("no states in the listing: a thread without delay is taken to have been preempted (--state tells)")
    if listing.nameless:
        job.note(f"{listing.nameless} runs of threads that perf no longer knew (tid -1) are left out")
    job.note("user and kernel time are not told apart: all is user_ns")
    job.meta["recorded"] = {"delay_ns": listing.delay_ns, **listing.delays.summary("delay")}


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="timehist",
        summary="perf sched timehist",
        read=read,
        sniff=sniff,
        extensions=(".timehist", ".txt"),
        options=Options,
        clock="mono",
    )
