"""SEDF: slices in their periods, extra time by weight, penalties for blocking, short periods after a long block."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_proportional, assert_same_bits, hogs, turns

SEDF = bundled("sedf")


def served(period_us: int, slice_us: int, extratime: int = 0, **settings: int) -> Any:
    """A CPU-bound VM with a slice in every period."""
    rt = {"rt_period_ns": period_us * US, "rt_budget_ns": slice_us * US, "rt_extratime": extratime}
    return vm([[FOREVER]], **rt, **settings)


def test_slices_come_first_and_extra_time_in_quanta() -> None:
    """Slice 4 us of 10: its first deadline is one slice after it woke, so its periods begin at 4, 14, 24."""
    taken = turns(host([served(10, 4), vm([[FOREVER]])], horizon_ns=24 * US), SEDF, extra_quantum_ns=2 * US)
    expected = [(1, 0), (1, 2), (0, 4), (1, 8), (1, 10), (1, 12), (0, 14), (1, 18), (1, 20), (1, 22)]
    assert taken == [(vcpu, us * US) for vcpu, us in expected]


def test_what_is_left_before_a_period_is_not_dealt_out() -> None:
    """6 us between the slices are one quantum of 4 and 2 us of idling."""
    spec = host([served(10, 4), vm([[FOREVER]])], horizon_ns=104 * US)
    done = run(spec, SEDF, "interpreted", extra_quantum_ns=4 * US)
    assert numbers(done.vcpu["ran_ns"]) == [40 * US, 44 * US]
    assert done.pcpu["idle_ns"][0] == 20 * US


def test_everybody_has_its_slice_and_without_extratime_no_more() -> None:
    tenants = [served(1000, 200), served(2000, 500), served(4000, 1000)]
    done = run(host(tenants, horizon_ns=40 * MS), SEDF, "interpreted")
    for time_ns, share, slice_us in zip(numbers(done.vcpu["ran_ns"]), (0.2, 0.25, 0.25), (200, 500, 1000), strict=True):
        assert abs(time_ns - share * 40 * MS) <= slice_us * US


def test_weights_1_to_8(kernel: object) -> None:
    weights = [256 * share for share in range(1, 9)]
    assert_proportional(run(hogs(weights, horizon_ns=5 * S), SEDF), weights, 0.01)


def test_weights_as_slices(kernel: object) -> None:
    """95 of 100 ms by weight, the rest as extra time, by weight too."""
    done = run(hogs([256, 512, 1024], horizon_ns=5 * S), SEDF, weight_slices=True)
    assert_proportional(done, [256, 512, 1024], 0.01)
    assert done.decisions < 5 * 50 * 20, "in slices of tens of ms, not in quanta of 500 us"


def test_a_reservation_comes_before_weights() -> None:
    """40 % for two vCPUs together, 20 each, and their weight in the rest like anybody else's."""
    tenants = [vm([[FOREVER]] * 2, vcpus=2, reservation=40, weight=1), vm([[FOREVER]], weight=2560)]
    done = run(host(tenants, horizon_ns=S), SEDF, "interpreted")
    assert numbers(done.vcpu["ran_ns"][:2]) == [pytest.approx(200 * MS, rel=0.03)] * 2


def test_who_blocks_in_its_slice_is_made_up_for_in_extra_time() -> None:
    """It uses a tenth of its slice and blocks: what it lost puts it before the others when it is back."""
    blocker = vm([[compute(50 * US), sleep(150 * US)]], rt_period_ns=10 * MS, rt_budget_ns=5 * MS, rt_extratime=1)
    done = run(host([blocker, vm([[FOREVER]], weight=2560)], horizon_ns=100 * MS), SEDF, "interpreted")
    # a period of 10 ms has the rest of a slice at its begin; back within it, it waits for a quantum of 500 us at most
    per_turn = 50 * US + 150 * US + 500 * US
    assert done.vcpu["ran_ns"][0] >= 0.9 * 50 * US * (100 * MS / per_turn)


def test_a_latency_begins_with_short_periods_after_a_long_block() -> None:
    """Slice 5 of 50 ms, from 5 ms on; asleep from 5 to 65: with a latency of 5 ms 0.5 of 5 ms, then 1 of 10 ..."""

    def woken(latency_ms: int) -> list[int]:
        late = vm(
            [[sleep(60 * MS), FOREVER]],
            rt_period_ns=50 * MS,
            rt_budget_ns=5 * MS,
            rt_extratime=0,
            rt_latency_ns=latency_ms * MS,
        )
        taken = turns(host([late, vm([[FOREVER]])], horizon_ns=200 * MS), SEDF)
        return [now for vcpu, now in taken if vcpu == 0 and now > 0]

    assert woken(0) == [t * MS for t in (5, 65, 115, 165)]
    assert woken(5) == [t * MS for t in (5, 65, 70, 80, 100, 140, 190)]


def test_entities_stay_where_they_are_pinned() -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[FOREVER]])]
    done = run(host(tenants, pcpus=2, horizon_ns=20 * MS), SEDF, "interpreted")
    assert numbers(done.vcpu["pcpu"][:3]) == [1, 1, 0]
    assert numbers(done.vcpu["migrations"][:3]) == [0, 0, 0]


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(SEDF, pcpus)
