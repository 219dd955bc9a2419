"""Snapshots of guests' page contents, as `recorded-two-vms` has them: a text of what changed since the last one.

# t=5.910 vm=0 changed=17123
0 1f4a 9c0de0ffee00aa55        vm, page (hex), blake2b of 8 bytes of the page's 4 KiB
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.format import PAGE_SIZE, ZERO_PAGE

ZERO_HASH = int(hashlib.blake2b(bytes(PAGE_SIZE), digest_size=8).hexdigest(), 16)


@frozen(eq=False)
class Snapshot:
    """The contents of all VMs that ran at a time: identities by page for each VM, 0 for a page of zeroes."""

    time_s: float
    contents: dict[int, NDArray[np.uint64]]

    @property
    def in_both(self) -> int:
        """Contents that more than one VM has."""
        each = [np.unique(pages) for pages in self.contents.values()]
        return int((np.unique(np.concatenate(each), return_counts=True)[1] > 1).sum())


def snapshots(path: Path) -> Iterator[Snapshot]:
    """Every snapshot of a file, complete, in time order. Raises UserError for a line that is none of the format's."""
    state: dict[int, NDArray[np.uint64]] = {}
    for start, changes in _blocks(path):
        for vm, (pages, hashes) in changes.items():
            known = state.get(vm, np.zeros(0, np.uint64))
            grown = np.zeros(max(len(known), int(pages.max(initial=-1)) + 1), np.uint64)
            grown[: len(known)] = known
            grown[pages] = np.where(hashes == np.uint64(ZERO_HASH), np.uint64(ZERO_PAGE), hashes)
            state[vm] = grown
        # who has gone has no contents any more
        yield Snapshot(start, {vm: state[vm] for vm in sorted(changes)})


Changes = dict[int, tuple[NDArray[np.int64], NDArray[np.uint64]]]


def _blocks(path: Path) -> Iterator[tuple[float, Changes]]:
    """The changes of each snapshot: the VMs whose headers have one time, pages and hashes of each."""
    start, changes = -1.0, Changes()
    vm, pages, hashes = -1, list[int](), list[int]()
    with gzip.open(path, "rt", encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            try:
                if words[0] != "#":
                    pages.append(int(words[1], 16))
                    hashes.append(int(words[2], 16))
                    continue
                when, which = float(words[1].removeprefix("t=")), int(words[2].removeprefix("vm="))
            except (ValueError, IndexError):
                raise UserError(
                    f"{path}:{number}: {line.strip()[:60]!r}; legal: `# t=SECONDS vm=N changed=N` or `VM PAGE HASH`"
                ) from None
            if vm >= 0:
                changes[vm] = np.array(pages, np.int64), np.array(hashes, np.uint64)
            if when != start and changes:
                yield start, changes
                changes = {}
            start, vm, pages, hashes = when, which, [], []
    if vm >= 0:
        changes[vm] = np.array(pages, np.int64), np.array(hashes, np.uint64)
        yield start, changes
