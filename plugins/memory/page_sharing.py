"""Page sharing by content: pages with equal contents share one frame, copied when written.

Overview: the VMs' pages are scanned in random order, each VM so fast that it is scanned once in `scan_time`, at most
`vm_pages_per_s`, and all of them together at most `host_mb_per_s_per_ghz`. A page's content is looked up by its
hash. If a page is known for it, and still has it, the two are merged; else the page becomes the hint for its
content. A write takes a shared page apart. A page that is about to be swapped out is looked up before.

Source: Waldspurger, OSDI 2002, section 4: hash of contents, hint frames, copy on write, random scan, maximum rates per
VM and for the host, an attempt to share each page before it is paged out. Rates: vSphere Resource Management,
advanced memory attributes (Mem.ShareScanTime, Mem.ShareScanGHz, Mem.ShareForceSalting); Mem.ShareRateMax is
cited from memory.

Claims: a complete scan of contents that nobody writes leaves one frame for each content.

Not modelled: the 16-bit counts of shared frames that overflow into a table; hashes that collide (content identities
do not); that a pass is in random order without returning to a page is a choice of this project, so that a complete scan
exists.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    KEEP,
    TO_SWAP,
    content,
    hookimpl,
    merge,
    page_vm,
    param,
    random_below,
    scan,
    set_timer,
    shareable,
    sharers,
    state,
)

AXIS = "memory"
CLAIMS = frozenset({"shares"})
VSPHERE = "vSphere Resource Management, advanced memory attributes"
COUNTERS = ("pages_scanned", "passes", "saved_before_swap")
TIMER = 0
SECOND = 1_000_000_000
PAGES_A_MB = 256
BATCH = 2000
"""Pages looked at in one go: each may ask for a merge, and a hook may ask for 4,096 things."""
ODD_MULTIPLIER = 1_103_515_245
"""1 modulo 4, so that x * it + an odd number visits everything below a power of two (Hull and Dobell, 1962)."""


@frozen
class Params:
    """Parameters of page-sharing."""

    scan_time_ns: int = param(
        3600 * SECOND, unit="ns", low=1000, help="time in which a VM is scanned once",
        source=f"{VSPHERE}: Mem.ShareScanTime 60 minutes",
    )  # fmt: skip
    vm_pages_per_s: int = param(
        1024, unit="1/s", low=1, high=1 << 30, help="pages of a VM looked at in a second, at most",
        source="ESX: Mem.ShareRateMax 1024 pages a second (cited from memory)",
    )  # fmt: skip
    host_mb_per_s_per_ghz: int = param(
        4, low=1, high=1 << 16, help="MB looked at in a second for each GHz of all pCPUs, at most",
        source=f"{VSPHERE}: Mem.ShareScanGHz 4 MB/s per GHz",
    )  # fmt: skip
    period_ns: int = param(
        100_000_000, unit="ns", low=1_000_000, help="how often a batch is looked at", source="choice of this project"
    )
    salting: bool = param(
        False, help="share within a VM only",
        source=f"{VSPHERE}: Mem.ShareForceSalting, 2 from ESXi 6.0 on; none in Waldspurger 2002",
    )  # fmt: skip


def scan_pass_ns(params, vm_pages):
    """How long a pass over the largest VM takes at least, ns: for the note where a warm-up is too short."""
    return max(params.scan_time_ns, max(vm_pages) * SECOND // params.vm_pages_per_s)


@state("host")
@define
class Scanner:
    """Pages of this period that wait for the scan thread's time, and what was done."""

    waiting: int = 0
    pages_scanned: int = 0
    passes: int = 0
    saved_before_swap: int = 0


@state("vmem")
@define
class Order:
    """A VM's scan: what is due, and where it is in its random order."""

    due: int = 0
    owed: float = 0.0
    range: int = 0
    position: int = 0
    increment: int = 0
    visited: int = 0


@state("page")
@define
class Hint:
    """A hash table as large as memory: row b is also the bucket of all contents with the remainder b."""

    first_hint: int = 0
    next_hint: int = 0
    previous_hint: int = 0
    bucket: int = 0
    key: int = 0


@hookimpl
def mem_init(host, now):
    set_timer(host, TIMER, now + host.params.period_ns)


@hookimpl
def mem_timer(host, timer, now):
    set_timer(host, TIMER, now + host.params.period_ns)
    if host.own.waiting == 0 and host.machine[0].scan_run == 1:
        # a scan thread that gets no CPU time does not pile its work up
        host.own.waiting = make_due(host)
        scan(host, min(host.own.waiting, BATCH))


def make_due(host):
    """What every VM's rate makes of a period, cut down in proportion where it is more than the host's; pages in all.

    What is left of a page is kept, so that slow rates come to something over the periods.
    """
    p = host.params
    allowed = p.host_mb_per_s_per_ghz * PAGES_A_MB * host.pcpus * host.machine[0].cpu_mhz // 1000
    wanted = 0.0
    for m in range(host.vms):
        wanted += rate(host, m)
    total = 0
    for m in range(host.vms):
        x = host.vmem[m]
        r = rate(host, m)
        if wanted > allowed:
            r = r * (allowed / wanted)
        x.owed = min(x.owed + r * p.period_ns / SECOND, 1.0 * x.pages)
        x.due = int(x.owed)
        x.owed -= x.due
        total += x.due
    return total


def rate(host, m):
    """Pages of a VM to look at in a second."""
    p = host.params
    return min(1.0 * p.vm_pages_per_s, host.vmem[m].pages * (SECOND / p.scan_time_ns))


@hookimpl
def mem_share_scan(host, pages):
    own = host.own
    left = pages
    for m in range(host.vms):
        x = host.vmem[m]
        steps = 0
        while x.due > 0 and left > 0:
            g = next_page(host, m)
            steps += 1
            if g >= 0 and shareable(host, g):
                x.due -= 1
                left -= 1
                own.pages_scanned += 1
                look_at(host, g)
            elif steps > 2 * x.range:
                # pages without a frame cost nothing; a VM without any must not hold the scan up
                own.waiting -= x.due
                x.due = 0
    own.waiting -= pages - left
    if own.waiting > 0:
        scan(host, min(own.waiting, BATCH))


def next_page(host, m):
    """The next page of a VM in the order of this pass, -1 where that is a number beyond its memory."""
    x = host.vmem[m]
    if x.visited >= x.range:
        if x.range == 0:
            x.range = 1
            while x.range < x.pages:
                x.range *= 2
        elif m == 0:
            host.own.passes += 1
        x.visited = 0
        x.position = random_below(host, x.range)
        x.increment = 2 * random_below(host, x.range) + 1
    x.visited += 1
    x.position = (x.position * ODD_MULTIPLIER + x.increment) % x.range
    return x.first + x.position if x.position < x.pages else -1


def look_at(host, g):
    """One page: merge it with the page that stands for its content, or let it stand for it."""
    page = host.page[g]
    identity = content(host, g)
    if page.bucket > 0 and page.key == identity:
        return
    h = equal_page(host, g, identity)
    if h < 0:
        stand_for(host, g, identity)
    elif host.page[h].frame != page.frame:
        # the frame that more pages map stays
        if sharers(host, g) > sharers(host, h):
            merge(host, g, h)
        else:
            merge(host, h, g)


@hookimpl
def mem_swap_out(host, vm, page):
    if not shareable(host, page):
        return TO_SWAP
    h = equal_page(host, page, content(host, page))
    if h < 0 or h == page or host.page[h].frame == host.page[page].frame:
        return TO_SWAP
    merge(host, h, page)
    host.own.saved_before_swap += 1
    return KEEP


def equal_page(host, g, identity):
    """The page that stands for a content, if it still has it; -1 for none. Hints that are out of date go."""
    h = host.page[identity % len(host.page)].first_hint - 1
    while h >= 0:
        other = host.page[h]
        after = other.next_hint - 1
        if other.key == identity and (not host.params.salting or page_vm(host, h) == page_vm(host, g)):
            if shareable(host, h) and content(host, h) == identity:
                return h
            # that page changed or went away: it stands for nothing any more
            take_out(host, h)
        h = after
    return -1


def stand_for(host, g, identity):
    """Let a page stand for its content."""
    page = host.page[g]
    if page.bucket > 0:
        take_out(host, g)
    b = identity % len(host.page)
    page.key = identity
    page.bucket = b + 1
    page.previous_hint = 0
    page.next_hint = host.page[b].first_hint
    if page.next_hint > 0:
        host.page[page.next_hint - 1].previous_hint = g + 1
    host.page[b].first_hint = g + 1


def take_out(host, g):
    """Page `g` stands for no content any more."""
    page = host.page[g]
    if page.previous_hint > 0:
        host.page[page.previous_hint - 1].next_hint = page.next_hint
    else:
        host.page[page.bucket - 1].first_hint = page.next_hint
    if page.next_hint > 0:
        host.page[page.next_hint - 1].previous_hint = page.previous_hint
    page.bucket = 0
