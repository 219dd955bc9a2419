"""Lottery scheduling: whoever holds the winning ticket runs next.

Overview: a VM's weight is the number of tickets of each of its entities. For each turn a ticket is drawn among those of
the runnable entities, and its holder runs for a quantum: shares are proportional to tickets on average, with a spread
that shrinks with the square root of the number of turns. An entity that used only a fraction f of its quantum holds
1/f times its tickets until it wins again (a compensation ticket), so that short bursts do not lose their share.

Source: C. A. Waldspurger, W. E. Weihl, "Lottery Scheduling: Flexible Proportional-Share Resource Management", OSDI
1994: section 2 (lotteries), 3.4 (compensation tickets), 4.2 (list-based lottery), 5 (100 ms quantum).

Claims: work-conserving, weight-proportional (on average), starvation-free (with probability 1).

Not modelled: currencies, ticket transfers, inflation. The draw is the kernel's random service, not the paper's
Park-Miller generator. The paper has one processor: here every pCPU holds lotteries among the entities that wait.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    NONE,
    hookimpl,
    idle_pcpu,
    kick,
    may_run,
    param,
    random_below,
    runq_first,
    runq_next,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "pinning"})


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
    """The part of its last quantum that an entity used before it gave the rest away; 0: all of it, or none yet."""

    used_ns: int = 0


def tickets_of(host, vcpu):
    """Tickets of an entity, compensation included."""
    v = host.vcpu[vcpu]
    if v.used_ns == 0:
        return v.weight
    return v.weight * host.params.quantum_ns // v.used_ns


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return idle_pcpu(host, vcpu, prev)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    v.used_ns = 0
    if host.params.compensation and runnable == 0 and ran_ns < host.params.quantum_ns:
        v.used_ns = max(1, ran_ns)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    total = 0
    vcpu = runq_first(host)
    while vcpu >= 0:
        if may_run(host, vcpu, pcpu):
            total += tickets_of(host, vcpu)
        vcpu = runq_next(host, vcpu)
    if total == 0:
        return IDLE, 0
    winner = random_below(host, total)
    vcpu = runq_first(host)
    while vcpu >= 0:
        if may_run(host, vcpu, pcpu):
            winner -= tickets_of(host, vcpu)
            if winner < 0:
                break
        vcpu = runq_next(host, vcpu)
    if prev >= 0 and vcpu != prev and host.vcpu[prev].state == 1:
        # where others are pinned, a pCPU may idle that could have run it
        other = idle_pcpu(host, prev, NONE)
        if other >= 0:
            kick(host, other)
    return vcpu, host.params.quantum_ns
