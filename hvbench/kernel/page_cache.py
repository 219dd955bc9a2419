"""The guest's page cache and its faults: what accesses do that are not short (`hvbench.kernel.touches`)."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.guest_memory import TAKEN, attach, enlist, pop_free, take_page, wait_memory
from hvbench.kernel.guest_reclaim import free_guest_slot, give_free, wake_kernel_thread, write_run
from hvbench.kernel.host_memory import back, unshare, watched_touch
from hvbench.kernel.io_codes import IO_GUEST_READ
from hvbench.kernel.memory_io import io_new, thread_waits, thread_waits_io, wake_threads
from hvbench.kernel.outcome import DONE, FAULT, WAITS
from hvbench.kernel.page_lists import object_identity, recorded_identity
from hvbench.kernel.sharing import serve_image_read
from hvbench.kernel.storage import submit_io
from hvbench.state.records import W_DISK
from hvbench.state.records_memory import (
    ANON,
    IMAGE,
    LINUX,
    P_ABSENT,
    P_DIRTY,
    P_HOSTIN,
    P_READING,
    P_RECLAIM,
    P_SHARED,
    P_SWAPPING,
    P_WATCHED,
)

SWAP_RUN = 8
"""Pages that a guest reads from its swap at once [Linux: page-cluster 3]."""
READ_RUN = 64
"""Longest read of a file, pages."""
SYNC_RUNS = 64
"""Runs of pages that fsync has under way at once."""
AGAIN = 5
"""The operation goes on when what it owes so far is paid."""


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
            if host.now >= host.warmup_ns:
                host.vmem[m].guest_faults += 1
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

    Of a file: what the operation asks for up to READ_RUN pages, and beyond it the read-ahead, where it is read in
    sequence. Of the swap area: neighbours in object and swap, up to SWAP_RUN. Else than under `linux`: the page.
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
    if y.replacement != LINUX:
        # the textbook's algorithms bring in what is asked for, one page after the other
        limit = 1
    stop = min(stop, x.pages, p + limit)
    n = 0
    first_sector = 0
    start = p
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
            if q == p and host.now >= host.warmup_ns:
                y.guest_faults += 1
            if at == 0 and x.kind == IMAGE and row.content >= 0 and serve_image_read(host, g, m, v, 0):
                enlist(host, g, m, 1)
                q += 1
                x.next_read = q
                if n > 0:
                    break
                start = q
                continue
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
    k = io_new(host, m, x.first + start, n)
    if k < 0:
        return FAULT
    host.mem_io[k].object = o
    for i in range(start, start + n):
        pr = host.page[host.mapping[x.first + i].at - 1]
        pr.flags = pr.flags | P_READING
        pr.next = k + 1
    measured = host.now >= host.warmup_ns
    if x.kind == ANON:
        if measured:
            y.guest_swap_in_pages += n
    else:
        x.next_read = q
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
        if io.object >= 0 and host.object[io.object].kind == IMAGE and host.mapping[row].content >= 0:
            serve_image_read(host, g, m, host.vm[m].first_vcpu, 1)
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
