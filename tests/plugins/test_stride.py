"""Stride: turns by pass, shares by tickets to the quantum, no credit for having slept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_proportional, assert_same_bits, hogs, turns

STRIDE = bundled("stride")


def test_the_example_of_the_paper() -> None:
    """Tickets 3 : 2 : 1, so strides 2 : 3 : 6. Passes at 2, 3, 4, then 6, 6, 6 in the order in which they got there."""
    taken = turns(hogs([300, 200, 100], horizon_ns=144 * US), STRIDE, quantum_ns=12 * US)
    order = [vcpu for vcpu, _ in taken]
    assert order[:6] == [0, 1, 0, 2, 1, 0]
    assert order[6:] == order[:6]
    assert [now for _, now in taken] == [12 * US * i for i in range(12)]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 8), min_size=2, max_size=6), st.integers(1, 30))
def test_nobody_is_ever_a_quantum_away_from_its_share(shares: list[int], quantum_us: int) -> None:
    """The paper's bound for two clients is one quantum; for n it is less than n quanta."""
    weights = [256 * share for share in shares]
    horizon_ns = 200 * quantum_us * US
    done = run(hogs(weights, horizon_ns=horizon_ns), STRIDE, "interpreted", quantum_ns=quantum_us * US)
    for weight, ran in zip(weights, numbers(done.vcpu["ran_ns"]), strict=True):
        assert abs(ran - weight * horizon_ns / sum(weights)) <= len(weights) * quantum_us * US


def test_weights_1_to_8(kernel: object) -> None:
    weights = [256 * share for share in range(1, 9)]
    assert_proportional(run(hogs(weights, horizon_ns=20 * S), STRIDE, quantum_ns=2 * MS), weights, 0.01)


def test_a_part_of_a_quantum_costs_what_it_used() -> None:
    """Half a quantum at a time: the light VM has a turn for each half of what the other one runs."""
    # 5 us of work and a sleep that is over at once: it always wants to run, but gives the CPU up half way
    light = vm([[compute(5 * US), sleep(1)] * 1000])
    done = run(host([light, vm([[FOREVER]])], horizon_ns=4 * MS), STRIDE, "interpreted", quantum_ns=10 * US)
    ran = numbers(done.vcpu["ran_ns"])
    # every sleep costs it a turn of the other one, so it cannot have half; what it has is one half quantum a quantum
    assert ran[0] == pytest.approx(4 * MS / 3, rel=0.02)


def test_sleeping_earns_nothing() -> None:
    """Who slept 1 ms has no claim on the 500 us that it did not use."""
    late = vm([[sleep(MS), FOREVER]])
    done = run(host([late, vm([[FOREVER]])], horizon_ns=2 * MS), STRIDE, "interpreted", quantum_ns=10 * US)
    assert numbers(done.vcpu["ran_ns"]) == [pytest.approx(500 * US, abs=20 * US), pytest.approx(1500 * US, abs=20 * US)]


def test_a_pinned_vm_waits_for_its_pcpu_and_leaves_no_other_idle() -> None:
    tenants = [vm([[FOREVER]], affinity=0b01), vm([[FOREVER]]), vm([[FOREVER]], affinity=0b01)]
    done = run(host(tenants, pcpus=2, horizon_ns=2 * MS), STRIDE, "interpreted", quantum_ns=20 * US)
    assert numbers(done.pcpu["idle_ns"]) == [0, 0]
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[1] == pytest.approx(2 * MS, abs=50 * US)
    assert ran[0] == pytest.approx(MS, abs=50 * US) and ran[2] == pytest.approx(MS, abs=50 * US)
    assert done.vcpu["pcpu"][0] == 0 and done.vcpu["pcpu"][2] == 0


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(STRIDE, pcpus, quantum_ns=2 * MS)
