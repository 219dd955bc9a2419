"""The virtual switch: forwarding, queues at ports, delivery.

A port's queue leads to its device: a VM's to the host thread that emulates its NIC (or straight to the guest where
nothing emulates), an uplink's to its physical link.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SWITCH, ask
from hvbench.kernel.frames import count_delivered, filter_frame, free_frame, link_start, new_frame
from hvbench.kernel.guards import E_PORT_RANGE, fail
from hvbench.kernel.hook_rows import NET_DEQUEUE, NET_ENQUEUE, NET_FORWARD, NET_SELECT_UPLINK
from hvbench.kernel.sockets import arrive, drop
from hvbench.kernel.work import submit
from hvbench.kernel.work_kinds import WORK_FRAME_RX
from hvbench.state.records_io import (
    F_QUEUED,
    F_RX,
    FRAME_COPY,
    FRAME_DATA,
    FRAME_EMITTED,
    FRAME_STORAGE,
    PORT_UPLINK,
)

DROP, FLOOD = -1, -2


@jit
def attached(host: Any, p: int) -> bool:
    """True for a port of the switch: a VM's, or an uplink that belongs to it."""
    return p >= 0 and p < host.io[0].first_uplink + host.io[0].attached_uplinks


@jit
def select_uplink(host: Any, in_port: int, half: int) -> int:
    """The uplink's port for a frame to the outside, -1 and an error for an answer that is none."""
    io = host.io[0]
    uplinks = io.links // 2
    if half >= 0:
        uplinks = io.attached_uplinks
    if uplinks == 0:
        return -1
    default = in_port % uplinks if in_port >= 0 else 0
    u = ask(host, AXIS_SWITCH, NET_SELECT_UPLINK, in_port, half, uplinks, host.now, 0, default)
    if u < 0 or u >= uplinks:
        fail(host, E_PORT_RANGE, NET_SELECT_UPLINK, u, in_port)
        return -1
    return io.first_uplink + u


@jit
def forward(host: Any, f: int, in_port: int) -> None:
    """A frame came in at a port: ask where it goes, and queue it there."""
    fr = host.frame[f]
    fr.in_port = in_port
    if fr.half >= 0:
        x = host.half[fr.half]
        if x.target >= 0:
            fr.target_port = x.target
        else:
            fr.target_port = select_uplink(host, in_port, fr.half)
            if fr.target_port >= 0:
                x.uplink = fr.target_port
                host.half[fr.half ^ 1].uplink = fr.target_port
    p = ask(host, AXIS_SWITCH, NET_FORWARD, f, in_port, host.now, 0, 0, fr.target_port)
    if p == FLOOD:
        flood(host, f, in_port)
        return
    if p == DROP:
        drop(host, f)
        return
    if not attached(host, p):
        fail(host, E_PORT_RANGE, NET_FORWARD, p, f)
        drop(host, f)
        return
    enqueue(host, f, p)


@jit
def flood(host: Any, f: int, in_port: int) -> None:
    """Copies to every other port; the frame itself to where its receiver is, last."""
    fr = host.frame[f]
    target = fr.target_port
    for p in range(host.io[0].first_uplink + host.io[0].attached_uplinks):
        if p in (in_port, target) or full(host, f, p):
            continue
        copy = new_frame(host, FRAME_COPY, -1, fr.payload)
        if copy < 0:
            return
        host.frame[copy].wire_bytes = fr.wire_bytes
        host.frame[copy].segments = fr.segments
        host.frame[copy].in_port = in_port
        host.frame[copy].target_port = target
        enqueue(host, copy, p)
    if target >= 0:
        enqueue(host, f, target)
    else:
        drop(host, f)


@jit
def slots_of(host: Any, f: int, p: int) -> int:
    """Places that a frame takes in a port's queue: a physical card counts its segments."""
    return host.frame[f].segments if host.port[p].kind == PORT_UPLINK else 1


@jit
def full(host: Any, f: int, p: int) -> bool:
    """True if a port's queue has no room for a frame. An empty queue always has."""
    x = host.port[p]
    return x.queue_len > 0 and x.queue_slots + slots_of(host, f, p) > x.limit


@jit
def enqueue(host: Any, f: int, p: int) -> None:
    """Let a frame into a port's queue, or drop it."""
    fr = host.frame[f]
    x = host.port[p]
    no_room = full(host, f, p) and fr.kind != FRAME_STORAGE
    taken = ask(host, AXIS_SWITCH, NET_ENQUEUE, f, p, host.now, 0, 0, 0 if no_room else 1)
    if no_room or taken == 0:
        x.drops += 1
        drop(host, f)
        return
    fr.state = F_QUEUED
    fr.port = p
    fr.queued_ns = host.now
    fr.next = -1
    fr.previous = x.queue_last
    if x.queue_last >= 0:
        host.frame[x.queue_last].next = f
    else:
        x.queue_first = f
    x.queue_last = f
    x.queue_len += 1
    x.queue_slots += slots_of(host, f, p)
    serve_port(host, p)


@jit
def unqueue_frame(host: Any, f: int, p: int) -> None:
    """Take a waiting frame out of its port's queue."""
    fr = host.frame[f]
    x = host.port[p]
    if fr.previous >= 0:
        host.frame[fr.previous].next = fr.next
    else:
        x.queue_first = fr.next
    if fr.next >= 0:
        host.frame[fr.next].previous = fr.previous
    else:
        x.queue_last = fr.previous
    fr.next = -1
    fr.previous = -1
    x.queue_len -= 1
    x.queue_slots -= slots_of(host, f, p)


@jit
def frame_cost_ns(host: Any, f: int) -> int:
    """A host thread's time for a frame."""
    io = host.io[0]
    return io.net_frame_ns + (host.frame[f].payload * io.net_kib_ns >> 10)


@jit
def serve_port(host: Any, p: int) -> None:
    """Hand waiting frames to a port's device while that is free."""
    x = host.port[p]
    while x.service < 0 and x.queue_first >= 0 and host.error == 0:
        if x.kind == PORT_UPLINK and host.link[x.link].service >= 0:
            return
        f = ask(host, AXIS_SWITCH, NET_DEQUEUE, p, host.now, 0, 0, 0, x.queue_first)
        if f == -1:
            return
        if f < 0 or f >= len(host.frame) or host.frame[f].state != F_QUEUED or host.frame[f].port != p:
            fail(host, E_PORT_RANGE, NET_DEQUEUE, f, p)
            return
        unqueue_frame(host, f, p)
        x.frames += 1
        x.bytes += host.frame[f].payload
        if x.kind == PORT_UPLINK:
            link_start(host, x.link, f)
            return
        cost = frame_cost_ns(host, f)
        if x.thread >= 0 and cost > 0:
            host.frame[f].state = F_RX
            x.service = f
            submit(host, x.thread, cost, WORK_FRAME_RX, f, p)
            return
        deliver(host, f, p)


@jit
def deliver(host: Any, f: int, p: int) -> None:
    """A frame has reached what is behind port `p`."""
    fr = host.frame[f]
    fr.port = -1
    if fr.kind == FRAME_COPY:
        filter_frame(host, f)
    elif fr.kind == FRAME_EMITTED:
        count_delivered(host, f)
        free_frame(host, f)
    elif fr.kind == FRAME_DATA:
        right = host.half[fr.half].target
        if right == p or (right < 0 and p >= host.io[0].first_uplink):
            arrive(host, f)
        else:
            drop(host, f)


@jit
def emit(host: Any, p: int, payload: int) -> None:
    """A policy sends a frame of its own out of a port."""
    f = new_frame(host, FRAME_EMITTED, -1, payload)
    if f >= 0:
        host.frame[f].target_port = p
        enqueue(host, f, p)
