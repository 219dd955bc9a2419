"""Balloon: take memory from the VMs that pay least for it, and let each guest choose what to give up.

Overview: while free memory is below `high`, each VM is given a target: its fair part of what the host has for
guests, in proportion to its
weight, never more than its size and never less than its reservation or `min_percent` of it. A balloon driver
in the guest inflates by the
difference, in the guest's own CPU time and at the driver's rate; the guest gives up free pages, then clean
cache, then swaps. When free memory is back
above `high`, targets grow by at most `grow_percent` of the size a period, so that balloons deflate where
memory is free.

Source: Waldspurger, OSDI 2002, section 3.2 (ballooning), 5.1 (min-funding revocation: fewest shares per page
pay first), 6.3 (states: balloon in
`soft` and below; high/soft/hard/low at 6/4/2/1 %). The step: oVirt MOM's balloon.rules changes a target by at
most 5 % at a time.

Claims: reclaims without host swap where guests have something to give.

Not modelled: an idle-memory tax (see idle-tax), statistical sampling of working sets.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import balance, hookimpl, param, set_free_states

AXIS = "memory"
CLAIMS = frozenset({"balloons"})
HIGH, SOFT, HARD = 0, 1, 2


@frozen
class Params:
    """Parameters of balloon."""

    period_ns: int = param(
        1_000_000_000, unit="ns", low=1_000_000, help="how often targets are set", source="choice of this project"
    )
    high_ppm: int = param(
        60_000, unit="ppm", low=0, help="free memory from which on nothing is reclaimed", source="ESX: 6 %"
    )
    soft_ppm: int = param(40_000, unit="ppm", low=0, help="below it the state is hard", source="ESX: 4 %")
    hard_ppm: int = param(20_000, unit="ppm", low=0, help="below it the state is low", source="ESX: 2 %")
    low_ppm: int = param(10_000, unit="ppm", low=0, help="the host's last free memory", source="ESX: 1 %")
    min_percent: int = param(
        25,
        unit="percent",
        low=0,
        high=100,
        help="a VM keeps at least so much of its size",
        source="ESX 4.1: a balloon takes at most 65 % of a VM (sched.mem.maxmemctl); MOM: min_balloon_size; 75 % here",
    )
    grow_percent: int = param(
        5,
        unit="percent",
        low=1,
        high=100,
        help="largest step back towards a VM's size in a period",
        source="oVirt MOM balloon.rules: max_balloon_change_percent 0.05",
    )


@hookimpl
def mem_init(host):
    p = host.params
    set_free_states(host, p.high_ppm, p.soft_ppm, p.hard_ppm, p.low_ppm)
    balance(host, p.period_ns)


def floor_of(host, vm):
    x = host.vmem[vm]
    return max(x.reservation, x.pages * host.params.min_percent // 100)


@hookimpl
def mem_balloon_target(host, vm):
    machine = host.machine[0]
    x = host.vmem[vm]
    now = x.pages - x.ballooned
    if machine.state == HIGH:
        if x.ballooned == 0:
            return x.pages
        # give back only what keeps free memory above high
        spare = machine.free - machine.high - machine.hysteresis
        step = min(x.pages * host.params.grow_percent // 100, max(0, spare) // max(1, host.vms))
        return min(x.pages, now + step)
    # what is missing is taken first from those who hold most per share
    missing = machine.high + machine.hysteresis - machine.free - pending(host)
    if missing <= 0:
        return min(x.pages, x.pages - x.balloon_target)
    level = fair_level(host, missing)
    target = min(now, level * host.vm[vm].weight // 1_000_000)
    return max(min(floor_of(host, vm), x.pages), min(target, x.pages - x.balloon_target))


def pending(host):
    """Pages that balloons are on their way to take."""
    total = 0
    for m in range(host.vms):
        x = host.vmem[m]
        total += max(0, x.balloon_target - x.ballooned)
    return total


def fair_level(host, missing):
    """Pages per million of weight such that cutting everybody down to it yields `missing` frames: by bisection."""
    low = 0
    high = 0
    for m in range(host.vms):
        high = max(high, host.vmem[m].resident * 1_000_000 // max(1, host.vm[m].weight) + 1_000_000)
    for _ in range(40):
        middle = (low + high) // 2
        got = 0
        for m in range(host.vms):
            x = host.vmem[m]
            keep = max(floor_of(host, m), middle * host.vm[m].weight // 1_000_000)
            got += max(0, x.resident - keep)
        if got >= missing:
            low = middle
        else:
            high = middle
    return low


@hookimpl
def mem_reclaim(host, pages, state):
    # the targets see to it, as far as balloons are fast enough and nobody waits
    if state >= HARD:
        return 0
    return min(pages, pending(host))
