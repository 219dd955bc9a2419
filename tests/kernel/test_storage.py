"""Block requests: what a path costs, who is served when, and that none is lost."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from hvbench.build import build
from hvbench.build_io import FlowSpec, IoSpec, storage_path
from hvbench.errors import UserError
from hvbench.kernel.disk import positioning_ns
from hvbench.kernel.guards import E_RANGE, E_REQUEST_RANGE
from hvbench.kernel.histogram import BUCKETS, H_IO, HISTOGRAMS
from hvbench.machine import Array, Disk, Filer
from hvbench.paths import (
    BLOCK_LAYER_NS,
    CONTROLLER_NS,
    DEFAULT_PATH,
    DIRECT_PATH,
    USER_EXIT_NS,
    Step,
)
from hvbench.policy import blk_first, blk_next, serve_device, set_timer
from hvbench.state.proxies import HostProxy
from hvbench.state.records import HOST_THREAD
from hvbench.state.schema import STORAGE_SLOT
from tests.io_hosts import (
    MS,
    T,
    chosen,
    compute,
    forever,
    free_lists_are_whole,
    module_of,
    plugin,
    read,
    recv,
    row,
    run,
    send,
    sleep,
    spec_of,
    write,
)

ONE_MS = Disk(read_latency_ns=MS, write_latency_ns=MS, channels=1, bandwidth_bytes_per_s=10**12)
BARE = (Step("medium"),)
HDD = Disk(
    read_latency_ns=0,
    write_latency_ns=0,
    seek_ns=8_500_000,
    track_seek_ns=1_000_000,
    rotation_ns=8_333_333,
    bandwidth_bytes_per_s=125_000_000,
    channels=1,
)


def stated(name: str) -> IoSpec:
    module = plugin("storage", name)
    return IoSpec(path=storage_path(module, module.Params() if hasattr(module, "Params") else None))


def latencies(memory) -> list[int]:
    """Sum of each VM's request latencies."""
    return [int(n) for n in memory.tables["vm_io"]["disk_wait_ns"][:-1]]


def storage(**hooks):
    return chosen(STORAGE_SLOT, "test", module_of("storage", **hooks))


# what a path costs -----------------------------------------------------------------------------------------


def test_a_read_on_das_takes_the_sum_of_its_stages():
    io = stated("das")
    memory = run(spec_of([[T(0, (read(5), forever()))]], io))
    transfer = 4096 * 2000 // 1000
    expected = BLOCK_LAYER_NS + CONTROLLER_NS + 50_000 + transfer + USER_EXIT_NS
    assert latencies(memory) == [expected]
    assert row(memory, "vm_io")["disk_read_requests"] == 1


def test_the_direct_path_has_no_emulation():
    memory = run(spec_of([[T(0, (write(5, 2), forever()))]], IoSpec(path=DIRECT_PATH)))
    assert latencies(memory) == [CONTROLLER_NS + 65_000 + 2 * 4096 * 2]
    assert memory.header["vcpus"] == 1, "no emulator, no thread for it"


def test_emulation_is_paid_by_a_host_thread_on_behalf_of_the_vm():
    memory = run(spec_of([[T(0, (*[read(i) for i in range(10)], forever()))]], stated("das")))
    thread = row(memory, "vcpu", 1)
    assert (thread["kind"], thread["vm"]) == (HOST_THREAD, 0)
    assert thread["ran_ns"] == 10 * (BLOCK_LAYER_NS + USER_EXIT_NS)
    assert row(memory, "vcpu", 0)["ran_ns"] >= 0


def test_extra_costs_of_exits_and_interrupts_reach_the_vcpu():
    plain = run(spec_of([[T(0, (read(0), forever()))]], stated("das")))
    dear = run(spec_of([[T(0, (read(0), forever()))]], attrs.evolve(stated("das"), exit_ns=9_000, interrupt_ns=500)))
    assert row(dear, "vcpu")["ran_ns"] - row(plain, "vcpu")["ran_ns"] == 9_500
    assert latencies(dear)[0] - latencies(plain)[0] == 9_000


def test_san_adds_adapter_fabric_and_array_to_das():
    array = Array(bandwidth_bytes_per_s=10**12, latency_ns=5_000, controller_ns=20_000)
    san = run(spec_of([[T(0, (read(0), forever()))]], attrs.evolve(stated("san"), array=array)))
    das = run(spec_of([[T(0, (read(0), forever()))]], stated("das")))
    adapter = plugin("storage", "san").Params().adapter_ns - CONTROLLER_NS
    fabric = 2 * 5_000 + 4096 // 1000 + 1
    assert latencies(san)[0] - latencies(das)[0] == adapter + fabric + 20_000


def test_the_filers_processor_takes_twice_its_service_time_on_nas():
    fast = Filer(service_ns=0)
    slow = Filer(service_ns=20_000)
    a, b = (
        run(spec_of([[T(0, (read(0), forever()))]], attrs.evolve(stated("nas"), filer=f))) for f in (fast, slow)
    )
    assert latencies(b)[0] - latencies(a)[0] == 2 * 20_000 - 1, "a step takes at least 1 ns"


def test_a_cache_answers_reads_that_it_has_seen_and_no_writes():
    io = attrs.evolve(stated("san"), array=Array(cache_bytes=1 << 20))
    memory = run(spec_of([[T(0, (read(9, 4), read(9, 4), write(9, 4), read(10), forever()))]], io))
    cache, medium = (next(r for r in range(9) if memory.tables["station"]["kind"][r] == k) for k in (1, 2))
    assert row(memory, "station", medium)["served"] == 2, "the first read, and the write"
    assert row(memory, "station", cache)["cache_hits"] == 5
    assert row(memory, "io")["completed"] == 4


def test_a_cache_forgets_what_was_used_longest_ago():
    pages = 4096
    io = attrs.evolve(stated("san"), array=Array(cache_bytes=64 * pages))
    scan = tuple(read(i * 4, 4) for i in range(64))
    memory = run(spec_of([[T(0, (*scan, *scan, forever()))]], io))
    assert row(memory, "station", 2)["cache_hits"] < 64, "a loop four times as large as the cache"


# the order of service ----------------------------------------------------------------------------------------


def test_arrivals_slower_than_service_do_not_wait():
    vms = [[T(v, (sleep(2 * MS * v + 1), read(v * 50), forever()))] for v in range(8)]
    assert latencies(run(spec_of(vms, IoSpec(path=BARE, disk=ONE_MS), pcpus=8))) == [MS + 4] * 8


def test_arrivals_faster_than_service_wait_in_line():
    vms = [[T(v, (sleep(MS // 2 * v + 1), read(v * 50), forever()))] for v in range(8)]
    found = latencies(run(spec_of(vms, IoSpec(path=BARE, disk=ONE_MS), pcpus=8)))
    assert found == [(v + 1) * (MS + 4) - v * MS // 2 for v in range(8)], "first come, first served"


def test_random_arrivals_wait_as_long_as_queueing_theory_says():
    """M/D/1 at a load of one half: the mean wait in line is half a service time."""
    rng = np.random.default_rng(7)
    at = np.cumsum(rng.exponential(2 * MS, 800)).astype(int)
    vms, threads = 32, []
    for v in range(vms):
        ops, clock = [], 0
        for k, due in enumerate(at[v::vms]):
            # a thread sleeps from its last completion: leave a gap that is long against any wait
            ops += [("sleep", -1, int(due - clock), 0), read((v * 997 + k * 31) % 5000)]
            clock = due
        threads.append(ops)
    # relative sleeps drift by the latency before them; it is part of the arrival process
    groups = [[T(v, (*threads[v], forever()))] for v in range(vms)]
    memory = run(
        spec_of(groups, IoSpec(path=BARE, disk=ONE_MS), pcpus=vms, horizon_ns=3_000 * MS), check=False, step=10**6
    )
    io = row(memory, "io")
    assert io["completed"] == 800
    mean_wait = sum(latencies(memory)) / 800 - (MS + 4)
    assert mean_wait == pytest.approx(MS / 2, rel=0.25)
    assert row(memory, "station")["busy_ns"] == 800 * (MS + 4)


def test_channels_serve_at_once():
    disk = attrs.evolve(ONE_MS, channels=4)
    vms = [[T(v, (read(v * 50), forever()))] for v in range(8)]
    found = latencies(run(spec_of(vms, IoSpec(path=BARE, disk=disk), pcpus=8)))
    assert sorted(found) == [MS + 4] * 4 + [2 * (MS + 4)] * 4


def test_a_policy_may_serve_the_last_first():
    def blk_dispatch(host, dev, now):
        last = r = blk_first(host, dev)
        while r >= 0:
            last = r
            r = blk_next(host, r)
        return last

    vms = [[T(v, (sleep(v + 1), read(v * 50), forever()))] for v in range(4)]
    memory = run(spec_of(vms, IoSpec(path=BARE, disk=ONE_MS)), [storage(blk_dispatch=blk_dispatch)])
    rounds = [round(n / MS) for n in latencies(memory)]
    assert rounds == [1, 4, 3, 2]


def test_a_policy_may_leave_a_medium_idle_and_come_back():
    def blk_dispatch(host, dev, now):
        return blk_first(host, dev) if now >= 5 * MS else -1

    def blk_insert(host, request, dev, now):
        set_timer(host, dev, 5 * MS)

    def blk_timer(host, timer, now):
        serve_device(host, timer)

    policy = storage(blk_dispatch=blk_dispatch, blk_insert=blk_insert, blk_timer=blk_timer)
    memory = run(spec_of([[T(0, (read(0), forever()))]], IoSpec(path=BARE, disk=ONE_MS)), [policy])
    assert latencies(memory) == [6 * MS + 4]


@pytest.mark.parametrize(
    ("hook", "answer", "code"),
    [
        ("blk_dispatch", 4095, E_REQUEST_RANGE),
        ("blk_dispatch", -7, E_REQUEST_RANGE),
        ("blk_service", -1, E_RANGE),
        ("blk_limit_depth", 0, E_RANGE),
    ],
)
def test_illegal_answers_end_the_cell_by_name(hook, answer, code):
    from hvbench.binding import Loop, bind
    from hvbench.hookspecs import row as hook_row

    arguments = {"blk_dispatch": "dev", "blk_service": "request, dev", "blk_limit_depth": "vm, dev"}[hook]
    scope: dict = {}
    exec(f"def {hook}(host, {arguments}, now):\n    return {answer}\n", scope)
    memory = build(spec_of([[T(0, (read(0), forever()))]], IoSpec(path=BARE)))
    bind(memory, [storage(**{hook: scope[hook]})], interpreted=True)
    loop = Loop(memory, True)
    loop.boot()
    loop.run(10**6)
    assert int(memory.header["error"][0]) == code
    assert int(memory.header["error_hook"][0]) == hook_row(hook)


def test_depth_bounds_what_a_vm_has_in_service():
    def blk_limit_depth(host, vm, dev, now):
        return 1

    seen = []
    disk = attrs.evolve(ONE_MS, channels=4)
    threads = [T(0, (read(k * 40), forever())) for k in range(4)] + [T(1, (read(7), forever()))]
    memory = run(
        spec_of([threads], IoSpec(path=BARE, disk=disk), vcpus=4, pcpus=8),
        [storage(blk_limit_depth=blk_limit_depth)],
        step=1,
        watch=lambda m: seen.append(int(m.tables["vm_io"]["in_service"][0])),
    )
    assert max(seen) == 1
    assert latencies(memory)[1] == MS + 4, "the neighbour is not behind the four in line"


def test_adjacent_requests_are_served_as_one_unless_the_policy_objects():
    def no(host, request, other, now):
        return 0

    # the disk is busy with the first; the others wait, and each continues the one before it
    threads = [T(0, (sleep(1 + k), read(1000 if k == 0 else 10 + 4 * k, 4), forever())) for k in range(4)]
    spec = spec_of([threads], IoSpec(path=BARE, disk=ONE_MS), vcpus=4)
    merged = run(spec)
    apart = run(spec, [storage(blk_allow_merge=no)])
    assert row(merged, "io")["merged"] == 2 and row(apart, "io")["merged"] == 0
    assert row(merged, "station")["served"] == 2 and row(apart, "station")["served"] == 4
    for memory in (merged, apart):
        assert row(memory, "vm_io")["disk_read_requests"] == 4
        assert row(memory, "vm_io")["disk_read_pages"] == 16
        free_lists_are_whole(memory)


def test_a_merged_request_does_not_grow_beyond_its_limit():
    threads = [T(0, (sleep(1 + k), read(1000 if k == 0 else 10 + 4 * k, 4), forever())) for k in range(6)]
    memory = run(spec_of([threads], IoSpec(path=BARE, disk=ONE_MS, merge_pages=8), vcpus=6, pcpus=6))
    assert row(memory, "io")["merged"] == 2, "five in a row, of which two pairs fit into 8 pages"


def test_ways_through_the_fabric_are_chosen_once_a_request():
    def blk_select_path(host, request, paths, now):
        return request % paths

    fixed, turns = (
        run(spec_of([[T(v, (read(v), forever()))] for v in range(6)], stated("san"), pcpus=8), policies)
        for policies in ([], [storage(blk_select_path=blk_select_path)])
    )
    assert [int(n) for n in fixed.tables["station"]["served"]] == [6, 6, 0, 6, 6, 6, 0]
    assert [int(n) for n in turns.tables["station"]["served"]] == [6, 3, 3, 6, 6, 3, 3]


# media -----------------------------------------------------------------------------------------------------


def test_the_mean_seek_is_the_data_sheets():
    memory = build(spec_of([[T(0, (forever(),))]], IoSpec(path=BARE, disk=attrs.evolve(HDD, rotation_ns=0))))
    host = HostProxy(memory, -1)
    capacity = host.station[0].pages
    rng = np.random.default_rng(3)
    seeks = []
    for _ in range(4000):
        host.station[0].head_page = int(rng.integers(capacity))
        seeks.append(positioning_ns(host, 0, int(rng.integers(capacity)), 0))
    assert np.mean(seeks) == pytest.approx(8_500_000, rel=0.02)
    assert min(seeks) >= 1_000_000


def test_a_disk_waits_for_the_platter_half_a_turn_on_average():
    disk = attrs.evolve(HDD, seek_ns=0, track_seek_ns=0)
    memory = build(spec_of([[T(0, (forever(),))]], IoSpec(path=BARE, disk=disk)))
    host = HostProxy(memory, -1)
    rng = np.random.default_rng(4)
    waits = []
    for _ in range(4000):
        host.station[0].head_page = 0
        waits.append(positioning_ns(host, 0, int(rng.integers(1, 10**6)), int(rng.integers(10**12))))
    assert np.mean(waits) == pytest.approx(8_333_333 / 2, rel=0.05)
    assert max(waits) < 8_333_333


def test_reading_in_sequence_is_much_faster_on_a_disk_and_not_on_flash():
    def time(disk, step):
        ops = tuple(read(k * step) for k in range(32))
        return latencies(run(spec_of([[T(0, (*ops, forever()))]], IoSpec(path=BARE, disk=disk))))[0]

    assert time(HDD, 1) < time(HDD, 100_003) / 5
    assert time(Disk(), 1) == time(Disk(), 100_003)


def test_virtual_disks_do_not_overlap():
    memory = build(spec_of([[T(v, (forever(),))] for v in range(3)], IoSpec()))
    disks = memory.tables["vm_io"]
    ends = disks["disk_first_page"] + disks["disk_pages"]
    assert (ends[:-1] <= disks["disk_first_page"][1:]).all()
    assert ends[-1] <= Disk().capacity_bytes // 4096


# NAS ---------------------------------------------------------------------------------------------------------


def _nas(ops, traffic, policies=()):
    groups = [[T(0, (*ops, forever()))]]
    flows = [()]
    if traffic:
        size = 40_000_000
        groups.append([T(1, (send(0, 0, size), forever())), T(1, (recv(0, 1, size), forever()), outside=True)])
        flows.append([FlowSpec("tcp", 1, -1)])
    return run(spec_of(groups, stated("nas"), flows), policies, check=False, step=500)


def test_guests_traffic_slows_nas_writes_on_the_same_card():
    ops = tuple(write(k * 64, 4) for k in range(40))
    alone, beside = (latencies(_nas(ops, t))[0] for t in (False, True))
    assert beside > 2 * alone


def test_of_nas_reads_only_the_requests_meet_what_guests_send():
    """A card sends and receives at once: a read waits for one window of the guest's, once, not for its own data."""
    ops = tuple(read(k * 64, 32) for k in range(20))
    alone, beside = (latencies(_nas(ops, t))[0] for t in (False, True))
    window = 131_072 * 8 * 1.07
    assert 0 < beside - alone < 20 * window


def test_a_dropped_piece_of_a_write_is_sent_again_after_the_time_out():
    def net_enqueue(host, frame, port, now):
        return 0 if now < 100 * MS else 1

    from hvbench.state.schema import SWITCH_SLOT

    policy = chosen(SWITCH_SLOT, "drops", module_of("switch", net_enqueue=net_enqueue))
    memory = _nas((write(0, 32),), False, [policy])
    assert row(memory, "io")["completed"] == 1
    assert 200 * MS < latencies(memory)[0] < 210 * MS
    assert row(memory, "io")["frames_dropped"] == 3, "128 KiB and a header, in pieces of 64 KiB"


# the rest ----------------------------------------------------------------------------------------------------


def test_latencies_are_counted_since_the_end_of_the_warm_up():
    ops = (read(0), sleep(10 * MS), read(1), read(2), forever())
    memory = run(spec_of([[T(0, ops)]], IoSpec(path=BARE), warmup_ns=5 * MS))
    assert row(memory, "vm_io")["disk_read_requests"] == 2
    counts = memory.tables["bucket"]["count"].reshape(-1, HISTOGRAMS, BUCKETS)
    assert counts[0, H_IO].sum() == 2


def test_what_was_never_used_leaves_the_storage_axis_silent():
    idle = run(spec_of([[T(0, (compute(1000), forever()))]], IoSpec()))
    assert int(idle.tables["axis"]["asks"][1]) == 0
    das, dear = (
        run(spec_of([[T(0, (read(0), forever()))]], IoSpec(path=path)))
        for path in (DEFAULT_PATH, (*DEFAULT_PATH[:-1], Step("interrupt", 742)))
    )
    assert int(das.tables["axis"]["digest"][1]) != int(dear.tables["axis"]["digest"][1])


@pytest.mark.parametrize(
    "path",
    [(), (Step("queue", 1),), (Step("medium"), Step("medium")), (Step("nic_out"), Step("medium"))],
)
def test_a_path_without_a_way_there_and_back_is_refused(path):
    module = module_of("storage", hvbench_storage_path=lambda params: path)
    with pytest.raises(UserError):
        storage_path(module, None)


def test_what_is_no_path_is_refused():
    with pytest.raises(UserError, match="tuple"):
        storage_path(module_of("storage", hvbench_storage_path=lambda params: 7), None)
    assert storage_path(module_of("storage"), None) == DEFAULT_PATH
