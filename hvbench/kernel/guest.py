"""The guest: its threads on its vCPUs, and the replay of what they did.

The guest's own scheduler is fixed: a woken thread goes to the vCPU it ran on if that idles, else to an idle vCPU of the
VM, else to the shortest queue; threads of one vCPU take turns. An outside thread (a load generator)
has no vCPU: its compute is think time.

`begin` starts the next operation of a thread and answers
`DONE` (it took no time), `BUSY` (it takes CPU time, `need_ns` says how much), `WAITS` (the thread waits for
somebody), `FAULT` (the vCPU must block until the hypervisor has done something; the operation is begun again then).
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SCHEDULER, ask
from hvbench.kernel.cpu import arm_pcpu, charge, settle
from hvbench.kernel.events import K_CONTROL, K_THREAD, arm
from hvbench.kernel.guards import E_NO_TIME_IN_TRACE, fail
from hvbench.kernel.histogram import H_REQUEST, observe
from hvbench.kernel.hook_rows import SCHED_YIELD
from hvbench.kernel.memory import kernel_thread, memory_op, memory_seam
from hvbench.kernel.network import network_op, receive_timeout, reset_flows
from hvbench.kernel.oom import RESTART_NS, may_restart
from hvbench.kernel.outcome import BUSY, DONE, FAULT, WAITS
from hvbench.kernel.storage import storage_op
from hvbench.kernel.threads import (
    C_FAULT,
    C_IPI,
    C_PORT,
    C_PT,
    C_SWITCH,
    C_SYSCALL,
    C_TIMER,
    end_wait,
    thread_ready,
    wait_for,
)
from hvbench.state.records import (
    RUNNING,
    T_DEAD,
    T_DONE,
    T_KILLED,
    T_NEW,
    T_ON_VCPU,
    T_READY,
    T_WAITING,
    W_BARRIER,
    W_LOCK,
    W_OUTSIDE,
    W_RECV,
    W_TIMER,
    W_WAKE,
)
from hvbench.state.records_memory import EXTENT_PAGES
from hvbench.traces.format import FLAG_BLOCKS, OPS, UNTIL

OP_COMPUTE = OPS["compute"]
OP_ALLOC = OPS["alloc"]
OP_CONTENT = OPS["content"]
OP_BLK_READ = OPS["blk_read"]
OP_BLK_WRITE = OPS["blk_write"]
OP_SEND = OPS["send"]
OP_RECV = OPS["recv"]
OP_WAIT = OPS["wait"]
OP_WAKE = OPS["wake"]
OP_SLEEP = OPS["sleep"]
OP_OUTSIDE = OPS["outside"]
OP_UNKNOWN = OPS["unknown"]
OP_LOCK = OPS["lock"]
OP_UNLOCK = OPS["unlock"]
OP_BARRIER = OPS["barrier"]
OP_MARK_BEGIN = OPS["mark_begin"]
OP_MARK_END = OPS["mark_end"]
OP_UNTIL = UNTIL

OPS_AT_ONE_INSTANT = 50_000_000
"""So many operations without time moving are a trace that takes no time."""

RUNS, HALTS, FAULTS, YIELDS = 0, 1, 2, 3

WALK_REFERENCES, WALK_REFERENCES_LARGE = 24, 19
"""Memory references of a nested page walk, over 4 KiB and over 2 MiB backing."""


# threads and vCPUs ---------------------------------------------------------------------------------------


@jit
def take_ready(host: Any, v: int) -> int:
    """Take the first thread out of a vCPU's queue; -1 if it is empty."""
    e = host.vcpu[v]
    t = e.queue_first
    if t < 0:
        return -1
    th = host.thread[t]
    e.queue_first = th.next_ready
    if e.queue_first < 0:
        e.queue_last = -1
    e.queue_len -= 1
    th.next_ready = -1
    return t


@jit
def pull_ready(host: Any, v: int) -> int:
    """A vCPU that would idle pulls the first thread of its VM's longest queue; -1 if nobody has one too many.

    A sibling's only thread is left alone, as Linux's newidle balance leaves run queues of one task alone
    (kernel/sched/fair.c: a group is overloaded from two on): it was just woken for it, or does not run because the
    hypervisor took its CPU away, which a guest cannot see.
    """
    m = host.vm[host.vcpu[v].vm]
    longest = -1
    most = 1
    for other in range(m.first_vcpu, m.first_vcpu + m.vcpus):
        x = host.vcpu[other]
        load = x.queue_len + (1 if x.current_thread >= 0 else 0)
        if x.queue_len > 0 and load > most:
            most = load
            longest = other
    if longest < 0:
        return -1
    t = take_ready(host, longest)
    host.thread[t].vcpu = v
    return t


@jit
def pick_thread(host: Any, v: int) -> int:
    """Put the next ready thread on a vCPU: its own first, else a sibling's; -1 if there is none."""
    e = host.vcpu[v]
    t = take_ready(host, v)
    if t < 0:
        t = pull_ready(host, v)
        if t < 0:
            return -1
    th = host.thread[t]
    th.state = T_ON_VCPU
    e.current_thread = t
    e.guest_slice_left_ns = host.guest_slice_ns
    return t


@jit
def rotate(host: Any, v: int) -> None:
    """The current thread's slice in the guest is over and somebody waits: to the back of the queue."""
    e = host.vcpu[v]
    t = e.current_thread
    th = host.thread[t]
    th.state = T_READY
    th.next_ready = -1
    host.thread[e.queue_last].next_ready = t
    e.queue_last = t
    e.queue_len += 1
    e.current_thread = -1
    e.overhead_left_ns += max(0, host.guest_switch_ns + host.cost[C_SWITCH].extra_ns)
    pick_thread(host, v)


@jit
def advance(host: Any, v: int) -> int:
    """Run a vCPU's threads up to the next operation that takes time.

    Returns RUNS (there is time to spend), HALTS (no thread is ready), FAULTS (the vCPU must block), YIELDS (it spun for
    so long that it was made to exit).
    """
    e = host.vcpu[v]
    while True:
        t = e.current_thread
        if t < 0:
            t = pick_thread(host, v)
            if t < 0:
                return RUNS if e.overhead_left_ns > 0 else HALTS
        if e.overhead_left_ns > 0:
            return RUNS
        th = host.thread[t]
        if th.in_op:
            if th.overhead_left_ns > 0 or th.work_left_ns > 0:
                if e.queue_len > 0 and e.guest_slice_left_ns <= 0:
                    rotate(host, v)
                    continue
                return RUNS
            if th.spinning:
                if spin_on(host, t, v):
                    return YIELDS
                continue
            finish_compute(host, t)
        outcome = begin(host, t, v)
        if outcome == WAITS:
            e.current_thread = -1
        elif outcome == FAULT:
            return FAULTS
        if host.error != 0:
            return HALTS


@jit
def finish_compute(host: Any, t: int) -> None:
    """The current operation's time has passed: credit it, go to the next."""
    th = host.thread[t]
    if th.recorded_left_ns > 0 and host.now > host.warmup_ns and th.vm >= 0 and not th.outside:
        host.vm[th.vm].work_done_ns += th.recorded_left_ns
    th.recorded_left_ns = 0
    th.in_op = 0
    th.op += 1
    th.op_progress = 0


# operations ----------------------------------------------------------------------------------------------


@jit
def begin(host: Any, t: int, v: int) -> int:
    """Begin the next operation of a thread on vCPU `v` (-1: outside the host)."""
    th = host.thread[t]
    if th.group < 0:
        return kernel_thread(host, t, v)
    if th.op >= th.op_end:
        answer_due(host, t)
        th.state = T_DONE
        thread_done(host, t)
        return WAITS
    host.zero_time_ops = host.zero_time_ops + 1
    if host.zero_time_ops > OPS_AT_ONE_INSTANT:
        fail(host, E_NO_TIME_IN_TRACE, -1, th.op, t)
        return WAITS
    o = host.op[th.op]
    op = o.op
    if op == OP_COMPUTE:
        outcome = begin_compute(host, t, v)
    elif op >= OP_ALLOC and op <= OP_CONTENT:
        outcome = memory_op(host, t, v)
    elif op == OP_SEND or op == OP_RECV:
        outcome = network_op(host, t, v)
    elif op == OP_BLK_READ or op == OP_BLK_WRITE:
        outcome = storage_op(host, t, v)
    else:
        outcome = begin_sync(host, t, v)
    if outcome == DONE:
        th.op += 1
        th.op_progress = 0
    return outcome


@jit
def walk_ppm(host: Any, m: int, ppm: int) -> int:
    """A factor on a VM's time; that of nested page walks is smaller by the share of memory backed by 2 MiB.

    A walk takes up to 24 references, 19 where the hypervisor backs with 2 MiB (hvbench_plugins.technique.hardware). A
    host that does not simulate memory backs with 4 KiB.
    """
    if host.nested_walk == 0 or host.machine[0].frames == 0:
        return ppm
    x = host.vmem[m]
    if x.large == 0:
        return ppm
    shorter = WALK_REFERENCES - WALK_REFERENCES_LARGE
    return ppm - ppm * shorter * x.large * EXTENT_PAGES // (WALK_REFERENCES * x.resident)


@jit
def begin_compute(host: Any, t: int, v: int) -> int:
    """A compute: its time as recorded, and what the technique adds to it."""
    th = host.thread[t]
    o = host.op[th.op]
    user = o.a
    kernel = o.b
    if v < 0:
        th.in_op = 1
        th.state = T_WAITING
        th.waits_for = W_OUTSIDE
        arm(host, K_THREAD, t, host.now + user + kernel)
        return WAITS
    if user + kernel <= 0 and o.x < 0:
        return DONE
    extra = user * walk_ppm(host, th.vm, host.user_factor_ppm) // 1_000_000
    extra += kernel * walk_ppm(host, th.vm, host.kernel_factor_ppm) // 1_000_000
    if o.x >= 0:
        n = host.privileged[o.x]
        c = host.cost
        extra += n.syscalls * c[C_SYSCALL].extra_ns + n.page_faults * c[C_FAULT].extra_ns
        extra += n.pt_updates * c[C_PT].extra_ns + n.context_switches * c[C_SWITCH].extra_ns
        extra += n.timer_programs * c[C_TIMER].extra_ns + n.ipis * c[C_IPI].extra_ns
        extra += n.port_ios * c[C_PORT].extra_ns
    work = user + kernel
    period = host.vm[th.vm].guest_tick_ns
    if period > 0:
        # what the guest's tick does is in the recording; that the hypervisor delivers its interrupt is not
        e = host.vcpu[v]
        e.tick_work_ns += work
        extra += e.tick_work_ns // period * host.timer_fire_cost_ns
        e.tick_work_ns = e.tick_work_ns % period
    th.recorded_left_ns = work
    if extra < 0:
        # cheaper than native (a port access under binary translation): the work itself is shorter
        work = max(0, work + extra)
        extra = 0
    th.overhead_left_ns = extra
    th.work_left_ns = work
    th.in_op = 1
    return BUSY


@jit
def begin_sync(host: Any, t: int, v: int) -> int:
    """Waits, wake-ups, timers, locks, marks."""
    th = host.thread[t]
    o = host.op[th.op]
    op = o.op
    if op == OP_WAIT:
        if th.wakes > 0:
            th.wakes -= 1
            return DONE
        return wait_for(host, t, W_WAKE)
    if op == OP_WAKE:
        peer = host.group[th.group].first_thread + o.x
        p = host.thread[peer]
        if p.state == T_WAITING and p.waits_for == W_WAKE:
            end_wait(host, peer, v)
        else:
            p.wakes += 1
        return DONE
    if op == OP_SLEEP or op == OP_OUTSIDE or op == OP_UNKNOWN:
        if o.a <= 0:
            return DONE
        wait_for(host, t, W_TIMER if op == OP_SLEEP else W_OUTSIDE)
        arm(host, K_THREAD, t, host.now + o.a)
        return WAITS
    if op == OP_UNTIL:
        return begin_due(host, t)
    if op == OP_MARK_BEGIN:
        th.mark_ns = host.now
        return DONE
    if op == OP_MARK_END:
        if th.mark_ns >= 0:
            if host.now > host.warmup_ns:
                host.vm[th.vm].marks += 1
                observe(host, th.vm, H_REQUEST, host.now - th.mark_ns)
            th.mark_ns = -1
        return DONE
    return begin_lock(host, t, v)


@jit
def begin_due(host: Any, t: int) -> int:
    """Open-loop replay: what was due before has been answered; the next is due at its recorded time, or is late."""
    th = host.thread[t]
    answer_due(host, t)
    due = host.group[th.group].loop_start_ns + host.op[th.op].a
    th.due_ns = due
    if due <= host.now:
        return DONE
    wait_for(host, t, W_TIMER)
    arm(host, K_THREAD, t, due)
    return WAITS


@jit
def answer_due(host: Any, t: int) -> None:
    """Open-loop replay: account the response time of what was due."""
    th = host.thread[t]
    if th.due_ns >= 0:
        if host.now > host.warmup_ns:
            host.vm[th.vm].marks += 1
            observe(host, th.vm, H_REQUEST, host.now - th.due_ns)
        th.due_ns = -1


@jit
def begin_lock(host: Any, t: int, v: int) -> int:
    """User-level locks and barriers, where they were recorded."""
    th = host.thread[t]
    o = host.op[th.op]
    k = host.lock[host.group[th.group].first_lock + o.x]
    if o.op == OP_LOCK:
        if k.owner < 0:
            k.owner = t
            return DONE
        queue_on(host, t, k)
        return spin_or_wait(host, t, W_LOCK)
    if o.op == OP_UNLOCK:
        if k.owner == t:
            k.owner = k.first
            if k.first >= 0:
                n = k.first
                k.first = host.thread[n].next_waiter
                if k.first < 0:
                    k.last = -1
                end_lock_wait(host, n, v)
        return DONE
    # a barrier: pages holds the number of threads that meet
    k.count += 1
    if k.count < o.b:
        queue_on(host, t, k)
        return spin_or_wait(host, t, W_BARRIER)
    k.count = 0
    n = k.first
    k.first = -1
    k.last = -1
    while n >= 0:
        after = host.thread[n].next_waiter
        end_lock_wait(host, n, v)
        n = after
    return DONE


@jit
def spin_or_wait(host: Any, t: int, what: int) -> int:
    """A thread that finds a lock held spins first, where the workload says so, then waits."""
    th = host.thread[t]
    spin = host.vm[th.vm].spin_limit_ns
    if spin <= 0 or host.op[th.op].flags & FLAG_BLOCKS:
        return wait_for(host, t, what)
    th.spinning = what
    th.spin_left_ns = spin
    next_spin(host, t)
    return BUSY


@jit
def next_spin(host: Any, t: int) -> None:
    """Spin until the pause-loop window or the guest's own patience ends, whichever is first."""
    th = host.thread[t]
    chunk = th.spin_left_ns
    if host.ple_window_ns > 0 and host.ple_window_ns < chunk:
        chunk = host.ple_window_ns
    th.spin_left_ns -= chunk
    th.overhead_left_ns = chunk
    th.work_left_ns = 0
    th.in_op = 1


@jit
def spin_on(host: Any, t: int, v: int) -> bool:
    """A stretch of spinning is over: True if the vCPU is made to exit (pause-loop exit), else the thread waits."""
    th = host.thread[t]
    if th.spin_left_ns > 0:
        next_spin(host, t)
        lock = host.lock[host.group[th.group].first_lock + host.op[th.op].x]
        target = host.thread[lock.owner].vcpu if lock.owner >= 0 else -1
        host.vcpu[v].overhead_left_ns += host.halt_cost_ns
        ask(host, AXIS_SCHEDULER, SCHED_YIELD, v, target, host.now, 0, 0, 0)
        return True
    what = th.spinning
    th.spinning = 0
    th.in_op = 0
    wait_for(host, t, what)
    host.vcpu[v].current_thread = -1
    return False


@jit
def end_lock_wait(host: Any, t: int, by: int) -> None:
    """A lock or barrier has come to a thread, whether it still spins or already waits."""
    th = host.thread[t]
    if th.spinning == 0:
        end_wait(host, t, by)
        return
    v = th.vcpu
    e = host.vcpu[v]
    running = e.state == RUNNING and e.current_thread == t
    if running:
        settle(host, e.pcpu)
    th.spinning = 0
    th.spin_left_ns = 0
    th.overhead_left_ns = 0
    th.in_op = 0
    th.op += 1
    th.op_progress = 0
    if running:
        arm_pcpu(host, e.pcpu)


@jit
def queue_on(host: Any, t: int, k: Any) -> None:
    """Let a thread wait last at a lock or barrier."""
    host.thread[t].next_waiter = -1
    if k.last >= 0:
        host.thread[k.last].next_waiter = t
    else:
        k.first = t
    k.last = t


@jit
def thread_timer(host: Any, t: int) -> None:
    """A thread's event is due: its timer, its think time, or its turn outside the host."""
    th = host.thread[t]
    if th.state == T_DEAD:
        return
    if th.state == T_WAITING and th.waits_for == W_RECV:
        receive_timeout(host, t)
    if th.outside == 0:
        end_wait(host, t, -1)
        charge(host, th.vcpu, host.timer_fire_cost_ns)
        return
    if th.state == T_WAITING:
        th.in_op = 0
        th.op += 1
        th.op_progress = 0
    th.state = T_ON_VCPU
    while begin(host, t, -1) == DONE:
        if host.error != 0:
            return


# the seam ------------------------------------------------------------------------------------------------


@jit
def thread_done(host: Any, t: int) -> None:
    """A thread replayed its last operation; when all of its group have, the trace begins again."""
    g = host.group[host.thread[t].group]
    g.done += 1
    if g.done == g.threads:
        if g.loops == 0:
            g.first_loop_ns = host.now
            host.groups_left = host.groups_left - 1
        g.loops += 1
        if g.seam_ns == host.now:
            fail(host, E_NO_TIME_IN_TRACE, -1, g.loops, t)
            return
        g.seam_ns = host.now
        arm(host, K_CONTROL, 1 + host.thread[t].group, host.now)


@jit
def start_group(host: Any, number: int) -> None:
    """All threads of a recorded trace begin at their first operation."""
    g = host.group[number]
    if g.killed:
        if not may_restart(host, number):
            arm(host, K_CONTROL, 1 + number, host.now + RESTART_NS)
            return
        g.killed = 0
        memory_seam(host, number)
    elif g.loops > 0:
        memory_seam(host, number)
    g.done = 0
    g.loop_start_ns = host.now
    reset_flows(host, number)
    for k in range(g.first_lock, g.first_lock + g.locks):
        x = host.lock[k]
        x.owner = -1
        x.first = -1
        x.last = -1
        x.count = 0
    for t in range(g.first_thread, g.first_thread + g.threads):
        th = host.thread[t]
        th.op = th.op_first
        th.op_progress = 0
        th.in_op = 0
        th.wakes = 0
        th.work_left_ns = 0
        th.overhead_left_ns = 0
        th.recorded_left_ns = 0
        th.mark_ns = -1
        th.spinning = 0
        if th.state == T_KILLED:
            th.state = T_NEW
    for t in range(g.first_thread, g.first_thread + g.threads):
        thread_ready(host, t, -1)

