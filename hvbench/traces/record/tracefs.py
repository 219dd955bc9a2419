"""A tracing session of one's own: an instance below tracefs, limited to one process tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from hvbench.errors import UserError

ROOTS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

#: Event -> what is lost where the kernel does not have it.
EVENTS: Final[dict[str, str]] = {
    "sched:sched_switch": "who ran when",
    "sched:sched_waking": "what ended each wait",
    "sched:sched_wakeup_new": "which thread started which",
    "sched:sched_process_fork": "new threads",
    "sched:sched_process_exec": "new programs",
    "sched:sched_process_exit": "ends of processes",
    "raw_syscalls:sys_enter": "system calls, their arguments, user and kernel time",
    "raw_syscalls:sys_exit": "user and kernel time",
    "exceptions:page_fault_user": "first touches of memory",
    "exceptions:page_fault_kernel": "first touches of memory by the kernel",
    "filemap:mm_filemap_get_pages": "file reads above the page cache",
    "filemap:mm_filemap_map_pages": "touches of mapped files",
    "filemap:mm_filemap_fault": "touches of mapped files",
    "filemap:mm_filemap_add_to_page_cache": "file writes on file systems other than ext4",
    "ext4:ext4_da_write_end": "file writes on ext4",
    "ext4:ext4_write_end": "file writes on ext4",
    "ext4:ext4_sync_file_enter": "fsync on ext4",
    "sock:sock_send_length": "messages sent",
    "sock:sock_recv_length": "messages received",
    "sock:inet_sock_set_state": "which connection a message belongs to",
    "tcp:tcp_rcv_space_adjust": "which connection a message belongs to",
}
ESSENTIAL: Final = ("sched:sched_switch", "sched:sched_waking", "raw_syscalls:sys_enter", "raw_syscalls:sys_exit")


def find_tracefs(mount: bool = True) -> tuple[Path | None, str]:
    """(tracefs, "") if this user can record with it, else (None, why not and what to do)."""
    if os.geteuid() != 0:
        return None, "not root: run as root for scheduling, system calls, page faults and messages"
    for root in ROOTS:
        if (root / "instances").is_dir():
            return root, ""
    if mount:
        done = subprocess.run(
            ["mount", "-t", "tracefs", "tracefs", str(ROOTS[0])], capture_output=True, text=True, check=False
        )
        if (ROOTS[0] / "instances").is_dir():
            return ROOTS[0], ""
        return (
            None,
            f"tracefs is not mounted at {ROOTS[0]} and could not be: {done.stderr.strip() or 'no reason given'}",
        )
    return None, f"tracefs is not mounted: mount -t tracefs tracefs {ROOTS[0]}"


class Session:
    """A tracefs instance; a context manager that always removes it again.

    `missing` maps events that this kernel does not have to what is lost with them.
    """

    def __init__(
        self,
        root: Path,
        buffer_kib: int,
        events: Mapping[str, str] = EVENTS,
        essential: Sequence[str] = ESSENTIAL,
        name: str = "",
    ) -> None:
        self.events, self.essential = events, essential
        self.path = root / "instances" / f"hvbench-{os.getpid()}{name}"
        self.buffer_kib = buffer_kib
        self.missing: dict[str, str] = {}
        self.clock = "mono"

    def __enter__(self) -> Session:
        try:
            return self._enter()
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"no tracing session with a buffer of {self.buffer_kib} KiB for each CPU could be made below "
                f"{self.path.parent}: {reason}; try a smaller --buffer, or --without-root"
            ) from error

    def _enter(self) -> Session:
        self.path.mkdir()
        try:
            self._write("tracing_on", "0")
            self._write("buffer_size_kb", str(self.buffer_kib))
            self._option("overwrite", False)  # when the buffer is full the rest is lost, and counted
            self._option("event-fork", True)
            self._option("record-tgid", True)
            try:
                self._write("trace_clock", "x86-tsc")  # text of the ns clocks shows microseconds only
                self.clock = "x86-tsc"
            except OSError:
                self._write("trace_clock", "mono")
            for event, loss in self.events.items():
                try:
                    self._append("set_event", event)
                except OSError:
                    self.missing[event] = loss
            lacking = [event for event in self.essential if event in self.missing]
            if lacking:
                raise OSError(f"this kernel lacks the tracepoints {', '.join(lacking)}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("tracing_on", "events/enable"):
            with contextlib.suppress(OSError):
                self._write(name, "0")
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def follow(self, pids: list[int]) -> None:
        """Limit events to the threads of these processes and whatever they start."""
        threads = []
        for pid in pids:
            with contextlib.suppress(OSError):  # it may have ended
                threads += sorted(map(int, os.listdir(f"/proc/{pid}/task")))
        self._follow_threads(threads)

    def only_threads(self, threads: list[int]) -> None:
        """Limit scheduling events to these threads, exactly; who they start is not followed.

        By conditions on the events' fields: the list of pids of `follow` misses some switches from idle.
        """
        for event, names in (("sched_switch", ("prev_pid", "next_pid")), ("sched_waking", ("pid",))):
            with contextlib.suppress(FileNotFoundError):  # an event that this kernel lacks
                self._write(
                    f"events/sched/{event}/filter",
                    " || ".join(f"{name} == {thread}" for thread in threads for name in names),
                )

    def _follow_threads(self, threads: list[int]) -> None:
        for first in range(0, len(threads), 256):  # the kernel takes a page of text at a time
            text = " ".join(map(str, threads[first : first + 256]))
            if first:
                self._append("set_event_pid", text)
            else:
                self._write("set_event_pid", text)

    def followed(self) -> list[int]:
        """The threads that are followed now."""
        return [int(word) for word in (self.path / "set_event_pid").read_text().split() if word.isdigit()]

    def start(self) -> None:
        self._write("tracing_on", "1")
        self.mark(5)

    def stop(self) -> None:
        self.mark(5)
        self._write("tracing_on", "0")

    def mark(self, times: int = 1) -> None:
        """Pairs of clocks in the stream, for `ftrace.Clock`; a full buffer takes none."""
        with contextlib.suppress(OSError), (self.path / "trace_marker").open("wb", buffering=0) as file:
            for _ in range(times):
                file.write(b"hvbench clock=%d" % time.clock_gettime_ns(time.CLOCK_MONOTONIC))

    def fill(self) -> float:
        """The share of the fullest CPU's buffer that is used."""
        worst = 0.0
        for stats in self.path.glob("per_cpu/cpu*/stats"):
            used = _stat(stats.read_text(), "bytes")
            worst = max(worst, used / (self.buffer_kib * 1024))
        return worst

    def lost(self) -> int:
        total = 0
        for stats in self.path.glob("per_cpu/cpu*/stats"):
            text = stats.read_text()
            total += sum(_stat(text, key) for key in ("overrun", "commit overrun", "dropped events"))
        return total

    def lines(self) -> Iterator[str]:
        """The text of everything recorded, in time order."""
        with (self.path / "trace").open(encoding="utf-8", errors="surrogateescape") as file:
            yield from file

    def _option(self, name: str, on: bool) -> None:
        self._write(f"options/{name}", "1" if on else "0")

    def _write(self, name: str, text: str) -> None:
        with (self.path / name).open("w") as file:
            file.write(text)

    def _append(self, name: str, text: str) -> None:
        # Not open(..., "a"): it seeks to the end, and tracefs refuses that.
        file = os.open(self.path / name, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def _stat(text: str, key: str) -> int:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return int(value)
    return 0
