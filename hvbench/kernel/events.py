"""The event heap: a binary heap over event slots, each slot armed at most once.

Every thing that can be due (a pCPU's segment, a thread's timer, a device's completion ...) owns one event
slot. Arming an armed slot moves it, so that there are no cancelled entries, and the heap never holds more than one
entry a slot. The order is total: (time, kind, sequence of arming).
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit

# kinds, in the order in which they are served at one instant
K_CONTROL, K_DEVICE, K_THREAD, K_TIMER, K_MEMORY, K_TICK, K_PCPU = range(7)
KINDS = ("control", "device", "thread", "policy timer", "memory", "tick", "pcpu")
ORDER_BITS = 48


@jit
def slot_of(host: Any, kind: int, number: int) -> int:
    """Event slot of thing `number` of a kind."""
    return host.kind[kind].base + number


@jit
def armed(host: Any, slot: int) -> bool:
    """True while the slot has an entry in the heap."""
    return host.position[slot].at >= 0


@jit
def _sift_up(host: Any, at: int, time_ns: int, order: int, slot: int) -> None:
    while at > 0:
        parent = (at - 1) >> 1
        p = host.event[parent]
        p_time = p.time_ns
        p_order = p.order
        if p_time < time_ns or (p_time == time_ns and p_order < order):
            break
        p_slot = p.slot
        e = host.event[at]
        e.time_ns = p_time
        e.order = p_order
        e.slot = p_slot
        host.position[p_slot].at = at
        at = parent
    e = host.event[at]
    e.time_ns = time_ns
    e.order = order
    e.slot = slot
    host.position[slot].at = at


@jit
def _sift_down(host: Any, at: int, time_ns: int, order: int, slot: int) -> None:
    length = host.heap_len
    child = 2 * at + 1
    while child < length:
        c = host.event[child]
        c_time = c.time_ns
        c_order = c.order
        other = child + 1
        if other < length:
            o = host.event[other]
            o_time = o.time_ns
            o_order = o.order
            if o_time < c_time or (o_time == c_time and o_order < c_order):
                child = other
                c_time = o_time
                c_order = o_order
        if time_ns < c_time or (time_ns == c_time and order < c_order):
            break
        c_slot = host.event[child].slot
        e = host.event[at]
        e.time_ns = c_time
        e.order = c_order
        e.slot = c_slot
        host.position[c_slot].at = at
        at = child
        child = 2 * at + 1
    e = host.event[at]
    e.time_ns = time_ns
    e.order = order
    e.slot = slot
    host.position[slot].at = at


@jit
def arm(host: Any, kind: int, number: int, time_ns: int) -> None:
    """Have thing `number` of a kind served at `time_ns`, wherever its entry was before."""
    slot = host.kind[kind].base + number
    sequence = host.sequence + 1
    host.sequence = sequence
    order = (kind << ORDER_BITS) | sequence
    at = host.position[slot].at
    if at < 0:
        at = host.heap_len
        host.heap_len = at + 1
        _sift_up(host, at, time_ns, order, slot)
    else:
        e = host.event[at]
        e_time = e.time_ns
        if time_ns < e_time:
            _sift_up(host, at, time_ns, order, slot)
        else:
            # the sequence only grows: at an equal time the entry moves back
            _sift_down(host, at, time_ns, order, slot)


@jit
def disarm(host: Any, kind: int, number: int) -> None:
    """Take the entry of thing `number` of a kind out of the heap, if it has one."""
    slot = host.kind[kind].base + number
    at = host.position[slot].at
    if at >= 0:
        _take(host, at)


@jit
def _take(host: Any, at: int) -> None:
    slot = host.event[at].slot
    host.position[slot].at = -1
    last = host.heap_len - 1
    host.heap_len = last
    if at == last:
        return
    e = host.event[last]
    time_ns = e.time_ns
    order = e.order
    moved = e.slot
    if at > 0:
        p = host.event[(at - 1) >> 1]
        if time_ns < p.time_ns or (time_ns == p.time_ns and order < p.order):
            _sift_up(host, at, time_ns, order, moved)
            return
    _sift_down(host, at, time_ns, order, moved)


@jit
def pop(host: Any) -> int:
    """Take the earliest entry out; returns its event slot. The heap is not empty."""
    slot = host.event[0].slot
    _take(host, 0)
    return slot
