"""Strict and relaxed co-scheduling: gangs whole or not at all; skew that cannot grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from hvbench.kernel.placement import progress
from hvbench.state.memory import HostMemory
from hvbench.state.proxies import HostProxy
from hvbench.state.records import BLOCKED, RUNNING
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, run_in_slices, sleep, vm, who_ran
from tests.strategies import hosts

FOREVER = compute(1 << 50)


def gangs_apart(memory: HostMemory, pcpus: int) -> list[int]:
    """VMs of which some vCPUs run while others, awake, do not."""
    states = numbers(memory.tables["vcpu"]["state"])
    apart = []
    for number, row in enumerate(memory.tables["vm"]):
        first = int(row["first_vcpu"])
        awake = [s for s in states[first : first + int(row["vcpus"])] if s != BLOCKED]
        if len(awake) <= pcpus and RUNNING in awake and set(awake) != {RUNNING}:
            apart.append(number)
    return apart


@given(spec=hosts())
@settings(max_examples=50)
def test_a_strict_gang_runs_whole_or_not_at_all(spec: Any) -> None:
    """Looked at after every event, on any host without faults of pCPUs."""
    import attrs

    spec = attrs.evolve(spec, faults=tuple(f for f in spec.faults if f.kind != "pcpu"))

    def look(memory: HostMemory) -> None:
        assert gangs_apart(memory, spec.cpu.pcpus) == []

    done = run_in_slices(spec, bundled("cosched_strict"), 1, look, timeslice_ns=20 * US)
    assert done.error is None, done.error


def test_other_schedulers_run_gangs_apart() -> None:
    """The same look finds it with round robin: the check can fail."""
    seen: list[int] = []
    tenants = [vm([[FOREVER]] * 2, vcpus=2), vm([[FOREVER]])]
    run_in_slices(
        host(tenants, pcpus=2, horizon_ns=50 * MS),
        bundled("round_robin"),
        1,
        lambda memory: seen.extend(gangs_apart(memory, 2)),
    )
    assert seen


def test_two_gangs_take_turns_and_a_pcpu_idles_beside_the_small_one() -> None:
    """A VM of two vCPUs and one of one on two pCPUs, 10 ms a turn: fragmentation leaves a quarter of the time idle.

    By weight each VM should have the same time: the small one has 10 ms of CPU in a turn, the large one 20.
    """
    tenants = [vm([[FOREVER]] * 2, vcpus=2), vm([[FOREVER]])]
    spec = host(tenants, pcpus=2, horizon_ns=1200 * MS)
    done = run(spec, bundled("cosched_strict"), "interpreted", timeslice_ns=10 * MS)
    assert done.error is None
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[0] == ran[1] == pytest.approx(400 * MS, abs=10 * MS)
    assert ran[2] == pytest.approx(800 * MS, abs=20 * MS)
    assert sum(numbers(done.pcpu["idle_ns"])) == pytest.approx(800 * MS, abs=20 * MS)


def test_a_gang_that_grows_beyond_the_free_pcpus_is_co_stopped() -> None:
    """At 2 ms the second vCPU of VM 0 wakes; VM 1 has the other pCPU, so VM 0 stops until the slot ends at 10 ms."""
    tenants = [vm([[FOREVER], [sleep(2 * MS), FOREVER]], vcpus=2), vm([[FOREVER]])]
    spec = host(tenants, pcpus=2, horizon_ns=20 * MS)
    ran = who_ran(spec, bundled("cosched_strict"), timeslice_ns=10 * MS)
    assert ran[0][:2] == [(0, 0), (2 * MS, -1)]
    assert (10 * MS, 0) in ran[0] and (10 * MS, 1) in ran[1]
    done = run(spec, bundled("cosched_strict"), "interpreted", timeslice_ns=10 * MS)
    assert numbers(done.vcpu["costopped_ns"]) == [8 * MS, 8 * MS, 0]


def test_gangs_evicted_in_vain_are_placed_again() -> None:
    """At 16 ms the third of a waiting gang wakes, on four pCPUs: the light gang, far ahead, gives its two up, the heavy
    one keeps its two, and three do not fit."""
    large = vm([[FOREVER], [FOREVER], [sleep(16 * MS), FOREVER]], vcpus=3)
    light = vm([[sleep(9 * MS), FOREVER]] * 2, vcpus=2, weight=64)
    heavy = vm([[FOREVER]] * 2, vcpus=2, weight=16384)
    spec = host([large, light, heavy], pcpus=4, horizon_ns=19 * MS)
    ran = who_ran(spec, bundled("cosched_strict"), timeslice_ns=10 * MS)
    assert sorted(turns[-1][1] for turns in ran.values()) == [3, 4, 5, 6]
    done = run(spec, bundled("cosched_strict"), "interpreted", timeslice_ns=10 * MS)
    assert sum(numbers(done.pcpu["idle_ns"])) < MS


def test_a_vm_larger_than_the_host_takes_turns_within_itself() -> None:
    spec = host([vm([[FOREVER]] * 3, vcpus=3), vm([[FOREVER]])], pcpus=2, horizon_ns=2 * S)
    done = run(spec, bundled("cosched_strict"), "interpreted", timeslice_ns=5 * MS)
    assert done.error is None
    assert min(numbers(done.vcpu["ran_ns"])[:3]) == pytest.approx(max(numbers(done.vcpu["ran_ns"])[:3]), rel=0.1)


def worst_skew(name: str, **params: Any) -> int:
    """Largest skew between the busy vCPUs of a VM beside a hog, looked at after every event."""
    worst = 0
    # three that never halt, on two pCPUs: for a whole quantum one of the siblings waits
    tenants = [vm([[FOREVER]] * 2, vcpus=2), vm([[FOREVER]], weight=512)]

    def look(memory: HostMemory) -> None:
        nonlocal worst
        proxy = HostProxy(memory, -1)
        now = int(memory.header["now"][0])
        made = [progress(proxy, v, now) for v in range(2)]
        worst = max(worst, abs(made[0] - made[1]))

    done = run_in_slices(host(tenants, pcpus=2, horizon_ns=400 * MS), bundled(name), 1, look, **params)
    assert done.error is None
    return worst


@pytest.mark.parametrize("threshold_ms", [2, 3, 8])
def test_relaxed_co_scheduling_bounds_skew(threshold_ms: int) -> None:
    """Skew is looked at every 1 ms, so that it exceeds the threshold by at most that."""
    assert worst_skew("cosched_relaxed", costop_skew_ns=threshold_ms * MS) <= (threshold_ms + 1) * MS


def test_without_it_skew_grows() -> None:
    assert worst_skew("cosched_relaxed", costop_skew_ns=10 * S) > 20 * MS


def test_a_halted_sibling_is_not_waited_for() -> None:
    """vCPU 1 sleeps nearly always: vCPU 0 is alone with its work and never co-stopped for long."""
    tenants = [vm([[FOREVER], [compute(50 * US), sleep(10 * MS)]], vcpus=2)]
    done = run(host(tenants, pcpus=2, horizon_ns=S), bundled("cosched_relaxed"), "interpreted")
    assert done.vcpu["ran_ns"][0] == S
    assert numbers(done.vcpu["costopped_ns"]) == [0, 0]


def test_the_target_of_a_directed_yield_gets_the_pcpu() -> None:
    """A pause-loop exit names the lock's holder: it runs next where the spinner was."""
    from tests.builders import lock, unlock

    holder = [lock(0), compute(20 * MS), unlock(0), compute(30 * MS)]
    spinner = [compute(MS), lock(0), unlock(0), FOREVER]
    spec = host(
        [vm([holder, spinner], vcpus=2)],
        horizon_ns=40 * MS,
        guest_spin_ns=100 * MS,
        ple_window_ns=MS,
    )
    ran = who_ran(spec, bundled("cosched_relaxed"), quantum_ns=5 * MS, costop_skew_ns=S)
    # 5 ms of the holder; the spinner computes 1 ms, spins 1 ms, and hands the pCPU back
    assert ran[0][:3] == [(0, 0), (5 * MS, 1), (7 * MS, 0)]
