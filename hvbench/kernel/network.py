"""The network: what recorded threads send and receive, links, NAS traffic on them, policies' requests."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_SWITCH, ask, tell
from hvbench.kernel.events import K_THREAD, arm
from hvbench.kernel.frames import (
    count_delivered,
    free_frame,
    link_done,
    new_frame,
    receiving_enqueue,
    receiving_next,
    wire_take,
)
from hvbench.kernel.guards import E_OUTBOX_KIND, E_PORT_RANGE, E_RANGE, fail
from hvbench.kernel.hook_rows import NET_INIT, NET_PORT_ADD, NET_TIMER
from hvbench.kernel.io_requests import O_EMIT, O_SERVE_PORT
from hvbench.kernel.outcome import DONE, WAITS
from hvbench.kernel.sockets import accept, acknowledged, consume, feed_receivers, reset_half, want_pump
from hvbench.kernel.switch import attached, deliver, emit, enqueue, forward, select_uplink, serve_port
from hvbench.kernel.tcp import pump_all, send_again, send_datagram
from hvbench.kernel.threads import wait_for
from hvbench.state.records import W_RECV, W_SEND
from hvbench.state.records_io import FRAME_ACK, FRAME_DATA, FRAME_STORAGE, PROTO_UDP
from hvbench.traces.format import OPS

OP_SEND = OPS["send"]
STORAGE_CHUNK_BYTES = 65_536
"""A storage transfer crosses the NIC in pieces of this size, between which guests' frames find their turn."""


# what threads do -------------------------------------------------------------------------------------------


@jit
def network_op(host: Any, t: int, v: int) -> int:
    """A send or a receive of thread `t` on vCPU `v` (-1: outside). op.x is flow * 2 + the thread's end."""
    th = host.thread[t]
    o = host.op[th.op]
    g = host.group[th.group]
    flow = o.x >> 1
    end = o.x & 1
    if flow < 0 or flow >= g.flows:
        fail(host, E_RANGE, -1, flow, t)
        return WAITS
    if o.a <= 0:
        return DONE
    first = 2 * (g.first_flow + flow)
    outcome = begin_send(host, t, v, first + end) if o.op == OP_SEND else begin_receive(host, t, v, first + (1 - end))
    pump_all(host)
    return outcome


@jit
def begin_send(host: Any, t: int, v: int, h: int) -> int:
    """Hand bytes to the socket; the thread waits while it is full."""
    th = host.thread[t]
    size = host.op[th.op].a
    x = host.half[h]
    if x.local:
        # within a VM: no frame, no switch; its CPU time is part of what was recorded
        x.accepted += size
        x.available += size
        if x.vm >= 0 and host.now >= host.warmup_ns:
            host.vm_io[x.vm].local_bytes += size
        feed_receivers(host, h, v)
        return DONE
    if x.source >= 0:
        x.source_vcpu = v
    if x.proto == PROTO_UDP:
        send_datagram(host, h, size)
        return DONE
    th.need_bytes = size
    if x.send_first < 0:
        th.need_bytes -= accept(host, h, size)
        if x.unsent > 0:
            want_pump(host, h)
        if th.need_bytes == 0:
            return DONE
    th.next_waiter = -1
    if x.send_last >= 0 and x.send_first >= 0:
        host.thread[x.send_last].next_waiter = t
    else:
        x.send_first = t
    x.send_last = t
    return wait_for(host, t, W_SEND)


@jit
def begin_receive(host: Any, t: int, v: int, h: int) -> int:
    """Take what is there; the thread waits for the rest."""
    th = host.thread[t]
    o = host.op[th.op]
    x = host.half[h]
    if x.target >= 0:
        x.target_vcpu = v
    th.need_bytes = o.a
    if x.recv_first < 0 and consume(host, h, t):
        if x.unsent > 0:
            want_pump(host, h)
        return DONE
    if x.unsent > 0:
        want_pump(host, h)
    th.next_waiter = -1
    if x.recv_first >= 0:
        host.thread[x.recv_last].next_waiter = t
    else:
        x.recv_first = t
    x.recv_last = t
    wait_for(host, t, W_RECV)
    if x.proto == PROTO_UDP and not x.local:
        wait = o.b if o.b > 0 else host.io[0].datagram_timeout_ns
        arm(host, K_THREAD, t, host.now + wait)
    return WAITS


@jit
def receive_timeout(host: Any, t: int) -> None:
    """A UDP receive has waited for its recorded time-out: the thread waits no longer. Its timer's caller goes on."""
    th = host.thread[t]
    o = host.op[th.op]
    h = 2 * (host.group[th.group].first_flow + (o.x >> 1)) + 1 - (o.x & 1)
    x = host.half[h]
    before = -1
    at = x.recv_first
    while at >= 0 and at != t:
        before = at
        at = host.thread[at].next_waiter
    if at < 0:
        return
    after = th.next_waiter
    if before >= 0:
        host.thread[before].next_waiter = after
    else:
        x.recv_first = after
    if after < 0:
        x.recv_last = before
    th.need_bytes = 0
    if x.vm >= 0 and host.now >= host.warmup_ns:
        host.vm_io[x.vm].receive_timeouts += 1


@jit
def reset_flows(host: Any, group: int) -> None:
    """The seam of a recording: its flows begin anew."""
    g = host.group[group]
    for h in range(2 * g.first_flow, 2 * (g.first_flow + g.flows)):
        reset_half(host, h)


# events ----------------------------------------------------------------------------------------------------


@jit
def link_event(host: Any, number: int) -> None:
    """A link has transmitted a frame (even numbers), or one arrives at its wire's end (odd numbers)."""
    link = number >> 1
    if number & 1 == 0:
        link_done(host, link)
        if link & 1:
            receiving_next(host, link)
        else:
            serve_port(host, host.io[0].first_uplink + (link >> 1))
    else:
        f = wire_take(host, link)
        fr = host.frame[f]
        if fr.kind == FRAME_ACK:
            h = fr.half
            payload = fr.payload
            seq = fr.seq
            sent_ns = fr.sent_ns
            again = fr.again
            current = fr.generation == host.half[h].generation
            free_frame(host, f)
            if current:
                acknowledged(host, h, payload, seq, sent_ns, again)
        elif fr.kind == FRAME_STORAGE:
            storage_arrived(host, f)
        elif link & 1 == 0 or fr.kind != FRAME_DATA:
            deliver(host, f, host.io[0].first_uplink + (link >> 1))
        else:
            forward(host, f, host.io[0].first_uplink + (link >> 1))
    pump_all(host)


@jit
def retransmission_event(host: Any, h: int) -> None:
    """A half's timer is due."""
    send_again(host, h)
    pump_all(host)


@jit
def frame_sent(host: Any, f: int) -> None:
    """The sender's host thread has paid for a frame: it enters the switch."""
    forward(host, f, host.half[host.frame[f].half].source)
    pump_all(host)


@jit
def frame_received(host: Any, f: int, p: int) -> None:
    """The receiver's host thread has paid for a frame: it reaches the guest, the next one is served."""
    host.port[p].service = -1
    deliver(host, f, p)
    serve_port(host, p)
    pump_all(host)


# storage on the network --------------------------------------------------------------------------------------


@jit
def send_storage(host: Any, r: int, size: int, out: int) -> None:
    """Send `size` bytes of a request over the physical NIC, out to the filer or back from it."""
    q = host.request[r]
    p = select_uplink(host, -1, -1)
    if p < 0:
        return
    left = size
    while left > 0:
        chunk = min(left, STORAGE_CHUNK_BYTES)
        left -= chunk
        f = new_frame(host, FRAME_STORAGE, -1, chunk)
        if f < 0:
            return
        host.frame[f].request = r
        host.frame[f].target_port = p
        q.outstanding += 1
        if out:
            enqueue(host, f, p)
        else:
            receiving_enqueue(host, host.port[p].link + 1, f)


@jit
def storage_arrived(host: Any, f: int) -> None:
    """A piece of a storage transfer has crossed the NIC; with the last one the request goes on."""
    io = host.io[0]
    r = host.frame[f].request
    q = host.request[r]
    count_delivered(host, f)
    free_frame(host, f)
    q.outstanding -= 1
    if q.outstanding > 0 or q.lost_bytes > 0:
        return
    q.next = -1
    if io.resume_last >= 0:
        host.request[io.resume_last].next = r
    else:
        io.resume_first = r
    io.resume_last = r


# policies ----------------------------------------------------------------------------------------------------


@jit
def network_init(host: Any) -> None:
    """The switch's policy hears of its ports."""
    io = host.io[0]
    for p in range(io.first_uplink + io.attached_uplinks):
        tell(host, AXIS_SWITCH, NET_PORT_ADD, p, host.now)
    tell(host, AXIS_SWITCH, NET_INIT, host.now, 0)


@jit
def network_timer(host: Any, timer: int) -> None:
    """A timer of the switch's policy is due."""
    ask(host, AXIS_SWITCH, NET_TIMER, timer, host.now, 0, 0, 0, 0)


@jit
def network_request(host: Any, at: int) -> None:
    """Check and do what the switch's policy asked for."""
    r = host.outbox[at]
    p = r.a
    if not attached(host, p):
        fail(host, E_PORT_RANGE, r.row, p, -1)
        return
    if r.what == O_EMIT:
        if r.b < 1 or r.b > host.io[0].chunk_bytes:
            fail(host, E_RANGE, r.row, r.b, p)
            return
        emit(host, p, r.b)
    elif r.what == O_SERVE_PORT:
        serve_port(host, p)
    else:
        fail(host, E_OUTBOX_KIND, r.row, r.what, p)
        return
    pump_all(host)
