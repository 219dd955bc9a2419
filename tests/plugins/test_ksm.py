"""KSM: two passes, trees, chains, zero pages, smart scan, counters; and how few frames are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench import jit
from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.build_memory import GuestMemory
from hvbench.state.records_memory import ANON
from hvbench.static_memory import frames_of_guests, page_contents, split_evenly, static_host
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, op, sleep, stack, touch

UNBOUNDED = {"max_page_sharing": 1 << 40, "smart_scan": False}


def run(contents: list[Any], layers: list[Any], horizon_ns: int = 100 * MS, interpreted: bool = True, **more: Any):
    """Run VMs with these contents, checked; returns the host's memory."""
    memory = build(static_host([np.array(c, np.int64) for c in contents], horizon_ns=horizon_ns, **more))
    bind(memory, layers, interpreted=interpreted)
    loop = Loop(memory, interpreted)
    loop.boot()
    while loop.run(100_000) == 0:
        pass
    assert int(memory.header["error"][0]) == 0, rig.error(memory)
    rig.conserved(memory)
    return memory


def counters(memory: Any, slot: int = 3) -> dict[str, int]:
    own = memory.slots[slot].own["own"]
    return {name: int(own[name][0]) for name in rig.policy("ksm").COUNTERS}


def ksm(**params: Any) -> list[Any]:
    return stack(("ksm", {"pages_to_scan": 1000, "sleep_millisecs": 1, **params}))


def after_passes(contents: list[Any], passes: int, **params: Any) -> dict[str, int]:
    """Counters when so many passes were made: a batch is a pass, and begins a millisecond after the last one ended."""
    memory = build(static_host([np.array(c, np.int64) for c in contents], horizon_ns=SECOND))
    bind(memory, ksm(**params), interpreted=True)
    loop = Loop(memory, True)
    loop.boot()
    while counters(memory)["full_scans"] < passes:
        assert loop.run(1) == 0
    while loop.run(1) == 0 and memory.slots[3].own["own"]["waits"][0]:
        pass
    rig.conserved(memory)
    return counters(memory)


# by hand ---------------------------------------------------------------------------------------------------------


def test_the_first_pass_only_learns_and_the_second_merges():
    pages = [[7, 7, 8, 0], [7, 9, 0, 10]]
    first = after_passes(pages, 1)
    assert (first["pages_shared"], first["pages_unshared"], first["pages_volatile"]) == (0, 0, 8)
    second = after_passes(pages, 2)
    # 7 three times and 0 twice: two merged frames, and three pages that stand on them beside the first; 8, 9, 10
    assert (second["pages_shared"], second["pages_sharing"], second["pages_unshared"]) == (2, 3, 3)
    assert second["pages_volatile"] == 0 and second["pages_scanned"] == 16


def test_a_page_that_changes_in_each_pass_is_volatile():
    program = [
        [touch(0, 0, 4, write=True), *[op("content", 0, p, 5, COMMON) for p in range(4)]]
        + [step for _ in range(60) for step in (sleep(MS), touch(0, 0, 1, write=True))]
        + [sleep(1000 * SECOND)]
    ]
    memory = rig.run([program], [GuestMemory(100)], [[(ANON, 4)]], ksm(), horizon_ns=50 * MS)
    seen = counters(memory)
    assert (seen["pages_shared"], seen["pages_sharing"], seen["pages_volatile"]) == (1, 2, 1)
    assert memory.tables["vmem"]["cow_breaks"][0] == 0


def test_a_write_takes_a_page_off_its_node_when_the_scan_comes_by():
    program = [
        [
            touch(0, 0, 4, write=True),
            *[op("content", 0, p, 5, COMMON) for p in range(4)],
            sleep(30 * MS),
            touch(0, 0, 2, write=True),
            sleep(1000 * SECOND),
        ]
    ]
    memory = rig.run([program], [GuestMemory(100)], [[(ANON, 4)]], ksm(smart_scan=False), horizon_ns=60 * MS)
    seen = counters(memory)
    assert memory.tables["vmem"]["cow_breaks"][0] == 2 and memory.tables["vm"]["overhead_ns"][0] >= 2 * 25_100
    assert (seen["pages_shared"], seen["pages_sharing"], seen["pages_unshared"]) == (1, 1, 2)
    assert memory.tables["machine"]["saved"][0] == 1


def test_a_node_takes_max_page_sharing_pages_and_further_ones_are_dups_of_a_chain():
    seen = after_passes([[4] * 10], 2, max_page_sharing=3)
    # 3 + 3 + 3, and the tenth page waits for an equal one in the unstable tree
    assert (seen["pages_shared"], seen["pages_sharing"], seen["pages_unshared"]) == (3, 6, 1)
    assert (seen["stable_node_chains"], seen["stable_node_dups"]) == (1, 3)
    memory = run([[4] * 10], ksm(max_page_sharing=3))
    assert sorted(np.unique(memory.tables["page"]["frame"][:10], return_counts=True)[1]) == [1, 3, 3, 3]


def test_zero_pages_go_to_the_hosts_own_and_cost_no_frame():
    memory = run([[0] * 20 + [1], [0] * 20 + [1]], ksm(use_zero_pages=True))
    assert frames_of_guests(memory) == 1
    assert counters(memory)["zero_pages"] == 40 and counters(memory)["pages_shared"] == 1
    assert memory.tables["page_frame"]["refs"][0] == 41


def test_a_write_to_a_page_of_zeros_copies_it():
    program = [[touch(0, 0, 5), sleep(30 * MS), touch(0, 1, 2, write=True), sleep(1000 * SECOND)]]
    memory = rig.run([program], [GuestMemory(100)], [[(ANON, 5)]], ksm(use_zero_pages=True), horizon_ns=60 * MS)
    assert counters(memory)["zero_pages"] == 3 and memory.tables["vmem"]["cow_breaks"][0] == 2
    assert memory.tables["machine"]["saved"][0] == 3


def test_smart_scan_skips_what_three_passes_could_not_merge():
    # passes 1 to 3 look (age 0 to 2); the fourth finds no skips left, looks, and allows one: the fifth skips
    assert after_passes([[1, 2, 3]], 4)["pages_skipped"] == 0
    assert after_passes([[1, 2, 3]], 5)["pages_skipped"] == 3
    assert after_passes([[1, 2, 3]], 12, smart_scan=False)["pages_skipped"] == 0


def test_ksmd_rests_while_run_is_zero_and_obeys_the_hosts_tunables():
    import types

    from hvbench.policy import hookimpl, set_timer, tune_scan

    module = types.ModuleType("daemon")

    def mem_init(host: Any, now: int) -> None:
        tune_scan(host, 0, 0, 0)
        set_timer(host, 1, now + 50 * MS)

    def mem_timer(host: Any, timer: int, now: int) -> None:
        tune_scan(host, 1, 2, 10 * MS)

    for function in (mem_init, mem_timer):
        function.__module__ = module.__name__
        setattr(module, function.__name__, hookimpl(function))
    pages = [[1, 2, 3, 4, 5, 6]]
    early = run(pages, [*ksm(), *stack("static", module)[1:]], horizon_ns=49 * MS)
    assert counters(early)["pages_scanned"] == 0
    late = run(pages, [*ksm(), *stack("static", module)[1:]], horizon_ns=100 * MS)
    # two pages at 50, 60, 70, 80 and 90 ms, but for the one that ends a pass
    assert 8 <= counters(late)["pages_scanned"] <= 10


def test_scanning_and_merging_is_ksmds_cpu_time():
    memory = run([[1] * 50 + list(range(2, 52))], ksm(smart_scan=False), horizon_ns=20 * MS)
    thread = int(memory.tables["machine"]["scan_thread"][0])
    batches = int(memory.tables["machine"]["scan_ns"][0]) * 1000
    seen = counters(memory)
    paid = seen["full_scans"] * batches + memory.tables["vmem"]["merges"].sum() * 6_200
    assert memory.tables["vmem"]["merges"].sum() == 49
    assert abs(int(memory.tables["vcpu"]["ran_ns"][thread]) - int(paid)) <= batches


# laws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    contents=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=40), min_size=1, max_size=3),
    bound=st.integers(2, 12),
    smart=st.booleans(),
)
def test_counters_say_what_the_frames_say(contents, bound, smart):
    memory = run(contents, ksm(max_page_sharing=bound, smart_scan=smart), horizon_ns=60 * MS)
    page, seen = memory.tables["page"], counters(memory)
    frames = page["frame"][page["frame"] > 0]
    _, users = np.unique(frames, return_counts=True)
    assert seen["pages_shared"] == (users > 1).sum()
    assert seen["pages_sharing"] == (users - 1).sum() == memory.tables["machine"]["saved"][0]
    assert users.max() <= bound
    flat = np.concatenate([np.array(c) for c in contents])
    _, counts = np.unique(flat, return_counts=True)
    # each content needs as many frames as its pages do not fit on fewer; a last page alone has its own
    assert len(users) == sum(-(-int(n) // bound) for n in counts)
    assert seen["stable_node_dups"] == sum(d for d in (int(n) // bound + (n % bound > 1) for n in counts) if d > 1)


@settings(max_examples=15)
@given(contents=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=30), min_size=1, max_size=3))
def test_a_complete_scan_leaves_one_frame_a_content(contents):
    memory = run(contents, ksm(**UNBOUNDED), horizon_ns=30 * MS)
    assert frames_of_guests(memory) == len({c for vm in contents for c in vm})


# Difference Engine (Gupta et al., OSDI 2008), table 1 --------------------------------------------------------------

TABLE_1 = {"zero": 149_038, "sharable": 52_436, "classes": 3_577, "unique": 191_646}
FEW = {"zero": 149, "sharable": 52, "classes": 4, "unique": 191}
compiled_only = pytest.mark.skipif(jit.interpreted(), reason="393,120 pages take minutes interpreted")


def two_passes(counts: dict[str, int], interpreted: bool, **params: Any) -> Any:
    """Two full passes of ksm over three VMs with these pages."""
    values = page_contents(**counts, seed=5)
    spec = static_host(split_evenly(values, 3), horizon_ns=1000 * SECOND)
    memory = build(spec)
    layers = ksm(**{"pages_to_scan": len(values), **params})
    bind(memory, layers, interpreted=interpreted)
    loop = Loop(memory, interpreted)
    loop.boot()
    own = memory.slots[3].own["own"]
    while own["full_scans"][0] < 2:
        assert loop.run(1000) == 0
    return memory


@compiled_only
@pytest.mark.parametrize(
    ("params", "frames"),
    [
        (UNBOUNDED, 195_224),
        # 149,038 pages of zeros at 256 a frame: 582 full ones, and one for the last 46
        ({"smart_scan": False}, 195_224 - 1 + 583),
        ({**UNBOUNDED, "use_zero_pages": True}, 195_224 - 1),
    ],
    ids=["unbounded", "256 a frame", "zero pages"],
)
def test_difference_engines_table_1(kernel, params, frames):
    memory = two_passes(TABLE_1, False, **params)
    assert frames_of_guests(memory) == frames
    seen = counters(memory)
    assert seen["pages_unshared"] == 191_646
    assert seen["pages_shared"] == frames - 191_646
    assert seen["pages_sharing"] + seen["zero_pages"] == 393_120 - frames


def test_the_same_in_small_in_both_modes(kernel):
    modes = [True] if jit.interpreted() else [True, False]
    found = [two_passes(FEW, mode, max_page_sharing=16) for mode in modes]
    for memory in found:
        rig.conserved(memory)
        # 149 = 9 x 16 + 5, so ten frames; 52 = 4 x 13
        assert frames_of_guests(memory) == 191 + 4 + 10
    assert len({tuple(m.tables["page"]["frame"]) for m in found}) == 1
    assert len({tuple(counters(m).items()) for m in found}) == 1


def test_metrics_carry_the_counters():
    from hvbench.metrics import CELL_METRICS, POLICY_METRICS
    from hvbench.readout import memory_metrics

    memory = run([[3, 3, 3]], ksm())
    metrics = memory_metrics(memory)
    name = memory.policies[3].name.replace("-", "_")
    assert metrics[f"{name}_pages_shared"] == 1 and metrics[f"{name}_pages_sharing"] == 2
    assert {f"ksm_{field}" for field in rig.policy("ksm").COUNTERS} == POLICY_METRICS & set(CELL_METRICS)
