"""Guest threads that wait and become ready: what guest, memory, storage and network share."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.cpu import arm_pcpu, settle, wake
from hvbench.kernel.events import K_THREAD, arm
from hvbench.kernel.outcome import WAITS
from hvbench.state.records import (
    BLOCKED,
    N_PRIVILEGED,
    PRIVILEGED,
    RUNNING,
    T_DEAD,
    T_KILLED,
    T_READY,
    T_WAITING,
    W_NONE,
)

C_SYSCALL, C_FAULT, C_PT, C_SWITCH, C_TIMER, C_IPI, C_PORT = range(N_PRIVILEGED)
assert PRIVILEGED[C_IPI] == "ipis" and PRIVILEGED[C_SWITCH] == "context_switches"


@jit
def choose_vcpu(host: Any, t: int) -> int:
    """The vCPU that a ready thread goes to."""
    th = host.thread[t]
    m = host.vm[th.vm]
    first = m.first_vcpu
    last = th.vcpu
    if last < 0:
        last = first + (t - m.first_thread) % m.vcpus
    e = host.vcpu[last]
    best = last
    load = e.queue_len + (1 if e.current_thread >= 0 else 0)
    if load == 0:
        return last
    for v in range(first, first + m.vcpus):
        x = host.vcpu[v]
        here = x.queue_len + (1 if x.current_thread >= 0 else 0)
        if here < load:
            best = v
            load = here
            if here == 0:
                break
    return best


@jit
def thread_ready(host: Any, t: int, by: int) -> None:
    """A guest thread can go on; `by` is the vCPU that made it so, -1 for a device or a timer."""
    th = host.thread[t]
    if th.state == T_DEAD:
        return
    if th.state == T_KILLED:
        # the last that knew it has let go
        th.waits_for = W_NONE
        return
    if th.outside:
        th.state = T_READY
        arm(host, K_THREAD, t, host.now)
        return
    th.state = T_READY
    v = choose_vcpu(host, t)
    th.vcpu = v
    th.next_ready = -1
    e = host.vcpu[v]
    if e.queue_len == 0:
        e.queue_first = t
    else:
        host.thread[e.queue_last].next_ready = t
    e.queue_last = t
    e.queue_len += 1
    if e.state == BLOCKED:
        if by >= 0 and by != v:
            # waking a halted vCPU takes an interrupt, which the waker sends; a device's or a timer's is charged there
            host.vcpu[by].overhead_left_ns += max(0, host.ipi_cost_ns + host.cost[C_IPI].extra_ns)
            e.overhead_left_ns += host.wake_cost_ns
        wake(host, v)
    elif e.state == RUNNING and e.queue_len == 1 and e.current_thread >= 0:
        settle(host, e.pcpu)
        arm_pcpu(host, e.pcpu)


@jit
def wait_for(host: Any, t: int, what: int) -> int:
    """The thread waits; its operation is over when somebody ends the wait."""
    th = host.thread[t]
    th.state = T_WAITING
    th.waits_for = what
    return WAITS


@jit
def end_wait(host: Any, t: int, by: int) -> None:
    """What a thread waited for has come: its operation is done, it is ready."""
    th = host.thread[t]
    th.in_op = 0
    th.recorded_left_ns = 0
    th.op += 1
    th.op_progress = 0
    thread_ready(host, t, by)
