"""Doing what policies asked for: the outbox, holds, timers and ticks."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import digest_call
from hvbench.kernel.ask import AXIS_MEMORY, AXIS_SCHEDULER, AXIS_STORAGE, AXIS_SWITCH, ask
from hvbench.kernel.cpu import LONGEST_NS, request_decision
from hvbench.kernel.devices import io_request
from hvbench.kernel.events import K_TICK, K_TIMER, arm, disarm
from hvbench.kernel.guards import (
    E_BLOCK,
    E_COSTOP,
    E_OUTBOX_FULL,
    E_OUTBOX_KIND,
    E_PCPU_RANGE,
    E_STANDS_STILL,
    E_TIMER,
    E_VCPU_RANGE,
    fail,
)
from hvbench.kernel.holding import hold, release
from hvbench.kernel.hook_rows import SCHED_TICK
from hvbench.kernel.memory_requests import serve_memory
from hvbench.kernel.services import (
    O_BLOCK,
    O_CANCEL,
    O_COSTART,
    O_COSTOP,
    O_FIRST_MEMORY,
    O_FIRST_STORAGE,
    O_KICK,
    O_MIGRATE,
    O_TICK,
    O_TIMER,
    O_UNBLOCK,
    TIMERS_PER_SLOT,
)
from hvbench.state.records import RUNNING, WHY_KICK
from hvbench.state.schema import SCHEDULER_SLOT, STORAGE_SLOT, SWITCH_SLOT

NO_TIME_TIMERS = 100_000
"""So many requests at one instant are a policy that lets time stand still."""


@jit
def drain(host: Any) -> None:
    """Check and do what policies asked for, in order."""
    if host.outbox_overflow != 0:
        fail(host, E_OUTBOX_FULL, host.outbox[0].row, host.outbox_overflow, len(host.outbox))
        return
    at = 0
    while at < host.outbox_len:
        if host.error != 0:
            break
        serve(host, at)
        at += 1
    host.outbox_len = 0
    host.requests_here = host.requests_here + at
    if host.requests_here > NO_TIME_TIMERS:
        fail(host, E_STANDS_STILL, host.outbox[0].row, host.requests_here, -1)


@jit
def axis_of(slot: int) -> int:
    """Axis of a policy's slot."""
    if slot == SCHEDULER_SLOT:
        return AXIS_SCHEDULER
    if slot == STORAGE_SLOT:
        return AXIS_STORAGE
    if slot == SWITCH_SLOT:
        return AXIS_SWITCH
    return AXIS_MEMORY


@jit
def serve(host: Any, at: int) -> None:
    """Check and do one request, which is part of what the axis decided."""
    r = host.outbox[at]
    record = host.axis[axis_of(r.slot_index)]
    record.digest = digest_call(record.digest, r.row, r.what, r.a, r.b, r.c, r.d, 0)
    what = r.what
    a = r.a
    b = r.b
    if what == O_KICK:
        if a < 0 or a >= host.pcpus:
            fail(host, E_PCPU_RANGE, r.row, a, -1)
            return
        request_decision(host, a, WHY_KICK)
    elif what == O_TIMER:
        if a < 0 or a >= TIMERS_PER_SLOT or b < 0:
            fail(host, E_TIMER, r.row, a, b)
            return
        arm(host, K_TIMER, r.slot_index * TIMERS_PER_SLOT + a, max(b, host.now))
    elif what == O_CANCEL:
        if a < 0 or a >= TIMERS_PER_SLOT:
            fail(host, E_TIMER, r.row, a, b)
            return
        disarm(host, K_TIMER, r.slot_index * TIMERS_PER_SLOT + a)
    elif what == O_TICK:
        if a < 0 or a >= host.pcpus or b < 0:
            fail(host, E_PCPU_RANGE, r.row, a, b)
            return
        period = min(b, LONGEST_NS)
        host.pcpu[a].tick_ns = period
        if b == 0:
            disarm(host, K_TICK, a)
        elif host.pcpu[a].current >= 0:
            arm(host, K_TICK, a, host.now + period)
    elif what == O_MIGRATE:
        if a < 0 or a >= host.vcpus:
            fail(host, E_VCPU_RANGE, r.row, a, -1)
            return
        if b < 0 or b >= host.pcpus:
            fail(host, E_PCPU_RANGE, r.row, b, a)
            return
        e = host.vcpu[a]
        if e.state == RUNNING and e.pcpu != b:
            request_decision(host, e.pcpu, WHY_KICK)
        request_decision(host, b, WHY_KICK)
    elif what == O_BLOCK or what == O_UNBLOCK:
        if a < 0 or a >= host.vcpus:
            fail(host, E_VCPU_RANGE, r.row, a, -1)
            return
        e = host.vcpu[a]
        # a bit a policy: several may hold one vCPU, each ends its own hold
        mine = 1 << r.slot_index
        if (what == O_BLOCK) == (e.policy_hold & mine != 0):
            fail(host, E_BLOCK, r.row, a, e.policy_hold & mine)
            return
        if what == O_BLOCK:
            e.policy_hold |= mine
            hold(host, a)
        else:
            e.policy_hold &= ~mine
            release(host, a)
    elif what == O_COSTOP or what == O_COSTART:
        if r.slot_index != SCHEDULER_SLOT:
            fail(host, E_OUTBOX_KIND, r.row, what, a)
            return
        if a < 0 or a >= host.vcpus:
            fail(host, E_VCPU_RANGE, r.row, a, -1)
            return
        e = host.vcpu[a]
        if (what == O_COSTOP) == (e.costop != 0):
            fail(host, E_COSTOP, r.row, a, e.costop)
            return
        if what == O_COSTOP:
            e.costop = 1
            hold(host, a)
        else:
            e.costop = 0
            release(host, a)
    elif what >= O_FIRST_STORAGE:
        io_request(host, at)
    elif what >= O_FIRST_MEMORY and what < O_FIRST_STORAGE:
        serve_memory(host, at)
    else:
        fail(host, E_OUTBOX_KIND, r.row, what, a)


@jit
def tick(host: Any, p: int) -> None:
    """The scheduler's tick on a busy pCPU; it rests while the pCPU idles."""
    pc = host.pcpu[p]
    if pc.current < 0 or pc.tick_ns <= 0:
        return
    arm(host, K_TICK, p, host.now + pc.tick_ns)
    ask(host, AXIS_SCHEDULER, SCHED_TICK, p, pc.current, host.now, 0, 0, 0)
