"""Record a command: start it, watch it, stop it, build the trace, write it."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from hvbench import __version__
from hvbench.errors import UserError
from hvbench.traces.check import require_valid
from hvbench.traces.format import PAGE_SIZE, SALT, Trace, make_trace, name_hash, write_trace
from hvbench.traces.record import block_requests, procfs
from hvbench.traces.record.builder import Builder, Selection
from hvbench.traces.record.ftrace import Capture, in_nanoseconds, parse
from hvbench.traces.record.perf import NOTE, PerfSession
from hvbench.traces.record.target import Launched, Target, attached, group
from hvbench.traces.record.timeline import FAULT_NS, Timeline
from hvbench.traces.record.tracefs import Session, find_tracefs

PR_SET_THP_DISABLE: Final = 41
#: The recording ends when a CPU's buffer is filled so far.
FULL: Final = 0.95

Say = Callable[[str], None]


@define
class Options:
    """What to record and how. Times in seconds where a person sets them."""

    command: list[str]
    pids: list[int] = field(factory=list)  # instead of a command: processes that run already
    cgroup: str = ""  # or a control group
    name: str = ""
    described: str = ""  # said in the metadata instead of the command
    selection: Selection = field(factory=Selection)
    delay_s: float = 0.0
    max_seconds: float = 0.0  # 0: until the command ends
    runs: int = 1
    snapshot_s: float = 0.0  # 0: at the start and the end only
    touch_resolution_ns: int = 1_000_000
    buffer_mib: int = 0  # 0: by the machine's memory
    seed: int = 1
    hide_names: bool = False
    keep_names: bool = False  # file names too
    without_root: str = ""  # strace, perf or proc, instead of root's way; "": the best there is
    licence: str = ""
    attribution: str = ""


@define
class Recording:
    """One run: what was seen, and what it cost."""

    capture: Capture
    start_ns: int
    started_at: float
    before: list[procfs.ProcessState] = field(factory=list)
    snapshots: list[list[procfs.ProcessState]] = field(factory=list)
    at_start: list[procfs.ProcessState] = field(factory=list)
    missing: dict[str, str] = field(factory=dict)
    lost: int = 0
    steal_ns: int = 0
    wall_s: float = 0.0
    recorder_cpu_s: float = 0.0
    clock: str = "mono"
    interrupted: bool = False
    exit_code: int = 0  # of the command; below 0: the signal that ended it; 0 also where it was not its end
    blocks: Capture = field(factory=Capture)  # block requests of the whole machine

    def contents(self) -> set[int]:
        return {value for states in [self.before, *self.snapshots] for s in states for value in s.contents.values()}

    def how_it_ended(self) -> list[str]:
        """A sentence where the command failed."""
        if self.exit_code > 0:
            return [f"the command ended with exit code {self.exit_code}"]
        if self.exit_code < 0:
            with contextlib.suppress(ValueError):
                return [f"the command was ended by {signal.Signals(-self.exit_code).name}"]
            return [f"the command was ended by signal {-self.exit_code}"]
        return []


def record(options: Options, output: Path, say: Say = print) -> Trace:
    """Record `options.command` and write the trace; returns it. Raises `UserError`."""
    if not output.parent.is_dir():
        raise UserError(f"{output}: the folder {output.parent} does not exist")
    given = [what for what, there in (("--pid", options.pids), ("--cgroup", options.cgroup)) if there]
    given += ["a command"] if options.command else []
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise UserError(f"{what} to record: give a command after `--`, or --pid, or --cgroup, and one of them only")
    if options.runs > 1 and not options.command:
        raise UserError(f"--runs {options.runs}: {given[0]} cannot be run again; only a command can")
    if options.command:
        known_program(options.command[0])
    root, why = find_tracefs()
    if options.without_root:
        root, why = None, f"--without-root {options.without_root}"
    reasons: list[str] = []
    if root is None:
        mode, reasons = without_root(options, why)
        if mode == "proc":
            from hvbench.traces.record.unprivileged import record_unprivileged

            return record_unprivileged(options, output, "; ".join(reasons), say)
        say(f"recording less than is possible, by {mode}: {'; '.join(reasons)}")
        if mode == "strace":
            from hvbench.traces.record.stracing import record_strace

            return record_strace(options, output, reasons, say)
    recordings: list[Recording] = []
    for number in range(options.runs):
        if options.runs > 1:
            say(f"run {number + 1} of {options.runs}")
        recordings.append(run_once(options, root))
        if number < options.runs - 1:  # of the last one the trace's notes tell
            for sentence in recordings[-1].how_it_ended():
                say(f"  note: {sentence}")
        if recordings[-1].interrupted:
            break
    last = recordings[-1]
    common: set[int] = set()
    if len(recordings) > 1:
        common = set.intersection(*(item.contents() for item in recordings))
    trace = build(options, last, frozenset(common), reasons)
    require_valid(trace)
    written = write_trace(output, trace.meta, trace.columns)
    say(
        f"{output}: {len(written)} operations in {written.meta['span_ns'] / 1e9:.2f} s; recorder used "
        f"{last.recorder_cpu_s / max(last.wall_s, 1e-9):.1%} of a CPU meanwhile, {last.lost} events lost"
    )
    for sentence in written.meta["degraded"]:
        say(f"  note: {sentence}")
    return written


def without_root(options: Options, why: str) -> tuple[str, list[str]]:
    """The best of perf, strace and /proc that works here, and why none better. Raises `UserError` for a chosen one."""
    from hvbench.traces.record import perf, stracing

    reasons = [why]
    for mode in (options.without_root,) if options.without_root else ("perf", "strace"):
        not_this = perf.why_not() if mode == "perf" else stracing.why_not(options) if mode == "strace" else ""
        if not not_this:
            return mode, reasons
        if options.without_root:
            raise UserError(f"--without-root {mode}: {not_this}")
        reasons.append(not_this)
    return "proc", reasons


def target_of(options: Options) -> Target:
    """What the options say is to be recorded; a command is started, and stands still. Raises `UserError`."""
    if options.pids:
        return attached(options.pids)
    if options.cgroup:
        return group(options.cgroup)
    return Launched(start_stopped(options.command))


def exit_code(target: Target) -> int:
    """Of a command that has ended by itself, as `Popen.returncode`; 0 while it runs, and for what was attached to."""
    return (target.child.poll() or 0) if isinstance(target, Launched) else 0


def default_buffer_mib() -> int:
    """A sixteenth of the memory for all CPUs, at most 512 MiB for each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(4, min(512, memory // 16 // (os.cpu_count() or 1) >> 20))


def known_program(name: str) -> None:
    """Raises `UserError` for a program that is not there."""
    if shutil.which(name) is None:
        raise UserError(f"{name}: no such program; give the command after `--`")


def start_stopped(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the command in a process that stops itself before it becomes the command."""

    def prepare() -> None:
        # Huge pages would hide which of their 512 pages are touched.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

    known_program(command[0])
    child = subprocess.Popen(
        ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *command], preexec_fn=prepare, start_new_session=True
    )
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        stat = procfs.read_text(f"/proc/{child.pid}/stat")
        if stat.rpartition(")")[2].split()[:1] == ["T"]:
            return child
        time.sleep(0.005)
    child.kill()
    raise UserError(f"{command[0]}: could not be started within 5 s")


def take_snapshot(pids: list[int], start_over: bool, referenced: bool) -> list[procfs.ProcessState]:
    """Memory of the processes: resident pages, contents, and what was referenced since the last one."""
    found = []
    frames: set[int] = set()
    for pid in pids:
        state = procfs.process_state(pid)
        if state is None or not state.vmas:
            continue
        if referenced:
            state.referenced = procfs.referenced_pages(pid)
        procfs.resident_pages(state, frames)
        state.taken_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        procfs.hash_pages(state)
        if start_over:
            procfs.clear_references(pid)
        found.append(state)
    return found


def run_once(options: Options, root: Path | None) -> Recording:
    """One run of the command under a tracing session of its own; without tracefs (`root`) by perf."""
    buffer = options.buffer_mib or default_buffer_mib()
    recording = Recording(Capture(), 0, time.time())
    with contextlib.ExitStack() as stack:
        session: Session | PerfSession
        blocks: Session | None = None
        if root is None:
            session = stack.enter_context(PerfSession(buffer * 1024))
            recording.missing = dict(session.missing)
        else:
            session = stack.enter_context(Session(root, buffer * 1024))
            blocks = stack.enter_context(Session(root, buffer * 128, block_requests.EVENTS, (), "-block"))
            recording.missing = {**session.missing, **blocks.missing}
        recording.clock = session.clock
        target = target_of(options)
        try:
            session.follow(target.pids())
            if options.delay_s or not target.waits:
                target.go()
                time.sleep(options.delay_s)
                recording.before = take_snapshot(_members(options, target), True, False)
                recording.at_start = [s for pid in target.pids() if (s := procfs.process_state(pid))]
            else:
                for state in filter(None, map(procfs.process_state, target.pids())):
                    for thread in state.threads:
                        thread.syscall = -1
                    recording.at_start.append(state)
            usage = resource.getrusage(resource.RUSAGE_SELF)
            steal = procfs.steal_ns()
            begin = time.monotonic()
            recording.start_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            if blocks is not None:
                blocks.start()
            session.start()
            if target.waits and not options.delay_s:
                target.go()
            try:
                _watch(options, session, target, recording, begin)
            except KeyboardInterrupt:
                recording.interrupted = True
            recording.recorder_cpu_s = session.cpu_s() if isinstance(session, PerfSession) else 0.0
            recording.exit_code = exit_code(target)
            session.stop()
            if blocks is not None:
                blocks.stop()
            recording.wall_s = time.monotonic() - begin
            recording.steal_ns = procfs.steal_ns() - steal
            spent = resource.getrusage(resource.RUSAGE_SELF)
            recording.recorder_cpu_s += spent.ru_utime + spent.ru_stime - usage.ru_utime - usage.ru_stime
            if target.alive():
                recording.snapshots.append(take_snapshot(_members(options, target), False, True))
        finally:
            target.end()
        recording.capture = parse(session.lines())
        recording.lost = session.lost() + recording.capture.lost
        if isinstance(session, PerfSession):
            recording.blocks = parse(session.block_lines(), block_requests.READERS)
        elif blocks is not None:
            recording.blocks = parse(blocks.lines(), block_requests.READERS)
            recording.lost += blocks.lost() + recording.blocks.lost
    return recording


def _members(options: Options, target: Target) -> list[int]:
    """The processes whose memory is looked at: those inside, never the load generators."""
    from hvbench.traces.record.rows import Process

    found = []
    for pid in target.pids():
        state = procfs.process_state(pid)
        if state is None:
            continue
        process = Process(pid, 0, names_of(state))
        if options.selection.tier(process) not in ("", "outside"):
            found.append(pid)
    return found


def names_of(state: procfs.ProcessState) -> set[str]:
    """What a process goes by: its comm, its title and, for an interpreter, its script."""
    return {state.comm, *state.titles}


def _watch(
    options: Options, session: Session | PerfSession, target: Target, recording: Recording, begin: float
) -> None:
    """Wait for the end of the target, of the time, or of the buffer; take snapshots on the way."""
    next_snapshot = begin + options.snapshot_s if options.snapshot_s else float("inf")
    followed = set(target.pids())
    while target.alive():
        now = time.monotonic()
        if options.max_seconds and now - begin >= options.max_seconds:
            return
        if now >= next_snapshot:
            pids = _members(options, target)
            recording.snapshots.append(take_snapshot(pids, True, True))
            next_snapshot = max(next_snapshot + options.snapshot_s, time.monotonic() + options.snapshot_s / 2)
        if session.fill() > FULL:
            return
        if options.cgroup:
            joined = set(target.pids()) - followed
            if joined:
                followed |= joined
                session.follow(sorted(followed))
        session.mark()  # now and then: the last one may find the buffer full
        left = options.max_seconds - (now - begin) if options.max_seconds else 0.2
        time.sleep(max(0.001, min(0.1, left)))


def end_tree(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the command's processes: ask, wait up to 3 s, then kill."""
    pids = [pid for pid in procfs.tree(child.pid) if pid != child.pid]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in [*pids, child.pid] if child.poll() is None else pids:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            child.poll()
            pids = [pid for pid in pids if os.path.isdir(f"/proc/{pid}") and _alive(pid)]
            if not pids and child.poll() is not None:
                return
            time.sleep(0.02)


def _alive(pid: int) -> bool:
    return procfs.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def build(options: Options, recording: Recording, common: frozenset[int], why: list[str]) -> Trace:
    """The trace of one recording; `why` says what kept it from root's way."""
    degraded = [f"recorded by perf: {text}" for text in why] + ([NOTE] if why else [])
    degraded += recording.how_it_ended()
    degraded += [f"no {event} on this kernel: {loss} not recorded" for event, loss in recording.missing.items()]
    if recording.lost:
        degraded.append(f"{recording.lost} events were lost: use a larger --buffer or a shorter recording")
    if recording.interrupted and options.command:
        degraded.append("interrupted from the keyboard: ends before the command did")
    if not options.command:
        degraded.append("attached to running processes: huge pages were not turned off, which hide touches within them")
    timeline = Timeline(recording.start_ns, options.touch_resolution_ns)
    timeline.devices_with_write_events(_ext4_devices() if "ext4:ext4_da_write_end" not in recording.missing else [])
    timeline.begin_with(recording.at_start)
    timeline.run(in_nanoseconds(recording.capture))
    if timeline.unseen:
        degraded.append(f"{timeline.unseen} switches to a thread are missing: it is taken to run from its wake-up on")
    if timeline.ignored_messages:
        degraded.append(f"{timeline.ignored_messages} messages that were not TCP are left out")
    if options.runs < 2:
        degraded.append("recorded once: no anonymous content can be told to be common to independent runs")
    wanted = {inode for device, inode in timeline.memory.files if device != "shm"}
    builder = Builder(
        timeline=timeline,
        selection=options.selection,
        seed=options.seed,
        before=recording.before,
        snapshots=recording.snapshots,
        common=common,
        files=procfs.inode_paths(wanted),
        started_at=recording.started_at,
        hide_names=options.hide_names,
        keep_names=options.keep_names,
        degraded=degraded,
    )
    built = builder.build()
    if not len(built.columns["op"]):
        ended = "; ".join(["", *recording.how_it_ended()])
        raise UserError(f"nothing was recorded: no process matched --tier, or the command did nothing{ended}")
    meta = {"format": 1, **header(options, recording), **built.meta}
    if why:
        meta["recorder"] = {**meta["recorder"], "mode": "perf"}
    measured = _blocks(recording, builder)
    if measured:
        meta["recorded"] = measured
    return make_trace(meta, built.columns)


def _blocks(recording: Recording, builder: Builder) -> dict[str, Any]:
    """What was measured of the job's block requests."""
    threads = frozenset(thread.tid for process in builder.guests() for thread in process.threads)
    requests = block_requests.Requests(threads)
    requests.add(in_nanoseconds(recording.blocks))
    return requests.summary()


def described(options: Options) -> str:
    """What was recorded, in words: the command, or the programs that were attached to."""
    if options.command:
        return shlex.join(options.command)
    if options.cgroup:
        return f"control group {name_hash(options.cgroup) if options.hide_names else options.cgroup}"
    return f"{len(options.pids)} running processes"


def header(options: Options, recording: Recording) -> dict[str, Any]:
    """The metadata that does not come from events."""
    snapshots = len(recording.snapshots) + bool(recording.before)
    return {
        "name": options.name,
        "command": options.described or described(options),
        "recorded_at": datetime.datetime.fromtimestamp(recording.started_at, datetime.UTC).isoformat(
            timespec="seconds"
        ),
        "recorder": {"version": __version__, "mode": "tracefs", "runs": options.runs, "trace_clock": recording.clock},
        "machine": procfs.machine(),
        "clock": "mono",
        "page_size": PAGE_SIZE,
        "touch_resolution_ns": options.touch_resolution_ns,
        "touch_method": (
            f"first touches by page faults (huge pages off; {FAULT_NS} ns of each booked as kernel time); later "
            f"touches sampled from Referenced and content deltas between {snapshots} snapshots, spread evenly over "
            "compute; anonymous memory resident at the start is touched at the start, mapped files are listed as warm"
        ),
        "salt": SALT.hex(),
        "seed": options.seed,
        "steal_ns": recording.steal_ns,
        "lost_events": recording.lost,
        "overhead": {"recorder_cpu_share": round(recording.recorder_cpu_s / max(recording.wall_s, 1e-9), 4)},
        "licence": options.licence,
        "attribution": options.attribution,
        "privacy": ("file names kept, no data" if options.keep_names else "file names as keyed hashes, no data")
        + (", thread names as keyed hashes" if options.hide_names else ""),
    }


def _ext4_devices() -> list[str]:
    devices = []
    for line in procfs.read_text("/proc/self/mountinfo").splitlines():
        words = line.split()
        if "-" in words and words[words.index("-") + 1] == "ext4":
            devices.append(words[2])
    return devices
