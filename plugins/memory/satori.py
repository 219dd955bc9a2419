"""Satori: a block of the base image that some VM has in memory is shared when another VM reads it.

Overview: the virtual disks are copy-on-write over one base image, so the disk knows which blocks are the same. When a
guest reads such a block and some VM's page has it, the two share the frame from the start, and the disk is not read.
When the block comes from the disk, its page is remembered; if two reads of a block crossed, they share when they are
done. What sharing saves belongs to those who share: a page on a frame that n pages map counts as 1/n of a page
when memory is taken (the sharing entitlement is (n - 1)/n). When a write takes a shared page apart while memory is
short, the VM that wrote repays with a clean cache page that its guest volunteered.

Source: Milos, Murray, Hand, Fetterman, "Satori: Enlightened page sharing", USENIX ATC 2009: sharing-aware block
devices, sharing entitlements, the repayment FIFO (cited from memory; its sections were not at hand).

Claims: pages read from the same base image are born shared, and a read that another VM's memory answers does not reach
the disk.

Not modelled: contents of blocks that are equal by chance (the image's blocks are compared by identity);
copy-on-write inside the disk's own format; the guest's choice of what to volunteer (the end of its inactive list);
balloons that hand out the surplus (another layer's).
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    BY_DISCARD,
    HashMap,
    content,
    hookimpl,
    image_block,
    map_del,
    map_get,
    map_put,
    merge,
    param,
    reclaim,
    set_timer,
    shareable,
    sharers,
    state,
)

AXIS = "memory"
CLAIMS = frozenset({"shares-reads"})
CONTAINERS = (HashMap("blocks", capacity=1 << 20),)
COUNTERS = ("born_shared_pages", "late_shared_pages", "repaid_pages")
TIMER = 0
HIGH = 0
PPM = 1_000_000
BATCH = 1000
"""Merges asked for at once: a hook may ask for 4,096 things."""


@frozen
class Params:
    """Parameters of satori."""

    repay: bool = param(
        True, help="a VM that takes a shared page apart while memory is short gives a cache page for it",
        source="Satori: the repayment FIFO",
    )  # fmt: skip
    entitlement_period_ns: int = param(
        10_000_000_000, unit="ns", low=1_000_000, help="how often it is counted who shares how much",
        source="choice of this project",
    )  # fmt: skip


@state("host")
@define
class Counts:
    """How far the start is, and what was shared and repaid."""

    booted: int = 0
    merging: int = 0
    born_shared_pages: int = 0
    late_shared_pages: int = 0
    repaid_pages: int = 0


@state("vmem")
@define
class Entitlement:
    """What sharing saves a VM, in millionths of a page."""

    entitled_ppm: int = 0


@state("page")
@define
class Reader:
    """The ring of pages that read the same block; `block` is its identity while `reads` is 1."""

    reads: int = 0
    block: int = 0
    after: int = 0
    before: int = 0


@hookimpl
def mem_init(host, now):
    boot(host)
    set_timer(host, TIMER, now + host.params.entitlement_period_ns)


def boot(host):
    """Blocks that are in memory at the start were read when the VMs booted, through satori: they are shared, a batch at
    a time."""
    own = host.own
    while own.booted < len(host.page) and own.merging < BATCH:
        g = own.booted
        own.booted = g + 1
        if shareable(host, g) and image_block(host, g):
            h = reader_of(host, content(host, g))
            remember(host, g, content(host, g))
            if h >= 0:
                own.merging += 1
                merge(host, h, g)


@hookimpl
def mem_share_merged(host, page, other, merged):
    host.own.merging -= 1
    if host.own.merging == 0:
        boot(host)


@hookimpl
def mem_image_read(host, vm, page, block, read):
    h = reader_of(host, block)
    if h == page:
        h = -1
    if h >= 0:
        if read == 0:
            host.own.born_shared_pages += 1
        elif host.page[h].frame != host.page[page].frame:
            host.own.late_shared_pages += 1
    if h >= 0 or read == 1:
        remember(host, page, block)
    return h


def reader_of(host, block):
    """A page that has a block, -1 for none. Pages that lost it are forgotten."""
    g = map_get(host, host.box.blocks, block, -1)
    while g >= 0:
        if shareable(host, g) and content(host, g) == block:
            return g
        forget(host, g)
        g = map_get(host, host.box.blocks, block, -1)
    return -1


def remember(host, g, block):
    """A page has a block from now on, or will when it has come."""
    forget(host, g)
    page = host.page[g]
    first = map_get(host, host.box.blocks, block, -1)
    if first < 0:
        if map_put(host, host.box.blocks, block, g) == 0:
            return
        page.after = g + 1
        page.before = g + 1
    else:
        last = host.page[first].before - 1
        page.after = first + 1
        page.before = last + 1
        host.page[last].after = g + 1
        host.page[first].before = g + 1
    page.reads = 1
    page.block = block


def forget(host, g):
    """A page does not have the block any more that it had."""
    page = host.page[g]
    if page.reads == 0:
        return
    page.reads = 0
    if page.after == g + 1:
        map_del(host, host.box.blocks, page.block)
        return
    host.page[page.after - 1].before = page.before
    host.page[page.before - 1].after = page.after
    if map_get(host, host.box.blocks, page.block, -1) == g:
        map_put(host, host.box.blocks, page.block, page.after - 1)


@hookimpl
def mem_cow_break(host, vm, page, frame):
    if host.page[page].reads == 1:
        forget(host, page)
    if host.params.repay and host.machine[0].state != HIGH:
        reclaim(host, vm, BY_DISCARD, 1)
        host.own.repaid_pages += 1


@hookimpl
def mem_timer(host, timer, now):
    set_timer(host, TIMER, now + host.params.entitlement_period_ns)
    for m in range(host.vms):
        x = host.vmem[m]
        x.entitled_ppm = 0
        if x.shared > 0:
            for g in range(x.first, x.first + x.pages):
                n = sharers(host, g)
                if n > 1:
                    x.entitled_ppm += PPM - PPM // n


@hookimpl
def mem_idle_price(host, vm):
    x = host.vmem[vm]
    charged = max(1, x.resident - x.entitled_ppm // PPM)
    return host.vm[vm].weight * 1_000_000_000 // charged
