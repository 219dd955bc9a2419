"""EEVDF: Linux since 6.6, earliest eligible virtual deadline first, a VM a cgroup.

Overview: each pCPU has a run queue. A task's virtual time advances with the time that it runs, divided by its load;
it is *eligible* while it has had no more than its share (its virtual time is not ahead of the load-weighted average).
Of those eligible the one with the earliest virtual deadline runs; a deadline lies a slice (divided by the load)
behind. Once chosen a task runs until it has used its slice or is not eligible any more (RUN_TO_PARITY). Who sleeps
keeps its lag, the share that it is owed or owes; one that owes stays in the queue until it is worked off
(DELAY_DEQUEUE). A woken task goes to an idle pCPU on its last-level cache or to where it ran before, and preempts
there if it is the one to be chosen. A pCPU that would idle pulls from the busiest queue, a busy one balances now and
then. The end of a slice is noticed at ticks.

Source: Linux 6.12, kernel/sched/fair.c (pick_eevdf, place_entity, update_entity_lag, update_deadline,
check_preempt_wakeup_fair), kernel/sched/features.h; I. Stoica, H. Abdel-Wahab, "Earliest Eligible Virtual Deadline
First", Old Dominion University TR-95-22, 1995. What is shared with CFS: plugins/scheduler/_linux.py.

Claims: starvation-free, weight-proportional. VM weights are cgroup shares, caps are cpu.max (a VM's vCPUs together).

Not modelled: the cgroup hierarchy (it is flattened), load averages, wake-affine pulls to the waker, NUMA balancing,
custom slices (PREEMPT_SHORT), per-pCPU slices of a bandwidth quota; balancing domains are one last-level cache and
the host.
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
    detach,
    fallback,
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

_FAIR = "Linux 6.12, kernel/sched/fair.c"
_FEATURES = "Linux 6.12, kernel/sched/features.h"


@frozen
class Params:
    """Tunables of the fair class; a recording's metadata says what its kernel had."""

    base_slice_ns: int = param(
        750_000,
        unit="ns",
        low=1,
        help="slice of a task, before it is scaled by 1 + log2 of the pCPUs (8 at most): 3 ms from 8 pCPUs on",
        source=f"{_FAIR}: sysctl_sched_base_slice 750000 (700000 since 6.15)",
    )
    scale_by_pcpus: bool = param(
        True, help="scale the slice by the pCPUs", source=f"{_FAIR}: SCHED_TUNABLESCALING_LOG"
    )
    tick_ns: int = param(
        4_000_000, unit="ns", low=1, help="period of the tick, 1/HZ", source="Linux 6.12, kernel/Kconfig.hz: HZ_250"
    )
    lazy_preemption: bool = param(
        False,
        help="PREEMPT_LAZY: a woken task preempts at a tick; under the other models it preempts a guest at once",
        source="Linux 6.13, kernel/sched/core.c: resched_curr_lazy; not the default of 6.12",
    )
    run_to_parity: bool = param(True, help="protect who was chosen", source=f"{_FEATURES}: RUN_TO_PARITY true")
    delay_dequeue: bool = param(
        True, help="who sleeps while it owes stays in the queue", source=f"{_FEATURES}: DELAY_DEQUEUE true (since 6.12)"
    )
    bandwidth_period_ns: int = param(
        100_000_000,
        unit="ns",
        low=1_000_000,
        help="period in which a cap holds",
        source=f"{_FAIR}: default_cfs_period 100 ms",
    )


# averages ----------------------------------------------------------------------------------------------------


def slice_of(host):
    if host.params.scale_by_pcpus:
        return scaled(host, host.params.base_slice_ns)
    return host.params.base_slice_ns


def sums(host, pcpu):
    """Load and load-weighted distance from the base of all that wait or run on a pCPU."""
    p = host.pcpu[pcpu]
    load = p.sum_load
    key = p.sum_key
    if p.runs >= 0:
        v = host.vcpu[p.runs]
        load += v.load
        key += v.load * (v.vruntime_ns - p.base_ns)
    return load, key


def average(host, pcpu):
    """The virtual time at which everybody had exactly their share. [avg_vruntime]"""
    load, key = sums(host, pcpu)
    if load == 0:
        return host.pcpu[pcpu].base_ns
    return host.pcpu[pcpu].base_ns + key // load


def eligible(host, pcpu, vcpu):
    """1 if a task has had no more than its share. [vruntime_eligible: without a division]"""
    load, key = sums(host, pcpu)
    return 1 if key >= (host.vcpu[vcpu].vruntime_ns - host.pcpu[pcpu].base_ns) * load else 0


def rebase(host, pcpu):
    """Keep the numbers small: count from the average. [update_min_vruntime]"""
    p = host.pcpu[pcpu]
    moved = average(host, pcpu) - p.base_ns
    p.sum_key -= moved * p.sum_load
    p.base_ns += moved


def join(host, vcpu):
    """A task waits in its pCPU's tree, in the order of deadlines."""
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    p.sum_load += v.load
    p.sum_key += v.load * (v.vruntime_ns - p.base_ns)
    stand(host, vcpu, v.deadline_ns)


def part(host, vcpu):
    """It leaves the tree."""
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    p.sum_load -= v.load
    p.sum_key -= v.load * (v.vruntime_ns - p.base_ns)
    if v.delayed == 1:
        v.delayed = 0
        p.waiting += 1
    unstand(host, vcpu)


def note_lag(host, vcpu):
    """What it is owed, bounded by two slices or a tick. [update_entity_lag]"""
    v = host.vcpu[vcpu]
    limit = virtual(max(2 * slice_of(host), host.params.tick_ns), v.load)
    lag = average(host, v.home) - v.vruntime_ns
    v.lag_ns = max(-limit, min(limit, lag))


def place(host, vcpu, pcpu):
    """Virtual time and deadline of a task that joins a run queue, by its lag. [place_entity: PLACE_LAG]"""
    v = host.vcpu[vcpu]
    p = host.pcpu[pcpu]
    lag = v.lag_ns
    if p.tasks > 0 and lag != 0:
        # adding it moves the average: it must have the lag that it had, after that
        load, _ = sums(host, pcpu)
        lag = lag * (load + v.load) // max(1, load)
    elif p.tasks == 0:
        lag = 0
    v.vruntime_ns = average(host, pcpu) - lag
    vslice = virtual(slice_of(host), v.load)
    if v.placed == 0:
        # [PLACE_DEADLINE_INITIAL]
        vslice = vslice // 2
        v.placed = 1
    v.deadline_ns = v.vruntime_ns + vslice


def enqueue(host, vcpu, pcpu):
    v = host.vcpu[vcpu]
    v.load = load_of(host, vcpu)
    place(host, vcpu, pcpu)
    attach(host, vcpu, pcpu)
    join(host, vcpu)


def dequeue(host, vcpu):
    """Out of the run queue; what it is owed is kept. [dequeue_entity]"""
    note_lag(host, vcpu)
    part(host, vcpu)
    detach(host, vcpu)


def move(host, vcpu, pcpu):
    """To another pCPU, with its lag and what is left of its slice. [PLACE_REL_DEADLINE]"""
    v = host.vcpu[vcpu]
    relative = v.deadline_ns - v.vruntime_ns
    dequeue(host, vcpu)
    place(host, vcpu, pcpu)
    v.deadline_ns = v.vruntime_ns + relative
    attach(host, vcpu, pcpu)
    join(host, vcpu)


# time --------------------------------------------------------------------------------------------------------


def update_curr(host, pcpu, now):
    """Let virtual time pass for who runs; 1 if its slice is used up. [update_curr, update_deadline]"""
    p = host.pcpu[pcpu]
    vcpu = p.runs
    if vcpu < 0:
        return 0
    v = host.vcpu[vcpu]
    ran = now - p.since_ns
    p.since_ns = now
    v.vruntime_ns += virtual(ran, v.load)
    charge_quota(host, vcpu, ran)
    if v.vruntime_ns < v.deadline_ns:
        return 0
    v.deadline_ns = v.vruntime_ns + virtual(slice_of(host), v.load)
    return 1


def reweigh(host, pcpu):
    """Siblings woke or slept: the load of who runs changes, and with it the scale of its times. [reweight_eevdf]"""
    p = host.pcpu[pcpu]
    v = host.vcpu[p.runs]
    load = load_of(host, p.runs)
    if load != v.load:
        middle = average(host, pcpu)
        protected = v.protect_ns == v.deadline_ns
        v.deadline_ns = middle + (v.deadline_ns - middle) * v.load // load
        v.vruntime_ns = middle - (middle - v.vruntime_ns) * v.load // load
        if protected:
            v.protect_ns = v.deadline_ns
        p.load += load - v.load
        v.load = load
        note_waiting(host, pcpu)


def resched(host, pcpu, at_once):
    """Have a pCPU choose anew, now or at its next tick."""
    if at_once == 1 or not host.params.lazy_preemption:
        kick(host, pcpu)
    else:
        host.pcpu[pcpu].lazy = 1


def earliest(host, pcpu, curr):
    """The eligible task with the earliest deadline; `curr` runs, or did until now. [pick_eevdf]"""
    if curr >= 0 and eligible(host, pcpu, curr) == 0:
        curr = NONE
    if curr >= 0 and host.params.run_to_parity and host.vcpu[curr].protect_ns == host.vcpu[curr].deadline_ns:
        return curr
    best = order_first(host, host.box.queue + pcpu)
    while best >= 0 and eligible(host, pcpu, best) == 0:
        best = order_after(host, host.box.queue + pcpu, best)
    if best < 0:
        return curr
    if curr >= 0 and host.vcpu[curr].deadline_ns < host.vcpu[best].deadline_ns:
        return curr
    return best


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
    v = host.vcpu[vcpu]
    wakes(host, vcpu)
    if v.delayed == 1:
        update_curr(host, v.home, now)
        # it never left its queue; what it worked off beyond its share is forgotten [requeue_delayed_entity: DELAY_ZERO]
        home = v.home
        note_lag(host, vcpu)
        if v.lag_ns > 0:
            v.lag_ns = 0
            part(host, vcpu)
            detach(host, vcpu)
            enqueue(host, vcpu, home)
        else:
            v.delayed = 0
            host.pcpu[home].waiting += 1
            note_waiting(host, home)
    else:
        target = select_rq(host, vcpu)
        update_curr(host, target, now)
        enqueue(host, vcpu, target)
    pcpu = v.home
    curr = host.pcpu[pcpu].runs
    if curr >= 0 and earliest(host, pcpu, curr) == vcpu:
        resched(host, pcpu, 0)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].home


@hookimpl
def sched_sleep(host, vcpu, now):
    sleeps(host, vcpu)
    if host.vcpu[vcpu].queued == 1 and host.vcpu[vcpu].delayed == 0:
        dequeue(host, vcpu)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    pcpu = v.home
    p = host.pcpu[pcpu]
    update_curr(host, pcpu, now)
    reweigh(host, pcpu)
    v.ran_until_ns = now
    if runnable == 1:
        p.runs = NONE
        join(host, vcpu)
        return
    owes = eligible(host, pcpu, vcpu) == 0
    note_lag(host, vcpu)
    p.runs = NONE
    if owes and host.params.delay_dequeue:
        join(host, vcpu)
        v.delayed = 1
        p.waiting -= 1
        note_waiting(host, pcpu)
    else:
        detach(host, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    p = host.pcpu[pcpu]
    p.lazy = 0
    rebase(host, pcpu)
    curr = NONE
    if prev >= 0 and host.vcpu[prev].queued == 1 and host.vcpu[prev].home == pcpu:
        if host.vcpu[prev].delayed == 0:
            curr = prev
    while True:
        best = p.buddy
        p.buddy = NONE
        if best < 0 or eligible(host, pcpu, best) == 0:
            # the target of a directed yield, if it is eligible [PICK_BUDDY, 6.14; not picked from 6.6 to 6.13]
            best = earliest(host, pcpu, curr)
        if best < 0 or host.vcpu[best].delayed == 0:
            break
        # it has worked off what it owed: now it sleeps [DELAY_ZERO]
        dequeue(host, best)
        host.vcpu[best].lag_ns = min(0, host.vcpu[best].lag_ns)
    if best < 0:
        best = newidle(host, pcpu, 0, now)
        if best < 0:
            return IDLE, 0
        move(host, best, pcpu)
    part(host, best)
    p.runs = best
    p.since_ns = now
    host.vcpu[best].protect_ns = host.vcpu[best].deadline_ns
    return best, FOREVER


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    p = host.pcpu[pcpu]
    used_up = update_curr(host, pcpu, now)
    reweigh(host, pcpu)
    pulled = rebalance(host, pcpu, 0, now)
    if pulled >= 0:
        move(host, pulled, pcpu)
        if earliest(host, pcpu, vcpu) == pulled:
            p.lazy = 1
    if p.tasks > 1 and (used_up == 1 or p.lazy == 1):
        resched(host, pcpu, 1)
    wake_an_idle_pcpu(host, pcpu)


@hookimpl
def sched_yield(host, vcpu, target, now):
    """A pause-loop exit: KVM boosts a preempted sibling. [kvm_vcpu_on_spin, yield_to_task_fair]"""
    v = host.vcpu[vcpu]
    pcpu = v.home
    boosted = boost_target(host, vcpu)
    if boosted < 0:
        return
    home = host.vcpu[boosted].home
    host.pcpu[home].buddy = boosted
    if host.pcpu[pcpu].tasks > 1:
        # who yields asks for its next slice at once
        update_curr(host, pcpu, now)
        v.deadline_ns += virtual(slice_of(host), v.load)
    if home != pcpu:
        kick(host, home)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    vcpu = order_first(host, host.box.queue + pcpu)
    while vcpu >= 0:
        if host.vcpu[vcpu].delayed == 1:
            dequeue(host, vcpu)
        else:
            target = fallback(host, vcpu)
            move(host, vcpu, target)
            kick(host, target)
        vcpu = order_first(host, host.box.queue + pcpu)
