"""Frames: where they come from, what becomes of them, and the physical links that carry them.

A frame is in exactly one of FRAME_STATES, and every transmission ends as delivered, dropped, filtered (a flooded
copy that reached somebody else) or discarded (its recording's pass is over): the sums stand in table io.

A link transmits one frame at a time and hands it to the wire, which delivers in order after a constant time. The
receiving link stands for the physical switch's port towards the host: its buffer is bounded.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.events import K_DEVICE, arm
from hvbench.kernel.guards import E_CAPACITY, fail
from hvbench.state.records_io import (
    F_FREE,
    F_QUEUED,
    F_SENDING,
    F_WIRE,
    FRAME_ACK,
    FRAME_STORAGE,
    PROTO_UDP,
)

UDP_SAVES_BYTES = 24
"""A UDP header (8 bytes) is so much shorter than a TCP header with time stamps (32 bytes)."""


@jit
def new_frame(host: Any, kind: int, half: int, payload: int) -> int:
    """A frame of `payload` bytes, not yet anywhere; -1 and an error if there is none left."""
    io = host.io[0]
    f = io.frame_free
    if f < 0:
        fail(host, E_CAPACITY, -1, len(host.frame), half)
        return -1
    fr = host.frame[f]
    io.frame_free = fr.next
    fr.kind = kind
    fr.half = half
    fr.request = -1
    fr.payload = payload
    set_wire(host, f)
    fr.seq = 0
    fr.generation = host.half[half].generation if half >= 0 else 0
    fr.in_port = -1
    fr.target_port = -1
    fr.port = -1
    fr.sent_ns = host.now
    fr.again = 0
    fr.next = -1
    fr.previous = -1
    if kind != FRAME_ACK:
        io.frames_sent += 1
        io.bytes_sent += payload
    return f


@jit
def set_wire(host: Any, f: int) -> None:
    """Segments and bytes that a frame takes on a physical link."""
    io = host.io[0]
    fr = host.frame[f]
    size = io.mss_bytes
    overhead = io.segment_overhead_bytes
    if fr.half >= 0 and host.half[fr.half].proto == PROTO_UDP:
        size = io.datagram_bytes
        overhead -= UDP_SAVES_BYTES
    fr.segments = max(1, -(-fr.payload // size))
    fr.wire_bytes = fr.payload + fr.segments * overhead


@jit
def free_frame(host: Any, f: int) -> None:
    """Give a frame back."""
    fr = host.frame[f]
    fr.state = F_FREE
    fr.port = -1
    fr.previous = -1
    fr.next = host.io[0].frame_free
    host.io[0].frame_free = f


@jit
def count_delivered(host: Any, f: int) -> None:
    """A frame reached its receiver."""
    io = host.io[0]
    io.frames_delivered += 1
    io.bytes_delivered += host.frame[f].payload


@jit
def count_dropped(host: Any, f: int) -> None:
    """A frame was dropped."""
    io = host.io[0]
    io.frames_dropped += 1
    io.bytes_dropped += host.frame[f].payload


@jit
def filter_frame(host: Any, f: int) -> None:
    """A flooded copy reached somebody whom it does not concern."""
    io = host.io[0]
    io.frames_filtered += 1
    io.bytes_filtered += host.frame[f].payload
    free_frame(host, f)


@jit
def discard_frame(host: Any, f: int) -> None:
    """A frame arrived after its recording's pass was over."""
    io = host.io[0]
    io.frames_discarded += 1
    io.bytes_discarded += host.frame[f].payload
    free_frame(host, f)


# links ---------------------------------------------------------------------------------------------------


@jit
def link_event_number(host: Any, link: int) -> int:
    """Number of the event slot of a link's transmitter; the wire's follows."""
    return host.io[0].requests + 2 * link


@jit
def link_start(host: Any, link: int, f: int) -> None:
    """Transmit a frame on a free link."""
    x = host.link[link]
    fr = host.frame[f]
    fr.state = F_SENDING
    fr.next = -1
    x.service = f
    time = max(1, fr.wire_bytes * x.ps_per_byte // 1000)
    x.busy_ns += time
    arm(host, K_DEVICE, link_event_number(host, link), host.now + time)


@jit
def wire_put(host: Any, link: int, f: int) -> None:
    """A frame begins to travel: it arrives after the link's latency, in order."""
    x = host.link[link]
    fr = host.frame[f]
    fr.state = F_WIRE
    fr.due_ns = host.now + x.latency_ns
    fr.next = -1
    if x.wire_last >= 0:
        host.frame[x.wire_last].next = f
    else:
        x.wire_first = f
        arm(host, K_DEVICE, link_event_number(host, link) + 1, fr.due_ns)
    x.wire_last = f


@jit
def wire_take(host: Any, link: int) -> int:
    """The frame that arrives now at a wire's end."""
    x = host.link[link]
    f = x.wire_first
    x.wire_first = host.frame[f].next
    if x.wire_first < 0:
        x.wire_last = -1
    else:
        arm(host, K_DEVICE, link_event_number(host, link) + 1, host.frame[x.wire_first].due_ns)
    host.frame[f].next = -1
    return f


@jit
def link_done(host: Any, link: int) -> None:
    """A link has transmitted its frame; it is free."""
    x = host.link[link]
    f = x.service
    x.service = -1
    x.frames += 1
    x.bytes += host.frame[f].payload
    wire_put(host, link, f)


@jit
def receiving_enqueue(host: Any, link: int, f: int) -> bool:
    """A frame from outside reaches the physical switch's port; False if its buffer is full.

    A filer's answers find room always: its own transport holds them back.
    """
    x = host.link[link]
    if x.service < 0:
        link_start(host, link, f)
        return True
    if x.queue_slots + host.frame[f].segments > x.limit and host.frame[f].kind != FRAME_STORAGE:
        x.drops += 1
        return False
    fr = host.frame[f]
    fr.state = F_QUEUED
    fr.queued_ns = host.now
    fr.next = -1
    if x.queue_last >= 0:
        host.frame[x.queue_last].next = f
    else:
        x.queue_first = f
    x.queue_last = f
    x.queue_len += 1
    x.queue_slots += fr.segments
    return True


@jit
def receiving_next(host: Any, link: int) -> None:
    """A receiving link is free: the next frame, in order of arrival."""
    x = host.link[link]
    f = x.queue_first
    if f < 0:
        return
    x.queue_first = host.frame[f].next
    if x.queue_first < 0:
        x.queue_last = -1
    x.queue_len -= 1
    x.queue_slots -= host.frame[f].segments
    link_start(host, link, f)
