"""Spinning at held locks, and pause-loop exits: hand-worked to the nanosecond."""

from __future__ import annotations

import types

import pytest

from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.traces.format import FLAG_BLOCKS, OPS
from tests.builders import bundled, compute, host, lock, numbers, run, sleep, unlock, vm, who_ran

MS = 1_000_000

SCHEDULER = '''
from hvbench.policy import hookimpl, runq_first, state

AXIS = "scheduler"

@state("vcpu")
class Vcpu:
    yields: int = 0
    target: int = -1

@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return runq_first(host), 1_000_000_000

@hookimpl
def sched_yield(host, vcpu, target, now):
    v = host.vcpu[vcpu]
    v.yields += 1
    v.target = target
'''


def two_threads(spin_ns: int, window_ns: int, pcpus: int = 2, flags: int = 0) -> HostMemory:
    """Thread 0 takes the lock at 0 and computes 5 ms under it; thread 1 wants it after 1 ms. Then both compute 2 ms."""
    program = [
        [("lock", 0, 0), ("compute", 5 * MS, 0), ("unlock", 0, 0), ("compute", 2 * MS, 0), ("sleep", 900 * MS, 0)],
        [("compute", 1 * MS, 0), ("lock", 0, 0), ("unlock", 0, 0), ("compute", 2 * MS, 0), ("sleep", 900 * MS, 0)],
    ]
    ops = schema.TABLES["op"].layout.zeros(10)
    for i, (name, a, b) in enumerate(row for thread in program for row in thread):
        ops[i] = (OPS[name], flags, 0 if "lock" in name else -1, a, b)
    spec = HostSpec(
        cpu=CpuSpec(pcpus=pcpus, guest_spin_ns=spin_ns, ple_window_ns=window_ns),
        vms=(VmSpec(vcpus=2, group=0),),
        groups=(GroupSpec((ThreadSpec(0, 0, 5), ThreadSpec(0, 5, 10)), locks=1),),
        ops=ops,
        privileged=no_privileged(),
        horizon_ns=100 * MS,
    )
    memory = build(spec)
    module = types.ModuleType("spin_policy")
    exec(SCHEDULER, module.__dict__)
    bind(memory, [Chosen(0, "spin-policy", module, None, "test")], interpreted=True)
    loop = Loop(memory, interpreted=True)
    loop.boot()
    assert loop.run(100_000) == 1
    assert memory.header["error"][0] == 0
    return memory


def test_without_spinning_the_waiter_halts() -> None:
    memory = two_threads(spin_ns=0, window_ns=0)
    assert memory.tables["vm"]["spin_ns"][0] == 0
    assert memory.tables["vcpu"]["ran_ns"].tolist() == [7 * MS, 3 * MS]


def test_a_spinner_gets_the_lock_the_moment_it_is_free() -> None:
    memory = two_threads(spin_ns=50 * MS, window_ns=0)
    assert memory.tables["vm"]["spin_ns"][0] == 4 * MS
    assert memory.tables["vcpu"]["ran_ns"].tolist() == [7 * MS, 7 * MS]


def test_a_guest_out_of_patience_waits() -> None:
    memory = two_threads(spin_ns=1 * MS, window_ns=0)
    assert memory.tables["vm"]["spin_ns"][0] == 1 * MS
    assert memory.tables["vcpu"]["ran_ns"].tolist() == [7 * MS, 4 * MS]


def test_nobody_spins_at_a_lock_that_blocks() -> None:
    memory = two_threads(spin_ns=50 * MS, window_ns=1 * MS, flags=FLAG_BLOCKS)
    assert memory.tables["vm"]["spin_ns"][0] == 0
    assert memory.tables["vcpu"]["ran_ns"].tolist() == [7 * MS, 3 * MS]


@pytest.mark.parametrize(("window_ns", "exits"), [(1 * MS, 3), (2 * MS, 1)])
def test_a_pause_loop_exit_tells_the_scheduler_who_holds_the_lock(window_ns: int, exits: int) -> None:
    memory = two_threads(spin_ns=50 * MS, window_ns=window_ns)
    own = memory.slots[0].own["vcpu"]
    assert own["yields"].tolist() == [0, exits]
    assert own["target"][1] == 0
    assert memory.tables["vm"]["spin_ns"][0] == 4 * MS


# a holder that is preempted: one pCPU, turns of 5 ms --------------------------------------------------------

HOLDER = [lock(0), compute(8 * MS), unlock(0), compute(1 << 50)]
SPINNER = [compute(1 * MS), lock(0), unlock(0), compute(1 << 50)]


@pytest.mark.parametrize(
    ("spin_ns", "window_ns", "turns", "spun_ns"),
    [
        # pure spinning: the spinner burns what is left of its turn, and gets the lock at 13 while it waits for a turn
        (1 << 50, 0, [(0, 0), (5, 1), (10, 0), (15, 1)], 4 * MS),
        # spin, then halt, as pv ticketlocks: it halts at 7; the unlock at 10 kicks it, and the holder's turn ends at 12
        (1 * MS, 0, [(0, 0), (5, 1), (7, 0), (12, 1)], 1 * MS),
        # pause-loop exit: made to exit at 7, with the holder next in turn; the lock comes at 10, its turn at 12
        (1 << 50, 1 * MS, [(0, 0), (5, 1), (7, 0), (12, 1)], 1 * MS),
        # no spinning at all: it halts at 6, the unlock comes at 9, the turn ends at 11
        (0, 0, [(0, 0), (5, 1), (6, 0), (11, 1)], 0),
    ],
    ids=["spin", "spin then halt", "pause-loop exit", "halt"],
)
def test_three_ways_to_wait_for_a_preempted_holder(
    spin_ns: int, window_ns: int, turns: list[tuple[int, int]], spun_ns: int
) -> None:
    spec = host([vm([HOLDER, SPINNER], vcpus=2)], horizon_ns=16 * MS, guest_spin_ns=spin_ns, ple_window_ns=window_ns)
    ran = who_ran(spec, bundled("round_robin"), timeslice_ns=5 * MS)
    assert ran[0] == [(at * MS, entity) for at, entity in turns]
    done = run(spec, bundled("round_robin"), "interpreted", timeslice_ns=5 * MS)
    assert done.vm["spin_ns"][0] == spun_ns


def test_a_vm_may_spin_otherwise_than_its_host() -> None:
    """The second VM halts at once where the first spins: pinned apart, neither disturbs the other."""
    waiting = [vm([HOLDER, SPINNER], vcpus=2, affinity=1 << p, spin_limit_ns=s) for p, s in ((0, -1), (1, 0))]
    spec = host(waiting, pcpus=2, horizon_ns=16 * MS, guest_spin_ns=1 << 50)
    done = run(spec, bundled("null"), "interpreted", sharing_slice_ns=5 * MS)
    assert numbers(done.vm["spin_ns"]) == [4 * MS, 0]


def test_the_kick_of_a_halted_waiter_is_paid_by_who_unlocks() -> None:
    """As a pv kick: an interrupt's cost to the sender, and the wake-up's to the receiver, once each."""
    spec = host(
        [vm([HOLDER, SPINNER], vcpus=2)],
        pcpus=2,
        horizon_ns=20 * MS,
        guest_spin_ns=1 * MS,
        ipi_cost_ns=2_000,
        wake_cost_ns=3_000,
    )
    done = run(spec, bundled("round_robin"), "interpreted")
    assert numbers(done.vcpu["overhead_ns"]) == [2_000, 3_000]
    assert numbers(done.vcpu["ran_ns"]) == [20 * MS, 14 * MS]


@pytest.mark.parametrize("name", ["cfs", "eevdf"])
def test_linux_boosts_a_preempted_sibling_of_who_spins(name: str) -> None:
    """KVM does not know the holder: it tries the siblings in turn, here the only one that was preempted, vCPU 1."""
    late = [compute(5 * MS), lock(0), unlock(0), compute(1 << 50)]
    tenants = [vm([[compute(1 << 50)]]), vm([late, HOLDER], vcpus=2, weight=512)]
    spun = {}
    for window_ns in (0, 500_000):
        spec = host(tenants, horizon_ns=40 * MS, guest_spin_ns=1 << 50, ple_window_ns=window_ns)
        done = run(spec, bundled(name), "interpreted", tick_ns=MS, scale_by_pcpus=False)
        assert done.error is None
        spun[window_ns] = int(done.vm["spin_ns"][1])
        assert done.memory.slots[0].own["vm"]["boosted"][1] == (1 if window_ns else 0)
    assert 0 < spun[500_000] < spun[0]


# timer ticks of guests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tick_ns", "interrupts"), [(0, 0), (4 * MS, 5), (1 * MS, 20)])
def test_a_busy_guest_takes_timer_interrupts(tick_ns: int, interrupts: int) -> None:
    """20 ms of work in pieces of 2: an interrupt of 1 us for every full period, none while it sleeps."""
    thread = [compute(2 * MS), sleep(3 * MS)] * 10 + [sleep(1 << 50)]
    spec = host([vm([thread], guest_tick_ns=tick_ns)], horizon_ns=100 * MS, timer_fire_cost_ns=1_000)
    done = run(spec, bundled("round_robin"), "interpreted")
    # the ten sleeps end by timers of their own
    assert done.vm["overhead_ns"][0] == (interrupts + 10) * 1_000
