"""Page sharing by content: scanning at a cost, comparing and merging, taking apart again (`host_memory.unshare`).

A policy says which two pages it takes for equal; the hypervisor's scan thread pays for comparing them, and
merges them only if they
still are. Source of the costs: hvbench.build_memory.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_MEMORY, ask
from hvbench.kernel.guards import E_PAGE_RANGE, E_PAGE_STATE, fail
from hvbench.kernel.hook_rows import MEM_IMAGE_READ, MEM_SHARE_MERGE, MEM_SHARE_MERGED, MEM_SHARE_SCAN
from hvbench.kernel.host_memory import (
    SPLIT_SHARE,
    account,
    free_frame,
    invalidate,
    share_frame,
    split,
    unback,
)
from hvbench.kernel.memory_services import shareable
from hvbench.kernel.page_lists import page_identity, vm_of
from hvbench.state.records_memory import P_SHARED


@jit
def allowed(host: Any, page: int, other: int) -> bool:
    """Whether every layer lets two equal pages be merged; `page` is -1 for the hypervisor's page of zeros."""
    for layer in range(host.machine[0].layers):
        if layer > 0 and host.hook[MEM_SHARE_MERGE + layer].address == 0:
            continue
        if ask(host, AXIS_MEMORY, MEM_SHARE_MERGE + layer, page, other, host.now, 0, 0, 1) == 0:
            return False
    return True


@jit
def merge(host: Any, keep: int, give: int) -> bool:
    """Let page `give` map the frame of page `keep`, if they are still equal and no layer forbids it."""
    if keep == give or not shareable(host, keep) or not shareable(host, give):
        return False
    kept = host.page[keep].frame - 1
    if kept == host.page[give].frame - 1:
        return False
    if page_identity(host, keep) != page_identity(host, give):
        return False
    if not allowed(host, keep, give):
        return False
    other = vm_of(host, keep)
    split(host, keep, other, SPLIT_SHARE)
    protect(host, keep, other)
    move_over(host, give, vm_of(host, give), kept)
    return True


@jit
def merge_zero(host: Any, give: int) -> bool:
    """Let page `give` map the hypervisor's page of zeros, if it is full of zeros and no layer forbids it.

    That page is one of the hypervisor's own frames, which keeps one reference to it.
    """
    mc = host.machine[0]
    if not shareable(host, give) or page_identity(host, give) != 0:
        return False
    if mc.zero_frame == 0:
        if mc.hypervisor == 0:
            return False
        mc.zero_frame = 1
        host.page_frame[0].refs = 1
        host.page_frame[0].owner = 0
    kept = mc.zero_frame - 1
    if host.page[give].frame - 1 == kept or not allowed(host, -1, give):
        return False
    move_over(host, give, vm_of(host, give), kept)
    return True


@jit
def move_over(host: Any, give: int, m: int, kept: int) -> None:
    """Page `give` of VM `m` maps frame `kept` from now on, and its own is free if nobody else maps it."""
    mc = host.machine[0]
    split(host, give, m, SPLIT_SHARE)
    protect(host, give, m)
    freed = host.page[give].frame - 1
    host.page[give].frame = kept + 1
    host.page_frame[kept].refs += 1
    left = host.page_frame[freed].refs - 1
    if left > 0:
        # both were shared: one page moves over, and the others when they are looked at
        host.page_frame[freed].refs = left
    else:
        free_frame(host, freed)
        mc.saved += 1
    if host.now >= host.warmup_ns:
        host.vmem[m].merges += 1
        if left == 0:
            host.vmem[m].host_reclaimed_pages += 1
    invalidate(host, m, -1)


@jit
def protect(host: Any, g: int, m: int) -> None:
    """Write-protect a page: the next write to it takes it apart."""
    pg = host.page[g]
    if pg.flags & P_SHARED == 0:
        account(host, m)
        pg.flags = pg.flags | P_SHARED
        host.vmem[m].shared += 1


@jit
def scan_paid(host: Any, pages: int, layer: int) -> None:
    """The scan thread has the time for a number of pages: the layer that asked for it looks at them."""
    ask(host, AXIS_MEMORY, MEM_SHARE_SCAN + layer, pages, host.now, 0, 0, 0, 0)


@jit
def merge_paid(host: Any, keep: int, give: int, layer: int) -> None:
    """The scan thread has the time for comparing two pages: merge them, and tell the layer that asked."""
    merged = 1 if merge(host, keep, give) else 0
    ask(host, AXIS_MEMORY, MEM_SHARE_MERGED + layer, keep, give, merged, host.now, 0, 0)


@jit
def merge_zero_paid(host: Any, give: int, layer: int) -> None:
    """The same with the hypervisor's page of zeros."""
    merged = 1 if merge_zero(host, give) else 0
    ask(host, AXIS_MEMORY, MEM_SHARE_MERGED + layer, -1, give, merged, host.now, 0, 0)


@jit
def serve_image_read(host: Any, g: int, m: int, v: int, read: int) -> bool:
    """Let guest page `g`, which is for a block of the base image, share the frame of a page that has it, if a layer
    knows one. Before the block is read (`read` 0) what is under it does not count. vCPU `v` pays for the mapping.

    The cost is that of a host fault: an exit and a mapping; nothing is compared, since the disk knows its blocks.
    """
    mc = host.machine[0]
    if host.vmem[m].pinned:
        return False
    block = page_identity(host, g)
    donor = -1
    row = MEM_IMAGE_READ
    for layer in range(mc.layers):
        if donor < 0 and (layer == 0 or host.hook[MEM_IMAGE_READ + layer].address != 0):
            row = MEM_IMAGE_READ + layer
            donor = ask(host, AXIS_MEMORY, MEM_IMAGE_READ + layer, m, g, block, read, host.now, -1)
    if donor == -1:
        return False
    if donor < 0 or donor >= len(host.page):
        fail(host, E_PAGE_RANGE, row, donor, g)
        return False
    if donor == g or not shareable(host, donor) or page_identity(host, donor) != block:
        fail(host, E_PAGE_STATE, row, donor, g)
        return False
    kept = host.page[donor].frame - 1
    other = vm_of(host, donor)
    if host.page[g].frame == kept + 1:
        return True
    split(host, donor, other, SPLIT_SHARE)
    protect(host, donor, other)
    if read:
        move_over(host, g, m, kept)
    else:
        split(host, g, m, SPLIT_SHARE)
        unback(host, g, m)
        share_frame(host, g, m, kept)
        if host.now >= host.warmup_ns:
            host.vmem[m].disk_reads_avoided += 1
    host.vcpu[v].overhead_left_ns += mc.fault_ns
    return True
