"""Doing what memory policies asked for (`hvbench.kernel.memory_services`)."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.guards import E_OUTBOX_KIND, E_PAGE_RANGE, E_PAGE_STATE, E_RANGE, E_VM_RANGE, fail
from hvbench.kernel.guest_thread import set_balloon
from hvbench.kernel.host_memory import E_BALANCE, invalidate, set_state
from hvbench.kernel.memory_services import (
    BY_BALLOON,
    BY_DISCARD,
    BY_PAGE,
    BY_SWAP,
    O_BALANCE,
    O_CLEAR_STATE,
    O_DRIVER,
    O_FREE_STATES,
    O_MERGE,
    O_MERGE_ZERO,
    O_POOL_OUT,
    O_RECLAIM,
    O_SCAN,
    O_TUNE_SCAN,
    O_WATCH,
)
from hvbench.kernel.page_lists import vm_of
from hvbench.kernel.reclaim import (
    WORK_MERGE,
    WORK_MERGE_ZERO,
    WORK_SCAN,
    cheapest,
    discard_volunteered,
    may_swap,
    pool_out,
    swap_from_cheapest,
    swap_out,
    swap_page,
)
from hvbench.kernel.work import submit
from hvbench.state.records_memory import P_WATCHED
from hvbench.state.schema import FIRST_MEMORY_SLOT

MOST_SCANNED = 1 << 24
"""Pages that one request may have scanned."""
MOST_BALLOON_RATE = 1_000_000_000
"""Pages a second of a balloon driver: a nanosecond a page."""


@jit
def serve_memory(host: Any, at: int) -> None:
    """Check and do one request of a memory policy."""
    r = host.outbox[at]
    what = r.what
    a = r.a
    b = r.b
    mc = host.machine[0]
    if r.slot_index < FIRST_MEMORY_SLOT or mc.frames == 0:
        fail(host, E_OUTBOX_KIND, r.row, what, a)
    elif what == O_RECLAIM:
        serve_reclaim(host, a, b, r.c, r.row)
    elif what == O_MERGE:
        if a < 0 or a >= len(host.page) or b < 0 or b >= len(host.page):
            fail(host, E_PAGE_RANGE, r.row, a, b)
            return
        submit(host, mc.scan_thread, mc.share_ns, WORK_MERGE + r.slot_index - FIRST_MEMORY_SLOT, a, b)
    elif what == O_MERGE_ZERO:
        if a < 0 or a >= len(host.page):
            fail(host, E_PAGE_RANGE, r.row, a, -1)
            return
        submit(host, mc.scan_thread, mc.share_ns, WORK_MERGE_ZERO + r.slot_index - FIRST_MEMORY_SLOT, a, -1)
    elif what == O_SCAN:
        if a < 0 or a > MOST_SCANNED:
            fail(host, E_RANGE, r.row, a, MOST_SCANNED)
            return
        submit(host, mc.scan_thread, a * mc.scan_ns, WORK_SCAN, a, r.slot_index - FIRST_MEMORY_SLOT)
    elif what == O_POOL_OUT:
        if a < 0:
            fail(host, E_RANGE, r.row, a, 0)
            return
        pool_out(host, a)
    elif what == O_TUNE_SCAN:
        if b < 0 or b > MOST_SCANNED or r.c < 0:
            fail(host, E_RANGE, r.row, b, MOST_SCANNED)
            return
        mc.scan_run = 1 if a else 0
        mc.scan_pages = b
        mc.scan_sleep_ns = r.c
    elif what == O_FREE_STATES:
        if a < b or b < r.c or r.c < r.d or r.d < 0 or a > 1_000_000:
            fail(host, E_RANGE, r.row, a, r.d)
            return
        set_thresholds(host, a, b, r.c, r.d)
    elif what == O_BALANCE:
        if a < 1:
            fail(host, E_RANGE, r.row, a, 1)
            return
        mc.balance_ns = a
        arm(host, K_MEMORY, E_BALANCE, host.now)
    elif what == O_CLEAR_STATE:
        clear = mc.frames * a // 1_000_000
        if a < 0 or clear < mc.soft or clear > mc.high:
            fail(host, E_RANGE, r.row, a, mc.high)
            return
        mc.clear = clear
        set_state(host)
    elif what == O_WATCH:
        if a < 0 or a >= len(host.page):
            fail(host, E_PAGE_RANGE, r.row, a, b)
            return
        watch_page(host, a, b)
    elif what == O_DRIVER:
        if b < 0 or b > MOST_BALLOON_RATE:
            fail(host, E_RANGE, r.row, b, MOST_BALLOON_RATE)
            return
        mc.deflate_on_oom = 1 if a else 0
        if b > 0:
            mc.balloon_rate = b
    else:
        fail(host, E_OUTBOX_KIND, r.row, what, a)


@jit
def watch_page(host: Any, g: int, on: int) -> None:
    """Take a page's mapping away to see its next touch, or put it back. No 2 MiB mapping is split for it."""
    pg = host.page[g]
    if not on:
        pg.flags = pg.flags & ~P_WATCHED
    elif not pg.flags & P_WATCHED:
        pg.flags = pg.flags | P_WATCHED
        if pg.frame > 0:
            invalidate(host, vm_of(host, g), -1)


@jit
def serve_reclaim(host: Any, m: int, how: int, amount: int, row: int) -> None:
    """Take memory from a VM, in one of three ways."""
    if how == BY_PAGE:
        if amount < 0 or amount >= len(host.page):
            fail(host, E_PAGE_RANGE, row, amount, m)
        elif not may_swap(host, amount) or host.vmem[vm_of(host, amount)].pinned:
            fail(host, E_PAGE_STATE, row, amount, m)
        else:
            swap_page(host, amount, vm_of(host, amount))
        return
    if m < -1 or m >= host.vms:
        fail(host, E_VM_RANGE, row, m, how)
    elif amount < 0 or amount > len(host.page):
        fail(host, E_RANGE, row, amount, m)
    elif how == BY_SWAP:
        if m < 0:
            swap_from_cheapest(host, amount)
        else:
            swap_out(host, m, amount)
    elif how == BY_DISCARD:
        if m < 0:
            m = cheapest(host)
        if m >= 0 and not host.vmem[m].pinned:
            discard_volunteered(host, m, amount)
    elif how == BY_BALLOON:
        if m < 0:
            m = cheapest(host)
        if m >= 0:
            x = host.vmem[m]
            set_balloon(host, m, min(x.pages, max(x.ballooned, x.balloon_target) + amount))
    else:
        fail(host, E_RANGE, row, how, m)


@jit
def set_thresholds(host: Any, high_ppm: int, soft_ppm: int, hard_ppm: int, low_ppm: int) -> None:
    """The free-memory states begin at these shares of machine memory, without a state `clear`; it improves a quarter
    of high - soft above a threshold."""
    mc = host.machine[0]
    mc.high = mc.frames * high_ppm // 1_000_000
    mc.soft = mc.frames * soft_ppm // 1_000_000
    mc.hard = mc.frames * hard_ppm // 1_000_000
    mc.low = mc.frames * low_ppm // 1_000_000
    mc.clear = 0
    mc.hysteresis = max(1, (mc.high - mc.soft) // 4)
    set_state(host)
