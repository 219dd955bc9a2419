"""Credit: shares by weight, caps, boost, stealing."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.kernel.histogram import BUCKETS, H_WAKEUP, bucket_floor
from hvbench.readout import histograms
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import assert_same_bits

FOREVER = compute(1 << 50)


def slowest_wakeup_ns(done: object, number: int) -> int:
    counts = histograms(done.memory)[number, H_WAKEUP]  # type: ignore[attr-defined]
    return max(bucket_floor(b) for b in range(BUCKETS) if counts[b])


@pytest.mark.parametrize("pcpus", [1, 2])
def test_cpu_bound_entities_share_by_weight(kernel: object, pcpus: int) -> None:
    """Weights 1 : 2 : 4, a VM of each weight for each pCPU, for 20 s: proportional within 2 %, some slices of 30 ms."""
    weights = [256, 512, 1024] * pcpus
    done = run(host([vm([[FOREVER]], weight=w) for w in weights], pcpus=pcpus, horizon_ns=20 * S), bundled("credit"))
    assert done.error is None
    ran = numbers(done.vcpu["ran_ns"])
    assert sum(ran) == pcpus * 20 * S
    for weight, time_ns in zip(weights, ran, strict=True):
        assert time_ns == pytest.approx(weight / sum(weights) * pcpus * 20 * S, rel=0.02)


def test_equal_weights_share_equally_however_many_vms(kernel: object) -> None:
    done = run(host([vm([[FOREVER]]) for _ in range(10)], pcpus=4, horizon_ns=10 * S), bundled("credit"))
    for time_ns in numbers(done.vcpu["ran_ns"]):
        assert time_ns == pytest.approx(4 * S, rel=0.02)


@pytest.mark.parametrize("cap", [20, 50, 75])
def test_a_cap_holds_on_an_idle_host(kernel: object, cap: int) -> None:
    """A cap is kept within 3 % even where nobody else wants the CPU."""
    done = run(host([vm([[FOREVER]], cap=cap)], pcpus=2, horizon_ns=10 * S), bundled("credit"))
    assert done.error is None
    assert done.vcpu["ran_ns"][0] == pytest.approx(cap / 100 * 10 * S, rel=0.03)


def test_a_cap_holds_beside_an_uncapped_neighbour(kernel: object) -> None:
    done = run(host([vm([[FOREVER]], cap=30), vm([[FOREVER]])], horizon_ns=10 * S), bundled("credit"))
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[0] == pytest.approx(3 * S, rel=0.03)
    assert sum(ran) == 10 * S


def test_a_cap_covers_all_vcpus_of_a_vm(kernel: object) -> None:
    done = run(host([vm([[FOREVER], [FOREVER]], vcpus=2, cap=100)], pcpus=2, horizon_ns=10 * S), bundled("credit"))
    assert sum(numbers(done.vcpu["ran_ns"])) == pytest.approx(10 * S, rel=0.03)


def light(sleep_us: int) -> Any:
    """A VM that computes 200 us and sleeps, over and over, without a seam in the measured time."""
    return vm([[compute(200 * US), sleep(sleep_us * US)] * 9_000])


def test_who_wakes_with_credits_runs_within_the_rate_limit(kernel: object) -> None:
    """A light VM beside three CPU hogs on one pCPU: boosted, it waits for the rate limit and no longer.

    The hog that took over has run 700 us when it wakes, so it goes on for 300 us.
    """
    hogs = [vm([[FOREVER]]) for _ in range(3)]
    done = run(host([light(700), *hogs], horizon_ns=5 * S, warmup_ns=S), bundled("credit"))
    assert done.error is None
    assert 250 * US <= slowest_wakeup_ns(done, 0) <= MS
    # a period is 200 us of work, 700 of sleep, 300 of waiting
    assert done.vcpu["run_measured_ns"][0] == pytest.approx(4 * S * 200 / 1200, rel=0.02)


@pytest.mark.parametrize("ratelimit_ms", [2, 5])
def test_a_longer_rate_limit_makes_it_wait_longer_but_not_for_ever(kernel: object, ratelimit_ms: int) -> None:
    spec = host([light(1_000), *[vm([[FOREVER]]) for _ in range(3)]], horizon_ns=5 * S, warmup_ns=S)
    done = run(spec, bundled("credit"), ratelimit_ns=ratelimit_ms * MS)
    assert 0.9 * (ratelimit_ms - 1) * MS <= slowest_wakeup_ns(done, 0) <= ratelimit_ms * MS


@pytest.mark.parametrize("entities", [4, 5, 7])
def test_stealing_keeps_every_pcpu_busy(kernel: object, entities: int) -> None:
    """As many CPU-bound entities as pCPUs or more: no pCPU may idle, however they began."""
    done = run(host([vm([[FOREVER]]) for _ in range(entities)], pcpus=4, horizon_ns=S), bundled("credit"))
    assert numbers(done.pcpu["idle_ns"]) == [0] * 4


def test_idle_pcpus_steal_from_queues_that_are_left(kernel: object) -> None:
    """Entities 0 and 4 share a home; when those of the other pCPUs sleep, one of the two is taken over."""
    sleepers = [vm([[compute(MS), sleep(50 * MS)]]) for _ in range(3)]
    hogs = [vm([[FOREVER]]), *sleepers, vm([[FOREVER]])]
    done = run(host(hogs, pcpus=4, horizon_ns=S), bundled("credit"))
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[0] > 0.98 * S and ran[4] > 0.98 * S


def test_a_pinned_vm_stays_where_it_is_pinned(kernel: object) -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[FOREVER]])]
    done = run(host(tenants, pcpus=2, horizon_ns=S), bundled("credit"))
    assert done.vcpu["pcpu"][0] == 1
    assert done.vcpu["migrations"][0] == 0


def test_what_a_heavy_vm_cannot_use_is_dealt_to_the_others(kernel: object) -> None:
    """Weight 4 of 7 on two pCPUs is more than its vCPU can run: it has one pCPU, the others a third of the other."""
    tenants = [vm([[FOREVER]], weight=1024), *[vm([[FOREVER]]) for _ in range(3)]]
    done = run(host(tenants, pcpus=2, horizon_ns=10 * S), bundled("credit"))
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[0] == pytest.approx(10 * S, rel=0.03)
    assert ran[1:4] == [pytest.approx(10 / 3 * S, rel=0.05)] * 3


def test_weights_1_to_8(kernel: object) -> None:
    """Within 5 %: credits are dealt out for 30 ms at a time, and slices are as long."""
    weights = [256 * share for share in range(1, 9)]
    done = run(host([vm([[FOREVER]], weight=w) for w in weights], horizon_ns=20 * S), bundled("credit"))
    for weight, time_ns in zip(weights, numbers(done.vcpu["ran_ns"]), strict=True):
        assert time_ns == pytest.approx(weight / sum(weights) * 20 * S, rel=0.05)


def test_stealing_looks_past_those_that_are_pinned(kernel: object) -> None:
    """The first in pCPU 0's queue may not leave; the one behind it may, and the idle pCPU finds it."""
    tenants = [vm([[FOREVER]], affinity=0b01), vm([[FOREVER]], affinity=0b01), vm([[FOREVER]])]
    done = run(host(tenants, pcpus=2, horizon_ns=2 * S), bundled("credit"))
    assert numbers(done.pcpu["idle_ns"]) == [0, 0]
    assert done.vcpu["ran_ns"][2] > 0.95 * 2 * S


def test_whoever_runs_moves_to_a_core_that_idles() -> None:
    """Two CPU-bound VMs on the threads of one core: at a tick one moves to the other core, where nobody runs."""
    tenants = [vm([[FOREVER]]), vm([[FOREVER]])]
    spec = host(tenants, pcpus=4, threads_per_core=2, horizon_ns=50 * MS)
    done = run(spec, bundled("credit"), "interpreted")
    assert sorted(numbers(done.pcpu["core"][done.vcpu["pcpu"][:2]])) == [0, 1]
    assert sum(numbers(done.vcpu["migrations"])) == 1


def test_cache_hot_entities_are_not_stolen() -> None:
    def migrations(delay_ns: int) -> int:
        tenants = [vm([[compute(2 * MS), sleep(3 * MS)]]) for _ in range(7)]
        spec = host(tenants, pcpus=3, horizon_ns=300 * MS)
        done = run(spec, bundled("credit"), "interpreted", migration_delay_ns=delay_ns)
        return sum(numbers(done.vcpu["migrations"]))

    assert migrations(100 * MS) < migrations(0)


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(bundled("credit"), pcpus)
