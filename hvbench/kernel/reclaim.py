"""The hypervisor takes memory back: the layers of the memory stack in order, victims, its swap; and asks for
balloon targets.

A round of reclaim runs in an event of its own: each layer is told how many frames are still missing, and
answers for how many of them it
sees to. What no layer takes on is swapped by the kernel itself where a vCPU waits for a frame, since that vCPU
can only be helped so.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_MEMORY, ask
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.guards import E_PAGE_STATE, E_RANGE, E_TARGET, fail
from hvbench.kernel.guest_reclaim import discard
from hvbench.kernel.guest_thread import set_balloon
from hvbench.kernel.hook_rows import MEM_BALLOON_TARGET, MEM_IDLE_PRICE, MEM_PICK_VICTIM, MEM_RECLAIM, MEM_SWAP_OUT
from hvbench.kernel.host_memory import (
    E_BALANCE,
    E_RECLAIM,
    NEVER,
    SPLIT_SWAP,
    UNSURE,
    account,
    drop_frame,
    fit_pool,
    free_slot,
    invalidate,
    split,
    unback,
)
from hvbench.kernel.io_codes import IO_HOST_SWAP_OUT, IO_POOL_OUT
from hvbench.kernel.memory_io import io_new
from hvbench.kernel.memory_services import KEEP, TO_POOL, TO_SWAP, swappable
from hvbench.kernel.page_lists import object_of_row, vm_of
from hvbench.kernel.pool import class_of, compressed_size, pool_enter, pool_leave, pool_unlink
from hvbench.kernel.services import random_below
from hvbench.kernel.storage import submit_io
from hvbench.kernel.work import submit
from hvbench.state.records_memory import (
    HARD,
    INACTIVE_ANON,
    INACTIVE_FILE,
    LINUX,
    LISTS,
    LOW,
    P_DIRTY,
    P_FILE,
    P_NEW,
    P_REF,
    P_SHARED,
    P_SWAPPING,
    SOFT,
)

WORK_SWAP_OUT, WORK_SCAN, WORK_COMPRESS, WORK_POOL_OUT, WORK_MERGE, WORK_MERGE_ZERO = 64, 65, 66, 67, 72, 80
"""What a memory host thread's work is for (hvbench.kernel.work); the last two are the first of eight, one a layer."""

BATCH = 32
DIRECT_NS = 10_000_000
"""Reclaim looks again after this time while a vCPU waits for a frame, and while free memory is hard or low: a
policy may keep VMs from running until memory is back, so that nobody waits for a frame [Linux's kswapd goes on until
its watermark is reached, too]."""
TRIES = 64
MOST_SWAPPING = 4096
"""Pages on their way to the hypervisor's swap at once, so that the queue of its disk stays bounded."""


# rounds ---------------------------------------------------------------------------------------------------------


@jit
def reclaim_round(host: Any) -> None:
    """Ask the layers for what is missing; see the module's docstring."""
    mc = host.machine[0]
    state = mc.state
    missing = 0
    if state >= SOFT:
        missing = mc.goal - mc.free - mc.swapping
    if mc.waiters > 0:
        state = LOW
        missing = max(missing, mc.waiters + mc.floor - mc.free, BATCH - mc.swapping)
    if missing > 0:
        left = missing
        for layer in range(host.machine[0].layers):
            if left > 0 and (layer == 0 or host.hook[MEM_RECLAIM + layer].address != 0):
                answer = ask(host, AXIS_MEMORY, MEM_RECLAIM + layer, left, state, host.now, 0, 0, 0)
                if answer < 0 or answer > left:
                    fail(host, E_RANGE, MEM_RECLAIM + layer, answer, left)
                    return
                left -= answer
        stuck = mc.freed == mc.freed_seen and mc.swapping == 0
        if mc.waiters > 0 and (left > 0 or stuck):
            swap_from_cheapest(host, missing if stuck else left)
    mc.freed_seen = mc.freed
    if mc.waiters > 0 or mc.state >= HARD:
        arm(host, K_MEMORY, E_RECLAIM, host.now + DIRECT_NS)


@jit
def balance(host: Any) -> None:
    """Ask for every VM's size, and let its balloon move there: the smallest of the layers' answers, no less than its
    reservation."""
    mc = host.machine[0]
    arm(host, K_MEMORY, E_BALANCE, host.now + mc.balance_ns)
    for m in range(host.vms):
        size = host.vmem[m].pages
        target = size
        for layer in range(host.machine[0].layers):
            if layer == 0 or host.hook[MEM_BALLOON_TARGET + layer].address != 0:
                answer = ask(host, AXIS_MEMORY, MEM_BALLOON_TARGET + layer, m, host.now, 0, 0, 0, -1)
                if answer < -1 or answer > size:
                    fail(host, E_TARGET, MEM_BALLOON_TARGET + layer, answer, m)
                    return
                if answer >= 0 and answer < target:
                    target = answer
        set_balloon(host, m, size - max(target, min(size, host.vmem[m].reservation)))
    if mc.state >= SOFT:
        arm(host, K_MEMORY, E_RECLAIM, host.now)


# victims --------------------------------------------------------------------------------------------------------


@jit
def may_swap(host: Any, g: int) -> bool:
    """Whether the hypervisor can swap a guest page out: nobody else maps its frame, and nothing is done to it now."""
    return swappable(host, g)


@jit
def random_victim(host: Any, m: int) -> int:
    """A random page of a VM that can be swapped out, -1 for none [ESX: Waldspurger 2002, 4.3]."""
    x = host.vmem[m]
    used = x.pages if x.large_backing else x.fresh
    for _ in range(TRIES):
        g = x.first + random_below(host, used)
        if may_swap(host, g):
            return g
    start = random_below(host, used)
    for i in range(used):
        g = x.first + (start + i) % used
        if may_swap(host, g):
            return g
    return -1


@jit
def pick_victim(host: Any, m: int) -> int:
    """The page of a VM to swap out next: the first layer that has one, else a random one; -1 for none."""
    for layer in range(host.machine[0].layers):
        if layer == 0 or host.hook[MEM_PICK_VICTIM + layer].address != 0:
            g = ask(host, AXIS_MEMORY, MEM_PICK_VICTIM + layer, m, host.now, 0, 0, 0, -1)
            if g != -1:
                x = host.vmem[m]
                if g < x.first or g >= x.first + x.pages or not may_swap(host, g):
                    fail(host, E_PAGE_STATE, MEM_PICK_VICTIM + layer, g, m)
                    return -1
                return g
    return random_victim(host, m)


@jit
def cheapest(host: Any) -> int:
    """The VM that pays least for a page, of those that have one to lose; -1 for none.

    Default price: shares per page in machine memory [min-funding revocation: Waldspurger 2002, 5.1]. Of those who pay
    the same, the first.
    """
    best = -1
    least = NEVER
    for m in range(host.vms):
        x = host.vmem[m]
        if x.pinned or x.resident - x.shared - x.swapping <= x.reservation:
            continue
        price = -1
        for layer in range(host.machine[0].layers):
            if price < 0 and (layer == 0 or host.hook[MEM_IDLE_PRICE + layer].address != 0):
                price = ask(host, AXIS_MEMORY, MEM_IDLE_PRICE + layer, m, host.now, 0, 0, 0, -1)
        if price < 0:
            price = x.shares * 1_000_000_000 // max(1, x.resident)
        if price < least:
            least = price
            best = m
    return best


@jit
def discard_volunteered(host: Any, m: int, pages: int) -> int:
    """Take up to `pages` pages that a guest volunteered, and returns how many there were: clean, unused page cache at
    the end of its inactive list, whose contents are lost without anything being written. Nothing else is asked of
    the guest. [Satori: the repayment FIFO]"""
    got = 0
    looked = 0
    which = m * LISTS + (INACTIVE_FILE if host.vmem[m].replacement == LINUX else INACTIVE_ANON)
    g = host.page_list[which].last - 1
    while g >= 0 and got < pages and looked < TRIES + pages:
        pg = host.page[g]
        before = pg.prev - 1
        looked += 1
        if pg.flags & P_FILE and pg.frame > 0 and not pg.flags & (UNSURE | P_DIRTY | P_REF | P_NEW | P_SHARED):
            discard(host, object_of_row(host, m, pg.owner - 1), pg.owner - 1)
            unback(host, g, m)
            got += 1
            if host.now >= host.warmup_ns:
                host.vmem[m].guest_reclaimed_pages += 1
                host.vmem[m].host_reclaimed_pages += 1
        g = before
    return got


# the hypervisor's swap ---------------------------------------------------------------------------------------


@jit
def take_slot(host: Any) -> int:
    """A free page of the hypervisor's swap area, next fit; -1 when it is full. Amortised O(1)."""
    mc = host.machine[0]
    if mc.slots_used >= mc.slots:
        return -1
    s = mc.slot_hand
    while host.host_slot[s].page != 0:
        s += 1
        if s == mc.slots:
            s = 0
    mc.slot_hand = s + 1 if s + 1 < mc.slots else 0
    mc.slots_used += 1
    return s


@jit
def swap_from_cheapest(host: Any, pages: int) -> None:
    """Swap out pages of whoever pays least for them, batch by batch."""
    left = pages
    while left > 0 and host.error == 0:
        m = cheapest(host)
        if m < 0:
            return
        sent = swap_out(host, m, min(left, BATCH))
        if sent == 0:
            return
        left -= sent


@jit
def swap_out(host: Any, m: int, pages: int) -> int:
    """Swap out up to `pages` pages of a VM; returns how many are on their way."""
    x = host.vmem[m]
    if x.pinned:
        return 0
    pages = min(pages, MOST_SWAPPING - host.machine[0].swapping)
    sent = 0
    first = -1
    run = 0
    kept = 0
    # what is on its way out is not there any more: no VM is taken below its reservation
    spare = x.resident - x.swapping - x.reservation
    while sent < pages and sent < spare and kept < TRIES and host.error == 0:
        g = pick_victim(host, m)
        if g < 0:
            break
        way = way_out(host, g, m)
        if way == KEEP:
            kept += 1
            continue
        s = take_slot(host)
        if s < 0:
            break
        if way == TO_POOL:
            compress(host, g, m, s)
            sent += 1
            continue
        if run > 0 and (s != first + run or run == BATCH):
            send(host, m, first, run)
            run = 0
        if run == 0:
            first = s
        mark_out(host, g, m, s)
        run += 1
        sent += 1
    if run > 0:
        send(host, m, first, run)
    return sent


@jit
def swap_page(host: Any, g: int, m: int) -> bool:
    """Swap one given page out."""
    way = way_out(host, g, m)
    if way == KEEP:
        return False
    s = take_slot(host)
    if s < 0:
        return False
    if way == TO_POOL:
        compress(host, g, m, s)
        return True
    mark_out(host, g, m, s)
    send(host, m, s, 1)
    return True


@jit
def way_out(host: Any, g: int, m: int) -> int:
    """How a page leaves machine memory: what the first layer says that does not say TO_SWAP."""
    for layer in range(host.machine[0].layers):
        if layer == 0 or host.hook[MEM_SWAP_OUT + layer].address != 0:
            way = ask(host, AXIS_MEMORY, MEM_SWAP_OUT + layer, m, g, host.now, 0, 0, TO_SWAP)
            if way < TO_SWAP or way > KEEP:
                fail(host, E_RANGE, MEM_SWAP_OUT + layer, way, KEEP)
                return KEEP
            if way != TO_SWAP:
                return way
    return TO_SWAP


@jit
def mark_out(host: Any, g: int, m: int, s: int) -> None:
    """A page is on its way out: it stays where it is until the write is done, and stays for good if it is used
    meanwhile."""
    split(host, g, m, SPLIT_SWAP)
    host.host_slot[s].page = g + 1
    host.page[g].flags = host.page[g].flags | P_SWAPPING


@jit
def send(host: Any, m: int, first: int, pages: int) -> None:
    """Have a run of slots written, once the CPU time for it is paid."""
    mc = host.machine[0]
    k = io_new(host, m, first, pages)
    if k < 0:
        return
    mc.swapping += pages
    host.vmem[m].swapping += pages
    invalidate(host, m, -1)
    cost = pages * mc.swap_out_ns
    if mc.reclaim_thread >= 0:
        submit(host, mc.reclaim_thread, cost, WORK_SWAP_OUT, k, 0)
    else:
        host.vcpu[host.vm[m].first_vcpu].overhead_left_ns += cost
        write_out(host, k)


@jit
def write_out(host: Any, k: int) -> None:
    """The CPU time is paid: the disk's turn."""
    x = host.mem_io[k]
    if host.now >= host.warmup_ns:
        host.vmem[x.vm].host_swap_out_pages += x.pages
    submit_io(host, -1, 1, x.first, x.pages, IO_HOST_SWAP_OUT, k, -1)


@jit
def host_write_done(host: Any, k: int) -> None:
    """Pages are in the hypervisor's swap: the frames of those that nobody used meanwhile are free."""
    io = host.mem_io[k]
    m = io.vm
    mc = host.machine[0]
    mc.swapping -= io.pages
    host.vmem[m].swapping -= io.pages
    for s in range(io.first, io.first + io.pages):
        g = host.host_slot[s].page - 1
        pg = host.page[g]
        if pg.flags & P_SWAPPING and pg.frame > 0:
            pg.flags = pg.flags & ~P_SWAPPING
            drop_frame(host, g, m)
            account(host, m)
            pg.frame = -(s + 1)
            host.vmem[m].swapped += 1
            if host.now >= host.warmup_ns:
                host.vmem[m].host_reclaimed_pages += 1
        else:
            free_slot(host, s)


# the pool of compressed pages --------------------------------------------------------------------------------------


@jit
def compress(host: Any, g: int, m: int, s: int) -> None:
    """Have a page compressed into the pool, once the CPU time for it is paid."""
    mc = host.machine[0]
    mark_out(host, g, m, s)
    mc.swapping += 1
    host.vmem[m].swapping += 1
    invalidate(host, m, -1)
    if mc.reclaim_thread >= 0:
        submit(host, mc.reclaim_thread, mc.compress_ns, WORK_COMPRESS, s, 0)
    else:
        host.vcpu[host.vm[m].first_vcpu].overhead_left_ns += mc.compress_ns
        compressed(host, s)


@jit
def compressed(host: Any, s: int) -> None:
    """The CPU time is paid: the page is in the pool, unless its guest used it meanwhile."""
    mc = host.machine[0]
    g = host.host_slot[s].page - 1
    m = vm_of(host, g)
    x = host.vmem[m]
    mc.swapping -= 1
    x.swapping -= 1
    pg = host.page[g]
    if not (pg.flags & P_SWAPPING and pg.frame > 0):
        free_slot(host, s)
        return
    size = compressed_size(host, g)
    pg.flags = pg.flags & ~P_SWAPPING
    # its own frame is free first, so that the pool can have one
    drop_frame(host, g, m)
    account(host, m)
    pg.frame = -(s + 1)
    x.swapped += 1
    pool_enter(host, s, class_of(size))
    fit_pool(host)
    if host.now >= host.warmup_ns:
        x.compressed_pages += 1
        x.host_reclaimed_pages += 1


@jit
def pool_out(host: Any, pages: int) -> None:
    """Have the oldest entries of the pool written to their slots of the swap area, once the CPU time is paid."""
    mc = host.machine[0]
    left = min(pages, MOST_SWAPPING - mc.swapping - mc.pool_writing)
    while left > 0 and mc.pool_oldest > 0 and host.error == 0:
        s = mc.pool_oldest - 1
        k = io_new(host, vm_of(host, host.host_slot[s].page - 1), s, 1)
        if k < 0:
            return
        pool_unlink(host, s)
        host.pool_entry[s].writing = 1
        mc.pool_writing += 1
        left -= 1
        cost = mc.decompress_ns + mc.swap_out_ns
        if mc.reclaim_thread >= 0:
            submit(host, mc.reclaim_thread, cost, WORK_POOL_OUT, k, 0)
        else:
            host.vcpu[host.vm[host.mem_io[k].vm].first_vcpu].overhead_left_ns += cost
            write_pool_out(host, k)


@jit
def write_pool_out(host: Any, k: int) -> None:
    """The CPU time is paid: the disk's turn."""
    x = host.mem_io[k]
    if host.now >= host.warmup_ns:
        host.machine[0].pool_out_pages += 1
        host.vmem[x.vm].host_swap_out_pages += 1
    submit_io(host, -1, 1, x.first, 1, IO_POOL_OUT, k, -1)


@jit
def pool_write_done(host: Any, k: int) -> None:
    """An entry is in the swap area: it leaves the pool; where its page left first, the slot is free now."""
    s = host.mem_io[k].first
    mc = host.machine[0]
    e = host.pool_entry[s]
    mc.pool_writing -= 1
    if e.held > 0:
        pool_leave(host, s)
        e.writing = 0
        fit_pool(host)
    else:
        e.writing = 0
        mc.pool_left -= 1
        free_slot(host, s)
