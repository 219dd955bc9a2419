"""Xen's credit scheduler: shares by weight, caps, a boost for who wakes, work stealing between pCPUs.

Overview: every `accounting_ns` the credits of all pCPUs are dealt out to the entities that ran, by weight;
running burns them. An entity with credits left is UNDER, one without is OVER; one that wakes while UNDER is
BOOSTed until its next tick. Each pCPU serves its own queue in the order BOOST, UNDER, OVER, and before it runs
an OVER entity (or idles) it looks for better work in the other queues. A capped VM that used its cap is blocked
until it has credits again.

Source: Xen, xen/common/sched/credit.c: CSCHED_DEFAULT_TSLICE_MS 30, CSCHED_TICKS_PER_TSLICE 3,
CSCHED_CREDITS_PER_MSEC 10, SCHED_DEFAULT_RATELIMIT_US 1000, CSCHED_DEFAULT_WEIGHT 256. Credits are burnt by the
time run, as since Xen 4.2, not by sampling at ticks.

Claims: work-conserving (but for caps), weight-proportional, starvation-free.

Not modelled: soft affinity, NUMA-aware picking, the migration delay, SMT-aware idle picking.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    FOREVER,
    IDLE,
    NONE,
    Fifo,
    block,
    fifo_first,
    fifo_pop,
    fifo_push,
    fifo_remove,
    hookimpl,
    kick,
    param,
    set_tick,
    set_timer,
    state,
    unblock,
)

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "weight-proportional", "starvation-free", "caps", "weights", "affinity"})
HONOURS = frozenset({"weight", "cap", "pinning"})

CONTAINERS = (
    Fifo("boost", of="vcpu", per="pcpu"),
    Fifo("under", of="vcpu", per="pcpu"),
    Fifo("over", of="vcpu", per="pcpu"),
)

OVER, UNDER, BOOST = 0, 1, 2
ACCOUNT = 0
CREDITS_PER_MS = 10
NS_PER_CREDIT = 100_000

_XEN = "Xen, xen/common/sched/credit.c"


@frozen
class Params:
    """Parameters of credit, in Xen's meaning."""

    timeslice_ns: int = param(30_000_000, unit="ns", low=1, help="longest run of an entity", source=f"{_XEN}: 30 ms")
    tick_ns: int = param(10_000_000, unit="ns", low=1, help="period after which a boost ends", source=f"{_XEN}: 10 ms")
    accounting_ns: int = param(
        30_000_000, unit="ns", low=1, help="period of dealing out credits", source=f"{_XEN}: 30 ms"
    )
    ratelimit_ns: int = param(
        1_000_000, unit="ns", low=0, help="shortest run before a preemption", source=f"{_XEN}: 1000 us"
    )


@state("vcpu")
class Vcpu:
    """An entity's credits (1 credit = 100 us), class, home, and what it burnt since the last accounting."""

    credit_ns: int = 0
    priority: int = UNDER
    home: int = -1
    queued: int = -1
    active: int = 0
    parked: int = 0


@state("pcpu")
class Pcpu:
    """Who runs here, and since when, for the rate limit: going on after a preemption that came too early counts on."""

    runs: int = -1
    since_ns: int = 0


def allowed_on(host, vcpu, pcpu):
    mask = host.vcpu[vcpu].affinity
    return mask == 0 or pcpu > 62 or (mask >> pcpu) & 1 == 1


def enqueue(host, vcpu, pcpu):
    """Behind its class on a pCPU's queue."""
    v = host.vcpu[vcpu]
    v.home = pcpu
    v.queued = v.priority
    if v.priority == BOOST:
        fifo_push(host, host.box.boost + pcpu, vcpu)
    elif v.priority == UNDER:
        fifo_push(host, host.box.under + pcpu, vcpu)
    else:
        fifo_push(host, host.box.over + pcpu, vcpu)


def dequeue(host, vcpu):
    """Out of whatever queue it is in."""
    v = host.vcpu[vcpu]
    if v.queued == BOOST:
        fifo_remove(host, host.box.boost + v.home, vcpu)
    elif v.queued == UNDER:
        fifo_remove(host, host.box.under + v.home, vcpu)
    elif v.queued == OVER:
        fifo_remove(host, host.box.over + v.home, vcpu)
    v.queued = -1


def best_of(host, pcpu):
    """Class of the first entity in a pCPU's queue, -1 if it is empty."""
    if fifo_first(host, host.box.boost + pcpu) >= 0:
        return BOOST
    if fifo_first(host, host.box.under + pcpu) >= 0:
        return UNDER
    if fifo_first(host, host.box.over + pcpu) >= 0:
        return OVER
    return -1


def take(host, pcpu, priority, target):
    """The first entity of a class in a pCPU's queue that may run on `target`, taken out; NONE if there is none."""
    queue = host.box.over + pcpu
    if priority == BOOST:
        queue = host.box.boost + pcpu
    elif priority == UNDER:
        queue = host.box.under + pcpu
    vcpu = fifo_first(host, queue)
    if vcpu >= 0 and pcpu != target and not allowed_on(host, vcpu, target):
        return NONE
    if vcpu >= 0:
        fifo_pop(host, queue)
        host.vcpu[vcpu].queued = -1
    return vcpu


@hookimpl
def sched_init(host, now):
    for pcpu in range(host.pcpus):
        set_tick(host, pcpu, host.params.tick_ns)
    set_timer(host, ACCOUNT, now + host.params.accounting_ns)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    # what waits here moves to the other pCPUs in turn
    target = pcpu
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.home != pcpu:
            continue
        target = (target + 1) % host.pcpus
        while host.pcpu[target].offline == 1:
            target = (target + 1) % host.pcpus
            if target == pcpu:
                return
        if v.queued >= 0:
            dequeue(host, vcpu)
            enqueue(host, vcpu, target)
            kick(host, target)
        v.home = target


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    # spread over the pCPUs in the order of their coming, as Xen's initial placement does on an idle machine
    home = vcpu % host.pcpus
    for i in range(host.pcpus):
        if allowed_on(host, vcpu, (home + i) % host.pcpus):
            home = (home + i) % host.pcpus
            break
    host.vcpu[vcpu].home = home


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    target = v.home
    if host.pcpu[target].idle == 0:
        for pcpu in range(host.pcpus):
            if host.pcpu[pcpu].idle == 1 and best_of(host, pcpu) < 0 and allowed_on(host, vcpu, pcpu):
                target = pcpu
                break
    if v.priority == UNDER and v.parked == 0:
        v.priority = BOOST
    enqueue(host, vcpu, target)
    current = host.pcpu[target].current
    if current >= 0 and v.priority > host.vcpu[current].priority:
        kick(host, target)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].home


@hookimpl
def sched_sleep(host, vcpu, now):
    dequeue(host, vcpu)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    v.credit_ns -= ran_ns
    v.active = 1
    if runnable == 1:
        enqueue(host, vcpu, v.pcpu)


@hookimpl
def sched_running(host, vcpu, pcpu, now):
    p = host.pcpu[pcpu]
    if p.runs != vcpu:
        p.runs = vcpu
        p.since_ns = now


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    v = host.vcpu[vcpu]
    v.active = 1
    if v.priority == BOOST:
        v.priority = UNDER
    if best_of(host, pcpu) > v.priority:
        kick(host, pcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    limit = host.params.ratelimit_ns
    if prev >= 0 and host.vcpu[prev].queued >= 0 and host.vcpu[prev].home == pcpu:
        ran = now - host.pcpu[pcpu].since_ns
        if ran < limit:
            # preempted too early: it goes on until the rate limit is reached
            dequeue(host, prev)
            return prev, limit - ran
    host.pcpu[pcpu].runs = NONE
    own = best_of(host, pcpu)
    if own <= OVER:
        for step in range(1, host.pcpus):
            peer = (pcpu + step) % host.pcpus
            theirs = best_of(host, peer)
            if theirs > own:
                stolen = take(host, peer, theirs, pcpu)
                if stolen >= 0:
                    host.vcpu[stolen].home = pcpu
                    return stolen, host.params.timeslice_ns
    if own < 0:
        return IDLE, 0
    return take(host, pcpu, own, pcpu), host.params.timeslice_ns


@hookimpl
def sched_timer(host, timer, now):
    """Accounting: deal out the credits of one period, set classes, park and release capped entities."""
    period = host.params.accounting_ns
    set_timer(host, ACCOUNT, now + period)
    total_weight = 0
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.active == 1 or v.parked == 1:
            total_weight += v.weight
    if total_weight == 0:
        return
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.active == 0 and v.parked == 0:
            continue
        running_ns = 0
        if v.state == 2:
            # who runs now has not paid for this run yet
            running_ns = now - host.pcpu[v.pcpu].dispatched_ns
        share = period * host.pcpus * v.weight // total_weight
        cap_ns = FOREVER
        if v.cap > 0:
            cap_ns = period * v.cap // 100 // max(1, vcpus_of(host, v.vm))
            share = min(share, cap_ns)
        v.credit_ns += share
        left = v.credit_ns - running_ns
        before = v.priority
        if left < 0:
            v.priority = OVER
            if left < -period:
                # who ran on pCPUs that nobody else wanted is not made to pay for it for ever
                v.credit_ns = running_ns - period
            if v.cap > 0 and left < -cap_ns and v.parked == 0:
                v.parked = 1
                block(host, vcpu)
        else:
            v.priority = UNDER
            if v.parked == 1:
                v.parked = 0
                unblock(host, vcpu)
            if left > period:
                # enough for a whole period: it leaves the active set with half of it
                v.credit_ns = v.credit_ns // 2
                v.active = 0
        if v.queued >= 0 and v.priority != before:
            home = v.home
            dequeue(host, vcpu)
            enqueue(host, vcpu, home)


def vcpus_of(host, vm):
    if vm < 0:
        return 1
    return host.vm[vm].vcpus
