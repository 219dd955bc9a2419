"""Page sharing by content: pages with equal contents share one frame, copied when written.

Overview: the scan thread looks at `scan_pages` guest pages every `period_ns`, one after the other over all
VMs. A page's content is looked up among
the pages already shared: if it is there, it is merged. Else it becomes a hint for its content; a page whose
hint is already there is compared with the
hinted page, and merged if both are still equal. A write takes a shared page apart.

Source: Waldspurger, OSDI 2002, section 4: hash of contents, hint frames, copy on write. ESX scans at random
while idle; KSM scans in
order: 100 pages every 20 ms (Linux Documentation/admin-guide/mm/ksm.rst), which are the defaults here.

Claims: a complete scan of contents that nobody writes leaves one frame for each content.

Not modelled: KSM's trees and its check that a page did not change between two scans (see ksm).
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import content, hookimpl, merge, param, scan, set_timer, shareable, sharers, state

AXIS = "memory"
CLAIMS = frozenset({"shares"})
TIMER = 0


@frozen
class Params:
    """Parameters of page-sharing."""

    scan_pages: int = param(
        100, unit="pages", low=1, high=2000, help="pages looked at in a period", source="KSM: pages_to_scan 100"
    )
    period_ns: int = param(
        20_000_000, unit="ns", low=1000, help="how often pages are looked at", source="KSM: sleep_millisecs 20"
    )


def scan_pass_ns(params, vm_pages):
    """How long a pass over the VMs takes at least, ns: for the note where a warm-up is too short."""
    return sum(vm_pages) * params.period_ns // params.scan_pages


@state("host")
@define
class Scanner:
    """Where the scan is."""

    next_page: int = 0
    passes: int = 0
    waiting: int = 0


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
    if host.own.waiting == 0:
        # a scan thread that gets no CPU time does not pile its work up
        host.own.waiting = 1
        scan(host, host.params.scan_pages)


@hookimpl
def mem_share_scan(host, pages):
    own = host.own
    own.waiting = 0
    total = len(host.page)
    looked = 0
    skipped = 0
    while looked < pages and skipped < total:
        g = own.next_page
        own.next_page = g + 1
        if g + 1 >= total:
            own.next_page = 0
            own.passes += 1
        if not shareable(host, g):
            # pages without a frame are not in any table that a scanner walks
            skipped += 1
            continue
        looked += 1
        look_at(host, g)


def look_at(host, g):
    """One page: merge it with the page that stands for its content, or let it stand for it."""
    identity = content(host, g)
    page = host.page[g]
    if page.bucket > 0:
        if page.key == identity:
            return
        take_out(host, g)
    b = identity % len(host.page)
    h = host.page[b].first_hint - 1
    while h >= 0:
        other = host.page[h]
        after = other.next_hint - 1
        if other.key == identity:
            if shareable(host, h) and content(host, h) == identity:
                if other.frame != page.frame:
                    # the frame that more pages map stays
                    if sharers(host, g) > sharers(host, h):
                        merge(host, g, h)
                    else:
                        merge(host, h, g)
                return
            # that page changed or went away: it stands for nothing any more
            take_out(host, h)
        h = after
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
