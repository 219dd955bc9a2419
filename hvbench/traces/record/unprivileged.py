"""Recording without root: what /proc says about one's own processes, sampled.

Every `SAMPLE_S` the recorder reads each thread's CPU time, run-queue wait and system call, and each process's
memory. An interval becomes a compute of the CPU time that was used in it and, for the rest, a wait of
unknown cause (a sleep where the thread sat in a call that sleeps). There are no wake-ups between threads, no
messages and no file operations, and touches are only the growth of the resident set. All that is written
into the metadata as `degraded`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import define, field

from hvbench.errors import UserError
from hvbench.traces.check import require_valid
from hvbench.traces.format import FLAG_SAMPLED, FLAG_WRITE, Trace, make_trace, write_trace
from hvbench.traces.record import procfs, syscalls
from hvbench.traces.record.builder import Builder
from hvbench.traces.record.ftrace import Capture
from hvbench.traces.record.rows import Process, Thread
from hvbench.traces.record.session import Options, Recording, Say, exit_code, header, target_of
from hvbench.traces.record.timeline import Timeline

SAMPLE_S: Final = 0.01

MISSING: Final = (
    "waits have no causes and threads no wake-up edges: they are kept as durations (root and tracefs give them)",
    "no messages on flows: tiers do not talk to each other in this trace (root and tracefs give them)",
    "no file reads, writes and fsyncs (root and tracefs give them)",
    "touches are only the growth of resident memory, sampled; no contents (root gives page faults and contents)",
    "privileged operations: context switches and page faults are counted, system calls and the rest are not",
)


@define
class Sampled:
    """The last reading of a thread."""

    thread: Thread
    cpu_ns: int = 0
    user_ticks: int = 0
    kernel_ticks: int = 0
    switches: int = 0
    faults: int = 0
    since: int = 0


@define
class Sampler:
    """Turns readings into rows; `read` is called every `SAMPLE_S`."""

    timeline: Timeline
    threads: dict[int, Sampled] = field(factory=dict)
    processes: dict[int, Process] = field(factory=dict)
    resident: dict[int, int] = field(factory=dict)
    late: int = 0  # readings that did not come in time
    last: int = -1

    def read(self, pids: list[int], now: int) -> None:
        """Read all threads of these processes, and their memory."""
        if self.last >= 0:
            self.late += max(0, int((now - self.last) / (SAMPLE_S * 1e9)) - 1)
        self.last = now
        present = set()
        for pid in pids:
            try:
                tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
            except OSError:
                continue
            for tid in tids:
                if self.thread(pid, tid, now):
                    present.add(tid)
            self._memory(pid, now)
        for tid in set(self.threads) - present:
            sampled = self.threads.pop(tid)
            sampled.thread.exited = True
            if all(thread.exited for thread in sampled.thread.process.threads):
                sampled.thread.process.exited_ns = now
                self.processes.pop(sampled.thread.process.pid, None)

    def thread(self, pid: int, tid: int, now: int) -> bool:
        """Read one thread; whether it is there."""
        stat = procfs.read_text(f"/proc/{pid}/task/{tid}/stat")
        schedule = procfs.read_text(f"/proc/{pid}/task/{tid}/schedstat").split()
        if not stat:
            return False
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        words = stat.rpartition(")")[2].split()
        user, kernel, faults = int(words[11]), int(words[12]), int(words[7])
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        cpu = int(schedule[0]) if schedule else (user + kernel) * tick
        status = procfs.read_text(f"/proc/{pid}/task/{tid}/status")
        switches = sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        last = self.threads.get(tid)
        if last is None:
            process = self.processes.get(pid)
            if process is None:
                process = self.timeline._new_process(pid, name)
                process.started = now > 0
                self.processes[pid] = process
            last = Sampled(self.timeline._thread(tid, process, name), 0, 0, 0, 0, 0, now)
            self.threads[tid] = last
        last.thread.process.names.add(name)
        used = max(0, min(cpu - last.cpu_ns, now - last.since)) if now > last.since else 0
        ticks = (user - last.user_ticks) + (kernel - last.kernel_ticks)
        kernel_ns = used * (kernel - last.kernel_ticks) // ticks if ticks > 0 else 0
        if used:
            last.thread.add(
                "compute",
                last.since,
                user_ns=used - kernel_ns,
                kernel_ns=kernel_ns,
                context_switches=max(0, switches - last.switches),
                page_faults=max(0, faults - last.faults),
            )
        blocked = now - last.since - used
        if words[0] != "R" and blocked > 0:
            call = procfs.read_text(f"/proc/{pid}/task/{tid}/syscall").split()
            number = int(call[0]) if call and call[0].lstrip("-").isdigit() else -1
            kind = "timer" if number in syscalls.SLEEPS else "unknown"
            row_kind = "sleep" if kind == "timer" else "unknown"
            rows = last.thread.rows
            if rows and rows[-1].op == row_kind:
                rows[-1].at["duration_ns"] += blocked
            else:
                last.thread.add(row_kind, last.since + used, duration_ns=blocked)
            last.thread.waited[kind] += blocked
        last.cpu_ns, last.user_ticks, last.kernel_ticks = cpu, user, kernel
        last.switches, last.faults, last.since = switches, faults, now
        return True

    def _memory(self, pid: int, now: int) -> None:
        """Growth of the anonymous resident set as touches of pages that were not touched before."""
        process = self.processes.get(pid)
        words = procfs.read_text(f"/proc/{pid}/statm").split()
        if process is None or len(words) < 3 or not process.threads:
            return
        anonymous = max(0, int(words[1]) - int(words[2]))
        before = self.resident.get(process.index, 0)
        space = self.timeline.memory.space(process)
        at = {"space": space, "page": min(before, anonymous), "pages": abs(anonymous - before)}
        if anonymous > before:
            space.touch(before, anonymous - before)
            process.main.add("touch", now, **at, flags=FLAG_WRITE | FLAG_SAMPLED)
        elif anonymous < before:
            process.main.add("free", now, **at)
        self.resident[process.index] = anonymous


def sample(
    options: Options,
    recording: Recording,
    degraded: list[str],
    alive: Callable[[], bool],
    look: Callable[[int], None],
    go: Callable[[], None] = lambda: None,
) -> None:
    """`go`, then look every `SAMPLE_S` (at ns since the start) until the job or the time ends, or Ctrl-C comes."""
    try:
        go()
        while alive():
            now = time.monotonic_ns() - recording.start_ns
            if options.max_seconds and now >= options.max_seconds * 1e9:
                break
            look(now)
            time.sleep(SAMPLE_S)
    except KeyboardInterrupt:
        recording.interrupted = True
        if options.command:
            degraded.append("interrupted from the keyboard: ends before the command did")


def record_unprivileged(options: Options, output: Path, why: str, say: Say) -> Trace:
    """As `session.record`, from /proc alone; `why` says what kept it from more."""
    say(f"recording less than is possible: {why}")
    degraded = [f"recorded without tracefs: {why}", *MISSING]
    if options.runs > 1:
        degraded.append("recorded once: no content can be told to be common to independent runs")
    for sentence in degraded[1:]:
        say(f"  missing: {sentence}")
    recording = Recording(Capture(), 0, time.time())
    recording.clock = "none"
    target = target_of(options)
    try:
        target.go()
        time.sleep(options.delay_s)
        steal, spent = procfs.steal_ns(), time.process_time()
        start = time.monotonic_ns()
        recording.start_ns = start
        timeline = Timeline(start, int(SAMPLE_S * 1e9))
        sampler = Sampler(timeline)
        sample(options, recording, degraded, target.alive, lambda now: sampler.read(target.pids(), now))
        recording.wall_s = (time.monotonic_ns() - start) / 1e9
        recording.recorder_cpu_s = time.process_time() - spent
        recording.steal_ns = procfs.steal_ns() - steal
        recording.exit_code = exit_code(target)
        degraded.extend(recording.how_it_ended())
        recording.lost = sampler.late
        if sampler.late:
            degraded.append(f"{sampler.late} samples are missing: the recorder was not run in time")
    finally:
        with contextlib.suppress(OSError):
            target.end()
    builder = Builder(timeline=timeline, selection=options.selection, hide_names=options.hide_names, degraded=degraded)
    built = builder.build()
    if not len(built.columns["op"]):
        ended = "; ".join(["", *recording.how_it_ended()])
        raise UserError(f"nothing was recorded: the command ended before the first sample, or no --tier matched{ended}")
    meta = {"format": 1, **header(options, recording), **built.meta}
    meta["recorder"] = {**meta["recorder"], "mode": "proc"}
    meta["touch_resolution_ns"] = int(SAMPLE_S * 1e9)
    meta["touch_method"] = "growth of the resident set, sampled from /proc"
    trace = make_trace(meta, built.columns)
    require_valid(trace)
    written = write_trace(output, trace.meta, trace.columns)
    say(
        f"{output}: {len(written)} operations in {meta['span_ns'] / 1e9:.2f} s; recorder used "
        f"{recording.recorder_cpu_s / max(recording.wall_s, 1e-9):.1%} of a CPU meanwhile, "
        f"{recording.lost} events lost"
    )
    for sentence in recording.how_it_ended():
        say(f"  note: {sentence}")
    return written
