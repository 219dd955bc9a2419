"""A guest without memory: its balloon gives back, or a process dies and its recording begins again.

Nothing can be given up and nothing is on its way out. Where the balloon driver deflates on OOM, it gives back up to
DEFLATE_PAGES first, and forgets its target until the hypervisor names another one. Else the process with most
memory in the guest is killed: its memory is free at once, and its threads do nothing more. What was recorded
together (those whom it wakes, who share its locks and connections) cannot go on without it: as under a supervisor
that restarts a whole service, all of its recording stops, and begins again at its first operation RESTART_NS later.
The pass that was under way is lost: what it would have completed is not counted.

Sources: Linux mm/oom_kill.c (the largest dies); drivers/virtio/virtio_balloon.c 6.6
(VIRTIO_BALLOON_F_DEFLATE_ON_OOM, VIRTIO_BALLOON_OOM_NR_PAGES 256; the target is read again when the host changes
it); systemd.service(5), RestartSec=100ms.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.cpu import arm_pcpu, settle
from hvbench.kernel.events import K_CONTROL, K_THREAD, arm, disarm
from hvbench.kernel.guest_memory import exit_process
from hvbench.kernel.guest_thread import leak
from hvbench.kernel.network import reset_flows
from hvbench.state.records import (
    RUNNING,
    T_DEAD,
    T_DONE,
    T_KILLED,
    T_NEW,
    T_ON_VCPU,
    T_READY,
    T_WAITING,
    W_DISK,
    W_MEMORY,
    W_NONE,
)
from hvbench.state.records_memory import ANON

DEFLATE_PAGES = 256
RESTART_NS = 100_000_000


@jit
def out_of_memory(host: Any, m: int) -> None:
    """The event of a guest without memory."""
    x = host.vmem[m]
    x.oom_due = 0
    if x.free > x.min or (x.writing > 0 and x.free > 0) or host.vm[m].crashed:
        return
    if host.machine[0].deflate_on_oom and x.ballooned > 0:
        pages = min(DEFLATE_PAGES, x.ballooned)
        leak(host, m, pages)
        x.balloon_target = x.ballooned
        if host.now >= host.warmup_ns:
            x.oom_deflated_pages += pages
        return
    o = largest(host, m)
    if o < 0:
        return
    if host.now >= host.warmup_ns:
        x.oom_kills += 1
    group = host.object[o].group
    stop_group(host, group)
    exit_process(host, group, host.object[o].process)


@jit
def largest(host: Any, m: int) -> int:
    """An object of the process with the most memory in a guest; -1 if nobody has any."""
    x = host.vmem[m]
    best = -1
    most = 0
    for o in range(x.first_object, x.first_object + x.objects):
        y = host.object[o]
        if y.kind == ANON and y.group >= 0:
            total = 0
            for i in range(x.first_object, x.first_object + x.objects):
                z = host.object[i]
                if z.kind == ANON and z.group == y.group and z.process == y.process:
                    total += z.resident
            if total > most:
                most = total
                best = o
    return best


@jit
def stop_group(host: Any, number: int) -> None:
    """No thread of a recording does anything more; it begins again when its last disk operations are over."""
    g = host.group[number]
    for t in range(g.first_thread, g.first_thread + g.threads):
        stop_thread(host, t)
    reset_flows(host, number)
    g.killed = 1
    arm(host, K_CONTROL, 1 + number, host.now + RESTART_NS)


@jit
def stop_thread(host: Any, t: int) -> None:
    """A thread leaves wherever it is; only a disk operation that it waits for still knows it."""
    th = host.thread[t]
    state = th.state
    if state == T_DEAD or state == T_KILLED:
        return
    disarm(host, K_THREAD, t)
    waits = W_NONE
    if th.outside == 0:
        if state == T_ON_VCPU:
            leave_vcpu(host, t)
        elif state == T_READY:
            leave_queue(host, t)
        elif state == T_WAITING:
            if th.waits_for == W_MEMORY:
                leave_memory_queue(host, t)
            elif th.waits_for == W_DISK:
                waits = W_DISK
    if state == T_NEW or state == T_DONE:
        waits = W_NONE
    th.state = T_KILLED
    th.waits_for = waits
    th.in_op = 0
    th.spinning = 0
    th.spin_left_ns = 0
    th.work_left_ns = 0
    th.overhead_left_ns = 0
    th.recorded_left_ns = 0
    th.mark_ns = -1
    th.due_ns = -1


@jit
def leave_vcpu(host: Any, t: int) -> None:
    """Take a thread off the vCPU that executes it, which goes on with the next one."""
    v = host.thread[t].vcpu
    e = host.vcpu[v]
    if e.current_thread != t:
        return
    if e.state == RUNNING:
        settle(host, e.pcpu)
    e.current_thread = -1
    if e.state == RUNNING:
        arm_pcpu(host, e.pcpu)


@jit
def leave_queue(host: Any, t: int) -> None:
    """Take a ready thread out of its vCPU's queue."""
    e = host.vcpu[host.thread[t].vcpu]
    before = -1
    at = e.queue_first
    while at >= 0 and at != t:
        before = at
        at = host.thread[at].next_ready
    if at < 0:
        return
    after = host.thread[t].next_ready
    if before < 0:
        e.queue_first = after
    else:
        host.thread[before].next_ready = after
    if after < 0:
        e.queue_last = before
    e.queue_len -= 1
    host.thread[t].next_ready = -1


@jit
def leave_memory_queue(host: Any, t: int) -> None:
    """Take a thread out of the queue of those that wait for a page."""
    x = host.vmem[host.thread[t].vm]
    before = -1
    at = x.waiter_first - 1
    while at >= 0 and at != t:
        before = at
        at = host.thread[at].next_waiter
    if at < 0:
        return
    after = host.thread[t].next_waiter
    if before < 0:
        x.waiter_first = after + 1
    else:
        host.thread[before].next_waiter = after
    if after < 0:
        x.waiter_last = before + 1
    host.thread[t].next_waiter = -1


@jit
def may_restart(host: Any, number: int) -> bool:
    """Whether no disk operation knows a thread of a stopped recording any more."""
    g = host.group[number]
    for t in range(g.first_thread, g.first_thread + g.threads):
        th = host.thread[t]
        if th.state == T_KILLED and th.waits_for == W_DISK:
            return False
    return True
