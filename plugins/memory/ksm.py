"""KSM: the kernel's same-page merging, as Linux runs it under KVM; a page must be the same in two scans.

Overview: ksmd looks at `pages_to_scan` pages, one after the other over all VMs, and sleeps `sleep_millisecs`. A page
whose contents are not what they were in the pass before is left alone. One that has not changed is
searched in the stable tree, of merged pages, and then in the unstable tree, of pages that were met in this
pass; an equal page there makes both a new node of the stable tree. The unstable tree is thrown away after
each pass. A node takes `max_page_sharing` pages; further equal ones make another node of the same contents,
the two being dups in a chain.

Source: Linux v6.18, mm/ksm.c (cmp_and_merge_page, stable_node_dup, scan_get_next_rmap_item, skip_age) and
Documentation/admin-guide/mm/ksm.rst. Counters are those of /sys/kernel/mm/ksm, kept as there: a page counts as
sharing until the scan finds that it is not. The tunables run, pages_to_scan and sleep_millisecs are the host's
(tune_scan), so that a daemon may change them while the host runs.

Claims: two complete scans of contents that nobody writes leave one frame for each content, where
max_page_sharing is out of reach.

Not modelled: merge_across_nodes (machine memory has no nodes here); run = 2, which unmerges; the advisor of v6.8; that
pages which change while they stand in the unstable tree misplace others in it: here they only are not found.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    content,
    hookimpl,
    merge,
    merge_zero,
    param,
    scan,
    set_timer,
    shareable,
    state,
    write_protected,
)

AXIS = "memory"
CLAIMS = frozenset({"shares"})
SOURCE = "Linux v6.18 mm/ksm.c"
COUNTERS = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "pages_scanned",
    "pages_skipped",
    "full_scans",
    "stable_node_chains",
    "stable_node_dups",
    "zero_pages",
)
TIMER = 0
MS = 1_000_000

NOWHERE, UNSTABLE, STABLE, ZERO = 0, 1, 2, 3
"""Where a page stands: in no tree, in the unstable one (of whatever pass), at a node of the stable one, on the host's
page of zeros."""

WITH_NODE, WITH_PAGE, WITH_ZERO = 1, 2, 3
"""What ksmd waits for: a page to join a node, two pages to become one, a page to become the page of zeros."""

BUSY, GONE = -1, -2
"""No page of a node can be merged with now; or none stands on its frame any more."""


@frozen
class Params:
    """Parameters of ksm: those of /sys/kernel/mm/ksm, by their names there."""

    pages_to_scan: int = param(
        100, unit="page_count", low=1, high=1 << 24, help="pages looked at before ksmd sleeps", source=f"{SOURCE}: 100"
    )
    sleep_millisecs: int = param(
        20, low=1, high=1_000_000, help="milliseconds that ksmd sleeps then", source=f"{SOURCE}: 20"
    )
    max_page_sharing: int = param(
        256, low=2, high=1 << 40, help="pages that a merged page stands for", source=f"{SOURCE}: 256"
    )
    use_zero_pages: bool = param(
        False, help="merge pages of zeros with the host's own page of zeros", source=f"{SOURCE}: 0"
    )
    smart_scan: bool = param(
        True, help="skip pages that several passes could not merge, for one to eight passes", source=f"{SOURCE}: 1"
    )


def scan_pass_ns(params, vm_pages):
    """How long a pass over the VMs takes at least, ns: for the note where a warm-up is too short."""
    return sum(vm_pages) * params.sleep_millisecs * MS // params.pages_to_scan


@state("host")
@define
class Daemon:
    """ksmd: where its scan is, what it waits for, and its counters."""

    next_page: int = 0
    pass_number: int = 1
    left: int = 0
    waits: int = 0
    items: int = 0
    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    pages_volatile: int = 0
    pages_scanned: int = 0
    pages_skipped: int = 0
    full_scans: int = 0
    stable_node_chains: int = 0
    stable_node_dups: int = 0
    zero_pages: int = 0


@state("page")
@define
class Item:
    """What ksmd keeps of a page (rmap_item). Row b is also the bucket of the unstable tree for remainder b."""

    known: int = 0
    checksum: int = 0
    where: int = 0
    age: int = 0
    skips: int = 0
    node: int = 0
    after: int = 0
    before: int = 0
    bucket: int = 0
    bucket_pass: int = 0
    bucket_first: int = 0


@state("page_frame")
@define
class Node:
    """A node of the stable tree, in the row of its frame. Row b is also the bucket for remainder b."""

    pages: int = 0
    first: int = 0
    key: int = 0
    after: int = 0
    before: int = 0
    bucket_first: int = 0


@hookimpl
def mem_init(host, now):
    set_timer(host, TIMER, now + sleep_ns(host))


@hookimpl
def mem_timer(host, timer, now):
    tuned = host.machine[0].scan_pages
    if host.machine[0].scan_run == 0:
        set_timer(host, TIMER, now + sleep_ns(host))
    else:
        scan(host, tuned if tuned > 0 else host.params.pages_to_scan)


def sleep_ns(host):
    """How long ksmd sleeps now."""
    tuned = host.machine[0].scan_sleep_ns
    return tuned if tuned > 0 else host.params.sleep_millisecs * MS


@hookimpl
def mem_share_scan(host, pages, now):
    host.own.left = pages
    go_on(host, now)


@hookimpl
def mem_share_merged(host, page, other, merged, now):
    own = host.own
    waits = own.waits
    own.waits = 0
    if merged == 1:
        if waits == WITH_ZERO:
            forget(host, other)
            own.zero_pages += 1
            host.page[other].where = ZERO
        else:
            join(host, page, other, waits)
    go_on(host, now)


@hookimpl
def mem_cow_break(host, vm, page, frame):
    # counted at once, as the fault does it on Linux; all else waits for the scan to come by
    if host.page[page].where == ZERO:
        take_out(host, page)


def go_on(host, now):
    """Look at pages until the batch is done, a pass is over, or a merge has to be waited for."""
    own = host.own
    total = len(host.page)
    zero = host.machine[0].zero_frame
    while own.left > 0:
        g = own.next_page
        if g >= total:
            own.next_page = 0
            own.pass_number += 1
            own.full_scans += 1
            own.left = 0
            break
        own.next_page = g + 1
        page = host.page[g]
        if page.frame <= 0:
            if page.known == 1 or page.where == ZERO:
                forget(host, g)
            continue
        if page.frame == zero or not shareable(host, g):
            continue
        if skip(host, g):
            continue
        own.left -= 1
        own.pages_scanned += 1
        if look_at(host, g):
            return
    own.pages_volatile = max(0, own.items - own.pages_shared - own.pages_sharing - own.pages_unshared)
    set_timer(host, TIMER, now + sleep_ns(host))


def skip(host, g):
    """Whether smart scan passes a page over, as passes before could not merge it (should_skip_rmap_item)."""
    if not host.params.smart_scan or is_merged(host, g):
        return False
    page = host.page[g]
    age = page.age
    if age < 255:
        page.age = age + 1
    if age < 3:
        return False
    if page.skips == 0:
        page.skips = 1 if age <= 3 else (2 if age <= 5 else (4 if age <= 8 else 8))
        return False
    page.skips -= 1
    host.own.pages_skipped += 1
    take_out(host, g)
    return True


def is_merged(host, g):
    """Whether a page stands on the frame of the node that it was put to."""
    page = host.page[g]
    return page.where == STABLE and page.node == page.frame and write_protected(host, g)


def look_at(host, g):
    """One page (cmp_and_merge_page); whether it asked for a merge, which comes first then."""
    own = host.own
    page = host.page[g]
    if is_merged(host, g):
        return False
    take_out(host, g)
    identity = content(host, g)
    if page.known == 0:
        page.known = 1
        own.items += 1
        page.checksum = identity
        return False
    if page.checksum != identity:
        page.checksum = identity
        return False
    if identity == 0 and host.params.use_zero_pages:
        own.waits = WITH_ZERO
        merge_zero(host, g)
        return True
    keep = stable_search(host, identity)
    if keep >= 0:
        own.waits = WITH_NODE
        merge(host, keep, g)
        return True
    met = unstable_search(host, g, identity)
    if met < 0:
        return False
    # the page at hand becomes the merged page, and the one that was met earlier joins it
    own.waits = WITH_PAGE
    merge(host, g, met)
    return True


# the stable tree -----------------------------------------------------------------------------------------------


def stable_search(host, identity):
    """A page that stands on a merged frame of these contents which takes one more page; -1 for none."""
    f = host.page_frame[identity % len(host.page_frame)].bucket_first - 1
    while f >= 0:
        node = host.page_frame[f]
        after = node.after - 1
        if node.key == identity:
            g = living(host, f)
            if g == GONE:
                drop_node(host, f)
            elif g >= 0 and node.pages < host.params.max_page_sharing:
                return g
        f = after
    return -1


def living(host, f):
    """A page that stands on a node's frame and can be merged with, first in the node from now on; BUSY where
    something is done to all that do, GONE where none does."""
    node = host.page_frame[f]
    found = GONE
    for _ in range(node.pages):
        g = node.first - 1
        if host.page[g].frame == f + 1 and write_protected(host, g):
            found = BUSY
            if shareable(host, g) and content(host, g) == node.key:
                return g
        node.first = host.page[g].after
    return found


def join(host, page, other, waits):
    """Two pages stand on one frame now: put them to its node, which is new if they were met in the unstable tree."""
    f = host.page[page].frame - 1
    if waits == WITH_PAGE:
        new_node(host, f, content(host, page))
        put(host, page, f)
    if host.page_frame[f].pages > 0:
        put(host, other, f)


def new_node(host, f, identity):
    """A node for a frame, first in its bucket, so that those which still take pages come first."""
    if host.page_frame[f].pages > 0:
        drop_node(host, f)
    same = dups(host, identity)
    count_dups(host, same, same + 1)
    b = identity % len(host.page_frame)
    node = host.page_frame[f]
    node.key = identity
    node.before = 0
    node.after = host.page_frame[b].bucket_first
    if node.after > 0:
        host.page_frame[node.after - 1].before = f + 1
    host.page_frame[b].bucket_first = f + 1


def dups(host, identity):
    """Nodes of some contents."""
    count = 0
    f = host.page_frame[identity % len(host.page_frame)].bucket_first - 1
    while f >= 0:
        node = host.page_frame[f]
        if node.key == identity:
            count += 1
        f = node.after - 1
    return count


def count_dups(host, before, after):
    """Nodes of equal contents are dups of a chain where there are two of them or more."""
    own = host.own
    own.stable_node_dups += (after if after > 1 else 0) - (before if before > 1 else 0)
    own.stable_node_chains += (1 if after > 1 else 0) - (1 if before > 1 else 0)


def drop_node(host, f):
    """Nobody stands on a node's frame any more: take it out of the tree (remove_node_from_stable_tree)."""
    while host.page_frame[f].pages > 0:
        take_out(host, host.page_frame[f].first - 1)


def unlink_node(host, f):
    """Take a node without pages out of its bucket."""
    node = host.page_frame[f]
    same = dups(host, node.key)
    if node.before > 0:
        host.page_frame[node.before - 1].after = node.after
    else:
        host.page_frame[node.key % len(host.page_frame)].bucket_first = node.after
    if node.after > 0:
        host.page_frame[node.after - 1].before = node.before
    node.after = 0
    node.before = 0
    count_dups(host, same, same - 1)


def put(host, g, f):
    """Add a page to a node, as the last of its ring (stable_tree_append)."""
    take_out(host, g)
    node = host.page_frame[f]
    page = host.page[g]
    page.where = STABLE
    page.node = f + 1
    if node.pages == 0:
        page.after = g + 1
        page.before = g + 1
        node.first = g + 1
        host.own.pages_shared += 1
    else:
        first = host.page[node.first - 1]
        last = host.page[first.before - 1]
        page.after = node.first
        page.before = first.before
        last.after = g + 1
        first.before = g + 1
        host.own.pages_sharing += 1
    node.pages += 1


# pages, and the unstable tree --------------------------------------------------------------------------------------


def unstable_search(host, g, identity):
    """An equal page that was met in this pass; if there is none, -1, and page `g` is one that can be met."""
    own = host.own
    b = identity % len(host.page)
    bucket = host.page[b]
    if bucket.bucket_pass != own.pass_number:
        bucket.bucket_pass = own.pass_number
        bucket.bucket_first = 0
    h = bucket.bucket_first - 1
    while h >= 0:
        other = host.page[h]
        if other.checksum == identity and h != g and shareable(host, h) and content(host, h) == identity:
            return h
        h = other.after - 1
    page = host.page[g]
    page.where = UNSTABLE
    page.bucket = own.pass_number
    page.before = 0
    page.after = bucket.bucket_first
    if page.after > 0:
        host.page[page.after - 1].before = g + 1
    bucket.bucket_first = g + 1
    own.pages_unshared += 1
    return -1


def take_out(host, g):
    """Take a page out of whichever tree it stands in (remove_rmap_item_from_tree)."""
    own = host.own
    page = host.page[g]
    if page.where == UNSTABLE:
        own.pages_unshared -= 1
        if page.bucket == own.pass_number:
            if page.before > 0:
                host.page[page.before - 1].after = page.after
            else:
                host.page[page.checksum % len(host.page)].bucket_first = page.after
            if page.after > 0:
                host.page[page.after - 1].before = page.before
    elif page.where == STABLE:
        f = page.node - 1
        node = host.page_frame[f]
        node.pages -= 1
        if node.pages == 0:
            own.pages_shared -= 1
            node.first = 0
            unlink_node(host, f)
        else:
            own.pages_sharing -= 1
            host.page[page.before - 1].after = page.after
            host.page[page.after - 1].before = page.before
            if node.first == g + 1:
                node.first = page.after
    elif page.where == ZERO:
        own.zero_pages -= 1
    else:
        return
    page.where = NOWHERE
    page.node = 0
    page.after = 0
    page.before = 0


def forget(host, g):
    """A page has no frame any more: nothing is known of it."""
    take_out(host, g)
    page = host.page[g]
    host.own.items -= page.known
    page.known = 0
    page.checksum = 0
    page.age = 0
    page.skips = 0
