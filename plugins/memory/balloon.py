"""Balloon: each VM has a target by its shares; a driver in the guest takes the rest, the guest chooses what goes.

Overview: every `period_ns`, and when the state of free memory changes, machine memory is divided among the VMs by
min-funding revocation: who holds most pages a share gives up first. A VM above its part gets a balloon of the
difference, which its driver inflates at its rate, in the guest's own CPU time; the guest gives up free pages, then
clean cache, then swaps to its own disk. In the states high and clear nothing is taken for the host, but a VM that
is held back still gets what others hold above their part; where memory is free, balloons deflate. From hard on what
is still missing is left to the layers below (`balloon+overcommit`).

Source: Waldspurger, OSDI 2002, section 3.2 (ballooning), 5.1 (min-funding revocation), 6.3 (states
high/soft/hard/low at 6/4/2/1 % of memory: targets drive free memory above the high threshold). Deflating on OOM:
virtio's VIRTIO_BALLOON_F_DEFLATE_ON_OOM.

Claims: reclaims without host swap where guests have something to give.

Not modelled: an idle-memory tax (see idle-tax); free page reporting.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    FREE_HARD,
    MemoryShare,
    balance,
    balloon_size,
    divide_memory,
    hookimpl,
    param,
    pending_balloon,
    set_balloon_driver,
    set_free_states,
    state,
)

AXIS = "memory"
CLAIMS = frozenset({"balloons"})
HONOURS = frozenset({"limit"})


@frozen
class Params:
    """Parameters of balloon."""

    period_ns: int = param(
        1_000_000_000, unit="ns", low=1_000_000, help="how often targets are set", source="choice of this project"
    )
    high_ppm: int = param(
        60_000,
        unit="ppm",
        low=0,
        high=1_000_000,
        help="free memory that reclaim works towards; well above it the state is high again",
        source="Waldspurger 2002, 6.3: 6 %",
    )
    soft_ppm: int = param(
        40_000,
        unit="ppm",
        low=0,
        high=1_000_000,
        help="below it the state is soft: memory is reclaimed",
        source="Waldspurger 2002, 6.3: 4 %",
    )
    hard_ppm: int = param(
        20_000,
        unit="ppm",
        low=0,
        high=1_000_000,
        help="below it the state is hard: the layers below act",
        source="Waldspurger 2002, 6.3: 2 %",
    )
    low_ppm: int = param(
        10_000,
        unit="ppm",
        low=0,
        high=1_000_000,
        help="below it the state is low",
        source="Waldspurger 2002, 6.3: 1 %",
    )
    least_percent: int = param(
        35,
        unit="percent",
        low=0,
        high=100,
        help="a balloon leaves a VM at least so much of its size",
        source="ESX: Mem.CtlMaxPercent 65, the most that a balloon takes",
    )
    lend_percent: int = param(
        5,
        unit="percent",
        low=-1,
        high=100,
        help="what a VM leaves of its part, but for so much of its size, is lent to those that use all of theirs; "
        "-1: never",
        source="choice of this project",
    )
    deflate_on_oom: bool = param(
        False,
        help="whether a guest without memory takes pages out of its balloon before it kills a process",
        source="QEMU virtio-balloon: deflate-on-oom=off; ESX's vmmemctl has none",
    )

    def __attrs_post_init__(self) -> None:
        if not self.high_ppm >= self.soft_ppm >= self.hard_ppm >= self.low_ppm:
            raise ValueError("high, soft, hard and low must not rise in this order")


@state("vmem")
@define
class Share(MemoryShare):
    """What each VM holds, claims and is to have."""


@hookimpl
def mem_init(host):
    p = host.params
    set_free_states(host, p.high_ppm, p.soft_ppm, p.hard_ppm, p.low_ppm)
    set_balloon_driver(host, p.deflate_on_oom)
    balance(host, p.period_ns)


@hookimpl
def mem_balloon_target(host, vm):
    if vm == 0:
        # the VMs are asked in turn: the first question divides for all
        for m in range(host.vms):
            host.vmem[m].active_pages = host.vmem[m].pages
        divide_memory(host, 0, host.params.lend_percent, host.params.least_percent)
    return balloon_size(host, vm)


@hookimpl
def mem_reclaim(host, pages, state):
    # the targets see to it, as far as balloons are fast enough and nobody waits
    if state >= FREE_HARD:
        return 0
    return min(pages, pending_balloon(host))
