"""BVT: who is behind runs, ahead by no more than the allowance; warps; pCPUs of their own."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.policy import hookimpl
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_proportional, assert_same_bits, hogs, turns

BVT = bundled("bvt")


def test_each_runs_until_it_is_ahead_by_the_allowance() -> None:
    """Equal weights, allowance 10 us: one gets ahead by 10, and from then on each catches up 10 and leads by 10."""
    taken = turns(hogs([256, 256], horizon_ns=100 * US), BVT, ctx_allow_ns=10 * US, mcu_ns=US)
    assert taken == [(0, 0), (1, 10 * US), (0, 30 * US), (1, 50 * US), (0, 70 * US), (1, 90 * US)]


def test_runs_are_charged_in_whole_units() -> None:
    """10.5 us are charged as 11: the second one is 11 us behind, and leads by 10 after 21."""
    taken = turns(hogs([256, 256], horizon_ns=50 * US), BVT, ctx_allow_ns=10_500, mcu_ns=US)
    assert taken == [(0, 0), (1, 10_500), (0, 10_500 + 11_000 + 10_500)]


def test_weights_1_to_8(kernel: object) -> None:
    weights = [256 * share for share in range(1, 9)]
    assert_proportional(run(hogs(weights, horizon_ns=10 * S), BVT), weights, 0.03)


def test_who_wakes_waits_for_the_allowance_of_who_runs() -> None:
    """Asleep for 4 us of the other one's 10: it waits for 6, both times."""
    light = vm([[sleep(4 * US), compute(US)] * 10])
    done = run(host([light, vm([[FOREVER]])], horizon_ns=22 * US), BVT, "interpreted", ctx_allow_ns=10 * US, mcu_ns=US)
    assert done.vcpu["ready_ns"][0] == 12 * US
    assert done.vcpu["ran_ns"][0] == 2 * US


def test_sleeping_earns_nothing() -> None:
    """But for what the other one ran and was not yet charged for: ten allowances, where it is alone."""
    late = vm([[sleep(20 * MS), FOREVER]])
    done = run(host([late, vm([[FOREVER]])], horizon_ns=60 * MS), BVT, "interpreted", ctx_allow_ns=100 * US)
    assert done.vcpu["ran_ns"][0] == pytest.approx(20 * MS, abs=MS)


def waker(observers: tuple[Any, ...] = (), **warp: int) -> Any:
    """A VM that wants half of the pCPU beside two that want all of it, for 50 ms."""
    tenants = [vm([[compute(500 * US), sleep(500 * US)] * 50], **warp), vm([[FOREVER]]), vm([[FOREVER]])]
    return run(host(tenants, horizon_ns=50 * MS), BVT, "interpreted", observers, ctx_allow_ns=100 * US)


def test_a_warp_borrows_from_the_future_and_pays_back() -> None:
    plain = waker()
    warped = waker(warp_ahead_ns=3 * MS, warp_limit_ns=MS)
    # it is served sooner, by 3 ms of lead and no more: what it borrowed it must not have again
    assert warped.vcpu["ran_ns"][0] >= plain.vcpu["ran_ns"][0] + MS
    assert warped.vcpu["ran_ns"][0] <= 50 * MS / 3 + 3 * MS
    waits = [done.vcpu["ready_ns"][0] / done.vcpu["dispatches"][0] for done in (plain, warped)]
    assert waits[1] < 0.8 * waits[0]


def test_a_warp_without_a_limit_is_none() -> None:
    """Xen's warpl of 0: not for an instant."""
    assert waker(warp_ahead_ns=3 * MS).fingerprint() == waker().fingerprint()


def warps(**warp: int) -> list[int]:
    """When the VM that wakes was chosen while it was ahead, ns."""
    found: list[int] = []

    class Watch:
        @hookimpl(wrapper=True)
        def sched_pick_next(self, host, pcpu, prev, now):  # type: ignore[no-untyped-def]
            answer = yield
            if answer[0] == 0 and host.vcpu[0].warping == 1:
                found.append(now)
            return answer

    waker((Watch(),), **warp)
    return found


def test_a_rest_keeps_the_next_warp_away() -> None:
    """Its work of 500 us outlasts a limit of 100, so it falls back; a wake within the rest begins it anew."""
    limited = {"warp_ahead_ns": 3 * MS, "warp_limit_ns": 100 * US}
    assert len(warps(**limited)) > 10
    once = warps(**limited, warp_rest_ns=20 * MS)
    assert once and once[-1] <= 100 * US
    assert len(warps(**limited, warp_rest_ns=100 * US)) > 10


def test_entities_stay_where_they_are_pinned_or_were_put() -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[FOREVER]])]
    done = run(host(tenants, pcpus=2, horizon_ns=50 * MS), BVT, "interpreted")
    assert numbers(done.vcpu["pcpu"][:3]) == [1, 1, 0]
    assert numbers(done.vcpu["migrations"][:3]) == [0, 0, 0]


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(BVT, pcpus, ctx_allow_ns=MS)
