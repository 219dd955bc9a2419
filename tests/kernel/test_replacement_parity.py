"""The guest's `lru`, `clock` and `fifo` against libCacheSim (J. Yang et al.), request for request, through the kernel.

A guest with memory for `room` pages replays a stream of page touches, each followed by a compute, so that every
request's hit or miss can be seen between two events. Pages that do not fit go to the guest's swap or come from its
virtual disk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.build_memory import GuestMemory
from hvbench.jit import interpreted
from hvbench.state.records_memory import ANON, OWN
from hvbench.traces.format import OPS
from hvbench.traces.load import load_trace
from hvbench.workload import find_trace
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import WRITE, compute, op

libcachesim = pytest.importorskip("libcachesim")

CACHES = {"lru": libcachesim.LRU, "clock": libcachesim.Clock, "fifo": libcachesim.FIFO}
LENGTH = 2500


def theirs(replacement: str, pages: list[int], room: int) -> list[bool]:
    """Which requests miss in libCacheSim."""
    cache = CACHES[replacement](room)
    request = libcachesim.Request()
    request.obj_size = 1
    missed = []
    for page in pages:
        request.obj_id = page
        missed.append(not cache.get(request))
    return missed


def ours(
    replacement: str, pages: list[int], room: int, kind: int = ANON, writes: Any = (), compiled: bool = True
) -> list[bool]:
    """Which requests miss in the guest; request i writes where `writes[i]`."""
    name = "touch" if kind == ANON else "mtouch"
    ops = []
    for i, page in enumerate(pages):
        ops += [op(name, 0, page, 1, WRITE if len(writes) and writes[i] else 0), compute(1000)]
    guest = GuestMemory(room, replacement=replacement, swap_pages=2 * max(pages) + 64)
    memory, loop = rig.host(
        [[ops]],
        [guest],
        [[(kind, max(pages) + 1)]],
        frames=room + 200,
        horizon_ns=1 << 50,
        interpreted=not compiled or interpreted(),
    )
    thread, vmem = memory.tables["thread"], memory.tables["vmem"]
    faults = [0] * len(pages)
    while memory.tables["group"]["loops"][0] == 0:
        assert loop.run(1) == 0, rig.error(memory)
        at = int(thread["op"][0])
        if at % 2:
            faults[at // 2] = int(vmem["guest_faults"][0])
    rig.conserved(memory)
    return np.diff([0, *faults]).astype(bool).tolist()


def zipf(n: int, alpha: float, length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = np.cumsum(np.arange(1, n + 1) ** -alpha)
    return rng.permutation(n)[np.searchsorted(weight / weight[-1], rng.random(length))]


def synthetic(name: str) -> list[int]:
    """A stream of LENGTH requests over about 400 pages."""
    skewed = zipf(400, 0.9, LENGTH, 1)
    if name == "zipf":
        return skewed.tolist()
    if name == "scan":
        return (np.arange(LENGTH) % 1200).tolist()
    if name == "loop":
        return (np.arange(LENGTH) % 210).tolist()
    scan = np.arange(LENGTH) % 400
    loop = np.arange(LENGTH) % 37
    turn = np.arange(LENGTH) // 150 % 3
    return np.select([turn == 0, turn == 1], [skewed, scan], loop).tolist()


@lru_cache(maxsize=4)
def recorded(name: str) -> list[int]:
    """The first LENGTH page touches of a bundled recording, pages numbered in the order of their addresses."""
    from pathlib import Path

    trace = load_trace(find_trace(name, Path()))
    rows = trace.ops[np.isin(trace.ops["op"], [OPS["touch"], OPS["mtouch"]])]
    count = np.minimum(rows["b"], 400)
    rows, count = rows[count > 0], count[count > 0]
    keep = int(np.searchsorted(np.cumsum(count), LENGTH)) + 1
    rows, count = rows[:keep], count[:keep]
    start = np.repeat(rows["a"] + (rows["x"].astype(np.int64) << 32), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    _, page = np.unique(start + within, return_inverse=True)
    return page[:LENGTH].tolist()


@pytest.mark.parametrize("room", [13, 100, 240])
@pytest.mark.parametrize("stream", ["zipf", "scan", "loop", "mixed"])
@pytest.mark.parametrize("replacement", list(CACHES))
def test_every_request_of_a_synthetic_stream_hits_or_misses_as_in_libcachesim(replacement, stream, room, kernel):
    pages = synthetic(stream)
    expected = theirs(replacement, pages, room)
    assert any(expected) and (stream in ("scan", "loop") or not all(expected))
    writes = np.random.default_rng(room).random(LENGTH) < 0.3
    assert ours(replacement, pages, room, ANON, writes) == expected


@pytest.mark.parametrize("share", [10, 3, 2])
@pytest.mark.parametrize("trace", ["memdb", "cc-build"])
@pytest.mark.parametrize("replacement", list(CACHES))
def test_every_request_of_a_recorded_stream_hits_or_misses_as_in_libcachesim(replacement, trace, share, kernel):
    pages = recorded(trace)
    room = max(2, len(set(pages)) // share)
    assert ours(replacement, pages, room) == theirs(replacement, pages, room)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("replacement", list(CACHES))
def test_file_pages_clean_and_dirty_are_replaced_as_in_libcachesim(replacement, writes, kernel):
    pages = synthetic("mixed")
    which = np.random.default_rng(5).random(LENGTH) < (0.4 if writes else 0.0)
    assert ours(replacement, pages, 90, OWN, which) == theirs(replacement, pages, 90)


@settings(max_examples=20)
@given(
    st.sampled_from(list(CACHES)),
    st.lists(st.integers(0, 12), min_size=1, max_size=80),
    st.integers(2, 9),
    st.sampled_from([ANON, OWN]),
    st.integers(0, 1 << 80),
)
def test_short_streams_interpreted(replacement, pages, room, kind, bits):
    writes = [bits >> i & 1 for i in range(len(pages))]
    assert ours(replacement, pages, room, kind, writes, compiled=False) == theirs(replacement, pages, room)


def test_ranges_are_so_many_requests(kernel):
    """A touch of many pages asks for one after the other, also where some of them drive others out."""
    rng = np.random.default_rng(3)
    starts, counts = rng.integers(0, 150, 300), rng.integers(1, 40, 300)
    pages = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, counts, strict=True)]).tolist()
    for replacement in CACHES:
        ops = [op("touch", 0, int(a), int(n)) for a, n in zip(starts, counts, strict=True)]
        guest = GuestMemory(60, replacement=replacement, swap_pages=1000)
        memory = rig.run(
            [[[*ops, rig.sleep(1 << 50)]]],
            [guest],
            [[(ANON, 200)]],
            frames=400,
            horizon_ns=1 << 49,
            interpreted=interpreted(),
        )
        assert memory.tables["vmem"]["guest_faults"][0] == sum(theirs(replacement, pages, 60))
