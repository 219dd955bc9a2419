"""Round robin: in turn, by the slice, and nobody idles while somebody waits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.policy import hookimpl
from tests.builders import MS, US, bundled, compute, host, numbers, run, sleep, vm

FOREVER = compute(1 << 50)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40))
def test_cpu_bound_entities_run_in_turn(pcpus: int, entities: int, slice_us: int) -> None:
    """After any time nobody is more than one slice ahead of anybody, and every pCPU that can be busy is."""
    spec = host([vm([[FOREVER]]) for _ in range(entities)], pcpus=pcpus, horizon_ns=MS)
    done = run(spec, bundled("round_robin"), "interpreted", timeslice_ns=slice_us * US)
    ran = numbers(done.vcpu["ran_ns"])
    assert max(ran) - min(ran) <= slice_us * US
    assert sum(ran) == min(pcpus, entities) * MS


def test_the_order_is_the_order_of_arrival() -> None:
    turns: list[int] = []

    class Watch:
        @hookimpl(wrapper=True)
        def sched_pick_next(self, host, pcpu, prev, now):  # type: ignore[no-untyped-def]
            answer = yield
            turns.append(answer[0])
            return answer

    spec = host([vm([[FOREVER]]) for _ in range(3)], horizon_ns=60 * US)
    run(spec, bundled("round_robin"), "interpreted", observers=(Watch(),), timeslice_ns=10 * US)
    assert turns == [0, 1, 2, 0, 1, 2]


def test_who_is_woken_waits_for_its_turn() -> None:
    """A woken entity preempts nobody: it goes behind those who wait."""
    tenants = [vm([[FOREVER]]), vm([[FOREVER]]), vm([[sleep(25 * US), compute(US)]])]
    done = run(host(tenants, horizon_ns=61 * US), bundled("round_robin"), "interpreted", timeslice_ns=10 * US)
    # in turn at 0: A 10, B 20, C at 20 falls asleep; A 30, B 40, A 50; C wakes at 45 behind B (waits) -> B 60, then C
    assert done.vcpu["ready_ns"][2] == 20 * US + 15 * US
    assert done.vcpu["ran_ns"][2] == US


@pytest.mark.parametrize("slice_ns", [1, 999, MS])
def test_the_slice_is_the_parameter(slice_ns: int) -> None:
    horizon_ns = 40 * slice_ns
    spec = host([vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=horizon_ns)
    done = run(spec, bundled("round_robin"), "interpreted", timeslice_ns=slice_ns)
    assert done.decisions == 40
    assert numbers(done.vcpu["ran_ns"]) == [20 * slice_ns] * 2
