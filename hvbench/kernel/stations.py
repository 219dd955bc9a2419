"""Stations: queues with servers, and the policies' say in the order in which media serve."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_STORAGE, ask
from hvbench.kernel.disk import service_ns
from hvbench.kernel.events import K_DEVICE, arm
from hvbench.kernel.guards import E_RANGE, E_REQUEST_RANGE, fail
from hvbench.kernel.hook_rows import (
    BLK_ALLOW_MERGE,
    BLK_COMPLETE,
    BLK_DISPATCH,
    BLK_INSERT,
    BLK_LIMIT_DEPTH,
    BLK_SERVICE,
)
from hvbench.state.records_io import R_MERGED, R_QUEUED, R_SERVICE, ST_MEDIUM


@jit
def owner(host: Any, vm: int) -> int:
    """Row of table vm_io of a VM; the host's own row for -1."""
    return vm if vm >= 0 else len(host.vm_io) - 1


@jit
def station_enter(host: Any, st: int, r: int) -> None:
    """A request arrives at a station: it is merged, or waits, and is served as soon as a server is free."""
    s = host.station[st]
    q = host.request[r]
    q.station = st
    q.queued_ns = host.now
    if s.kind == ST_MEDIUM and merge(host, st, r):
        return
    q.state = R_QUEUED
    q.next = -1
    q.previous = s.queue_last
    if s.queue_last >= 0:
        host.request[s.queue_last].next = r
    else:
        s.queue_first = r
    s.queue_last = r
    s.queue_len += 1
    if s.kind == ST_MEDIUM:
        ask(host, AXIS_STORAGE, BLK_INSERT, r, st, host.now, 0, 0, 0)
    station_serve(host, st)


@jit
def merge(host: Any, st: int, r: int) -> bool:
    """Back merge: the request continues the one that arrived last and still waits."""
    s = host.station[st]
    last = s.queue_last
    if last < 0:
        return False
    q = host.request[r]
    a = host.request[last]
    if a.vm != q.vm or a.write != q.write or a.page + a.span != q.page:
        return False
    if a.span + q.span > host.io[0].merge_pages:
        return False
    if ask(host, AXIS_STORAGE, BLK_ALLOW_MERGE, last, r, host.now, 0, 0, 1) == 0:
        return False
    q.state = R_MERGED
    q.next = -1
    if a.merged_last >= 0:
        host.request[a.merged_last].next = r
    else:
        a.merged_first = r
    a.merged_last = r
    a.span += q.span
    host.io[0].merged += 1
    return True


@jit
def unqueue(host: Any, st: int, r: int) -> None:
    """Take a waiting request out of its station's queue."""
    s = host.station[st]
    q = host.request[r]
    if q.previous >= 0:
        host.request[q.previous].next = q.next
    else:
        s.queue_first = q.next
    if q.next >= 0:
        host.request[q.next].previous = q.previous
    else:
        s.queue_last = q.previous
    q.next = -1
    q.previous = -1
    s.queue_len -= 1


@jit
def first_below_depth(host: Any, st: int) -> int:
    """First request in order of arrival whose VM may have one more in service, -1 for none."""
    r = host.station[st].queue_first
    asked = -2
    while r >= 0:
        q = host.request[r]
        if q.vm != asked:
            asked = q.vm
            depth = ask(host, AXIS_STORAGE, BLK_LIMIT_DEPTH, q.vm, st, host.now, 0, 0, host.io[0].depth)
            if depth < 1:
                fail(host, E_RANGE, BLK_LIMIT_DEPTH, depth, q.vm)
                return -1
            if host.vm_io[owner(host, q.vm)].in_service < depth:
                return r
        r = q.next
    return -1


@jit
def choose(host: Any, st: int) -> int:
    """The request that a medium serves next, -1 to wait."""
    default = first_below_depth(host, st)
    if default < 0:
        return -1
    r = ask(host, AXIS_STORAGE, BLK_DISPATCH, st, host.now, 0, 0, 0, default)
    if r == -1:
        return -1
    if r < 0 or r >= len(host.request) or host.request[r].state != R_QUEUED or host.request[r].station != st:
        fail(host, E_REQUEST_RANGE, BLK_DISPATCH, r, st)
        return -1
    return r


@jit
def station_serve(host: Any, st: int) -> None:
    """Give waiting requests to free servers."""
    s = host.station[st]
    while s.busy < s.servers and s.queue_first >= 0 and host.error == 0:
        if s.kind == ST_MEDIUM:
            r = choose(host, st)
            if r < 0:
                return
        else:
            r = s.queue_first
        unqueue(host, st, r)
        q = host.request[r]
        q.state = R_SERVICE
        s.busy += 1
        time = service_ns(host, st, r)
        if s.kind == ST_MEDIUM:
            host.vm_io[owner(host, q.vm)].in_service += 1
            extra = ask(host, AXIS_STORAGE, BLK_SERVICE, r, st, host.now, 0, 0, 0)
            if extra < 0:
                fail(host, E_RANGE, BLK_SERVICE, extra, r)
                return
            time += min(extra, 1 << 60)
        s.busy_ns += time
        arm(host, K_DEVICE, r, host.now + time)


@jit
def station_leave(host: Any, st: int, r: int) -> None:
    """A request has been served: its server is free for the next."""
    s = host.station[st]
    q = host.request[r]
    s.busy -= 1
    s.served += 1
    if s.kind == ST_MEDIUM:
        host.vm_io[owner(host, q.vm)].in_service -= 1
        ask(host, AXIS_STORAGE, BLK_COMPLETE, r, st, host.now, 0, 0, 0)
    q.station = -1
    station_serve(host, st)
