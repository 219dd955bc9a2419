"""What every scheduler of the proportional kind must do: shares, caps, pinning, any host, the same in every mode."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from hvbench.build import FaultSpec, HostSpec
from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.strategies import hosts

FOREVER = compute(1 << 50)
FAIR = ["balance", "cfs", "cosched_relaxed", "cosched_strict", "eevdf"]


@pytest.mark.parametrize("name", FAIR)
@pytest.mark.parametrize("pcpus", [1, 2])
def test_cpu_bound_vms_share_by_weight(name: str, pcpus: int) -> None:
    """Weights 1 : 2 : 4, a VM of each for each pCPU, for 4 s: proportional within 5 %, or a turn of 50 ms."""
    weights = [256, 512, 1024] * pcpus
    spec = host([vm([[FOREVER]], weight=w) for w in weights], pcpus=pcpus, horizon_ns=4 * S)
    done = run(spec, bundled(name), "interpreted")
    assert done.error is None
    ran = numbers(done.vcpu["ran_ns"])
    assert sum(ran) == pcpus * 4 * S
    for weight, time_ns in zip(weights, ran, strict=True):
        assert time_ns == pytest.approx(weight / sum(weights) * pcpus * 4 * S, rel=0.05, abs=50 * MS)


@pytest.mark.parametrize("name", FAIR)
def test_three_equal_vms_share_two_pcpus(name: str) -> None:
    done = run(host([vm([[FOREVER]]) for _ in range(3)], pcpus=2, horizon_ns=4 * S), bundled(name), "interpreted")
    for time_ns in numbers(done.vcpu["ran_ns"]):
        assert time_ns == pytest.approx(8 * S / 3, rel=0.05)


@pytest.mark.parametrize("name", FAIR)
@pytest.mark.parametrize(("cap", "vcpus"), [(30, 1), (120, 2)])
def test_a_cap_covers_a_vms_vcpus_and_holds_on_an_idle_host(name: str, cap: int, vcpus: int) -> None:
    spec = host([vm([[FOREVER]] * vcpus, vcpus=vcpus, cap=cap), vm([[FOREVER]])], pcpus=4, horizon_ns=4 * S)
    done = run(spec, bundled(name), "interpreted")
    assert done.error is None
    ran = numbers(done.vcpu["ran_ns"])
    assert sum(ran[:vcpus]) == pytest.approx(cap / 100 * 4 * S, rel=0.03)
    assert ran[vcpus] == 4 * S


@pytest.mark.parametrize("name", FAIR)
def test_a_pinned_vm_stays_where_it_is_pinned(name: str) -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[compute(MS), sleep(300 * US)]], affinity=0b10)]
    done = run(host(tenants, pcpus=2, horizon_ns=S), bundled(name), "interpreted")
    assert done.error is None
    assert numbers(done.vcpu["pcpu"])[::2] == [1, 1]
    assert numbers(done.vcpu["migrations"])[::2] == [0, 0]


@pytest.mark.parametrize("name", FAIR)
def test_nobody_idles_for_long_while_others_wait(name: str) -> None:
    """Sleepers leave room on their pCPUs: the hogs that began on one queue fill it."""
    sleepers = [vm([[compute(MS), sleep(50 * MS)]]) for _ in range(3)]
    done = run(host([vm([[FOREVER]]), *sleepers, vm([[FOREVER]])], pcpus=4, horizon_ns=S), bundled(name), "interpreted")
    ran = numbers(done.vcpu["ran_ns"])
    assert ran[0] > 0.95 * S and ran[4] > 0.95 * S


@pytest.mark.parametrize("name", FAIR)
def test_a_pcpu_may_leave_and_return(name: str) -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[compute(MS), sleep(MS)]])]
    spec = host(tenants, pcpus=2, horizon_ns=200 * MS)
    spec = with_faults(spec, FaultSpec("pcpu", 1, 50 * MS, 100 * MS), FaultSpec("guest", 2, 120 * MS))
    done = run(spec, bundled(name), "interpreted")
    assert done.error is None
    assert numbers(done.pcpu["busy_ns"])[1] == pytest.approx(150 * MS, rel=0.05)
    # pinned to a pCPU that is gone it runs elsewhere, as in Linux, rather than never
    assert done.vcpu["ran_ns"][0] > 60 * MS


def with_faults(spec: HostSpec, *faults: FaultSpec) -> HostSpec:
    import attrs

    return attrs.evolve(spec, faults=faults)


@pytest.mark.parametrize("name", FAIR)
@given(spec=hosts())
@settings(max_examples=60)
def test_any_host_runs_to_its_end(name: str, spec: Any) -> None:
    """No illegal answer, nobody forgotten: whatever is runnable at the end has been for less than the whole time."""
    done = run(spec, bundled(name), "interpreted")
    assert done.error is None, done.error


@pytest.mark.parametrize("name", FAIR)
def test_every_mode_gives_the_same(kernel: object, name: str) -> None:
    tenants = [
        vm([[compute(700 * US), sleep(200 * US)]] * 2, vcpus=2, weight=512),
        vm([[FOREVER]], cap=40),
        vm([[compute(90 * US), sleep(400 * US)], [compute(MS)]], vcpus=2, affinity=0b1),
    ]
    spec = host(tenants, pcpus=2, horizon_ns=300 * MS, switch_cost_ns=2_000, cache_refill_ns=30_000)
    compiled = run(spec, bundled(name), "compiled")
    assert compiled.error is None
    assert compiled.fingerprint() == run(spec, bundled(name), "interpreted").fingerprint()
