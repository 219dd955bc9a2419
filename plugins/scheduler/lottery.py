"""Lottery scheduling: whoever holds the winning ticket runs next.

Overview: a VM's weight is the number of tickets of each of its entities. For each turn a ticket is drawn among those of
the runnable entities, and its holder runs for a quantum: shares are proportional to tickets on average, with a spread
that shrinks with the square root of the number of turns. An entity that used only a fraction f of its quantum holds
1/f times its tickets until it wins again (a compensation ticket), so that short bursts do not lose their share.

Source: C. A. Waldspurger, W. E. Weihl, "Lottery Scheduling: Flexible Proportional-Share Resource Management", OSDI
1994: section 2 (lotteries), 3.4 (compensation tickets), 4.2 (tree of partial ticket sums), 5 (100 ms quantum); the tree
is that of P. M. Fenwick, "A New Data Structure for Cumulative Frequency Tables", Software: Practice and Experience 24
(1994).

Claims: work-conserving, weight-proportional (on average), starvation-free (with probability 1).

Not modelled: currencies, ticket transfers, inflation. The draw is the kernel's random service, not the paper's
Park-Miller generator. The paper has one processor: here every pCPU holds lotteries among the entities that wait.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    NONE,
    Fifo,
    fifo_first,
    fifo_next,
    fifo_push,
    fifo_remove,
    hookimpl,
    idle_pcpu,
    kick,
    may_run,
    param,
    random_below,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "pinning"})

CONTAINERS = (Fifo("pinned", of="vcpu"),)
"""Pinned entities that take part in the next lottery; the others stand in the tree."""


@frozen
class Params:
    """Parameters of lottery."""

    quantum_ns: int = param(
        100_000_000,
        unit="ns",
        low=1,
        help="longest turn of an entity",
        source="Waldspurger and Weihl 1994, section 5: 100 ms, Mach 3.0's quantum (from memory)",
    )
    compensation: bool = param(
        True, help="whether who used part of a quantum gets a compensation ticket", source="the same, section 3.4: yes"
    )


@state("vcpu")
class Vcpu:
    """What an entity used of its last quantum, if not all; its tickets in the next lottery; and a node of the tree."""

    used_ns: int = 0
    tickets: int = 0
    partial_sum: int = 0


@state("host")
class Own:
    """Tickets of all that stand in the tree, and the largest power of two of its nodes."""

    tickets: int = 0
    root: int = 1


def tickets_of(host, vcpu):
    """Tickets of an entity, compensation included."""
    v = host.vcpu[vcpu]
    if v.used_ns == 0:
        return v.weight
    return v.weight * host.params.quantum_ns // v.used_ns


# the tree of partial ticket sums: node n, counted from 1, holds the tickets of as many entities, up to entity n - 1,
# as the lowest power of two in n says [Fenwick]


def add(host, vcpu, tickets):
    host.own.tickets += tickets
    node = vcpu + 1
    while node <= host.vcpus:
        host.vcpu[node - 1].partial_sum += tickets
        node += node & -node


def find(host, winner):
    """The entity that holds a ticket, tickets counted in the order of entities."""
    node = 0
    step = host.own.root
    while step > 0:
        if node + step <= host.vcpus and host.vcpu[node + step - 1].partial_sum <= winner:
            node += step
            winner -= host.vcpu[node - 1].partial_sum
        step //= 2
    return node


def enter(host, vcpu):
    """An entity takes part in the next lottery."""
    v = host.vcpu[vcpu]
    v.tickets = tickets_of(host, vcpu)
    if v.affinity != 0:
        fifo_push(host, host.box.pinned, vcpu)
    else:
        add(host, vcpu, v.tickets)


def leave(host, vcpu):
    v = host.vcpu[vcpu]
    if v.affinity != 0:
        fifo_remove(host, host.box.pinned, vcpu)
    elif v.tickets > 0:
        add(host, vcpu, -v.tickets)
    v.tickets = 0


@hookimpl
def sched_init(host, now):
    while host.own.root * 2 <= host.vcpus:
        host.own.root *= 2


@hookimpl
def sched_wake(host, vcpu, now):
    enter(host, vcpu)


@hookimpl
def sched_sleep(host, vcpu, now):
    leave(host, vcpu)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return idle_pcpu(host, vcpu, prev)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    v.used_ns = 0
    if host.params.compensation and runnable == 0 and ran_ns < host.params.quantum_ns:
        v.used_ns = max(1, ran_ns)
    if runnable == 1:
        enter(host, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    total = host.own.tickets
    vcpu = fifo_first(host, host.box.pinned)
    while vcpu >= 0:
        if may_run(host, vcpu, pcpu):
            total += host.vcpu[vcpu].tickets
        vcpu = fifo_next(host, host.box.pinned, vcpu)
    if total == 0:
        return IDLE, 0
    winner = random_below(host, total)
    if winner < host.own.tickets:
        vcpu = find(host, winner)
    else:
        winner -= host.own.tickets
        vcpu = fifo_first(host, host.box.pinned)
        while vcpu >= 0:
            if may_run(host, vcpu, pcpu):
                winner -= host.vcpu[vcpu].tickets
                if winner < 0:
                    break
            vcpu = fifo_next(host, host.box.pinned, vcpu)
    leave(host, vcpu)
    if prev >= 0 and vcpu != prev and host.vcpu[prev].state == 1:
        # where others are pinned, a pCPU may idle that could have run it
        other = idle_pcpu(host, prev, NONE)
        if other >= 0:
            kick(host, other)
    return vcpu, host.params.quantum_ns
