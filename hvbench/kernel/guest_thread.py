"""A guest kernel's own thread, one a VM: background reclaim, the balloon driver, write-back.

It has no recorded operations. It is a thread like any other: it needs vCPU time, waits its turn, and faults.
Each call does a bounded
piece of work, and is paid for it in CPU time before the next piece.

Sources: kswapd and its watermarks: Gorman 2004, chapter 10. Balloon: Waldspurger, OSDI 2002, section 3.2: the
driver takes pages with the guest's
own allocator, so that the guest decides what to give up, and may have to page to its own disk.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.guest_memory import pop_free
from hvbench.kernel.guest_reclaim import give_free, shrink, wake_kernel_thread
from hvbench.kernel.host_memory import E_FIRST_VM, EV_BALLOON, VM_EVENTS, account, unback
from hvbench.kernel.memory_io import thread_waits
from hvbench.kernel.outcome import BUSY, FAULT
from hvbench.kernel.page_cache import write_back
from hvbench.state.records import W_MEMORY
from hvbench.state.records_memory import (
    ANON,
    LINUX,
    P_BALLOON,
    P_HOSTIN,
    P_SWAPPING,
)

RECLAIM_BATCH = 32
WRITE_RUNS = 16
WRITES_AT_ONCE = 64
"""Writes of a guest that its write-back has under way at once."""
RETRY_NS = 200_000_000
"""Pause of a balloon that found no page [Linux virtio_balloon: 200 ms]."""


@jit
def kernel_thread(host: Any, t: int, v: int) -> int:
    """The next piece of work of a guest's kernel thread, most urgent first."""
    m = host.thread[t].vm
    x = host.vmem[m]
    e = host.vcpu[v]
    before = e.overhead_left_ns
    if x.reclaiming:
        if x.replacement != LINUX or x.free + x.leaving >= x.high:
            x.reclaiming = 0
        else:
            got = shrink(host, m, v, RECLAIM_BATCH)
            if got < 0:
                return FAULT
            if got == 0:
                x.reclaiming = 0
    elif x.flush and x.writing < WRITES_AT_ONCE:
        before_writing = x.writing
        if not flush(host, m, v):
            return FAULT
        if x.writing == before_writing:
            x.flush = 0
    elif x.balloon and x.ballooned != x.balloon_target and x.balloon_waits == 0:
        if host.now < x.balloon_next_ns:
            arm(host, K_MEMORY, E_FIRST_VM + VM_EVENTS * m + EV_BALLOON, x.balloon_next_ns)
            return thread_waits(host, t, W_MEMORY)
        outcome = move_balloon(host, m, v)
        if outcome == FAULT:
            return FAULT
    else:
        return thread_waits(host, t, W_MEMORY)
    # what it did is guest work: it is run like a compute
    spent = e.overhead_left_ns - before
    e.overhead_left_ns = before
    th = host.thread[t]
    th.in_op = 1
    th.recorded_left_ns = 0
    th.overhead_left_ns = 0
    th.work_left_ns = max(1, spent)
    return BUSY


@jit
def flush(host: Any, m: int, v: int) -> bool:
    """Write dirty pages back, some runs at a time; False where the vCPU faulted."""
    x = host.vmem[m]
    for o in range(x.first_object, x.first_object + x.objects):
        y = host.object[o]
        if y.kind != ANON and y.dirty > 0:
            before = x.writing
            if write_back(host, o, v, 0, WRITE_RUNS) < 0:
                return False
            if x.writing > before:
                break
    return True


@jit
def leak(host: Any, m: int, pages: int) -> None:
    """Give `pages` pages of a balloon back to the guest."""
    x = host.vmem[m]
    for _ in range(pages):
        g = x.balloon_first - 1
        x.balloon_first = host.page[g].next
        host.page[g].flags = host.page[g].flags & ~P_BALLOON
        account(host, m)
        x.ballooned -= 1
        give_free(host, g, m)


@jit
def move_balloon(host: Any, m: int, v: int) -> int:
    """One step of the balloon towards its target: at most a chunk of pages, then a pause as its rate says."""
    mc = host.machine[0]
    x = host.vmem[m]
    moved = 0
    if x.ballooned < x.balloon_target:
        want = min(mc.balloon_chunk, x.balloon_target - x.ballooned)
        while moved < want:
            floor = x.min if x.replacement == LINUX else 0
            if x.free <= floor:
                if x.leaving < RECLAIM_BATCH:
                    got = shrink(host, m, v, min(RECLAIM_BATCH, want - moved))
                    if got < 0:
                        return FAULT
                if x.free <= floor:
                    break
            g = pop_free(host, m)
            pg = host.page[g]
            if pg.flags & P_HOSTIN:
                # the hypervisor is just reading it: leave it for the next step
                give_free(host, g, m)
                break
            pg.flags = (pg.flags & ~P_SWAPPING) | P_BALLOON
            if pg.frame > 0 and host.now >= host.warmup_ns:
                x.host_reclaimed_pages += 1
            unback(host, g, m)
            pg.next = x.balloon_first
            x.balloon_first = g + 1
            account(host, m)
            x.ballooned += 1
            moved += 1
    else:
        want = min(mc.balloon_chunk, x.ballooned - x.balloon_target)
        leak(host, m, want)
        moved = want
    host.vcpu[v].overhead_left_ns += moved * mc.balloon_ns
    pause = moved * 1_000_000_000 // mc.balloon_rate
    if moved < want and x.writing > 0:
        # the guest's writes will free some
        x.balloon_waits = 1
    elif moved == 0:
        pause = RETRY_NS
    x.balloon_next_ns = host.now + pause
    return BUSY


@jit
def set_balloon(host: Any, m: int, target_pages: int) -> None:
    """Let the balloon of a VM move to a size; the driver does it in its own time."""
    x = host.vmem[m]
    if not x.balloon or x.pinned:
        return
    if x.balloon_asked != target_pages:
        x.balloon_asked = target_pages
        x.balloon_target = target_pages
        if target_pages != x.ballooned:
            wake_kernel_thread(host, m)
