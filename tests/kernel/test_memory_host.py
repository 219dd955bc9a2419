"""The hypervisor: admission, faults, its swap, free-memory states, balloons, 2 MiB backing, legal answers."""

from __future__ import annotations

import types

import pytest

from hvbench.build_memory import BaseImage, GuestMemory, MemoryObject, refusal
from hvbench.jit import interpreted
from hvbench.kernel.guards import E_PAGE_STATE, E_RANGE, E_REFUSED, E_TARGET, E_VM_RANGE
from hvbench.kernel.host_memory import set_state
from hvbench.kernel.memory_requests import set_thresholds
from hvbench.policy import (
    BY_BALLOON,
    BY_PAGE,
    BY_SWAP,
    FREE_HARD,
    FREE_HIGH,
    FREE_LOW,
    FREE_SOFT,
    TOUCH_FIRST,
    TOUCH_WATCHED,
    hookimpl,
    reclaim,
    set_balloon_driver,
    set_free_states,
    set_timer,
    swappable,
    watch,
)
from hvbench.state.proxies import HostProxy
from hvbench.state.records import T_KILLED
from hvbench.state.records_memory import ANON, FREE_STATES, OWN, P_KERNEL, P_WATCHED
from hvbench.testing.laws_cpu import consistent
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, compute, op, sleep, stack, touch

GIB = 1 << 18


def made(**hooks):
    """A policy from functions."""
    module = types.ModuleType("made")
    module.__dict__.update({name: hookimpl(function) for name, function in hooks.items()})
    for function in hooks.values():
        function.__module__ = "made"
    return module


def idle():
    return [[sleep(1000 * SECOND)]]


# admission ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(interpreted(), reason="1.8 million pages take minutes interpreted")
def test_three_8_gib_vms_start_on_16_gib_under_overcommit_and_are_refused_under_static(kernel):
    """Each uses 2 to 2.5 GiB, all of it touched: overcommit has room for that, static counts what is configured."""
    vms = [GuestMemory(8 * GIB)] * 3
    used = [2 * GIB, 9 * GIB // 4, 5 * GIB // 2]
    touches = [[[touch(0, 0, pages, write=True), sleep(1000 * SECOND)]] for pages in used]
    options = {
        "objects": [[(ANON, pages)] for pages in used],
        "frames": 16 * GIB,
        "hypervisor_pages": 32_768,
        "host_swap_pages": 1024,
        "interpreted": False,
        "horizon_ns": 60 * SECOND,
        "check": False,
    }
    memory = rig.run(touches, vms, layers=stack("overcommit"), **options)
    assert memory.header["error"][0] == 0
    assert memory.tables["vmem"]["resident"].tolist() == used
    assert memory.tables["vmem"]["host_swap_out_pages"].sum() == 0
    memory = rig.run(touches, vms, layers=stack("static"), **options)
    assert memory.header["error"][0] == E_REFUSED
    # two fit beside the hypervisor: 16384 - 128 - 2 * (8192 + 16.02) is less than nothing
    assert memory.header["error_extra"][0] == 1
    reason = refusal(memory, ["a", "b", "c"])
    assert "static" in reason and "VM b" in reason and "MiB" in reason


@pytest.mark.parametrize("order", [("static", "overcommit"), ("overcommit", "static")])
def test_a_stack_admits_only_what_all_its_layers_admit(order):
    memory = rig.run([idle()] * 2, [GuestMemory(1000)] * 2, [[(ANON, 10)]] * 2, stack(*order), check=False, frames=1500)
    assert memory.header["error"][0] == E_REFUSED
    assert "static" in refusal(memory, ["a", "b"])


def test_reservations_must_fit_whatever_the_ratio():
    layers = stack(("overcommit", {"ratio_percent": 1000}))
    vms = [GuestMemory(1000, reservation_pages=900)] * 2
    memory = rig.run([idle()] * 2, vms, [[(ANON, 10)]] * 2, layers, check=False, frames=1500)
    assert memory.header["error"][0] == E_REFUSED and memory.header["error_extra"][0] == 1


# faults and swap ------------------------------------------------------------------------------------------------

TIGHT = ("overcommit", {"ratio_percent": 1000})
LOOP = [touch(0, 0, 300, write=True), compute(2 * MS)]


def test_what_does_not_fit_goes_to_the_host_s_swap_and_comes_back():
    memory = rig.run(
        [[LOOP]] * 2,
        [GuestMemory(400)] * 2,
        [[(ANON, 300)]] * 2,
        stack(TIGHT),
        frames=500,
        host_swap_pages=2000,
        horizon_ns=SECOND,
    )
    vmem = memory.tables["vmem"]
    assert (vmem["host_swap_out_pages"] > 100).all() and (vmem["host_swap_in_pages"] > 50).all()
    # what came in had gone out, and what went out came in, or is out there, or was on its way and was used again
    assert (vmem["host_swap_in_pages"] <= vmem["host_swap_out_pages"]).all()
    assert (vmem["stalled_ns"] > 0).all()
    assert (memory.tables["group"]["loops"] > 3).all()


def test_a_host_fault_blocks_the_vcpu_a_guest_fault_only_the_thread():
    """A second thread of the VM computes: it gets on while the first waits for its disk, and not while the
    vCPU is blocked."""

    def progress(guest, **options):
        waiting = [touch(0, p, 1, write=True) for _ in range(3) for p in range(150)] + [sleep(1000 * SECOND)]
        memory = rig.run(
            [[waiting, [compute(10 * MS)] * 100]], [guest], [[(ANON, 150)]], horizon_ns=300 * MS, **options
        )
        return memory.tables["vm"]["work_done_ns"][0], memory.tables["vmem"][0]

    guest_work, vm = progress(GuestMemory(100, swap_pages=500, readahead_pages=0), frames=2000)
    assert vm["guest_swap_in_pages"] > 100 and vm["stalled_ns"] == 0
    host_work, vm = progress(GuestMemory(400), frames=120, host_swap_pages=500, layers=stack(TIGHT))
    assert vm["host_swap_in_pages"] > 100 and vm["stalled_ns"] > 0
    assert host_work < guest_work


def test_double_paging_is_counted():
    guest = GuestMemory(100, swap_pages=1000)
    memory = rig.run(
        [[[touch(0, 0, 90, write=True), compute(50 * MS), touch(0, 90, 80, write=True), compute(MS)]]],
        [guest],
        [[(ANON, 300)]],
        stack(TIGHT),
        frames=75,
        host_swap_pages=1000,
        horizon_ns=SECOND,
    )
    assert memory.tables["vmem"]["double_paging_pages"][0] > 0


def test_a_host_that_has_neither_swap_nor_policy_stalls_and_says_so():
    memory, loop = rig.host([[LOOP]], [GuestMemory(400)], [[(ANON, 300)]], frames=200, horizon_ns=SECOND)
    while loop.run(1000) == 0:
        pass
    assert memory.tables["machine"]["waiters"][0] == 1
    assert memory.tables["group"]["loops"][0] == 0


def test_pinned_memory_is_never_taken():
    memory = rig.run(
        [[LOOP]] * 2,
        [GuestMemory(400, pinned=True), GuestMemory(400)],
        [[(ANON, 300)]] * 2,
        stack("balloon", ("overcommit", {"ratio_percent": 300})),
        frames=450,
        host_swap_pages=2000,
        horizon_ns=SECOND,
    )
    pinned, other = memory.tables["vmem"]
    assert pinned["host_swap_out_pages"] == pinned["ballooned"] == 0
    assert other["host_swap_out_pages"] + other["ballooned"] > 0


def test_overhead_grows_with_what_is_mapped():
    memory = rig.run(
        [[[touch(0, 0, 2000, write=True), sleep(1000 * SECOND)]]],
        [GuestMemory(3000)],
        [[(ANON, 2000)]],
        overhead_ppm=10_000,
    )
    assert memory.tables["vmem"]["overhead"][0] == 4 + 20


# free memory ----------------------------------------------------------------------------------------------------


def test_states_get_worse_at_once_and_better_later():
    log = []

    def mem_reclaim(host, pages, state, now):
        log.append((state, int(host.machine[0].free)))
        return 0

    def mem_init(host, now):
        set_free_states(host, 400_000, 300_000, 200_000, 100_000)

    ops = []
    for page in range(0, 950, 50):
        ops += [touch(0, page, 50, write=True), sleep(150 * MS)]
    rig.run(
        [[ops]],
        [GuestMemory(1000)],
        [[(ANON, 950)]],
        stack(made(mem_reclaim=mem_reclaim, mem_init=mem_init)),
        frames=1000,
    )
    states = [s for s, _ in log]
    assert set(states) >= {FREE_SOFT, FREE_HARD, FREE_LOW} and states[0] == FREE_SOFT
    begins = {FREE_SOFT: 300, FREE_HARD: 200, FREE_LOW: 100}
    before = FREE_HIGH
    for state, free in log:
        if state != before:
            assert free < begins[state]
        before = state


def test_a_state_ends_only_well_above_the_threshold_of_the_one_before():
    """high 40 %, soft 30 %, hard 20 %, low 10 % of 1,000 frames; a quarter of 100 frames more to improve."""
    memory, _ = rig.host([idle()], [GuestMemory(1000)], [[(ANON, 10)]], stack(), frames=1000)
    machine = memory.tables["machine"]
    proxy = HostProxy(memory, -1)
    set_thresholds(proxy, 400_000, 300_000, 200_000, 100_000)
    seen = []
    for free in (399, 300, 299, 424, 425, 299, 199, 324, 325, 99, 224, 225, 425, 99, 1000):
        machine["free"] = free
        set_state(proxy)
        seen.append(FREE_STATES[int(machine["state"][0])])
    expected = "high high soft soft high soft hard hard soft low low hard high low high"
    assert seen == expected.split()


def test_a_clear_state_lies_between_high_and_soft():
    memory, _ = rig.host([idle()], [GuestMemory(1000)], [[(ANON, 10)]], stack(), frames=1000)
    machine = memory.tables["machine"]
    proxy = HostProxy(memory, -1)
    set_thresholds(proxy, 400_000, 64_000, 32_000, 16_000)
    machine["clear"] = 100
    seen = []
    for free in (399, 100, 99, 64, 63, 183, 184, 483, 484):
        machine["free"] = free
        set_state(proxy)
        seen.append(FREE_STATES[int(machine["state"][0])])
    assert seen == ["high", "high", "clear", "clear", "soft", "soft", "clear", "clear", "high"]
    assert machine["goal"][0] == 100 + (400 - 64) // 4


def test_a_watched_page_is_seen_once_and_costs_an_exit():
    log = []

    def mem_init(host, now):
        for page in (0, 5, 30, 200):
            watch(host, page, 1)

    def mem_fault(host, vm, page, kind):
        log.append((page, kind))

    ops = [touch(0, 0, 40, write=True), touch(0, 0, 40), sleep(1000 * SECOND)]
    memory = rig.run(
        [[ops]], [GuestMemory(1000)], [[(ANON, 40)]], stack(made(mem_init=mem_init, mem_fault=mem_fault)), frames=2000
    )
    assert [entry for entry in log if entry[1] == TOUCH_WATCHED] == [(0, 2), (5, 2), (30, 2)]
    assert log.index((5, TOUCH_WATCHED)) == log.index((5, TOUCH_FIRST)) + 1
    watched = memory.tables["page"]["flags"] & P_WATCHED
    assert list(watched.nonzero()[0]) == [200]


def test_a_touch_of_a_watched_page_with_a_frame_costs_one_fault():
    def cost(pages):
        def mem_timer(host, timer, now):
            for page in range(pages):
                watch(host, page, 1)

        def mem_init(host, now):
            set_timer(host, 0, SECOND)

        ops = [touch(0, 0, 40, write=True), sleep(2 * SECOND), touch(0, 0, 40), sleep(1000 * SECOND)]
        memory = rig.run(
            [[ops]], [GuestMemory(1000)], [[(ANON, 40)]], stack(made(mem_init=mem_init, mem_timer=mem_timer)),
            frames=2000,
        )  # fmt: skip
        return int(memory.tables["vcpu"]["overhead_ns"][0])

    # an invalidation when the mapping goes, a fault when it is touched
    assert cost(10) - cost(0) == 10 * (1_500 + 2_700)


def test_pages_read_back_only_to_be_overwritten_are_counted():
    """The host swapped a free page of the guest out; the guest uses it for something new."""

    def mem_timer(host, timer, now):
        for page in range(20):
            if swappable(host, page):
                reclaim(host, 0, BY_PAGE, page)

    def mem_init(host, now):
        set_timer(host, 0, SECOND)

    ops = [touch(0, 0, 20, write=True), op("free", 0, 0, 20), sleep(2 * SECOND), touch(0, 20, 10, write=True)]
    memory = rig.run(
        [[[*ops, sleep(1000 * SECOND)]]],
        [GuestMemory(1000)],
        [[(ANON, 40)]],
        stack(made(mem_init=mem_init, mem_timer=mem_timer)),
        frames=2000,
        host_swap_pages=100,
    )
    vm = memory.tables["vmem"][0]
    assert vm["host_swap_out_pages"] == 20 and vm["stale_swap_in_pages"] == vm["host_swap_in_pages"] == 10


# guests without memory ------------------------------------------------------------------------------------------


def hungry(extra=()):
    """Two threads: one wants more than the guest has, the other computes."""
    return [
        [touch(0, 0, 150, write=True), *extra, op("mark_begin"), op("mark_end"), compute(MS)],
        [compute(MS)] * 1000,
    ]


def test_threads_of_a_killed_process_stop_and_their_recording_begins_again():
    memory, loop = rig.host(
        [hungry(), [[compute(10 * MS)]]],
        [GuestMemory(100, swap_pages=0), GuestMemory(100)],
        [[(ANON, 150)], [(ANON, 10)]],
        frames=1000,
        horizon_ns=SECOND,
    )
    while loop.run(1) == 0 and memory.tables["vmem"]["oom_kills"][0] == 0:
        pass
    thread = memory.tables["thread"]
    assert (thread["state"][:2] == T_KILLED).all()
    assert (memory.tables["vcpu"]["current_thread"] < 2).sum() >= 0 and memory.tables["vcpu"]["current_thread"][0] == -1
    when = int(memory.header["now"][0])
    ran = int(memory.tables["vcpu"]["ran_ns"][0])
    while int(memory.header["now"][0]) < when + 90 * MS and loop.run(1) == 0:
        rig.conserved(memory)
        consistent(memory)
    # nothing of it runs until it is started again
    assert memory.tables["vcpu"]["ran_ns"][0] - ran < MS
    while loop.run(100) == 0:
        pass
    assert memory.header["error"][0] == 0
    vm = memory.tables["vmem"]
    assert 5 <= vm["oom_kills"][0] <= 10 and vm["oom_kills"][1] == 0
    # the request that a killed process was at is never completed; the neighbour goes on
    assert memory.tables["vm"]["marks"][0] == 0 and memory.tables["group"]["loops"][1] > 50


def test_a_killed_thread_that_waits_for_the_disk_is_waited_for():
    reader = [op("fread", 1, 0, 60), compute(MS)]
    memory = rig.run(
        [[[touch(0, 0, 150, write=True), compute(MS)], reader * 20]],
        [GuestMemory(100, swap_pages=0, replacement="lru")],
        [[(ANON, 150), (OWN, 60)]],
        frames=1000,
        horizon_ns=3 * SECOND,
    )
    assert memory.tables["vmem"]["oom_kills"][0] > 1
    consistent(memory)


@pytest.mark.parametrize("deflates", [0, 1])
def test_deflate_on_oom_takes_from_the_balloon_before_it_kills(deflates):
    def mem_init(host, now):
        set_balloon_driver(host, deflates)

    def mem_balloon_target(host, vm):
        return 500

    ops = [sleep(SECOND), touch(0, 0, 700, write=True), op("mark_begin"), op("mark_end"), sleep(1000 * SECOND)]
    memory = rig.run(
        [[ops]],
        [GuestMemory(1000, swap_pages=0)],
        [[(ANON, 800)]],
        stack(made(mem_init=mem_init, mem_balloon_target=mem_balloon_target)),
        frames=2000,
        horizon_ns=5 * SECOND,
    )
    vm = memory.tables["vmem"][0]
    done = int(memory.tables["vm"]["marks"][0])
    if deflates:
        # 256 pages make room, and are not taken again until the hypervisor names another target
        assert (vm["oom_kills"], vm["oom_deflated_pages"], vm["ballooned"], done) == (0, 256, 500 - 256, 1)
    else:
        assert vm["oom_kills"] > 0 and vm["oom_deflated_pages"] == 0 and done == 0


# balloons -------------------------------------------------------------------------------------------------------


def fixed(target):
    def mem_balloon_target(host, vm):
        return target

    return made(mem_balloon_target=mem_balloon_target)


def test_a_balloon_takes_free_pages_first_and_gives_them_back():
    def mem_balloon_target(host, vm, now):
        return 300 if now < SECOND else 1000

    memory, loop = rig.host(
        [idle()],
        [GuestMemory(1000)],
        [[(ANON, 10)]],
        stack(made(mem_balloon_target=mem_balloon_target)),
        horizon_ns=3 * SECOND,
    )
    seen = 0
    while loop.run(1) == 0:
        seen = max(seen, int(memory.tables["vmem"]["ballooned"][0]))
    assert seen == 700
    assert memory.tables["vmem"]["ballooned"][0] == 0
    rig.conserved(memory)


def test_the_smallest_target_of_a_stack_wins():
    for layers in ((fixed(600), fixed(800)), (fixed(800), fixed(600)), (fixed(-1), fixed(600))):
        memory = rig.run([idle()], [GuestMemory(1000)], [[(ANON, 10)]], stack(*layers), horizon_ns=3 * SECOND)
        assert memory.tables["vmem"]["ballooned"][0] == 400


def test_a_balloon_makes_the_guest_give_up_cache_then_swap():
    ops = [op("fread", 1, 0, 300), touch(0, 0, 500, write=True), sleep(1000 * SECOND)]
    memory = rig.run([[ops]], [GuestMemory(1000, swap_pages=2000)], [[(ANON, 500), (OWN, 300)]], stack(fixed(400)))
    vm = memory.tables["vmem"][0]
    assert vm["ballooned"] == 600
    assert memory.tables["object"]["resident"][1] < 150
    assert vm["guest_swap_out_pages"] > 50
    assert vm["host_swap_out_pages"] == 0


def test_a_balloon_needs_cpu_time_of_its_guest():
    """A VM whose vCPU is kept from running does not balloon."""

    def mem_init(host, now):
        from hvbench.policy import block

        block(host, 0)

    frozen = made(mem_init=mem_init, mem_balloon_target=fixed(400).mem_balloon_target)
    memory = rig.run([idle()], [GuestMemory(1000)], [[(ANON, 10)]], stack(frozen), horizon_ns=2 * SECOND)
    assert memory.tables["vmem"]["ballooned"][0] == 0


def test_a_balloon_inflates_at_its_rate():
    memory = rig.run(
        [idle()],
        [GuestMemory(4000)],
        [[(ANON, 10)]],
        stack(fixed(100)),
        horizon_ns=1_030 * MS,
        balloon_pages_per_s=1000,
    )
    assert 900 <= memory.tables["vmem"]["ballooned"][0] <= 1400


@pytest.mark.parametrize(("rate", "taken"), [(0, 3_328), (12_800, 3_328), (1_000_000_000, 10_000)])
def test_a_policy_says_how_fast_the_driver_is(rate, taken):
    """Of 10,000 pages in a quarter of a second: 3,200 and the step begun, if it says nothing; all without a limit."""

    def mem_init(host, now):
        set_balloon_driver(host, 0, rate)

    memory = rig.run(
        [idle()],
        [GuestMemory(12_000)],
        [[(ANON, 10)]],
        stack(made(mem_init=mem_init, mem_balloon_target=fixed(2_000).mem_balloon_target)),
        frames=16_000,
        horizon_ns=SECOND // 4,
    )
    assert memory.tables["vmem"]["ballooned"][0] == taken


@pytest.mark.parametrize("rate", [-1, 1_000_000_001])
def test_another_rate_of_the_driver_is_illegal(rate):
    def mem_init(host, now):
        set_balloon_driver(host, 0, rate)

    assert outcome(made(mem_init=mem_init)) == E_RANGE


def test_a_guest_without_a_driver_has_no_balloon():
    memory = rig.run([idle()], [GuestMemory(1000, balloon=False)], [[(ANON, 10)]], stack(fixed(100)))
    assert memory.tables["vmem"]["ballooned"][0] == 0


# 2 MiB backing --------------------------------------------------------------------------------------------------


def test_large_backing_gives_512_frames_and_is_split_when_a_part_is_taken():
    ops = [touch(0, 0, 3, write=True), sleep(1000 * SECOND)]
    options = {"large_backing": True, "frames": 8192}
    vm = rig.run([[ops]], [GuestMemory(2048)], [[(ANON, 10)]], **options).tables["vmem"][0]
    assert vm["resident"] == 512 and vm["large"] == 1 and vm["extents_split_balloon"] == 0
    memory = rig.run([[ops]], [GuestMemory(2048)], [[(ANON, 10)]], stack(fixed(2000)), **options)
    vm = memory.tables["vmem"][0]
    assert vm["large"] == 0 and vm["extents_split_balloon"] == 1


def overhead(ppm, nested, **options):
    """Overhead of a VM that touches a page and computes for 240 us, under a factor of so many parts per million."""
    cpu = {"user_factor_ppm": ppm, "kernel_factor_ppm": ppm, "nested_walk": nested}
    ops = [touch(0, 0, 1, write=True), compute(200_000), op("compute", -1, 0, 40_000), sleep(1000 * SECOND)]
    memory = rig.run([[ops]], [GuestMemory(2048)], [[(ANON, 10)]], cpu=cpu, frames=8192, horizon_ns=MS, **options)
    return int(memory.tables["vm"]["overhead_ns"][0])


@pytest.mark.parametrize(("nested", "large", "extra"), [(1, 0, 28_800), (1, 1, 22_800), (0, 1, 28_800)])
def test_nested_walks_are_shorter_over_large_backing(nested, large, extra):
    options = {"large_backing": bool(large)}
    assert overhead(120_000, nested, **options) - overhead(0, nested, **options) == extra


# the base image ---------------------------------------------------------------------------------------------------


def image(kernel=40, cached=60):
    import numpy as np

    objects = (MemoryObject(ANON, kernel, 0), MemoryObject(1, 100, 0, identity=77))
    row = np.r_[np.arange(kernel), kernel + np.arange(cached)]
    content = np.arange(1, kernel + cached + 1, dtype=np.uint64)
    return BaseImage(objects, row, content, np.r_[np.zeros(kernel, bool), np.ones(cached, bool)])


def test_every_vm_starts_with_its_base_image_in_memory():
    vms = [GuestMemory(1000, image=image())] * 2
    memory = rig.run([[[op("fread", 0, 0, 60), sleep(1000 * SECOND)]]] * 2, vms, [[(1, 100)]] * 2, horizon_ns=SECOND)
    # objects [(1, 100)] have another identity than the image's file: they are read from disk
    assert (memory.tables["vmem"]["resident"] >= 160).all()
    page = memory.tables["page"]
    assert ((page["flags"] & P_KERNEL) != 0).sum() == 80


def test_a_base_image_that_does_not_fit_begins_in_the_host_s_swap():
    vms = [GuestMemory(1000, image=image())] * 2
    memory, _ = rig.host([idle()] * 2, vms, [[]] * 2, frames=150, host_swap_pages=500)
    rig.conserved(memory)
    assert memory.tables["vmem"]["resident"].sum() == 150 - 16 - 8
    assert memory.tables["vmem"]["swapped"].sum() == 200 - 126


# illegal answers --------------------------------------------------------------------------------------------------


def outcome(module, **options):
    memory, loop = rig.host(
        [[LOOP]], [GuestMemory(400)], [[(ANON, 300)]], stack(module), frames=200, host_swap_pages=100, **options
    )
    while loop.run(1000) == 0:
        pass
    return memory.header["error"][0]


def by(how, vm, amount):
    def mem_reclaim(host, pages, state):
        reclaim(host, vm, how, amount)
        return 0

    return made(mem_reclaim=mem_reclaim)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (made(mem_reclaim=lambda host, pages: pages + 1), E_RANGE),
        (made(mem_reclaim=lambda host, pages: -1), E_RANGE),
        (fixed(401), E_TARGET),
        (fixed(-2), E_TARGET),
        (made(mem_pick_victim=lambda host, vm: 399), E_PAGE_STATE),
        (made(mem_pick_victim=lambda host, vm: 1 << 40), E_PAGE_STATE),
        (made(mem_admit=lambda host, vm: -5), E_TARGET),
        (by(BY_SWAP, 5, 10), E_VM_RANGE),
        (by(BY_SWAP, 0, -1), E_RANGE),
        (by(BY_BALLOON, -2, 1), E_VM_RANGE),
        (by(BY_PAGE, 0, 399), E_PAGE_STATE),
        (by(7, 0, 1), E_RANGE),
    ],
)
def test_an_illegal_answer_ends_the_cell(module, code):
    assert outcome(module) == code


def test_a_policy_s_timer_comes_back_to_its_layer():
    seen = []

    def mem_init(host, now):
        set_timer(host, 3, now + SECOND)

    def mem_timer(host, timer, now):
        seen.append((timer, now))

    rig.run([idle()], [GuestMemory(100)], [[(ANON, 10)]], stack("static", made(mem_init=mem_init, mem_timer=mem_timer)))
    assert seen == [(3, SECOND)]
