"""The null scheduler: a pCPU for each entity, for good."""

from __future__ import annotations

import pytest

from hvbench.policy import hookimpl
from tests.builders import MS, US, bundled, compute, host, numbers, run, sleep, vm

FOREVER = compute(1 << 50)


def test_nobody_ever_moves() -> None:
    tenants = [vm([[compute((i + 3) * 7 * US), sleep(5 * US)]]) for i in range(6)]
    done = run(host(tenants, pcpus=3, horizon_ns=3 * MS), bundled("null"), "interpreted")
    assert done.error is None
    assert numbers(done.vcpu["migrations"]) == [0] * 6
    assert numbers(done.vcpu["pcpu"]) == [0, 1, 2, 0, 1, 2]


def test_alone_on_its_pcpu_an_entity_never_waits() -> None:
    tenants = [vm([[compute(11 * US), sleep(3 * US)]]) for _ in range(4)]
    done = run(host(tenants, pcpus=4, horizon_ns=MS), bundled("null"), "interpreted")
    assert numbers(done.vcpu["ready_ns"]) == [0] * 4


def test_two_on_one_pcpu_are_not_preempted() -> None:
    """The second waits until the first blocks, although the other pCPU idles."""
    tenants = [vm([[compute(100 * US), sleep(10 * US)]]), vm([[sleep(MS)]]), vm([[compute(5 * US), sleep(MS)]])]
    done = run(host(tenants, pcpus=2, horizon_ns=300 * US), bundled("null"), "interpreted")
    assert done.vcpu["pcpu"][2] == 0
    assert done.vcpu["ready_ns"][2] == 100 * US
    assert done.pcpu["idle_ns"][1] == 300 * US


@pytest.mark.parametrize(("mask", "expected"), [(0b10, 1), (0b100, 2), (0, 0)])
def test_affinity_is_honoured(mask: int, expected: int) -> None:
    done = run(host([vm([[FOREVER]], affinity=mask)], pcpus=3, horizon_ns=MS), bundled("null"), "interpreted")
    assert done.vcpu["pcpu"][0] == expected
    assert done.pcpu["guest_ns"][expected] == MS


def test_an_entity_that_is_blocked_while_it_waits_leaves_the_queue() -> None:
    """A hold by somebody else (an observer stands in for a memory policy) must not leave it queued."""
    from hvbench.kernel.services import block, unblock

    class Holder:
        """Blocks entity 2 while it waits for its pCPU."""

        def __init__(self) -> None:
            self.state = 0

        @hookimpl(wrapper=True)
        def sched_pick_next(self, host, pcpu, prev, now):  # type: ignore[no-untyped-def]
            if self.state == 0 and now >= 10 * US:
                self.state = 1
                block(host, 2)
            elif self.state == 1 and now >= 200 * US:
                self.state = 2
                unblock(host, 2)
            return (yield)

    tenants = [
        vm([[compute(100 * US), sleep(10 * US)] * 9]),
        vm([[compute(4 * US), sleep(9 * US)]]),
        vm([[compute(5 * US), sleep(MS)]]),
    ]
    done = run(host(tenants, pcpus=2, horizon_ns=400 * US), bundled("null"), "interpreted", observers=(Holder(),))
    assert done.error is None, done.error
    assert done.vcpu["ran_ns"][2] == 5 * US
    assert done.vcpu["dispatches"][2] == 1
