"""The run state co-stopped: who is in it, for how long, and what the scheduler hears of it."""

from __future__ import annotations

import pytest

from hvbench import readout
from hvbench.state.records import COSTOPPED, WHY_COSTOP
from tests.builders import MS, US, Done, compute, host, numbers, run, scheduler, sleep, vm

FOREVER = compute(1 << 50)

SCRIPT = """
from hvbench.policy import COSTOPPED

@frozen
class Params:
    first_ns: int = param(2_000_000, unit="ns", help="when vCPU 0 is co-stopped")
    last_ns: int = param(5_000_000, unit="ns", help="when it is co-started")
    twice: bool = param(False, help="co-stop it again at the end instead")

@state("vcpu")
class Vcpu:
    woken: int = 0
    slept: int = 0
    stopped: int = 0
    state_seen: int = -1

@hookimpl
def sched_init(host, now):
    set_timer(host, 0, host.params.first_ns)
    set_timer(host, 1, host.params.last_ns)

@hookimpl
def sched_timer(host, timer, now):
    if timer == 0 or host.params.twice:
        costop(host, 0)
    else:
        host.vcpu[0].state_seen = host.vcpu[0].state
        costart(host, 0)

@hookimpl
def sched_wake(host, vcpu, now):
    host.vcpu[vcpu].woken += 1

@hookimpl
def sched_sleep(host, vcpu, now):
    host.vcpu[vcpu].slept += 1

@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    host.vcpu[vcpu].stopped = host.vcpu[vcpu].stopped_why

@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return runq_first(host), FOREVER
"""


def scripted(thread: list[object], pcpus: int = 1, mode: str = "interpreted", **params: object) -> Done:
    """vCPU 0 does what `thread` says, vCPU 1 computes; vCPU 0 is co-stopped from 2 to 5 ms of 10."""
    spec = host([vm([thread, [FOREVER]], vcpus=2)], pcpus=pcpus, horizon_ns=10 * MS)  # type: ignore[list-item]
    return run(spec, scheduler(SCRIPT), mode, **params)


def own(done: Done) -> dict[str, int]:
    row = done.memory.slots[0].own["vcpu"][0]
    return {name: int(row[name]) for name in row.dtype.names}


@pytest.mark.parametrize("mode", ["interpreted", "compiled"])
def test_a_running_vcpu_is_stopped_and_its_time_is_accounted(kernel: object, mode: str) -> None:
    """It runs 2 + 5 ms of 10; the 3 between are neither run nor ready."""
    done = scripted([FOREVER], pcpus=2, mode=mode)
    assert done.error is None
    assert numbers(done.vcpu["ran_ns"]) == [7 * MS, 10 * MS]
    assert numbers(done.vcpu["costopped_ns"]) == [3 * MS, 0]
    assert numbers(done.vcpu["ready_ns"]) == [0, 0]
    assert own(done) == {"woken": 2, "slept": 1, "stopped": WHY_COSTOP, "state_seen": COSTOPPED}


def test_what_waits_for_a_pcpu_changes_from_ready_to_co_stopped() -> None:
    """On one pCPU vCPU 1 runs first from the moment that vCPU 0 sleeps, at 1 ms, and never ends."""
    done = scripted([compute(MS), sleep(500 * US), FOREVER])
    assert done.error is None
    # ready from 1.5 to 2, co-stopped to 5, ready to the end
    assert numbers(done.vcpu["costopped_ns"]) == [3 * MS, 0]
    assert done.vcpu["ready_ns"][0] == 500 * US + 5 * MS


def test_one_that_sleeps_is_co_stopped_when_it_wakes() -> None:
    done = scripted([compute(MS), sleep(2 * MS), FOREVER], pcpus=2)
    assert done.error is None
    assert numbers(done.vcpu["costopped_ns"]) == [2 * MS, 0]
    # the scheduler hears of the wake-up when it is co-started
    assert own(done)["woken"] == 2 and own(done)["state_seen"] == COSTOPPED


def test_one_that_sleeps_all_the_while_is_never_co_stopped() -> None:
    done = scripted([compute(MS), sleep(6 * MS), FOREVER], pcpus=2)
    assert done.error is None
    assert numbers(done.vcpu["costopped_ns"]) == [0, 0]
    assert done.vcpu["ran_ns"][0] == 4 * MS


def test_time_to_the_horizon_counts() -> None:
    done = scripted([FOREVER], pcpus=2, last_ns=50 * MS)
    assert numbers(done.vcpu["costopped_ns"]) == [8 * MS, 0]


def test_co_stopping_twice_ends_the_cell() -> None:
    done = scripted([FOREVER], pcpus=2, twice=True)
    assert "co-stopping an entity that is not co-stopped" in done.reason


def test_metrics_tell_of_it() -> None:
    done = scripted([FOREVER], pcpus=2)
    assert readout.cpu_metrics(done.memory)["costop_share"] == pytest.approx(3 / 20)
    of_vm = readout.vm_cpu_metrics(done.memory, 0)
    assert (of_vm["costopped_ns"], of_vm["costopped_vcpu_worst_ns"]) == (3 * MS, 3 * MS)
