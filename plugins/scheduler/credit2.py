"""Xen's credit2 scheduler: credits burnt by weight in queues shared by neighbouring pCPUs, balanced by load.

Overview: pCPUs are arranged in runqueues (`runqueue`: 0 a pCPU each, 1 a core, 2 a socket or last-level cache, 3 a
node, 4 all). Running burns credits, the slower the larger the weight; the queue is ordered by credits, and whoever has
most runs until it has as few as the next one. When the first one's are used up, all get the same amount anew (reset),
so that nobody can save up. Who becomes runnable tickles an idle pCPU of its queue, or that whose entity has fewest
credits; to be taken to another pCPU it needs 500 us more credits than whoever runs there. After a reset a queue
compares its average load with the others' and pushes, pulls or swaps entities where that evens them out. A capped VM
has a pool of CPU time for each period; its vCPUs take from it what they run, and are parked when it is empty.

Source: Xen 4.17, xen/common/sched/credit2.c (G. Dunlap, D. Faggioli): CSCHED2_CREDIT_INIT 10 ms, MIN_TIMER 500 us,
MAX_TIMER 10 ms, CARRYOVER_MAX 500 us, MIGRATE_COMPENSATION 50 us, RATELIMIT_TICKLE_TOLERANCE 50 us, load averages over
2^30 ns with 18 fractional bits, balance tolerances 0 and -3; the parameters below.

Claims: weight-proportional within a runqueue, starvation-free, caps. Not work-conserving, as Xen's is not: queues are
balanced at resets only, so that a pCPU may idle beside another queue that waits; and within a queue an idle pCPU leaves
an entity of another one alone whose credits are within `migrate_resist_ns` of the least there are.

Proportional in CPU time, not in work. Once credits are level everybody's turn is the rate limit, whatever the weight: a
light entity has fewer turns, waits longer between them, and finds less of its cache each time. CPU time itself misses
the weights by about 1 % where entities migrate: the compensation is in credits, which are the more time the heavier one
is. A rate limit that costs an entity more than 20 ms of credits gives it time for which it is never charged.

Not modelled: soft affinity, sched_smt_power_savings. Whether queues are uneven enough is judged by the loads of the two
that are compared, where Xen takes the last of its list for the other one. A core whose threads all idle is preferred,
as in Xen. Caps of all VMs are replenished at one time. A pCPU that finds the pool of the first in its queue empty looks
at the next one, where Xen leaves it until it is tickled.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    NONE,
    Fifo,
    OrderedIndex,
    fifo_first,
    fifo_next,
    fifo_pop,
    fifo_push,
    fifo_remove,
    hookimpl,
    kick,
    may_run,
    order_after,
    order_first,
    order_len,
    order_put,
    order_remove,
    param,
    set_timer,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"weight-proportional", "starvation-free", "caps"})
HONOURS = frozenset({"weight", "cap", "pinning"})

CONTAINERS = (
    OrderedIndex("runq", of="vcpu", per="pcpu"),
    Fifo("members", of="vcpu", per="pcpu"),
    Fifo("queues", of="pcpu"),
    Fifo("parked", of="vcpu", per="vm"),
)
"""A runqueue is known by the first of its pCPUs; `queues` holds them in the order in which they came to be."""

REPLENISH = 0
CREDIT_INIT = 10_000_000
CREDIT_MIN = -CREDIT_INIT
IDLE_CREDIT = CREDIT_MIN - 1
MIN_TIMER_NS = 500_000
MAX_TIMER_NS = CREDIT_INIT
CARRYOVER_MAX = MIN_TIMER_NS
MIGRATE_COMPENSATION = 50_000
TICKLE_TOLERANCE_NS = 50_000
LOAD_GRANULARITY_NS = 1 << 10
LOAD_WINDOW = 1 << 20
LOAD_ONE = 1 << 18
"""Load averages: time in units of 1,024 ns, a window of 2^20 of them, one runnable entity."""

_XEN = "Xen 4.17, xen/common/sched/credit2.c"


@frozen
class Params:
    """Parameters of credit2, in Xen's meaning."""

    runqueue: int = param(
        2,
        low=0,
        high=4,
        help="pCPUs that share a queue: 0 cpu, 1 core, 2 socket (last-level cache), 3 node, 4 all",
        source=f"{_XEN}: credit2_runqueue=socket",
    )
    max_cpus_runqueue: int = param(
        16, low=1, help="most pCPUs of a queue", source=f"{_XEN}: sched_credit2_max_cpus_runqueue 16"
    )
    ratelimit_ns: int = param(
        1_000_000, unit="ns", low=0, help="shortest run before a preemption", source="Xen: sched_ratelimit_us 1000"
    )
    migrate_resist_ns: int = param(
        500_000,
        unit="ns",
        low=0,
        help="credits that it takes more to be moved to another pCPU",
        source=f"{_XEN}: sched_credit2_migrate_resist 500 us",
    )
    cap_period_ns: int = param(
        10_000_000, unit="ns", low=100_000, help="period of a cap's budget", source=f"{_XEN}: credit2_cap_period_ms 10"
    )


@state("vcpu")
class Vcpu:
    """An entity's credits, place, share of its VM's cap, and contribution to the load."""

    credit: int = CREDIT_INIT
    residual: int = 0
    start_ns: int = 0
    queue: int = -1
    home: int = -1
    queued: int = 0
    counted: int = 0
    yields: int = 0
    tickled: int = -1
    goes_to: int = -1
    parks: int = 0
    budget_ns: int = 0
    avgload: int = LOAD_ONE // 2
    load_at: int = 0


@state("vm")
class Pool:
    """A capped VM's budget of CPU time: of a period, what is left, and the most that a vCPU takes at once."""

    total_ns: int = 0
    left_ns: int = 0
    quota_ns: int = 0


@state("pcpu")
class Pcpu:
    """A pCPU's queue and entity; and for the first pCPU of a queue, the queue's end, load and largest weight."""

    queue: int = -1
    end: int = 0
    runs: int = -1
    since_ns: int = 0
    asked: int = 0
    width: int = 0
    load: int = 0
    avgload: int = 0
    planned: int = 0
    load_at: int = 0
    max_weight: int = 1
    bias: int = 0


# runqueues ---------------------------------------------------------------------------------------------------


def place_of(host, pcpu):
    """What pCPUs of one queue have in common."""
    p = host.pcpu[pcpu]
    how = host.params.runqueue
    if how == 0:
        return pcpu
    if how == 1:
        return p.core + 0
    if how == 2:
        return p.llc + 0
    if how == 3:
        return p.node + 0
    return 0


def arrange(host, pcpu):
    """Put a pCPU into a queue: that of an earlier pCPU of its place which is not full, or one of its own."""
    p = host.pcpu[pcpu]
    p.queue = pcpu
    p.bias = pcpu
    first = fifo_first(host, host.box.queues)
    while first >= 0:
        if host.pcpu[first].width < host.params.max_cpus_runqueue and place_of(host, first) == place_of(host, pcpu):
            p.queue = first
            break
        first = fifo_next(host, host.box.queues, first)
    if first < 0:
        fifo_push(host, host.box.queues, pcpu)
    q = host.pcpu[p.queue]
    q.width += 1
    q.end = max(q.end, pcpu + 1)


def next_around(host, queue, pcpu):
    """The index after a pCPU in the circle of those from a queue's first to its last; other queues' may be between."""
    return pcpu + 1 if pcpu + 1 < host.pcpu[queue].end else queue


def pcpu_in(host, vcpu, queue):
    """The next pCPU of a queue, in a circle, on which an entity may run; -1 for none."""
    pcpu = host.pcpu[queue].bias
    for _ in range(queue, host.pcpu[queue].end):
        pcpu = next_around(host, queue, pcpu)
        if host.pcpu[pcpu].queue == queue and may_run(host, vcpu, pcpu):
            return pcpu
    return -1


def join(host, vcpu, queue):
    """Make an entity a member of a queue."""
    v = host.vcpu[vcpu]
    q = host.pcpu[queue]
    v.queue = queue
    v.home = pcpu_in(host, vcpu, queue)
    if v.home < 0:
        v.home = queue
    q.bias = v.home
    q.planned += v.avgload
    q.max_weight = max(q.max_weight, v.weight)
    fifo_push(host, host.box.members + queue, vcpu)


def part(host, vcpu):
    """End an entity's membership."""
    v = host.vcpu[vcpu]
    q = host.pcpu[v.queue]
    fifo_remove(host, host.box.members + v.queue, vcpu)
    q.planned = max(0, q.planned - v.avgload)
    if v.weight == q.max_weight:
        q.max_weight = 1
        other = fifo_first(host, host.box.members + v.queue)
        while other >= 0:
            q.max_weight = max(q.max_weight, host.vcpu[other].weight)
            other = fifo_next(host, host.box.members + v.queue, other)


def enqueue(host, vcpu):
    v = host.vcpu[vcpu]
    v.queued = 1
    order_put(host, host.box.runq + v.queue, vcpu, -v.credit)


def dequeue(host, vcpu):
    v = host.vcpu[vcpu]
    v.queued = 0
    order_remove(host, host.box.runq + v.queue, vcpu)


# load --------------------------------------------------------------------------------------------------------


def decayed(average, load, passed):
    """An average after `load` for some time; all of it, where that is a whole window."""
    if passed > LOAD_WINDOW:
        return load
    return average + passed * load // LOAD_WINDOW - passed * average // LOAD_WINDOW


def count_queue(host, queue, change, now):
    """Bring a queue's load averages up to now, then change its load."""
    q = host.pcpu[queue]
    at = now // LOAD_GRANULARITY_NS
    q.avgload = decayed(q.avgload, q.load * LOAD_ONE, at - q.load_at)
    q.planned = decayed(q.planned, q.load * LOAD_ONE, at - q.load_at)
    q.load_at = at
    q.load += change


def count_entity(host, vcpu, now):
    """Bring an entity's load average up to now."""
    v = host.vcpu[vcpu]
    at = now // LOAD_GRANULARITY_NS
    v.avgload = decayed(v.avgload, v.counted * LOAD_ONE, at - v.load_at)
    v.load_at = at


def count(host, vcpu, runnable, now):
    """An entity begins, or ends, to be part of its queue's load."""
    v = host.vcpu[vcpu]
    if v.counted != runnable:
        count_queue(host, v.queue, runnable - v.counted, now)
        count_entity(host, vcpu, now)
        v.counted = runnable


# credits and budgets -----------------------------------------------------------------------------------------


def burn(host, vcpu, now):
    """Charge an entity for what it ran since it was last charged."""
    v = host.vcpu[vcpu]
    ran = now - v.start_ns
    if ran <= 0:
        return
    v.start_ns = now
    cost = ran * host.pcpu[v.queue].max_weight + v.residual
    v.credit = max(CREDIT_MIN, v.credit - cost // v.weight)
    v.residual = cost % v.weight
    if v.cap > 0:
        v.budget_ns -= ran


def reset(host, queue, chosen, now):
    """A new epoch: everybody in the queue gets the same amount of credits, and keeps few of its own."""
    amount = CREDIT_INIT
    if host.vcpu[chosen].credit == CREDIT_MIN:
        amount += CREDIT_INIT
    vcpu = fifo_first(host, host.box.members + queue)
    while vcpu >= 0:
        v = host.vcpu[vcpu]
        if v.state == 2:
            burn(host, vcpu, now)
            if v.cap > 0 and v.budget_ns <= 0:
                ask(host, v.pcpu)
        v.credit = min(v.credit + amount, CREDIT_INIT + CARRYOVER_MAX)
        vcpu = fifo_next(host, host.box.members + queue, vcpu)
    # those that wait keep their order, also those of as many credits
    vcpu = order_first(host, host.box.runq + queue)
    for _ in range(order_len(host, host.box.runq + queue)):
        after = order_after(host, host.box.runq + queue, vcpu)
        enqueue(host, vcpu)
        vcpu = after


def grab(host, vcpu, now):
    """Take CPU time from the VM's pool; an entity that finds none is parked until there is some. Gives 1 or 0."""
    v = host.vcpu[vcpu]
    if v.cap == 0 or v.budget_ns > 0:
        return 1
    m = host.vm[v.vm]
    # what it ran too long is paid by all
    m.left_ns += v.budget_ns
    v.budget_ns = 0
    if m.left_ns > 0:
        v.budget_ns = min(m.quota_ns, m.left_ns)
        m.left_ns -= v.budget_ns
        return 1
    if v.queued == 1:
        dequeue(host, vcpu)
    count(host, vcpu, 0, now)
    v.parks = 1
    fifo_push(host, host.box.parked + v.vm, vcpu)
    return 0


def give_back(host, vcpu, now):
    """Put what is left of an entity's budget back into the pool, for the others."""
    v = host.vcpu[vcpu]
    if v.cap == 0 or v.budget_ns <= 0:
        return
    host.vm[v.vm].left_ns += v.budget_ns
    v.budget_ns = 0
    unpark(host, v.vm, now)


def unpark(host, vm, now):
    """Let the parked entities of a VM compete again, if there is anything in its pool."""
    while host.vm[vm].left_ns > 0 and fifo_first(host, host.box.parked + vm) >= 0:
        vcpu = fifo_pop(host, host.box.parked + vm)
        v = host.vcpu[vcpu]
        v.parks = 0
        count(host, vcpu, 1, now)
        enqueue(host, vcpu)
        tickle(host, vcpu, now)


# tickling ----------------------------------------------------------------------------------------------------


def ask(host, pcpu):
    host.pcpu[pcpu].asked = 1
    kick(host, pcpu)


def core_idles(host, pcpu):
    """Whether nobody runs on any thread of a pCPU's core, and none of them was asked."""
    core = host.pcpu[pcpu].core
    for step in (-1, 1):
        other = pcpu
        while other >= 0 and other < host.pcpus and host.pcpu[other].core == core:
            if host.pcpu[other].runs >= 0 or host.pcpu[other].asked == 1:
                return False
            other += step
    return True


def score(host, vcpu, pcpu, now):
    """By how many credits an entity beats the one that runs on a pCPU; negative where that may not be preempted."""
    p = host.pcpu[pcpu]
    limit = host.params.ratelimit_ns
    if limit > TICKLE_TOLERANCE_NS and now - p.since_ns <= limit - TICKLE_TOLERANCE_NS:
        return -1
    if host.vcpu[p.runs].state == 2:
        burn(host, p.runs, now)
    found = host.vcpu[vcpu].credit - host.vcpu[p.runs].credit
    if host.vcpu[vcpu].home != pcpu:
        found -= host.params.migrate_resist_ns
    return found


def tickle(host, vcpu, now):
    """Ask the pCPU of an entity's queue that should look at it: idle, its last one, or that of fewest credits."""
    v = host.vcpu[vcpu]
    queue = v.queue
    end = host.pcpu[queue].end
    # of a pCPU that left it may have been put on one of another queue
    start = v.home if queue <= v.home < end else queue
    best = -1
    best_score = 0
    idle = -1
    pcpu = start
    for _ in range(queue, end):
        p = host.pcpu[pcpu]
        if p.runs < 0 and p.queue == queue and p.asked == 0 and may_run(host, vcpu, pcpu):
            if core_idles(host, pcpu):
                idle = pcpu
                break
            if idle < 0:
                idle = pcpu
        pcpu = next_around(host, queue, pcpu)
    if idle >= 0:
        best = idle
    else:
        pcpu = start
        for _ in range(queue, end):
            p = host.pcpu[pcpu]
            if p.queue == queue and p.asked == 0 and may_run(host, vcpu, pcpu):
                found = score(host, vcpu, pcpu, now)
                if found > best_score:
                    best = pcpu
                    best_score = found
                    if pcpu == v.home:
                        break
            pcpu = next_around(host, queue, pcpu)
    if best >= 0:
        v.tickled = best
        ask(host, best)


# balancing ---------------------------------------------------------------------------------------------------


def move(host, vcpu, queue, now):
    """Take an entity to another queue, at its next stop if it runs."""
    v = host.vcpu[vcpu]
    if host.pcpu[v.home].runs == vcpu:
        v.goes_to = queue
        ask(host, v.home)
        return
    queued = v.queued
    if queued == 1:
        dequeue(host, vcpu)
    if v.counted == 1:
        count_queue(host, v.queue, -1, now)
    part(host, vcpu)
    join(host, vcpu, queue)
    v.goes_to = NONE
    if v.counted == 1:
        count_queue(host, queue, 1, now)
    if queued == 1:
        enqueue(host, vcpu)
        tickle(host, vcpu, now)


def movable(host, vcpu, queue):
    return host.vcpu[vcpu].goes_to < 0 and pcpu_in(host, vcpu, queue) >= 0


def balance(host, queue, now):
    """Push, pull or swap entities with the queue whose load is most different, if that evens them out."""
    count_queue(host, queue, 0, now)
    here = host.pcpu[queue]
    farthest = -1
    difference = 0
    other = fifo_first(host, host.box.queues)
    while other >= 0:
        if other != queue:
            count_queue(host, other, 0, now)
            apart = abs(here.planned - host.pcpu[other].planned)
            if apart > difference:
                difference = apart
                farthest = other
        other = fifo_next(host, host.box.queues, other)
    if farthest < 0:
        return
    there = host.pcpu[farthest]
    tolerance = LOAD_ONE // 8
    if max(here.planned, there.planned) < max(here.width, there.width) * LOAD_ONE:
        tolerance = LOAD_ONE
    if difference < tolerance:
        return
    best_push = -1
    best_pull = -1
    gap = here.planned - there.planned
    pull = fifo_first(host, host.box.members + farthest)
    while pull >= 0:
        count_entity(host, pull, now)
        pull = fifo_next(host, host.box.members + farthest, pull)
    # of several that even it out as well, the first in Xen's order: swaps and a push, for each one here; then pulls
    push = fifo_first(host, host.box.members + queue)
    while push >= 0:
        count_entity(host, push, now)
        if movable(host, push, farthest):
            pushed = gap - 2 * host.vcpu[push].avgload
            pull = fifo_first(host, host.box.members + farthest)
            while pull >= 0:
                apart = abs(pushed + 2 * host.vcpu[pull].avgload)
                if apart < difference and movable(host, pull, queue):
                    difference = apart
                    best_push = push
                    best_pull = pull
                pull = fifo_next(host, host.box.members + farthest, pull)
            if abs(pushed) < difference:
                difference = abs(pushed)
                best_push = push
                best_pull = -1
        push = fifo_next(host, host.box.members + queue, push)
    pull = fifo_first(host, host.box.members + farthest)
    while pull >= 0:
        apart = abs(gap + 2 * host.vcpu[pull].avgload)
        if apart < difference and movable(host, pull, queue):
            difference = apart
            best_push = -1
            best_pull = pull
        pull = fifo_next(host, host.box.members + farthest, pull)
    if best_push >= 0:
        move(host, best_push, farthest, now)
    if best_pull >= 0:
        move(host, best_pull, queue, now)


# hooks -------------------------------------------------------------------------------------------------------


@hookimpl
def sched_pcpu_online(host, pcpu, now):
    p = host.pcpu[pcpu]
    if p.queue < 0:
        arrange(host, pcpu)
    p.runs = NONE
    p.asked = 0


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    # its queue stays; those who may run on no other pCPU of it go elsewhere
    queue = host.pcpu[pcpu].queue
    p = host.pcpu[pcpu]
    ran = p.runs
    p.runs = NONE
    if ran >= 0 and host.vcpu[ran].state == 1:
        give_back(host, ran, now)
        if host.vcpu[ran].queued == 0 and host.vcpu[ran].parks == 0:
            enqueue(host, ran)
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.queue != queue:
            continue
        if v.home == pcpu:
            v.home = max(0, pcpu_in(host, vcpu, queue))
        if pcpu_in(host, vcpu, queue) < 0:
            other = fifo_first(host, host.box.queues)
            while other >= 0 and pcpu_in(host, vcpu, other) < 0:
                other = fifo_next(host, host.box.queues, other)
            if other >= 0:
                move(host, vcpu, other, now)
        elif v.queued == 1:
            tickle(host, vcpu, now)


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    # to the queue of least load, as csched2_res_pick does
    best = -1
    queue = fifo_first(host, host.box.queues)
    while queue >= 0:
        if pcpu_in(host, vcpu, queue) >= 0:
            if best < 0 or host.pcpu[queue].planned < host.pcpu[best].planned:
                best = queue
        queue = fifo_next(host, host.box.queues, queue)
    join(host, vcpu, max(0, best))


@hookimpl
def sched_set_weight(host, vm, weight, cap, now):
    m = host.vm[vm]
    if cap > 0:
        m.total_ns = host.params.cap_period_ns * cap // 100
        m.left_ns = m.total_ns
        m.quota_ns = max(m.total_ns // m.vcpus, MIN_TIMER_NS)
        set_timer(host, REPLENISH, now + host.params.cap_period_ns)


@hookimpl
def sched_timer(host, timer, now):
    """Replenish the pools of all capped VMs."""
    set_timer(host, REPLENISH, now + host.params.cap_period_ns)
    for vm in range(host.vms):
        m = host.vm[vm]
        if m.total_ns > 0:
            m.left_ns = min(m.left_ns + m.total_ns, m.total_ns)
            unpark(host, vm, now)


@hookimpl
def sched_wake(host, vcpu, now):
    count(host, vcpu, 1, now)
    enqueue(host, vcpu)
    tickle(host, vcpu, now)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    # asked by tickle
    return -1


@hookimpl
def sched_yield(host, vcpu, target, now):
    host.vcpu[vcpu].yields = 1


@hookimpl
def sched_running(host, vcpu, pcpu, now):
    host.vcpu[vcpu].start_ns = now


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    burn(host, vcpu, now)


@hookimpl
def sched_sleep(host, vcpu, now):
    v = host.vcpu[vcpu]
    if v.queued == 1:
        dequeue(host, vcpu)
    if v.parks == 1:
        fifo_remove(host, host.box.parked + v.vm, vcpu)
        v.parks = 0
    v.yields = 0
    count(host, vcpu, 0, now)
    p = host.pcpu[v.home]
    if p.runs == vcpu:
        # it ran: its pCPU decides next
        p.runs = NONE
        give_back(host, vcpu, now)
        if v.goes_to >= 0:
            move(host, vcpu, v.goes_to, now)


def candidate(host, pcpu, current, now):
    """Who should run on a pCPU: `current` (-1 for nobody), or somebody of the queue with more credits."""
    p = host.pcpu[pcpu]
    yields = 0
    if current >= 0:
        yields = host.vcpu[current].yields
        host.vcpu[current].yields = 0
        if yields == 0 and now - p.since_ns < host.params.ratelimit_ns:
            return current
    most = IDLE_CREDIT
    if current >= 0:
        most = host.vcpu[current].credit
    vcpu = order_first(host, host.box.runq + p.queue)
    while vcpu >= 0:
        following = order_after(host, host.box.runq + p.queue, vcpu)
        v = host.vcpu[vcpu]
        elsewhere = v.tickled >= 0 and v.tickled != pcpu and host.pcpu[v.tickled].asked == 1
        resists = v.home != pcpu and most + host.params.migrate_resist_ns > v.credit
        if may_run(host, vcpu, pcpu) and not elsewhere and not resists:
            if yields == 0 and v.credit <= most:
                return current
            if grab(host, vcpu, now) == 1:
                return vcpu
        vcpu = following
    return current


def runtime(host, pcpu, vcpu, now):
    """How long an entity runs: until it has as few credits as the next one, within its budget and the limits."""
    v = host.vcpu[vcpu]
    p = host.pcpu[pcpu]
    least = max(MIN_TIMER_NS, p.since_ns + host.params.ratelimit_ns - now)
    credits = v.credit
    waits = order_first(host, host.box.runq + p.queue)
    if waits >= 0 and host.vcpu[waits].credit > 0:
        credits -= host.vcpu[waits].credit
    time_ns = 0
    if credits > 0:
        time_ns = (credits * v.weight - v.residual) // host.pcpu[p.queue].max_weight
    if v.cap > 0:
        time_ns = min(time_ns, v.budget_ns)
    return min(max(time_ns, least), max(MAX_TIMER_NS, least))


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    p = host.pcpu[pcpu]
    p.asked = 0
    current = NONE
    if prev >= 0 and host.vcpu[prev].state == 1 and p.runs == prev:
        v = host.vcpu[prev]
        if v.goes_to >= 0:
            p.runs = NONE
            give_back(host, prev, now)
            enqueue(host, prev)
            move(host, prev, v.goes_to, now)
        elif grab(host, prev, now) == 1:
            current = prev
    vcpu = candidate(host, pcpu, current, now)
    p.runs = vcpu
    if vcpu < 0:
        count_queue(host, p.queue, 0, now)
        return IDLE, 0
    v = host.vcpu[vcpu]
    if vcpu != current:
        dequeue(host, vcpu)
        p.since_ns = now
    v.start_ns = now
    v.tickled = NONE
    moved = v.home != pcpu
    v.home = pcpu
    top = v.credit
    first = order_first(host, host.box.runq + p.queue)
    if first >= 0:
        top = max(top, host.vcpu[first].credit)
    if top <= 0:
        reset(host, p.queue, vcpu, now)
        balance(host, p.queue, now)
    if moved:
        v.credit += MIGRATE_COMPENSATION
    slice_ns = runtime(host, pcpu, vcpu, now)
    if current >= 0 and vcpu != current:
        give_back(host, current, now)
        enqueue(host, current)
        tickle(host, current, now)
    return vcpu, slice_ns
