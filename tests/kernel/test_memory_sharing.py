"""Page sharing: what is equal, what is merged and taken apart again, at whose cost; and conservation
(Difference Engine, table 1)."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.build_memory import GuestMemory
from hvbench.jit import interpreted
from hvbench.policy import hookimpl
from hvbench.state.records_memory import ANON, OWN, P_SHARED
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, op, sleep, stack, touch

FAST = ("page-sharing", {"scan_pages": 500, "period_ns": MS})


def identities(memory, o=0):
    from hvbench.kernel.page_lists import page_identity
    from hvbench.state.proxies import HostProxy

    x = memory.tables["object"][o]
    at = memory.tables["mapping"]["at"][int(x["first"]) : int(x["first"] + x["pages"])]
    proxy = HostProxy(memory, -1)
    return [page_identity(proxy, int(a) - 1) if a > 0 else None for a in at]


def contents(values, common=True):
    return [op("content", 0, p, c, COMMON if common else 0) for p, c in enumerate(values)]


def test_identities_of_private_contents_differ_between_vms_and_common_ones_do_not():
    def ids(common):
        program = [[touch(0, 0, 3, write=True), *contents([11, 12, 0], common), sleep(1000 * SECOND)]]
        memory = rig.run([program] * 2, [GuestMemory(100)] * 2, [[(ANON, 3)]] * 2, horizon_ns=MS)
        return identities(memory, 0), identities(memory, 1)

    a, b = ids(common=True)
    assert a == b == [11, 12, 0]
    a, b = ids(common=False)
    assert not set(a[:2]) & set(b[:2]) and a[2] == b[2] == 0


def test_a_write_gives_a_page_contents_of_its_own_until_the_next_recorded_ones():
    ops = [touch(0, 0, 2, write=True), *contents([7, 7]), touch(0, 0, 1, write=True), sleep(SECOND), *contents([7])]
    memory, loop = rig.host([[[*ops, sleep(1000 * SECOND)]]], [GuestMemory(100)], [[(ANON, 2)]], horizon_ns=2 * SECOND)
    while memory.header["now"][0] < SECOND // 2 and loop.run(1) == 0:
        pass
    first, second = identities(memory)
    assert first != second == 7
    while loop.run(100) == 0:
        pass
    assert identities(memory) == [7, 7]


def test_a_first_touch_that_only_reads_finds_zeros():
    memory = rig.run([[[touch(0, 0, 2), sleep(1000 * SECOND)]]], [GuestMemory(100)], [[(ANON, 3)]], horizon_ns=MS)
    assert identities(memory) == [0, 0, None]


def test_files_of_the_base_image_are_equal_in_all_vms_and_own_files_are_not():
    def ids(kind):
        program = [[op("fread", 0, 0, 5), sleep(1000 * SECOND)]]
        memory = rig.run([program] * 2, [GuestMemory(100)] * 2, [[(kind, 5)]] * 2, horizon_ns=SECOND)
        return identities(memory, 0), identities(memory, 1)

    a, b = ids(1)
    assert a == b and len(set(a)) == 5
    a, b = ids(OWN)
    assert not set(a) & set(b)


def test_equal_pages_are_merged_and_counted():
    program = [[touch(0, 0, 30, write=True), *contents([5] * 10 + list(range(100, 120))), sleep(1000 * SECOND)]]
    memory = rig.run([program] * 3, [GuestMemory(200)] * 3, [[(ANON, 30)]] * 3, stack(FAST), horizon_ns=300 * MS)
    # one frame for content 5, twenty for the others
    assert memory.tables["vmem"]["resident"].sum() == 90
    assert memory.tables["machine"]["saved"][0] == 90 - 21
    assert (memory.tables["vmem"]["shared"] == 30).all()
    assert memory.tables["vmem"]["merges"].sum() == 90 - 21


def test_a_write_takes_a_shared_page_apart_and_costs():
    program = [
        [
            touch(0, 0, 20, write=True),
            *contents([9] * 20),
            sleep(100 * MS),
            touch(0, 3, 4, write=True),
            sleep(1000 * SECOND),
        ]
    ]
    memory = rig.run([program], [GuestMemory(200)], [[(ANON, 20)]], stack(FAST), horizon_ns=300 * MS)
    vm = memory.tables["vmem"][0]
    assert vm["cow_breaks"] == 4
    assert memory.tables["machine"]["saved"][0] == 20 - 1 - 4
    assert memory.tables["vm"]["overhead_ns"][0] >= 4 * 25_100


def test_reading_a_shared_page_leaves_it_shared():
    program = [
        [touch(0, 0, 20, write=True), *contents([9] * 20), sleep(100 * MS), touch(0, 0, 20), sleep(1000 * SECOND)]
    ]
    memory = rig.run([program], [GuestMemory(200)], [[(ANON, 20)]], stack(FAST), horizon_ns=300 * MS)
    assert memory.tables["vmem"]["cow_breaks"][0] == 0 and memory.tables["machine"]["saved"][0] == 19


def test_pages_without_a_frame_are_never_counted_as_shared():
    memory = rig.run(
        [[[sleep(1000 * SECOND)]]] * 2, [GuestMemory(500)] * 2, [[(ANON, 400)]] * 2, stack(FAST), horizon_ns=300 * MS
    )
    assert memory.tables["vmem"]["shared"].sum() == 0 and memory.tables["machine"]["saved"][0] == 0


def test_pinned_memory_is_not_shared():
    program = [[touch(0, 0, 20), sleep(1000 * SECOND)]]
    vms = [GuestMemory(200, pinned=True), GuestMemory(200)]
    memory = rig.run([program] * 2, vms, [[(ANON, 20)]] * 2, stack(FAST), horizon_ns=300 * MS)
    assert list(memory.tables["vmem"]["shared"]) == [0, 20]


def test_a_layer_may_forbid_a_merge():
    import types

    module = types.ModuleType("forbids")
    module.mem_share_merge = hookimpl(lambda host, page, other, now: 0)
    program = [[touch(0, 0, 20), sleep(1000 * SECOND)]]
    memory = rig.run([program], [GuestMemory(200)], [[(ANON, 20)]], stack(FAST, module), horizon_ns=300 * MS)
    assert memory.tables["machine"]["saved"][0] == 0


def test_scanning_is_paid_for_by_the_scan_thread_and_bounds_its_rate():
    """100 pages every 20 ms: in one second 5,000 looks, and their CPU time on the scan thread."""
    program = [[touch(0, 0, 2000, write=True), sleep(1000 * SECOND)]]
    memory = rig.run(
        [program], [GuestMemory(4000)], [[(ANON, 2000)]], stack("page-sharing"), horizon_ns=SECOND + 10 * MS
    )
    thread = int(memory.tables["machine"]["scan_thread"][0])
    assert abs(int(memory.tables["vcpu"]["ran_ns"][thread]) - 50 * 100 * 1000) <= 100 * 1000
    # two rounds over the 2,000 pages that have a frame, and half of a third
    assert memory.slots[3].own["own"]["passes"][0] == 2


def test_a_merged_page_that_its_guest_frees_keeps_its_frame_until_it_is_used_again():
    ops = [touch(0, 0, 10), sleep(100 * MS), op("free", 0, 0, 5), sleep(100 * MS), touch(0, 0, 5, write=True)]
    memory = rig.run(
        [[[*ops, sleep(1000 * SECOND)]]], [GuestMemory(100)], [[(ANON, 10)]], stack(FAST), horizon_ns=300 * MS
    )
    assert memory.tables["machine"]["saved"][0] == 4
    assert ((memory.tables["page"]["flags"] & P_SHARED) != 0).sum() == 5


# Difference Engine (Gupta et al., OSDI 2008), table 1 -----------------------------------------------------------

TOTAL, ZERO, SHARABLE, CLASSES = 393_120, 149_038, 52_436, 3_577


def scenario():
    """Three VMs' pages: zero pages, pages of a few common classes, and pages that are like no other."""
    values = np.zeros(TOTAL, np.int64)
    values[ZERO : ZERO + SHARABLE] = 1_000_000 + np.arange(SHARABLE) % CLASSES
    values[ZERO + SHARABLE :] = 10_000_000 + np.arange(TOTAL - ZERO - SHARABLE)
    return np.random.default_rng(5).permutation(values)


@pytest.mark.skipif(interpreted(), reason="393,120 pages take minutes interpreted")
def test_a_complete_scan_leaves_one_frame_a_content(kernel):
    values = scenario()
    size = TOTAL // 3
    programs = []
    for m in range(3):
        mine = values[m * size : (m + 1) * size]
        programs.append(
            [
                [
                    touch(0, 0, size),
                    *[op("content", 0, p, int(c), COMMON) for p, c in enumerate(mine)],
                    sleep(1000 * SECOND),
                ]
            ]
        )
    memory = rig.run(
        programs,
        [GuestMemory(size + 20_000)] * 3,
        [[(ANON, size)]] * 3,
        stack(("page-sharing", {"scan_pages": 2000, "period_ns": MS})),
        frames=TOTAL + 20_000,
        horizon_ns=60 * SECOND,
        interpreted=False,
        vm_overhead_pages=0,
        overhead_ppm=0,
        hypervisor_pages=1,
        free_states_ppm=(0, 0, 0, 0),
    )
    machine = memory.tables["machine"][0]
    assert int(machine["frames"] - machine["hypervisor"] - machine["free"]) == 195_224
    assert memory.tables["vmem"]["resident"].sum() == TOTAL
