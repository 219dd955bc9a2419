"""Recording by strace, without root: system calls from its log, memory from /proc, sampled meanwhile.

strace runs the command itself, or attaches to what runs; its log is read by the importer `strace`, and is gone after
that. It holds no payload (`-s 0`). What /proc adds is the names of threads and the growth of their processes' memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field

from hvbench.errors import UserError
from hvbench.traces.check import require_valid
from hvbench.traces.format import FLAG_SAMPLED, FLAG_WRITE, OPS, Trace, make_trace, name_hash, write_trace
from hvbench.traces.importers import strace
from hvbench.traces.importers.api import Import, read_options, rows
from hvbench.traces.importers.run import Files, _waits
from hvbench.traces.record import procfs
from hvbench.traces.record.ftrace import Capture
from hvbench.traces.record.guest_rows import Parts
from hvbench.traces.record.session import Options, Recording, Say, exit_code, header, start_stopped, target_of
from hvbench.traces.record.syscall_classes import by_class
from hvbench.traces.record.target import Launched, Target
from hvbench.traces.record.timeline import Timeline
from hvbench.traces.record.unprivileged import SAMPLE_S, Sampler, sample

FLAGS: Final = ("-f", "-ttt", "-T", "-yy", "-s", "0", "-q")
CALL: Final = re.compile(rb"^(?:\d+ +)?\d+\.\d+ (\w+)\(")
LEFT: Final = re.compile(rb"^((?:\d+ +)?(\d+)\.(\d+) \w+\(.*?) <detached \.\.\.>$")
WAIT_S: Final = 10.0
MISSING: Final = (
    "strace stops a program at each system call: that slows it, and is part of its times",
    "waiting for a CPU is part of compute, user time is what passes between two system calls",
    "touches are only the growth of resident memory, sampled; no page faults, no contents",
    "reads of mapped files are not seen, nor are block requests",
    "privileged operations: system calls are counted, the rest is not",
)


def why_not(options: Options) -> str:
    """Why this user cannot record with strace here; "" if he can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    if options.selection.tiers or options.selection.outside:
        return "--tier and --outside need the names of processes, which strace does not tell"
    if options.delay_s:
        return "--delay is not for strace, which begins with the command"
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"strace may not trace here: {' '.join(done.stderr.split())[:120] or 'no reason given'}"
    for pid in options.pids:
        if os.geteuid() and procfs.read_text(f"/proc/{pid}/syscall") == "":
            return f"process {pid} may not be traced by this user (another user's, or kernel.yama.ptrace_scope)"
    return ""


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far; 0.0 if it is gone."""
    words = procfs.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") if len(words) > 12 else 0.0


@define
class Tracing:
    """strace and what it traces."""

    options: Options
    log: Path
    child: subprocess.Popen[bytes]
    target: Target
    cpu_s: float = 0.0
    names: dict[int, tuple[int, str]] = field(factory=dict)  # thread id -> process id, name
    _stderr: Any = None

    @classmethod
    def begin(cls, options: Options, folder: Path) -> Tracing:
        """Start it; the command stands still, what runs already is attached to. Raises `UserError`."""
        log = folder / "log"
        if options.command:
            child = start_stopped(["strace", *FLAGS, "-o", str(log), *options.command])
            return cls(options, log, child, Launched(child))
        target = target_of(options)
        errors = (folder / "errors").open("w+")
        pids = [word for pid in target.pids() for word in ("-p", str(pid))]
        child = subprocess.Popen(
            ["strace", *FLAGS, "-o", str(log), *pids],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
        made = cls(options, log, child, target, stderr=errors)
        deadline = time.monotonic() + WAIT_S
        while not all(_traced(pid) for pid in target.pids()):
            if child.poll() is not None or time.monotonic() > deadline:
                errors.seek(0)
                said = " ".join(errors.read().split())[:200]
                made.end()
                raise UserError(f"strace could not attach: {said or 'no reason given'}; try --without-root proc")
            time.sleep(0.01)
        return made

    def alive(self) -> bool:
        return self.child.poll() is None and (bool(self.options.command) or self.target.alive())

    def pids(self) -> list[int]:
        """The processes that are recorded, without strace itself."""
        return [pid for pid in self.target.pids() if pid != self.child.pid]

    def look(self) -> None:
        """Learn names, and what strace has used."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/task"):
                    comm = procfs.read_text(f"/proc/{pid}/task/{name}/comm").strip()
                    if comm and comm != "strace":
                        self.names[int(name)] = (pid, comm)
        self.cpu_s = max(self.cpu_s, cpu_seconds(self.child.pid))

    def end(self) -> None:
        """End what was started: a command's processes and then strace, or strace alone, which lets the others go on."""
        self.cpu_s = max(self.cpu_s, cpu_seconds(self.child.pid))
        if self.options.command:
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in self.pids():
                    with contextlib.suppress(OSError):
                        os.kill(pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(3)
                    break
            self.target.end()
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is None:
                self.child.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(2)
        if self._stderr is not None:
            self._stderr.close()


def _traced(pid: int) -> bool:
    status = procfs.read_text(f"/proc/{pid}/status")
    return not status or re.search(r"^TracerPid:\t[1-9]", status, re.MULTILINE) is not None


def record_strace(options: Options, output: Path, why: list[str], say: Say) -> Trace:
    """As `session.record`, by strace; `why` says what kept it from more. Raises `UserError`."""
    degraded = [*(f"recorded by strace: {text}" for text in why), *MISSING]
    for sentence in MISSING:
        say(f"  missing: {sentence}")
    if options.keep_names:
        degraded.append("names of files are keyed hashes all the same: strace's importer keeps none")
    if options.runs > 1:
        degraded.append("recorded once: no content can be told to be common to independent runs")
    recording = Recording(Capture(), 0, time.time())
    recording.clock = "strace, realtime"
    with tempfile.TemporaryDirectory(prefix="hvbench-") as text:
        tracing = Tracing.begin(options, Path(text))
        shift = time.monotonic_ns() - time.time_ns()
        steal, spent = procfs.steal_ns(), time.process_time()
        recording.start_ns = start = time.monotonic_ns()
        sampler = Sampler(Timeline(start, int(SAMPLE_S * 1e9)))

        def look(now: int) -> None:
            tracing.look()
            sampler.read(tracing.pids(), now)

        try:
            sample(options, recording, degraded, tracing.alive, look, tracing.target.go)
        finally:
            recording.wall_s = (time.monotonic_ns() - start) / 1e9
            recording.exit_code = exit_code(tracing.target)  # strace ends as its command did
            tracing.end()
        recording.recorder_cpu_s = time.process_time() - spent + tracing.cpu_s
        recording.steal_ns = procfs.steal_ns() - steal
        degraded.extend(recording.how_it_ended())
        recording.lost = sampler.late
        if sampler.late:
            degraded.append(f"{sampler.late} samples of memory are missing: the recorder was not run in time")
        trace = _build(options, recording, tracing, sampler, shift, degraded)
    require_valid(trace)
    written = write_trace(output, trace.meta, trace.columns)
    say(
        f"{output}: {len(written)} operations in {trace.meta['span_ns'] / 1e9:.2f} s; recorder and strace used "
        f"{recording.recorder_cpu_s / max(recording.wall_s, 1e-9):.1%} of a CPU meanwhile, {recording.lost} events lost"
    )
    for sentence in recording.how_it_ended():
        say(f"  note: {sentence}")
    return written


def _build(
    options: Options, recording: Recording, tracing: Tracing, sampler: Sampler, shift: int, degraded: list[str]
) -> Trace:
    complete(tracing.log, recording.start_ns + int(recording.wall_s * 1e9) - shift)
    job = Import(
        strace.hvbench_import_format(),
        read_options(strace.hvbench_import_format(), {}),
        Files((tracing.log,), lambda size: None).sources,
        offsets={str(tracing.log): shift},
    )
    job.keep_names = True  # "thread 4711": that is how its processes are found again
    batches = list(strace.read(job))
    if not batches:
        ended = "; ".join(["", *recording.how_it_ended()])
        raise UserError(f"nothing was recorded: strace saw no system call{ended}")
    end = max(int(recording.wall_s * 1e9), job.end_ns - recording.start_ns)
    parts = Parts(recording.start_ns, end, 0)
    numbers = {int(item["name"].split()[1]): item["id"] for item in job.threads if item["name"].startswith("thread ")}
    parts.threads, parts.objects, parts.flows = job.threads, job.objects, job.flows
    for batch in batches:
        parts.add({**batch, "time_ns": batch["time_ns"] - recording.start_ns})
    _memory(parts, job, sampler, numbers)
    for tid, number in numbers.items():
        name = tracing.names.get(tid, (0, f"thread {number}"))[1]
        item = parts.threads[number]
        del item["name"]
        item |= {"name_hash": name_hash(name)} if options.hide_names else {"name": name}
    columns = parts.columns()
    meta: dict[str, Any] = {"format": 1, **header(options, recording)}
    meta |= {
        "span_ns": parts.span_ns,
        "threads": parts.threads,
        "tiers": job.tiers,
        "objects": parts.objects,
        "flows": parts.flows,
        "warm": [],
        **_waits(job),
        "syscalls": by_class(_calls(tracing.log).items()),
        "touch_resolution_ns": int(SAMPLE_S * 1e9),
        "touch_method": "growth of the resident set, sampled from /proc",
        "degraded": [*degraded, *(note.replace(str(tracing.log), "strace's log") for note in job.notes)],
    }
    meta["recorder"] = {**meta["recorder"], "mode": "strace"}
    return make_trace(meta, columns)


def complete(log: Path, end_ns: int) -> None:
    """Calls that strace left while they lasted are made to end then: they are waits of so long."""
    whole = log.with_suffix(".whole")
    with log.open("rb") as lines, whole.open("wb") as out:
        for line in lines:
            match = LEFT.match(line)
            if match is not None:
                begun = int(match[2]) * 10**9 + int(match[3].ljust(9, b"0"))
                took = max(0, end_ns - begun) // 1000
                line = b"%s) = -1 EINTR (Interrupted) <%d.%06d>\n" % (match[1], took // 10**6, took % 10**6)
            out.write(line)
    whole.replace(log)


def _calls(log: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with log.open("rb") as file:
        for line in file:
            match = CALL.match(line)
            if match is not None:
                counts[match[1].decode()] += 1
    return counts


def _memory(parts: Parts, job: Import, sampler: Sampler, numbers: dict[int, int]) -> None:
    """The growth of each process's memory, in the order of its first thread's operations."""
    for process in sampler.timeline.processes:
        thread = numbers.get(process.pid)
        sampled = [row for row in process.main.rows if row.op in ("touch", "free")]
        if thread is None or not sampled:
            continue
        pages = max(row.at["page"] + row.at["pages"] for row in sampled)
        number = job.object("anon", pages, parts.threads[thread]["process"])
        parts.add(rows("alloc", thread, [sampled[0].time], object=number, page=0, pages=pages))
        touch = np.array([row.op == "touch" for row in sampled])
        parts.add(
            rows(
                np.where(touch, OPS["touch"], OPS["free"]),
                thread,
                [row.time for row in sampled],
                object=number,
                page=np.array([row.at["page"] for row in sampled], np.int64),
                pages=np.array([row.at["pages"] for row in sampled], np.int64),
                flags=np.where(touch, FLAG_WRITE | FLAG_SAMPLED, 0),
            )
        )
