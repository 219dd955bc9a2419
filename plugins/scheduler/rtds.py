"""RTDS, Xen's real-time deferrable server: every vCPU has a budget in each period, served by global EDF.

Overview: an entity burns its budget while it runs, and keeps what is left of it while it sleeps, until the end of its
period, which is its deadline; then the budget is full again. All pCPUs serve one queue, ordered by deadline: whoever
has the earliest one runs, and preempts whoever has the latest. Who has used up its budget waits for its next period,
or, with extratime, gets another one at a lower priority level: levels come before deadlines.

Source: Xen 4.17, xen/common/sched/rt.c (S. Xi, M. Xu): RTDS_DEFAULT_PERIOD 10 ms, RTDS_DEFAULT_BUDGET 4 ms, extratime
on. S. Xi et al., "Real-time multi-core virtual machine scheduling in Xen", EMSOFT 2014. A VM's [vm.realtime] sets
period, budget and extratime of each of its vCPUs; a CPU reservation is spread over its vCPUs as budgets in the
default period. Where some VM asks for either, those that ask for nothing begin a level below.

Claims: real-time guarantees as global EDF gives them, work-conserving (with extratime).

Not modelled: admission control (Xen has none before 4.21), so that budgets may add up to more than there is; soft
affinity. Priority levels end at 1,023. Periods of the entities begin spread over their length, as those of VMs that
were started one after the other.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    NONE,
    Fifo,
    OrderedIndex,
    cancel_timer,
    fifo_pop,
    fifo_push_front,
    hookimpl,
    kick,
    may_run,
    order_after,
    order_first,
    order_put,
    order_remove,
    param,
    set_timer,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "real-time"})
HONOURS = frozenset({"reservation", "pinning", "realtime"})

CONTAINERS = (OrderedIndex("runq", of="vcpu"), OrderedIndex("replq", of="vcpu"), Fifo("due", of="vcpu"))

REPLENISH = 0
LEVEL = 1 << 53
"""Weight of a priority level in a key: more than any deadline (horizons are at most 2^53 ns)."""
MOST_LEVELS = 1023

_XEN = "Xen 4.17, xen/common/sched/rt.c"


@frozen
class Params:
    """Parameters of rtds: what a vCPU has whose VM sets nothing."""

    period_ns: int = param(
        10_000_000, unit="ns", low=10_000, help="period, and relative deadline", source=f"{_XEN}: default 10 ms"
    )
    budget_ns: int = param(
        4_000_000, unit="ns", low=10_000, help="CPU time in every period", source=f"{_XEN}: default 4 ms"
    )
    extratime: bool = param(
        True, help="whether it may run beyond its budget at a lower level", source=f"{_XEN}: set in rt_alloc_udata"
    )

    def __attrs_post_init__(self) -> None:
        if self.budget_ns > self.period_ns:
            raise ValueError(f"budget {self.budget_ns} ns is above the period of {self.period_ns} ns")


@state("vcpu")
class Vcpu:
    """An entity's server: period, budget, what is left of it since when, deadline, level."""

    period: int = 0
    budget: int = 0
    extra: int = 0
    left: int = 0
    start_ns: int = 0
    deadline_ns: int = 0
    level: int = 0
    first_level: int = 0
    depleted: int = 0


@state("pcpu")
class Pcpu:
    """Who runs on a pCPU, or was chosen to, and its order; whether we asked for a decision that is not given yet."""

    runs: int = -1
    key: int = 0
    tickled: int = 0


def key_of(host, vcpu):
    """Order of an entity: its level, then its deadline."""
    v = host.vcpu[vcpu]
    return v.level * LEVEL + v.deadline_ns


def replenish(host, vcpu, now):
    """A new period: the first deadline after now, and the full budget."""
    v = host.vcpu[vcpu]
    v.deadline_ns += ((now - v.deadline_ns) // v.period + 1) * v.period
    v.start_ns = now
    v.left = v.budget
    v.level = v.first_level
    note_key(host, vcpu)


def note_key(host, vcpu):
    """The order of an entity changed: its pCPU, if it runs, need not look for it."""
    p = host.pcpu[max(0, host.vcpu[vcpu].pcpu)]
    if p.runs == vcpu:
        p.key = key_of(host, vcpu)


def enqueue(host, vcpu):
    """Into the queue, if it has budget to run."""
    if host.vcpu[vcpu].left > 0:
        order_put(host, host.box.runq, vcpu, key_of(host, vcpu))


def arm(host):
    """Have the timer wait for the next replenishment."""
    vcpu = order_first(host, host.box.replq)
    if vcpu >= 0:
        set_timer(host, REPLENISH, host.vcpu[vcpu].deadline_ns)
    else:
        cancel_timer(host, REPLENISH)


def first_for(host, pcpu):
    """The first entity of the queue that may run on a pCPU, -1 for none."""
    vcpu = order_first(host, host.box.runq)
    while vcpu >= 0 and not may_run(host, vcpu, pcpu):
        vcpu = order_after(host, host.box.runq, vcpu)
    return vcpu


def tickle(host, vcpu):
    """Ask the pCPU that should run an entity: an idle one, its last one first; else that of the latest deadline."""
    home = max(0, host.vcpu[vcpu].pcpu)
    worst = -1
    worst_key = key_of(host, vcpu)
    pcpu = home
    for _ in range(host.pcpus):
        p = host.pcpu[pcpu]
        if (p.runs < 0 or p.key > worst_key) and p.tickled == 0 and may_run(host, vcpu, pcpu):
            worst = pcpu
            worst_key = p.key
            if p.runs < 0:
                break
        pcpu += 1
        if pcpu == host.pcpus:
            pcpu = 0
    if worst >= 0:
        host.pcpu[worst].tickled = 1
        kick(host, worst)


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    v = host.vcpu[vcpu]
    v.period = host.params.period_ns
    v.budget = host.params.budget_ns
    v.extra = 1 if host.params.extratime else 0
    if v.vm >= 0 and v.kind == 0:
        m = host.vm[v.vm]
        v.extra = min(v.extra, m.rt_extratime)
        if m.rt_period_ns > 0:
            v.period = m.rt_period_ns
            v.budget = m.rt_budget_ns
        elif m.reservation > 0:
            v.budget = max(1, v.period * m.reservation // (100 * m.vcpus))
    v.left = v.budget
    v.deadline_ns = now + v.period * (vcpu + 1) // host.vcpus


@hookimpl
def sched_init(host, now):
    # default budgets must not add up to more than there is beside budgets that somebody asked for
    promises = 0
    for vm in range(host.vms):
        if host.vm[vm].rt_period_ns > 0 or host.vm[vm].reservation > 0:
            promises += 1
    if promises == 0:
        return
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.kind == 0 and host.vm[v.vm].rt_period_ns == 0 and host.vm[v.vm].reservation == 0:
            v.first_level = v.level = 1


@hookimpl
def sched_pcpu_online(host, pcpu, now):
    host.pcpu[pcpu].tickled = 0
    host.pcpu[pcpu].runs = NONE


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    host.pcpu[pcpu].tickled = 1
    vcpu = order_first(host, host.box.runq)
    while vcpu >= 0:
        tickle(host, vcpu)
        vcpu = order_after(host, host.box.runq, vcpu)


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    if now >= v.deadline_ns:
        replenish(host, vcpu, now)
    order_put(host, host.box.replq, vcpu, v.deadline_ns)
    arm(host)
    v.depleted = 1 if v.left <= 0 else 0
    if v.depleted == 0:
        enqueue(host, vcpu)
        tickle(host, vcpu)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    # asked by tickle
    return -1


@hookimpl
def sched_sleep(host, vcpu, now):
    order_remove(host, host.box.runq, vcpu)
    order_remove(host, host.box.replq, vcpu)
    arm(host)


@hookimpl
def sched_running(host, vcpu, pcpu, now):
    host.vcpu[vcpu].start_ns = now


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    # a replenishment on the way was for the rest only
    v.left -= now - v.start_ns
    v.start_ns = now
    if v.left <= 0:
        if v.extra == 1:
            v.level = min(v.level + 1, MOST_LEVELS)
            v.left = v.budget
            note_key(host, vcpu)
        else:
            v.left = 0
            v.depleted = 1
    if runnable == 1:
        enqueue(host, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    host.pcpu[pcpu].tickled = 0
    vcpu = first_for(host, pcpu)
    host.pcpu[pcpu].runs = vcpu
    if vcpu < 0:
        return IDLE, 0
    host.pcpu[pcpu].key = key_of(host, vcpu)
    order_remove(host, host.box.runq, vcpu)
    if prev >= 0 and prev != vcpu and host.vcpu[prev].state == 1 and host.vcpu[prev].left > 0:
        tickle(host, prev)
    return vcpu, host.vcpu[vcpu].left


@hookimpl
def sched_timer(host, timer, now):
    """Begin the periods that are due, and ask the pCPUs that should now run somebody else."""
    vcpu = order_first(host, host.box.replq)
    while vcpu >= 0 and host.vcpu[vcpu].deadline_ns <= now:
        order_remove(host, host.box.replq, vcpu)
        replenish(host, vcpu, now)
        # as Xen collects them: the next time, those of one deadline have their turns the other way round
        fifo_push_front(host, host.box.due, vcpu)
        if host.vcpu[vcpu].state == 1:
            enqueue(host, vcpu)
        vcpu = order_first(host, host.box.replq)
    vcpu = fifo_pop(host, host.box.due)
    while vcpu >= 0:
        v = host.vcpu[vcpu]
        if v.state == 2:
            first = order_first(host, host.box.runq)
            if first >= 0 and key_of(host, vcpu) > key_of(host, first):
                tickle(host, first)
        elif v.depleted == 1:
            v.depleted = 0
            tickle(host, vcpu)
        order_put(host, host.box.replq, vcpu, v.deadline_ns)
        vcpu = fifo_pop(host, host.box.due)
    arm(host)
