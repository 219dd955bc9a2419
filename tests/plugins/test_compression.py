"""Compression before swap: what goes to the pool, what it takes, what comes back, and its bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench import jit
from hvbench.build_memory import GuestMemory
from hvbench.kernel.pool import SIZES, class_of, frames_of
from hvbench.state.proxies import HostProxy
from hvbench.state.records_memory import ANON
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, compute, sleep, stack, touch

SWAP = ("overcommit", {"ratio_percent": 100_000})


def loops(pages: int = 300, passes: int = 10, write: bool = True) -> list[Any]:
    """A VM that writes its memory once, and reads it again and again."""
    again = [x for _ in range(passes) for x in (touch(0, 0, pages), compute(MS))]
    return [[touch(0, 0, pages, write=write), *again, sleep(1000 * SECOND)]]


def run(*layers: Any, program: Any = None, **more: Any) -> Any:
    """A VM that does not fit; where no layer takes memory, the kernel swaps by itself as a vCPU waits."""
    options = {"frames": 270, "host_swap_pages": 1000, "horizon_ns": SECOND, **more}
    return rig.run([program or loops()], [GuestMemory(400)], [[(ANON, 300)]], stack(*layers), **options)


@pytest.mark.parametrize(
    ("size", "held"), [(0, 0), (94, 16), (256, 16), (257, 15), (1024, 4), (1366, 2), (2048, 2), (2049, 1), (4096, 1)]
)
def test_a_frame_holds_as_many_pages_as_fit(size, held):
    assert class_of(size) == held


@given(st.integers(0, 500), st.integers(1, 16))
def test_frames_are_what_the_entries_need(entries, k):
    frames = frames_of(entries, k)
    assert (frames - 1) * k < entries <= frames * k


def test_pages_come_back_from_the_pool_without_the_disk():
    with_pool, without = run("compression"), run()
    vm, other = with_pool.tables["vmem"][0], without.tables["vmem"][0]
    assert vm["decompressed_pages"] > 0 and vm["compressed_pages"] >= vm["decompressed_pages"]
    # the guest gets on faster, and yet reads less from the disk
    assert vm["host_swap_in_pages"] < other["host_swap_in_pages"] and vm["stalled_ns"] < other["stalled_ns"]
    assert other["compressed_pages"] == 0 and without.tables["machine"]["pool_frames"][0] == 0


def test_zeros_take_no_frame():
    memory = run("compression", program=loops(write=False))
    machine = memory.tables["machine"][0]
    assert machine["pool_entries"] > 0 and machine["pool_frames"] == 0
    assert memory.tables["vmem"]["host_swap_out_pages"][0] == 0


def test_pages_that_compress_badly_go_to_the_swap_area():
    memory = run(("compression", {"max_bytes": 0}))
    own = memory.slots[3].own["own"]
    assert own["reject_compress_poor"][0] > 0 and memory.tables["vmem"]["compressed_pages"][0] == 0
    assert memory.tables["vmem"]["host_swap_out_pages"][0] > 0


def test_sizes_are_drawn_by_content_from_what_was_measured():
    from hvbench.policy import compressed_bytes, content

    memory = run("compression", horizon_ns=20 * MS, frames=400)
    proxy = HostProxy(memory, 3, HostProxy(memory, -1))
    sizes = [compressed_bytes(proxy, g) for g in range(300)]
    assert set(sizes) <= set(SIZES) and len(set(sizes)) > 20
    assert sizes == [compressed_bytes(proxy, g) for g in range(300)] and content(proxy, 0) != content(proxy, 1)
    # 1,410 bytes on average were measured
    assert sum(sizes) / 300 == pytest.approx(sum(SIZES) / 32, rel=0.1)


@pytest.mark.parametrize("percent", [2, 5, 20])
def test_the_pool_never_takes_more_than_its_share(percent):
    memory, loop = rig.host(
        [loops()], [GuestMemory(400)], [[(ANON, 300)]], stack(("compression", {"max_pool_percent": percent}), SWAP),
        frames=270, host_swap_pages=1000, horizon_ns=SECOND // 2,
    )  # fmt: skip
    most = 0
    while loop.run(25) == 0:
        most = max(most, int(memory.tables["machine"]["pool_frames"][0]))
    rig.conserved(memory)
    assert 0 < most <= 270 * percent // 100


def test_a_full_pool_writes_its_oldest_pages_out():
    memory = run(("compression", {"max_pool_percent": 3}))
    machine = memory.tables["machine"][0]
    assert memory.slots[3].own["own"]["pool_limit_hit"][0] > 0 and machine["pool_out_pages"] > 0
    vm = memory.tables["vmem"][0]
    # what went in came back, was written out (some came back while it was), or is there; nothing got lost
    assert vm["compressed_pages"] <= vm["decompressed_pages"] + machine["pool_entries"] + machine["pool_out_pages"]


def test_compressing_is_paid_for():
    memory = run("compression", horizon_ns=30 * MS)
    machine, vm = memory.tables["machine"][0], memory.tables["vmem"][0]
    reclaim = int(machine["reclaim_thread"])
    assert memory.tables["vcpu"]["ran_ns"][reclaim] >= vm["compressed_pages"] * 29_700
    assert memory.tables["vm"]["overhead_ns"][0] >= vm["decompressed_pages"] * 10_400


@settings(max_examples=8)
@given(frames=st.integers(150, 400), percent=st.integers(1, 60), bytes_=st.sampled_from([500, 2048, 4096]))
def test_memory_is_conserved(frames, percent, bytes_):
    layer = ("compression", {"max_pool_percent": percent, "max_bytes": bytes_})
    program = loops(passes=2)
    memory, loop = rig.host(
        [program] * 2, [GuestMemory(200)] * 2, [[(ANON, 300)]] * 2, stack(layer, "balloon", SWAP),
        frames=frames, host_swap_pages=500, horizon_ns=100 * MS, balance_ns=5 * MS,
    )  # fmt: skip
    while loop.run(200) == 0:
        rig.conserved(memory)
    assert int(memory.header["error"][0]) == 0, rig.error(memory)
    rig.conserved(memory)


def test_both_modes_agree(kernel):
    if jit.interpreted():
        pytest.skip("this process runs interpreted")
    found = [run("compression", horizon_ns=200 * MS, interpreted=mode) for mode in (True, False)]
    assert len({m.tables["page"].tobytes() for m in found}) == len({int(m.header["events"][0]) for m in found}) == 1
    assert found[0].tables["axis"]["digest"].tolist() == found[1].tables["axis"]["digest"].tolist()
