"""Credit2: burn by weight, reset, tickle and its resistance, the rate limit, budget pools, balance by load."""

from __future__ import annotations

import pytest

from hvbench.policy import order_after, order_first
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


@pytest.mark.parametrize("pcpus", [1, 2])
def test_weights_hold_on_one_pcpu_and_on_two(kernel: object, pcpus: int) -> None:
    weights = [256, 512, 1024] * pcpus
    assert_proportional(run(hogs(weights, pcpus=pcpus, horizon_ns=10 * S), CREDIT2), weights, 0.005)


ONE_TO_EIGHT = [32 * share for share in range(1, 9)]


def excess(amounts: list[int]) -> list[float]:
    """By how much each is above what its weight, 1 to 8, entitles it to."""
    return [amount / sum(amounts) * 36 / weight - 1 for weight, amount in enumerate(amounts, 1)]


def test_a_migration_is_paid_in_credits(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 us of credits each time are more CPU time the heavier the VM; without them shares are those of the weights."""
    spec = hogs(ONE_TO_EIGHT, pcpus=2, horizon_ns=2 * S)

    def shares() -> list[float]:
        return excess(numbers(run(spec, CREDIT2, "interpreted").vcpu["ran_ns"]))

    paid = shares()
    assert -0.02 < paid[0] < -0.005 and 0.002 < paid[-1] < 0.02
    monkeypatch.setattr(CREDIT2, "MIGRATE_COMPENSATION", 0)
    assert max(map(abs, shares())) < 0.004


def test_a_light_vm_has_its_time_and_does_less_with_it(kernel: object) -> None:
    """Once credits are level all take turns of the rate limit, 1 ms, whatever they weigh: a light VM has fewer, waits
    longer between them, and finds less in the cache each time. So its work, unlike its time, is less than its share."""

    def run_with(refill_ns: int) -> tuple[list[float], list[float], list[float], list[float]]:
        tenants = [vm([[FOREVER]], weight=weight) for weight in ONE_TO_EIGHT]
        spec = host(tenants, horizon_ns=10 * S, cache_refill_ns=refill_ns, cache_refill_tau_ns=MS)
        done = run(spec, CREDIT2)
        time, work, refill = (numbers(column) for column in (done.vcpu["ran_ns"], *map(done.vm.__getitem__, VM_TIMES)))
        turns_of = numbers(done.vcpu["dispatches"])
        lengths = [t / n for t, n in zip(time, turns_of, strict=True)]
        return excess(time), excess(work), lengths, [r / n for r, n in zip(refill, turns_of, strict=True)]

    time, work, lengths, refill = run_with(200 * US)
    assert max(map(abs, time)) < 0.005
    assert lengths == pytest.approx([MS] * 8, rel=0.01)
    assert refill == sorted(refill, reverse=True) and refill[0] > 1.2 * refill[-1]
    assert work == sorted(work) and work[0] < -0.02 and work[-1] > 0.01
    time, work, _, _ = run_with(0)
    assert work == pytest.approx(time, abs=1e-6)


VM_TIMES = ("work_done_ns", "refill_ns")


def test_credits_have_a_floor(kernel: object) -> None:
    """A rate limit of 10 ms costs the lightest of 1 to 8 eighty ms of credits; it is charged for 20 at most."""
    done = run(hogs(ONE_TO_EIGHT, horizon_ns=10 * S), CREDIT2, ratelimit_ns=10 * MS)
    shares = excess(numbers(done.vcpu["ran_ns"]))
    assert shares[0] > 2 and max(shares[3:]) < 0


def test_those_that_wait_keep_their_order_over_a_reset() -> None:
    """All get the same amount, so nobody passes anybody, not even one of as many credits that came before it."""
    from hvbench.binding import bind
    from hvbench.build import build
    from hvbench.state.proxies import HostProxy
    from hvbench.state.schema import SCHEDULER_SLOT
    from tests.builders import chosen

    memory = build(hogs([256] * 4, horizon_ns=MS))
    bind(memory, [chosen(CREDIT2)], interpreted=True)
    proxy = HostProxy(memory, SCHEDULER_SLOT)
    CREDIT2.sched_pcpu_online(proxy, 0, 0)
    for vcpu in range(4):
        CREDIT2.sched_vcpu_insert(proxy, vcpu, 0)
    for vcpu, credit in ((2, 0), (0, 0), (3, -MS), (1, 0)):
        proxy.vcpu[vcpu].credit = credit
        CREDIT2.enqueue(proxy, vcpu)

    def order() -> list[int]:
        vcpu, listed = order_first(proxy, proxy.box.runq), []
        while vcpu >= 0:
            listed.append(vcpu)
            vcpu = order_after(proxy, proxy.box.runq, vcpu)
        return listed

    assert order() == [2, 0, 1, 3]
    CREDIT2.reset(proxy, 0, 2, 0)
    assert order() == [2, 0, 1, 3]
    assert [proxy.vcpu[vcpu].credit for vcpu in order()] == [10 * MS, 10 * MS, 10 * MS, 9 * MS]


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
