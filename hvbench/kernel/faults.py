"""Faults that a workload states: a guest dies, a driver domain stops, the host OS or the hypervisor dies, a pCPU goes.

Who shares the fate (model.md): a guest's fault is its own. A driver domain's (type 1) stops I/O until it
restarts; CPU-bound guests go on. The host OS of a type 2 takes all down; there is none under a type 1. The
hypervisor takes all down, on both.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SCHEDULER, AXIS_SWITCH, ask, tell
from hvbench.kernel.control import hold, release
from hvbench.kernel.cpu import request_decision, set_idle, settle, stop
from hvbench.kernel.events import K_PCPU, K_TICK, disarm
from hvbench.kernel.hook_rows import NET_PORT_DEL, SCHED_PCPU_OFFLINE, SCHED_PCPU_ONLINE, SCHED_VCPU_REMOVE
from hvbench.state.records import HOST_THREAD, RUNNING, T_DEAD, WHY_FORCED

F_GUEST, F_DRIVER, F_HOST_OS, F_HYPERVISOR, F_PCPU = range(5)
FAULTS = ("guest", "driver", "host-os", "hypervisor", "pcpu")


@jit
def fault_event(host: Any, number: int, ends: int) -> None:
    """Fault `number` happens, or what it stopped restarts."""
    f = host.fault[number]
    if f.kind == F_GUEST:
        kill_vm(host, f.target)
    elif f.kind == F_DRIVER:
        stop_host_threads(host, ends)
    elif f.kind == F_HYPERVISOR or (f.kind == F_HOST_OS and host.hosted):
        for m in range(host.vms):
            kill_vm(host, m)
    elif f.kind == F_PCPU:
        if ends:
            pcpu_online(host, f.target)
        else:
            pcpu_offline(host, f.target)


@jit
def kill_vm(host: Any, m: int) -> None:
    """A VM is gone: its threads never run again, its vCPUs leave the scheduler."""
    x = host.vm[m]
    if x.crashed:
        return
    x.crashed = 1
    for t in range(host.threads):
        th = host.thread[t]
        if th.vm == m:
            th.state = T_DEAD
    for v in range(x.first_vcpu, x.first_vcpu + x.vcpus):
        e = host.vcpu[v]
        if e.state == RUNNING:
            # what it ran until now was its threads' work
            settle(host, e.pcpu)
        e.current_thread = -1
        e.queue_first = -1
        e.queue_last = -1
        e.queue_len = 0
        e.overhead_left_ns = 0
        if e.state == RUNNING:
            p = e.pcpu
            stop(host, p, 0, WHY_FORCED)
            request_decision(host, p, WHY_FORCED)
        hold(host, v)
        e.wake_pending = 0
        ask(host, AXIS_SCHEDULER, SCHED_VCPU_REMOVE, v, host.now, 0, 0, 0, 0)
    tell(host, AXIS_SWITCH, NET_PORT_DEL, m, host.now)


@jit
def nobody_lives(host: Any) -> bool:
    """Whether faults have killed every VM: time goes on to the horizon, although nothing happens any more."""
    for m in range(host.vms):
        if not host.vm[m].crashed:
            return False
    return True


@jit
def stop_host_threads(host: Any, ends: int) -> None:
    """The driver domain's threads stop, or go on with what was queued."""
    for v in range(host.guest_vcpus, host.vcpus):
        if host.vcpu[v].kind == HOST_THREAD:
            if ends:
                release(host, v)
            else:
                hold(host, v)


@jit
def pcpu_offline(host: Any, p: int) -> None:
    """A pCPU leaves: what ran there is runnable again, and it is asked no more."""
    pc = host.pcpu[p]
    if pc.offline:
        return
    settle(host, p)
    if pc.current >= 0:
        stop(host, p, 1, WHY_FORCED)
    pc.offline = 1
    set_idle(host, p, 0)
    disarm(host, K_TICK, p)
    # it may have idled on purpose for a while
    disarm(host, K_PCPU, p)
    ask(host, AXIS_SCHEDULER, SCHED_PCPU_OFFLINE, p, host.now, 0, 0, 0, 0)
    for other in range(host.pcpus):
        # somebody has to take over what ran here
        if host.pcpu[other].current < 0 and not host.pcpu[other].offline:
            request_decision(host, other, WHY_FORCED)


@jit
def pcpu_online(host: Any, p: int) -> None:
    """A pCPU is back."""
    pc = host.pcpu[p]
    if not pc.offline:
        return
    settle(host, p)
    pc.offline = 0
    set_idle(host, p, 1)
    ask(host, AXIS_SCHEDULER, SCHED_PCPU_ONLINE, p, host.now, 0, 0, 0, 0)
    request_decision(host, p, WHY_FORCED)
