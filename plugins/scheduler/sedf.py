"""SEDF, Xen's simple EDF: slices of CPU time in every period by earliest deadline, and what is left as extra time.

Overview: each pCPU has its own entities. One that is promised a slice in each period runs, by earliest deadline, until
it has had it, and waits for its next period. While nobody has a slice left the pCPU deals out extra time in quanta:
first to those who lost part of a slice by blocking (by what they lost), then to all who take extra time, by weight. An
entity that wakes within the period in which it blocked gets no more of that slice, but the penalty queue; one that
wakes later begins a period at once, at first a short one where its VM states a latency, doubled with each slice.

Source: Xen 3.0, xen/common/sched_sedf.c (S. Diestelhorst): EXTRA_QUANTUM 500 us, WEIGHT_PERIOD 100 ms, WEIGHT_SAFETY
5 ms, UNBLOCK_EXTRA_SUPPORT, EXTRA_BLOCK_WEIGHT; for VMs with a latency UNBLOCK_ATROPOS. A VM's [vm.realtime] sets slice
(budget), period, extratime and latency of each of its vCPUs. A CPU reservation is spread over them as slices of
WEIGHT_PERIOD. Everybody else runs in extra time alone, with Xen's extraweight 1 for a weight of 256; with
`weight_slices` those without a promise get slices of WEIGHT_PERIOD by weight, as `xm sched-sedf -w` does.

Claims: real-time guarantees (where a pCPU's slices fit), weight-proportional (on each pCPU, in extra time),
starvation-free (with extra time). Not work-conserving: the rest of less than a quantum before a period idles.

Not modelled: Xen never balances; an entity stays on the pCPU that it was given. There is no admission control.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import (
    IDLE,
    OrderedIndex,
    allowed_pcpu,
    hookimpl,
    kick,
    order_first,
    order_put,
    order_remove,
    param,
    state,
)

AXIS = "scheduler"
CLAIMS = frozenset({"weight-proportional", "real-time", "starvation-free"})
HONOURS = frozenset({"weight", "reservation", "pinning", "realtime"})

CONTAINERS = (
    OrderedIndex("runq", of="vcpu", per="pcpu"),
    OrderedIndex("waitq", of="vcpu", per="pcpu"),
    OrderedIndex("penalty", of="vcpu", per="pcpu"),
    OrderedIndex("extra", of="vcpu", per="pcpu"),
)

IN_SLICE, IN_PENALTY, IN_EXTRA = 0, 1, 2

_XEN = "Xen 3.0, xen/common/sched_sedf.c"


@frozen
class Params:
    """Parameters of sedf, in Xen's meaning."""

    extra_quantum_ns: int = param(
        500_000, unit="ns", low=1, help="turn in extra time", source=f"{_XEN}: EXTRA_QUANTUM 500 us"
    )
    weight_period_ns: int = param(
        100_000_000,
        unit="ns",
        low=1,
        help="period of those whose VM states none",
        source=f"{_XEN}: WEIGHT_PERIOD 100 ms",
    )
    weight_safety_ns: int = param(
        5_000_000, unit="ns", low=0, help="part of it that is not promised by weight", source=f"{_XEN}: WEIGHT_SAFETY"
    )
    weight_slices: bool = param(
        False,
        help="whether weights give slices of the weight period, instead of extra time alone",
        source=f"{_XEN}: sedf_add_task, best effort",
    )


@state("vcpu")
class Vcpu:
    """An entity's promise (as stated, and as scaled now), its deadline, and its place in extra time."""

    period_ns: int = 0
    slice_ns: int = 0
    period_orig_ns: int = 0
    slice_orig_ns: int = 0
    promised: int = 0
    takes_extra: int = 1
    latency_ns: int = 0
    deadline_ns: int = 0
    start_ns: int = 0
    used_ns: int = 0
    asleep: int = 1
    blocked: int = 0
    mode: int = 0
    wants_penalty: int = 0
    lost_ns: int = 0
    penalty_score: int = 0
    extra_score: int = 0
    extra_at: int = 0
    extra_step: int = 0
    home: int = -1


@state("pcpu")
class Pcpu:
    """Score of who took extra time last (where newcomers begin), and when the slice that runs ends."""

    base: int = 0
    expires_ns: int = 0


def begin_of(host, vcpu):
    """When an entity's current, or next, period begins."""
    v = host.vcpu[vcpu]
    return v.deadline_ns - v.period_ns


def to_waitq(host, vcpu):
    order_put(host, host.box.waitq + host.vcpu[vcpu].home, vcpu, begin_of(host, vcpu))


def to_runq(host, vcpu):
    v = host.vcpu[vcpu]
    order_put(host, host.box.runq + v.home, vcpu, v.deadline_ns)


def to_penalty(host, vcpu):
    v = host.vcpu[vcpu]
    order_put(host, host.box.penalty + v.home, vcpu, v.penalty_score)


def to_extra(host, vcpu):
    """Into extra time at its score, which counts from where the others are now."""
    v = host.vcpu[vcpu]
    if v.takes_extra == 1:
        v.extra_at = host.pcpu[v.home].base + v.extra_score
        order_put(host, host.box.extra + v.home, vcpu, v.extra_at)


def leave_extra(host, vcpu):
    v = host.vcpu[vcpu]
    order_remove(host, host.box.penalty + v.home, vcpu)
    if order_remove(host, host.box.extra + v.home, vcpu) == 1:
        v.extra_score = max(0, v.extra_at - host.pcpu[v.home].base)


def leave_all(host, vcpu):
    v = host.vcpu[vcpu]
    order_remove(host, host.box.runq + v.home, vcpu)
    order_remove(host, host.box.waitq + v.home, vcpu)
    leave_extra(host, vcpu)


def promise(host, vcpu, period_ns, slice_ns):
    """Set an entity's period, and its slice in each."""
    v = host.vcpu[vcpu]
    v.period_ns = v.period_orig_ns = period_ns
    v.slice_ns = v.slice_orig_ns = slice_ns


def end_slice(host, vcpu, runnable, now):
    """An entity stops that ran in its slice."""
    v = host.vcpu[vcpu]
    v.used_ns += now - v.start_ns
    if v.used_ns < v.slice_ns and runnable == 1:
        return
    order_remove(host, host.box.runq + v.home, vcpu)
    if v.used_ns >= v.slice_ns:
        v.used_ns -= v.slice_ns
        if v.period_ns < v.period_orig_ns:
            v.period_ns *= 2
            v.slice_ns *= 2
            if v.period_ns > v.period_orig_ns or v.slice_ns > v.slice_orig_ns:
                v.period_ns = v.period_orig_ns
                v.slice_ns = v.slice_orig_ns
        v.deadline_ns += v.period_ns
    if runnable == 1:
        to_waitq(host, vcpu)
    else:
        leave_extra(host, vcpu)


def end_extra(host, vcpu, runnable, now):
    """An entity stops that ran in extra time."""
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    v.used_ns = 0
    if v.mode == IN_PENALTY:
        order_remove(host, host.box.penalty + v.home, vcpu)
        v.lost_ns -= now - v.start_ns
        if v.lost_ns <= 0:
            v.lost_ns = 0
            v.wants_penalty = 0
        else:
            v.penalty_score = v.period_ns * 1024 // v.lost_ns
            if runnable == 1:
                to_penalty(host, vcpu)
    else:
        order_remove(host, host.box.extra + v.home, vcpu)
        # a turn costs the same, however short; newcomers' scores count from that of who ran last
        p.base = max(p.base, v.extra_at)
        v.extra_score = v.extra_step
        if runnable == 1:
            to_extra(host, vcpu)
    v.mode = IN_SLICE
    if runnable == 0:
        leave_all(host, vcpu)


def update_queues(host, pcpu, now):
    """Begin the periods that are due; give those a new one that missed their deadline."""
    runq = host.box.runq + pcpu
    waitq = host.box.waitq + pcpu
    vcpu = order_first(host, waitq)
    while vcpu >= 0 and begin_of(host, vcpu) <= now:
        order_remove(host, waitq, vcpu)
        to_runq(host, vcpu)
        vcpu = order_first(host, waitq)
    vcpu = order_first(host, runq)
    while vcpu >= 0:
        v = host.vcpu[vcpu]
        if v.slice_ns == 0:
            v.deadline_ns += v.period_ns
            late = now - begin_of(host, vcpu)
            if late > 0:
                v.deadline_ns += (late + v.period_ns - 1) // v.period_ns * v.period_ns
        elif v.deadline_ns < now or v.used_ns > v.slice_ns:
            v.deadline_ns += v.period_ns
            late = now - v.deadline_ns
            if late > 0:
                v.deadline_ns += (late + v.period_ns - 1) // v.period_ns * v.period_ns
            v.used_ns = 0
        else:
            return
        order_remove(host, runq, vcpu)
        if begin_of(host, vcpu) > now or v.slice_ns == 0:
            to_waitq(host, vcpu)
        else:
            to_runq(host, vcpu)
        vcpu = order_first(host, runq)


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    v = host.vcpu[vcpu]
    v.home = allowed_pcpu(host, vcpu, vcpu % host.pcpus)
    promise(host, vcpu, host.params.weight_period_ns, 0)
    v.extra_step = max(1, (1 << 17) * 256 // v.weight)
    if v.vm < 0 or v.kind != 0:
        return
    m = host.vm[v.vm]
    v.takes_extra = m.rt_extratime
    v.latency_ns = m.rt_latency_ns
    if m.rt_period_ns > 0:
        v.promised = 1
        promise(host, vcpu, m.rt_period_ns, m.rt_budget_ns)
        # a turn in extra time costs a VM with a promise the inverse of its utilization
        v.extra_step = max(1, m.rt_period_ns * 1024 // m.rt_budget_ns)
    elif m.reservation > 0:
        v.promised = 1
        period = host.params.weight_period_ns
        promise(host, vcpu, period, max(1, period * m.reservation // (100 * m.vcpus)))


@hookimpl
def sched_init(host, now):
    if not host.params.weight_slices:
        return
    period = host.params.weight_period_ns
    for pcpu in range(host.pcpus):
        promised = host.params.weight_safety_ns
        weights = 0
        for vcpu in range(host.vcpus):
            v = host.vcpu[vcpu]
            if v.home == pcpu and v.promised == 1:
                promised += period * v.slice_orig_ns // v.period_orig_ns
            elif v.home == pcpu:
                weights += v.weight
        for vcpu in range(host.vcpus):
            v = host.vcpu[vcpu]
            if v.home == pcpu and v.promised == 0:
                promise(host, vcpu, period, max(0, period - promised) * v.weight // weights)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    target = pcpu
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.home == pcpu:
            target = allowed_pcpu(host, vcpu, (target + 1) % host.pcpus)
            leave_all(host, vcpu)
            v.home = target
            if v.asleep == 0:
                to_waitq(host, vcpu)
                to_extra(host, vcpu)
                if v.wants_penalty == 1:
                    to_penalty(host, vcpu)
                kick(host, target)


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    v.asleep = 0
    if v.deadline_ns == 0:
        v.deadline_ns = now + v.slice_ns
    if now >= begin_of(host, vcpu):
        if now < v.deadline_ns:
            # within the period in which it blocked: no more of the slice, but a place before the others in extra time
            v.deadline_ns += v.period_ns
            lost = v.slice_ns - v.used_ns
            if v.blocked == 1 and lost > 0:
                v.lost_ns = lost
                v.penalty_score = v.period_ns * 1024 // lost
                v.wants_penalty = 1
        else:
            if v.latency_ns > 0 and v.latency_ns < v.period_orig_ns:
                v.period_ns = v.latency_ns
                v.slice_ns = v.latency_ns * v.slice_orig_ns // v.period_orig_ns
            v.deadline_ns = now + v.period_ns
        v.used_ns = 0
    if v.wants_penalty == 1:
        to_penalty(host, vcpu)
    to_extra(host, vcpu)
    to_waitq(host, vcpu)
    if p.current >= 0:
        runs = host.vcpu[p.current]
        sooner = begin_of(host, vcpu) < p.expires_ns
        if runs.mode == IN_PENALTY and v.wants_penalty == 1 and v.penalty_score < runs.penalty_score:
            sooner = True
        if runs.mode == IN_EXTRA and v.wants_penalty == 1:
            sooner = True
        if sooner:
            kick(host, v.home)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].home


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    if runnable == 0:
        v.asleep = 1
        v.blocked = 1
    if v.mode == IN_SLICE:
        end_slice(host, vcpu, runnable, now)
    else:
        end_extra(host, vcpu, runnable, now)


@hookimpl
def sched_sleep(host, vcpu, now):
    host.vcpu[vcpu].asleep = 1
    leave_all(host, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    update_queues(host, pcpu, now)
    vcpu = order_first(host, host.box.runq + pcpu)
    waits = order_first(host, host.box.waitq + pcpu)
    if vcpu < 0 and waits < 0:
        return IDLE, 0
    until = host.params.extra_quantum_ns
    if waits >= 0:
        until = begin_of(host, waits) - now
    mode = IN_SLICE
    if vcpu >= 0:
        left = host.vcpu[vcpu].slice_ns - host.vcpu[vcpu].used_ns
        if waits < 0 or left < until:
            until = left
    else:
        if until < host.params.extra_quantum_ns:
            return IDLE, until
        until = host.params.extra_quantum_ns
        mode = IN_PENALTY
        vcpu = order_first(host, host.box.penalty + pcpu)
        if vcpu < 0:
            mode = IN_EXTRA
            vcpu = order_first(host, host.box.extra + pcpu)
        if vcpu < 0:
            return IDLE, begin_of(host, waits) - now
    host.vcpu[vcpu].mode = mode
    host.vcpu[vcpu].start_ns = now
    host.pcpu[pcpu].expires_ns = now + until
    return vcpu, until
