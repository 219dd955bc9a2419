"""Physical CPUs and the entities that run on them: time accounting, dispatch, preemption, wake-ups.

A pCPU runs one entity in *segments*. `settle` pays for the segment up to now; whoever changes what a pCPU does
settles it first. Within a segment time is paid in this order: hypervisor work that the entity owes (switches, exits,
interrupt injections), the technique's extra of the current operation, then guest work, during which the cache refill
that is owed is paid at the same pace: a burst pays at most as much refill as it works.

Sources. Direct cost of a switch and refill: Li, Ding, Shen, "Quantifying the cost of context switch", ExpCS 2007
(direct 3.8 us; indirect from several us to above 1,000 us with the working set). Refill as a debt, and its bound by the
burst: model.md. The share of a working set that others evict grows as t/(t + tau) with the time t that they ran.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import trailing_zeros
from hvbench.kernel.ask import AXIS_SCHEDULER, ask
from hvbench.kernel.events import K_PCPU, K_TICK, arm, armed, disarm
from hvbench.kernel.guards import E_PCPU_RANGE, E_SLICE, E_STANDS_STILL, E_VCPU_RANGE, E_VCPU_STATE, fail
from hvbench.kernel.histogram import H_WAIT, H_WAKEUP, observe
from hvbench.kernel.hook_rows import (
    SCHED_MIGRATE,
    SCHED_PICK_NEXT,
    SCHED_RUNNING,
    SCHED_SELECT_PCPU,
    SCHED_SLEEP,
    SCHED_STOPPING,
    SCHED_WAKE,
)
from hvbench.state.records import (
    BLOCKED,
    COSTOPPED,
    RUNNABLE,
    RUNNING,
    VCPU,
    WHY_HALT,
    WHY_KICK,
    WHY_NONE,
    WHY_PREEMPTED,
)

DEFAULT_SLICE_NS = 1_000_000
LONGEST_NS = 1 << 60
"""Slices and periods beyond this are cut to it: FOREVER and the like must not overflow the clock."""
DECISIONS_AT_ONE_INSTANT = 10_000
"""So many decisions per pCPU without time moving are a policy that stands still."""


# the arrival-ordered list of runnable entities ---------------------------------------------------------


@jit
def runq_append(host: Any, v: int) -> None:
    """Put an entity last in the arrival-ordered list."""
    last = host.runnable_last
    e = host.vcpu[v]
    e.previous_runnable = last
    e.next_runnable = -1
    if last >= 0:
        host.vcpu[last].next_runnable = v
    else:
        host.runnable_first = v
    host.runnable_last = v
    host.runnable_count = host.runnable_count + 1


@jit
def runq_remove(host: Any, v: int) -> None:
    """Take an entity out of the arrival-ordered list."""
    e = host.vcpu[v]
    before = e.previous_runnable
    after = e.next_runnable
    if before >= 0:
        host.vcpu[before].next_runnable = after
    else:
        host.runnable_first = after
    if after >= 0:
        host.vcpu[after].previous_runnable = before
    else:
        host.runnable_last = before
    e.previous_runnable = -1
    e.next_runnable = -1
    host.runnable_count = host.runnable_count - 1


# idle pCPUs ----------------------------------------------------------------------------------------------


@jit
def set_idle(host: Any, p: int, idle: int) -> None:
    """Keep the set of idle pCPUs."""
    host.pcpu[p].idle = idle
    word = host.idle[p >> 5]
    if idle:
        word.bits = word.bits | (1 << (p & 31))
    else:
        word.bits = word.bits & ~(1 << (p & 31))


@jit
def lowest_idle(host: Any) -> int:
    """The idle pCPU of lowest index that nobody has asked yet, -1 for none."""
    for word in range(len(host.idle)):
        bits = host.idle[word].bits
        if bits != 0:
            return word * 32 + trailing_zeros(bits)
    return -1


# time ----------------------------------------------------------------------------------------------------


@jit
def settle(host: Any, p: int) -> None:
    """Pay for the running segment of a pCPU up to now."""
    pc = host.pcpu[p]
    now = host.now
    left = now - pc.segment_start_ns
    if left == 0:
        return
    pc.segment_start_ns = now
    measured = now > host.warmup_ns
    v = pc.current
    if v < 0:
        if measured:
            pc.idle_ns += left
        return
    e = host.vcpu[v]
    pc.busy_ns += left
    e.ran_ns += left
    if measured:
        e.run_measured_ns += left
    paid = min(e.overhead_left_ns, left)
    e.overhead_left_ns -= paid
    left -= paid
    overhead = paid
    if e.kind != VCPU:
        # what a host thread does is the hypervisor's time; it never runs beyond the work that it has
        if measured:
            pc.hypervisor_ns += overhead + left
            e.overhead_ns += overhead + left
            if e.vm >= 0:
                host.vm[e.vm].overhead_ns += overhead + left
        return
    refill = 0
    work = 0
    spun = 0
    t = e.current_thread
    if left > 0 and t >= 0:
        th = host.thread[t]
        paid = min(th.overhead_left_ns, left)
        th.overhead_left_ns -= paid
        left -= paid
        if th.spinning:
            spun = paid
            e.guest_slice_left_ns -= paid
        else:
            overhead += paid
        if left > 0:
            # refill and work take turns of 1 ns, refill first, for as long as there is both: how often somebody looks
            # must not change who gets what, so an odd nanosecond of refill is remembered
            ahead = e.refill_ahead
            pairs = min(e.debt_ns + ahead, th.work_left_ns)
            if left + ahead >= 2 * pairs:
                refill = max(0, pairs - ahead)
                e.refill_ahead = 0
            else:
                refill = ((left + ahead + 1) >> 1) - ahead
                e.refill_ahead = (left + ahead) & 1
            work = left - refill
            e.debt_ns -= refill
            th.work_left_ns -= work
            e.guest_slice_left_ns -= left
            host.progress_ns = now
    e.progress_ns += refill + work + spun
    if measured:
        pc.hypervisor_ns += overhead
        pc.refill_ns += refill
        pc.guest_ns += work + spun
        e.overhead_ns += overhead
        m = host.vm[e.vm]
        m.overhead_ns += overhead
        m.refill_ns += refill
        m.spin_ns += spun
        credit = min(work, host.thread[t].recorded_left_ns) if t >= 0 else 0
        if credit > 0:
            m.work_done_ns += credit
    if t >= 0 and work > 0:
        th2 = host.thread[t]
        th2.recorded_left_ns = max(0, th2.recorded_left_ns - work)


@jit
def need_ns(host: Any, v: int) -> int:
    """How long the entity must still run before its current operation is done."""
    e = host.vcpu[v]
    need = e.overhead_left_ns
    t = e.current_thread
    if t >= 0:
        th = host.thread[t]
        work = th.work_left_ns
        need += th.overhead_left_ns + work + max(0, min(e.debt_ns + e.refill_ahead, work) - e.refill_ahead)
    return need


@jit
def arm_pcpu(host: Any, p: int) -> None:
    """Have the pCPU served when its current operation or a slice ends, whichever is first."""
    pc = host.pcpu[p]
    v = pc.current
    if v < 0:
        return
    e = host.vcpu[v]
    need = need_ns(host, v)
    if e.queue_len > 0 and e.current_thread >= 0:
        # somebody waits inside the guest: its own scheduler's slice counts as well
        guest = e.overhead_left_ns + max(0, e.guest_slice_left_ns)
        if guest < need:
            need = guest
    at = pc.segment_start_ns + need
    if pc.slice_end_ns < at:
        at = pc.slice_end_ns
    arm(host, K_PCPU, p, at)


@jit
def charge(host: Any, v: int, cost_ns: int) -> None:
    """Make an entity owe hypervisor work; it pays when it runs."""
    if cost_ns <= 0:
        return
    e = host.vcpu[v]
    if e.state == RUNNING:
        settle(host, e.pcpu)
        e.overhead_left_ns += cost_ns
        arm_pcpu(host, e.pcpu)
    else:
        e.overhead_left_ns += cost_ns


# decisions -----------------------------------------------------------------------------------------------


@jit
def request_decision(host: Any, p: int, why: int) -> None:
    """Have a pCPU decide anew when the event at hand has been handled."""
    pc = host.pcpu[p]
    if pc.resched:
        return
    if pc.current < 0:
        # asked already: whoever wakes next at this instant looks for another one
        set_idle(host, p, 0)
    pc.resched = 1
    pc.why = why
    pc.next_resched = -1
    if host.resched_last >= 0:
        host.pcpu[host.resched_last].next_resched = p
    else:
        host.resched_first = p
    host.resched_last = p


@jit
def wake(host: Any, v: int) -> None:
    """A blocked entity has something to do."""
    e = host.vcpu[v]
    if e.state != BLOCKED:
        return
    now = host.now
    if e.halted_since_ns >= 0:
        # who halts has nothing to do: it does not fall behind its siblings
        e.progress_ns += now - e.halted_since_ns
        e.halted_since_ns = -1
    if e.hold > 0:
        e.wake_pending = 1
        if e.costop and e.hold == 1:
            e.state = COSTOPPED
            e.runnable_since_ns = now
        return
    e.wake_pending = 0
    e.state = RUNNABLE
    e.runnable_since_ns = now
    e.woken_ns = now
    runq_append(host, v)
    ask(host, AXIS_SCHEDULER, SCHED_WAKE, v, now, 0, 0, 0, 0)
    prev = e.pcpu
    default = -1
    if prev >= 0 and host.pcpu[prev].idle != 0:
        default = prev
    else:
        default = lowest_idle(host)
    p = ask(host, AXIS_SCHEDULER, SCHED_SELECT_PCPU, v, prev, now, 0, 0, default)
    if p < -1 or p >= host.pcpus:
        fail(host, E_PCPU_RANGE, SCHED_SELECT_PCPU, p, v)
        return
    if p >= 0 and host.pcpu[p].current < 0 and not host.pcpu[p].offline:
        request_decision(host, p, WHY_NONE)


@jit
def stop(host: Any, p: int, runnable: int, why: int) -> None:
    """Take the running entity off its pCPU, which has been settled."""
    pc = host.pcpu[p]
    v = pc.current
    e = host.vcpu[v]
    now = host.now
    pc.current = -1
    pc.last = v
    host.running = host.running - 1
    disarm(host, K_PCPU, p)
    e.stopped_why = why
    e.busy_mark_ns = pc.busy_ns
    if runnable:
        e.state = RUNNABLE
        e.runnable_since_ns = now
        runq_append(host, v)
    else:
        e.state = COSTOPPED if e.costop and e.hold == 1 and e.wake_pending else BLOCKED
        e.runnable_since_ns = now
        if why == WHY_HALT:
            e.halted_since_ns = now
    ask(host, AXIS_SCHEDULER, SCHED_STOPPING, v, now - pc.dispatched_ns, runnable, now, 0, 0)
    if not runnable:
        ask(host, AXIS_SCHEDULER, SCHED_SLEEP, v, now, 0, 0, 0, 0)


@jit
def decide(host: Any, p: int, prev: int) -> None:
    """Ask the scheduler what an idle pCPU runs next, check the answer, and do it."""
    now = host.now
    host.decisions = host.decisions + 1
    host.decisions_here = host.decisions_here + 1
    if host.decisions_here > DECISIONS_AT_ONE_INSTANT * host.pcpus:
        fail(host, E_STANDS_STILL, SCHED_PICK_NEXT, host.decisions_here, p)
        return
    pc = host.pcpu[p]
    host.answer_slice_ns = DEFAULT_SLICE_NS
    v = ask(host, AXIS_SCHEDULER, SCHED_PICK_NEXT, p, prev, now, 0, 0, host.runnable_first)
    slice_ns = host.answer_slice_ns
    if v < -1 or v >= host.vcpus:
        fail(host, E_VCPU_RANGE, SCHED_PICK_NEXT, v, p)
        return
    if v < 0:
        if slice_ns < 0:
            fail(host, E_SLICE, SCHED_PICK_NEXT, slice_ns, p)
            return
        set_idle(host, p, 1)
        pc.idle_on_purpose = 1 if host.runnable_count > 0 else 0
        disarm(host, K_PCPU, p)
        if slice_ns > 0 and pc.idle_on_purpose:
            arm(host, K_PCPU, p, now + min(slice_ns, LONGEST_NS))
        return
    e = host.vcpu[v]
    if e.state != RUNNABLE or e.hold > 0:
        fail(host, E_VCPU_STATE, SCHED_PICK_NEXT, v, p)
        return
    if slice_ns < 1:
        fail(host, E_SLICE, SCHED_PICK_NEXT, slice_ns, p)
        return
    dispatch(host, p, v, slice_ns)


@jit
def dispatch(host: Any, p: int, v: int, slice_ns: int) -> None:
    """Put a runnable entity on an idle pCPU."""
    now = host.now
    pc = host.pcpu[p]
    e = host.vcpu[v]
    measured = now >= host.warmup_ns
    runq_remove(host, v)
    origin = e.pcpu
    if origin != p:
        if origin >= 0:
            ask(host, AXIS_SCHEDULER, SCHED_MIGRATE, v, origin, p, now, 0, 0)
            refill = host.cache_refill_ns
            if host.pcpu[origin].llc != pc.llc:
                refill = host.cache_refill_other_ns
            if e.kind == VCPU and refill > e.debt_ns:
                e.debt_ns = refill
            if measured:
                e.migrations += 1
        e.pcpu = p
        e.overhead_left_ns += host.switch_cost_ns
    elif pc.last != v:
        others = pc.busy_ns - e.busy_mark_ns
        missing = host.cache_refill_ns - e.debt_ns
        if e.kind == VCPU and missing > 0 and others > 0:
            # others / (others + tau) of what is still warm is gone
            e.debt_ns += int(missing * (others / (others + host.cache_refill_tau_ns)))
        e.overhead_left_ns += host.switch_cost_ns
    e.state = RUNNING
    e.waited_ns += now - e.runnable_since_ns
    if measured:
        since = max(e.runnable_since_ns, host.warmup_ns)
        e.ready_ns += now - since
        e.dispatches += 1
        pc.dispatches += 1
    woken = e.woken_ns
    if measured and e.kind == VCPU and (woken >= 0 or now > e.runnable_since_ns):
        # who was asked about and goes on at once did not wait
        observe(host, e.vm, H_WAIT, now - e.runnable_since_ns)
    if woken >= 0:
        e.woken_ns = -1
        if measured and e.kind == VCPU:
            observe(host, e.vm, H_WAKEUP, now - woken)
            host.vm[e.vm].wakeups += 1
    pc.current = v
    pc.idle_on_purpose = 0
    set_idle(host, p, 0)
    host.running = host.running + 1
    pc.dispatched_ns = now
    pc.segment_start_ns = now
    pc.slice_end_ns = now + min(slice_ns, LONGEST_NS)
    if pc.tick_ns > 0 and not armed(host, host.kind[K_TICK].base + p):
        arm(host, K_TICK, p, now + pc.tick_ns)
    ask(host, AXIS_SCHEDULER, SCHED_RUNNING, v, p, now, 0, 0, 0)


@jit
def preempt_reason(why: int) -> int:
    """What a kicked entity is told."""
    return WHY_PREEMPTED if why == WHY_KICK or why == WHY_NONE else why
