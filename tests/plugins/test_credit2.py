"""Credit2: burn by weight, reset, tickle and its resistance, the rate limit, budget pools, balance by load."""

from __future__ import annotations

import pytest

from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_proportional, assert_same_bits, hogs, turns

CREDIT2 = bundled("credit2")


def test_who_has_more_credits_runs_until_it_has_as_few() -> None:
    """10 ms each: both are used up at 20 ms, and all start anew: the one that runs for a slice of at least 500 us."""
    taken = turns(hogs([256, 256], horizon_ns=41 * MS), CREDIT2, ratelimit_ns=0)
    expected = [(0, 0), (1, 10), (1, 20), (0, 20.5), (1, 30.5), (1, 40), (0, 40.5)]
    assert taken == [(vcpu, int(ms * MS)) for vcpu, ms in expected]


def test_the_lighter_one_burns_faster() -> None:
    """Weights 1 : 3: 10 ms of credits are 3.33 ms for the lighter one."""
    taken = turns(hogs([256, 768], horizon_ns=13 * MS), CREDIT2)
    assert [vcpu for vcpu, _ in taken] == [0, 1]
    assert taken[1][1] == pytest.approx(10 * MS / 3, abs=2)


def test_weights_1_to_8(kernel: object) -> None:
    weights = [256 * share for share in range(1, 9)]
    assert_proportional(run(hogs(weights, horizon_ns=20 * S), CREDIT2), weights, 0.01)


def test_weights_hold_over_the_pcpus_of_a_queue(kernel: object) -> None:
    weights = [256, 512, 1024] * 4
    assert_proportional(run(hogs(weights, pcpus=4, horizon_ns=10 * S), CREDIT2), weights, 0.06)


def test_a_reset_leaves_no_savings() -> None:
    """After seconds of sleep it has the same credits as if it had slept for 10 ms: no claim on what it did not use."""
    late = vm([[sleep(S), FOREVER]])
    done = run(host([late, vm([[FOREVER]])], horizon_ns=S + 100 * MS), CREDIT2, "interpreted")
    assert done.vcpu["ran_ns"][0] == pytest.approx(50 * MS, abs=6 * MS)


def test_the_rate_limit_is_what_a_waker_waits_for() -> None:
    """Beside two hogs: whoever runs is not preempted before its rate limit, nor (as in Xen) asked again after it."""

    def waits_ns(ratelimit_ns: int) -> float:
        light = vm([[sleep(1300 * US), compute(100 * US)] * 50])
        spec = host([light, vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=50 * MS)
        done = run(spec, CREDIT2, "interpreted", ratelimit_ns=ratelimit_ns)
        return float(done.vcpu["ready_ns"][0] / done.vcpu["dispatches"][0])

    assert waits_ns(0) < waits_ns(MS) < waits_ns(4 * MS)


@pytest.mark.parametrize("cap", [20, 50, 75])
def test_a_cap_holds_on_an_idle_host(kernel: object, cap: int) -> None:
    done = run(host([vm([[FOREVER]], cap=cap)], pcpus=2, horizon_ns=2 * S), CREDIT2)
    assert done.vcpu["ran_ns"][0] == pytest.approx(cap / 100 * 2 * S, rel=0.02)


def test_a_cap_is_a_pool_of_all_vcpus() -> None:
    """120 % over four vCPUs of which only two want to run: they may have it all."""
    busy = vm([[FOREVER], [FOREVER], [sleep(S)], [sleep(S)]], vcpus=4, cap=120)
    done = run(host([busy, vm([[FOREVER]])], pcpus=4, horizon_ns=200 * MS), CREDIT2, "interpreted")
    assert sum(numbers(done.vcpu["ran_ns"][:4])) == pytest.approx(240 * MS, rel=0.04)
    assert done.vcpu["ran_ns"][4] == 200 * MS


def test_queues_are_arranged_by_topology() -> None:
    """Eight pCPUs, two threads a core, two cores a cache: where a VM is put is not where it may wander."""
    spec = host(
        [vm([[compute(300 * US), sleep(200 * US)]]) for _ in range(8)],
        pcpus=8,
        horizon_ns=20 * MS,
        threads_per_core=2,
        cores_per_llc=2,
    )
    migrations = [sum(numbers(run(spec, CREDIT2, "interpreted", runqueue=how).vcpu["migrations"])) for how in (0, 2, 4)]
    assert migrations[0] == 0 and migrations[1] <= migrations[2]


def test_balancing_moves_load_to_the_queue_that_has_less() -> None:
    """A queue for each of two pCPUs; the four that are on the second one sleep for good after a while."""
    stays = [vm([[FOREVER]]) for _ in range(4)]
    leaves = [vm([[compute(20 * MS), sleep(10 * S)]]) for _ in range(4)]
    tenants = [v for pair in zip(stays, leaves, strict=True) for v in pair]
    done = run(host(tenants, pcpus=2, horizon_ns=4 * S), CREDIT2, "interpreted", runqueue=0)
    ran = numbers(done.vcpu["ran_ns"])
    # alone on the second pCPU for most of the time, or all four on the first one
    assert sum(ran) > 0.75 * 2 * 4 * S
    assert sum(numbers(done.vcpu["migrations"])) >= 2


def test_a_pinned_vm_is_never_moved() -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), *[vm([[FOREVER]]) for _ in range(3)]]
    for how in (0, 4):
        done = run(host(tenants, pcpus=2, horizon_ns=200 * MS), CREDIT2, "interpreted", runqueue=how)
        assert done.vcpu["pcpu"][0] == 1 and done.vcpu["migrations"][0] == 0
        assert min(numbers(done.vcpu["ran_ns"])) > 50 * MS


def test_why_it_is_not_work_conserving(kernel: object) -> None:
    """pCPUs idle beside those that wait in another queue, and beside those whose credits are nearly the least."""
    from hvbench.plugins import load_registry
    from hvbench.testing.check_scheduler import unbound, wasted_ns
    from hvbench.testing.dice import SeededDice
    from hvbench.testing.generate import cpu_story
    from hvbench.testing.lab import Lab
    from hvbench.testing.subject import subject_of

    credit2 = subject_of(load_registry().get("scheduler", "credit2"))
    stories = [unbound(cpu_story(SeededDice(1_000 + n))) for n in range(10)]

    def wasted(**params: int) -> int:
        return sum(wasted_ns(Lab(credit2.with_params(**params), compiles=False), story)[0] for story in stories)

    assert wasted() > wasted(runqueue=4) > wasted(runqueue=4, migrate_resist_ns=0) == 0


@pytest.mark.parametrize(("pcpus", "runqueue"), [(1, 2), (3, 0), (3, 4)])
def test_same_bits_in_both_modes(kernel: object, pcpus: int, runqueue: int) -> None:
    assert_same_bits(CREDIT2, pcpus, runqueue=runqueue)
