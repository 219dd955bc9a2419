"""RTDS: budgets are had in every period, by earliest deadline; what is left goes by level."""

from __future__ import annotations

import pytest

from hvbench.errors import UserError
from hvbench.plugins import Registry, bind_params
from tests.builders import MS, ROOT, US, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_same_bits, turns

RTDS = bundled("rtds")


def served(period_us: int, budget_us: int, extratime: int = 0, threads: int = 1, **settings: int):  # type: ignore[no-untyped-def]
    """A CPU-bound VM with so much in every period."""
    rt = {"rt_period_ns": period_us * US, "rt_budget_ns": budget_us * US, "rt_extratime": extratime}
    return vm([[FOREVER]] * threads, vcpus=threads, **rt, **settings)


def test_the_earliest_deadline_runs_first() -> None:
    """(10, 4) from deadline 5 on and (16, 6) from deadline 16 on, worked by hand."""
    taken = turns(host([served(10, 4), served(16, 6)], horizon_ns=40 * US), RTDS)
    # the first is replenished at 5, 15, 25, 35, and preempts while its deadline is the earlier one
    expected = [(0, 0), (1, 4), (0, 5), (1, 9), (0, 15), (1, 19), (0, 25), (1, 32), (0, 35), (1, 39)]
    assert taken == [(vcpu, us * US) for vcpu, us in expected]


def test_without_extratime_each_has_its_budget_and_no_more() -> None:
    tenants = [served(1000, 200), served(2000, 500), served(4000, 1000)]
    done = run(host(tenants, horizon_ns=40 * MS), RTDS, "interpreted")
    ran = numbers(done.vcpu["ran_ns"])
    for time_ns, share, budget_us in zip(ran, (0.2, 0.25, 0.25), (200, 500, 1000), strict=True):
        assert abs(time_ns - share * 40 * MS) <= budget_us * US
    assert done.pcpu["idle_ns"][0] == 40 * MS - sum(ran)


def test_extratime_uses_the_rest_and_takes_nothing_from_the_others() -> None:
    tenants = [served(1000, 200), served(2000, 500), served(4000, 1000, extratime=1)]
    done = run(host(tenants, horizon_ns=40 * MS), RTDS, "interpreted")
    ran = numbers(done.vcpu["ran_ns"])
    assert abs(ran[0] - 8 * MS) <= 200 * US and abs(ran[1] - 10 * MS) <= 500 * US
    assert done.pcpu["idle_ns"][0] == 0


def test_a_budget_outlasts_sleep_within_the_period() -> None:
    """Deferrable: 600 us after its period began it has its budget still, and preempts a later deadline at once."""
    light = vm([[sleep(600 * US), compute(100 * US), sleep(300 * US)]], rt_period_ns=MS, rt_budget_ns=200 * US)
    done = run(host([light, served(50_000, 50_000)], horizon_ns=20 * MS), RTDS, "interpreted")
    assert done.vcpu["ready_ns"][0] == 0
    assert done.vcpu["ran_ns"][0] == 2 * MS


def test_global_edf_uses_all_pcpus() -> None:
    """Three servers of 60 % on two pCPUs: partitioned they would not fit."""
    done = run(host([served(10_000, 6_000) for _ in range(3)], pcpus=2, horizon_ns=100 * MS), RTDS, "interpreted")
    for time_ns in numbers(done.vcpu["ran_ns"]):
        assert time_ns == pytest.approx(60 * MS, abs=6 * MS)


def test_a_reservation_is_spread_over_the_vcpus() -> None:
    reserved = vm([[FOREVER]] * 2, vcpus=2, reservation=60, rt_extratime=0)
    done = run(host([reserved, served(10_000, 4_000, extratime=1)], horizon_ns=200 * MS), RTDS, "interpreted")
    assert numbers(done.vcpu["ran_ns"][:2]) == [pytest.approx(60 * MS, abs=3 * MS)] * 2


def test_a_pinned_server_runs_on_its_pcpu() -> None:
    tenants = [served(10_000, 4_000, 1, affinity=0b10), served(10_000, 4_000, 1), served(10_000, 4_000, 1)]
    done = run(host(tenants, pcpus=2, horizon_ns=100 * MS), RTDS, "interpreted")
    assert done.vcpu["pcpu"][0] == 1 and done.vcpu["migrations"][0] == 0
    assert done.vcpu["ran_ns"][0] >= 40 * MS - 4 * MS
    assert numbers(done.pcpu["idle_ns"]) == [0, 0]


def test_equal_servers_share_an_overload() -> None:
    """Eight vCPUs of the default 40 % on one pCPU: nobody starves, whatever order the queue has them in."""
    done = run(host([vm([[FOREVER]]) for _ in range(8)], horizon_ns=400 * MS), RTDS, "interpreted")
    assert min(numbers(done.vcpu["ran_ns"])) >= 0.8 * 50 * MS


def test_a_budget_above_the_period_is_refused() -> None:
    policy = Registry().load_file(ROOT / "plugins" / "scheduler" / "rtds.py")
    with pytest.raises(UserError, match="budget 20000000 ns is above the period of 10000000 ns"):
        bind_params(policy, {"budget": "20ms"})


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(RTDS, pcpus)
