"""Scheduler logs as text, for the formats `ftrace` and `perf-script`: lines through `scan` and `sched_pass`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.format import COLUMNS
from hvbench.traces.importers import compiled, scan, sched_pass
from hvbench.traces.importers.api import GUEST, Batch, Import, option
from hvbench.traces.importers.requests import LANES, Histogram, Requests
from hvbench.traces.importers.sources import Lines, Source

BLOCK_BYTES: Final = 1 << 20
MOST_TID: Final = 1 << 22
"""Linux: pid_max is 4194304 at most (include/linux/threads.h)."""
MOST_CPUS: Final = 4096
_EXPECTED: Final = {
    scan.BAD: "COMM-TID [CPU] TIME: EVENT: ARGUMENTS",
    scan.BAD_TIME: "a time in seconds with a fraction (record with clock mono, not with a counter of ticks)",
    scan.BAD_ARGUMENTS: "the event's arguments as the kernel prints them",
}


@attrs.frozen
class Options:
    only: str = option("", help="only threads whose name matches (a regular expression)", metavar="REGEX")
    without: str = option("", help="leave out threads whose name matches", metavar="REGEX")
    device: str = option("", help="only block requests of this device", metavar="MAJOR,MINOR")


def name_pattern(text: str, name: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise UserError(f"--{name} {text}: not a regular expression: {error}") from error


class Log:
    """One import of scheduler logs, over its files."""

    def __init__(self, job: Import, expected_bytes: int) -> None:
        self.job = job
        self.only = name_pattern(job.options.only, "only")
        self.without = name_pattern(job.options.without, "without")
        self.device = self._device(job.options.device)
        self.scan = compiled.function(scan.scan, ("bytes", "int64", "table"), expected_bytes)
        kinds = ("table", "int64", "table", "column", "table", "table", "column")
        self.sched = compiled.function(sched_pass.sched_pass, kinds, expected_bytes)
        self.finish_pass = compiled.function(
            sched_pass.finish_pass, ("table", "int64", "table", "table", "column"), expected_bytes
        )
        self.index: NDArray[np.int64] = np.full(MOST_TID + 1, -1, np.int64)
        self.state = np.zeros((256, len(sched_pass.STATE)), np.int64)
        self.cpus = np.full((MOST_CPUS, 2), -1, np.int64)
        self.totals = np.zeros(len(sched_pass.TOTALS), np.int64)
        self.totals[sched_pass.T_START] = -1
        self.names: dict[tuple[int, bytes], None] = {}
        self.process: dict[int, int] = {}
        self.spaces: dict[int, int] = {}
        """Process -> its object of anonymous memory."""
        self.pages: dict[tuple[int, int], int] = {}
        """(object, page of the address) -> page of the object."""
        self.requests = Requests(job, LANES)
        self.issued: dict[tuple[int, int], int] = {}
        self.latency = Histogram()
        self.lane_last: dict[int, int] = {}
        """Thread of requests that nobody waits for -> when its last one was issued."""
        self.has_switches = False
        self.without_flags = False
        self.devices: set[int] = set()

    @staticmethod
    def _device(text: str) -> int:
        if not text:
            return -1
        match = re.fullmatch(r"(\d+)[,:](\d+)", text)
        if match is None:
            raise UserError(f"--device {text}: has to be MAJOR,MINOR, such as 254,0")
        return int(match[1]) * (1 << 20) + int(match[2])

    # a block --------------------------------------------------------------------------------------------

    def read(self, source: Source) -> Iterator[Batch]:
        clock = self.job.clock(source)
        for lines in source.blocks(BLOCK_BYTES):
            table = self._scan(source, lines)
            if not len(table):
                continue
            table[:, scan.F_TIME] = clock.fix(table[:, scan.F_TIME])
            if (np.diff(table[:, scan.F_TIME]) < 0).any():
                table = np.ascontiguousarray(table[np.argsort(table[:, scan.F_TIME], kind="stable")])
            self._meet(table, lines.data)
            self._memory(table)
            self._latencies(table)
            yield from self._pass(table)

    def _scan(self, source: Source, lines: Lines) -> NDArray[np.int64]:
        data = lines.data
        table = np.empty((data.count(b"\n"), len(scan.FIELDS)), np.int64)
        plain = self.scan is scan.scan
        self.scan(data if plain else np.frombuffer(data, np.uint8), len(data), table)
        status = table[:, scan.F_STATUS]
        for row in np.flatnonzero(status >= scan.BAD).tolist():
            self.job.bad_line(source, lines, lines.first + row, _EXPECTED[int(status[row])])
        lost = table[status == scan.LOST, scan.F_A]
        if len(lost):
            self.job.lost_events += int(np.maximum(lost, 1).sum())
        table = table[(status == scan.OK) & (table[:, scan.F_KIND] > scan.OTHER)]
        tids = table[:, [scan.F_TID, scan.F_A, scan.F_C]]
        wrong = (tids[:, 0] > MOST_TID) | (
            np.isin(table[:, scan.F_KIND], (scan.SWITCH, scan.WAKE)) & (tids[:, 1:].max(axis=1) > MOST_TID)
        )
        for row in np.flatnonzero(wrong).tolist():
            number = lines.first + int(table[row, scan.F_LINE])
            self.job.bad_line(source, lines, number, f"thread ids up to {MOST_TID}")
        return np.ascontiguousarray(table[~wrong]) if wrong.any() else table

    def _meet(self, table: NDArray[np.int64], data: bytes) -> None:
        """Threads and names that are new in a block."""
        kind = table[:, scan.F_KIND]
        self.has_switches |= bool((kind == scan.SWITCH).any())
        self.totals[sched_pass.T_SWITCHES] = int(self.has_switches)
        self.without_flags |= bool((table[:, scan.F_CONTEXT] == scan.NOWHERE).any())
        target = np.select(
            [kind == scan.SWITCH, kind == scan.WAKE, kind == scan.FORK],
            [table[:, scan.F_C], table[:, scan.F_A], table[:, scan.F_B]],
            -1,
        )
        named = (table[:, scan.F_NAME] >= 0) & np.isin(kind, (scan.SWITCH, scan.WAKE, scan.FORK))
        tid = np.concatenate([table[:, scan.F_TID], target[named]])
        at = np.concatenate([table[:, scan.F_COMM], table[named, scan.F_NAME]])
        end = np.concatenate([table[:, scan.F_COMM_END], table[named, scan.F_NAME_END]])
        # who is called what: a number of the name's last bytes tells changes; few are looked at as text
        raw = np.frombuffer(data, np.uint8)
        look = np.zeros(len(tid), np.int64)
        for back in range(1, 8):
            where = np.maximum(end - back, at)
            look = look * 131 + raw[np.clip(where, 0, len(raw) - 1)]
        _, first = np.unique(tid * 1_000_003 + look * 7_919 + (end - at), return_index=True)
        group = table[:, scan.F_TGID]
        for row in np.sort(first).tolist():
            number = int(tid[row])
            if number <= 0:
                continue
            name = data[int(at[row]) : int(end[row])].strip()
            if (number, name) in self.names or name == b"<...>":
                continue
            self.names[number, name] = None
            tgid = int(group[row]) if row < len(table) else -1
            self._thread(number, name.decode("utf-8", "replace"), tgid)
        left = table[kind == scan.SWITCH, scan.F_A]
        missing = np.unique(np.concatenate([table[:, scan.F_TID], target, left]))
        missing = missing[(missing > 0) & (missing <= MOST_TID)]
        for number in missing[self.index[missing] < 0].tolist():
            self._thread(number, "", -1)

    def _thread(self, tid: int, name: str, tgid: int) -> None:
        chosen = (self.only is None or bool(self.only.search(name))) and not (
            self.without is not None and self.without.search(name)
        )
        number = int(self.index[tid])
        if number < 0:
            process = self.process.setdefault(tgid if tgid > 0 else tid, len(self.process))
            number = self.job.thread(name or f"thread {tid}", process, GUEST)
            self.index[tid] = number
            while number >= len(self.state):
                self.state = np.concatenate([self.state, np.zeros_like(self.state)])
            self.state[number, sched_pass.S_EARLY_AT] = -1
            self.state[number, sched_pass.S_RQ_AT] = -1
        elif name and chosen:
            self.job.threads[number]["name"] = self.job.name(name)
        if chosen:
            self.state[number, sched_pass.S_MEMBER] = 1

    def _memory(self, table: NDArray[np.int64]) -> None:
        """Page faults: which page of which process's memory, in c and d (-1: unknown)."""
        rows = np.flatnonzero(table[:, scan.F_KIND] == scan.FAULT)
        table[rows, scan.F_C] = -1
        rows = rows[(table[rows, scan.F_A] >= 0) & (self.index[table[rows, scan.F_TID]] >= 0)]
        for row in rows.tolist():
            process = self.job.threads[int(self.index[table[row, scan.F_TID]])]["process"]
            space = self.spaces.get(process)
            if space is None:
                space = self.spaces[process] = self.job.object("anon", 0, process)
            key = (space, int(table[row, scan.F_A]))
            page = self.pages.get(key)
            if page is None:
                page = self.pages[key] = self.job.objects[space]["pages"]
                self.job.objects[space]["pages"] = page + 1
            table[row, scan.F_C] = space
            table[row, scan.F_D] = page

    def _latencies(self, table: NDArray[np.int64]) -> None:
        """Keep requests of the chosen device; recorded latencies of those whose end was seen."""
        kind = table[:, scan.F_KIND]
        rows = np.flatnonzero((kind == scan.BLOCK_ISSUE) | (kind == scan.BLOCK_DONE))
        if self.device >= 0:
            table[rows[table[rows, scan.F_A] != self.device], scan.F_KIND] = scan.OTHER
            rows = rows[table[rows, scan.F_A] == self.device]
        self.devices.update(np.unique(table[rows, scan.F_A]).tolist())
        took = []
        for kind_, device, sector, time in table[rows][:, [scan.F_KIND, scan.F_A, scan.F_C, scan.F_TIME]].tolist():
            if kind_ == scan.BLOCK_ISSUE:
                if len(self.issued) < 1 << 16:
                    self.issued[device, sector] = time
            elif (device, sector) in self.issued:
                took.append(time - self.issued.pop((device, sector)))
        if took:
            self.latency.add(np.array(took))

    def _pass(self, table: NDArray[np.int64]) -> Iterator[Batch]:
        rows = np.empty((len(table) * sched_pass.ROWS_PER_EVENT + 16, len(sched_pass.ROW)), np.int64)
        made = self.sched(table, len(table), self.state, self.index, self.cpus, rows, self.totals)
        yield from self._batches(rows[:made])

    def _batches(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        behind = rows[:, sched_pass.R_THREAD] == sched_pass.BACKGROUND
        own = rows[~behind]
        if len(own):
            yield {name: own[:, i].astype(COLUMNS[name]) for i, name in enumerate(sched_pass.ROW)}
        if behind.any():
            yield from self._background(rows[behind])

    def _background(self, rows: NDArray[np.int64]) -> Iterator[Batch]:
        """Requests that nobody waited for, on threads of their own, at their recorded distances."""
        rows = rows[np.argsort(rows[:, sched_pass.R_TIME], kind="stable")]
        time = rows[:, sched_pass.R_TIME]
        batch = self.requests.batch(
            "",
            time,
            rows[:, sched_pass.R_OP] == sched_pass.OP_WRITE,
            rows[:, sched_pass.R_PAGE],
            rows[:, sched_pass.R_PAGES],
        )
        yield batch
        if self.has_switches:
            thread = batch["thread"]
            order = np.argsort(thread, kind="stable")
            lane, at = thread[order], batch["time_ns"][order]
            before = np.empty_like(at)
            before[1:] = at[:-1]
            begins = np.flatnonzero(np.append(True, lane[1:] != lane[:-1]))
            start = int(self.totals[sched_pass.T_START])
            for i in begins.tolist():
                before[i] = self.lane_last.get(int(lane[i]), start)
            for i in np.append(begins[1:], len(lane)).tolist():
                self.lane_last[int(lane[i - 1])] = int(at[i - 1])
            slept = at - before
            keep = slept > 0
            # a sleep belongs before its request: its own time is that of the request before
            yield {
                "thread": lane[keep],
                "op": np.full(int(keep.sum()), sched_pass.OP_SLEEP, np.int8),
                "time_ns": before[keep] + 1,
                "duration_ns": slept[keep],
            }

    # the end --------------------------------------------------------------------------------------------

    def finish(self) -> Iterator[Batch]:
        job = self.job
        rows = np.empty((2 * len(self.state) + 16, len(sched_pass.ROW)), np.int64)
        made = self.finish_pass(self.state, len(self.state), self.cpus, rows, self.totals)
        yield from self._batches(rows[:made])
        if self.totals[sched_pass.T_END] > 0:
            job.until(int(self.totals[sched_pass.T_END]))
        for name, at in (
            ("thread_edge", sched_pass.T_EDGE),
            ("timer", sched_pass.T_TIMER),
            ("disk", sched_pass.T_DISK),
            ("outside", sched_pass.T_OUTSIDE),
            ("unknown", sched_pass.T_UNKNOWN),
        ):
            if self.totals[at]:
                job.waited(name, int(self.totals[at]))
        job.replay = "closed" if self.has_switches else "open"
        job.meta["recorded"] = self.latency.summary("block_latency")
        if job.lost_events:
            job.note(f"{job.lost_events} events were lost when it was recorded: what they said is missing")
        if self.without_flags and self.has_switches:
            job.note("no flags in the log: a wake-up in an interrupt looks like one by the thread that it interrupted")
        if self.totals[sched_pass.T_MISSING]:
            missing = int(self.totals[sched_pass.T_MISSING])
            job.note(f"{missing} switches are missing in the log: who ran then is partly guessed")
        if len(self.devices) > 1:
            names = ", ".join(f"{d >> 20},{d % (1 << 20)}" for d in sorted(self.devices))
            job.note(f"requests of several devices ({names}) go to one disk: --device MAJOR,MINOR chooses one")
        if self.spaces:
            job.note("touches are the first ones only, by page faults; all are taken to be of anonymous memory")
            job.meta["touch_method"] = "first touches by page faults"


def read(job: Import) -> Iterator[Batch]:
    """Read scheduler logs of either kind."""
    log: Log | None = None
    for source in job.sources():
        if log is None:
            size = source.path.stat().st_size * (10 if source.name != str(source.path) or _packed(source) else 1)
            log = Log(job, size)
        yield from log.read(source)
    if log is not None:
        yield from log.finish()


def _packed(source: Source) -> bool:
    return source.path.suffix in (".gz", ".xz", ".zst", ".bz2", ".tgz")


def looks_like(lines: list[bytes]) -> tuple[int, int, Any]:
    """How many of the lines are events, how many are wrong, and the scanned table."""
    data = b"".join(line + b"\n" for line in lines)
    table = np.empty((len(lines), len(scan.FIELDS)), np.int64)
    scan.scan(data, len(data), table)
    status = table[:, scan.F_STATUS]
    return int((status == scan.OK).sum()), int((status >= scan.BAD).sum()), table
