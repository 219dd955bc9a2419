"""2 MiB backing: what gives it, what splits it and who pays, what it does to page walks, how a policy sees it."""

from __future__ import annotations

import types

import pytest

from hvbench.build_memory import GuestMemory
from hvbench.plan import make_plan, memory_spec
from hvbench.policy import BY_PAGE, hookimpl, in_large, reclaim, set_timer
from hvbench.simulate import HostCosts
from hvbench.state.records_memory import ANON
from hvbench.workload import bundled_folder, parse_workload
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, compute, op, sleep, stack, touch
from tests.kernel.test_memory_host import image

EXTENT = 512
FOREVER = sleep(1000 * SECOND)


def made(**hooks):
    module = types.ModuleType("made")
    for name, function in hooks.items():
        function.__module__ = "made"
        setattr(module, name, hookimpl(function))
    return module


def swap_one(page, at_ns):
    """A policy that swaps one guest page out at a stated time."""

    def mem_init(host, now):
        set_timer(host, 0, at_ns)

    def mem_timer(host, timer, now):
        reclaim(host, -1, BY_PAGE, page)

    return made(mem_init=mem_init, mem_timer=mem_timer)


@pytest.mark.parametrize("swapped", [False, True])
def test_page_walks_follow_the_share_of_large_mappings_while_the_vm_runs(swapped):
    """Two extents, 240 us of compute over them; then a page of one goes to the swap, and 240 us more."""

    def overhead(ppm):
        work = [compute(200_000), op("compute", -1, 0, 40_000)]
        ops = [touch(0, 0, 600, write=True), *work, sleep(20 * MS), *work, FOREVER]
        memory = rig.run(
            [[ops]],
            [GuestMemory(2 * EXTENT)],
            [[(ANON, 2 * EXTENT)]],
            stack(swap_one(700, 10 * MS)) if swapped else [],
            cpu={"user_factor_ppm": ppm, "kernel_factor_ppm": ppm, "nested_walk": 1},
            frames=16_384,
            host_swap_pages=100,
            horizon_ns=100 * MS,
            large_backing=True,
        )
        vm = memory.tables["vmem"][0]
        assert vm["large"] == (1 if swapped else 2) and vm["extents_split_swap"] == swapped
        return int(memory.tables["vm"]["overhead_ns"][0])

    # a walk over 2 MiB takes 19 of 24 references: 5/24 of 120,000 ppm less
    both = 120_000 - 120_000 * 5 * 2 * EXTENT // (24 * 2 * EXTENT)
    one = 120_000 - 120_000 * 5 * EXTENT // (24 * (2 * EXTENT - 1))
    expected = 240_000 * both // 1_000_000 + 240_000 * (one if swapped else both) // 1_000_000
    assert abs(overhead(120_000) - overhead(0) - expected) <= 2


def test_a_split_is_paid_by_the_thread_that_swaps():
    def reclaim_ns(large_backing):
        ops = [touch(0, 0, 600, write=True), FOREVER]
        memory = rig.run(
            [[ops]],
            [GuestMemory(2 * EXTENT)],
            [[(ANON, 2 * EXTENT)]],
            stack(swap_one(100, 10 * MS)),
            frames=16_384,
            host_swap_pages=100,
            horizon_ns=100 * MS,
            large_backing=large_backing,
        )
        assert memory.tables["vmem"]["host_swap_out_pages"][0] == 1
        thread = int(memory.tables["machine"]["reclaim_thread"][0])
        return int(memory.tables["vcpu"]["ran_ns"][thread]), int(memory.tables["machine"]["split_ns"][0])

    (large_ns, split_ns), (small_ns, _) = reclaim_ns(True), reclaim_ns(False)
    assert large_ns - small_ns == split_ns > 0


def test_a_vm_starts_on_large_mappings_where_its_image_was_read_in():
    for frames, mappings, resident in ((8192, 1, EXTENT), (530, 0, 100)):
        vms = [GuestMemory(2 * EXTENT, image=image())]
        memory, _ = rig.host([[[FOREVER]]], vms, [[]], frames=frames, large_backing=True)
        rig.conserved(memory)
        vm = memory.tables["vmem"][0]
        assert vm["large"] == mappings and vm["resident"] == resident


def test_the_last_part_of_a_vm_that_is_no_whole_extent_is_backed_by_4_kib():
    ops = [touch(0, 0, 700, write=True), FOREVER]
    memory = rig.run([[ops]], [GuestMemory(800)], [[(ANON, 700)]], frames=8192, large_backing=True, horizon_ns=SECOND)
    vm = memory.tables["vmem"][0]
    assert vm["large"] == 1 and vm["resident"] == 700


@pytest.mark.parametrize(("clear_frames", "merged"), [(0, False), (1 << 20, True)])
def test_a_policy_can_share_large_pages_only_while_memory_is_scarce(clear_frames, merged):
    """As ESX does: below its state `clear`."""

    def mem_share_merge(host, page, other):
        if host.machine[0].free >= clear_frames and (in_large(host, page) or in_large(host, other)):
            return 0
        return 1

    ops = [touch(0, 0, 40, write=True), *[op("content", 0, p, 7 + p, COMMON) for p in range(40)], FOREVER]
    memory = rig.run(
        [[ops]] * 2,
        [GuestMemory(EXTENT)] * 2,
        [[(ANON, 40)]] * 2,
        stack(("page-sharing", rig.FAST_SCAN), made(mem_share_merge=mem_share_merge)),
        frames=16_384,
        horizon_ns=20 * MS,
        large_backing=True,
    )
    vmem = memory.tables["vmem"]
    assert (vmem["merges"].sum() >= 40) == merged
    assert vmem["extents_split_share"].tolist() == ([1, 1] if merged else [0, 0])
    assert vmem["large"].tolist() == ([0, 0] if merged else [1, 1])


def test_a_workload_states_the_backing_of_its_host_and_of_each_vm():
    path = bundled_folder() / "tight-batch.toml"
    text = path.read_text()

    def backing(host, *vms):
        changed = text.replace("[host]", f'[host]\nbacking = "{host}"', 1)
        for word in vms:
            changed = changed.replace("\n[[vm]]\nname", f'\n[[vm]]\nbacking = "{word}"\nname', 1)
        plan = make_plan(parse_workload(changed, path), 1)
        spec = memory_spec(plan, plan.groups, HostCosts())
        return spec.large_backing, {x.large_backing for x in spec.vms}

    assert backing("4KiB") == (False, {None})
    assert backing("2MiB") == (True, {None})
    assert True in backing("4KiB", "2MiB")[1]
    with pytest.raises(Exception, match=r"backing.*4KiB, 2MiB"):
        backing("1GiB")


def test_a_vm_s_own_backing_counts_more_than_the_host_s():
    ops = [touch(0, 0, 3, write=True), FOREVER]
    guests = [GuestMemory(EXTENT, large_backing=True), GuestMemory(EXTENT), GuestMemory(EXTENT, large_backing=False)]
    for host, expected in ((False, [1, 0, 0]), (True, [1, 1, 0])):
        memory = rig.run([[ops]] * 3, guests, [[(ANON, 10)]] * 3, frames=8192, large_backing=host, horizon_ns=SECOND)
        assert memory.tables["vmem"]["large"].tolist() == expected
