"""From the events of a contended recording to a trace, and to what waiting and latency really were.

The recording traced every task of the machine. The job's threads become a trace as the recorder makes one: compute,
wake-ups that end waits, block requests, sleeps. All other tasks are *background*: each compute from a wake-up to the
next time that it blocked, begun at its recorded time whatever became of the ones before (`replay` = "open" in the
thread's metadata), and the block requests that are not the job's, the same way.

What EEVDF scheduled were threads. So each thread is a vCPU of its own here; the VM that it belongs to is its task
group: a session (an autogroup), or the task itself if it is the kernel's, which stands in the root group.

Waits on a run queue are counted from the wake-up (`sched_wakeup`) or the preemption to the switch to the task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field, frozen

from hvbench.errors import UserError
from hvbench.traces.format import FORMAT_VERSION, OPS, PAGE_SIZE, write_trace
from hvbench.traces.record.ftrace import ARGUMENTS, Event, block_request

READERS = {
    name: ARGUMENTS[name]
    for name in (
        "sched_switch",
        "sched_waking",
        "sched_wakeup_new",
        "sched_process_fork",
        "tracing_mark_write",
    )
} | {
    "sched_wakeup": ARGUMENTS["sched_waking"],
    "block_rq_issue": block_request,
    "block_rq_complete": block_request,
}

JOB = "job"
DISK = "disk"
TRACE, WAITS = "contended.parquet", "contended-waits.json"
WARMUP_NS = 500_000_000
"""What is not judged, of recording and replay alike: a replay begins with everybody ready."""
DISK_SECTORS = 1 << 20
"""Sectors are taken modulo this: 512 MiB; where a request goes makes no difference to a device without heads."""
BEFORE, RUNNING, RUNNABLE, BLOCKED = range(4)


@frozen(eq=False)
class Recording:
    """What was recorded: events, tasks by number, which are the job's, and the kernel's own count of their waiting."""

    events: list[Event]
    tasks: Mapping[int, Mapping[str, Any]]
    job: set[int]
    run_delay_ns: Mapping[int, int]
    about: dict[str, Any]


@frozen(eq=False)
class Converted:
    """A trace (metadata and rows), the job's waits and requests, and what is known of the recording."""

    meta: dict[str, Any]
    columns: dict[str, Any]
    waits: list[tuple[int, int, int]]
    """Thread, when it came to run, how long it had waited; ns."""
    requests: list[tuple[int, int]]
    """When a request of the job was issued, how long it took; ns."""
    about: dict[str, Any]


@define
class Task:
    """A task while its events are read."""

    state: int = BEFORE
    since: int = 0
    began: int = 0
    due: bool = False
    """Whether `began` is when it became runnable, and not when it came to run."""
    compute: int = 0
    left: int = -1
    uninterruptible: bool = False
    ended: int = -1
    woken_by: str = ""
    request: Event | None = None
    rows: list[tuple[int, int, int, int, int, int, int]] = field(factory=list)
    """op, time, compute, page, pages, peer, duration"""

    def run(self, now: int) -> None:
        """Count what it ran up to now."""
        if self.state == RUNNING:
            if not self.compute and not self.due:
                self.began = self.since
            self.compute += now - self.since
            self.since = now

    def flush(self) -> None:
        """Its compute so far becomes an operation."""
        if self.compute > 0:
            self.rows.append((OPS["compute"], self.began, self.compute, 0, 0, -1, 0))
            self.compute = 0
        self.due = False


@define
class Reader:
    """Reads events one by one."""

    job: list[int]
    start: int
    tasks: dict[int, Task] = field(factory=dict)
    parent: dict[int, int] = field(factory=dict)
    waits: list[tuple[int, int, int]] = field(factory=list)
    issued: dict[tuple[str, int], tuple[int, int, str, int]] = field(factory=dict)
    requests: list[tuple[int, int, int, str, int, int]] = field(factory=list)
    """Issued, latency, task, what, sector, sectors."""
    on_cpu: dict[int, int] = field(factory=dict)
    hidden: int = 0
    """Switches away from a task whose events the kernel does not show."""

    def task(self, tid: int) -> Task:
        return self.tasks.setdefault(tid, Task(since=self.start, began=self.start))

    def read(self, event: Event) -> None:
        """Take one event in.

        Some kernels do not show what privileged tasks of the platform do. That one was switched away from shows at the
        next event of the CPU, which is another task's.
        """
        now = event.time
        known = self.on_cpu.get(event.cpu, event.tid)
        if known != event.tid:
            self.hidden += 1
            if known:
                self.leave(known, "S", now)
            if event.tid:
                self.enter(event.tid, now)
        self.on_cpu[event.cpu] = event.tid
        if event.name == "sched_switch":
            _, prev, state, _, following = event.args
            if prev:
                self.leave(prev, state, now)
            if following:
                self.enter(following, now)
            self.on_cpu[event.cpu] = following
        elif event.name == "sched_waking":
            self.waking(event)
        elif event.name in ("sched_wakeup", "sched_wakeup_new"):
            task = self.task(event.args[1])
            if task.state in (BEFORE, BLOCKED):
                task.state, task.since = RUNNABLE, now
        elif event.name == "sched_process_fork":
            self.parent[event.args[2]] = event.args[0]
        elif event.name.startswith("block"):
            self.block(event)

    def leave(self, tid: int, state: str, now: int) -> None:
        """A task is switched away from."""
        task = self.task(tid)
        if task.state == BEFORE:
            task.state = RUNNING
        task.run(now)
        task.since = now
        if state.startswith("R"):
            task.state = RUNNABLE
            return
        task.state = BLOCKED
        task.left, task.ended, task.woken_by = now, -1, ""
        task.uninterruptible = state.startswith("D")
        task.flush()

    def enter(self, tid: int, now: int) -> None:
        """A task is switched to."""
        task = self.task(tid)
        mine = tid in self.job
        if task.state == RUNNABLE and mine:
            self.waits.append((self.job.index(tid), now, now - task.since))
        if mine:
            self.end_block(task)
        due = task.since if task.state == RUNNABLE else now
        task.left, task.state, task.since = -1, RUNNING, now
        if not mine and not task.compute:
            # background: its next compute is due when it became runnable
            task.began, task.due = due, True

    def end_block(self, task: Task) -> None:
        """What a thread of the job was blocked for becomes an operation."""
        if task.request is not None:
            _, what, sector, sectors = task.request.args
            op = "blk_write" if "W" in what else "blk_read"
            task.rows.append((OPS[op], task.request.time, 0, sector % DISK_SECTORS, sectors, -1, 0))
            task.request = None
        elif task.left >= 0 and task.woken_by == JOB:
            task.rows.append((OPS["wait"], task.left, 0, 0, 0, -1, 0))
        elif task.left >= 0:
            ended = task.ended if task.ended >= 0 else task.since
            op = "outside" if task.uninterruptible or task.woken_by else "sleep"
            task.rows.append((OPS[op], task.left, 0, 0, 0, -1, max(0, ended - task.left)))

    def waking(self, event: Event) -> None:
        """Somebody wakes a task: of two threads of the job that is an edge."""
        tid = event.args[1]
        task = self.task(tid)
        if task.state == BEFORE:
            # it was blocked since before the recording began
            task.state, task.left = BLOCKED, self.start
        if tid not in self.job or task.state != BLOCKED or task.ended >= 0:
            return
        task.ended = event.time
        if event.context:
            return
        task.woken_by = "task"
        if event.tid in self.job and task.request is None:
            waker = self.task(event.tid)
            waker.run(event.time)
            waker.flush()
            task.woken_by = JOB
            waker.rows.append((OPS["wake"], event.time, 0, 0, 0, self.job.index(tid), 0))

    def block(self, event: Event) -> None:
        """A request goes to the device, or is done."""
        device, what, sector, sectors = event.args
        if not sectors:
            return
        if event.name == "block_rq_issue":
            self.issued[device, sector] = event.time, event.tid, what, sectors
            if event.tid in self.job and not event.context:
                task = self.task(event.tid)
                task.run(event.time)
                task.flush()
                task.request = event
        elif (device, sector) in self.issued:
            begun, tid, what, length = self.issued.pop((device, sector))
            self.requests.append((begun, event.time - begun, tid, what, sector, length))


def read_events(events: Iterable[Event], job: list[int], start: int, end: int) -> Reader:
    """Read a recording's events; who runs at the end has run up to there."""
    reader = Reader(job, start)
    for event in events:
        reader.read(event)
    for task in reader.tasks.values():
        task.run(end)
        task.flush()
    return reader


def group_of(tid: int, recording: Recording, parent: Mapping[int, int]) -> str:
    """The task group of a task that is not the job's, by a number: a session, or itself if it is the kernel's."""
    seen = tid
    while seen not in recording.tasks and seen in parent:
        seen = parent[seen]
    known = recording.tasks.get(seen)
    if known is None:
        return f"task-{tid}"
    return str(known["group"]) or f"kernel-{tid}"


def convert(recording: Recording) -> Converted:
    """The trace of a recording, and the job's waits. Raises UserError where the job is not in it."""
    marks = [e.time for e in recording.events if e.name == "tracing_mark_write"]
    start, end = min(marks), max(marks)
    job = sorted(recording.job)
    reader = read_events(recording.events, job, start, end)
    if not reader.waits:
        raise UserError("the recording holds no wait of the job on a run queue: was it running?")
    threads: list[dict[str, Any]] = []
    rows: list[tuple[int, ...]] = []

    def add(tier: str, name: str, mine: Iterable[tuple[int, ...]], nice: int = 0) -> None:
        number = len(threads)
        thread: dict[str, Any] = {"id": number, "process": number, "tier": tier, "name": name, "role": "guest"}
        if tier != JOB:
            thread["replay"] = "open"
        if nice:
            thread["nice"] = nice
        threads.append(thread)
        rows.extend((number, row[0], row[1] - start, *row[2:]) for row in mine)

    for number, tid in enumerate(job):
        add(JOB, f"job-{number}", reader.task(tid).rows)
    tiers: dict[str, str] = {}
    for tid, task in sorted(reader.tasks.items()):
        if tid not in recording.job and task.rows:
            group = group_of(tid, recording, reader.parent)
            tier = tiers.setdefault(group, f"group-{len(tiers)}")
            nice = recording.tasks.get(tid, {}).get("nice", 0) if group.startswith(("kernel", "task")) else 0
            add(tier, f"background-{len(threads)}", sorted(task.rows, key=lambda row: row[1]), nice)
    for lane in lanes([r for r in sorted(reader.requests) if r[2] not in recording.job]):
        add(DISK, f"background-{len(threads)}", [_request_row(r) for r in lane])
    mine = [(r[0] - start, r[1]) for r in sorted(reader.requests) if r[2] in recording.job]
    names = ("thread", "op", "time_ns", "user_ns", "page", "pages", "peer", "duration_ns")
    columns = {name: np.array([row[i] for row in rows], np.int64) for i, name in enumerate(names)}
    columns["peer"][columns["op"] != OPS["wake"]] = -1
    waits = [(thread, at - start, wait) for thread, at, wait in reader.waits]
    about = {
        **{k: v for k, v in recording.about.items() if k != "device"},
        "device": {k: v for k, v in recording.about["device"].items() if k != "number"},
        "hidden_switches": reader.hidden,
        "background_requests": sum(r[2] not in recording.job for r in reader.requests),
        "wait_by_events_ns": sum(wait for _, _, wait in waits),
        "wait_by_schedstat_ns": sum(recording.run_delay_ns.values()),
        "job_compute_ns": int(columns["user_ns"][[threads[t]["tier"] == JOB for t in columns["thread"]]].sum()),
        "background_compute_ns": int(columns["user_ns"][[threads[t]["tier"] != JOB for t in columns["thread"]]].sum()),
        "span_ns": end - start,
    }
    return Converted(_meta(threads, about, end - start), columns, waits, mine, about)


def lanes(requests: list[tuple[int, int, int, str, int, int]]) -> list[list[tuple[int, int, int, str, int, int]]]:
    """Requests in as few rows as can be, so that none of a row begins before the one before it was done."""
    made: list[list[tuple[int, int, int, str, int, int]]] = []
    free: list[int] = []
    for request in requests:
        k = next((k for k, at in enumerate(free) if at <= request[0]), len(free))
        if k == len(free):
            made.append([])
            free.append(0)
        made[k].append(request)
        free[k] = request[0] + request[1]
    return made


def _request_row(request: tuple[int, int, int, str, int, int]) -> tuple[int, ...]:
    issued, _, _, what, sector, sectors = request
    return OPS["blk_write" if "W" in what else "blk_read"], issued, 0, sector % DISK_SECTORS, sectors, -1, 0


def _meta(threads: list[dict[str, Any]], about: dict[str, Any], span_ns: int) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "name": "contended",
        "command": "python -m hvbench.fidelity.contended_job",
        "span_ns": span_ns,
        "page_size": PAGE_SIZE,
        "threads": threads,
        "tiers": sorted({thread["tier"] for thread in threads}),
        "objects": [],
        "flows": [],
        "wait_shares": {},
        "lost_events": 0,
        # not what the replay is judged by
        "machine": {key: value for key, value in about.items() if not key.startswith("wait_")},
        "licence": "CC0-1.0",
    }


# what was recorded --------------------------------------------------------------------------------------------


def quantile(values: Iterable[int], share: float) -> int:
    """The value that `share` of all do not exceed: the nearest rank, as the kernel's histograms take it."""
    ordered = sorted(values)
    return ordered[max(1, min(len(ordered), -int(-share * len(ordered) // 1))) - 1]


def recorded(waits: Iterable[tuple[int, int, int]], requests: Iterable[tuple[int, int]]) -> dict[str, float]:
    """The numbers that a replay is judged by: ms and µs, after the warm-up."""
    after = [wait for _, at, wait in waits if at >= WARMUP_NS]
    latencies = [latency for at, latency in requests if at >= WARMUP_NS]
    return {
        "wait_total": sum(after) / 1e6,
        "wait_p50": quantile(after, 0.5) / 1e3,
        "wait_p90": quantile(after, 0.9) / 1e3,
        "wait_p99": quantile(after, 0.99) / 1e3,
        "block_p50": quantile(latencies, 0.5) / 1e3,
    }


def probe_latency(events: Iterable[Event], device: str, sizes: Mapping[str, int]) -> dict[str, float]:
    """Medians of the probe's requests, ns: of reads and writes, small and large."""
    reader = Reader([], 0)
    for event in events:
        if event.name.startswith("block") and event.args[0] == device:
            reader.block(event)
    found: dict[str, float] = {}
    for size, length in sizes.items():
        for op, letter in (("read", "R"), ("write", "W")):
            took = [r[1] for r in reader.requests if letter in r[3] and r[5] * 512 == length]
            if not took:
                raise UserError(f"the probe's {op}s of {length} bytes reached the device in other sizes")
            found[f"{op}_{size}_ns"] = quantile(took, 0.5)
    return found


def save(made: Converted, folder: Path) -> str:
    """Write trace and waits; returns a text with the numbers for numbers.toml."""
    trace = write_trace(folder / TRACE, made.meta, made.columns)
    text = json.dumps({"about": made.about, "waits": made.waits, "requests": made.requests}, separators=(",", ":"))
    (folder / WAITS).write_text(text + "\n", encoding="ascii")
    numbers = "\n".join(f"{name} = {value:.4g}" for name, value in recorded(made.waits, made.requests).items())
    return f"{len(trace)} rows, {len(made.meta['threads'])} threads\n{json.dumps(made.about, indent=1)}\n{numbers}"
