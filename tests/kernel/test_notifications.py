"""Hooks that only tell, and prices: they are called as often as the thing happens, with what it happened to."""

from __future__ import annotations

import types
from collections import Counter
from typing import Any

from hvbench.build_io import IoSpec
from hvbench.build_memory import GuestMemory
from hvbench.policy import hookimpl
from hvbench.state.records_memory import ANON
from tests.io_hosts import T, chosen, forever, module_of, read, run, sleep, spec_of, write
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, compute, op, stack, touch


def layer(**hooks: Any) -> types.ModuleType:
    """A layer of a memory stack, made of functions."""
    module = types.ModuleType("made")
    module.__dict__.update({name: hookimpl(function) for name, function in hooks.items()})
    for function in hooks.values():
        function.__module__ = "made"
    return module


def test_a_medium_tells_of_every_request_that_it_has_served() -> None:
    started: list[int] = []
    served: list[tuple[int, int]] = []
    inserted: list[int] = []

    def blk_init(host: Any, now: int) -> None:
        started.append(now)

    def blk_insert(host: Any, request: int, dev: int, now: int) -> None:
        inserted.append(request)

    def blk_complete(host: Any, request: int, dev: int, now: int) -> None:
        assert inserted.count(request) > sum(1 for r, _ in served if r == request)
        served.append((request, now))

    threads = [T(0, (sleep(1 + k), read(100 * k), write(7_000 + 100 * k), forever())) for k in range(3)]
    policy = module_of("storage", blk_init=blk_init, blk_insert=blk_insert, blk_complete=blk_complete)
    memory = run(spec_of([threads], IoSpec(), vcpus=3), [chosen(1, "made", policy)])
    assert started == [0]
    assert len(served) == 6 == len(inserted)
    requests = memory.tables["vm_io"]
    assert int(requests["disk_read_requests"][0]) == 3
    assert [now for _, now in served] == sorted(now for _, now in served)


LOOP = [touch(0, page, 10, write=True) for page in range(0, 300, 10)]
LOOP = [step for pair in zip(LOOP, [compute(MS)] * len(LOOP), strict=True) for step in pair]

TIGHT = ("overcommit", {"ratio_percent": 1000})


def test_faults_are_told_with_their_kind() -> None:
    seen: Counter[tuple[int, int]] = Counter()

    def mem_fault(host: Any, vm: int, page: int, kind: int, now: int) -> None:
        seen[vm, kind] += 1

    memory = rig.run(
        [[LOOP]] * 2,
        [GuestMemory(400)] * 2,
        [[(ANON, 300)]] * 2,
        stack(TIGHT, layer(mem_fault=mem_fault)),
        frames=500,
        host_swap_pages=2000,
        horizon_ns=SECOND,
    )
    came_back = memory.tables["vmem"]["host_swap_in_pages"]
    assert sum(came_back) > 0
    for vm in range(2):
        assert seen[vm, 0] >= 300, "every page was touched for the first time"
        assert 0 < seen[vm, 1] <= int(came_back[vm])
    assert {kind for _, kind in seen} == {0, 1}


def test_memory_is_taken_from_whoever_pays_least() -> None:
    def taken(cheap: int) -> list[int]:
        def mem_idle_price(host: Any, vm: int, now: int) -> int:
            return 1 if vm == cheap else 1000

        memory = rig.run(
            [[LOOP]] * 2,
            [GuestMemory(400)] * 2,
            [[(ANON, 300)]] * 2,
            stack(TIGHT, layer(mem_idle_price=mem_idle_price)),
            frames=500,
            host_swap_pages=2000,
            horizon_ns=SECOND,
        )
        return [int(n) for n in memory.tables["vmem"]["host_swap_out_pages"]]

    first, second = taken(0), taken(1)
    assert first[0] > 2 * first[1] and second[1] > 2 * second[0]


def test_a_write_to_a_shared_page_is_told_with_its_old_frame() -> None:
    told: list[tuple[int, int, int]] = []

    def mem_cow_break(host: Any, vm: int, page: int, frame: int, now: int) -> None:
        told.append((vm, page, frame))

    same = [op("content", 0, page, 9, COMMON) for page in range(20)]
    writes = [touch(0, 0, 20, write=True), *same, rig.sleep(100 * MS), touch(0, 3, 4, write=True)]
    program = [[*writes, rig.sleep(1000 * SECOND)]]
    sharing = ("page-sharing", rig.FAST_SCAN)
    layers = stack(sharing, layer(mem_cow_break=mem_cow_break))
    memory = rig.run([program], [GuestMemory(200)], [[(ANON, 20)]], layers, horizon_ns=300 * MS)
    assert len(told) == 4 == memory.tables["vmem"]["cow_breaks"][0]
    assert len({page for _, page, _ in told}) == 4
    assert len({frame for _, _, frame in told}) == 1, "they shared one frame"
