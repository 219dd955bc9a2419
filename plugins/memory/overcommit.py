"""Overcommit: VMs may be promised more than there is; what does not fit goes to the hypervisor's swap.

Overview: a VM is admitted while the sum of configured memory stays within `ratio_percent` of machine memory, and
the sum of reservations and overheads within what the host has for guests. From the state hard on, or when a vCPU
waits for a frame, pages of the VM that pays least for them (shares per page, or what a layer above says) are
written to the hypervisor's swap: random ones, or with `clock` those that were not touched since the hand last
passed. No VM is taken below its reservation, and one that holds more than its limit is brought back to it whether
or not memory is short. A page that is touched again is read back, and its vCPU waits. In the state low a VM that
holds more than its balloon target allows does not run until free memory has reached hard again.

Source: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002: sections 3.3 (demand paging is
the mechanism of last resort; a random page, since any better policy may collide with the guest's own), 6.2
(admission: reservations and overhead), 6.3 (states; low blocks the VMs above their targets). Clock: Corbato, "A
Paging Experiment with the Multics System", 1968. The ratio: OpenStack's ram_allocation_ratio, 1.5.

Claims: admits VMs whose sum is larger than the machine; no VM is taken below its reservation.

Not modelled: swapping a whole VM out; a swap file per VM with its own place; swap read-ahead. A page counts as
touched in units of 1.05 ms; the time of the clock hand.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    BY_SWAP,
    FREE_HARD,
    FREE_LOW,
    block,
    hookimpl,
    param,
    reclaim,
    set_timer,
    state,
    swappable,
    unblock,
)

AXIS = "memory"
CLAIMS = frozenset({"overcommits"})
HONOURS = frozenset({"limit"})
LIMITS, BLOCKED = 0, 1
LIMIT_NS = 1_000_000_000
BLOCKED_NS = 1_000_000
"""So often VMs are held to their limits, and blocked VMs looked at: so often that no VM stands still for much longer
than memory was low."""


@frozen
class Params:
    """Parameters of overcommit."""

    ratio_percent: int = param(
        150,
        unit="percent",
        low=1,
        help="configured memory of all VMs, at most so much of machine memory",
        source="OpenStack Nova: ram_allocation_ratio 1.5",
    )
    batch_pages: int = param(
        1024, unit="pages", low=1, help="pages swapped out at once, at most", source="choice of this project: 4 MiB"
    )
    clock: bool = param(
        False,
        help="whether victims are those not touched since the clock hand last passed, instead of random ones",
        source="Waldspurger 2002, 3.3: ESX takes random ones",
    )
    block_in_low: bool = param(
        True,
        help="whether VMs above their targets stand still in the state low",
        source="Waldspurger 2002, 6.3",
    )


@state("vmem")
@define
class Hand:
    """The clock hand of a VM, when it last began a round, and whether its vCPUs are blocked."""

    hand: int = 0
    blocked: int = 0


@state("page")
@define
class Passed:
    """The stamp that a page had when the hand passed it."""

    seen_stamp: int = 0


@hookimpl
def mem_init(host, now):
    for m in range(host.vms):
        if host.vmem[m].limit < host.vmem[m].pages:
            set_timer(host, LIMITS, now + LIMIT_NS)


@hookimpl
def mem_admit(host, vm):
    machine = host.machine[0]
    room = machine.frames * host.params.ratio_percent // 100
    sure = machine.frames - machine.hypervisor - machine.reserve
    for m in range(vm + 1):
        x = host.vmem[m]
        room -= x.pages
        sure -= x.reservation + x.overhead_fixed
    return max(0, -room, -sure)


@hookimpl
def mem_reclaim(host, pages, state, now):
    if state < FREE_HARD:
        return 0
    if state == FREE_LOW and host.machine[0].state == FREE_LOW and host.params.block_in_low:
        block_greedy(host, now)
    wanted = min(pages, host.params.batch_pages)
    reclaim(host, -1, BY_SWAP, wanted)
    return wanted


@hookimpl
def mem_timer(host, timer, now):
    if timer == LIMITS:
        set_timer(host, LIMITS, now + LIMIT_NS)
        for m in range(host.vms):
            x = host.vmem[m]
            if x.resident > x.limit:
                reclaim(host, m, BY_SWAP, min(x.resident - x.limit, host.params.batch_pages))
    elif host.machine[0].state == FREE_LOW:
        block_greedy(host, now)
    else:
        for m in range(host.vms):
            if host.vmem[m].blocked:
                host.vmem[m].blocked = 0
                for v in range(host.vm[m].first_vcpu, host.vm[m].first_vcpu + host.vm[m].vcpus):
                    unblock(host, v)


def block_greedy(host, now):
    """Block the VMs that hold more than their targets; those that came below theirs go on.

    A target is what a balloon is to leave a VM, or without a balloon its part of the machine by shares.
    """
    set_timer(host, BLOCKED, now + BLOCKED_NS)
    machine = host.machine[0]
    room = machine.frames - machine.hypervisor - machine.goal
    shares = 0
    for m in range(host.vms):
        room -= host.vmem[m].overhead
        shares += host.vmem[m].shares
    for m in range(host.vms):
        x = host.vmem[m]
        target = x.pages - x.balloon_target if x.balloon_target > 0 else room * x.shares // shares
        greedy = x.resident > max(target, x.reservation)
        first = host.vm[m].first_vcpu
        if greedy and x.blocked == 0:
            x.blocked = 1
            for v in range(first, first + host.vm[m].vcpus):
                block(host, v)
        elif x.blocked and not greedy:
            x.blocked = 0
            for v in range(first, first + host.vm[m].vcpus):
                unblock(host, v)


@hookimpl
def mem_pick_victim(host, vm):
    """With `clock` the first page from the hand on that was not touched since the hand passed it; else any."""
    if not host.params.clock:
        return -1
    x = host.vmem[vm]
    used = x.pages if x.large_backing else x.fresh
    # a whole round gives every page its second chance, the next one finds a victim
    for _ in range(2 * used):
        if x.hand >= used:
            x.hand = 0
        g = x.first + x.hand
        x.hand += 1
        if swappable(host, g):
            page = host.page[g]
            if page.seen_stamp == page.stamp + 1:
                return g
            page.seen_stamp = page.stamp + 1
    return -1
