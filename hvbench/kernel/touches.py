"""Accesses to pages: the short path of what is in guest memory and has a frame, page by page.

`op_progress` of the thread holds the pages of its operation that are done: after a wait or a fault the operation goes
on there. Everything but the short path is `hvbench.kernel.page_cache.miss`.

Touches that follow one another in a trace are served in one go (`touch_run`), since a replay consists mostly of them.
What it writes is written without asking first: a branch on what is in a page's row would be guessed before the row has
come from memory, and each wrong guess would cost the wait that the processor otherwise overlaps with the next pages'.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import machine_code, prefetch
from hvbench.kernel.guards import E_RANGE, fail
from hvbench.kernel.outcome import DONE
from hvbench.kernel.page_cache import AGAIN, dirty, miss
from hvbench.kernel.page_lists import list_front, list_of, list_push, list_remove
from hvbench.state.records_memory import (
    ANON,
    CLOCK,
    LINUX,
    LRU,
    P_ABSENT,
    P_ACTIVE,
    P_DIRTY,
    P_LISTED,
    P_NEW,
    P_NEW_SHIFT,
    P_RECLAIM,
    P_REF,
    P_SHARED,
    P_SWAPPING,
    P_WATCHED,
    STAMP_SHIFT,
    VERSION_MASK,
)
from hvbench.traces.format import FLAG_WRITE, OPS

OP_TOUCH = OPS["touch"]
OP_MTOUCH = OPS["mtouch"]

SLOW_READ = P_ABSENT | P_RECLAIM | P_SWAPPING | P_WATCHED
SLOW_WRITE = SLOW_READ | P_SHARED
FAR, NEAR, NEXT = 24, 12, 6
"""Touches ahead at which a page's mapping, the page, and its neighbours on the list are fetched."""
OWES_NS = 1_000_000
"""An operation that owes more CPU time than this pays it before it goes on."""


@jit
def touch_run(host: Any, t: int, v: int) -> int:
    """The thread's touch, and the touches behind it up to the first that takes time; leaves it at the last one done."""
    th = host.thread[t]
    e = host.vcpu[v]
    objects = host.replay[th.group].first
    first_op = th.op
    end = th.op_end
    k = first_op
    done = th.op_progress
    stamp = host.now >> STAMP_SHIFT
    number = -1
    o = -1
    m = -1
    first = 0
    size = 0
    mode = LINUX
    mark = 0
    file = False
    outcome = DONE
    while True:
        r = host.op[k]
        if r.x != number:
            number = r.x
            o = host.object_of[objects + number].object
            x = host.object[o]
            m = x.vm
            first = x.first
            size = x.pages
            file = x.kind != ANON
            mode = host.vmem[m].replacement
            mark = P_REF if mode in (LINUX, CLOCK) else 0
        if machine_code():
            look_ahead(host, k, end, number, first, size, mode)
        page = r.a
        pages = r.b
        if page < 0 or pages < 0 or page + pages > size:
            fail(host, E_RANGE, -1, page + pages, o)
            break
        write = r.flags & FLAG_WRITE
        if done + 1 == pages:
            row = host.mapping[first + page + done]
            at = row.at
            if at > 0:
                pg = host.page[at - 1]
                flags = pg.flags
                slow = SLOW_WRITE if write else SLOW_READ
                if pg.frame > 0 and flags & slow == 0 and (not write or not file or flags & P_DIRTY):
                    if write:
                        y = host.vmem[m]
                        y.writes = y.writes + 1
                        row.content = -1 - (y.writes & VERSION_MASK)
                    pg.flags = (flags & ~P_NEW) | (mark & ~(flags >> P_NEW_SHIFT))
                    pg.stamp = stamp
                    if mode == LRU and flags & P_LISTED:
                        list_front(host, list_of(host, m, flags), at - 1)
                    done += 1
        if done < pages:
            th.op = k
            th.op_progress = done
            outcome = walk(host, t, v, o, page, pages, write, 0)
            if outcome != DONE:
                break
        done = 0
        k += 1
        if k == end or e.overhead_left_ns > 0 or host.error != 0:
            break
        op = host.op[k].op
        if op != OP_TOUCH and op != OP_MTOUCH:
            break
    host.zero_time_ops = host.zero_time_ops + k - first_op
    if outcome == DONE:
        th.op = max(k - 1, first_op)
    return outcome


@jit
def look_ahead(host: Any, k: int, end: int, number: int, first: int, size: int, mode: int) -> None:
    """Have the rows fetched that the touches of the same object a little later in the trace will need."""
    if k + FAR >= end:
        return
    r = host.op[k + FAR]
    if r.x == number:
        prefetch(host.mapping, first + r.a)
    r = host.op[k + NEAR]
    if r.x == number and r.a >= 0 and r.a < size:
        at = host.mapping[first + r.a].at
        prefetch(host.page, at - 1)
    if mode == LRU:
        r = host.op[k + NEXT]
        if r.x == number and r.a >= 0 and r.a < size:
            at = host.mapping[first + r.a].at
            if at > 0:
                pg = host.page[at - 1]
                prefetch(host.page, pg.prev - 1)
                prefetch(host.page, pg.next - 1)


@jit
def access(host: Any, t: int, v: int, o: int, page: int, pages: int, write: int) -> int:
    """Read or write pages [page, page + pages) of a file through read and write calls."""
    before = host.thread[t].op_progress
    outcome = walk(host, t, v, o, page, pages, write, 1)
    if host.now >= host.warmup_ns:
        host.vmem[host.object[o].vm].file_read_pages += host.thread[t].op_progress - before
    return outcome


@jit
def walk(host: Any, t: int, v: int, o: int, page: int, pages: int, write: int, file_op: int) -> int:
    """The loop over the pages of an operation; leaves its progress in the thread."""
    th = host.thread[t]
    x = host.object[o]
    m = x.vm
    y = host.vmem[m]
    first = x.first + page
    mode = y.replacement
    stamp = host.now >> STAMP_SHIFT
    slow = SLOW_WRITE if write else SLOW_READ
    mark = P_REF if mode in (LINUX, CLOCK) else 0
    file_write = write and x.kind != ANON
    done = th.op_progress
    while done < pages:
        row = host.mapping[first + done]
        at = row.at
        if at > 0:
            pg = host.page[at - 1]
            flags = pg.flags
            if pg.frame > 0 and flags & slow == 0:
                if file_write and flags & P_DIRTY == 0:
                    th.op_progress = done
                    outcome = dirty(host, t, o, page + done, pg)
                    if outcome != DONE:
                        return outcome
                    flags = pg.flags
                if write:
                    y.writes = y.writes + 1
                    row.content = -1 - (y.writes & VERSION_MASK)
                pg.stamp = stamp
                if file_op and mode == LINUX and flags & (P_REF | P_ACTIVE | P_LISTED | P_NEW) == P_REF | P_LISTED:
                    activate(host, at - 1, m)
                else:
                    # the first use of a page that has just come in does not count as a second one
                    pg.flags = (flags & ~P_NEW) | (mark & ~(flags >> P_NEW_SHIFT))
                    if mode == LRU and flags & P_LISTED:
                        list_front(host, list_of(host, m, flags), at - 1)
                done += 1
                continue
        th.op_progress = done
        outcome = miss(host, t, v, o, page + done, page + pages, write, file_op)
        if outcome != DONE:
            return outcome
        if host.vcpu[v].overhead_left_ns > OWES_NS:
            return AGAIN
    th.op_progress = pages
    return DONE


@jit
def activate(host: Any, g: int, m: int) -> None:
    """A page on the inactive list was used a second time [Linux: mark_page_accessed]."""
    from_list = list_of(host, m, host.page[g].flags)
    list_remove(host, from_list, g)
    pg = host.page[g]
    pg.flags = (pg.flags & ~P_REF) | P_ACTIVE
    list_push(host, list_of(host, m, pg.flags), g)
