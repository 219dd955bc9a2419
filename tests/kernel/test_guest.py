"""The guest: waits and wake-ups, locks, barriers, marks, sleep, the seam, the guest's own scheduler."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.kernel.histogram import BUCKETS, H_REQUEST, H_WAKEUP, bucket_of
from hvbench.readout import histograms
from tests.builders import (
    MS,
    US,
    Done,
    S,
    barrier,
    bundled,
    compute,
    host,
    lock,
    mark_begin,
    mark_end,
    numbers,
    outside,
    run,
    scheduler,
    sleep,
    unlock,
    vm,
    wait,
    wake,
)

FOREVER_COMPUTE = compute(10 * S)


def simple(*vms: object, **settings_: object) -> Done:
    """Run without any scheduler policy: the kernel's defaults, interpreted."""
    done = run(host(list(vms), **settings_), mode="interpreted")  # type: ignore[arg-type]
    assert done.error is None, done.error
    return done


def requests(done: Done, number: int = 0) -> dict[int, int]:
    """Buckets of the request latency of a VM that hold samples."""
    counts = histograms(done.memory)[number, H_REQUEST]
    return {b: int(counts[b]) for b in range(BUCKETS) if counts[b]}


# waits and wake-ups -------------------------------------------------------------------------------------


def test_a_wait_ends_when_somebody_wakes() -> None:
    # thread 1 waits from 0 to 30 us; then its 10 us; then both are done, and the trace begins again at 40 us
    done = simple(vm([[compute(30 * US), wake(1)], [wait(), compute(10 * US)]], vcpus=2), pcpus=2, horizon_ns=40 * US)
    assert numbers(done.vcpu["ran_ns"]) == [30 * US, 10 * US]
    assert done.vm["work_done_ns"][0] == 40 * US


def test_early_wake_ups_are_kept_and_counted() -> None:
    # three wake-ups come before the first wait: the first three waits pass at once, the fourth does not
    waker = [wake(1), wake(1), wake(1), compute(50 * US), wake(1), FOREVER_COMPUTE]
    waiter = [compute(US), wait(), compute(US), wait(), compute(US), wait(), compute(US), wait(), FOREVER_COMPUTE]
    done = simple(vm([waker, waiter], vcpus=2), pcpus=2, horizon_ns=60 * US)
    # 4 us of the first four computes, then blocked until 50 us
    assert numbers(done.vcpu["ran_ns"]) == [60 * US, 4 * US + 10 * US]
    assert done.thread["wakes"][1] == 0


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["wake", "wait"]), max_size=12))
def test_waits_pass_exactly_as_often_as_wake_ups_came(script: list[str]) -> None:
    wakes, waits = script.count("wake"), script.count("wait")
    waker = [op for _ in range(wakes) for op in (compute(US), wake(1))] + [FOREVER_COMPUTE]
    waiter = [op for _ in range(waits) for op in (wait(), compute(1))] + [FOREVER_COMPUTE]
    done = simple(vm([waker, waiter], vcpus=2), pcpus=2, horizon_ns=MS)
    passed = (int(done.thread["op"][1]) - int(done.thread["op_first"][1]) + 1) // 2
    if wakes >= waits:
        assert done.thread["op"][1] == done.thread["op_end"][1] - 1
        assert done.thread["wakes"][1] == wakes - waits
    else:
        assert passed == wakes
        assert done.thread["wakes"][1] == 0


# timers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [sleep, outside])
def test_sleep_is_relative_and_takes_no_cpu(pause: object) -> None:
    done = simple(vm([[compute(20 * US), pause(30 * US)]]), horizon_ns=200 * US)  # type: ignore[operator]
    assert done.vcpu["ran_ns"][0] == 4 * 20 * US
    assert done.pcpu["idle_ns"][0] == 4 * 30 * US
    assert done.group["loops"][0] == 3  # the fourth ends exactly at the horizon, which is not part of the cell


def test_a_sleep_of_nothing_takes_no_time() -> None:
    done = simple(vm([[compute(10 * US), sleep(0)]]), horizon_ns=100 * US)
    assert done.vcpu["ran_ns"][0] == 100 * US


# locks and barriers -----------------------------------------------------------------------------------------


def test_a_lock_is_handed_over_in_order_of_arrival() -> None:
    # thread i arrives at i us and holds the lock for 10 us: requests last 10, 19, 28, 37 us
    def thread(i: int) -> list[object]:
        head = [compute(i * US)] if i else []
        return [*head, mark_begin(), lock(0), compute(10 * US), unlock(0), mark_end(), FOREVER_COMPUTE]

    done = simple(vm([thread(i) for i in range(4)], vcpus=4), pcpus=4, horizon_ns=41 * US)  # type: ignore[misc]
    expected = [10 * US, 19 * US, 28 * US, 37 * US]
    assert requests(done) == {bucket_of(e): 1 for e in expected}
    # each has run its own way there, its 10 us, and from then on
    assert numbers(done.vcpu["ran_ns"]) == [41 * US, (1 + 41 - 10) * US, (2 + 41 - 20) * US, (3 + 41 - 30) * US]


def test_an_unlock_of_somebody_elses_lock_changes_nothing() -> None:
    holder = [lock(0), compute(50 * US), unlock(0), FOREVER_COMPUTE]
    meddler = [compute(US), unlock(0), FOREVER_COMPUTE]
    third = [compute(2 * US), lock(0), FOREVER_COMPUTE]
    done = simple(vm([holder, meddler, third], vcpus=3), pcpus=3, horizon_ns=60 * US)
    assert done.vcpu["ran_ns"][2] == 2 * US + 10 * US


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_a_barrier_lets_go_when_the_last_one_comes(threads: int) -> None:
    # thread i comes after (i + 1) us; all leave together, twice
    def thread(i: int) -> list[object]:
        return [compute((i + 1) * US), barrier(0, threads), compute((i + 1) * US), barrier(0, threads), FOREVER_COMPUTE]

    done = simple(  # type: ignore[misc]
        vm([thread(i) for i in range(threads)], vcpus=threads), pcpus=threads, horizon_ns=100 * US
    )
    rest = 100 * US - 2 * threads * US
    assert numbers(done.vcpu["ran_ns"]) == [2 * (i + 1) * US + rest for i in range(threads)]


# marks and the seam -----------------------------------------------------------------------------------------


def test_marks_measure_requests_after_the_warm_up() -> None:
    ops = [mark_begin(), compute(30 * US), mark_end(), sleep(70 * US)]
    done = simple(vm([ops]), horizon_ns=MS, warmup_ns=500 * US)
    assert done.vm["marks"][0] == 5
    assert requests(done) == {bucket_of(30 * US): 5}


def test_a_mark_that_never_began_is_not_counted() -> None:
    done = simple(vm([[compute(10 * US), mark_end()]]), horizon_ns=100 * US)
    assert done.vm["marks"][0] == 0


def test_the_trace_begins_again_when_its_last_thread_is_done() -> None:
    # the short thread waits at the seam for the long one
    done = simple(vm([[compute(10 * US)], [compute(40 * US)]], vcpus=2), pcpus=2, horizon_ns=400 * US)
    assert numbers(done.vcpu["ran_ns"]) == [100 * US, 400 * US]
    assert done.group["loops"][0] == 9
    assert done.group["first_loop_ns"][0] == 40 * US


def test_the_seam_forgets_locks_and_wake_ups() -> None:
    # the lock is never released and the wake-up never waited for: the next pass must not see either
    done = simple(vm([[lock(0), wake(1), compute(10 * US)], [compute(5 * US)]], vcpus=2), pcpus=2, horizon_ns=95 * US)
    assert done.group["loops"][0] == 9
    assert done.thread["wakes"][1] == 1
    assert numbers(done.vcpu["ran_ns"]) == [95 * US, 50 * US]


def test_a_group_begins_at_its_offset() -> None:
    done = simple(vm([[FOREVER_COMPUTE]], start_ns=300 * US), horizon_ns=MS)
    assert done.vcpu["ran_ns"][0] == 700 * US


def test_a_trace_without_time_ends_the_cell_and_says_so() -> None:
    done = run(host([vm([[wake(0), wait()]])]), mode="interpreted")
    assert done.error is not None and done.error[0] == "failed"
    assert "without taking time" in done.reason and "legal" in done.reason


def test_threads_that_all_wait_for_ever_are_a_stall() -> None:
    done = run(host([vm([[compute(US), wait()]])]), mode="interpreted")
    assert done.error is not None and done.error[0] == "stalled"
    assert f"at {US} ns" in done.reason


# outside threads ----------------------------------------------------------------------------------------------


def test_a_client_outside_takes_no_cpu_of_the_host() -> None:
    server = [wait(), compute(20 * US), wake(1)]
    client = [mark_begin(), compute(5 * US), wake(0), wait(), mark_end(), compute(25 * US)]
    done = simple(vm([server], clients=[client]), horizon_ns=500 * US)
    # think 5, serve 20, think 25: a pass every 50 us
    assert done.vcpu["ran_ns"][0] == 10 * 20 * US
    assert done.vm["marks"][0] == 10
    assert requests(done) == {bucket_of(25 * US): 10}


# the guest's own scheduler ------------------------------------------------------------------------------------


def test_threads_of_one_vcpu_take_turns() -> None:
    # two threads, slices of 10 us: A B A B; B's 25 us end at 45 us, A's 30 us at 55 us
    ops = [[mark_begin(), compute(n * US), mark_end(), sleep(MS)] for n in (30, 25)]
    done = simple(vm(ops), horizon_ns=200 * US, guest_slice_ns=10 * US)
    # B is first put on at 10 us, its mark begins then: 10..20, 30..40, 50..55
    assert requests(done) == {bucket_of(50 * US): 1, bucket_of(45 * US): 1}
    assert done.vcpu["ran_ns"][0] == 55 * US


def test_a_switch_inside_the_guest_costs_what_it_costs() -> None:
    done = simple(
        vm([[compute(30 * US), sleep(MS)], [compute(30 * US), sleep(MS)]]),
        horizon_ns=500 * US,
        guest_slice_ns=10 * US,
        guest_switch_ns=1 * US,
    )
    # A B A B A B: five times somebody's slice ended while somebody waited, but for A's last, which ended by itself
    assert done.pcpu["guest_ns"][0] == 60 * US
    assert done.pcpu["hypervisor_ns"][0] == 4 * US


def test_a_woken_thread_goes_to_an_idle_vcpu() -> None:
    # vCPU 1 takes over thread 2 when thread 1 sleeps, at 1 us, halts with it, and is woken for it at 11 us
    ops = [[FOREVER_COMPUTE], [compute(US), sleep(10 * S)], [sleep(10 * US), FOREVER_COMPUTE]]
    done = simple(vm(ops, vcpus=2), pcpus=2, horizon_ns=100 * US)
    assert numbers(done.vcpu["ran_ns"]) == [100 * US, US + 89 * US]


def test_an_idle_vcpu_takes_work_from_its_sibling() -> None:
    # threads 0 and 2 begin on vCPU 0, thread 1 on vCPU 1; when it sleeps, vCPU 1 takes over thread 2
    ops = [[FOREVER_COMPUTE], [compute(10 * US), sleep(10 * S)], [FOREVER_COMPUTE]]
    done = simple(vm(ops, vcpus=2), pcpus=2, horizon_ns=100 * US)
    assert numbers(done.vcpu["ran_ns"]) == [100 * US, 100 * US]


def test_a_thread_is_not_taken_from_a_vcpu_that_was_woken_for_it() -> None:
    # thread 0 wakes thread 1, whose vCPU halts, and goes to sleep: thread 1 runs where it was woken
    ops = [[compute(10 * US), wake(1), sleep(20 * US)], [wait(), compute(15 * US)]]
    done = simple(vm(ops, vcpus=2), pcpus=2, horizon_ns=300 * US)
    assert numbers(done.vcpu["ran_ns"]) == [100 * US, 150 * US]
    # ten passes: vCPU 0 at the seam and by its timer (the last lies at the horizon), vCPU 1 at the seam and woken
    assert numbers(done.vcpu["dispatches"]) == [19, 20]


# several VMs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, "round_robin", "credit", "null"])
def test_two_vms_of_two_vcpus_on_four_pcpus_never_wait(policy: str | None) -> None:
    tenants = [vm([[compute(300 * US), sleep(200 * US)] for _ in range(2)], vcpus=2) for _ in range(2)]
    done = run(host(tenants, pcpus=4, horizon_ns=20 * MS), bundled(policy) if policy else None, mode="interpreted")
    assert done.error is None
    assert numbers(done.vcpu["ready_ns"]) == [0, 0, 0, 0]
    assert numbers(done.vcpu["ran_ns"]) == [12 * MS] * 4


@pytest.mark.parametrize("policy", [None, "round_robin", "credit"])
def test_two_vms_of_three_vcpus_on_four_pcpus_take_turns(policy: str | None) -> None:
    tenants = [vm([[FOREVER_COMPUTE] for _ in range(3)], vcpus=3) for _ in range(2)]
    module = bundled(policy) if policy else None
    done = run(host(tenants, pcpus=4, horizon_ns=600 * MS), module, mode="interpreted")
    assert done.error is None
    ran, ready = numbers(done.vcpu["ran_ns"]), numbers(done.vcpu["ready_ns"])
    assert sum(ran) == 4 * 600 * MS, "nobody may idle"
    assert all(r + w == 600 * MS for r, w in zip(ran, ready, strict=True))
    assert all(abs(r - 400 * MS) <= 60 * MS for r in ran), "everybody gets its turn"


def test_entities_woken_at_one_instant_go_to_several_pcpus() -> None:
    # a barrier lets four vCPUs go at once; on four pCPUs none of them may wait
    tenant = vm([[compute((i + 1) * US), barrier(0, 4)] for i in range(4)], vcpus=4)
    done = simple(tenant, pcpus=4, horizon_ns=MS)
    assert numbers(done.vcpu["ready_ns"]) == [0, 0, 0, 0]
    assert done.vm["work_done_ns"][0] == 250 * 10 * US


def test_wake_up_latency_is_the_time_from_wake_to_dispatch() -> None:
    # the sleeper wakes at 30 us into the other's slice of 100 us
    first = vm([[FOREVER_COMPUTE]])
    second = vm([[sleep(30 * US), compute(US), sleep(10 * S)]])
    turns = scheduler("@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    return runq_first(host), 100_000\n")
    done = run(host([first, second], horizon_ns=MS), turns, mode="interpreted")
    counts = histograms(done.memory)[1, H_WAKEUP]
    # at 0 it is dispatched behind the first VM's slice, goes to sleep at 100 us, wakes at 130 us, runs at 200 us
    assert {b: int(counts[b]) for b in range(BUCKETS) if counts[b]} == {bucket_of(100 * US): 1, bucket_of(70 * US): 1}


# interrupts ---------------------------------------------------------------------------------------------------

INTERRUPTS = {"timer_fire_cost_ns": 300, "wake_cost_ns": 500, "ipi_cost_ns": 700, "halt_cost_ns": 0}


def test_a_timer_that_wakes_a_halted_vcpu_is_one_interrupt() -> None:
    done = simple(vm([[sleep(10 * US), compute(US), sleep(10 * S)]]), horizon_ns=100 * US, **INTERRUPTS)
    assert numbers(done.vcpu["overhead_ns"]) == [300]


def test_an_interrupt_from_another_vcpu_is_paid_once_by_each_side() -> None:
    ops = [[compute(10 * US), wake(1), FOREVER_COMPUTE], [wait(), compute(US), sleep(10 * S)]]
    done = simple(vm(ops, vcpus=2), pcpus=2, horizon_ns=100 * US, **INTERRUPTS)
    assert numbers(done.vcpu["overhead_ns"]) == [700, 500]
