"""Stride scheduling: shares in exact proportion to weights, without any chance in it.

Overview: a VM's weight is the number of tickets of each of its entities. Every entity has a stride, inversely
proportional to its tickets, and a pass, the virtual time of its next turn: whoever has the smallest pass runs for a
quantum, and its pass advances by its stride for each quantum that it used, in part or in full. Who sleeps keeps its
distance to the global pass, which advances as if one entity held all tickets, and has it again when it wakes.

Source: C. A. Waldspurger, W. E. Weihl, "Stride Scheduling: Deterministic Proportional-Share Resource Management",
MIT/LCS/TM-528, 1995: figures 1 and 2 (pass, stride, remain), section 2.1 (partial quanta).

Claims: work-conserving, weight-proportional, starvation-free.

Not modelled: ticket transfers, inflation and currencies; the hierarchical variant. The paper has one processor: here
every pCPU takes the smallest pass of a common queue, and the global pass advances with all pCPUs that are busy. Nobody
is preempted when somebody wakes.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    OrderedIndex,
    hookimpl,
    idle_pcpu,
    kick,
    may_run,
    order_after,
    order_first,
    order_put,
    order_remove,
    param,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "pinning"})

CONTAINERS = (OrderedIndex("passes", of="vcpu"),)

STRIDE1 = 1 << 10
"""Pass of one ns of CPU time with one ticket: fine enough that a weight of 65,535 still pays for its microseconds."""


@frozen
class Params:
    """Parameters of stride."""

    quantum_ns: int = param(
        100_000_000,
        unit="ns",
        low=1,
        help="longest turn of an entity",
        source="Waldspurger 1995 (MIT/LCS/TR-667), chapter 5: 100 ms, Linux 1.1's quantum (cited from memory)",
    )


@state("vcpu")
class Vcpu:
    """An entity's virtual time, or while it sleeps how far it is from the global one."""

    passed: int = 0
    remain: int = 0


@state("host")
class Own:
    """The global pass, when it was brought up to date, tickets that compete, and entities that run."""

    global_pass: int = 0
    updated_ns: int = 0
    tickets: int = 0
    busy: int = 0


def advance(host, now):
    """Bring the global pass up to now."""
    own = host.own
    if own.tickets > 0:
        own.global_pass += (now - own.updated_ns) * own.busy * STRIDE1 // own.tickets
    own.updated_ns = now


def first_for(host, pcpu):
    """The entity of smallest pass that may run on a pCPU, -1 for none."""
    vcpu = order_first(host, host.box.passes)
    while vcpu >= 0 and not may_run(host, vcpu, pcpu):
        vcpu = order_after(host, host.box.passes, vcpu)
    return vcpu


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    # the first turn of a newcomer is due one stride after it came
    v = host.vcpu[vcpu]
    v.remain = host.params.quantum_ns * STRIDE1 // v.weight


@hookimpl
def sched_wake(host, vcpu, now):
    advance(host, now)
    v = host.vcpu[vcpu]
    v.passed = host.own.global_pass + v.remain
    host.own.tickets += v.weight
    order_put(host, host.box.passes, vcpu, v.passed)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return idle_pcpu(host, vcpu, prev)


@hookimpl
def sched_sleep(host, vcpu, now):
    advance(host, now)
    v = host.vcpu[vcpu]
    order_remove(host, host.box.passes, vcpu)
    host.own.tickets -= v.weight
    v.remain = v.passed - host.own.global_pass


@hookimpl
def sched_running(host, vcpu, pcpu, now):
    advance(host, now)
    host.own.busy += 1


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    advance(host, now)
    host.own.busy -= 1
    v = host.vcpu[vcpu]
    v.passed += ran_ns * STRIDE1 // v.weight
    if runnable == 1:
        order_put(host, host.box.passes, vcpu, v.passed)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    vcpu = first_for(host, pcpu)
    if vcpu < 0:
        return IDLE, 0
    order_remove(host, host.box.passes, vcpu)
    if prev >= 0 and vcpu != prev and host.vcpu[prev].state == 1:
        # where others are pinned, a pCPU may idle that could have run it
        other = idle_pcpu(host, prev, -1)
        if other >= 0:
            kick(host, other)
    return vcpu, host.params.quantum_ns
