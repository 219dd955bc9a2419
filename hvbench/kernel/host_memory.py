"""Machine memory: frames and their owners, what backs a guest page, host faults, copy on write.

A frame belongs to nobody, to the guest pages that map it, to a VM's overhead, or to the hypervisor. A guest
page that was never
touched has no frame. A host fault blocks the vCPU: `back` answers FAULT after it has arranged for the vCPU to go on.

Sources of the costs: hvbench.build_memory.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_MEMORY, ask
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.hook_rows import MEM_COW_BREAK, MEM_FAULT
from hvbench.kernel.io_codes import IO_HOST_READ
from hvbench.kernel.memory_io import io_new, vcpu_goes_on, vcpu_stalls, vcpu_waits_io
from hvbench.kernel.outcome import DONE, FAULT
from hvbench.kernel.pool import pool_leave, pool_wants
from hvbench.kernel.storage import submit_io
from hvbench.state.records_memory import (
    CLEAR,
    EXTENT_PAGES,
    FRAME_OVERHEAD,
    FRAME_POOL,
    HARD,
    HIGH,
    LOW,
    P_ABSENT,
    P_BALLOON,
    P_HOSTIN,
    P_READING,
    P_SHARED,
    P_SWAPPING,
    P_VM_SHIFT,
    P_WATCHED,
    P_WRITEBACK,
    SOFT,
)

E_RECLAIM, E_BALANCE, E_FIRST_VM = 0, 1, 2
"""Numbers of memory events: reclaim is due; balloon targets are asked; from here on VM_EVENTS a VM."""
EV_BALLOON, EV_FLUSH, EV_OOM, VM_EVENTS = 0, 1, 2, 3
"""Of each VM: its balloon may take its next step; dirty pages are written back; a process is to be killed."""

UNSURE = P_ABSENT | P_READING | P_WRITEBACK | P_SWAPPING | P_HOSTIN | P_BALLOON
"""A page with one of these flags is not swapped out, nor merged."""

FAULT_FIRST, FAULT_SWAP, FAULT_WATCHED = 0, 1, 2

SPLIT_BALLOON, SPLIT_SHARE, SPLIT_SWAP = 0, 1, 2
"""Why a 2 MiB mapping is split: a page of it goes to the balloon, to another VM as well, to the hypervisor's swap."""

NEVER = 1 << 60


# integrals over time -----------------------------------------------------------------------------------------


@jit
def account(host: Any, m: int) -> None:
    """Bring a VM's integrals over time up to date, before one of their values changes."""
    x = host.vmem[m]
    now = host.now
    since = max(x.integral_ns, host.warmup_ns)
    x.integral_ns = now
    if now > since:
        d = now - since
        x.ballooned_page_ns += x.ballooned * d
        x.shared_page_ns += x.shared * d
        x.swapped_page_ns += x.swapped * d
        x.resident_page_ns += x.resident * d
        x.large_extent_ns += x.large * d


@jit
def tell(host: Any, row: int, a: int, b: int, c: int) -> None:
    """Call a notifying hook of every layer."""
    for layer in range(host.machine[0].layers):
        if layer == 0 or host.hook[row + layer].address != 0:
            ask(host, AXIS_MEMORY, row + layer, a, b, c, host.now, 0, 0)


# free memory ---------------------------------------------------------------------------------------------------


@jit
def set_state(host: Any) -> None:
    """The state of free memory and the bounds at which it changes; a change is told at once, in an event of its own.

    A state begins when free memory falls below its threshold; it ends when free memory is `hysteresis` frames above
    the threshold of the state before it [Waldspurger 2002, 6.3: "after significantly exceeding the higher threshold"].
    """
    mc = host.machine[0]
    free = mc.free
    above = free - mc.hysteresis
    worst = HIGH
    better = HIGH
    if above < mc.high:
        better = CLEAR if mc.clear > mc.soft else SOFT
    if mc.clear > mc.soft:
        if free < mc.clear:
            worst = CLEAR
        if above < mc.clear:
            better = SOFT
    if free < mc.soft:
        worst = SOFT
    if above < mc.soft:
        better = HARD
    if free < mc.hard:
        worst = HARD
    if above < mc.hard:
        better = LOW
    if free < mc.low:
        worst = LOW
    state = max(worst, min(mc.state, better))
    has_clear = mc.clear > mc.soft
    mc.goal = (mc.clear if has_clear else mc.high) + mc.hysteresis
    if state == HIGH:
        mc.worse_below = mc.clear if has_clear else mc.soft
        mc.better_from = NEVER
    elif state == CLEAR:
        mc.worse_below = mc.soft
        mc.better_from = mc.high + mc.hysteresis
    elif state == SOFT:
        mc.worse_below = mc.hard
        mc.better_from = mc.goal
    elif state == HARD:
        mc.worse_below = mc.low
        mc.better_from = mc.soft + mc.hysteresis
    else:
        mc.worse_below = -NEVER
        mc.better_from = mc.hard + mc.hysteresis
    if state != mc.state:
        mc.state = state
        arm(host, K_MEMORY, E_BALANCE, host.now)


@jit
def take_frame(host: Any) -> int:
    """A free frame; -1 where only the hypervisor's floor is left."""
    mc = host.machine[0]
    free = mc.free
    if free <= mc.floor:
        return -1
    f = mc.free_first - 1
    if f >= 0:
        mc.free_first = host.page_frame[f].owner
    else:
        f = mc.fresh
        mc.fresh = f + 1
    free -= 1
    mc.free = free
    if free < mc.worse_below:
        set_state(host)
    return f


@jit
def free_frame(host: Any, f: int) -> None:
    """A frame belongs to nobody from now on; who waits for one may try."""
    mc = host.machine[0]
    x = host.page_frame[f]
    x.refs = 0
    x.owner = mc.free_first
    mc.free_first = f + 1
    mc.free = mc.free + 1
    mc.freed = mc.freed + 1
    if mc.free >= mc.better_from:
        set_state(host)
    if mc.waiters > 0 and mc.free > mc.floor:
        v = mc.waiter_first - 1
        mc.waiter_first = host.vcpu_mem[v].next
        if mc.waiter_first == 0:
            mc.waiter_last = 0
        mc.waiters -= 1
        host.vcpu_mem[v].next = 0
        vcpu_goes_on(host, v)


@jit
def wait_frame(host: Any, v: int) -> int:
    """The vCPU stalls until a frame is free: direct reclaim."""
    mc = host.machine[0]
    host.vcpu_mem[v].next = 0
    if mc.waiter_last > 0:
        host.vcpu_mem[mc.waiter_last - 1].next = v + 1
    else:
        mc.waiter_first = v + 1
        mc.freed_seen = mc.freed - 1
        arm(host, K_MEMORY, E_RECLAIM, host.now)
    mc.waiter_last = v + 1
    mc.waiters += 1
    return vcpu_stalls(host, v)


# what a page has under it -------------------------------------------------------------------------------------


@jit
def invalidate(host: Any, m: int, by: int) -> None:
    """A mapping of a VM was taken away: its vCPUs pay for an invalidation when they run next; `by` paid already."""
    cost = host.machine[0].invalidate_ns
    x = host.vm[m]
    for v in range(x.first_vcpu, x.first_vcpu + x.vcpus):
        if v != by:
            host.vcpu[v].overhead_left_ns += cost


@jit
def grow_overhead(host: Any, m: int) -> None:
    """Tables of the hypervisor grow with what a VM maps."""
    mc = host.machine[0]
    x = host.vmem[m]
    want = x.overhead_fixed + (x.resident * mc.overhead_ppm + 999_999) // 1_000_000
    while x.overhead < want:
        f = take_frame(host)
        if f < 0:
            return
        host.page_frame[f].refs = FRAME_OVERHEAD
        host.page_frame[f].owner = m + 1
        x.overhead += 1


@jit
def put_frame(host: Any, g: int, m: int, f: int) -> None:
    """Let a frame of nobody back a guest page."""
    account(host, m)
    host.page_frame[f].refs = 1
    host.page_frame[f].owner = g + 1
    host.page[g].frame = f + 1
    x = host.vmem[m]
    x.resident += 1
    if x.resident * host.machine[0].overhead_ppm > (x.overhead - x.overhead_fixed) * 1_000_000:
        grow_overhead(host, m)


@jit
def share_frame(host: Any, g: int, m: int, f: int) -> None:
    """Let a guest page without a frame map one that others map."""
    mc = host.machine[0]
    pg = host.page[g]
    x = host.vmem[m]
    account(host, m)
    host.page_frame[f].refs += 1
    mc.saved += 1
    pg.frame = f + 1
    pg.flags = pg.flags | P_SHARED
    x.resident += 1
    x.shared += 1
    if x.resident * mc.overhead_ppm > (x.overhead - x.overhead_fixed) * 1_000_000:
        grow_overhead(host, m)


@jit
def drop_frame(host: Any, g: int, m: int) -> None:
    """Take the frame from under a guest page; it is free when nobody else maps it."""
    account(host, m)
    pg = host.page[g]
    f = pg.frame - 1
    pg.frame = 0
    x = host.vmem[m]
    x.resident -= 1
    if pg.flags & P_SHARED:
        pg.flags = pg.flags & ~P_SHARED
        x.shared -= 1
    refs = host.page_frame[f].refs
    if refs > 1:
        host.page_frame[f].refs = refs - 1
        host.machine[0].saved -= 1
    else:
        free_frame(host, f)


@jit
def split(host: Any, g: int, m: int, why: int) -> None:
    """If a page lies in a 2 MiB mapping, split it: 512 small mappings from now on. `why`: SPLIT_BALLOON and so on.

    Whoever takes the page pays: the thread that shares or swaps, or the vCPU that the balloon driver runs on.
    """
    x = host.vmem[m]
    if x.large == 0:
        return
    e = host.extent[x.first_extent + (g - x.first) // EXTENT_PAGES]
    if e.large:
        mc = host.machine[0]
        account(host, m)
        e.large = 0
        x.large -= 1
        payer = -1
        if why == SPLIT_SHARE:
            payer = mc.scan_thread
        elif why == SPLIT_SWAP:
            payer = mc.reclaim_thread
        if payer < 0:
            payer = host.vm[m].first_vcpu
        host.vcpu[payer].overhead_left_ns += mc.split_ns
        if host.now >= host.warmup_ns:
            if why == SPLIT_SHARE:
                x.extents_split_share += 1
            elif why == SPLIT_SWAP:
                x.extents_split_swap += 1
            else:
                x.extents_split_balloon += 1
        invalidate(host, m, -1)


@jit
def free_slot(host: Any, s: int) -> None:
    """A page of the hypervisor's swap area is free, and what the pool held of it is gone.

    A slot that the pool is writing to is free when that is done.
    """
    e = host.pool_entry[s]
    if e.held > 0:
        pool_leave(host, s)
        fit_pool(host)
        if e.writing:
            host.machine[0].pool_left += 1
            return
    host.host_slot[s].page = 0
    host.machine[0].slots_used -= 1


@jit
def fit_pool(host: Any) -> None:
    """Give the pool of compressed pages the frames that its entries take, and take those that they do not."""
    mc = host.machine[0]
    want = pool_wants(host)
    while mc.pool_frames < want:
        f = take_frame(host)
        if f < 0:
            return
        host.page_frame[f].refs = FRAME_POOL
        host.page_frame[f].owner = mc.pool_first
        mc.pool_first = f + 1
        mc.pool_frames += 1
    while mc.pool_frames > want:
        f = mc.pool_first - 1
        mc.pool_first = host.page_frame[f].owner
        mc.pool_frames -= 1
        free_frame(host, f)


@jit
def unback(host: Any, g: int, m: int) -> None:
    """The guest gave a page to the balloon: the hypervisor takes what is under it, frame or swap slot."""
    pg = host.page[g]
    if pg.frame > 0:
        split(host, g, m, SPLIT_BALLOON)
        drop_frame(host, g, m)
    elif pg.frame < 0:
        account(host, m)
        free_slot(host, -pg.frame - 1)
        pg.frame = 0
        host.vmem[m].swapped -= 1


@jit
def try_large(host: Any, g: int, m: int) -> bool:
    """Back a whole untouched extent by 2 MiB, while free memory is high. Whether 512 frames lie together is
    not modelled."""
    mc = host.machine[0]
    x = host.vmem[m]
    if x.large_backing == 0 or mc.state != HIGH or mc.free < mc.high + EXTENT_PAGES:
        return False
    number = (g - x.first) // EXTENT_PAGES
    start = x.first + number * EXTENT_PAGES
    if start + EXTENT_PAGES > x.first + x.pages:
        return False
    for q in range(start, start + EXTENT_PAGES):
        if host.page[q].frame != 0 or host.page[q].flags & P_BALLOON:
            return False
    for q in range(start, start + EXTENT_PAGES):
        f = take_frame(host)
        pq = host.page[q]
        pq.flags = pq.flags | (m << P_VM_SHIFT)
        put_frame(host, q, m, f)
    host.extent[x.first_extent + number].large = 1
    x.large += 1
    return True


@jit
def back(host: Any, g: int, m: int, v: int) -> int:
    """Make sure that a guest page has a frame: DONE, or FAULT (the vCPU stalls, and tries again)."""
    pg = host.page[g]
    if pg.frame > 0:
        return DONE
    if pg.frame < 0:
        return swap_in(host, g, m, v)
    mc = host.machine[0]
    if not try_large(host, g, m):
        f = take_frame(host)
        if f < 0:
            return wait_frame(host, v)
        put_frame(host, g, m, f)
    host.vcpu[v].overhead_left_ns += mc.fault_ns
    if host.now >= host.warmup_ns:
        host.vmem[m].host_faults += 1
    tell(host, MEM_FAULT, m, g, FAULT_FIRST)
    if pg.flags & P_WATCHED:
        seen(host, g, m)
    return DONE


@jit
def seen(host: Any, g: int, m: int) -> None:
    """A page that a policy watches was touched: it is told, and the page is watched no more."""
    pg = host.page[g]
    pg.flags = pg.flags & ~P_WATCHED
    tell(host, MEM_FAULT, m, g, FAULT_WATCHED)


@jit
def watched_touch(host: Any, g: int, m: int, v: int) -> None:
    """A touch of a watched page that has its frame: an exit, and the mapping is put back [Waldspurger 2002, 5.3]."""
    host.vcpu[v].overhead_left_ns += host.machine[0].fault_ns
    seen(host, g, m)


@jit
def swap_in(host: Any, g: int, m: int, v: int) -> int:
    """A host fault on a page that the hypervisor swapped out: the vCPU waits for the disk."""
    pg = host.page[g]
    s = -pg.frame - 1
    if pg.flags & P_HOSTIN:
        return vcpu_waits_io(host, v, -host.host_slot[s].page - 1)
    f = take_frame(host)
    if f < 0:
        return wait_frame(host, v)
    if host.pool_entry[s].held > 0:
        return take_from_pool(host, g, m, v, f)
    k = io_new(host, m, g, 1)
    if k < 0:
        return FAULT
    host.page_frame[f].refs = 1
    host.page_frame[f].owner = g + 1
    host.mem_io[k].frame = f + 1
    host.host_slot[s].page = -(k + 1)
    pg.flags = pg.flags | P_HOSTIN
    mc = host.machine[0]
    host.vcpu[v].overhead_left_ns += mc.fault_ns + mc.swap_in_ns
    if host.now >= host.warmup_ns:
        host.vmem[m].host_faults += 1
        host.vmem[m].host_swap_in_pages += 1
    tell(host, MEM_FAULT, m, g, FAULT_SWAP)
    if pg.flags & P_WATCHED:
        seen(host, g, m)
    vcpu_waits_io(host, v, k)
    submit_io(host, -1, 0, s, 1, IO_HOST_READ, k, v)
    return FAULT


@jit
def take_from_pool(host: Any, g: int, m: int, v: int, f: int) -> int:
    """A host fault on a compressed page: it is decompressed into frame `f`, without the disk."""
    mc = host.machine[0]
    pg = host.page[g]
    x = host.vmem[m]
    account(host, m)
    free_slot(host, -pg.frame - 1)
    host.page_frame[f].refs = 1
    host.page_frame[f].owner = g + 1
    pg.frame = f + 1
    x.swapped -= 1
    x.resident += 1
    host.vcpu[v].overhead_left_ns += mc.fault_ns + mc.decompress_ns
    if host.now >= host.warmup_ns:
        x.host_faults += 1
        x.decompressed_pages += 1
    tell(host, MEM_FAULT, m, g, FAULT_SWAP)
    return DONE


@jit
def host_read_done(host: Any, k: int) -> None:
    """A page came back from the hypervisor's swap."""
    x = host.mem_io[k]
    g = x.first
    m = x.vm
    pg = host.page[g]
    s = -pg.frame - 1
    account(host, m)
    free_slot(host, s)
    pg.frame = x.frame
    pg.flags = pg.flags & ~P_HOSTIN
    y = host.vmem[m]
    y.swapped -= 1
    y.resident += 1


@jit
def unshare(host: Any, g: int, m: int, v: int) -> int:
    """The guest writes a write-protected page: give it a frame of its own. DONE, or FAULT (no frame is free)."""
    mc = host.machine[0]
    pg = host.page[g]
    old = pg.frame - 1
    x = host.vmem[m]
    if host.page_frame[old].refs > 1:
        f = take_frame(host)
        if f < 0:
            return wait_frame(host, v)
        account(host, m)
        host.page_frame[old].refs -= 1
        mc.saved -= 1
        host.page_frame[f].refs = 1
        host.page_frame[f].owner = g + 1
        pg.frame = f + 1
        host.vcpu[v].overhead_left_ns += mc.cow_break_ns
        if host.now >= host.warmup_ns:
            x.cow_breaks += 1
        invalidate(host, m, v)
        tell(host, MEM_COW_BREAK, m, g, old)
    else:
        account(host, m)
        host.page_frame[old].owner = g + 1
        host.vcpu[v].overhead_left_ns += mc.fault_ns
    pg.flags = pg.flags & ~P_SHARED
    x.shared -= 1
    return DONE
