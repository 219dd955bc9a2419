"""Recording running QEMU guests, over their QMP sockets: one trace, a tier a guest.

- **CPU.** When each vCPU's thread ran, by sched events of the host (or, without tracefs, its schedstat every 10 ms):
  compute, all of it user time, as the host cannot tell the guest's kernel. Runnable is dropped, blocked is a halt:
  ended by another vCPU (an edge), a timer, or from outside.
- **Storage.** The requests of the virtual disks, below the guest's page cache, by QEMU's trace events.
- **Network.** Headers of the frames at the guest's ports, by QEMU's packet dump.
- **Memory.** Keyed hashes of the pages where the memory is a file; the balloon's size and statistics in the metadata.

There are times, and nothing says what of one guest depends on what: such a trace is replayed open-loop.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import resource
import signal
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from hvbench import __version__
from hvbench.errors import UserError
from hvbench.traces.check import require_valid
from hvbench.traces.format import FORMAT_VERSION, OUTSIDE, PAGE_SIZE, SALT, Trace, make_trace, name_hash, write_trace
from hvbench.traces.record import procfs
from hvbench.traces.record.ftrace import Capture, in_nanoseconds, parse
from hvbench.traces.record.guest import BALLOON_STATS, STATISTICS_S, Guest
from hvbench.traces.record.guest_rows import Parts, cpu, disk, memory, ports
from hvbench.traces.record.procfs import ProcessState, ThreadState
from hvbench.traces.record.qmp import Qmp
from hvbench.traces.record.rows import Block
from hvbench.traces.record.session import FULL, Say, default_buffer_mib
from hvbench.traces.record.timeline import Timeline
from hvbench.traces.record.tracefs import Session, find_tracefs
from hvbench.traces.record.unprivileged import SAMPLE_S, Sampler

#: Event -> what is lost where the kernel does not have it.
EVENTS: Final = {
    "sched:sched_switch": "when vCPUs ran",
    "sched:sched_waking": "what ended a vCPU's halt",
}
POLL_S: Final = 0.1


@define
class Options:
    """What to record and how. Times in seconds."""

    sockets: list[Path]
    name: str = ""
    max_seconds: float = 0.0  # 0: until Ctrl-C or the guests' end
    snapshot_s: float = 0.0  # 0: at the start and the end only
    buffer_mib: int = 0
    seed: int = 1
    hide_names: bool = False
    licence: str = ""
    attribution: str = ""


@define
class Run:
    """One recording while it goes on, and what it cost."""

    options: Options
    guests: list[Guest]
    start_ns: int = 0
    real_minus_mono_ns: int = 0
    started_at: float = 0.0
    interrupted: bool = False
    full: bool = False
    capture: Capture | None = None
    timeline: Timeline | None = None
    why_no_events: str = ""
    clock: str = "none"
    missing: dict[str, str] = field(factory=dict)
    lost: int = 0
    late: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    steal_ns: int = 0
    _next_sample: float = 0.0
    _next_snapshot: float = 0.0

    def vcpu_threads(self) -> list[int]:
        return [tid for guest in self.guests for tid in guest.vcpus]

    # meanwhile ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.cpu_s, self.steal_ns = -_spent(), -procfs.steal_ns()
        self.started_at = time.time()
        self.start_ns = time.monotonic_ns()
        self.real_minus_mono_ns = time.time_ns() - time.monotonic_ns()
        for guest in self.guests:
            guest.count()
        self._next_sample = time.monotonic()
        self._next_snapshot = time.monotonic()
        if not self.options.snapshot_s:
            for guest in self.guests:
                for memory_ in guest.memories:
                    memory_.snapshot()
            self._next_snapshot = float("inf")

    def goes_on(self, session: Session | None) -> bool:
        """One look at everything that is due; False when it is over."""
        now = time.monotonic()
        there = [guest.watch() for guest in self.guests]
        if now >= self._next_sample:
            self._next_sample = max(self._next_sample + STATISTICS_S, now)
            for guest in self.guests:
                guest.sample()
        if now >= self._next_snapshot:
            for guest in self.guests:
                if not guest.ended:
                    for memory_ in guest.memories:
                        memory_.snapshot()
            step = self.options.snapshot_s
            self._next_snapshot = max(self._next_snapshot + step, time.monotonic() + step / 2)
        if session is not None:
            session.mark()
            self.full = session.fill() > FULL
        past = (time.monotonic_ns() - self.start_ns) / 1e9
        return any(there) and not self.full and not (self.options.max_seconds and past >= self.options.max_seconds)

    def pause_s(self) -> float:
        """How long to wait for the next look."""
        pause = POLL_S if all(guest.stamps for guest in self.guests) else 0.02
        if self.options.max_seconds:
            left = self.options.max_seconds - (time.monotonic_ns() - self.start_ns) / 1e9
            pause = min(pause, max(left, 0.001))
        return pause

    # who ran when ---------------------------------------------------------------------------------------

    def with_events(self, root: Path) -> None:
        """Watch with a tracing instance of one's own, limited to the vCPUs' threads."""
        buffer = self.options.buffer_mib or default_buffer_mib()
        with Session(root, buffer * 1024, EVENTS, ("sched:sched_switch",)) as session:
            self.missing = dict(session.missing)
            self.clock = session.clock
            session.only_threads(self.vcpu_threads())
            timeline = self._timeline()
            session.start()
            try:
                self.begin()
                timeline.start_ns = self.start_ns
                while self.goes_on(session):
                    time.sleep(self.pause_s())
            except KeyboardInterrupt:
                self.interrupted = True
            session.stop()
            self._end()
            self.capture = parse(session.lines())
            self.lost = session.lost() + self.capture.lost
        timeline.run(in_nanoseconds(self.capture))
        self.timeline = timeline

    def with_samples(self) -> None:
        """Watch by reading the vCPUs' counters every `SAMPLE_S`."""
        timeline = Timeline(0, int(SAMPLE_S * 1e9))
        sampler = Sampler(timeline)
        try:
            self.begin()
            timeline.start_ns = self.start_ns
            due = time.monotonic()
            while self.goes_on(None):
                until = time.monotonic() + self.pause_s()
                while time.monotonic() < until:
                    now = time.monotonic_ns() - self.start_ns
                    for guest in self.guests:
                        for tid, number in guest.vcpus.items():
                            if not guest.ended:
                                sampler.thread(guest.pid, tid, now)
                                if tid in sampler.threads:
                                    sampler.threads[tid].thread.name = f"vcpu {number}"
                    time.sleep(SAMPLE_S)
                    self.late += max(0, int((time.monotonic() - due) / SAMPLE_S) - 1)
                    due = time.monotonic()
        except KeyboardInterrupt:
            self.interrupted = True
        self._end()
        self.timeline = timeline

    def _timeline(self) -> Timeline:
        """The vCPUs, each running or halted, as they are now."""
        timeline = Timeline(0, 1_000_000)
        for guest in self.guests:
            threads = [ThreadState(tid, f"vcpu {number}") for tid, number in guest.vcpus.items()]
            timeline.begin_with([ProcessState(guest.pid, 0, guest.tier, [], threads)])
            for tid in guest.vcpus:
                state = procfs.read_text(f"/proc/{tid}/stat").rpartition(")")[2].split()[:1]
                if state == ["S"]:
                    timeline.by_tid[tid].block = Block(0, -1, (), "S")
        return timeline

    def _end(self) -> None:
        """The last snapshot and readings; `wall_s` is what the recording lasted."""
        end_ns = time.monotonic_ns()
        for guest in self.guests:
            guest.count()
        try:
            for guest in self.guests:
                for memory_ in guest.memories:
                    if not guest.ended:
                        memory_.snapshot()
                guest.finish()
        except KeyboardInterrupt:
            self.interrupted = True
        self.wall_s = (end_ns - self.start_ns) / 1e9
        self.cpu_s += _spent()
        self.steal_ns += procfs.steal_ns()


def record_qemu(options: Options, output: Path, say: Say = print) -> Trace:
    """Record running guests until Ctrl-C, `max_seconds` or their end, and write the trace. Raises `UserError`."""
    if not output.parent.is_dir():
        raise UserError(f"{output}: the folder {output.parent} does not exist")
    if len({path.absolute() for path in options.sockets}) < len(options.sockets):
        raise UserError("--qemu: the same socket is given twice; each guest once")
    run = Run(options, [])
    with tempfile.TemporaryDirectory(prefix="hvbench-") as text:
        scratch = Path(text)
        scratch.chmod(0o711)  # a QEMU of another user goes through, and reads nothing
        try:
            for path in options.sockets:
                guest = Guest(Qmp.open(path))
                run.guests.append(guest)
                guest.look()
            _name(run.guests, options)
            say(f"recording {described(run)}; Ctrl-C ends it")
            with _terminated_as_interrupted():
                _record(run, scratch)
            trace = build(run)
        finally:
            for guest in run.guests:
                guest.clear()
    require_valid(trace)
    written = write_trace(output, trace.meta, trace.columns)
    say(
        f"{output}: {len(written)} operations in {written.meta['span_ns'] / 1e9:.2f} s; recorder used "
        f"{run.cpu_s / max(run.wall_s, 1e-9):.1%} of a CPU meanwhile, {written.meta['lost_events']} events lost"
    )
    for sentence in written.meta["degraded"]:
        say(f"  note: {sentence}")
    return written


def _record(run: Run, scratch: Path) -> None:
    try:
        for guest in run.guests:
            guest.switch_on(scratch)
        root, run.why_no_events = find_tracefs()
        if root is not None:
            run.with_events(root)
        else:
            run.with_samples()
    finally:
        with _uninterrupted():
            for guest in run.guests:
                guest.switch_off()


def _spent() -> float:
    """Seconds of CPU time that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def _handled(numbers: dict[int, Any]) -> Iterator[None]:
    before = {}
    with contextlib.suppress(ValueError):  # not the main thread: nothing to handle
        for number, handler in numbers.items():
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _uninterrupted() -> contextlib.AbstractContextManager[None]:
    """What was switched on is switched off whatever is pressed."""
    return _handled({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN})


def _terminated_as_interrupted() -> contextlib.AbstractContextManager[None]:
    """SIGTERM ends a recording as Ctrl-C does: nothing stays switched on, and it is kept."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    return _handled({signal.SIGTERM: stop})


def _name(guests: list[Guest], options: Options) -> None:
    """Tiers by the guests' names (else their sockets'), all different."""
    for guest in guests:
        name = guest.name or guest.qmp.path.stem
        name = name_hash(name) if options.hide_names else re.sub(r"[^\w.-]", "-", name)
        name = f"vm-{name}" if name in ("", OUTSIDE) else name
        taken = {other.tier for other in guests}
        guest.tier = next(t for n in range(len(guests) + 1) if (t := name if not n else f"{name}-{n}") not in taken)


def described(run: Run) -> str:
    """What is recorded, in words."""
    listed = ", ".join(
        f"{guest.tier} ({len(guest.vcpus)} vCPU, {guest.memory_bytes >> 20} MiB, {guest.accelerator})"
        for guest in run.guests
    )
    return f"QEMU guest{'s' if len(run.guests) > 1 else ''} {listed}"


# the trace ------------------------------------------------------------------------------------------------------


def build(run: Run) -> Trace:
    """The trace of what was recorded."""
    assert run.timeline is not None
    parts = Parts(run.start_ns, int(run.wall_s * 1e9), run.real_minus_mono_ns)
    notes = _notes(run)
    built = cpu(parts, run.timeline, [guest.tier for guest in run.guests], {g.pid: g.tier for g in run.guests})
    recorded = []
    for number, guest in enumerate(run.guests):
        about = disk(parts, guest, number)
        about |= ports(parts, guest, number, run.guests)
        recorded.append({"tier": guest.tier, **about, **_measured(guest, run.start_ns)})
    memory(parts, run.guests)
    columns = parts.columns()
    if not len(columns["op"]):
        raise UserError("nothing was recorded: the guests' vCPUs did not run in that time")
    several = len(run.guests) > 1
    notes += [f"{guest.tier}: {text}" if several else text for guest in run.guests for text in guest.degraded]
    share = run.cpu_s / max(run.wall_s, 1e-9)
    shots = [[delta.taken_ns for delta in m.deltas] for guest in run.guests for m in guest.memories]
    apart = [b - a for taken in shots for a, b in pairwise(taken)]
    kinds = {guest.accelerator for guest in run.guests}
    meta: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": run.options.name,
        "command": described(run),
        "recorded_at": datetime.datetime.fromtimestamp(run.started_at, datetime.UTC).isoformat(timespec="seconds"),
        "recorder": {
            "version": __version__,
            "mode": "qemu",
            "runs": 1,
            "trace_clock": run.clock,
            "qemu": sorted({guest.qmp.version for guest in run.guests}),
        },
        "machine": {**procfs.machine(), "where": "+".join(sorted(kinds))},
        "clock": "mono",
        "page_size": PAGE_SIZE,
        "span_ns": parts.span_ns,
        "threads": parts.threads,
        "tiers": [guest.tier for guest in run.guests],
        "objects": parts.objects,
        "flows": parts.flows,
        "warm": [],
        "wait_shares": built.meta["wait_shares"],
        "waited_ns": built.meta["waited_ns"],
        "kept_waits": built.meta["kept_waits"],
        "touch_resolution_ns": sorted(apart)[len(apart) // 2] if apart else 0,
        "touch_method": "pages whose content changed between snapshots of guest memory, spread over the interval",
        "salt": SALT.hex(),
        "seed": run.options.seed,
        "steal_ns": run.steal_ns,
        "lost_events": run.lost + run.late,
        "overhead": {"recorder_cpu_share": round(share, 4)},
        "recorded": {"guests": recorded},
        "replay": "open",
        "licence": run.options.licence,
        "attribution": run.options.attribution,
        "privacy": "keyed hashes of pages, sizes and places only; no payload, no addresses",
        "degraded": [*notes, *built.meta["degraded"]],
    }
    return make_trace(meta, columns)


def _notes(run: Run) -> list[str]:
    """What has to be known of the recording as a whole."""
    notes = [f"no {event} on this kernel: {loss} not recorded" for event, loss in run.missing.items()]
    if run.why_no_events:
        notes.append(
            f"vCPUs by their schedstat every {SAMPLE_S * 1000:.0f} ms, causes of halts unknown: {run.why_no_events}"
        )
    if run.lost:
        notes.append(f"{run.lost} events were lost: use a larger --buffer or a shorter recording")
    if run.late:
        notes.append(f"{run.late} samples of the vCPUs are missing: the recorder was not run in time")
    if run.full:
        notes.append("ended as the tracing buffer was full: a larger --buffer lasts longer")
    if any(guest.accelerator == "tcg" for guest in run.guests):
        notes.append("recorded under TCG: compute is about ten times what hardware assist takes")
    notes.append("guest kernel and user time are not told apart, nor are its privileged operations counted")
    return notes


def _measured(guest: Guest, start_ns: int) -> dict[str, Any]:
    """What a replay can be set beside: steal of each vCPU, the balloon over time."""
    about: dict[str, Any] = {
        "vcpus": [
            {"vcpu": guest.vcpus[tid], "run_ns": seen[-1][0] - seen[0][0], "runq_wait_ns": seen[-1][1] - seen[0][1]}
            for tid, seen in guest.schedule.items()
            if len(seen) > 1
        ],
        "memory_bytes": guest.memory_bytes,
    }
    if guest.balloon:
        about["balloon_columns"] = ["time_ns", "actual_bytes", *(name.removeprefix("stat-") for name in BALLOON_STATS)]
        about["balloon"] = [[max(0, row[0] - start_ns), *row[1:]] for row in guest.balloon]
    if guest.memories:
        spent = sum(m.spent_ns for m in guest.memories)
        shots = max(len(m.deltas) for m in guest.memories)
        about |= {"page_snapshots": shots, "page_hashing_ns": spent}
    return about
