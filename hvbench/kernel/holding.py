"""Keeping an entity from running: for a policy, or until the hypervisor has done something for it."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SCHEDULER, ask
from hvbench.kernel.cpu import request_decision, runq_remove, wake
from hvbench.kernel.hook_rows import SCHED_SLEEP
from hvbench.state.records import BLOCKED, RUNNABLE, RUNNING, WHY_FORCED


@jit
def hold(host: Any, v: int) -> None:
    """Keep an entity from running; several reasons add up."""
    e = host.vcpu[v]
    e.hold += 1
    if e.state == RUNNING:
        request_decision(host, e.pcpu, WHY_FORCED)
    elif e.state == RUNNABLE:
        runq_remove(host, v)
        e.state = BLOCKED
        e.wake_pending = 1
        if host.now > host.warmup_ns:
            e.ready_ns += host.now - max(e.runnable_since_ns, host.warmup_ns)
        ask(host, AXIS_SCHEDULER, SCHED_SLEEP, v, host.now, 0, 0, 0, 0)


@jit
def release(host: Any, v: int) -> None:
    """End one reason for which an entity must not run; with the last, it is woken if it has something to do."""
    e = host.vcpu[v]
    e.hold -= 1
    if e.hold == 0 and e.wake_pending:
        wake(host, v)
