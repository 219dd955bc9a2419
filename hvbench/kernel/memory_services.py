"""What a memory policy may ask for and read, beyond its hook's arguments. See hvbench.kernel.services."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import kernel_view
from hvbench.kernel.host_memory import FAULT_FIRST, FAULT_SWAP, FAULT_WATCHED, UNSURE
from hvbench.kernel.page_lists import of_image, page_identity
from hvbench.kernel.pool import compressed_size
from hvbench.kernel.services import O_FIRST_MEMORY, random_below, request
from hvbench.state.records_memory import CLEAR, EXTENT_PAGES, HARD, HIGH, LOW, P_SHARED, P_VM_SHIFT, P_WATCHED, SOFT

(
    O_RECLAIM, O_MERGE, O_SCAN, O_FREE_STATES, O_BALANCE, O_MERGE_ZERO, O_TUNE_SCAN, O_CLEAR_STATE, O_WATCH, O_DRIVER,
    O_POOL_OUT,
) = range(O_FIRST_MEMORY, O_FIRST_MEMORY + 11)  # fmt: skip

FREE_HIGH, FREE_CLEAR, FREE_SOFT, FREE_HARD, FREE_LOW = HIGH, CLEAR, SOFT, HARD, LOW
"""States of free memory (host.machine[0].state)."""
TOUCH_FIRST, TOUCH_SWAPPED, TOUCH_WATCHED = FAULT_FIRST, FAULT_SWAP, FAULT_WATCHED
"""Kinds of mem_fault."""

BY_SWAP, BY_PAGE, BY_BALLOON, BY_DISCARD = 0, 1, 2, 3
"""How `reclaim` takes memory: swap so many pages out; swap this page out; inflate the balloon by so many pages; take so
many clean page-cache pages that the guest volunteered, from the end of its inactive list [Satori's repayment FIFO]."""

TO_SWAP, TO_POOL, KEEP = 0, 1, 2
"""Answers of mem_swap_out: to the swap area; compressed into the pool; not at all, now."""


@jit
def reclaim(host: Any, vm: int, how: int, amount: int) -> None:
    """Take memory from VM `vm` (-1: whoever pays least for it). BY_SWAP: `amount` pages; BY_PAGE: page `amount`;
    BY_BALLOON: `amount` pages more in its balloon. [ESX swap and vmmemctl; Xen xenpaging]"""
    request(host, O_RECLAIM, vm, how, amount, 0)


@jit
def merge(host: Any, page: int, other: int) -> None:
    """Have the hypervisor compare two guest pages, and let `other` map the frame of `page` if they are equal.
    [KSM try_to_merge_one_page]

    The scan thread pays; then this layer's mem_share_merged says what came of it. A page that changed, went
    away or is being read or written meanwhile is left alone.
    """
    request(host, O_MERGE, page, other, 0, 0)


@jit
def merge_zero(host: Any, page: int) -> None:
    """Have the hypervisor let guest page `page` map its own page of zeros, if it is full of zeros.
    [KSM use_zero_pages]

    Paid and answered like `merge`; mem_share_merged then has -1 for the page that is kept.
    """
    request(host, O_MERGE_ZERO, page, 0, 0, 0)


@jit
def tune_scan(host: Any, run: int, pages: int, sleep_ns: int) -> None:
    """Set the tunables of scanners for equal pages, which they read as host.machine[0].scan_run, .scan_pages and
    .scan_sleep_ns: whether they run; pages a scan and the pause after it (0: their own parameters'). [sysfs ksm/run,
    pages_to_scan, sleep_millisecs]

    Any layer may set them while the host runs, as a daemon does on Linux; `ksm` obeys them.
    """
    request(host, O_TUNE_SCAN, run, pages, sleep_ns, 0)


@jit
def scan(host: Any, pages: int) -> None:
    """Have the scan thread pay for looking at `pages` pages; when it has, this layer's mem_share_scan is called."""
    request(host, O_SCAN, pages, 0, 0, 0)


@jit
def set_free_states(host: Any, high_ppm: int, soft_ppm: int, hard_ppm: int, low_ppm: int) -> None:
    """Set the thresholds of the free-memory states, parts per million of machine memory; high >= soft >= hard
    >= low. The state is soft, hard or low when free memory falls below the threshold of that name; it improves to
    the state before when free memory is above that one's threshold by a quarter of high - soft. [ESX: Waldspurger 2002,
    6.3]"""
    request(host, O_FREE_STATES, high_ppm, soft_ppm, hard_ppm, low_ppm)


@jit
def set_clear_state(host: Any, clear_ppm: int) -> None:
    """Let there be a state `clear` between high and soft, below this threshold (between theirs). [ESX 6]"""
    request(host, O_CLEAR_STATE, clear_ppm, 0, 0, 0)


@jit
def watch(host: Any, page: int, on: int) -> None:
    """Take the mapping of a guest page away, so that its next touch is seen: mem_fault is called with kind 2, and the
    guest pays for an exit. `on` 0 puts the mapping back. [ESX: sampling by invalidated mappings; Linux: page_idle]"""
    request(host, O_WATCH, page, on, 0, 0)


@jit
def watched(host: Any, page: int) -> bool:
    """Whether guest page `page` is watched, and was not touched since."""
    return host.page[page].flags & P_WATCHED != 0


@jit
def set_balloon_driver(host: Any, deflate_on_oom: int, pages_per_s: int = 0) -> None:
    """Whether guests without memory take pages out of their balloons before they kill a process, and how many pages a
    second their driver moves, 1 to 10**9; 0: as it is (12,800 from the start).
    [virtio: VIRTIO_BALLOON_F_DEFLATE_ON_OOM, and no limit; ESX vmmemctl: a limit]"""
    request(host, O_DRIVER, deflate_on_oom, pages_per_s, 0, 0)


@jit
def balance(host: Any, period_ns: int) -> None:
    """Have balloon targets asked now, and every `period_ns` (1 or more) from then on."""
    request(host, O_BALANCE, period_ns, 0, 0, 0)


@jit
def content(host: Any, page: int) -> int:
    """Content identity of guest page `page`: equal identities are equal contents, 0 is the page of zeros."""
    return page_identity(host, page)


@jit
def backed(host: Any, page: int) -> bool:
    """Whether guest page `page` has a frame, and nothing is being done to it."""
    pg = host.page[page]
    return pg.frame > 0 and pg.flags & UNSURE == 0


@jit
def shareable(host: Any, page: int) -> bool:
    """Whether guest page `page` could be merged now: it has a frame, nothing is being done to it, its memory
    is not pinned."""
    pg = host.page[page]
    return pg.frame > 0 and pg.flags & UNSURE == 0 and host.vmem[pg.flags >> P_VM_SHIFT].pinned == 0


@jit
def sharers(host: Any, page: int) -> int:
    """How many guest pages map the frame under guest page `page`; 0 if it has none."""
    f = host.page[page].frame
    return kernel_view(host).page_frame[f - 1].refs if f > 0 else 0


@jit
def pool_out(host: Any, pages: int) -> None:
    """Have the `pages` oldest entries of the pool of compressed pages written to the swap area. [zswap writeback]

    host.machine[0].pool_frames are the frames that the pool takes, .pool_entries the pages in it.
    """
    request(host, O_POOL_OUT, pages, 0, 0, 0)


@jit
def compressed_bytes(host: Any, page: int) -> int:
    """Bytes that guest page `page` would take in the pool; 0 for a page of zeros. hvbench.kernel.pool says how that
    is known."""
    return compressed_size(host, page)


@jit
def image_block(host: Any, page: int) -> bool:
    """Whether guest page `page` holds a block of the base image as all VMs have it, content(host, page) being its
    identity. [Satori: the copy-on-write disk knows it]"""
    owner = host.page[page].owner
    return owner > 0 and of_image(host, host.page[page].flags >> P_VM_SHIFT, owner - 1)


@jit
def write_protected(host: Any, page: int) -> bool:
    """Whether guest page `page` stands on a frame that is or was shared: a write to it faults."""
    pg = host.page[page]
    return pg.frame > 0 and pg.flags & P_SHARED != 0


@jit
def swappable(host: Any, page: int) -> bool:
    """Whether mem_pick_victim may answer guest page `page`: it has a frame that nobody else maps, and nothing is
    being done to it."""
    pg = host.page[page]
    if pg.frame <= 0 or pg.flags & UNSURE != 0:
        return False
    return pg.flags & P_SHARED == 0 or kernel_view(host).page_frame[pg.frame - 1].refs == 1


@jit
def in_large(host: Any, page: int) -> bool:
    """Whether guest page `page` has a frame inside a 2 MiB mapping."""
    if host.page[page].frame <= 0:
        return False
    x = host.vmem[host.page[page].flags >> P_VM_SHIFT]
    return x.large > 0 and host.extent[x.first_extent + (page - x.first) // EXTENT_PAGES].large != 0


@jit
def page_vm(host: Any, page: int) -> int:
    """The VM of guest page `page`, which was used before."""
    return host.page[page].flags >> P_VM_SHIFT


@jit
def random_page(host: Any, vm: int) -> int:
    """A random guest page of a VM, of those that were ever used; -1 if there is none."""
    x = host.vmem[vm]
    if x.fresh == 0:
        return -1
    return x.first + random_below(host, x.fresh)
