"""Storage: a block request's way along the steps of its path, and back to who asked for it.

A path is data (table step), stated by the storage policy: CPU time of the vCPU that submits, work on the host
thread that emulates the disk, stations (controllers, fabric, remote processors, media), the physical NIC.
`submit_io` begins a request; when its last step is done it stands in a list of completed requests, whose owners
`hvbench.kernel.devices` tells, so that nothing here calls the memory side.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_STORAGE, ask, note_read, tell
from hvbench.kernel.disk import cache_access, moved_bytes
from hvbench.kernel.events import K_DEVICE, arm
from hvbench.kernel.guards import E_CAPACITY, E_OUTBOX_KIND, E_RANGE, E_REQUEST_RANGE, fail
from hvbench.kernel.histogram import H_IO, observe
from hvbench.kernel.hook_rows import BLK_INIT, BLK_SELECT_PATH, BLK_TIMER
from hvbench.kernel.io_requests import O_SERVE_DEVICE
from hvbench.kernel.network import STORAGE_CHUNK_BYTES, send_storage
from hvbench.kernel.outcome import DONE
from hvbench.kernel.sockets import charge_vm
from hvbench.kernel.stations import owner, station_enter, station_leave, station_serve
from hvbench.kernel.threads import wait_for
from hvbench.kernel.work import submit
from hvbench.kernel.work_kinds import WORK_REQUEST
from hvbench.state.records import W_DISK
from hvbench.state.records_io import (
    MOVES_BACK,
    MOVES_OUT,
    R_DELAY,
    R_DONE,
    R_FREE,
    R_NET,
    R_SERVICE,
    R_WORK,
    S_DELAY,
    S_END,
    S_INTERRUPT,
    S_PIPE,
    S_STATION,
    S_THREAD,
    S_VCPU,
    S_WIRE_IN,
    S_WIRE_OUT,
    ST_CACHE,
    ST_MEDIUM,
    WHY_TRACE,
)
from hvbench.traces.format import OPS

OP_BLK_WRITE = OPS["blk_write"]
SECTORS_PER_PAGE = 8
HEADER_BYTES = 256
"""A remote procedure call or SCSI command beside its data: order of an NFS v3 READ or WRITE header (RFC 1813)."""


@jit
def submit_io(host: Any, vm: int, write: int, sector: int, pages: int, why: int, who: int, v: int) -> int:
    """Begin a block request; returns its index, -1 (and the cell fails) if the table is full.

    `sector` and `pages` are in units of 4 KiB on the VM's virtual disk, `vm` = -1 means the host's own swap area.
    `v` is the vCPU that submits, -1 for none. `why` and `who` are handed back on completion. Never completes at once.
    """
    io = host.io[0]
    r = io.request_free
    if r < 0:
        fail(host, E_CAPACITY, -1, io.requests, vm)
        return -1
    q = host.request[r]
    io.request_free = q.next
    m = host.vm_io[owner(host, vm)]
    q.write = 1 if write else 0
    q.vm = vm
    q.vcpu = v
    q.sector = sector
    q.pages = pages
    q.span = pages
    q.page = m.disk_first_page + sector % m.disk_pages
    q.why = why
    q.who = who
    q.submitted_ns = host.now
    q.step = io.path_first
    q.station = -1
    q.way = -1
    q.outstanding = 0
    q.lost_bytes = 0
    q.next = -1
    q.previous = -1
    q.merged_first = -1
    q.merged_last = -1
    m.in_flight += 1
    io.submitted += 1
    io.pages_submitted += pages
    if io.path_used == 0:
        io.path_used = 1
        note_read(host, AXIS_STORAGE, io.path_digest)
    go_on(host, r)
    return r


@jit
def step_cost(host: Any, r: int, step: int) -> int:
    """What a step costs for a request, ns."""
    s = host.step[step]
    q = host.request[r]
    return s.cost_ns + (moved_bytes(s.moves, q.write, q.pages) * s.kib_ns >> 10)


@jit
def go_on(host: Any, r: int) -> None:
    """A request has done a step: begin the next one, up to the first that takes time."""
    q = host.request[r]
    io = host.io[0]
    while True:
        q.step += 1
        step = q.step
        s = host.step[step]
        kind = s.kind
        if kind == S_END:
            complete(host, r)
            return
        if s.guest_only and q.vm < 0:
            continue
        if kind == S_VCPU:
            cost = step_cost(host, r, step) + io.exit_ns
            charge_vm(host, q.vm, q.vcpu, cost)
            if cost > 0:
                q.state = R_DELAY
                arm(host, K_DEVICE, r, host.now + cost)
                return
        elif kind == S_INTERRUPT:
            charge_vm(host, q.vm, q.vcpu, step_cost(host, r, step) + io.interrupt_ns)
        elif kind == S_THREAD:
            m = host.vm_io[owner(host, q.vm)]
            thread = m.storage_thread if s.station < 0 else m.net_thread
            cost = step_cost(host, r, step)
            if thread >= 0 and cost > 0:
                q.state = R_WORK
                submit(host, thread, cost, WORK_REQUEST, r, 0)
                return
        elif kind == S_DELAY:
            if s.cost_ns > 0:
                q.state = R_DELAY
                arm(host, K_DEVICE, r, host.now + s.cost_ns)
                return
        elif kind == S_PIPE:
            wait = pipe_ns(host, r, s.station)
            if wait > 0:
                q.state = R_DELAY
                arm(host, K_DEVICE, r, host.now + wait)
                return
        elif kind == S_STATION:
            station_enter(host, s.station + choose_way(host, r, s.ways), r)
            return
        elif kind in (S_WIRE_OUT, S_WIRE_IN):
            q.state = R_NET
            moves = MOVES_OUT if kind == S_WIRE_OUT else MOVES_BACK
            size = HEADER_BYTES + moved_bytes(moves, q.write, q.pages)
            send_storage(host, r, size, 1 if kind == S_WIRE_OUT else 0)
            return


@jit
def pipe_ns(host: Any, r: int, st: int) -> int:
    """How long a request is held up by the filer's link, which passes pieces on while others are still to come.

    On the way out the host's card has just carried all of it: the link is done a piece later, or when it has worked
    off all bytes at its own rate. On the way back the card may begin when, at its rate, it will not overtake the
    link.
    """
    s = host.station[st]
    q = host.request[r]
    size = moved_bytes(s.moves, q.write, q.pages)
    if size == 0:
        return 0
    own = s.ps_per_byte
    card = host.link[0].ps_per_byte
    piece = min(size, STORAGE_CHUNK_BYTES)
    now = host.now
    if s.moves == MOVES_OUT:
        done = now + (piece * own + (size - piece) * max(0, own - card)) // 1000
        done = max(done, s.free_ns + size * own // 1000)
        s.free_ns = done
        return done - now
    done = max(now, s.free_ns) + size * own // 1000
    s.free_ns = done
    return done - (size - piece) * min(own, card) // 1000 - now


@jit
def choose_way(host: Any, r: int, ways: int) -> int:
    """Which of a fabric's equal ways a request takes: chosen once, kept for the way back."""
    if ways <= 1:
        return 0
    q = host.request[r]
    if q.way < 0:
        way = ask(host, AXIS_STORAGE, BLK_SELECT_PATH, r, ways, host.now, 0, 0, 0)
        if way < 0 or way >= ways:
            fail(host, E_RANGE, BLK_SELECT_PATH, way, r)
            way = 0
        q.way = way
    return q.way


@jit
def complete(host: Any, r: int) -> None:
    """A request has passed its path: count it, and put it where its owner is told of it."""
    q = host.request[r]
    io = host.io[0]
    m = host.vm_io[owner(host, q.vm)]
    q.state = R_DONE
    m.in_flight -= 1
    io.completed += 1
    io.pages_completed += q.pages
    if host.now >= host.warmup_ns:
        latency = host.now - q.submitted_ns
        m.disk_wait_ns += latency
        if q.write:
            m.disk_write_requests += 1
            m.disk_write_pages += q.pages
        else:
            m.disk_read_requests += 1
            m.disk_read_pages += q.pages
        if q.vm >= 0:
            observe(host, q.vm, H_IO, latency)
    q.next = -1
    if io.done_last >= 0:
        host.request[io.done_last].next = r
    else:
        io.done_first = r
    io.done_last = r


@jit
def take_completed(host: Any) -> int:
    """The next completed request whose owner must be told, -1 for none. The caller frees it."""
    io = host.io[0]
    r = io.done_first
    if r >= 0:
        io.done_first = host.request[r].next
        if io.done_first < 0:
            io.done_last = -1
    return r


@jit
def free_request(host: Any, r: int) -> None:
    """Give a request back."""
    q = host.request[r]
    q.state = R_FREE
    q.next = host.io[0].request_free
    host.io[0].request_free = r


@jit
def request_event(host: Any, r: int) -> None:
    """A request's delay or service is over, or lost frames of it are due to be sent again."""
    q = host.request[r]
    if q.state == R_DELAY:
        go_on(host, r)
    elif q.state == R_NET:
        size = q.lost_bytes
        q.lost_bytes = 0
        send_storage(host, r, size, 1 if host.step[q.step].kind == S_WIRE_OUT else 0)
    elif q.state == R_SERVICE:
        served(host, r)


@jit
def served(host: Any, r: int) -> None:
    """A station is done with a request, and with those merged into it."""
    q = host.request[r]
    st = q.station
    kind = host.station[st].kind
    if kind == ST_CACHE and cache_access(host, st, r):
        skip = host.step[q.step].skip
        if skip >= 0:
            q.step = skip - 1
    child = -1
    if kind == ST_MEDIUM:
        child = q.merged_first
        q.merged_first = -1
        q.merged_last = -1
    station_leave(host, st, r)
    if kind == ST_MEDIUM:
        q.span = q.pages
    go_on(host, r)
    while child >= 0:
        after = host.request[child].next
        host.request[child].next = -1
        host.request[child].station = -1
        go_on(host, child)
        child = after


@jit
def resume_all(host: Any) -> None:
    """Requests whose last frame has arrived go on."""
    io = host.io[0]
    while io.resume_first >= 0 and host.error == 0:
        r = io.resume_first
        io.resume_first = host.request[r].next
        if io.resume_first < 0:
            io.resume_last = -1
        host.request[r].next = -1
        go_on(host, r)


# what recorded threads do, policies ----------------------------------------------------------------------


@jit
def storage_op(host: Any, t: int, v: int) -> int:
    """A recorded block read or write: op.a is the first 512-byte sector, op.b their number. The thread waits."""
    th = host.thread[t]
    o = host.op[th.op]
    if o.b <= 0:
        return DONE
    first = o.a // SECTORS_PER_PAGE
    pages = (o.a + o.b + SECTORS_PER_PAGE - 1) // SECTORS_PER_PAGE - first
    write = 1 if o.op == OP_BLK_WRITE else 0
    outcome = wait_for(host, t, W_DISK)
    submit_io(host, th.vm, write, first, pages, WHY_TRACE, t, v)
    return outcome


@jit
def storage_init(host: Any) -> None:
    """The storage policy hears of the host."""
    tell(host, AXIS_STORAGE, BLK_INIT, host.now, 0)


@jit
def storage_timer(host: Any, timer: int) -> None:
    """A timer of the storage policy is due."""
    ask(host, AXIS_STORAGE, BLK_TIMER, timer, host.now, 0, 0, 0, 0)


@jit
def storage_request(host: Any, at: int) -> None:
    """Check and do what the storage policy asked for."""
    r = host.outbox[at]
    if r.what != O_SERVE_DEVICE:
        fail(host, E_OUTBOX_KIND, r.row, r.what, r.a)
        return
    if r.a < 0 or r.a >= len(host.station) or host.station[r.a].kind != ST_MEDIUM:
        fail(host, E_REQUEST_RANGE, r.row, r.a, -1)
        return
    station_serve(host, r.a)
