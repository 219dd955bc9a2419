"""The guest's kernel gives pages up: which ones, write-back, swapping, and giving pages back.

`linux` keeps an active and an inactive list for anonymous and for file pages: new pages start inactive, a page
seen used again at the tail
of the inactive list becomes active, active pages age back when the inactive list is the shorter one. `lru`,
`clock` and `fifo` are the
exact textbook algorithms, one page at a time, for comparison with cache simulators.

Source: M. Gorman, "Understanding the Linux Virtual Memory Manager", 2004, chapter 10; Linux mm/vmscan.c
(swappiness, SWAP_CLUSTER_MAX).
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import machine_code, prefetch
from hvbench.kernel.host_memory import back
from hvbench.kernel.io_codes import IO_GUEST_SWAP_OUT, IO_GUEST_WRITE
from hvbench.kernel.memory_io import io_new, wake_threads
from hvbench.kernel.outcome import FAULT
from hvbench.kernel.page_lists import list_front, list_of, list_push, list_remove, object_of_row
from hvbench.kernel.storage import submit_io
from hvbench.kernel.threads import thread_ready
from hvbench.state.records import T_WAITING
from hvbench.state.records_memory import (
    ACTIVE_ANON,
    ACTIVE_FILE,
    CLOCK,
    INACTIVE_ANON,
    INACTIVE_FILE,
    LINUX,
    LISTS,
    P_ABSENT,
    P_ACTIVE,
    P_DIRTY,
    P_FILE,
    P_FREE,
    P_LISTED,
    P_NEW,
    P_READING,
    P_RECLAIM,
    P_REF,
    P_WRITEBACK,
)

RUN_PAGES = 32
"""Longest run of pages in one write [Linux: SWAP_CLUSTER_MAX]."""

GUEST_FLAGS = P_REF | P_DIRTY | P_ACTIVE | P_FILE | P_ABSENT | P_READING | P_WRITEBACK | P_RECLAIM | P_LISTED | P_NEW


@jit
def wake_kernel_thread(host: Any, m: int) -> None:
    """The VM's kernel thread has something to do."""
    t = host.vmem[m].thread
    if t >= 0 and host.thread[t].state == T_WAITING:
        thread_ready(host, t, -1)


# giving back ---------------------------------------------------------------------------------------------------


@jit
def give_free(host: Any, g: int, m: int) -> None:
    """A guest page that holds nothing is free; whoever waits longest for one may try."""
    x = host.vmem[m]
    pg = host.page[g]
    pg.flags = (pg.flags & ~GUEST_FLAGS) | P_FREE
    pg.owner = 0
    pg.prev = 0
    pg.next = x.free_first
    x.free_first = g + 1
    x.free += 1
    if x.waiter_first > 0:
        t = x.waiter_first - 1
        x.waiter_first = host.thread[t].next_waiter + 1
        if x.waiter_first == 0:
            x.waiter_last = 0
        host.thread[t].next_waiter = -1
        thread_ready(host, t, -1)
    elif x.balloon_waits:
        x.balloon_waits = 0
        wake_kernel_thread(host, m)


@jit
def clean(host: Any, o: int, pg: Any) -> None:
    """A dirty file page is dirty no more."""
    if pg.flags & P_DIRTY:
        pg.flags = pg.flags & ~P_DIRTY
        host.object[o].dirty -= 1
        host.vmem[host.object[o].vm].dirty -= 1


@jit
def discard(host: Any, o: int, row: int) -> None:
    """An object's page is given up where it is: memory or guest swap. Its contents are lost, or on disk."""
    m = host.object[o].vm
    at = host.mapping[row].at
    host.mapping[row].at = 0
    if at < 0:
        free_guest_slot(host, m, -at - 1)
        return
    g = at - 1
    pg = host.page[g]
    flags = pg.flags
    host.object[o].resident -= 1
    if flags & P_LISTED:
        list_remove(host, list_of(host, m, flags), g)
    elif pg.prev > 0:
        # on its way to or from the guest's swap
        free_guest_slot(host, m, pg.prev - 1)
    if flags & P_FILE:
        clean(host, o, pg)
    give_free(host, g, m)


# the guest's swap area ---------------------------------------------------------------------------------------


@jit
def take_guest_slot(host: Any, m: int) -> int:
    """A free page of the guest's swap area, next fit; -1 when it is full. Amortised O(1)."""
    x = host.vmem[m]
    if x.slots_used >= x.slots:
        return -1
    s = x.slot_hand
    while host.guest_slot[x.first_slot + s].owner != 0:
        s += 1
        if s == x.slots:
            s = 0
    x.slot_hand = s + 1 if s + 1 < x.slots else 0
    x.slots_used += 1
    return s


@jit
def free_guest_slot(host: Any, m: int, s: int) -> None:
    """A page of the guest's swap area is free."""
    x = host.vmem[m]
    host.guest_slot[x.first_slot + s].owner = 0
    x.slots_used -= 1


@jit
def send_swap(host: Any, m: int, v: int, first: int, pages: int) -> None:
    """Write a run of swap slots, whose pages are marked, to the guest's disk."""
    k = io_new(host, m, first, pages)
    if k < 0:
        return
    x = host.vmem[m]
    x.writing += 1
    x.leaving += pages
    if host.now >= host.warmup_ns:
        x.guest_swap_out_pages += pages
    submit_io(host, m, 1, x.swap_sector + first, pages, IO_GUEST_SWAP_OUT, k, v)


@jit
def swap_out_done(host: Any, k: int) -> None:
    """Anonymous pages are on the guest's swap: those that nobody used meanwhile are free."""
    io = host.mem_io[k]
    m = io.vm
    x = host.vmem[m]
    x.writing -= 1
    x.leaving -= io.pages
    for s in range(io.first, io.first + io.pages):
        owner = host.guest_slot[x.first_slot + s].owner
        if owner <= 0:
            continue
        at = host.mapping[owner - 1].at
        if at <= 0:
            continue
        g = at - 1
        pg = host.page[g]
        if pg.prev != s + 1 or pg.flags & P_LISTED or not pg.flags & P_WRITEBACK:
            continue
        pg.prev = 0
        if pg.flags & P_RECLAIM:
            host.mapping[owner - 1].at = -(s + 1)
            host.object[object_of_row(host, m, owner - 1)].resident -= 1
            if host.now >= host.warmup_ns:
                x.guest_reclaimed_pages += 1
            give_free(host, g, m)
        else:
            pg.flags = pg.flags & ~P_WRITEBACK
            free_guest_slot(host, m, s)
            list_push(host, list_of(host, m, pg.flags), g)
    writes_done(host, m)


@jit
def writes_done(host: Any, m: int) -> None:
    """A guest write has ended: whoever waits for memory looks again, so that nobody waits for ever."""
    x = host.vmem[m]
    if x.waiter_first > 0 and (x.writing == 0 or x.free > x.min):
        first = x.waiter_first
        x.waiter_first = 0
        x.waiter_last = 0
        wake_threads(host, first)
    if x.balloon_waits or x.flush:
        x.balloon_waits = 0
        wake_kernel_thread(host, m)


# write-back -------------------------------------------------------------------------------------------------------


@jit
def write_run(host: Any, o: int, p: int, end: int, m: int, v: int, flags: int) -> int:
    """Write the run of dirty pages that begins at page `p` of a file; returns its length, FAULT as -1.

    `flags` is set on its pages: P_RECLAIM where they are to be given up afterwards. The run ends at a clean
    page, at a page that the
    hypervisor swapped out (but for the first, which is brought back), at `end`, and after RUN_PAGES pages.
    """
    x = host.object[o]
    n = 0
    while p + n < end and n < RUN_PAGES:
        at = host.mapping[x.first + p + n].at
        if at <= 0:
            break
        pg = host.page[at - 1]
        if not pg.flags & P_DIRTY or pg.flags & (P_WRITEBACK | P_READING):
            break
        if pg.frame <= 0:
            if n > 0:
                break
            if back(host, at - 1, m, v) == FAULT:
                return -1
        clean(host, o, pg)
        pg.flags = pg.flags | P_WRITEBACK | flags
        n += 1
    if n > 0:
        k = io_new(host, m, x.first + p, n)
        if k < 0:
            return 0
        host.mem_io[k].object = o
        x.writing += 1
        host.vmem[m].writing += 1
        if flags & P_RECLAIM:
            host.mem_io[k].leaving = n
            host.vmem[m].leaving += n
        submit_io(host, m, 1, x.sector + p, n, IO_GUEST_WRITE, k, v)
    return n


@jit
def write_done(host: Any, k: int) -> None:
    """File pages are on disk: those to be given up, and still clean, are."""
    io = host.mem_io[k]
    m = io.vm
    o = io.object
    x = host.object[o]
    x.writing -= 1
    y = host.vmem[m]
    y.writing -= 1
    y.leaving -= io.leaving
    for row in range(io.first, io.first + io.pages):
        at = host.mapping[row].at
        if at <= 0:
            continue
        pg = host.page[at - 1]
        flags = pg.flags
        if not flags & P_WRITEBACK:
            continue
        pg.flags = flags & ~(P_WRITEBACK | P_RECLAIM)
        if flags & P_RECLAIM and not flags & P_DIRTY:
            if host.now >= host.warmup_ns:
                y.guest_reclaimed_pages += 1
            discard(host, o, row)
    if x.writing == 0 and x.waiter > 0:
        first = x.waiter
        x.waiter = 0
        wake_threads(host, first)
    writes_done(host, m)


# choosing what to give up ------------------------------------------------------------------------------------


@jit
def age(host: Any, m: int, active: int, inactive: int) -> int:
    """Move pages from the tail of an active list to the inactive one while that is the shorter; returns pages
    looked at."""
    a = host.page_list[m * LISTS + active]
    i = host.page_list[m * LISTS + inactive]
    looked = 0
    while looked < RUN_PAGES and a.count > i.count:
        g = a.last - 1
        list_remove(host, m * LISTS + active, g)
        pg = host.page[g]
        pg.flags = pg.flags & ~(P_ACTIVE | P_REF)
        list_push(host, m * LISTS + inactive, g)
        looked += 1
    return looked


@jit
def shrink(host: Any, m: int, v: int, want: int) -> int:
    """Give up `want` pages; returns how many were given up or are on their way out, -1 where the vCPU faulted.

    The time that the guest's kernel takes is paid by vCPU `v`.
    """
    x = host.vmem[m]
    got = 0
    looked = 0
    files = m * LISTS + INACTIVE_FILE
    anon = m * LISTS + INACTIVE_ANON
    linux = x.replacement == LINUX
    if linux:
        total = host.page_list[files].count + host.page_list[anon].count
        total += host.page_list[m * LISTS + ACTIVE_FILE].count + host.page_list[m * LISTS + ACTIVE_ANON].count
    else:
        total = host.page_list[anon].count
    # every page may have to be looked at twice: once to see that it was used, once to take it
    limit = 2 * total + 2 * RUN_PAGES
    run_first = -1
    run_pages = 0
    while got < want and looked < limit and host.error == 0:
        if linux:
            which = choose_list(host, m)
            if which < 0:
                break
            if which == files:
                looked += age(host, m, ACTIVE_FILE, INACTIVE_FILE)
            else:
                looked += age(host, m, ACTIVE_ANON, INACTIVE_ANON)
        else:
            which = anon
        g = host.page_list[which].last - 1
        if g < 0:
            if linux:
                looked += RUN_PAGES
                continue
            break
        looked += 1
        pg = host.page[g]
        flags = pg.flags
        if machine_code():
            # the next victim lies anywhere in memory, and so does what it holds
            after = pg.prev - 1
            prefetch(host.mapping, host.page[max(after, 0)].owner - 1)
            prefetch(host.page, host.page[max(after, 0)].prev - 1)
        if flags & P_REF and x.replacement == CLOCK:
            # its second chance, also of a page that is just being written
            pg.flags = flags & ~P_REF
            list_front(host, which, g)
            continue
        if flags & P_WRITEBACK:
            if flags & P_FILE and not flags & P_RECLAIM:
                pg.flags = flags | P_RECLAIM
                got += 1
            if not linux:
                # the page that must go is being written already: that is the one to wait for
                pg.flags = pg.flags | P_RECLAIM
                got += 1
                break
            list_front(host, which, g)
            continue
        if flags & P_REF and linux:
            pg.flags = flags & ~P_REF
            list_remove(host, which, g)
            pg.flags = pg.flags | P_ACTIVE
            list_push(host, list_of(host, m, pg.flags), g)
            continue
        row = pg.owner - 1
        o = object_of_row(host, m, row)
        if flags & P_FILE:
            if flags & P_DIRTY:
                p = row - host.object[o].first
                n = write_run(host, o, p, host.object[o].pages if linux else p + 1, m, v, P_RECLAIM)
                if n < 0:
                    got = -1
                    break
                got += n
                if not linux:
                    break
                list_front(host, which, g)
            else:
                discard(host, o, row)
                got += 1
                if host.now >= host.warmup_ns:
                    x.guest_reclaimed_pages += 1
            continue
        # anonymous: to the guest's swap
        if pg.frame <= 0:
            if pg.frame < 0 and host.now >= host.warmup_ns:
                x.double_paging_pages += 1
            if back(host, g, m, v) == FAULT:
                got = -1
                break
        s = take_guest_slot(host, m)
        if s < 0:
            list_front(host, which, g)
            continue
        host.guest_slot[x.first_slot + s].owner = row + 1
        list_remove(host, which, g)
        pg.flags = (pg.flags & ~(P_REF | P_NEW)) | P_WRITEBACK | P_RECLAIM
        pg.prev = s + 1
        if run_pages > 0 and (s != run_first + run_pages or run_pages == RUN_PAGES):
            send_swap(host, m, v, run_first, run_pages)
            run_pages = 0
        if run_pages == 0:
            run_first = s
        run_pages += 1
        got += 1
        if not linux:
            break
    if run_pages > 0:
        send_swap(host, m, v, run_first, run_pages)
    host.vcpu[v].overhead_left_ns += looked * host.machine[0].guest_scan_ns
    return got


@jit
def choose_list(host: Any, m: int) -> int:
    """Whether file or anonymous pages are looked at next: in turns, as swappiness shares them; -1 for neither."""
    x = host.vmem[m]
    k = m * LISTS
    files = host.page_list[k + ACTIVE_FILE].count + host.page_list[k + INACTIVE_FILE].count
    anon = host.page_list[k + ACTIVE_ANON].count + host.page_list[k + INACTIVE_ANON].count
    if x.slots_used >= x.slots:
        anon = 0
    if files == 0:
        return k + INACTIVE_ANON if anon > 0 else -1
    if anon == 0:
        return k + INACTIVE_FILE
    turn = x.scan_turn + x.swappiness
    if turn >= 200:
        x.scan_turn = turn - 200
        return k + INACTIVE_ANON
    x.scan_turn = turn
    return k + INACTIVE_FILE
