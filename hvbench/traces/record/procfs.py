"""Snapshots from /proc: what events cannot give.

Who was there when recording began and what they were blocked in; which pages are resident; what the pages
hold. Every function returns what it got and skips processes that end meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import PAGE_SIZE, page_identity

PRESENT: Final = np.uint64(1 << 63)
FILE_OR_SHARED: Final = np.uint64(1 << 61)
FRAME: Final = np.uint64((1 << 55) - 1)
#: A VMA with more pages than this is a reservation: only its resident ends are looked at, in pieces.
PIECE_PAGES: Final = 1 << 16


@define(frozen=True)
class Vma:
    """A mapping; `first` and `end` are page numbers of the address, `offset` of the file."""

    first: int
    end: int
    shared: bool
    writable: bool
    offset: int
    device: str  # "254:0", as the tracepoints print it
    inode: int
    path: str

    @property
    def anonymous(self) -> bool:
        return self.inode == 0

    @property
    def memory_file(self) -> bool:
        """Shared memory: has an inode, but no disk behind it."""
        return self.shared and self.path.startswith(("/dev/zero", "/dev/shm", "/SYSV", "/memfd:", "/run/", "/tmpfs"))


@define
class ThreadState:
    """A thread as it was at a snapshot; `syscall` is -1 while it runs in user mode or was not to be seen."""

    tid: int
    comm: str
    syscall: int = -1
    arguments: tuple[int, ...] = ()


@define
class ProcessState:
    """A process as it was at a snapshot; pages are page numbers of addresses."""

    pid: int
    parent: int
    comm: str
    titles: list[str]  # what the process calls itself, and the script it interprets
    threads: list[ThreadState] = field(factory=list)
    vmas: list[Vma] = field(factory=list)
    anonymous: NDArray[np.int64] = field(factory=lambda: np.zeros(0, np.int64))
    mapped: NDArray[np.int64] = field(factory=lambda: np.zeros(0, np.int64))
    contents: dict[int, int] = field(factory=dict)  # page -> identity
    referenced: dict[int, int] = field(factory=dict)  # first page of a VMA -> referenced pages
    taken_ns: int = 0

    def vma_at(self, page: int) -> Vma | None:
        for vma in self.vmas:
            if vma.first <= page < vma.end:
                return vma
        return None


def read_text(path: Path | str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            stat = read_text(f"/proc/{entry.name}/stat")
            rest = stat.rpartition(")")[2].split()
            if len(rest) > 1:
                children.setdefault(int(rest[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if os.path.isdir(f"/proc/{pid}"):
            found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def process_state(pid: int) -> ProcessState | None:
    """Names, threads and mappings of a process; None if it is gone."""
    stat = read_text(f"/proc/{pid}/stat")
    if not stat:
        return None
    comm = stat[stat.index("(") + 1 : stat.rindex(")")]
    parent = int(stat.rpartition(")")[2].split()[1])
    words = [word for word in read_text(f"/proc/{pid}/cmdline").split("\0") if word.strip()]
    titles = [words[0]] if words else []
    if len(words) > 1 and not words[1].startswith("-"):
        titles.append(words[1].rpartition("/")[2])
    state = ProcessState(pid=pid, parent=parent, comm=comm, titles=titles)
    try:
        tids = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return None
    for tid in tids:
        name = read_text(f"/proc/{pid}/task/{tid}/comm").strip() or comm
        words = read_text(f"/proc/{pid}/task/{tid}/syscall").split()
        if len(words) >= 7:
            state.threads.append(ThreadState(tid, name, int(words[0]), tuple(int(word, 16) for word in words[1:7])))
        else:
            state.threads.append(ThreadState(tid, name))
    state.vmas = parse_maps(read_text(f"/proc/{pid}/maps"))
    return state


_MAPS = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)\s*(.*)$")


def parse_maps(text: str) -> list[Vma]:
    """The lines of /proc/PID/maps, without the kernel's own pages."""
    found = []
    for line in text.splitlines():
        match = _MAPS.match(line)
        if match is None:
            continue
        start, end, flags, offset, major, minor, inode, path = match.groups()
        if path in ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"):
            continue
        found.append(
            Vma(
                first=int(start, 16) // PAGE_SIZE,
                end=int(end, 16) // PAGE_SIZE,
                shared=flags[3] == "s",
                writable="w" in flags,
                offset=int(offset, 16) // PAGE_SIZE,
                device=f"{int(major, 16)}:{int(minor, 16)}",
                inode=int(inode),
                path=path,
            )
        )
    return found


def resident_pages(state: ProcessState, seen_frames: set[int] | None = None) -> None:
    """Fill in `anonymous` and `mapped` from pagemap.

    A frame in `seen_frames` (another process's, before a fork) is not counted again; needs root, as an
    ordinary user sees frame 0 everywhere, which is never skipped.
    """
    anonymous: list[NDArray[np.int64]] = []
    mapped: list[NDArray[np.int64]] = []
    try:
        with open(f"/proc/{state.pid}/pagemap", "rb", buffering=0) as pagemap:
            for vma in state.vmas:
                for first in range(vma.first, vma.end, PIECE_PAGES):
                    count = min(PIECE_PAGES, vma.end - first)
                    entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * count, 8 * first), dtype=np.uint64)
                    present = (entries & PRESENT) != 0
                    if not present.any():
                        continue
                    file = (entries & FILE_OR_SHARED) != 0
                    mapped.append(np.flatnonzero(present & file).astype(np.int64) + first)
                    mine = np.flatnonzero(present & ~file)
                    if seen_frames is not None and len(mine):
                        frames = (entries[mine] & FRAME).tolist()
                        new = [frame == 0 or frame not in seen_frames for frame in frames]
                        seen_frames.update(frames)
                        mine = mine[np.array(new, dtype=bool)]
                    anonymous.append(mine.astype(np.int64) + first)
    except OSError:
        pass
    if anonymous:
        state.anonymous = np.concatenate(anonymous)
    if mapped:
        state.mapped = np.concatenate(mapped)


def hash_pages(state: ProcessState) -> None:
    """Fill in `contents` for the resident anonymous pages, by reading /proc/PID/mem."""
    try:
        with open(f"/proc/{state.pid}/mem", "rb", buffering=0) as memory:
            for first, count in runs(state.anonymous):
                for start in range(first, first + count, 256):
                    pages = min(256, first + count - start)
                    try:
                        data = os.pread(memory.fileno(), pages * PAGE_SIZE, start * PAGE_SIZE)
                    except OSError:
                        continue
                    view = memoryview(data)
                    for i in range(len(data) // PAGE_SIZE):
                        state.contents[start + i] = page_identity(view[i * PAGE_SIZE : (i + 1) * PAGE_SIZE])
    except OSError:
        pass


def clear_references(pid: int) -> bool:
    """Reset the "referenced" marks of a process's pages; False if that is not possible."""
    try:
        with open(f"/proc/{pid}/clear_refs", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


def referenced_pages(pid: int) -> dict[int, int]:
    """First page of each private mapping -> pages referenced since `clear_references`, from smaps."""
    found: dict[int, int] = {}
    first = -1
    for line in read_text(f"/proc/{pid}/smaps").splitlines():
        match = _MAPS.match(line)
        if match is not None:
            first = int(match[1], 16) // PAGE_SIZE if match[3][3] == "p" else -1
        elif line.startswith("Referenced:") and first >= 0:
            found[first] = int(line.split()[1]) * 1024 // PAGE_SIZE
    return found


def runs(pages: NDArray[np.int64] | Iterable[int]) -> list[tuple[int, int]]:
    """Sorted, distinct page numbers as (first, count) of each contiguous run."""
    values = np.unique(np.fromiter(pages, dtype=np.int64) if not isinstance(pages, np.ndarray) else pages)
    if not len(values):
        return []
    cuts = np.flatnonzero(np.diff(values) != 1) + 1
    starts = np.concatenate(([0], cuts))
    ends = np.concatenate((cuts, [len(values)]))
    return [(int(values[a]), int(b - a)) for a, b in zip(starts, ends, strict=True)]


def steal_ns() -> int:
    """Time stolen from this machine since its start, all CPUs."""
    words = read_text("/proc/stat").split("\n", 1)[0].split()
    ticks = int(words[8]) if len(words) > 8 else 0
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, object]:
    """What the metadata says about where a recording was made."""
    model = "?"
    flags = ""
    for line in read_text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and model == "?":
            model = value.strip()
        if name.strip() == "flags" and not flags:
            flags = value
    where = "bare"
    if " hypervisor" in flags:
        where = "kvm" if "KVM" in read_text("/sys/class/dmi/id/sys_vendor").upper() else "vm"
    memory = re.search(r"MemTotal:\s+(\d+)", read_text("/proc/meminfo"))
    return {
        "cpu_model": model,
        "cpus": os.cpu_count() or 1,
        "mem_bytes": int(memory[1]) * 1024 if memory else 0,
        "kernel": os.uname().release,
        "where": where,
    }


def inode_paths(wanted: set[int], roots: Iterable[str] = ("/",)) -> dict[tuple[str, int], tuple[str, int, float]]:
    """(device, inode) -> (path, bytes, modified at) for the wanted inodes, by walking the root file systems."""
    found: dict[tuple[str, int], tuple[str, int, float]] = {}
    for root in roots:
        try:
            device = os.stat(root).st_dev
        except OSError:
            continue
        name = f"{os.major(device)}:{os.minor(device)}"
        waiting = [root]
        while waiting and len(found) < len(wanted):
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.path not in ("/proc", "/sys", "/dev"):
                                waiting.append(entry.path)
                        elif entry.inode() in wanted:
                            status = entry.stat(follow_symlinks=False)
                            if status.st_dev == device:
                                found[(name, entry.inode())] = (entry.path, status.st_size, status.st_mtime)
            except OSError:
                continue
    return found
