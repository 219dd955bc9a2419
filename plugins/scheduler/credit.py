"""Xen's credit scheduler: shares by weight, caps, a boost for who wakes, work stealing between pCPUs.

Overview: every `accounting_ns` the credits of all pCPUs are dealt out to the entities that ran, by weight;
running burns them. An entity with credits left is UNDER, one without is OVER; one that wakes while UNDER is
BOOSTed until its next tick. Each pCPU serves its own queue in the order BOOST, UNDER, OVER, and before it runs
an OVER entity (or idles) it looks for better work in the other queues; at each tick whoever runs is moved to a pCPU
that idles, if that is on a core that idles more. A VM earns at most what all its active entities can run, and what that
leaves goes to the others. A capped one that used its cap is blocked until it has credits again. Who yields goes behind
one entity that it would come before.

Source: Xen, xen/common/sched/credit.c: CSCHED_DEFAULT_TSLICE_MS 30, CSCHED_TICKS_PER_TSLICE 3,
CSCHED_CREDITS_PER_MSEC 10, SCHED_DEFAULT_RATELIMIT_US 1000, CSCHED_DEFAULT_WEIGHT 256. Credits are burnt by the
time run, as since Xen 4.2, not by sampling at ticks.

Claims: work-conserving (but for caps), weight-proportional, starvation-free.

Not modelled: soft affinity; peers are searched in a circle, not node by node; a woken entity is put into the queue of
the idle pCPU that should run it, where Xen wakes that pCPU to steal it.
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

from hvbench.policy import (
    FOREVER,
    IDLE,
    NONE,
    Fifo,
    allowed_pcpu,
    block,
    fifo_first,
    fifo_next,
    fifo_push,
    fifo_remove,
    hookimpl,
    idle_pcpu,
    kick,
    may_run,
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
    migration_delay_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="how long who has stopped counts as cache-hot, and is not stolen",
        source=f"{_XEN}: vcpu_migration_delay 0",
    )


class Deal(NamedTuple):
    """An accounting under way: credits still dealt out, weights of all and of those to come, sum of balances."""

    total_ns: int
    total_weight: int
    left_weight: int
    balance_ns: int


@state("vcpu")
class Vcpu:
    """An entity's credits (1 credit = 100 us), class, home, and what it burnt since the last accounting."""

    credit_ns: int = 0
    priority: int = UNDER
    home: int = -1
    queued: int = -1
    active: int = 0
    parked: int = 0
    yields: int = 0
    moves_to: int = -1
    stopped_ns: int = 0


@state("vm")
class Vm:
    """Active entities of a VM, in an accounting."""

    active_vcpus: int = 0


@state("host")
class Own:
    """Credits of all active entities after the last accounting."""

    balance_ns: int = 0


@state("pcpu")
class Pcpu:
    """Who runs here, and since when, for the rate limit: going on after a preemption that came too early counts on."""

    runs: int = -1
    since_ns: int = 0


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


def queue_of(host, pcpu, priority):
    """A pCPU's queue of a class."""
    if priority == BOOST:
        return host.box.boost + pcpu
    if priority == UNDER:
        return host.box.under + pcpu
    return host.box.over + pcpu


def take(host, pcpu):
    """The first of a pCPU's own queue, taken out; NONE if it is empty. Who yielded lets one of a lower class by."""
    own = best_of(host, pcpu)
    if own < 0:
        return NONE
    vcpu = fifo_first(host, queue_of(host, pcpu, own))
    dequeue(host, vcpu)
    if host.vcpu[vcpu].yields == 1:
        host.vcpu[vcpu].yields = 0
        behind = best_of(host, pcpu)
        if behind >= 0:
            enqueue(host, vcpu, pcpu)
            vcpu = fifo_first(host, queue_of(host, pcpu, behind))
            dequeue(host, vcpu)
    return vcpu


def steal(host, peer, pcpu, above, now):
    """An entity of a peer's queue, of a class better than `above`, that may run on `pcpu`: taken out; NONE if none."""
    delay = host.params.migration_delay_ns
    for priority in (BOOST, UNDER, OVER):
        if priority <= above:
            break
        queue = queue_of(host, peer, priority)
        vcpu = fifo_first(host, queue)
        while vcpu >= 0:
            hot = delay > 0 and now - host.vcpu[vcpu].stopped_ns < delay
            if may_run(host, vcpu, pcpu) and not hot:
                dequeue(host, vcpu)
                return vcpu
            vcpu = fifo_next(host, queue, vcpu)
    return NONE


def idle_threads(host, pcpu):
    """Idle pCPUs of a core."""
    core = host.pcpu[pcpu].core
    idle = 0
    for step in (-1, 1):
        other = pcpu if step < 0 else pcpu + 1
        while other >= 0 and other < host.pcpus and host.pcpu[other].core == core:
            if host.pcpu[other].idle == 1:
                idle += 1
            other += step
    return idle


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
    host.vcpu[vcpu].home = allowed_pcpu(host, vcpu, vcpu % host.pcpus)


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    target = v.home
    if host.pcpu[target].idle == 0:
        for pcpu in range(host.pcpus):
            if host.pcpu[pcpu].idle == 1 and best_of(host, pcpu) < 0 and may_run(host, vcpu, pcpu):
                target = pcpu
                break
    if v.priority == UNDER and v.parked == 0:
        v.priority = BOOST
    enqueue(host, vcpu, target)
    current = host.pcpu[target].current
    if current >= 0 and v.priority > host.vcpu[current].priority:
        kick(host, target)


@hookimpl
def sched_yield(host, vcpu, target, now):
    host.vcpu[vcpu].yields = 1


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
    v.stopped_ns = now
    if runnable == 0:
        v.yields = 0
    else:
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
        return
    # active for a while: is there a core that idles more?
    better = idle_pcpu(host, vcpu, NONE)
    if better >= 0 and idle_threads(host, better) > idle_threads(host, pcpu) + 1:
        v.moves_to = better
        kick(host, pcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    limit = host.params.ratelimit_ns
    if prev >= 0 and host.vcpu[prev].queued >= 0 and host.vcpu[prev].home == pcpu:
        v = host.vcpu[prev]
        ran = now - host.pcpu[pcpu].since_ns
        better = v.moves_to
        v.moves_to = NONE
        if better >= 0 and host.pcpu[better].idle == 1:
            dequeue(host, prev)
            enqueue(host, prev, better)
            kick(host, better)
        elif ran < limit and v.yields == 0:
            # preempted too early: it goes on until the rate limit is reached
            dequeue(host, prev)
            return prev, limit - ran
    host.pcpu[pcpu].runs = NONE
    own = best_of(host, pcpu)
    if own <= OVER:
        for step in range(1, host.pcpus):
            peer = (pcpu + step) % host.pcpus
            if best_of(host, peer) > own and host.pcpu[peer].idle == 0:
                stolen = steal(host, peer, pcpu, own, now)
                if stolen >= 0:
                    host.vcpu[stolen].home = pcpu
                    return stolen, host.params.timeslice_ns
    if own < 0:
        return IDLE, 0
    vcpu = take(host, pcpu)
    if prev >= 0 and vcpu != prev and host.vcpu[prev].state == 1:
        # a pCPU that found nothing to steal when it last looked may have it now
        other = idle_pcpu(host, prev, NONE)
        if other >= 0:
            kick(host, other)
    return vcpu, host.params.timeslice_ns


@hookimpl
def sched_timer(host, timer, now):
    """Accounting: deal out the credits of one period, set classes, park and release capped entities."""
    period = host.params.accounting_ns
    set_timer(host, ACCOUNT, now + period)
    total_weight = 0
    for vm in range(host.vms):
        host.vm[vm].active_vcpus = 0
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.active == 1 or v.parked == 1:
            total_weight += v.weight
            if v.vm >= 0 and v.kind == 0:
                host.vm[v.vm].active_vcpus += 1
    if total_weight == 0:
        host.own.balance_ns = 0
        return
    # credits of the whole host; what was overdrawn is dealt out as well, so that balances return to 0
    deal = Deal(period * host.pcpus - min(0, host.own.balance_ns), total_weight, total_weight, 0)
    for vm in range(host.vms):
        m = host.vm[vm]
        if m.active_vcpus > 0:
            deal = deal_to(host, m.first_vcpu, m.vcpus, m.active_vcpus, deal, now)
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.kind != 0 and (v.active == 1 or v.parked == 1):
            deal = deal_to(host, vcpu, 1, 1, deal, now)
    host.own.balance_ns = deal.balance_ns


def deal_to(host, first, vcpus, active, deal, now):
    """Credits of one period for the active entities of a VM (or a host thread), by weight up to what they can run."""
    period = host.params.accounting_ns
    v = host.vcpu[first]
    weight = v.weight * active
    left_weight = deal.left_weight - weight
    peak = active * period
    if host.own.balance_ns < 0:
        peak += -host.own.balance_ns * weight // deal.total_weight
    cap_ns = FOREVER
    if v.cap > 0:
        cap_ns = period * v.cap // 100
        peak = min(peak, cap_ns)
        cap_ns = cap_ns // active
    fair = deal.total_ns * weight // deal.total_weight
    total_ns = deal.total_ns
    if fair > peak:
        if left_weight > 0:
            # the others have a chance at what it cannot use
            total_ns += (fair - peak) * deal.total_weight // left_weight
        fair = peak
    balance_ns = deal.balance_ns
    for vcpu in range(first, first + vcpus):
        v = host.vcpu[vcpu]
        if v.active == 1 or v.parked == 1:
            balance_ns += settle_credits(host, vcpu, fair // active, cap_ns, now)
    return Deal(total_ns, deal.total_weight, left_weight, balance_ns)


def settle_credits(host, vcpu, share_ns, cap_ns, now):
    """Give an entity its credits, and find its class by what it has then, which is returned."""
    period = host.params.accounting_ns
    v = host.vcpu[vcpu]
    running_ns = 0
    if v.state == 2:
        # who runs now has not paid for this run yet
        running_ns = now - host.pcpu[v.pcpu].dispatched_ns
    v.credit_ns += share_ns
    left = v.credit_ns - running_ns
    before = v.priority
    if left < 0:
        v.priority = OVER
        if v.cap > 0 and left < -cap_ns and v.parked == 0:
            v.parked = 1
            block(host, vcpu)
        if left < -period:
            # who ran on pCPUs that nobody else wanted is not made to pay for it for ever
            v.credit_ns = running_ns - period
            left = -period
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
    return left
