"""Relaxed co-scheduling: a vCPU that got too far ahead of its slowest sibling is stopped until that one has caught up.

Overview: VMs get CPU time by weight, the one with the least virtual time first; within it the vCPU that lags most,
but one that ran on this pCPU before is preferred while it is not too far ahead. Each vCPU's *progress* is the time
that it did guest work or was halted; its *skew* is how far it is ahead of the slowest sibling that wants to run.
Where the skew of a vCPU exceeds `costop_skew`, that vCPU alone is co-stopped; it is co-started when the skew is
`costart_skew` or less, or when the slow siblings halt. So siblings need not start together, but cannot drift apart.

Source: VMware, "The CPU Scheduler in VMware vSphere 5.1" (2013) and "VMware vSphere 4: The CPU Scheduler in VMware
ESX 4" (2010): relaxed co-scheduling since ESX 3, progress and skew of each vCPU since ESX 4 (cited from memory and
from discussions of these papers; the thresholds are "a few milliseconds" there).

Claims: weight-proportional, starvation-free. A cap covers a VM's vCPUs together.

Not modelled: reservations, the MHz units of shares and limits, ESX's cost model of migrations, NUMA and
hyper-threading accounting. One queue serves the whole host.
"""

from __future__ import annotations

from attrs import frozen
from hvbench_plugins.scheduler._gangs import NONE_AT_ALL, Quota, leader_of, size_of, virtual
from hvbench_plugins.scheduler._quota import BANDWIDTH, charge_quota, has_caps, refill_quotas

from hvbench.policy import (
    BLOCKED,
    IDLE,
    NONE,
    RUNNABLE,
    RUNNING,
    OrderedIndex,
    costart,
    costop,
    hookimpl,
    idle_pcpu,
    kick,
    may_run,
    order_after,
    order_first,
    order_put,
    order_remove,
    param,
    progress,
    set_tick,
    set_timer,
    state,
)

__all__ = ["Quota"]

AXIS = "scheduler"
CLAIMS = frozenset({"weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "cap", "pinning"})

CONTAINERS = (
    # gangs, by their leaders, of which somebody waits: the one with the least virtual time first
    OrderedIndex("gangs", of="vcpu"),
    # busy pCPUs: the one whose gang had the most virtual time when it was chosen first
    OrderedIndex("busy", of="pcpu"),
)

_ESX = "VMware, The CPU Scheduler in VMware vSphere 5.1 (cited from memory)"


@frozen
class Params:
    """Parameters of cosched-relaxed."""

    quantum_ns: int = param(50_000_000, unit="ns", low=1, help="longest run of a vCPU", source=f"{_ESX}: 50 ms")
    costop_skew_ns: int = param(
        3_000_000,
        unit="ns",
        low=0,
        help="a vCPU further ahead of its slowest sibling is co-stopped",
        source=f'{_ESX}: "a few milliseconds"; 3 ms is a choice of this project',
    )
    costart_skew_ns: int = param(
        1_000_000,
        unit="ns",
        low=0,
        help="a co-stopped vCPU that is no further ahead is co-started",
        source="choice of this project: below the threshold for stopping, so that it does not flap",
    )
    sample_ns: int = param(
        1_000_000, unit="ns", low=1, help="period in which skew is looked at", source="choice of this project"
    )
    preempt_lag_ns: int = param(
        1_000_000,
        unit="ns",
        low=0,
        help="a VM that woke preempts one that is so much virtual time ahead, at once or at a tick",
        source="choice of this project",
    )
    bandwidth_period_ns: int = param(
        100_000_000, unit="ns", low=1_000_000, help="period in which a cap holds", source="choice of this project"
    )


@state("vcpu")
class Member:
    """An entity: whether it waits, is co-stopped, woke and has not run yet; of a leader also what its gang has had."""

    queued: int = 0
    held: int = 0
    woken: int = 0
    waiting: int = 0
    vtime_ns: int = 0


@state("pcpu")
class Pcpu:
    """Who runs here, since when time is charged, and who should run next for a sibling's sake."""

    runs: int = -1
    since_ns: int = 0
    wanted: int = -1


@state("host")
class Own:
    """Virtual time of the gang chosen last: nobody who slept is further behind."""

    floor_ns: int = 0


def note_gang(host, leader):
    """Keep the order of gangs of which somebody waits."""
    if host.vcpu[leader].waiting > 0:
        order_put(host, host.box.gangs, leader, host.vcpu[leader].vtime_ns)
    else:
        order_remove(host, host.box.gangs, leader)


def queue(host, vcpu):
    leader = leader_of(host, vcpu)
    host.vcpu[vcpu].queued = 1
    host.vcpu[leader].waiting += 1
    note_gang(host, leader)


def unqueue(host, vcpu):
    leader = leader_of(host, vcpu)
    host.vcpu[vcpu].queued = 0
    host.vcpu[leader].waiting -= 1
    note_gang(host, leader)


def charge(host, pcpu, now):
    """Let virtual time pass for the gang of who runs."""
    p = host.pcpu[pcpu]
    if p.runs < 0:
        return
    ran = now - p.since_ns
    p.since_ns = now
    leader = leader_of(host, p.runs)
    host.vcpu[leader].vtime_ns += virtual(host, leader, ran)
    note_gang(host, leader)
    charge_quota(host, p.runs, ran)


def slowest(host, leader, now):
    """Progress of the slowest member that wants to run; NONE_AT_ALL if none does."""
    least = NONE_AT_ALL
    for vcpu in range(leader, leader + size_of(host, leader)):
        if host.vcpu[vcpu].state != BLOCKED:
            made = progress(host, vcpu, now)
            if least == NONE_AT_ALL or made < least:
                least = made
    return least


def check_skew(host, leader, now):
    """Co-stop who is too far ahead, co-start who no longer is."""
    if size_of(host, leader) < 2:
        return
    least = slowest(host, leader, now)
    for vcpu in range(leader, leader + size_of(host, leader)):
        v = host.vcpu[vcpu]
        if v.held == 1:
            if least == NONE_AT_ALL or progress(host, vcpu, now) - least <= host.params.costart_skew_ns:
                v.held = 0
                costart(host, vcpu)
        elif v.state == RUNNING or v.state == RUNNABLE:
            if progress(host, vcpu, now) - least > host.params.costop_skew_ns:
                v.held = 1
                costop(host, vcpu)


def member_for(host, leader, pcpu, now):
    """The waiting member that a pCPU takes: who ran here, unless it is too far ahead, else the one that lags most."""
    best = NONE
    least = 0
    here = NONE
    for vcpu in range(leader, leader + size_of(host, leader)):
        v = host.vcpu[vcpu]
        if v.queued == 0 or v.held == 1 or not may_run(host, vcpu, pcpu):
            continue
        made = progress(host, vcpu, now)
        if best < 0 or made < least:
            best = vcpu
            least = made
        if v.pcpu == pcpu and (here < 0 or made < progress(host, here, now)):
            here = vcpu
    if here >= 0 and progress(host, here, now) - least <= host.params.costart_skew_ns:
        return here
    return best


@hookimpl
def sched_init(host, now):
    for pcpu in range(host.pcpus):
        set_tick(host, pcpu, host.params.sample_ns)
    if has_caps(host) == 1:
        refill_quotas(host, host.params.bandwidth_period_ns)
        set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)


@hookimpl
def sched_timer(host, timer, now):
    refill_quotas(host, host.params.bandwidth_period_ns)
    set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)


@hookimpl
def sched_wake(host, vcpu, now):
    leader = leader_of(host, vcpu)
    gang = host.vcpu[leader]
    gang.vtime_ns = max(gang.vtime_ns, host.own.floor_ns)
    host.vcpu[vcpu].woken = 1
    queue(host, vcpu)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    idle = idle_pcpu(host, vcpu, prev)
    if idle >= 0:
        return idle
    own_ns = host.vcpu[leader_of(host, vcpu)].vtime_ns + host.params.preempt_lag_ns
    pcpu = order_first(host, host.box.busy)
    while pcpu >= 0 and not may_run(host, vcpu, pcpu):
        pcpu = order_after(host, host.box.busy, pcpu)
    if pcpu >= 0 and host.vcpu[leader_of(host, host.pcpu[pcpu].runs)].vtime_ns > own_ns:
        kick(host, pcpu)
    return NONE


@hookimpl
def sched_sleep(host, vcpu, now):
    if host.vcpu[vcpu].queued == 1:
        unqueue(host, vcpu)
    # who was waited for may have halted
    check_skew(host, leader_of(host, vcpu), now)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    pcpu = host.vcpu[vcpu].pcpu
    charge(host, pcpu, now)
    host.pcpu[pcpu].runs = NONE
    order_remove(host, host.box.busy, pcpu)
    if runnable == 1:
        queue(host, vcpu)


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    charge(host, pcpu, now)
    leader = leader_of(host, vcpu)
    check_skew(host, leader, now)
    # one that woke when this one was not far enough ahead does not wait for the end of the quantum
    first = order_first(host, host.box.gangs)
    if first >= 0 and host.vcpu[first].vtime_ns + host.params.preempt_lag_ns < host.vcpu[leader].vtime_ns:
        member = member_for(host, first, pcpu, now)
        if member >= 0 and host.vcpu[member].woken == 1:
            kick(host, pcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    p = host.pcpu[pcpu]
    vcpu = p.wanted
    p.wanted = NONE
    if vcpu < 0 or host.vcpu[vcpu].queued == 0 or host.vcpu[vcpu].held == 1 or not may_run(host, vcpu, pcpu):
        vcpu = NONE
        leader = order_first(host, host.box.gangs)
        while leader >= 0 and vcpu < 0:
            vcpu = member_for(host, leader, pcpu, now)
            leader = order_after(host, host.box.gangs, leader)
        if vcpu < 0:
            return IDLE, 0
    unqueue(host, vcpu)
    host.vcpu[vcpu].woken = 0
    p.runs = vcpu
    p.since_ns = now
    vtime_ns = host.vcpu[leader_of(host, vcpu)].vtime_ns
    order_put(host, host.box.busy, pcpu, -vtime_ns)
    host.own.floor_ns = max(host.own.floor_ns, vtime_ns)
    return vcpu, host.params.quantum_ns


@hookimpl
def sched_yield(host, vcpu, target, now):
    # who spins for a sibling that waits has no use for its pCPU: the sibling gets it
    host.pcpu[host.vcpu[vcpu].pcpu].wanted = target


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    for other in range(host.pcpus):
        if host.pcpu[other].idle == 1:
            kick(host, other)
