"""The guests' replacement lists, and what is in a page.

A VM has four doubly linked lists (`host.page_list`), linked through its pages. The first entry is the most recent one.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import mix
from hvbench.state.records_memory import (
    ACTIVE_ANON,
    ACTIVE_FILE,
    ANON,
    IMAGE,
    IMAGE_CONTENT,
    INACTIVE_ANON,
    INACTIVE_FILE,
    LINUX,
    LISTS,
    P_ACTIVE,
    P_FILE,
    P_LISTED,
    P_VM_SHIFT,
)
from hvbench.traces.format import FLAG_COMMON

FRESH_SALT = 0x46524553
STALE_SALT = 0x5354414C
FILE_SALT = 0x46494C45


@jit
def vm_of(host: Any, g: int) -> int:
    """The VM that a guest page belongs to; the page was used before."""
    return host.page[g].flags >> P_VM_SHIFT


@jit
def list_of(host: Any, m: int, flags: int) -> int:
    """Row of the list on which a page with these flags stands."""
    if host.vmem[m].replacement != LINUX:
        return m * LISTS + INACTIVE_ANON
    if flags & P_FILE:
        return m * LISTS + (ACTIVE_FILE if flags & P_ACTIVE else INACTIVE_FILE)
    return m * LISTS + (ACTIVE_ANON if flags & P_ACTIVE else INACTIVE_ANON)


@jit
def list_push(host: Any, which: int, g: int) -> None:
    """Put a page first on a list."""
    k = host.page_list[which]
    pg = host.page[g]
    first = k.first
    pg.prev = 0
    pg.next = first
    pg.flags = pg.flags | P_LISTED
    if first > 0:
        host.page[first - 1].prev = g + 1
    else:
        k.last = g + 1
    k.first = g + 1
    k.count = k.count + 1


@jit
def list_remove(host: Any, which: int, g: int) -> None:
    """Take a page off its list."""
    k = host.page_list[which]
    pg = host.page[g]
    before = pg.prev
    after = pg.next
    if before > 0:
        host.page[before - 1].next = after
    else:
        k.first = after
    if after > 0:
        host.page[after - 1].prev = before
    else:
        k.last = before
    pg.prev = 0
    pg.next = 0
    pg.flags = pg.flags & ~P_LISTED
    k.count = k.count - 1


@jit
def list_front(host: Any, which: int, g: int) -> None:
    """Move a page of a list to its front."""
    k = host.page_list[which]
    pg = host.page[g]
    before = pg.prev
    if before <= 0:
        return
    after = pg.next
    first = k.first
    host.page[before - 1].next = after
    if after > 0:
        host.page[after - 1].prev = before
    else:
        k.last = before
    host.page[first - 1].prev = g + 1
    pg.prev = 0
    pg.next = first
    k.first = g + 1


@jit
def object_of_row(host: Any, m: int, row: int) -> int:
    """The object of a VM that a mapping row belongs to. O(log n)."""
    x = host.vmem[m]
    low = x.first_object
    high = x.first_object + x.objects
    while high - low > 1:
        middle = (low + high) >> 1
        if host.object[middle].first <= row:
            low = middle
        else:
            high = middle
    return low


@jit
def page_identity(host: Any, g: int) -> int:
    """Content identity of a guest page: 0 is the page of zeros; equal identities are equal contents.

    A page that the guest holds for nobody has the leftovers of somebody: an identity of its own.
    """
    pg = host.page[g]
    owner = pg.owner
    if owner <= 0:
        return mix(STALE_SALT, g + 1)
    return object_identity(host, pg.flags >> P_VM_SHIFT, owner - 1)


@jit
def object_identity(host: Any, m: int, row: int) -> int:
    """Content identity of a page of an object of VM `m`: as recorded or derived, else fresh (VM, page, version)."""
    content = host.mapping[row].content
    if content < 0:
        return mix(mix(FRESH_SALT, row + 1), -content)
    if content > 0:
        return recorded_identity(host, m, content)
    x = host.object[object_of_row(host, m, row)]
    if x.kind == ANON:
        return 0
    # a file page that nobody wrote or recorded: the same in every VM for the base image's
    owner = 0 if x.kind == IMAGE else m + 1
    return mix(mix(mix(FILE_SALT, x.identity), row - x.first), owner)


@jit
def recorded_identity(host: Any, m: int, content: int) -> int:
    """The identity that a mapping's `content` above 0 stands for; private ones are mixed with the VM's number."""
    if content >= IMAGE_CONTENT:
        c = host.image_content[content - IMAGE_CONTENT]
        identity = c.identity
        common = c.common
    else:
        r = host.op[content - 1]
        identity = r.b
        common = r.flags & FLAG_COMMON
    if identity != 0 and not common:
        identity = mix(identity, m + 1)
    return identity


@jit
def of_image(host: Any, m: int, row: int) -> bool:
    """Whether an object's page of VM `m` is one of a base-image file that the VM has not written."""
    return host.mapping[row].content >= 0 and host.object[object_of_row(host, m, row)].kind == IMAGE
