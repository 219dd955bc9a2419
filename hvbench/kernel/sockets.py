"""The ends of flows: bytes that arrive, acknowledgements, losses, threads that wait to receive or to send.

Each direction of a flow is a *half*. TCP here is minimal: bytes are delivered in order, each frame is acknowledged for
itself (as with selective acknowledgement), the window is the smaller of the congestion window and a fixed one, and what
was lost is sent again when a frame that was sent later is acknowledged (RFC 8985, which follows from duplicate
acknowledgements), that is after a round trip, else after the time-out. Congestion window: RFC 5681 (slow start,
congestion avoidance, halved at most once a window), initial window of 10 segments: RFC 6928. Round-trip time: RFC
6298, without frames that were sent again.

Nothing here sends: a half that may be able to is put into a list (`want_pump`) that
`hvbench.kernel.tcp.pump_all` empties, so that no function calls itself.

Simplification: the guest's protocol processing is done when a frame arrives and is charged to a vCPU, which an
interrupt wakes if it is halted, and which pays when it runs; the acknowledgement does not wait for that.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.cpu import charge, wake
from hvbench.kernel.events import K_DEVICE, K_THREAD, arm, disarm
from hvbench.kernel.frames import (
    count_delivered,
    count_dropped,
    discard_frame,
    free_frame,
    new_frame,
    wire_put,
)
from hvbench.kernel.threads import end_wait
from hvbench.state.records import BLOCKED
from hvbench.state.records_io import (
    F_HELD,
    F_LOST,
    FRAME_ACK,
    FRAME_DATA,
    FRAME_STORAGE,
    PROTO_TCP,
    PROTO_UDP,
)

INITIAL_SEGMENTS = 10
FRAMES_OUT = 16
"""Frames of a TCP half that may be unacknowledged: small messages beyond that are sent together."""
DATAGRAMS_OUT = 64
"""Datagrams of a half on the way before its socket buffer is full and drops."""


@jit
def charge_vm(host: Any, vm: int, v: int, cost_ns: int) -> None:
    """Charge a VM's vCPU: `v`, or its first where that is not known. A halted one wakes up to pay."""
    if cost_ns > 0 and vm >= 0:
        target = v if v >= 0 else host.vm[vm].first_vcpu
        charge(host, target, cost_ns)
        if host.vcpu[target].state == BLOCKED:
            wake(host, target)


@jit
def want_pump(host: Any, h: int) -> None:
    """A half may be able to send: look at it when the event at hand has been handled."""
    x = host.half[h]
    if x.pumping:
        return
    io = host.io[0]
    x.pumping = 1
    x.next_pump = -1
    if io.pump_last >= 0:
        host.half[io.pump_last].next_pump = h
    else:
        io.pump_first = h
    io.pump_last = h


# receiving -----------------------------------------------------------------------------------------------


@jit
def consume(host: Any, h: int, t: int) -> bool:
    """A thread takes what is there; True if it has all that it needs."""
    x = host.half[h]
    th = host.thread[t]
    take = min(th.need_bytes, x.available)
    th.need_bytes -= take
    x.available -= take
    x.consumed += take
    return th.need_bytes == 0


@jit
def feed_receivers(host: Any, h: int, by: int) -> None:
    """Give available bytes to the threads that wait, in order; `by` is the vCPU that sent within the VM, or -1."""
    x = host.half[h]
    while x.recv_first >= 0 and x.available > 0:
        t = x.recv_first
        if not consume(host, h, t):
            break
        x.recv_first = host.thread[t].next_waiter
        if x.recv_first < 0:
            x.recv_last = -1
        if x.proto == PROTO_UDP:
            disarm(host, K_THREAD, t)
        end_wait(host, t, by)
    if x.unsent > 0:
        want_pump(host, h)


@jit
def arrive(host: Any, f: int) -> None:
    """A data frame reaches its receiver."""
    fr = host.frame[f]
    h = fr.half
    x = host.half[h]
    if fr.generation != x.generation:
        discard_frame(host, f)
        return
    payload = fr.payload
    count_delivered(host, f)
    if x.target >= 0:
        charge_vm(host, x.target, x.target_vcpu, host.io[0].net_interrupt_ns + host.io[0].interrupt_ns)
        if host.now >= host.warmup_ns:
            m = host.vm_io[x.target]
            m.net_rx_bytes += payload
            m.net_rx_frames += 1
    elif host.now >= host.warmup_ns:
        host.vm_io[x.source].net_out_bytes += payload
    if x.proto != PROTO_TCP:
        x.frames_out -= 1
        x.available += payload
        free_frame(host, f)
        feed_receivers(host, h, -1)
        return
    sent_ns = fr.sent_ns
    seq = fr.seq
    again = fr.again
    if fr.seq == x.expected:
        x.expected += payload
        x.available += payload
        free_frame(host, f)
        g = x.held_first
        while g >= 0 and host.frame[g].seq == x.expected:
            size = host.frame[g].payload
            x.held_first = host.frame[g].next
            x.held_bytes -= size
            x.expected += size
            x.available += size
            free_frame(host, g)
            g = x.held_first
        feed_receivers(host, h, -1)
    else:
        hold_frame(host, h, f)
    acknowledge(host, h, payload, seq, sent_ns, again)


@jit
def hold_frame(host: Any, h: int, f: int) -> None:
    """A frame came before an earlier one: keep it, in order."""
    x = host.half[h]
    fr = host.frame[f]
    fr.state = F_HELD
    x.held_bytes += fr.payload
    before = -1
    g = x.held_first
    while g >= 0 and host.frame[g].seq < fr.seq:
        before = g
        g = host.frame[g].next
    fr.next = g
    if before >= 0:
        host.frame[before].next = f
    else:
        x.held_first = f


# acknowledgements ------------------------------------------------------------------------------------------


@jit
def acknowledge(host: Any, h: int, payload: int, seq: int, sent_ns: int, again: int) -> None:
    """Tell the sender that a frame has arrived: at once within the host, after the wire's latency from outside.

    An acknowledgement is charged like a small frame, but neither queues nor is it lost: those of a window replace
    each other.
    """
    x = host.half[h]
    if x.uplink < 0:
        acknowledged(host, h, payload, seq, sent_ns, again)
        return
    f = new_frame(host, FRAME_ACK, h, payload)
    if f < 0:
        return
    fr = host.frame[f]
    fr.seq = seq
    fr.sent_ns = sent_ns
    fr.again = again
    transmitting = host.port[x.uplink].link
    wire_put(host, transmitting + 1 if x.target < 0 else transmitting, f)


@jit
def acknowledged(host: Any, h: int, payload: int, seq: int, sent_ns: int, again: int) -> None:
    """An acknowledgement reaches the sender: its window opens."""
    x = host.half[h]
    io = host.io[0]
    x.flight -= payload
    x.frames_out -= 1
    if x.source >= 0:
        charge_vm(host, x.source, x.source_vcpu, io.net_interrupt_ns + io.interrupt_ns)
        thread = host.vm_io[x.source].net_thread
        if thread >= 0:
            charge(host, thread, io.net_ack_ns)
    if again == 0:
        sample = max(1, host.now - sent_ns)
        x.rtt_ns = sample if x.rtt_ns == 0 else (7 * x.rtt_ns + sample) // 8
    if x.congestion_bytes < x.threshold_bytes:
        x.congestion_bytes += payload
    else:
        x.congestion_bytes += max(1, io.mss_bytes * payload // x.congestion_bytes)
    x.congestion_bytes = min(x.congestion_bytes, max(io.window_bytes, 2 * io.mss_bytes))
    if x.lost_first >= 0:
        lost = host.frame[x.lost_first]
        if lost.sent_ns < sent_ns or (lost.sent_ns == sent_ns and lost.seq < seq):
            set_retransmission(host, h, host.now)
    feed_senders(host, h)
    if x.unsent > 0:
        want_pump(host, h)


@jit
def accept(host: Any, h: int, need: int) -> int:
    """Bytes of `need` that the sending socket has room for, taken over."""
    x = host.half[h]
    room = host.io[0].send_buffer_bytes - x.unsent - x.flight - x.lost_bytes
    take = max(0, min(need, room))
    x.unsent += take
    x.accepted += take
    return take


@jit
def feed_senders(host: Any, h: int) -> None:
    """Let the threads that wait for room in the socket go on, in order."""
    x = host.half[h]
    while x.send_first >= 0:
        t = x.send_first
        th = host.thread[t]
        th.need_bytes -= accept(host, h, th.need_bytes)
        if th.need_bytes > 0:
            return
        x.send_first = th.next_waiter
        if x.send_first < 0:
            x.send_last = -1
        end_wait(host, t, -1)


# losses ----------------------------------------------------------------------------------------------------


@jit
def half_event_number(host: Any, h: int) -> int:
    """Number of the event slot of a half's retransmission timer."""
    return host.io[0].requests + 2 * host.io[0].links + h


@jit
def set_retransmission(host: Any, h: int, at_ns: int) -> None:
    """Have lost frames sent again at `at_ns`, or earlier if that was due before."""
    x = host.half[h]
    if x.timer_ns == 0 or at_ns < x.timer_ns:
        x.timer_ns = at_ns
        arm(host, K_DEVICE, half_event_number(host, h), at_ns)


@jit
def drop(host: Any, f: int) -> None:
    """A frame is lost; what needs it sends it again."""
    count_dropped(host, f)
    fr = host.frame[f]
    vm = -1
    if fr.kind == FRAME_DATA:
        vm = host.half[fr.half].vm
    elif fr.kind == FRAME_STORAGE:
        vm = host.request[fr.request].vm
    if vm >= 0 and host.now >= host.warmup_ns:
        host.vm_io[vm].frames_dropped += 1
    if fr.kind == FRAME_STORAGE:
        q = host.request[fr.request]
        q.outstanding -= 1
        q.lost_bytes += fr.payload
        arm(host, K_DEVICE, fr.request, host.now + host.io[0].timeout_ns)
        free_frame(host, f)
        return
    if fr.kind != FRAME_DATA or fr.generation != host.half[fr.half].generation:
        free_frame(host, f)
        return
    if host.half[fr.half].proto != PROTO_TCP:
        host.half[fr.half].frames_out -= 1
        free_frame(host, f)
        return
    lose(host, f)


@jit
def lose(host: Any, f: int) -> None:
    """A TCP frame of the current pass is lost: keep it to be sent again once that is known."""
    io = host.io[0]
    fr = host.frame[f]
    h = fr.half
    x = host.half[h]
    fr.state = F_LOST
    fr.port = -1
    fr.next = -1
    if x.lost_last >= 0:
        host.frame[x.lost_last].next = f
    else:
        x.lost_first = f
    x.lost_last = f
    x.flight -= fr.payload
    x.lost_bytes += fr.payload
    set_retransmission(host, h, host.now + max(io.timeout_ns, 2 * x.rtt_ns))


@jit
def reset_half(host: Any, h: int) -> None:
    """The seam: a half is as new. Its frames that are still on the network are discarded when they arrive."""
    io = host.io[0]
    x = host.half[h]
    x.generation += 1
    f = x.lost_first
    while f >= 0:
        after = host.frame[f].next
        free_frame(host, f)
        f = after
    f = x.held_first
    while f >= 0:
        after = host.frame[f].next
        free_frame(host, f)
        f = after
    x.lost_first = -1
    x.lost_last = -1
    x.held_first = -1
    x.unsent = 0
    x.flight = 0
    x.frames_out = 0
    x.next_seq = 0
    x.lost_bytes = 0
    x.expected = 0
    x.available = 0
    x.held_bytes = 0
    x.recv_first = -1
    x.recv_last = -1
    x.send_first = -1
    x.send_last = -1
    x.accepted = 0
    x.consumed = 0
    x.window_cut_ns = -1
    x.congestion_bytes = INITIAL_SEGMENTS * io.mss_bytes
    x.threshold_bytes = 1 << 40
    x.timer_ns = 0
    disarm(host, K_DEVICE, half_event_number(host, h))
