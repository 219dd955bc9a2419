"""Cache refill is a debt paid while running: hand-worked cases to the nanosecond, and the laws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hvbench.kernel.cpu import need_ns, settle
from hvbench.state.memory import HostMemory
from hvbench.state.proxies import HostProxy
from tests.builders import MS, US, compute, host, numbers, run, scheduler, sleep, vm

FOREVER = compute(1 << 50)

TURNS = "@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    return runq_first(host), {}\n"


def turns(slice_ns: int) -> Any:
    """Everybody in turn, on the fly."""
    return scheduler(TURNS.format(slice_ns))


def test_a_worked_example() -> None:
    """Two VMs in turn for 10 us; a full refill of 8 us, of which 10/(10 + 10) goes in 10 us of the other's time.

    Each comes back with 4 us of refill owed: pays it at the pace of its work, so 4 us of refill and 6 us of work. The
    first turn of each is free: nothing of theirs was ever in the cache. After the third turn and later the same.
    """
    spec = host(
        [vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=60 * US, cache_refill_ns=8 * US, cache_refill_tau_ns=10 * US
    )
    done = run(spec, turns(10 * US), "interpreted")
    # turns: A 10+0, B 10+0, then A, B, A, B each 6 work and 4 refill
    assert done.pcpu["guest_ns"][0] == 2 * 10 * US + 4 * 6 * US
    assert done.pcpu["refill_ns"][0] == 4 * 4 * US
    assert numbers(done.vm["refill_ns"]) == [8 * US, 8 * US]
    assert numbers(done.vm["work_done_ns"]) == [22 * US, 22 * US]
    assert numbers(done.vcpu["debt_ns"]) == [0, 0]


def test_a_short_slice_pays_a_part_and_owes_the_rest() -> None:
    """Slices of 4 us and a debt of 3 us: 2 us of refill and 2 of work a slice, and 1 us stays owed.

    tau is 1 us, so 4 us of the other's time evict 4/5 of what is warm. First return: 4/5 of 5 us = 4 us owed; a slice
    of 4 us pays 2. Second return: 2 owed, 3 warm, of which 4/5 (2.4 us) go: 4.4 us owed, 2 paid.
    """
    spec = host(
        [vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=24 * US, cache_refill_ns=5 * US, cache_refill_tau_ns=1 * US
    )
    done = run(spec, turns(4 * US), "interpreted")
    assert numbers(done.vm["refill_ns"]) == [4 * US, 4 * US]
    assert numbers(done.vcpu["debt_ns"]) == [2_400, 2_400]
    assert done.pcpu["guest_ns"][0] == 24 * US - 8 * US


@pytest.mark.parametrize(("cores_per_llc", "refill_ns"), [(2, 3 * US), (1, 20 * US)])
def test_a_move_costs_more_across_caches(cores_per_llc: int, refill_ns: int) -> None:
    """A vCPU that moves owes a whole refill: the near one inside a last-level cache, the far one across."""
    ping_pong = scheduler(
        "@hookimpl\n"
        "def sched_select_pcpu(host, vcpu, prev, now):\n"
        "    return 1 - prev if prev >= 0 else 0\n"
    )
    spec = host(
        [vm([[compute(100 * US), sleep(10 * US)] * 9])],
        pcpus=2,
        horizon_ns=560 * US,
        cores_per_llc=cores_per_llc,
        cache_refill_ns=3 * US,
        cache_refill_other_ns=20 * US,
    )
    done = run(spec, ping_pong, "interpreted")
    moves = int(done.vcpu["migrations"][0])
    assert moves == 4
    assert done.vm["refill_ns"][0] == moves * refill_ns


def test_a_burst_never_pays_more_refill_than_it_works() -> None:
    """Bursts of 5 us against a refill of 100 us: half of the time at most goes into the cache."""
    bursts = [vm([[compute(5 * US), sleep(1)] * 500]) for _ in range(3)]
    spec = host(bursts, horizon_ns=2 * MS, cache_refill_ns=100 * US, cache_refill_tau_ns=1)
    done = run(spec, turns(1 << 40), "interpreted")
    refill, work = int(done.pcpu["refill_ns"][0]), int(done.pcpu["guest_ns"][0])
    assert 0.45 * (refill + work) < refill <= work


def test_refill_grows_with_the_time_that_others_ran() -> None:
    """The longer the neighbour's burst between two of one's own, the more is owed, but never more than the whole."""

    def owed(neighbour_ns: int) -> float:
        own, other = vm([[compute(300 * US), sleep(1)] * 500]), vm([[compute(neighbour_ns), sleep(1)] * 50_000])
        spec = host([own, other], horizon_ns=20 * MS, cache_refill_ns=100 * US, cache_refill_tau_ns=200 * US)
        done = run(spec, turns(1 << 40), "interpreted")
        return int(done.vm["refill_ns"][0]) / int(done.vcpu["dispatches"][0])

    measured = [owed(n) for n in (1, 20 * US, 200 * US, 2 * MS)]
    assert measured == sorted(measured) and measured[0] < 1 * US < 5 * US < measured[1]
    assert 0.4 * 100 * US < measured[2] < 0.6 * 100 * US
    assert measured[3] <= 100 * US


def test_who_runs_alone_owes_nothing() -> None:
    spec = host([vm([[compute(50 * US), sleep(50 * US)]])], pcpus=2, horizon_ns=MS, cache_refill_ns=100 * US)
    done = run(spec, None, "interpreted")
    assert done.vm["refill_ns"][0] == 0


# the law, for one burst that is looked at in any number of steps ------------------------------------------


def burst(debt_ns: int, work_ns: int, overhead_ns: int) -> tuple[HostMemory, Any]:
    """A host on whose only pCPU a burst has just begun."""
    done = run(host([vm([[FOREVER]])], horizon_ns=1), None, "interpreted")
    memory = done.memory
    memory.tables["vcpu"]["debt_ns"][0] = debt_ns
    memory.tables["vcpu"]["overhead_left_ns"][0] = overhead_ns
    memory.tables["thread"]["work_left_ns"][0] = work_ns
    memory.tables["thread"]["recorded_left_ns"][0] = work_ns
    for name in ("guest_ns", "refill_ns", "hypervisor_ns"):
        memory.tables["pcpu"][name][0] = 0
    return memory, HostProxy(memory, -1)


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 20), st.lists(st.integers(1, 40), max_size=40))
@example(1000, 1, 0, [1] * 30)
@example(7, 5, 0, [1] * 30)
def test_looking_at_a_burst_does_not_lengthen_it(debt: int, work: int, overhead: int, steps: list[int]) -> None:
    memory, view = burst(debt, work, overhead)
    length = need_ns(view, 0)
    assert length == overhead + work + min(debt, work)
    start = memory.header["now"][0]
    pcpu = memory.tables["pcpu"][0]
    passed = 0
    for step in steps:
        step = min(step, length - passed)
        passed += step
        memory.header["now"] = start + passed
        settle(view, 0)
        assert need_ns(view, 0) == length - passed
        assert pcpu["guest_ns"] + pcpu["refill_ns"] + pcpu["hypervisor_ns"] == passed
        # the first nanosecond of a pair refills
        assert pcpu["refill_ns"] <= pcpu["guest_ns"] + 1
    memory.header["now"] = start + length
    settle(view, 0)
    assert (int(pcpu["guest_ns"]), int(pcpu["refill_ns"])) == (work, min(debt, work))
