"""CFS and balance: virtual time, wake-ups, siblings on different queues; worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.state.memory import HostMemory
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, run_in_slices, sleep, vm, who_ran

FOREVER = compute(1 << 50)
PLAIN: dict[str, Any] = {"scale_by_pcpus": False, "tick_ns": MS}


def test_two_equal_tasks_share_a_latency() -> None:
    """Each may run 3 of the 6 ms; the first tick after that is at 4 ms."""
    ran = who_ran(host([vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=14 * MS), bundled("cfs"), **PLAIN)
    assert ran[0] == [(0, 0), (4 * MS, 1), (8 * MS, 0), (12 * MS, 1)]


def test_many_tasks_run_for_the_least_granularity() -> None:
    """Twelve tasks: the period is 12 x 0.75 ms, each may run 0.75 ms of it, which the tick of 1 ms ends."""
    tenants = [vm([[FOREVER]]) for _ in range(12)]
    ran = who_ran(host(tenants, horizon_ns=30 * MS), bundled("cfs"), **PLAIN)
    assert [at for at, _ in ran[0]] == [at * MS for at in range(30)]
    assert {entity for _, entity in ran[0]} == set(range(12))


@pytest.mark.parametrize(("granularity_ms", "at_us"), [(1, 13_500), (4, 14_000)])
def test_a_sleeper_is_placed_half_a_latency_back(granularity_ms: int, at_us: int) -> None:
    """It sleeps from 4 to 13.5 ms and wakes 3 ms behind who runs: that preempts if 1 ms is enough, else the tick."""
    tenants = [vm([[FOREVER]]), vm([[sleep(9_500 * US), FOREVER]])]
    ran = who_ran(
        host(tenants, horizon_ns=16 * MS), bundled("cfs"), wakeup_granularity_ns=granularity_ms * MS, **PLAIN
    )
    assert [at for at, entity in ran[0] if entity == 1] == [at_us * US]


def together(spec: Any, name: str) -> int:
    """How often two vCPUs of a VM stood in one run queue, looked at after every event."""
    seen = 0

    def look(memory: HostMemory) -> None:
        nonlocal seen
        homes = numbers(memory.slots[0].own["vcpu"]["home"])
        states = numbers(memory.tables["vcpu"]["state"])
        for first in range(0, len(homes), 2):
            seen += 0 not in states[first : first + 2] and homes[first] == homes[first + 1]

    assert run_in_slices(spec, bundled(name), 1, look).error is None
    return seen


def siblings_and_neighbours(pcpus: int = 4) -> Any:
    """Four VMs of two vCPUs that compute and sleep at different paces."""
    tenants = [vm([[compute((300 + 170 * i) * US), sleep(90 * US)]] * 2, vcpus=2) for i in range(4)]
    return host(tenants, pcpus=pcpus, horizon_ns=30 * MS)


def test_balance_keeps_siblings_on_different_queues() -> None:
    assert together(siblings_and_neighbours(), "balance") == 0


def test_cfs_does_not() -> None:
    assert together(siblings_and_neighbours(), "cfs") > 0


def test_balance_puts_up_with_fewer_pcpus_than_siblings() -> None:
    tenants = [vm([[FOREVER]] * 3, vcpus=3), vm([[FOREVER]])]
    done = run(host(tenants, pcpus=2, horizon_ns=2 * S), bundled("balance"), "interpreted")
    assert done.error is None
    assert min(numbers(done.vcpu["ran_ns"])) > 0.2 * S
