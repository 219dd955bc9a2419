"""From addresses and inodes to objects and page indices.

Each process image (from exec to the next exec or exit) has one anonymous object. Addresses are packed: runs of
touched pages with gaps of up to `GAP_PAGES` keep their distances, larger gaps are closed, and a run of 2 MiB or
more begins at a multiple of 2 MiB, so that huge backing stays possible.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define, field

from hvbench.traces.format import name_hash
from hvbench.traces.record.procfs import Vma, runs

GAP_PAGES: Final = 16
HUGE_PAGES: Final = 512

#: Where the files of an installed system lie: they belong to the base image unless they were written.
IMAGE_FOLDERS: Final = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/etc/", "/opt/")


@define(eq=False)
class FileObject:
    """A file by (device, inode), or a piece of shared memory."""

    device: str
    inode: int
    path: str = ""
    pages: int = 0
    written: bool = False
    shared_memory: bool = False
    old: bool = False  # was there, unchanged, long before the recording
    index: int = -1

    def reach(self, page: int) -> None:
        self.pages = max(self.pages, page)

    @property
    def kind(self) -> str:
        if self.shared_memory:
            return "anon"  # no disk behind it: its first touch reads nothing
        image = self.old and not self.written and not self.shared_memory and self.path.startswith(IMAGE_FOLDERS)
        return "image" if image else "own"

    @property
    def hash(self) -> str:
        return name_hash(self.path or f"{self.device}:{self.inode}")


@define(eq=False)
class Space:
    """The anonymous memory of one process image."""

    process: Any
    live: set[int] = field(factory=set)  # pages touched and not freed
    ever: set[int] = field(factory=set)
    brk: int = 0
    index: int = -1
    _starts: Any = None
    _places: Any = None
    pages: int = 0

    def touch(self, page: int, count: int = 1) -> None:
        for i in range(page, page + count):
            self.live.add(i)
            self.ever.add(i)

    def drop(self, first: int, end: int) -> list[tuple[int, int]]:
        """Give up the pages in [first, end); answers the runs that had been touched."""
        if end - first < 4 * len(self.live):
            gone = [page for page in range(first, end) if page in self.live]
        else:
            gone = sorted(page for page in self.live if first <= page < end)
        self.live.difference_update(gone)
        return runs(np.array(gone, dtype=np.int64)) if gone else []

    def lay_out(self) -> None:
        """Fix the page indices; after this `place` may be asked."""
        starts: list[int] = []
        places: list[int] = []
        next_place = 0
        regions: list[list[int]] = []
        for first, count in runs(np.array(sorted(self.ever), dtype=np.int64)) if self.ever else []:
            if regions and first - regions[-1][1] <= GAP_PAGES:
                regions[-1][1] = first + count
            else:
                regions.append([first, first + count])
        for first, end in regions:
            if end - first >= HUGE_PAGES:
                # same position within 2 MiB as the address has
                next_place = -(-next_place // HUGE_PAGES) * HUGE_PAGES + first % HUGE_PAGES
            starts.append(first)
            places.append(next_place)
            next_place += end - first
        self._starts, self._places = np.array(starts, np.int64), np.array(places, np.int64)
        self.pages = next_place

    def place(self, page: int) -> int:
        region = int(np.searchsorted(self._starts, page, side="right")) - 1
        return int(self._places[region] + page - self._starts[region])


@define(eq=False)
class Memory:
    """All objects of a recording, and which mapping an address of a process lies in."""

    files: dict[tuple[str, int], FileObject] = field(factory=dict)
    spaces: list[Space] = field(factory=list)
    current: dict[int, Space] = field(factory=dict)  # process index -> its image's space
    shared: dict[int, list[tuple[int, int, FileObject, int]]] = field(factory=dict)
    shared_count: int = 0

    def file(self, device: str, inode: int) -> FileObject:
        key = (device, inode)
        if key not in self.files:
            self.files[key] = FileObject(device, inode)
        return self.files[key]

    def space(self, process: Any) -> Space:
        if process.index not in self.current:
            self.current[process.index] = Space(process)
            self.spaces.append(self.current[process.index])
        return self.current[process.index]

    def new_image(self, process: Any) -> list[tuple[Space, int, int]]:
        """exec: the old memory goes; answers its runs."""
        old = self.current.pop(process.index, None)
        self.shared.pop(process.index, None)
        if old is None:
            return []
        gone = [(old, first, count) for first, count in runs(np.array(sorted(old.live), np.int64))] if old.live else []
        old.live.clear()
        return gone

    def known_mappings(self, process: Any, vmas: list[Vma]) -> None:
        """What a snapshot says about shared memory and about the names of files."""
        for vma in vmas:
            if vma.memory_file:
                file = self.file("shm", vma.inode)
                file.shared_memory, file.path = True, vma.path
                self.map_shared(process, vma.first, vma.end, file, vma.offset)
            elif vma.inode:
                self.file(vma.device, vma.inode).path = vma.path.removesuffix(" (deleted)")

    def map_shared(self, process: Any, first: int, end: int, file: FileObject | None, offset: int = 0) -> None:
        if file is None:
            self.shared_count += 1
            file = self.file("shm", -self.shared_count)
            file.shared_memory, file.path = True, f"shared memory {self.shared_count}"
        mappings = self.shared.setdefault(process.index, [])
        mappings[:] = [m for m in mappings if m[1] <= first or m[0] >= end]
        mappings.append((first, end, file, offset))

    def forked(self, parent: Any, child: Any) -> None:
        self.shared[child.index] = list(self.shared.get(parent.index, ()))

    def find_shared(self, process: Any, page: int) -> tuple[FileObject, int] | None:
        for first, end, file, offset in self.shared.get(process.index, ()):
            if first <= page < end:
                return file, page - first + offset
        return None
