"""The recorder's events by `perf record`, for users whom tracefs is closed to and perf is open.

perf reads the same tracepoints, of the whole machine, and `perf script` prints the same texts, but without flags:
whether a wake-up came in an interrupt is not said, except that the idle task wakes nobody else. The job's events are
picked out by its threads and whoever they start. Needs perf_event_paranoid -1 or CAP_PERFMON, and a readable tracefs.
Source: Linux 6.1, tools/perf/builtin-record.c, builtin-script.c; Documentation/admin-guide/perf-security.rst.
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
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from hvbench.errors import UserError
from hvbench.traces.record import block_requests, tracefs

LINE: Final = re.compile(r"^\s*(.*?)\s+(-?\d+)/(-?\d+)\s+\[(\d+)\]\s+(\d+\.\d+):\s+[\w-]+:(\w+):\s?(.*)$")
LOST: Final = re.compile(r"PERF_RECORD_LOST(?:_SAMPLES)? (?:lost )?(\d+)")
EVENTS: Final = {**tracefs.EVENTS, **block_requests.EVENTS}
WAIT_S: Final = 20.0
NOTE: Final = (
    "recorded by perf, without flags: a wake-up in an interrupt looks like one by the thread that it interrupted"
)


def why_not() -> str:
    """Why this user cannot record with perf here; "" if he can."""
    if shutil.which("perf") is None:
        return "perf is not installed"
    with tempfile.TemporaryDirectory(prefix="hvbench-") as folder:
        command = ["perf", "record", "-q", "-B", "-N", "-a", "-o", f"{folder}/p"]
        for event in tracefs.ESSENTIAL:
            command += ["-e", event]
        done = subprocess.run([*command, "--", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        plain = [" ".join(line.split()) for line in lines if "ermission" in line or "paranoid" in line]
        told = (plain or lines or ["it failed"])[0]
        return f"perf may not record here (sysctl kernel.perf_event_paranoid=-1, a readable tracefs): {told}"
    return ""


class PerfSession:
    """As `tracefs.Session`: a context manager that ends perf again."""

    clock = "perf, mono"

    def __init__(self, buffer_kib: int) -> None:
        self.limit = buffer_kib * 1024 * (os.cpu_count() or 1)
        self.missing: dict[str, str] = {}
        self.threads: set[int] = set()
        self._lost = 0
        self._blocks: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PerfSession:
        self._folder = tempfile.TemporaryDirectory(prefix="hvbench-")
        try:
            self.file = Path(self._folder.name) / "perf.data"
            events = []
            for event, loss in EVENTS.items():
                if self._has(event):
                    events += ["-e", event, "--exclude-perf"]
                else:
                    self.missing[event] = loss
            control = [Path(self._folder.name) / name for name in ("control", "ack")]
            for path in control:
                os.mkfifo(path, 0o600)
            ends = [os.open(path, os.O_RDWR) for path in control]
            self._control, self._ack = ends
            self._errors = (Path(self._folder.name) / "errors").open("w+")
            room = ["-m", "16M"] if os.geteuid() == 0 else []  # others may lock so much: perf takes what it can have
            self._child = subprocess.Popen(
                ["perf", "record", "-q", "-B", "-N", "-a", *room, "-k", "mono", "-D", "-1", "-o", str(self.file),
                 "--control", f"fifo:{control[0]},{control[1]}", *events],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        for name in ("_control", "_ack"):
            with contextlib.suppress(AttributeError, OSError):
                os.close(getattr(self, name))
        with contextlib.suppress(AttributeError):
            self._errors.close()
        self._folder.cleanup()

    @staticmethod
    def _has(event: str) -> bool:
        group, _, name = event.partition(":")
        return any((root / "events" / group / name).is_dir() for root in tracefs.ROOTS)

    def follow(self, pids: list[int]) -> None:
        """Whose events are the job's: these processes' threads, and whoever they start."""
        for pid in pids:
            with contextlib.suppress(OSError):
                self.threads.update(map(int, os.listdir(f"/proc/{pid}/task")))

    def start(self) -> None:
        """Returns when perf records. Raises `UserError` if it does not."""
        os.write(self._control, b"enable\n")
        os.set_blocking(self._ack, False)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                if b"ack" in os.read(self._ack, 16):
                    return
            if self._child is None or self._child.poll() is not None:
                break
            time.sleep(0.01)
        self._errors.seek(0)
        said = " ".join(self._errors.read().split())[:200]
        raise UserError(f"perf record did not begin: {said or 'no reason given'}; try --without-root strace")

    def stop(self) -> None:
        self._end()

    def _end(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGINT)
        try:
            child.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def cpu_s(self) -> float:
        """Seconds of CPU time that perf itself has used so far."""
        from hvbench.traces.record.stracing import cpu_seconds

        return cpu_seconds(self._child.pid) if self._child is not None else 0.0

    def mark(self, times: int = 1) -> None:
        """Nothing: its clock is CLOCK_MONOTONIC."""

    def fill(self) -> float:
        """How much of what may be written has been."""
        try:
            return self.file.stat().st_size / self.limit
        except OSError:
            return 0.0

    def lost(self) -> int:
        """Events that perf says it lost; known once `lines` have been read."""
        return self._lost

    def lines(self) -> Iterator[str]:
        """The job's events as text of tracefs."""
        self._lost = 0
        self._blocks = []
        for comm, pid, tid, cpu, time_, name, text in self._events():
            if name.startswith("block_"):
                self._blocks.append(f"{comm}-{tid} [{cpu}] ..... {time_}: {name}: {text}")
                continue
            if name == "sched_process_fork":
                match = re.search(r" pid=(\d+) child_comm=.* child_pid=(\d+)", " " + text)
                if match is not None and int(match[1]) in self.threads:
                    self.threads.add(int(match[2]))
            if tid not in self.threads and not self._concerns(name, text):
                continue
            flags = "d.h.." if tid == 0 and name.startswith("sched_wak") else "....."
            yield f"{comm}-{tid} ({pid if pid > 0 else '-------'}) [{cpu}] {flags} {time_}: {name}: {text}"

    def block_lines(self) -> Iterator[str]:
        """Block requests of the whole machine, as text of tracefs; known once `lines` have been read."""
        yield from self._blocks

    def _concerns(self, name: str, text: str) -> bool:
        """Whether an event in another thread's context is about one of the job's."""
        if name == "sched_switch":
            match = re.search(r"==> next_comm=.* next_pid=(\d+)", text)
        elif name in ("sched_waking", "sched_wakeup_new"):
            match = re.search(r"comm=.* pid=(\d+)", text)
        else:
            return False
        return match is not None and int(match[1]) in self.threads

    def _events(self) -> Iterator[tuple[str, int, int, str, str, str, str]]:
        command = ["perf", "script", "--ns", "--show-lost-events", "-F", "comm,pid,tid,cpu,time,event,trace"]
        child = subprocess.Popen(
            [*command, "-i", str(self.file)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="surrogateescape",
        )  # fmt: skip
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                match = LINE.match(line)
                if match is not None:
                    comm, pid, tid, cpu, time_, name, text = match.groups()
                    yield comm, int(pid), int(tid), cpu, time_, name, text
                elif (lost := LOST.search(line)) is not None:
                    self._lost += int(lost[1])
        child.wait()
