"""Laws of the memory side, on random recordings under random legal stacks; and compiled against interpreted."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.build_memory import GuestMemory
from hvbench.policy import (
    BY_BALLOON,
    BY_PAGE,
    BY_SWAP,
    hookimpl,
    merge,
    random_below,
    random_page,
    reclaim,
    scan,
    set_timer,
    swappable,
)
from hvbench.state.records_memory import ANON, IMAGE, OWN
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, WRITE, compute, op, sleep, stack, touch

PAGES = 40
OBJECTS = [(ANON, PAGES), (IMAGE, PAGES), (OWN, PAGES)]


@st.composite
def operations(draw: Any) -> list[tuple[int, int, int, int, int]]:
    """Some operations on three objects, that take some time."""
    ops = []
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(
            st.sampled_from(
                ["touch", "touch", "mtouch", "fread", "fwrite", "fsync", "free", "content", "sleep", "exit"]
            )
        )
        page = draw(st.integers(0, PAGES - 1))
        pages = draw(st.integers(1, PAGES - page))
        write = WRITE if draw(st.booleans()) else 0
        if kind in ("touch", "free"):
            ops.append(op(kind, 0, page, pages, write if kind == "touch" else 0))
        elif kind in ("mtouch", "fread", "fwrite"):
            ops.append(op(kind, draw(st.integers(1, 2)), page, pages, write if kind == "mtouch" else 0))
        elif kind == "fsync":
            ops.append(op("fsync", draw(st.integers(1, 2))))
        elif kind == "content":
            common = COMMON if draw(st.booleans()) else 0
            ops.append(op("content", draw(st.integers(0, 2)), page, draw(st.integers(0, 3)), common))
        elif kind == "sleep":
            ops.append(sleep(draw(st.integers(1, MS))))
        else:
            ops.append(op("exit"))
    ops.append(compute(draw(st.integers(10_000, MS))))
    return ops


def wild(seed: int) -> Any:
    """A policy that does legal things at random, all the time."""

    def mem_init(host: Any, now: int) -> None:
        set_timer(host, 0, now + 1)

    def mem_timer(host: Any, timer: int, now: int) -> None:
        set_timer(host, 0, now + 1 + random_below(host, MS))
        vm = random_below(host, host.vms + 1) - 1
        what = random_below(host, 4)
        if what == 0:
            reclaim(host, vm, BY_SWAP, random_below(host, 50))
        elif what == 1:
            reclaim(host, vm, BY_BALLOON, random_below(host, 50))
        elif what == 2 and vm >= 0:
            g = random_page(host, vm)
            if g >= 0 and swappable(host, g):
                reclaim(host, vm, BY_PAGE, g)
        else:
            scan(host, random_below(host, 30))

    def mem_share_scan(host: Any, pages: int) -> None:
        for _ in range(pages):
            merge(host, random_below(host, len(host.page)), random_below(host, len(host.page)))

    def mem_balloon_target(host: Any, vm: int) -> int:
        return random_below(host, host.vmem[vm].pages + 2) - 1

    def mem_reclaim(host: Any, pages: int) -> int:
        return random_below(host, pages + 1)

    def mem_pick_victim(host: Any, vm: int) -> int:
        g = random_page(host, vm)
        return g if g >= 0 and swappable(host, g) else -1

    def mem_idle_price(host: Any, vm: int) -> int:
        return random_below(host, 3) - 1

    def mem_share_merge(host: Any) -> int:
        return 1 if random_below(host, 4) else 0

    module = types.ModuleType(f"wild{seed}")
    for function in (
        mem_init, mem_timer, mem_share_scan, mem_balloon_target,
        mem_reclaim, mem_pick_victim, mem_idle_price, mem_share_merge,
    ):  # fmt: skip
        function.__module__ = module.__name__
        setattr(module, function.__name__, hookimpl(function))
    return module


SHARING = ("page-sharing", rig.FAST_SCAN)
SWAP = ("overcommit", {"ratio_percent": 10_000, "batch_pages": 40})
KSM = ("ksm", {"pages_to_scan": 60, "sleep_millisecs": 1, "max_page_sharing": 5, "use_zero_pages": True})
STACKS = [
    (), (SWAP,), (KSM, SWAP), (SHARING, KSM, "balloon", SWAP), ("balloon", SWAP), (SHARING, SWAP),
    (SHARING, "balloon", SWAP), ("mru-swap",), "wild", "wild+",
]  # fmt: skip


def layers(choice: Any) -> list[Any]:
    if choice == "wild":
        return stack(wild(1))
    if choice == "wild+":
        return stack(SHARING, wild(1), "balloon", wild(2), SWAP)
    return stack(*choice)


@settings(max_examples=25)
@given(
    data=st.data(),
    choice=st.sampled_from(STACKS),
    replacement=st.sampled_from(["linux", "lru", "clock", "fifo"]),
    frames=st.integers(90, 320),
    guest_pages=st.integers(70, 160),
    swap_pages=st.sampled_from([0, 30, 500]),
    large=st.booleans(),
)
def test_memory_is_conserved(data, choice, replacement, frames, guest_pages, swap_pages, large):
    programs = [[data.draw(operations()) for _ in range(data.draw(st.integers(1, 2)))] for _ in range(2)]
    memory, loop = rig.host(
        programs,
        [GuestMemory(guest_pages, replacement=replacement, swap_pages=swap_pages)] * 2,
        [OBJECTS] * 2,
        layers(choice),
        frames=frames,
        host_swap_pages=data.draw(st.sampled_from([20, 600])),
        horizon_ns=30 * MS,
        balance_ns=5 * MS,
        flush_ns=7 * MS,
        large_backing=large,
        seed=data.draw(st.integers(0, 5)),
    )
    while loop.run(40) == 0:
        rig.conserved(memory)
    # nothing that the policies did is illegal, so the cell ended at its horizon
    assert int(memory.header["error"][0]) == 0, rig.error(memory)
    rig.conserved(memory)
    assert int(memory.header["now"][0]) == 30 * MS
    vmem = memory.tables["vmem"]
    page = memory.tables["page"]
    # swap balance, from the beginning: what went out came in again, was given to the balloon, or is out there
    assert (vmem["host_swap_in_pages"] + vmem["swapped"] <= vmem["host_swap_out_pages"]).all()
    assert (page["frame"] != 0).sum() == vmem["resident"].sum() + vmem["swapped"].sum()


def busy(interpreted: bool) -> tuple[Any, ...]:
    ops = [
        touch(0, 0, 40, write=True),
        *[op("content", 0, p, p % 5, COMMON) for p in range(30)],
        op("fread", 1, 0, 40),
        compute(MS),
        op("fwrite", 2, 0, 30),
        op("mtouch", 1, 3, 9, WRITE),
        op("fsync", 2),
        sleep(3 * MS),
        touch(0, 10, 20, write=True),
        op("free", 0, 5, 10),
    ]
    memory = rig.run(
        [[ops, ops[3:]], [ops], [ops]],
        [GuestMemory(120, swap_pages=100), GuestMemory(100, replacement="lru"), GuestMemory(100, replacement="clock")],
        [OBJECTS] * 3,
        stack(SHARING, "balloon", SWAP),
        frames=220,
        host_swap_pages=600,
        horizon_ns=200 * MS,
        balance_ns=10 * MS,
        flush_ns=20 * MS,
        interpreted=interpreted,
    )
    assert memory.tables["vmem"]["merges"].sum() > 0 and memory.tables["vmem"]["host_swap_in_pages"].sum() > 0
    return (
        int(memory.header["events"][0]),
        memory.tables["axis"]["digest"].tolist(),
        *(
            memory.tables[name].tobytes()
            for name in ("page", "mapping", "page_frame", "vmem", "machine", "object", "page_list")
        ),
    )


def test_interpreted_twice_is_the_same():
    assert busy(True) == busy(True)


def test_compiled_is_the_same_as_interpreted(kernel):
    pytest.importorskip("numba")
    from hvbench.jit import interpreted

    if interpreted():
        pytest.skip("this process runs interpreted")
    assert busy(False) == busy(True)


@settings(max_examples=8)
@given(
    data=st.data(),
    choice=st.sampled_from(STACKS),
    replacement=st.sampled_from(["linux", "lru", "clock", "fifo"]),
    frames=st.integers(1200, 3000),
    guest_pages=st.integers(600, 1500),
)
def test_memory_is_conserved_over_2_mib_backing(data, choice, replacement, frames, guest_pages):
    """Also that what a 2 MiB mapping covers is in memory as a whole and nobody else's (memory_rig.conserved)."""
    programs = [[data.draw(operations()) for _ in range(data.draw(st.integers(1, 2)))] for _ in range(2)]
    first = [touch(0, 0, PAGES, write=True), op("fread", 1, 0, PAGES)]
    memory, loop = rig.host(
        [[[*first, *ops] for ops in threads] for threads in programs],
        [GuestMemory(guest_pages, replacement=replacement, swap_pages=200)] * 2,
        [OBJECTS] * 2,
        layers(choice),
        frames=frames,
        host_swap_pages=2000,
        horizon_ns=12 * MS,
        balance_ns=4 * MS,
        flush_ns=7 * MS,
        large_backing=True,
        seed=data.draw(st.integers(0, 5)),
    )
    while loop.run(40) == 0:
        rig.conserved(memory)
    assert int(memory.header["error"][0]) == 0, rig.error(memory)
    rig.conserved(memory)
