"""The event loop: two screens that everything else hangs from."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SCHEDULER, ask
from hvbench.kernel.control import drain, tick
from hvbench.kernel.cpu import arm_pcpu, charge, decide, need_ns, preempt_reason, settle, stop, wake
from hvbench.kernel.devices import device_event, work_done
from hvbench.kernel.events import K_CONTROL, K_DEVICE, K_MEMORY, K_PCPU, K_THREAD, K_TICK, K_TIMER, ORDER_BITS, arm, pop
from hvbench.kernel.faults import fault_event, nobody_lives
from hvbench.kernel.guards import E_DEADLOCK, E_STARVED, fail
from hvbench.kernel.guest import FAULTS, HALTS, YIELDS, advance, start_group, thread_timer
from hvbench.kernel.holding import account_costopped
from hvbench.kernel.hook_rows import (
    SCHED_INIT,
    SCHED_PCPU_ONLINE,
    SCHED_PICK_NEXT,
    SCHED_SET_AFFINITY,
    SCHED_SET_WEIGHT,
    SCHED_TIMER,
    SCHED_VCPU_INSERT,
)
from hvbench.kernel.memory import memory_event, memory_finish, memory_init, memory_timer
from hvbench.kernel.network import network_init, network_timer
from hvbench.kernel.services import TIMERS_PER_SLOT
from hvbench.kernel.storage import storage_init, storage_timer
from hvbench.kernel.work import free, take_done
from hvbench.state.records import (
    COSTOPPED,
    VCPU,
    WHY_COSTOP,
    WHY_FORCED,
    WHY_HALT,
    WHY_HOST_FAULT,
    WHY_PAUSE_LOOP,
    WHY_SLICE,
)
from hvbench.state.schema import SCHEDULER_SLOT, STORAGE_SLOT, SWITCH_SLOT

MORE, FINISHED, STOPPED = 0, 1, 2
"""The loop ended because its slice of events is used up; the horizon was reached; an error ended the cell."""


@jit
def boot(host: Any) -> None:
    """Before time moves: every policy hears of the pCPUs, entities and VMs."""
    for p in range(host.pcpus):
        ask(host, AXIS_SCHEDULER, SCHED_PCPU_ONLINE, p, 0, 0, 0, 0, 0)
    for v in range(host.vcpus):
        ask(host, AXIS_SCHEDULER, SCHED_VCPU_INSERT, v, 0, 0, 0, 0, 0)
        if host.vcpu[v].affinity != 0:
            ask(host, AXIS_SCHEDULER, SCHED_SET_AFFINITY, v, host.vcpu[v].affinity, 0, 0, 0, 0)
    for m in range(host.vms):
        x = host.vm[m]
        ask(host, AXIS_SCHEDULER, SCHED_SET_WEIGHT, m, x.weight, x.cap, 0, 0, 0)
    ask(host, AXIS_SCHEDULER, SCHED_INIT, 0, 0, 0, 0, 0, 0)
    memory_init(host)
    storage_init(host)
    network_init(host)
    drain(host)


@jit
def run(host: Any, limit: int) -> int:
    """Serve up to `limit` events; returns MORE, FINISHED or STOPPED."""
    served = 0
    while served < limit:
        if host.error != 0:
            return STOPPED
        if host.heap_len == 0:
            if nobody_lives(host):
                finish(host)
                return FINISHED
            if host.runnable_count > 0:
                # somebody could run, no pCPU is asked any more: the scheduler let it idle for ever
                fail(host, E_STARVED, SCHED_PICK_NEXT, -1, host.runnable_first)
            else:
                fail(host, E_DEADLOCK, -1, 0, -1)
            return STOPPED
        first = host.event[0]
        time_ns = first.time_ns
        if time_ns >= host.horizon_ns or (host.stop_at_done and host.groups_left == 0):
            finish(host)
            return FINISHED
        if time_ns > host.now:
            host.now = time_ns
            host.decisions_here = 0
            host.zero_time_ops = 0
            host.requests_here = 0
        kind = first.order >> ORDER_BITS
        number = pop(host) - host.kind[kind].base
        if kind == K_PCPU:
            pcpu_event(host, number)
        elif kind == K_THREAD:
            thread_timer(host, number)
        elif kind == K_DEVICE:
            device_event(host, number)
        elif kind == K_TICK:
            tick(host, number)
        elif kind == K_TIMER:
            policy_timer(host, number)
        elif kind == K_MEMORY:
            memory_event(host, number)
        elif kind == K_CONTROL:
            control_event(host, number)
        served += 1
        host.events = host.events + 1
        while (host.resched_first >= 0 or host.outbox_len != 0 or host.outbox_overflow != 0) and host.error == 0:
            if host.outbox_len != 0 or host.outbox_overflow != 0:
                drain(host)
            elif host.resched_first >= 0:
                serve_decision(host)
    return MORE


@jit
def serve_decision(host: Any) -> None:
    """The first pCPU that waits for a decision gets one."""
    p = host.resched_first
    pc = host.pcpu[p]
    host.resched_first = pc.next_resched
    if host.resched_first < 0:
        host.resched_last = -1
    pc.next_resched = -1
    pc.resched = 0
    settle(host, p)
    prev = pc.current
    if prev >= 0:
        e = host.vcpu[prev]
        if e.hold > 0:
            e.wake_pending = 1
            stop(host, p, 0, WHY_COSTOP if e.costop and e.hold == 1 else WHY_FORCED)
        else:
            stop(host, p, 1, preempt_reason(pc.why))
    if pc.offline:
        return
    decide(host, p, prev)
    begin_running(host, p)


@jit
def begin_running(host: Any, p: int) -> None:
    """Let what was put on a pCPU start: it runs until its operation ends, or gives the CPU up at once."""
    while host.error == 0:
        v = host.pcpu[p].current
        if v < 0:
            return
        if keep_running(host, p, v):
            arm_pcpu(host, p)
            return
        decide(host, p, v)


@jit
def keep_running(host: Any, p: int, v: int) -> bool:
    """Do all that takes no time; True if the entity has time to spend, else it has left its pCPU."""
    e = host.vcpu[v]
    if e.kind != VCPU:
        while e.overhead_left_ns <= 0:
            item = take_done(host, v)
            if item < 0:
                stop(host, p, 0, WHY_HALT)
                return False
            w = host.work[item]
            what = w.what
            a = w.a
            b = w.b
            free(host, item)
            work_done(host, v, what, a, b)
        return True
    outcome = advance(host, v)
    if outcome == HALTS:
        # the exit into the hypervisor is paid when the vCPU runs again
        stop(host, p, 0, WHY_HALT)
        e.overhead_left_ns += host.halt_cost_ns
        return False
    if outcome == YIELDS:
        stop(host, p, 1, WHY_PAUSE_LOOP)
        return False
    if outcome == FAULTS:
        e.wake_pending = 1
        stop(host, p, 0, WHY_HOST_FAULT)
        if e.hold == 0:
            wake(host, v)
        return False
    return True


@jit
def pcpu_event(host: Any, p: int) -> None:
    """A pCPU's operation or slice has ended, or it idled on purpose long enough."""
    pc = host.pcpu[p]
    settle(host, p)
    v = pc.current
    if v < 0:
        decide(host, p, -1)
        begin_running(host, p)
        return
    e = host.vcpu[v]
    if need_ns(host, v) == 0 or (e.queue_len > 0 and e.guest_slice_left_ns <= 0):
        if not keep_running(host, p, v):
            decide(host, p, v)
            begin_running(host, p)
            return
    if host.now >= pc.slice_end_ns:
        stop(host, p, 1, WHY_SLICE)
        decide(host, p, v)
        begin_running(host, p)
        return
    arm_pcpu(host, p)


@jit
def policy_timer(host: Any, number: int) -> None:
    """A policy's timer is due."""
    slot = number // TIMERS_PER_SLOT
    timer = number % TIMERS_PER_SLOT
    if slot == SCHEDULER_SLOT:
        ask(host, AXIS_SCHEDULER, SCHED_TIMER, timer, host.now, 0, 0, 0, 0)
    elif slot == STORAGE_SLOT:
        storage_timer(host, timer)
    elif slot == SWITCH_SLOT:
        network_timer(host, timer)
    else:
        memory_timer(host, slot, timer)


@jit
def control_event(host: Any, number: int) -> None:
    """The warm-up ends, a recorded trace begins (again), a host operating system ticks, something fails."""
    if number == 0:
        for p in range(host.pcpus):
            settle(host, p)
        for t in range(host.threads):
            th = host.thread[t]
            if th.due_ns >= 0:
                host.vm[th.vm].backlog_warm_ns += max(0, host.now - th.due_ns)
        return
    if number <= host.groups:
        start_group(host, number - 1)
        return
    if number > host.groups + host.pcpus:
        fault = number - 1 - host.groups - host.pcpus
        fault_event(host, fault >> 1, fault & 1)
        return
    # the tick of a host operating system: it takes its time from whoever runs
    p = number - 1 - host.groups
    arm(host, K_CONTROL, number, host.now + host.host_tick_ns)
    if host.pcpu[p].current >= 0:
        charge(host, host.pcpu[p].current, host.host_tick_cost_ns)


@jit
def finish(host: Any) -> None:
    """The horizon: account what is still going on."""
    if host.stop_at_done == 0:
        host.now = host.horizon_ns
    memory_finish(host)
    for p in range(host.pcpus):
        settle(host, p)
    for t in range(host.threads):
        th = host.thread[t]
        if th.due_ns >= 0:
            host.vm[th.vm].backlog_ns += max(0, host.now - th.due_ns)
    v = host.runnable_first
    while v >= 0:
        e = host.vcpu[v]
        e.ready_ns += max(0, host.now - max(e.runnable_since_ns, host.warmup_ns))
        v = e.next_runnable
    for v in range(host.guest_vcpus):
        if host.vcpu[v].state == COSTOPPED:
            account_costopped(host, v)
