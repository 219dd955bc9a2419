"""Dividing machine memory among VMs by shares, for policies that set balloon targets: min-funding revocation.

Who pays least for a page gives up first, until all pay the same. A VM of S shares that holds P pages, a of them active,
pays S / (a + k (P - a)) a page: an idle page costs k = 1 / (1 - tax) times as much as an active one. This is
S / (P (f + k (1 - f))) with f = a / P. All pay the same at a level L = 1 / price where each VM holds

    P(L) = S L                          up to its active pages,
    P(L) = a + (S L - a) (1 - tax)      beyond them,

never less than its floor and never more than it claims. L is found by bisection, in whole numbers.

Source: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002, sections 5.1 and 5.2.
"""

from __future__ import annotations

from typing import Any

from attrs import define

from hvbench.jit import jit
from hvbench.state.records_memory import SOFT

LEVEL_SHIFT = 20
"""Fraction bits of a level, pages a share."""
STEADY = 400
"""A size that would change by less than 1/400 of the VM stays [oVirt MOM balloon.rules: min_balloon_change 0.25 %]."""


@define
class MemoryShare:
    """Own fields beside each VM's row of `vmem` that `divide_memory` reads (active) and fills: a policy that calls it
    declares a subclass with `@state("vmem")`."""

    active_pages: int = 0
    claim_pages: int = 0
    floor_pages: int = 0
    fair_pages: int = 0


@jit
def pending_balloon(host: Any) -> int:
    """Pages that balloons are on their way to take."""
    total = 0
    for m in range(host.vms):
        x = host.vmem[m]
        total += max(0, x.balloon_target - x.ballooned)
    return total


@jit
def held_at(shares: int, active: int, level: int, tax_percent: int) -> int:
    """Pages that a VM holds at a level; see the module's docstring."""
    untaxed = (shares * level) >> LEVEL_SHIFT
    if untaxed <= active:
        return untaxed
    return active + (untaxed - active) * (100 - tax_percent) // 100


@jit
def fair_at(host: Any, level: int, tax_percent: int) -> int:
    """Sum of what all VMs hold at a level, between their floors and their claims."""
    total = 0
    for m in range(host.vms):
        x = host.vmem[m]
        total += max(x.floor_pages, min(x.claim_pages, held_at(x.shares, x.active_pages, level, tax_percent)))
    return total


@jit
def divide_memory(host: Any, tax_percent: int, lend_percent: int, least_percent: int) -> None:
    """Set `fair_pages` of every VM. The policy sets `active_pages` before.

    What is divided is what VMs hold, and what the host has or lacks: in the states from soft on the difference to its
    goal, else what is free beyond it. A VM that is held back (by its balloon, or because pages of it are swapped out)
    claims all that it may have, any other what it holds. Nobody is left less than its reservation and `least_percent`
    of its size, as far as it claims that. What a VM leaves of its part, but for `lend_percent` of its size to grow
    into, is lent to those that use all of theirs, in equal parts; with -1 nothing is lent.
    """
    mc = host.machine[0]
    total = mc.free + mc.swapping - mc.goal
    if mc.state < SOFT:
        total = max(0, total)
    claims = 0
    top = 0
    for m in range(host.vms):
        x = host.vmem[m]
        total += x.resident
        claim = x.limit
        if x.pinned or (x.ballooned == 0 and x.balloon_target == 0 and x.swapped == 0):
            claim = x.resident if x.pinned else min(x.resident, x.limit)
        x.claim_pages = claim
        least = max(x.reservation, x.pages * least_percent // 100)
        if x.pinned:
            least = claim
        x.floor_pages = min(claim, least)
        claims += claim
        top = max(top, (((claim * 100 // (100 - tax_percent)) + 1) << LEVEL_SHIFT) // x.shares + 1)
    if claims <= total:
        for m in range(host.vms):
            host.vmem[m].fair_pages = host.vmem[m].claim_pages
        return
    low = 0
    while low + 1 < top:
        middle = (low + top) // 2
        if fair_at(host, middle, tax_percent) <= total:
            low = middle
        else:
            top = middle
    for m in range(host.vms):
        x = host.vmem[m]
        held = held_at(x.shares, x.active_pages, low, tax_percent)
        x.fair_pages = max(x.floor_pages, min(x.claim_pages, held))
    if lend_percent >= 0:
        lend_unused(host, lend_percent)


@jit
def lend_unused(host: Any, lend_percent: int) -> None:
    """Let VMs that use all of their part, and hardly anything idle, have what others leave of theirs."""
    unused = 0
    wanting = 0
    for m in range(host.vms):
        x = host.vmem[m]
        room = x.pages * lend_percent // 100
        unused += max(0, x.fair_pages - x.resident - room)
        wanting += wants_more(x, room)
    for m in range(host.vms):
        x = host.vmem[m]
        if wants_more(x, x.pages * lend_percent // 100):
            x.fair_pages = min(x.claim_pages, x.fair_pages + unused // wanting)


@jit
def wants_more(x: Any, room: int) -> bool:
    """Whether a VM uses all of its part: what it holds reaches into its room to grow, and so does what is active."""
    return x.fair_pages < x.claim_pages and x.resident >= x.fair_pages - room and x.active_pages >= x.resident - room


@jit
def balloon_size(host: Any, m: int) -> int:
    """The size to answer to mem_balloon_target after `divide_memory`: as fair, or as it is if that is nearly the same.

    A VM that is not held back and may keep what it holds is not ballooned at all: it grows while memory is free.
    """
    x = host.vmem[m]
    now = x.pages - x.balloon_target
    fair = min(x.pages, x.fair_pages)
    if x.balloon_target == 0 and x.ballooned == 0 and fair >= x.resident + x.swapped and x.resident <= x.limit:
        return x.pages
    if fair != x.pages and abs(fair - now) < max(1, x.pages // STEADY):
        return now
    return fair
