"""The guest's kernel: which guest page holds what, and how pages are taken and given back.

Free pages are a stack on which recently freed ones lie on top, and behind it the pages never used. `take_page`
reclaims itself
where nothing is free; write-back and swapping go through the VM's virtual disk. Whoever needs a page and finds
none that can be had
at once waits for one; only where nothing can be given up, and nothing is on its way, a process is killed
(`hvbench.kernel.oom`).
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.guest_reclaim import discard, shrink, wake_kernel_thread
from hvbench.kernel.host_memory import E_FIRST_VM, EV_OOM, VM_EVENTS
from hvbench.kernel.memory_io import thread_waits
from hvbench.kernel.outcome import FAULT
from hvbench.kernel.page_lists import list_of, list_push
from hvbench.state.records import W_MEMORY
from hvbench.state.records_memory import ANON, LINUX, P_FILE, P_FREE, P_NEW, P_VM_SHIFT, P_WATCHED

TAKEN = 4
"""Outcome of `take_page`: there is a page."""

BATCH = 32
"""Pages that a thread reclaims at once [Linux: SWAP_CLUSTER_MAX]."""


@jit
def pop_free(host: Any, m: int) -> int:
    """A free page of the guest, the most recently used first; -1 for none."""
    x = host.vmem[m]
    g = x.free_first - 1
    if g >= 0:
        x.free_first = host.page[g].next
        host.page[g].next = 0
        host.page[g].flags = host.page[g].flags & ~P_FREE
    else:
        if x.fresh >= x.pages:
            return -1
        g = x.first + x.fresh
        x.fresh += 1
        # it may be watched already
        host.page[g].flags = (host.page[g].flags & P_WATCHED) | (m << P_VM_SHIFT)
    x.free -= 1
    return g


@jit
def take_page(host: Any, m: int, t: int, v: int) -> int:
    """Make sure that `pop_free` finds a page: TAKEN, FAULT, or WAITS (the thread waits, and tries again)."""
    x = host.vmem[m]
    if x.replacement == LINUX:
        if x.free <= x.low and x.reclaiming == 0:
            x.reclaiming = 1
            wake_kernel_thread(host, m)
        if x.free > x.min:
            return TAKEN
        enough = BATCH
    else:
        if x.free > 0:
            return TAKEN
        enough = 1
    got = 0
    if x.leaving < enough:
        got = shrink(host, m, v, enough)
        if got < 0:
            return FAULT
    if x.free > 0:
        return TAKEN
    if x.writing == 0 and got == 0 and x.oom_due == 0:
        # in an event of its own: the process that dies may be the one that asks
        x.oom_due = 1
        arm(host, K_MEMORY, E_FIRST_VM + VM_EVENTS * m + EV_OOM, host.now)
    return wait_memory(host, m, t)


@jit
def wait_memory(host: Any, m: int, t: int) -> int:
    """The thread waits, first come first served, until the guest has a free page."""
    x = host.vmem[m]
    host.thread[t].next_waiter = -1
    if x.waiter_last > 0:
        host.thread[x.waiter_last - 1].next_waiter = t
    else:
        x.waiter_first = t + 1
    x.waiter_last = t + 1
    if x.replacement == LINUX and x.reclaiming == 0:
        x.reclaiming = 1
        wake_kernel_thread(host, m)
    return thread_waits(host, t, W_MEMORY)


@jit
def attach(host: Any, g: int, row: int, o: int) -> None:
    """A free page holds an object's page from now on; it is on no list yet."""
    pg = host.page[g]
    pg.owner = row + 1
    if host.object[o].kind != ANON:
        pg.flags = pg.flags | P_FILE
    host.mapping[row].at = g + 1
    host.object[o].resident += 1


@jit
def enlist(host: Any, g: int, m: int, new: int) -> None:
    """Put a page that holds something on the list of new pages; `new`: it was read in and nobody used it yet."""
    pg = host.page[g]
    if new:
        pg.flags = pg.flags | P_NEW
    list_push(host, list_of(host, m, pg.flags), g)


@jit
def forget(host: Any, o: int, first: int, end: int) -> None:
    """Pages [first, end) of an anonymous object are freed, wherever they are."""
    x = host.object[o]
    for p in range(first, end):
        row = x.first + p
        if host.mapping[row].at != 0:
            discard(host, o, row)


@jit
def exit_process(host: Any, group: int, process: int) -> None:
    """A process exits (all of the group's, where `process` is -1): its anonymous memory is freed."""
    r = host.replay[group]
    for i in range(r.first, r.first + r.objects):
        o = host.object_of[i].object
        x = host.object[o]
        if x.kind == ANON and (process < 0 or x.process == process):
            forget(host, o, 0, x.pages)
            x.allocated = 0
