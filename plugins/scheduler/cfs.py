"""CFS: Linux 2.6.23 to 6.5, the completely fair scheduler, a VM a cgroup.

Overview: each pCPU has a run queue in the order of virtual time, which advances with the time that a task runs,
divided by its load. The leftmost runs, for its share by load of `sched_latency` (of more where so many wait that
shares would be shorter than `min_granularity`). Who wakes is placed half a latency before the queue's virtual time at
most (GENTLE_FAIR_SLEEPERS), and preempts if it is more than `wakeup_granularity` behind who runs. A woken task goes
to an idle pCPU on its last-level cache or to where it ran before; a pCPU that would idle pulls from the busiest
queue, a busy one balances now and then. The end of a slice is noticed at ticks.

Source: Linux 6.5, kernel/sched/fair.c (check_preempt_tick, wakeup_preempt_entity, place_entity, pick_next_entity,
yield_to_task_fair) and kernel/sched/features.h. What is shared with EEVDF: plugins/scheduler/_linux.py.

Claims: starvation-free, weight-proportional. VM weights are cgroup shares, caps are cpu.max (a VM's vCPUs together).

Not modelled: the cgroup hierarchy (it is flattened), load averages, the LAST_BUDDY feature, wake-affine pulls to the
waker, NUMA balancing, per-pCPU slices of a bandwidth quota; balancing domains are one last-level cache and the host.
"""

from __future__ import annotations

from attrs import frozen
from hvbench_plugins.scheduler._linux import (
    CONTAINERS,
    Group,
    Runqueue,
    Task,
    attach,
    boost_target,
    can_migrate,
    detach,
    fallback,
    has_sibling,
    load_of,
    newidle,
    note_waiting,
    rebalance,
    scaled,
    select_rq,
    sleeps,
    stand,
    unstand,
    virtual,
    wake_an_idle_pcpu,
    wakes,
)
from hvbench_plugins.scheduler._quota import BANDWIDTH, charge_quota, has_caps, refill_quotas

from hvbench.policy import (
    FOREVER,
    IDLE,
    NONE,
    first_idle,
    hookimpl,
    kick,
    order_after,
    order_first,
    param,
    set_tick,
    set_timer,
)

__all__ = ["CONTAINERS", "Group", "Runqueue", "Task"]

AXIS = "scheduler"
CLAIMS = frozenset({"starvation-free", "weight-proportional"})
HONOURS = frozenset({"weight", "cap", "pinning"})

FEW = 8
"""Up to so many tasks share one latency. [sched_nr_latency 8]"""

_FAIR = "Linux 6.5, kernel/sched/fair.c"


@frozen
class Params:
    """Tunables of the fair class; a recording's metadata says what its kernel had."""

    sched_latency_ns: int = param(
        6_000_000,
        unit="ns",
        low=1,
        help="every task runs once in it; scaled by 1 + log2 of the pCPUs (8 at most), as the two below",
        source=f"{_FAIR}: sysctl_sched_latency 6 ms",
    )
    min_granularity_ns: int = param(
        750_000, unit="ns", low=1, help="shortest slice", source=f"{_FAIR}: sysctl_sched_min_granularity 0.75 ms"
    )
    wakeup_granularity_ns: int = param(
        1_000_000,
        unit="ns",
        low=0,
        help="a woken task must be so far behind to preempt",
        source=f"{_FAIR}: sysctl_sched_wakeup_granularity 1 ms",
    )
    scale_by_pcpus: bool = param(True, help="scale the three by the pCPUs", source=f"{_FAIR}: SCHED_TUNABLESCALING_LOG")
    gentle_sleepers: bool = param(
        True,
        help="a sleeper is placed half a latency back, not a whole one",
        source="Linux 6.5, kernel/sched/features.h: GENTLE_FAIR_SLEEPERS true",
    )
    tick_ns: int = param(
        4_000_000, unit="ns", low=1, help="period of the tick, 1/HZ", source="Linux 6.5, kernel/Kconfig.hz: HZ_250"
    )
    bandwidth_period_ns: int = param(
        100_000_000,
        unit="ns",
        low=1_000_000,
        help="period in which a cap holds",
        source=f"{_FAIR}: default_cfs_period 100 ms",
    )
    spread_siblings: bool = param(
        False,
        help="never put two vCPUs of a VM on one run queue, if it can be helped (see the policy balance)",
        source="Linux: no such rule",
    )


def tuned(host, base_ns):
    """A tunable, scaled or not."""
    if host.params.scale_by_pcpus:
        return scaled(host, base_ns)
    return base_ns


def spreads(host):
    return 1 if host.params.spread_siblings else 0


# virtual time: base_ns is the queue's min_vruntime ---------------------------------------------------------------


def update_curr(host, pcpu, now):
    """Let virtual time pass for who runs. [update_curr, update_min_vruntime]"""
    p = host.pcpu[pcpu]
    vcpu = p.runs
    if vcpu < 0:
        return
    v = host.vcpu[vcpu]
    ran = now - p.since_ns
    p.since_ns = now
    v.vruntime_ns += virtual(ran, v.load)
    v.slice_ran_ns += ran
    charge_quota(host, vcpu, ran)
    least = v.vruntime_ns
    first = order_first(host, host.box.queue + pcpu)
    if first >= 0:
        least = min(least, host.vcpu[first].vruntime_ns)
    p.base_ns = max(p.base_ns, least)


def slice_of(host, load, tasks, total):
    """A task's share of the period in a queue of so many tasks and so much load. [sched_slice, __sched_period]"""
    period = tuned(host, host.params.sched_latency_ns)
    shortest = tuned(host, host.params.min_granularity_ns)
    if tasks > FEW:
        period = tasks * shortest
    return max(shortest, period * load // total)


def place(host, vcpu, pcpu):
    """Virtual time of a task that joins a run queue. [place_entity]"""
    v = host.vcpu[vcpu]
    p = host.pcpu[pcpu]
    start = p.base_ns
    if v.placed == 0:
        # a new task begins at the end of the period [START_DEBIT]
        v.placed = 1
        v.vruntime_ns = start + virtual(slice_of(host, v.load, p.tasks + 1, p.load + v.load), v.load)
        return
    if v.home != pcpu:
        v.vruntime_ns += start - host.pcpu[v.home].base_ns
    back = tuned(host, host.params.sched_latency_ns)
    if host.params.gentle_sleepers:
        back = back // 2
    v.vruntime_ns = max(v.vruntime_ns, start - back)


def enqueue(host, vcpu, pcpu, now):
    v = host.vcpu[vcpu]
    update_curr(host, pcpu, now)
    v.load = load_of(host, vcpu)
    place(host, vcpu, pcpu)
    attach(host, vcpu, pcpu)
    stand(host, vcpu, v.vruntime_ns)


def dequeue(host, vcpu):
    unstand(host, vcpu)
    detach(host, vcpu)


def move(host, vcpu, pcpu):
    """To another pCPU, as far ahead of its queue as it was of the old one. [migrate_task_rq_fair]"""
    v = host.vcpu[vcpu]
    dequeue(host, vcpu)
    v.vruntime_ns += host.pcpu[pcpu].base_ns - host.pcpu[v.home].base_ns
    attach(host, vcpu, pcpu)
    stand(host, vcpu, v.vruntime_ns)


def reweigh(host, pcpu):
    """Siblings woke or slept: the load of who runs changes. [update_cfs_group]"""
    p = host.pcpu[pcpu]
    v = host.vcpu[p.runs]
    load = load_of(host, p.runs)
    if load != v.load:
        p.load += load - v.load
        v.load = load
        note_waiting(host, pcpu)


def behind(host, curr, vcpu):
    """1 if a task is so far behind another that it should run instead. [wakeup_preempt_entity]"""
    granularity = virtual(tuned(host, host.params.wakeup_granularity_ns), host.vcpu[vcpu].load)
    return 1 if host.vcpu[curr].vruntime_ns - host.vcpu[vcpu].vruntime_ns > granularity else 0


# placement with siblings apart -----------------------------------------------------------------------------------


def select(host, vcpu):
    """The pCPU whose run queue a woken task joins."""
    chosen = select_rq(host, vcpu)
    if not host.params.spread_siblings or has_sibling(host, vcpu, chosen) == 0:
        return chosen
    # an idle pCPU has no sibling; else the least loaded queue without one [Sukwong and Kim, section 4]
    best = first_idle(host, vcpu, 0, host.pcpus)
    if best >= 0 and has_sibling(host, vcpu, best) == 0:
        return best
    best = NONE
    for step in range(host.pcpus):
        pcpu = (chosen + step) % host.pcpus
        if best >= 0 and host.pcpu[pcpu].load >= host.pcpu[best].load:
            continue
        if can_migrate(host, vcpu, pcpu, 1, 1, 0) == 1:
            best = pcpu
    return chosen if best < 0 else best


# hooks -------------------------------------------------------------------------------------------------------


@hookimpl
def sched_init(host, now):
    for pcpu in range(host.pcpus):
        set_tick(host, pcpu, host.params.tick_ns)
    if has_caps(host) == 1:
        refill_quotas(host, host.params.bandwidth_period_ns)
        set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)


@hookimpl
def sched_timer(host, timer, now):
    refill_quotas(host, host.params.bandwidth_period_ns)
    set_timer(host, BANDWIDTH, now + host.params.bandwidth_period_ns)


@hookimpl
def sched_wake(host, vcpu, now):
    wakes(host, vcpu)
    enqueue(host, vcpu, select(host, vcpu), now)
    pcpu = host.vcpu[vcpu].home
    curr = host.pcpu[pcpu].runs
    if curr >= 0 and behind(host, curr, vcpu) == 1:
        kick(host, pcpu)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].home


@hookimpl
def sched_sleep(host, vcpu, now):
    sleeps(host, vcpu)
    if host.vcpu[vcpu].queued == 1:
        dequeue(host, vcpu)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    pcpu = v.home
    update_curr(host, pcpu, now)
    reweigh(host, pcpu)
    v.ran_until_ns = now
    host.pcpu[pcpu].runs = NONE
    if runnable == 1:
        stand(host, vcpu, v.vruntime_ns)
    else:
        detach(host, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    p = host.pcpu[pcpu]
    best = order_first(host, host.box.queue + pcpu)
    if best < 0:
        best = newidle(host, pcpu, spreads(host), now)
        if best < 0:
            return IDLE, 0
        move(host, best, pcpu)
    first = best
    if best == p.skip:
        # who yielded, unless that is unfair [pick_next_entity]
        second = order_after(host, host.box.queue + pcpu, best)
        if second >= 0 and behind(host, second, first) == 0:
            best = second
    if p.buddy >= 0 and behind(host, p.buddy, first) == 0:
        best = p.buddy
    p.buddy = NONE
    p.skip = NONE
    unstand(host, best)
    p.runs = best
    p.since_ns = now
    host.vcpu[best].slice_ran_ns = 0
    return best, FOREVER


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    p = host.pcpu[pcpu]
    v = host.vcpu[vcpu]
    update_curr(host, pcpu, now)
    reweigh(host, pcpu)
    pulled = rebalance(host, pcpu, spreads(host), now)
    if pulled >= 0:
        move(host, pulled, pcpu)
        if behind(host, vcpu, pulled) == 1:
            kick(host, pcpu)
    first = order_first(host, host.box.queue + pcpu)
    if first >= 0:
        # [check_preempt_tick]
        ideal = min(slice_of(host, v.load, p.tasks, p.load), tuned(host, host.params.sched_latency_ns))
        if v.slice_ran_ns > ideal:
            kick(host, pcpu)
        elif v.slice_ran_ns >= tuned(host, host.params.min_granularity_ns):
            if v.vruntime_ns - host.vcpu[first].vruntime_ns > ideal:
                kick(host, pcpu)
    wake_an_idle_pcpu(host, pcpu)


@hookimpl
def sched_yield(host, vcpu, target, now):
    """A pause-loop exit: KVM boosts a preempted sibling. [kvm_vcpu_on_spin, yield_to_task_fair]"""
    boosted = boost_target(host, vcpu)
    if boosted < 0:
        return
    home = host.vcpu[boosted].home
    host.pcpu[home].buddy = boosted
    host.pcpu[host.vcpu[vcpu].home].skip = vcpu
    if home != host.vcpu[vcpu].home:
        kick(host, home)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    vcpu = order_first(host, host.box.queue + pcpu)
    while vcpu >= 0:
        target = fallback(host, vcpu)
        move(host, vcpu, target)
        kick(host, target)
        vcpu = order_first(host, host.box.queue + pcpu)
