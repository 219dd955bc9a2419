"""Touches, and the guest's page cache: what the replayed memory and file operations do, page by page.

`op_progress` of the thread holds the pages of its operation that are done: after a wait or a fault the
operation goes on there. A page
that is in guest memory and has a frame takes the short path; everything else is `miss`.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.guest_memory import TAKEN, attach, enlist, pop_free, take_page, wait_memory
from hvbench.kernel.guest_reclaim import free_guest_slot, give_free, wake_kernel_thread, write_run
from hvbench.kernel.host_memory import back, unshare, watched_touch
from hvbench.kernel.io_codes import IO_GUEST_READ
from hvbench.kernel.memory_io import io_new, thread_waits, thread_waits_io, wake_threads
from hvbench.kernel.outcome import DONE, FAULT, WAITS
from hvbench.kernel.page_lists import (
    list_front,
    list_of,
    list_push,
    list_remove,
    object_identity,
    recorded_identity,
)
from hvbench.kernel.storage import submit_io
from hvbench.state.records import W_DISK
from hvbench.state.records_memory import (
    ANON,
    CLOCK,
    LINUX,
    LRU,
    P_ABSENT,
    P_ACTIVE,
    P_DIRTY,
    P_HOSTIN,
    P_LISTED,
    P_NEW,
    P_READING,
    P_RECLAIM,
    P_REF,
    P_SHARED,
    P_SWAPPING,
    P_WATCHED,
    STAMP_SHIFT,
    VERSIONS,
)

SLOW_READ = P_ABSENT | P_RECLAIM | P_SWAPPING | P_NEW | P_WATCHED
SLOW_WRITE = SLOW_READ | P_SHARED
SWAP_RUN = 8
"""Pages that a guest reads from its swap at once [Linux: page-cluster 3]."""
READ_RUN = 64
"""Longest read of a file, pages."""
SYNC_RUNS = 64
"""Runs of pages that fsync has under way at once."""
AGAIN = 5
"""The operation goes on when what it owes so far is paid."""
OWES_NS = 1_000_000
"""An operation that owes more CPU time than this pays it before it goes on."""


@jit
def access(host: Any, t: int, v: int, o: int, page: int, pages: int, write: int, file_op: int) -> int:
    """Read or write pages [page, page + pages) of an object; `file_op`: through read and write calls."""
    before = host.thread[t].op_progress
    outcome = walk(host, t, v, o, page, pages, write, file_op)
    if file_op and host.now >= host.warmup_ns:
        host.vmem[host.object[o].vm].file_read_pages += host.thread[t].op_progress - before
    return outcome


@jit
def walk(host: Any, t: int, v: int, o: int, page: int, pages: int, write: int, file_op: int) -> int:
    """The loop over the pages of an operation; leaves its progress in the thread."""
    th = host.thread[t]
    x = host.object[o]
    m = x.vm
    first = x.first + page
    y = host.vmem[m]
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
            state = flags & slow
            if pg.frame > 0 and (state == 0 or state == P_NEW):
                if file_write and flags & P_DIRTY == 0:
                    th.op_progress = done
                    outcome = dirty(host, t, o, page + done, pg)
                    if outcome != DONE:
                        return outcome
                    flags = pg.flags
                if write:
                    y.writes += 1
                    row.content = -1 - y.writes % VERSIONS
                if state == P_NEW:
                    # the first use of a page that has just come in does not count as a second one
                    pg.flags = flags & ~P_NEW
                elif file_op and mode == LINUX and flags & (P_REF | P_ACTIVE | P_LISTED) == P_REF | P_LISTED:
                    activate(host, at - 1, m)
                elif mode == LRU:
                    if flags & P_LISTED:
                        list_front(host, list_of(host, m, flags), at - 1)
                elif flags & mark != mark:
                    pg.flags = flags | mark
                pg.stamp = stamp
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


@jit
def miss(host: Any, t: int, v: int, o: int, p: int, end: int, write: int, file_op: int) -> int:
    """Anything but the short path, for page `p`. DONE: look at the page again."""
    x = host.object[o]
    m = x.vm
    row = host.mapping[x.first + p]
    at = row.at
    if at <= 0:
        if at == 0 and (x.kind == ANON or (write and file_op)):
            # a first touch, or a whole page that is overwritten: nothing has to be read
            taken = take_page(host, m, t, v)
            if taken != TAKEN:
                return taken
            g = pop_free(host, m)
            if host.page[g].flags & P_SHARED:
                # the guest fills it, with zeros or with what is written: no other page may see that
                outcome = unshare(host, g, m, v)
                if outcome != DONE:
                    give_free(host, g, m)
                    return outcome
            attach(host, g, x.first + p, o)
            # the first access clears P_NEW without counting as a second one
            enlist(host, g, m, 1)
            note_stale(host, g, m)
            if x.kind == ANON:
                row.content = 0
            return back(host, g, m, v)
        return read_in(host, t, v, o, p, end, file_op)
    g = at - 1
    pg = host.page[g]
    flags = pg.flags
    if flags & P_ABSENT:
        if flags & P_READING:
            return thread_waits_io(host, t, pg.next - 1, W_DISK)
        return read_in(host, t, v, o, p, end, file_op)
    if pg.frame <= 0:
        return back(host, g, m, v)
    if flags & P_WATCHED:
        watched_touch(host, g, m, v)
        return DONE
    if flags & P_SHARED and write:
        return unshare(host, g, m, v)
    # used again before it was given up: it stays
    pg.flags = flags & ~(P_RECLAIM | P_SWAPPING)
    return DONE


@jit
def dirty(host: Any, t: int, o: int, p: int, pg: Any) -> int:
    """A file page becomes dirty. Writers wait where too much is: DONE or WAITS."""
    x = host.object[o]
    y = host.vmem[x.vm]
    # both thresholds are shares of what could hold dirty pages; the balloon's pages cannot
    # [Linux mm/page-writeback.c: global_dirtyable_memory]
    held = y.ballooned
    dirty = y.dirty if held == 0 else y.dirty * y.pages // max(1, y.pages - held)
    if dirty >= y.dirty_background and y.flush == 0:
        y.flush = 1
        wake_kernel_thread(host, x.vm)
    if dirty >= y.dirty_limit and y.writing > 0:
        return wait_memory(host, x.vm, t)
    pg.flags = pg.flags | P_DIRTY
    if x.dirty == 0:
        x.dirty_first = p
        x.dirty_end = p + 1
    else:
        x.dirty_first = min(x.dirty_first, p)
        x.dirty_end = max(x.dirty_end, p + 1)
    x.dirty += 1
    y.dirty += 1
    return DONE


@jit
def note_stale(host: Any, g: int, m: int) -> None:
    """Count a page that the hypervisor reads from its swap only for the guest to overwrite it.

    The reverse of double paging: the guest's read finds its destination swapped out [stale swap reads: Amit, Tsafrir
    and Schuster, "VSwapper", ASPLOS 2014].
    """
    pg = host.page[g]
    if pg.frame < 0 and pg.flags & P_HOSTIN == 0 and host.now >= host.warmup_ns:
        host.vmem[m].stale_swap_in_pages += 1


# reading --------------------------------------------------------------------------------------------------------


@jit
def read_in(host: Any, t: int, v: int, o: int, p: int, end: int, file_op: int) -> int:
    """Read a run of missing pages from the guest's disk, beginning with page `p`; the thread waits for it.

    Of a file: what the operation asks for up to READ_RUN pages, and beyond it the read-ahead, where it is read
    in sequence. Of
    the swap area: neighbours in object and swap, up to SWAP_RUN.
    """
    x = host.object[o]
    m = x.vm
    y = host.vmem[m]
    limit = READ_RUN
    stop = end
    if x.kind == ANON:
        limit = SWAP_RUN
        stop = x.pages
    elif x.next_read == p and y.readahead > 0:
        stop = max(stop, p + y.readahead)
    elif not file_op and y.readahead > 0:
        # a mapped file: what lies around a fault is read with it [Linux: fault-around and mmap read-around]
        stop = max(stop, p + y.readahead // 2)
    stop = min(stop, x.pages, p + limit)
    n = 0
    first_sector = 0
    q = p
    while q < stop:
        row = host.mapping[x.first + q]
        at = row.at
        slot = 0
        if at > 0:
            pg = host.page[at - 1]
            if pg.flags & (P_ABSENT | P_READING) != P_ABSENT:
                break
            slot = pg.prev
        elif at < 0:
            slot = -at
        elif x.kind == ANON:
            break
        sector = y.swap_sector + slot - 1 if slot > 0 else x.sector + q
        if n == 0:
            first_sector = sector
        elif sector != first_sector + n:
            break
        if at <= 0:
            if q > p and y.free <= y.min:
                # nothing is given up for the sake of reading ahead
                break
            taken = take_page(host, m, t, v)
            if taken != TAKEN:
                if q > p:
                    break
                return taken
            if row.at != at:
                # making room changed what is here
                break
            g = pop_free(host, m)
            attach(host, g, x.first + q, o)
            pa = host.page[g]
            pa.flags = pa.flags | P_ABSENT
            pa.prev = slot
        g = row.at - 1
        if host.page[g].frame <= 0:
            note_stale(host, g, m)
            outcome = back(host, g, m, v)
            if outcome != DONE:
                return outcome
        elif host.page[g].flags & P_SHARED:
            outcome = unshare(host, g, m, v)
            if outcome != DONE:
                return outcome
        host.page[g].flags = host.page[g].flags & ~P_SWAPPING
        n += 1
        q += 1
    if n == 0:
        return DONE
    k = io_new(host, m, x.first + p, n)
    if k < 0:
        return FAULT
    host.mem_io[k].object = o
    for i in range(p, p + n):
        pr = host.page[host.mapping[x.first + i].at - 1]
        pr.flags = pr.flags | P_READING
        pr.next = k + 1
    measured = host.now >= host.warmup_ns
    if x.kind == ANON:
        if measured:
            y.guest_swap_in_pages += n
    else:
        x.next_read = p + n
        if measured:
            y.file_miss_pages += n
    thread_waits_io(host, t, k, W_DISK)
    submit_io(host, m, 0, first_sector, n, IO_GUEST_READ, k, v)
    return WAITS


@jit
def read_done(host: Any, k: int) -> None:
    """Pages came from the guest's disk."""
    io = host.mem_io[k]
    m = io.vm
    for row in range(io.first, io.first + io.pages):
        at = host.mapping[row].at
        if at <= 0:
            continue
        g = at - 1
        pg = host.page[g]
        if pg.flags & P_READING == 0 or pg.next != k + 1:
            continue
        if pg.prev > 0:
            free_guest_slot(host, m, pg.prev - 1)
        pg.flags = pg.flags & ~(P_ABSENT | P_READING)
        enlist(host, g, m, 1)
    first = io.waiter
    io.waiter = 0
    wake_threads(host, first)


# write-back -------------------------------------------------------------------------------------------------------


@jit
def write_back(host: Any, o: int, v: int, start: int, runs: int) -> int:
    """Write up to `runs` runs of dirty pages of a file, from page `start` on.

    Returns the page to go on with (the last one's successor when there is none), -1 where the vCPU faulted.
    """
    x = host.object[o]
    p = max(start, x.dirty_first)
    while x.dirty > 0 and p < x.dirty_end and runs > 0 and host.error == 0:
        n = write_run(host, o, p, x.dirty_end, x.vm, v, 0)
        if n < 0:
            return -1
        if n == 0:
            p += 1
        else:
            p += n
            runs -= 1
    if x.dirty == 0:
        p = x.pages
    return p


@jit
def sync(host: Any, t: int, v: int, o: int) -> int:
    """fsync: all dirty pages of a file reach the disk, and the thread waits for that, some runs at a time."""
    x = host.object[o]
    th = host.thread[t]
    if x.kind == ANON:
        return DONE
    if th.op_progress < x.dirty_end and x.dirty > 0:
        p = write_back(host, o, v, th.op_progress, SYNC_RUNS)
        if p < 0:
            return FAULT
        th.op_progress = p
    if x.writing > 0:
        th.next_waiter = x.waiter - 1
        x.waiter = t + 1
        return thread_waits(host, t, W_DISK)
    return DONE


# contents ---------------------------------------------------------------------------------------------------------


@jit
def set_content(host: Any, v: int, o: int, p: int, content: int) -> int:
    """A page has the recorded contents that `content` names (table mapping) from now on."""
    x = host.object[o]
    m = x.vm
    row = host.mapping[x.first + p]
    at = row.at
    if at > 0 and host.page[at - 1].flags & P_SHARED:
        # a shared page has a frame: it is not swapped out
        if object_identity(host, m, x.first + p) != recorded_identity(host, m, content):
            outcome = unshare(host, at - 1, m, v)
            if outcome != DONE:
                return outcome
    row.content = content
    return DONE
