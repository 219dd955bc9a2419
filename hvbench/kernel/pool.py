"""The pool of compressed pages: a frame of it holds several, a page in it has a slot of the hypervisor's swap too.

An entry of a slot is as large as what its page was compressed to. Entries of equal class share frames: class k holds
k entries a frame, k = 4096 // bytes, at most 16; a class takes as many frames as it needs when its entries lie
close together. The pool knows in which order entries came; the policy decides what goes in, and how much of it is
written to the swap area at the slots that the pages have already [zswap: mm/zswap.c; ESX: the compression cache].

How far a page shrinks: content has no bytes here, so a page's compressed size is drawn by its content's identity from
the sizes that were measured (SIZES); equal contents have equal sizes, and a page of zeros takes none [zswap:
same-filled pages]. Measured: LZ4 on 50,249 distinct pages, not of zeros, of the anonymous memory of all processes of
a Linux machine that ran Python programs and a C compiler; python -m hvbench.traces.record.compressibility repeats it.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import kernel_view, mix
from hvbench.kernel.page_lists import page_identity

SIZE_SALT = 0x53495A45
SIZES = (
    94, 193, 220, 519, 524, 528, 640, 808, 966, 1086, 1181, 1262, 1334, 1400, 1457, 1511,
    1562, 1610, 1655, 1700, 1743, 1787, 1823, 1870, 1923, 1978, 2040, 2109, 2197, 2302, 2434, 2630,
)  # fmt: skip
"""Bytes that a page takes when it is compressed: the middle of each of 32 equally likely parts of what was measured."""

CLASSES = 17
LONGEST = 16
PAGE_BYTES = 4096
ZERO_CLASS = 0
"""A page of zeros needs no place."""


@jit
def compressed_size(host: Any, g: int) -> int:
    """Bytes that guest page `g` takes when it is compressed."""
    identity = page_identity(host, g)
    if identity == 0:
        return 0
    return kernel_view(host).pool_size[(mix(SIZE_SALT, identity) >> 17) & 31].bytes


@jit
def class_of(size: int) -> int:
    """How many entries of a size a frame holds; 0 for a page of zeros."""
    if size == 0:
        return ZERO_CLASS
    return min(LONGEST, PAGE_BYTES // size)


@jit
def frames_of(entries: int, k: int) -> int:
    """Frames that so many entries of class `k` take."""
    if k == ZERO_CLASS:
        return 0
    return (entries + k - 1) // k


@jit
def pool_enter(host: Any, s: int, k: int) -> None:
    """The page of slot `s` is in the pool, as the newest entry."""
    mc = host.machine[0]
    e = host.pool_entry[s]
    e.held = k + 1
    e.writing = 0
    e.newer = 0
    e.older = mc.pool_newest
    if mc.pool_newest > 0:
        host.pool_entry[mc.pool_newest - 1].newer = s + 1
    else:
        mc.pool_oldest = s + 1
    mc.pool_newest = s + 1
    mc.pool_entries += 1
    host.pool_class[k].entries += 1


@jit
def pool_unlink(host: Any, s: int) -> None:
    """An entry does not wait any more for being written out."""
    mc = host.machine[0]
    e = host.pool_entry[s]
    if e.newer > 0:
        host.pool_entry[e.newer - 1].older = e.older
    else:
        mc.pool_newest = e.older
    if e.older > 0:
        host.pool_entry[e.older - 1].newer = e.newer
    else:
        mc.pool_oldest = e.newer
    e.newer = 0
    e.older = 0


@jit
def pool_leave(host: Any, s: int) -> None:
    """The page of slot `s` is not in the pool any more."""
    e = host.pool_entry[s]
    host.pool_class[e.held - 1].entries -= 1
    host.machine[0].pool_entries -= 1
    if e.writing == 0:
        pool_unlink(host, s)
    e.held = 0


@jit
def pool_wants(host: Any) -> int:
    """Frames that the pool's entries take."""
    total = 0
    for k in range(CLASSES):
        total += frames_of(host.pool_class[k].entries, k)
    return total
