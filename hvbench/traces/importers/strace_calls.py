"""What system calls of a strace log do: waits and who ends them, files and where in them, messages.

`Calls.follow` is handed the calls that need a look one by one, in the order in which they ended; everything else is
kernel time. The classes of calls are this project's reading of the system call manuals (man-pages section 2).
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import OPS, OUTSIDE
from hvbench.traces.importers.api import GUEST, Batch, Import, rows

WAITED_NS: Final = 20_000
"""A call that may wait and took less did its work meanwhile (choice of this project: two context switches)."""
PAGE: Final = 4096

SLEEPS: Final = frozenset({"nanosleep", "clock_nanosleep"})
POLLS: Final = frozenset(
    {"poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait",
     "io_getevents", "semtimedop"}
)  # fmt: skip
#: Their result 0 means that the time was over.
WAITS: Final = frozenset(
    {"pause", "rt_sigsuspend", "accept", "accept4", "connect", "restart_syscall", "msgrcv", "semop", "flock", "vfork",
     "io_uring_enter", "fcntl"}
)  # fmt: skip
CHILDREN: Final = frozenset({"wait4", "waitid", "waitpid"})
READS: Final = frozenset({"read", "readv", "pread64", "preadv", "recvfrom", "recvmsg", "recv"})
WRITES: Final = frozenset({"write", "writev", "pwrite64", "pwritev", "sendto", "sendmsg", "send"})
PLACED: Final = frozenset({"pread64", "preadv", "pwrite64", "pwritev"})
SYNCS: Final = frozenset({"fsync", "fdatasync"})
OPENS: Final = frozenset({"open", "openat", "creat"})
COPIES: Final = frozenset({"dup", "dup2", "dup3"})
FORKS: Final = frozenset({"clone", "clone3", "fork", "vfork"})
SPECIAL: Final = (
    SLEEPS | POLLS | WAITS | CHILDREN | READS | WRITES | SYNCS | OPENS | COPIES | FORKS | {"futex", "close", "lseek"}
)
_FD: Final = re.compile(rb"\((\d+)(?:<(.*?)>)?(?=[,)]|$)")
_SOCKET: Final = re.compile(rb"(TCP|UDP)(?:v6)?:\[.+->.+\]")
_SHOWN: Final = re.compile(rb"<(/.*?)>")
_OPENED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"(.*)', re.DOTALL)
_NO_FILES: Final = (b"/proc/", b"/sys/", b"/dev/", b"/run/")


@define
class _File:
    """An open file: its object, where its next read begins; shared by those who inherited it."""

    object: int
    at: int = 0
    append: bool = False


@define
class _Process:
    """What threads of a process share: open files, and who was woken at which address."""

    number: int
    files: dict[int, _File] = field(factory=dict)


@define
class Calls:
    """State of the threads of one log, and the rows that their calls leave."""

    job: Import
    thread: dict[int, int] = field(factory=dict)
    process: dict[int, _Process] = field(factory=dict)
    objects: dict[bytes, int] = field(factory=dict)
    sizes: dict[int, int] = field(factory=dict)
    woken: dict[tuple[int, bytes], deque[list[int]]] = field(factory=dict)
    """(process, address) -> [time, thread, how many are still to be woken]."""
    ended: dict[int, tuple[int, int]] = field(factory=dict)
    """Thread id -> when it ended, and its number."""
    flows: dict[bytes, tuple[int, int]] = field(factory=dict)
    heard: dict[int, int] = field(factory=dict)
    """Thread outside -> when it last sent or received: what lies between is its think time."""
    begin_ns: int = -1
    processes: int = 0
    made: dict[str, list[Any]] = field(factory=dict)

    def meet(self, tid: int) -> int:
        """A thread seen for the first time; its number. Until its parent is known it is a process of its own."""
        if tid not in self.process:
            self.process[tid] = self._new_process()
        number = self.thread[tid] = self.job.thread(f"thread {tid}", self.process[tid].number)
        return number

    def _new_process(self) -> _Process:
        self.processes += 1
        return _Process(self.processes - 1)

    def follow(
        self,
        names: list[str],
        ended: NDArray[np.bool_],
        tid: NDArray[np.int64],
        start: NDArray[np.int64],
        took: NDArray[np.int64],
        result: NDArray[np.int64],
        args: list[bytes],
        more: list[bytes],
    ) -> tuple[NDArray[np.int64], list[Batch]]:
        """The kernel time of each call, and the rows of what it did besides."""
        kernel = np.zeros(len(names), np.int64)
        if self.begin_ns < 0:
            self.begin_ns = int(start.min())
        self.made = {"op": [], "thread": [], "time": [], "a": [], "b": [], "c": []}
        items = zip(names, ended.tolist(), tid.tolist(), start.tolist(), took.tolist(), result.tolist(), args, more,
                    strict=True)  # fmt: skip
        for i, (name, gone, who, at, ns, value, given, further) in enumerate(items):
            if gone:
                self.ended[who] = (at, self.thread[who])
            else:
                kernel[i] = self._one(name, who, at, ns, value, given, further)
        return kernel, self._batches()

    # one call -------------------------------------------------------------------------------------------

    def _one(self, name: str, tid: int, at: int, ns: int, value: int, args: bytes, more: bytes) -> int:
        """Leave the rows of a call; how much of it was kernel time."""
        thread = self.thread[tid]
        if name in SLEEPS:
            return self._kept("sleep", "timer", thread, at, ns)
        if name == "futex":
            return self._futex(tid, thread, at, ns, value, args, more)
        if name in READS or name in WRITES:
            return self._transfer(name, tid, thread, at, ns, value, args)
        if name in CHILDREN:
            done = self.ended.pop(value, None) if value > 0 else None
            if done is not None and ns >= WAITED_NS and done[1] != thread:
                self.edge(done[1], max(done[0], 0), thread, at, ns)
                return 0
            return self._kept("unknown", "unknown", thread, at, ns)
        if name in POLLS:
            if value == 0 or b"ETIMEDOUT" in more:
                return self._kept("sleep", "timer", thread, at, ns)
            return self._kept("unknown", "unknown", thread, at, ns)
        process = self.process[tid]
        if name in OPENS:
            self._open(process, value, args, more)
        elif name == "close":
            fd = _FD.match(args)
            if fd and value == 0:
                process.files.pop(int(fd[1]), None)
        elif name == "lseek":
            fd = _FD.match(args)
            file = process.files.get(int(fd[1])) if fd else None
            if file is not None and value >= 0:
                file.at = value
        elif name in COPIES or (name == "fcntl" and b"F_DUPFD" in args):
            fd = _FD.match(args)
            if fd and value >= 0 and int(fd[1]) in process.files:
                process.files[value] = process.files[int(fd[1])]
        elif name in SYNCS:
            return self._sync(process, thread, at, ns, args)
        if name in FORKS and value > 0:
            self._fork(process, value, args)
        if name in WAITS:
            return self._kept("unknown", "unknown", thread, at, ns)
        return ns

    def _kept(self, op: str, kind: str, thread: int, at: int, ns: int) -> int:
        """A wait that is kept as a duration; a short one is work."""
        if ns < WAITED_NS:
            return ns
        self._row(op, thread, at, ns)
        self.job.waited(kind, ns)
        return 0

    def edge(self, waker: int, when: int, thread: int, at: int, ns: int) -> None:
        """A wait that another thread ended."""
        self._row("wait", thread, at)
        self._row("wake", waker, when, thread)
        self.job.waited("thread_edge", ns)

    def _futex(self, tid: int, thread: int, at: int, ns: int, value: int, args: bytes, more: bytes) -> int:
        key = (id(self.process[tid]), args[1 : args.find(b",")])
        if b"FUTEX_WAKE" in args or b"REQUEUE" in args:
            if value > 0:
                wakes = self.woken.setdefault(key, deque(maxlen=64))
                wakes.append([at, thread, value])
            return ns
        if value == 0 and ns >= WAITED_NS:
            for wake in self.woken.get(key, ()):
                if wake[2] > 0 and at <= wake[0] <= at + ns and wake[1] != thread:
                    wake[2] -= 1
                    self.edge(wake[1], wake[0], thread, at, ns)
                    return 0
        if b"ETIMEDOUT" in more:
            return self._kept("sleep", "timer", thread, at, ns)
        return self._kept("unknown", "unknown", thread, at, ns)

    def _fork(self, parent: _Process, child: int, args: bytes) -> None:
        """A child begins: a thread shares everything, a process gets a copy of the open files."""
        if b"CLONE_THREAD" in args:
            known = child in self.process
            self.process[child] = parent
            if known and child in self.thread:
                self.job.threads[self.thread[child]]["process"] = parent.number
        else:
            if child not in self.process:
                self.process[child] = self._new_process()
            for fd, file in parent.files.items():
                self.process[child].files.setdefault(fd, file)

    # files ----------------------------------------------------------------------------------------------

    def _open(self, process: _Process, fd: int, args: bytes, more: bytes) -> None:
        found = _OPENED.search(args)
        if fd < 0 or found is None:
            return
        shown = _SHOWN.match(more)
        path = shown[1] if shown else found[1]
        process.files.pop(fd, None)
        if path.startswith(_NO_FILES) or b"O_DIRECTORY" in args or b"O_PATH" in args:
            return
        number = self._object(path)
        if b"O_TRUNC" in found[2]:
            self.sizes[number] = 0
        process.files[fd] = _File(number, 0, b"O_APPEND" in found[2])

    def _object(self, path: bytes) -> int:
        number = self.objects.get(path)
        if number is None:
            number = self.objects[path] = self.job.object("own", 0, name=path.decode("utf-8", "replace"))
            self.sizes[number] = 0
        return number

    def _file_of(self, tid: int, fd: int, shown: bytes | None) -> _File | None:
        files = self.process[tid].files
        file = files.get(fd)
        if file is None and shown is not None and shown.startswith(b"/") and not shown.startswith(_NO_FILES):
            file = files[fd] = _File(self._object(shown))  # opened before the log began
        return file

    def _transfer(self, name: str, tid: int, thread: int, at: int, ns: int, value: int, args: bytes) -> int:
        fd = _FD.match(args)
        write = name in WRITES
        if fd is None:
            return self._kept("unknown", "unknown", thread, at, ns)
        shown = fd[2]
        socket = _SOCKET.fullmatch(shown) if shown is not None else None
        if socket is not None:
            return self._message(write, shown, thread, at, ns, value)
        file = self._file_of(tid, int(fd[1]), shown)
        if file is None:
            return self._kept("unknown", "unknown", thread, at, ns)
        if value <= 0:
            return ns
        first = file.at
        if name in PLACED:
            place = args.rpartition(b",")[2].strip()
            if not place.isdigit():
                return ns
            first = int(place)
        elif write and file.append:
            first = self.sizes[file.object]
        if name not in PLACED:
            file.at = first + value
        self.sizes[file.object] = max(self.sizes[file.object], first + value)
        page = first // PAGE
        pages = (first + value - 1) // PAGE - page + 1
        self.job.reach(file.object, page + pages)
        self._row("fwrite" if write else "fread", thread, at, file.object, page, pages)
        return self._disk(ns)

    def _disk(self, ns: int) -> int:
        if ns < self.job.options.disk_ns:
            return ns
        self.job.waited("disk", ns)
        return 0

    def _sync(self, process: _Process, thread: int, at: int, ns: int, args: bytes) -> int:
        fd = _FD.match(args)
        file = process.files.get(int(fd[1])) if fd else None
        if file is None:
            return self._kept("unknown", "disk", thread, at, ns)
        self._row("fsync", thread, at, file.object, 0, 0)
        return self._disk(ns)

    # messages -------------------------------------------------------------------------------------------

    def _message(self, write: bool, shown: bytes, thread: int, at: int, ns: int, value: int) -> int:
        if value <= 0:
            return self._kept("outside", "outside", thread, at, ns)
        found = self.flows.get(shown)
        if found is None:
            flow = self.job.flow("tcp" if shown.startswith(b"TCP") else "udp", (GUEST, OUTSIDE))
            found = self.flows[shown] = (flow, self.job.thread(f"flow {flow}", 0, OUTSIDE))
        flow, peer = found
        if write:
            self._row("send", thread, at, flow, value)
            self._row("recv", peer, at, flow, value)
            self.heard[peer] = at
            return ns
        # who sent it did so before it was read: at the end of a wait, else when the call began
        waited = ns >= WAITED_NS
        sent = at + ns if waited else at
        last = self.heard.get(peer, self.begin_ns)
        if sent > last:
            self._row("compute", peer, last, sent - last)
        self.heard[peer] = sent
        self._row("send", peer, sent, flow, value)
        self._row("recv", thread, at, flow, value)
        if waited:
            self.job.waited("network", ns)
            return 0
        return ns

    # rows -----------------------------------------------------------------------------------------------

    def _row(self, op: str, thread: int, at: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        made = self.made
        made["op"].append(op)
        made["thread"].append(thread)
        made["time"].append(at)
        made["a"].append(a)
        made["b"].append(b)
        made["c"].append(c)

    def _batches(self) -> list[Batch]:
        """The rows of a block, in the order in which they were made."""
        if not self.made["op"]:
            return []
        op = np.array([OPS[name] for name in self.made["op"]], np.int8)
        a, b, c = (np.array(self.made[name], np.int64) for name in "abc")

        def of(values: NDArray[np.int64], names: tuple[str, ...], otherwise: int) -> NDArray[np.int64]:
            return np.where(np.isin(op, [OPS[name] for name in names]), values, otherwise)

        file = ("fread", "fwrite", "fsync")
        return [
            rows(
                op,
                np.array(self.made["thread"], np.int32),
                np.array(self.made["time"], np.int64),
                user_ns=of(a, ("compute",), 0),
                duration_ns=of(a, ("sleep", "outside", "unknown"), 0),
                peer=of(a, ("wake",), -1),
                object=of(a, file, -1),
                page=of(b, file, 0),
                pages=of(c, file, 0),
                flow=of(a, ("send", "recv"), -1),
                bytes=of(b, ("send", "recv"), 0),
            )
        ]

    def finish(self) -> None:
        job = self.job
        job.note("time between system calls holds waiting for a CPU and strace's own stops: --stop takes those off")
        if self.objects:
            job.note("file reads and writes by read and write only; files that were mapped are silent")
        job.meta["recorded"] = {"threads": len(self.thread), "files": len(self.objects), "connections": len(self.flows)}
