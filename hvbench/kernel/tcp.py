"""Sending: from a socket's bytes to frames on the switch or on the link from outside."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SWITCH, note_read
from hvbench.kernel.frames import new_frame, receiving_enqueue
from hvbench.kernel.sockets import (
    DATAGRAMS_OUT,
    FRAMES_OUT,
    charge_vm,
    drop,
)
from hvbench.kernel.switch import forward, frame_cost_ns
from hvbench.kernel.work import submit
from hvbench.kernel.work_kinds import WORK_FRAME_TX
from hvbench.state.records_io import F_TX, FRAME_DATA

WINDOW_PARTS = 3
"""A frame takes at most a third of the window, so that acknowledgements keep coming (Linux tcp_tso_win_divisor)."""


@jit
def transmit(host: Any, f: int) -> None:
    """A frame leaves its sender: through the virtual NIC, or over the physical link from outside."""
    io = host.io[0]
    fr = host.frame[f]
    x = host.half[fr.half]
    fr.sent_ns = host.now
    if io.switch_used == 0:
        io.switch_used = 1
        note_read(host, AXIS_SWITCH, io.switch_digest)
    if x.source < 0:
        link = host.port[x.uplink].link + 1
        if not receiving_enqueue(host, link, f):
            drop(host, f)
        return
    charge_vm(host, x.source, x.source_vcpu, io.net_kick_ns + io.exit_ns)
    m = host.vm_io[x.source]
    if host.now >= host.warmup_ns:
        m.net_tx_bytes += fr.payload
        m.net_tx_frames += 1
    cost = frame_cost_ns(host, f)
    if m.net_thread >= 0 and cost > 0:
        fr.state = F_TX
        submit(host, m.net_thread, cost, WORK_FRAME_TX, f, 0)
    else:
        forward(host, f, x.source)


@jit
def pump(host: Any, h: int) -> None:
    """Send what the window allows, in chunks as large as it allows, but no silly small ones."""
    io = host.io[0]
    x = host.half[h]
    while x.unsent > 0 and x.frames_out < FRAMES_OUT and host.error == 0:
        out = x.flight + x.lost_bytes
        window = min(x.congestion_bytes, io.window_bytes)
        share = max(1, window // (WINDOW_PARTS * io.mss_bytes)) * io.mss_bytes
        room = min(window - out, min(share, io.chunk_bytes))
        room = min(room, io.receive_buffer_bytes - x.available - x.held_bytes - out)
        chunk = min(x.unsent, room)
        if chunk <= 0 or (out > 0 and chunk < min(x.unsent, io.mss_bytes)):
            return
        f = new_frame(host, FRAME_DATA, h, chunk)
        if f < 0:
            return
        host.frame[f].seq = x.next_seq
        x.next_seq += chunk
        x.unsent -= chunk
        x.flight += chunk
        x.frames_out += 1
        transmit(host, f)


@jit
def pump_all(host: Any) -> None:
    """Let every half send that may be able to."""
    io = host.io[0]
    while io.pump_first >= 0 and host.error == 0:
        h = io.pump_first
        x = host.half[h]
        io.pump_first = x.next_pump
        if io.pump_first < 0:
            io.pump_last = -1
        x.pumping = 0
        pump(host, h)


@jit
def send_datagram(host: Any, h: int, size: int) -> None:
    """A datagram leaves at once; where too many are on the way the socket drops it."""
    x = host.half[h]
    f = new_frame(host, FRAME_DATA, h, size)
    if f < 0:
        return
    host.frame[f].seq = x.next_seq
    x.next_seq += size
    x.accepted += size
    x.frames_out += 1
    if x.frames_out > DATAGRAMS_OUT:
        drop(host, f)
    else:
        transmit(host, f)


@jit
def send_again(host: Any, h: int) -> None:
    """A loss is known, or the time-out is over: cut the window, once a window, and send all again that was lost."""
    x = host.half[h]
    io = host.io[0]
    x.timer_ns = 0
    f = x.lost_first
    if f >= 0 and host.frame[f].sent_ns > x.window_cut_ns:
        x.window_cut_ns = host.now
        x.threshold_bytes = max(2 * io.mss_bytes, (x.flight + x.lost_bytes) // 2)
        x.congestion_bytes = x.threshold_bytes
    x.lost_first = -1
    x.lost_last = -1
    while f >= 0:
        fr = host.frame[f]
        after = fr.next
        fr.next = -1
        fr.again += 1
        x.lost_bytes -= fr.payload
        x.flight += fr.payload
        x.retransmissions += 1
        io.frames_sent += 1
        io.bytes_sent += fr.payload
        if x.vm >= 0 and host.now >= host.warmup_ns:
            host.vm_io[x.vm].retransmissions += 1
        transmit(host, f)
        f = after
