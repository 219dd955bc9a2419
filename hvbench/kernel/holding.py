"""Keeping an entity from running: for a policy, or until the hypervisor has done something for it."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SCHEDULER, ask
from hvbench.kernel.cpu import request_decision, runq_remove, wake
from hvbench.kernel.hook_rows import SCHED_SLEEP
from hvbench.state.records import BLOCKED, COSTOPPED, RUNNABLE, RUNNING, WHY_FORCED


@jit
def hold(host: Any, v: int) -> None:
    """Keep an entity from running; several reasons add up."""
    e = host.vcpu[v]
    e.hold += 1
    if e.state == RUNNING:
        request_decision(host, e.pcpu, WHY_FORCED)
    elif e.state == RUNNABLE:
        runq_remove(host, v)
        if host.now > host.warmup_ns:
            e.ready_ns += host.now - max(e.runnable_since_ns, host.warmup_ns)
        e.state = COSTOPPED if e.costop and e.hold == 1 else BLOCKED
        e.runnable_since_ns = host.now
        e.wake_pending = 1
        ask(host, AXIS_SCHEDULER, SCHED_SLEEP, v, host.now, 0, 0, 0, 0)
    elif e.state == COSTOPPED:
        end_costopped(host, v)


@jit
def account_costopped(host: Any, v: int) -> None:
    """Account the time that an entity has been co-stopped until now."""
    e = host.vcpu[v]
    if host.now > host.warmup_ns:
        e.costopped_ns += host.now - max(e.runnable_since_ns, host.warmup_ns)


@jit
def end_costopped(host: Any, v: int) -> None:
    """An entity is not co-stopped any more, or has a second reason not to run."""
    account_costopped(host, v)
    host.vcpu[v].state = BLOCKED


@jit
def release(host: Any, v: int) -> None:
    """End one reason for which an entity must not run; with the last, it is woken if it has something to do."""
    e = host.vcpu[v]
    e.hold -= 1
    if e.state == COSTOPPED:
        end_costopped(host, v)
    if e.hold == 0 and e.wake_pending:
        wake(host, v)
    elif e.hold == 1 and e.costop and e.wake_pending:
        e.state = COSTOPPED
        e.runnable_since_ns = host.now
