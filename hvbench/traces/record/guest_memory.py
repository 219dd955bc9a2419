"""A guest's memory where it is a file: keyed hashes of its pages, snapshot by snapshot, only what changed."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import FLAG_COMMON, FLAG_SAMPLED, FLAG_WRITE, PAGE_SIZE, ZERO_PAGE, page_identity
from hvbench.traces.importers.api import Batch, rows
from hvbench.traces.record.procfs import runs

BLOCK: Final = 1 << 20


@define
class Delta:
    """One snapshot: pages whose content differs from the one before, and their identities."""

    taken_ns: int
    pages: NDArray[np.int64]
    values: NDArray[np.uint64]


@define
class Memory:
    """The file of a memory backend, opened once, read only."""

    size: int
    file: int
    map: Any
    now: NDArray[np.uint64]
    deltas: list[Delta] = field(factory=list)
    spent_ns: int = 0

    @classmethod
    def open(cls, path: Path, size: int) -> Memory:
        """Raises OSError."""
        file = os.open(path, os.O_RDONLY)
        try:
            size = min(size, os.fstat(file).st_size) // PAGE_SIZE * PAGE_SIZE
            if not size:
                raise OSError(0, "the memory's file is empty")
            mapped = mmap.mmap(file, size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(file)
            raise
        return cls(size, file, mapped, np.full(size // PAGE_SIZE, ZERO_PAGE, np.uint64))

    def snapshot(self) -> None:
        """Hash every page that is not zero; keep those that changed. The guest runs on meanwhile."""
        begin, taken = time.thread_time_ns(), time.monotonic_ns()
        values = np.full(len(self.now), ZERO_PAGE, np.uint64)
        for at in range(0, self.size, BLOCK):
            data = self.map[at : at + BLOCK]  # a copy: a page must not change between being looked at and hashed
            full = np.frombuffer(data, np.uint64).reshape(-1, PAGE_SIZE // 8).any(axis=1)
            for page in np.flatnonzero(full).tolist():
                start = page * PAGE_SIZE
                values[at // PAGE_SIZE + page] = page_identity(data[start : start + PAGE_SIZE])
        changed = np.flatnonzero(values != self.now)
        self.deltas.append(Delta(taken, changed.astype(np.int64), values[changed]))
        self.now = values
        self.spent_ns += time.thread_time_ns() - begin

    def identities(self) -> NDArray[np.uint64]:
        """All contents that were ever seen."""
        return np.unique(np.concatenate([delta.values for delta in self.deltas] or [np.zeros(0, np.uint64)]))

    def batches(self, thread: int, number: int, first_page: int, common: NDArray[np.uint64]) -> list[Batch]:
        """Rows of object `number`, whose page `first_page` is this memory's first.

        What was there at the first snapshot is touched at its time; later, pages whose content changed are touched at
        times spread evenly over the interval in the order of the pages, and get their content at its end.
        """
        made: list[Batch] = []
        before = self.deltas[0].taken_ns if self.deltas else 0
        for delta in self.deltas:
            page, value = delta.pages, delta.values
            count = len(page)
            if count:
                at: dict[str, Any] = {"object": number, "page": first_page + page, "pages": 1}
                written = FLAG_WRITE | FLAG_SAMPLED
                if delta is self.deltas[0]:
                    found = np.array(runs(page), np.int64)
                    when = np.full(len(found), delta.taken_ns)
                    place, pages = first_page + found[:, 0], found[:, 1]
                    made.append(rows("touch", thread, when, object=number, page=place, pages=pages, flags=written))
                else:
                    spread = before + (delta.taken_ns - before) * np.arange(count) // count
                    made.append(rows("touch", thread, spread, flags=written, **at))
                shared = (value == np.uint64(ZERO_PAGE)) | np.isin(value, common)
                flags = np.where(shared, FLAG_COMMON, 0)
                made.append(rows("content", thread, np.full(count, delta.taken_ns), content=value, flags=flags, **at))
            before = delta.taken_ns
        return made

    def close(self) -> None:
        self.map.close()
        os.close(self.file)
