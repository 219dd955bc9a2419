"""EEVDF: who is eligible, whose deadline is first, and what a sleeper keeps; worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.state.memory import HostMemory
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, run_in_slices, sleep, vm, who_ran

FOREVER = compute(1 << 50)
PLAIN: dict[str, Any] = {"base_slice_ns": 3 * MS, "scale_by_pcpus": False, "tick_ns": MS}
"""A slice of 3 ms and a tick of 1 ms."""


def test_two_equal_tasks_take_turns_of_a_slice() -> None:
    """A new task has half a slice, noticed at the tick of 2 ms; from then on each runs to its deadline, 3 ms on."""
    ran = who_ran(host([vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=15 * MS), bundled("eevdf"), **PLAIN)
    assert ran[0] == [(0, 0), (2 * MS, 1), (4 * MS, 0), (7 * MS, 1), (10 * MS, 0), (13 * MS, 1)]


def test_a_task_of_twice_the_weight_runs_twice_as_often() -> None:
    """Its deadlines lie half as far apart in virtual time, so it has two slices where the other one has one."""
    ran = who_ran(host([vm([[FOREVER]], weight=512), vm([[FOREVER]])], horizon_ns=100 * MS), bundled("eevdf"), **PLAIN)
    spans = {0: 0, 1: 0}
    for (at, entity), (until, _) in zip(ran[0], [*ran[0][1:], (100 * MS, -1)], strict=True):
        spans[entity] += until - at
        assert until - at <= 7 * MS
    assert spans[0] == pytest.approx(200 / 3 * MS, abs=4 * MS)


def fields(spec: Any, at_ns: int, **params: Any) -> list[dict[str, int]]:
    """The policy's own fields of every entity after the last event before or at a time."""
    kept: list[dict[str, int]] = []

    def look(memory: HostMemory) -> None:
        if int(memory.header["now"][0]) <= at_ns:
            table = memory.slots[0].own["vcpu"]
            kept[:] = [{n: int(row[n]) for n in table.dtype.names} for row in table]

    assert run_in_slices(spec, bundled("eevdf"), 1, look, **params).error is None
    return kept


def test_a_sleeper_keeps_what_it_is_owed() -> None:
    """Task 1 runs from 2 to 3.5 ms: 1.5 against 2, an average of 1.75, so it is owed 0.25.

    It wakes at 13.5, when task 0 has had 12: it is placed 0.25 behind the average of both, at 11.5, and preempts.
    """
    tenants = [vm([[FOREVER]]), vm([[compute(1_500 * US), sleep(10 * MS)]])]
    spec = host(tenants, horizon_ns=14 * MS)
    assert fields(spec, 13 * MS, **PLAIN)[1]["lag_ns"] == 250 * US
    after = fields(spec, 13_500 * US, **PLAIN)
    assert after[1]["vruntime_ns"] == 11_500 * US
    assert after[1]["deadline_ns"] == 14_500 * US
    ran = who_ran(spec, bundled("eevdf"), **PLAIN)
    assert ran[0] == [(0, 0), (2 * MS, 1), (3_500 * US, 0), (13_500 * US, 1)]


def sleeper_that_owes(sleep_ns: int) -> Any:
    """Task 0 sleeps at 1.2 ms, 0.6 ahead of the average; task 1 never sleeps."""
    return host([vm([[compute(1_200 * US), sleep(sleep_ns), FOREVER]]), vm([[FOREVER]])], horizon_ns=12 * MS)


def test_who_owes_stays_in_the_queue_until_it_is_worked_off() -> None:
    """At 3 ms task 1 has had 1.8: task 0, at 1.2, is eligible and first. Now it leaves, and nobody owes anything."""
    before = fields(sleeper_that_owes(10 * MS), 2 * MS, **PLAIN)[0]
    assert (before["delayed"], before["vruntime_ns"]) == (1, 1_200 * US)
    after = fields(sleeper_that_owes(10 * MS), 3 * MS, **PLAIN)[0]
    assert (after["delayed"], after["queued"], after["lag_ns"]) == (0, 0, 0)


def test_who_wakes_while_it_owes_owes_what_is_left() -> None:
    """At 2.2 ms task 1 has had 1.0: task 0 is still 0.1 ahead of the average, and stays where it is."""
    after = fields(sleeper_that_owes(MS), 2_200 * US, **PLAIN)[0]
    assert (after["delayed"], after["queued"], after["vruntime_ns"]) == (0, 1, 1_200 * US)


def test_without_delayed_dequeue_the_debt_waits_for_the_sleeper() -> None:
    """As in 6.6: it comes back 0.6 ahead of the average of both: at 1.0 + 1.2."""
    after = fields(sleeper_that_owes(MS), 2_200 * US, delay_dequeue=False, **PLAIN)[0]
    assert (after["lag_ns"], after["vruntime_ns"]) == (-600 * US, 2_200 * US)


@pytest.mark.parametrize(("lazy", "at_us"), [(False, 13_500), (True, 14_000)])
def test_lazy_preemption_waits_for_the_tick(lazy: bool, at_us: int) -> None:
    tenants = [vm([[FOREVER]]), vm([[compute(1_500 * US), sleep(10 * MS), FOREVER]])]
    ran = who_ran(host(tenants, horizon_ns=15 * MS), bundled("eevdf"), lazy_preemption=lazy, **PLAIN)
    assert (at_us * US, 1) in ran[0]


@pytest.mark.parametrize(("pcpus", "slice_us"), [(1, 750), (2, 1_500), (4, 2_250), (8, 3_000), (16, 3_000)])
def test_the_slice_grows_with_the_pcpus(pcpus: int, slice_us: int) -> None:
    """1 + ilog2(min(cpus, 8)) times 0.75 ms; with a fine tick, that is how long the second turn lasts."""
    tenants = [vm([[FOREVER]]) for _ in range(2 * pcpus)]
    ran = who_ran(host(tenants, pcpus=pcpus, horizon_ns=8 * MS), bundled("eevdf"), tick_ns=50 * US)
    turns = [b[0] - a[0] for a, b in zip(ran[0], ran[0][1:], strict=False)]
    assert turns[2:] == pytest.approx([slice_us * US] * len(turns[2:]), abs=50 * US)


def test_a_deadline_is_noticed_at_the_tick_only() -> None:
    """HZ sets how long a slice really is: with 250 Hz the 0.75 ms of one pCPU become 4."""
    tenants = [vm([[FOREVER]]), vm([[FOREVER]])]
    ran = who_ran(host(tenants, horizon_ns=17 * MS), bundled("eevdf"))
    assert ran[0] == [(0, 0), (4 * MS, 1), (8 * MS, 0), (12 * MS, 1), (16 * MS, 0)]


def test_vcpus_of_a_vm_share_its_weight() -> None:
    """A VM is a cgroup: four busy vCPUs together get what one of another VM gets."""
    tenants = [vm([[FOREVER]] * 4, vcpus=4), vm([[FOREVER]])]
    done = run(host(tenants, horizon_ns=4 * S), bundled("eevdf"), "interpreted")
    ran = numbers(done.vcpu["ran_ns"])
    assert sum(ran[:4]) == pytest.approx(2 * S, rel=0.02)
    assert ran[:4] == pytest.approx([S / 2] * 4, rel=0.03)
