"""BVT, borrowed virtual time: shares by weight, and latency for those who may borrow from their future.

Overview: every entity has an actual virtual time that advances, in whole units of 100 us, by what it ran over its
weight, and an effective one, which is the actual one less its warp. Each pCPU runs the entity of smallest effective
virtual time until it is ahead of the next one by more than the context-switch allowance. Who wakes is brought up to
the virtual time of its pCPU, so that sleeping earns nothing, and warps if its VM has a [vm.warp]; it preempts whoever
has run for the allowance. A warp ends with its limit, and another one needs a rest (which, as in Xen, a wake that is
denied its warp begins anew).

Source: K. J. Duda, D. R. Cheriton, "Borrowed-virtual-time (BVT) scheduling", SOSP 1999; Xen 2.0 and 3.0,
xen/common/sched_bvt.c: MCU 100 us, MCU_ADVANCE 10 (here for a weight of 256), ctx_allow 5 ms, 10 x ctx_allow where
nobody else wants to run.

Claims: weight-proportional (on each pCPU), starvation-free. Not work-conserving between pCPUs.

Not modelled: TIME_SLOP, which spares Xen moving a timer by less than 50 us. Xen never balances: an entity stays on the
pCPU that it was given. Xen 2.0 adds the lead over the next one as ns where the paper says units of 100 us: here as
in the paper.
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
CLAIMS = frozenset({"weight-proportional", "starvation-free"})
HONOURS = frozenset({"weight", "pinning", "warp"})

CONTAINERS = (OrderedIndex("by_evt", of="vcpu", per="pcpu"), OrderedIndex("by_avt", of="vcpu", per="pcpu"))

ADVANCE = 10 * 256 * 1024
"""Virtual time of one MCU at a weight of 1: Xen's MCU_ADVANCE at 256, in 1/1024 so that large weights differ."""

_XEN = "Xen 2.0, xen/common/sched_bvt.c"


@frozen
class Params:
    """Parameters of bvt, in Xen's meaning."""

    ctx_allow_ns: int = param(
        5_000_000,
        unit="ns",
        low=1,
        help="context-switch allowance: least run, and how far one gets ahead of the next",
        source=f"{_XEN}: ctx_allow 5 ms",
    )
    mcu_ns: int = param(
        100_000, unit="ns", low=1, help="minimum charging unit: runs are rounded up to it", source=f"{_XEN}: MCU 100 us"
    )


@state("vcpu")
class Vcpu:
    """An entity's virtual times, what it ran and has not been charged, its pCPU, and its warp."""

    avt: int = 0
    evt: int = 0
    uncharged_ns: int = 0
    home: int = -1
    warping: int = 0
    warped_ns: int = 0
    unwarped_ns: int = -1


@state("pcpu")
class Pcpu:
    """System virtual time of a pCPU, and since when its entity runs there without a break."""

    svt: int = 0
    since_ns: int = 0


def advance_of(host, vcpu):
    """Virtual time that an entity is charged for one MCU."""
    return max(1, ADVANCE // host.vcpu[vcpu].weight)


def find_evt(host, vcpu, now):
    """Effective virtual time: the actual one, less the warp as long as it is allowed."""
    v = host.vcpu[vcpu]
    v.evt = v.avt
    if v.warping == 0:
        return
    m = host.vm[v.vm]
    rested = v.unwarped_ns < 0 or now - v.unwarped_ns > m.warp_rest_ns
    if now - v.warped_ns < m.warp_limit_ns and rested:
        v.evt -= m.warp_ahead_ns * (ADVANCE // 256) // host.params.mcu_ns
    else:
        v.unwarped_ns = now
        v.warping = 0


def charge(host, vcpu, now):
    """Advance an entity's virtual time by what it ran, in MCUs begun."""
    v = host.vcpu[vcpu]
    mcus = (v.uncharged_ns + host.params.mcu_ns - 1) // host.params.mcu_ns
    v.avt += mcus * advance_of(host, vcpu)
    v.uncharged_ns = 0
    find_evt(host, vcpu, now)


def enqueue(host, vcpu):
    v = host.vcpu[vcpu]
    order_put(host, host.box.by_evt + v.home, vcpu, v.evt)
    order_put(host, host.box.by_avt + v.home, vcpu, v.avt)


def dequeue(host, vcpu):
    v = host.vcpu[vcpu]
    order_remove(host, host.box.by_evt + v.home, vcpu)
    order_remove(host, host.box.by_avt + v.home, vcpu)


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    host.vcpu[vcpu].home = allowed_pcpu(host, vcpu, vcpu % host.pcpus)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    target = pcpu
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.home == pcpu:
            target = allowed_pcpu(host, vcpu, (target + 1) % host.pcpus)
            dequeue(host, vcpu)
            # as far ahead of the others there as it was of those here
            v.avt += host.pcpu[target].svt - host.pcpu[pcpu].svt
            v.home = target
            charge(host, vcpu, now)
            # who ran there stands in no queue
            if v.state == 1:
                enqueue(host, vcpu)
                kick(host, target)


@hookimpl
def sched_wake(host, vcpu, now):
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    v.avt = max(v.avt, p.svt)
    if v.vm >= 0 and host.vm[v.vm].warp_ahead_ns > 0:
        v.warping = 1
        v.warped_ns = now
    find_evt(host, vcpu, now)
    enqueue(host, vcpu)
    if p.current >= 0:
        kick(host, v.home)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].home


@hookimpl
def sched_sleep(host, vcpu, now):
    dequeue(host, vcpu)
    host.vcpu[vcpu].warping = 0


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    v = host.vcpu[vcpu]
    v.uncharged_ns += ran_ns
    if runnable == 0:
        v.warping = 0
        charge(host, vcpu, now)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    p = host.pcpu[pcpu]
    allowance = host.params.ctx_allow_ns
    going_on = prev >= 0 and host.vcpu[prev].state == 1 and host.vcpu[prev].home == pcpu
    if going_on and now - p.since_ns < allowance:
        # preempted too early: it has its allowance, and is charged when that is over
        return prev, allowance - (now - p.since_ns)
    if prev >= 0 and host.vcpu[prev].state == 1:
        charge(host, prev, now)
        enqueue(host, prev)
    vcpu = order_first(host, host.box.by_evt + pcpu)
    if vcpu < 0:
        return IDLE, 0
    p.svt = max(p.svt, host.vcpu[order_first(host, host.box.by_avt + pcpu)].avt)
    dequeue(host, vcpu)
    p.since_ns = now
    v = host.vcpu[vcpu]
    behind = order_first(host, host.box.by_evt + pcpu)
    slice_ns = 10 * allowance
    if behind >= 0:
        slice_ns = (host.vcpu[behind].evt - v.evt) // advance_of(host, vcpu) * host.params.mcu_ns + allowance
    if v.warping == 1:
        # at the end of its warp it is compared anew
        slice_ns = max(1, min(slice_ns, v.warped_ns + host.vm[v.vm].warp_limit_ns - now))
    return vcpu, slice_ns
