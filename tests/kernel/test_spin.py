"""Spinning at held locks, and pause-loop exits: hand-worked to the nanosecond."""

from __future__ import annotations

import types

import pytest

from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.traces.format import FLAG_BLOCKS, OPS

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
