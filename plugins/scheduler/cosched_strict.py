"""Strict co-scheduling: all vCPUs of a VM that have something to do run together, or none of them does.

Overview: a VM is a gang. It is *placed* by giving each vCPU that is awake a pCPU of its own, all at one instant;
gangs are placed in the order of what they have had of their share by weight, as long as there are enough pCPUs for a
whole gang, and a gang that does not fit is passed over for later ones that do. After `timeslice` everything is placed
anew. A vCPU that halts leaves its pCPU to others. One that wakes while its gang is placed joins it on a free pCPU; if
there is none, the whole gang is co-stopped until all of it fits again. A VM that wakes takes the pCPUs of gangs that
had more. pCPUs that are left over, too few for any waiting gang, idle: the fragmentation that strict co-scheduling is
known for.

Source: J. Ousterhout, "Scheduling Techniques for Concurrent Systems", ICDCS 1982 (co-scheduling, alternate
selection); VMware, "The CPU Scheduler in VMware vSphere 5.1" (2013) for ESX 2.x: strict co-stop and co-start, halted
vCPUs need no pCPU (cited from memory). ESX 2.x lets a gang run apart up to a skew of some milliseconds; here it never
does.

Claims: weight-proportional, starvation-free. A cap covers a VM's vCPUs together.

Not modelled: Ousterhout's matrix keeps a process in its column; here a gang is placed anew each time, on the pCPUs
where it was before if they are free. A VM with more vCPUs awake than there are pCPUs for it cannot run as a whole:
those run that ran least. Host threads are gangs of one.
"""

from __future__ import annotations

from attrs import frozen
from hvbench_plugins.scheduler._gangs import Quota, leader_of, size_of, virtual
from hvbench_plugins.scheduler._quota import BANDWIDTH, charge_quota, has_caps, refill_quotas

from hvbench.policy import (
    COSTOPPED,
    FOREVER,
    IDLE,
    NONE,
    RUNNABLE,
    RUNNING,
    OrderedIndex,
    costart,
    costop,
    hookimpl,
    kick,
    may_run,
    order_after,
    order_first,
    order_len,
    order_put,
    order_remove,
    param,
    set_tick,
    set_timer,
    state,
)

__all__ = ["Quota"]

AXIS = "scheduler"
CLAIMS = frozenset({"weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "cap", "pinning"})

CONTAINERS = (
    # gangs that wait for pCPUs, by their leaders: the one with the least virtual time first; an index for each number
    # of members awake, less one, and one for the pinned ones
    OrderedIndex("gangs", of="vcpu", per="pcpu"),
    OrderedIndex("pinned", of="vcpu"),
    # pCPUs that are given to nobody
    OrderedIndex("spare", of="pcpu"),
)

SLOT = 1
"""The policy timer at which everything is placed anew."""


@frozen
class Params:
    """Parameters of cosched-strict."""

    timeslice_ns: int = param(
        50_000_000,
        unit="ns",
        low=1,
        help="how long a placement lasts",
        source="VMware, The CPU Scheduler in VMware vSphere 5.1: quantum 50 ms (cited from memory)",
    )
    preempt_lag_ns: int = param(
        1_000_000,
        unit="ns",
        low=0,
        help="a woken gang takes the pCPUs of one that is so much virtual time ahead",
        source="choice of this project",
    )
    bandwidth_period_ns: int = param(
        100_000_000, unit="ns", low=1_000_000, help="period in which a cap holds", source="choice of this project"
    )


@state("vcpu")
class Member:
    """An entity: awake or not, its pCPU while its gang is placed, co-stopped; a leader also stands for its gang."""

    leader: int = -1
    awake: int = 0
    given: int = -1
    held: int = 0
    members: int = 0
    placed: int = 0
    costopped: int = 0
    waits_in: int = -1
    waits_since: int = 0
    vtime_ns: int = 0


@state("pcpu")
class Pcpu:
    """Whom this pCPU is given to, who runs here, and since when time is charged."""

    given_to: int = -1
    runs: int = -1
    since_ns: int = 0


@state("host")
class Own:
    """Virtual time of the gang placed last: nobody who slept is further behind. pCPUs; the largest gang; who waits."""

    floor_ns: int = 0
    online: int = 0
    largest: int = 1
    waiting: int = 0
    arrivals: int = 0


# giving and taking pCPUs -----------------------------------------------------------------------------------------


def give(host, vcpu, pcpu):
    host.vcpu[vcpu].given = pcpu
    host.pcpu[pcpu].given_to = vcpu
    order_remove(host, host.box.spare, pcpu)
    if host.pcpu[pcpu].runs != vcpu:
        kick(host, pcpu)


def take(host, vcpu):
    pcpu = host.vcpu[vcpu].given
    if pcpu >= 0:
        host.vcpu[vcpu].given = NONE
        host.pcpu[pcpu].given_to = NONE
        if host.pcpu[pcpu].offline == 0:
            order_put(host, host.box.spare, pcpu, pcpu)
        if host.pcpu[pcpu].runs >= 0:
            kick(host, pcpu)


def spare_for(host, vcpu):
    """A pCPU that is given to nobody, on which an entity may run: where it ran last, else the first; NONE."""
    last = host.vcpu[vcpu].pcpu
    if last >= 0 and host.pcpu[last].given_to < 0 and may_run(host, vcpu, last):
        return last
    pcpu = order_first(host, host.box.spare)
    while pcpu >= 0 and not may_run(host, vcpu, pcpu):
        pcpu = order_after(host, host.box.spare, pcpu)
    return pcpu


def capacity(host, leader, spare):
    """pCPUs that a gang could have: of all, or (spare 1) of those given to nobody; counted no further than needed."""
    most = host.vcpu[leader].members
    found = 0
    if spare == 1:
        pcpu = order_first(host, host.box.spare)
        while pcpu >= 0 and found < most:
            if may_run(host, leader, pcpu):
                found += 1
            pcpu = order_after(host, host.box.spare, pcpu)
    else:
        for other in range(host.pcpus):
            if found < most and may_run(host, leader, other):
                found += 1
    return found


def wanted(host, leader):
    """pCPUs that a gang needs to be placed: one for each member awake, if the host has so many for it."""
    if host.vcpu[leader].affinity == 0:
        return min(host.vcpu[leader].members, host.own.online)
    return capacity(host, leader, 0)


def fits(host, leader, need):
    """Whether a gang could be given `need` pCPUs now."""
    if host.vcpu[leader].affinity == 0:
        return order_len(host, host.box.spare) >= need
    return capacity(host, leader, 1) >= need


# gangs that wait -------------------------------------------------------------------------------------------------


def line_of(host, leader):
    """The index in which a gang waits."""
    if host.vcpu[leader].affinity != 0:
        return host.box.pinned
    return host.box.gangs + min(host.vcpu[leader].members, host.pcpus) - 1


def end_wait(host, leader):
    gang = host.vcpu[leader]
    if gang.waits_in >= 0:
        order_remove(host, gang.waits_in, leader)
        gang.waits_in = NONE
        host.own.waiting -= 1


def let_wait(host, leader):
    """A gang waits, behind those with as much virtual time or less."""
    gang = host.vcpu[leader]
    if gang.waits_in < 0:
        host.own.waiting += 1
    gang.waits_in = line_of(host, leader)
    host.own.arrivals += 1
    gang.waits_since = host.own.arrivals
    order_put(host, gang.waits_in, leader, gang.vtime_ns)


def change_line(host, leader):
    """A waiting gang has fewer members awake: it keeps its place, also among those with as much virtual time."""
    gang = host.vcpu[leader]
    line = line_of(host, leader)
    if gang.waits_in < 0 or gang.waits_in == line:
        return
    gang.waits_in = line
    order_put(host, line, leader, gang.vtime_ns)
    other = order_first(host, line)
    for _ in range(order_len(host, line)):
        after = order_after(host, line, other)
        if host.vcpu[other].vtime_ns == gang.vtime_ns and host.vcpu[other].waits_since > gang.waits_since:
            order_put(host, line, other, gang.vtime_ns)
        other = after


def stands_before(host, leader, other):
    """Whether a waiting gang comes before another one."""
    a = host.vcpu[leader]
    b = host.vcpu[other]
    return a.vtime_ns < b.vtime_ns or (a.vtime_ns == b.vtime_ns and a.waits_since < b.waits_since)


def first_fitting(host):
    """The first of the waiting gangs, pinned ones apart, for which enough is spare; NONE."""
    spare = order_len(host, host.box.spare)
    # where all is spare, a gang with more members than there are pCPUs fits as well
    most = host.own.largest if spare >= host.own.online else min(spare, host.own.largest)
    best = NONE
    for line in range(min(most, host.pcpus)):
        leader = order_first(host, host.box.gangs + line)
        if leader >= 0 and (best < 0 or stands_before(host, leader, best)):
            best = leader
    return best


def place(host, leader):
    """Give every member that is awake a pCPU, if there are enough; 1 if that was done."""
    need = wanted(host, leader)
    if need == 0 or not fits(host, leader, need):
        return 0
    gang = host.vcpu[leader]
    gang.placed = 1
    gang.costopped = 0
    end_wait(host, leader)
    host.own.floor_ns = max(host.own.floor_ns, gang.vtime_ns)
    for _ in range(need):
        chosen = NONE
        for vcpu in range(leader, leader + size_of(host, leader)):
            v = host.vcpu[vcpu]
            if v.awake == 1 and v.given < 0 and (chosen < 0 or v.ran_ns < host.vcpu[chosen].ran_ns):
                chosen = vcpu
        give(host, chosen, spare_for(host, chosen))
    for vcpu in range(leader, leader + size_of(host, leader)):
        if host.vcpu[vcpu].held == 1:
            host.vcpu[vcpu].held = 0
            costart(host, vcpu)
    return 1


def evict(host, leader):
    """Take the pCPUs of a gang away; it waits."""
    gang = host.vcpu[leader]
    gang.placed = 0
    for vcpu in range(leader, leader + size_of(host, leader)):
        take(host, vcpu)
    if gang.members > 0:
        let_wait(host, leader)


def costop_gang(host, leader):
    """A member woke and found no pCPU: nobody of the gang runs until all do."""
    evict(host, leader)
    host.vcpu[leader].costopped = 1
    for vcpu in range(leader, leader + size_of(host, leader)):
        v = host.vcpu[vcpu]
        if v.held == 0 and (v.state == RUNNING or v.state == RUNNABLE):
            v.held = 1
            costop(host, vcpu)


def fill(host):
    """Place waiting gangs, in order, on what is free."""
    pinned = order_first(host, host.box.pinned)
    while host.own.waiting > 0 and order_len(host, host.box.spare) > 0:
        leader = first_fitting(host)
        if pinned >= 0 and (leader < 0 or stands_before(host, pinned, leader)):
            leader = pinned
            pinned = order_after(host, host.box.pinned, pinned)
        if leader < 0:
            return
        place(host, leader)


# time ------------------------------------------------------------------------------------------------------------


def charge(host, pcpu, now):
    p = host.pcpu[pcpu]
    if p.runs < 0:
        return
    ran = now - p.since_ns
    leader = host.vcpu[p.runs].leader
    gang = host.vcpu[leader]
    if ran > 0:
        p.since_ns = now
        gang.vtime_ns += virtual(host, leader, ran)
        charge_quota(host, p.runs, ran)
    if gang.placed == 0 and gang.members > 0:
        let_wait(host, leader)


def make_room(host, leader, now):
    """Evict the gangs that are furthest ahead of a woken one until it fits; 0 if it never will."""
    limit = host.vcpu[leader].vtime_ns + host.params.preempt_lag_ns
    while place(host, leader) == 0:
        worst = NONE
        for pcpu in range(host.pcpus):
            charge(host, pcpu, now)
            holder = host.pcpu[pcpu].given_to
            if holder >= 0:
                other = host.vcpu[holder].leader
                most = limit if worst < 0 else host.vcpu[worst].vtime_ns
                if host.vcpu[other].vtime_ns > most and may_run(host, leader, pcpu):
                    worst = other
        if worst < 0:
            return 0
        evict(host, worst)
    return 1


# hooks -----------------------------------------------------------------------------------------------------------


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    leader = leader_of(host, vcpu)
    host.vcpu[vcpu].leader = leader
    host.own.largest = max(host.own.largest, size_of(host, leader))


@hookimpl
def sched_init(host, now):
    set_timer(host, SLOT, now + host.params.timeslice_ns)
    if has_caps(host) == 1:
        # running time is charged at ticks, so that a cap is overdrawn by a tenth of its period at most
        for pcpu in range(host.pcpus):
            set_tick(host, pcpu, host.params.bandwidth_period_ns // 10)
        refill_quotas(host, host.params.bandwidth_period_ns)
        set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)


@hookimpl
def sched_timer(host, timer, now):
    if timer == BANDWIDTH:
        refill_quotas(host, host.params.bandwidth_period_ns)
        set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)
        return
    set_timer(host, SLOT, now + host.params.timeslice_ns)
    for pcpu in range(host.pcpus):
        charge(host, pcpu, now)
    for pcpu in range(host.pcpus):
        if host.pcpu[pcpu].given_to >= 0:
            evict(host, host.vcpu[host.pcpu[pcpu].given_to].leader)
    fill(host)


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    charge(host, pcpu, now)


@hookimpl
def sched_pcpu_online(host, pcpu, now):
    host.own.online += 1
    order_put(host, host.box.spare, pcpu, pcpu)
    fill(host)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    holder = host.pcpu[pcpu].given_to
    host.own.online -= 1
    order_remove(host, host.box.spare, pcpu)
    if holder >= 0:
        evict(host, host.vcpu[holder].leader)
    fill(host)


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    if v.awake == 1:
        # co-started: its pCPU was chosen when its gang was placed
        return
    leader = host.vcpu[vcpu].leader
    gang = host.vcpu[leader]
    v.awake = 1
    gang.members += 1
    if gang.placed == 1:
        pcpu = spare_for(host, vcpu)
        if pcpu >= 0:
            give(host, vcpu, pcpu)
        elif wanted(host, leader) < gang.members:
            # more members than the host has pCPUs for: it takes its turn with its siblings
            return
        else:
            costop_gang(host, leader)
            fill(host)
        return
    if gang.members == 1:
        gang.vtime_ns = max(gang.vtime_ns, host.own.floor_ns - host.params.timeslice_ns)
    let_wait(host, leader)
    if make_room(host, leader, now) == 0 and gang.costopped == 1:
        v.held = 1
        costop(host, vcpu)
    # also where gangs were evicted in vain: their pCPUs must not idle until the slot ends
    fill(host)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].given


@hookimpl
def sched_sleep(host, vcpu, now):
    v = host.vcpu[vcpu]
    if v.state == COSTOPPED or v.awake == 0:
        return
    leader = host.vcpu[vcpu].leader
    gang = host.vcpu[leader]
    v.awake = 0
    gang.members -= 1
    take(host, vcpu)
    if gang.members == 0:
        gang.placed = 0
        gang.costopped = 0
        end_wait(host, leader)
    elif gang.placed == 0:
        change_line(host, leader)
    else:
        # a gang too large for the host: a sibling takes over
        for other in range(leader, leader + size_of(host, leader)):
            if host.vcpu[other].awake == 1 and host.vcpu[other].given < 0:
                pcpu = spare_for(host, other)
                if pcpu >= 0:
                    give(host, other, pcpu)
    fill(host)


@hookimpl
def sched_vcpu_remove(host, vcpu, now):
    # killed while it was co-stopped: it was counted as awake
    sched_sleep(host, vcpu, now)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    pcpu = host.vcpu[vcpu].pcpu
    charge(host, pcpu, now)
    host.pcpu[pcpu].runs = NONE
    given = host.vcpu[vcpu].given
    if runnable == 1 and given >= 0 and given != pcpu:
        kick(host, given)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    vcpu = host.pcpu[pcpu].given_to
    if vcpu < 0 or host.vcpu[vcpu].state != RUNNABLE:
        return IDLE, 0
    host.pcpu[pcpu].runs = vcpu
    host.pcpu[pcpu].since_ns = now
    return vcpu, FOREVER
