"""Idle-memory tax: as balloon, but a page that a VM does not use costs it more, so that idle VMs give up first.

Overview: each VM's active memory is sampled. `sample_pages` random pages of it are watched for `sample_ns` of the
VM's time: their mappings are taken away, and a touch is seen as a fault. The touched share goes into a slow and a
fast moving average; a third value is the fast one with what the current period has seen so far. The largest of the
three counts. Every `period_ns`, and when the state of free memory changes, machine memory is divided so that all
VMs pay the same for a page, an idle page being charged 1 / (1 - tax) times (min-funding revocation); balloons do
the rest, and swapping takes from whoever pays least.

Source: Waldspurger, OSDI 2002, section 5.2 (tax rate, idle page cost k = 1 / (1 - tau), shares per page rho = S /
(P (f + k (1 - f)))), 5.3 (sampling: 100 pages, 30 s of VM time, three averages), 6.3 (states). Balance period:
ESX's Mem.BalancePeriod 15 s.

Claims: reclaims without host swap where guests have something to give; takes from idle VMs first; balloons of those
that want memory deflate when others stop using theirs.

Not modelled: sampling by the accessed bits of nested tables; a page of a 2 MiB mapping is watched alone, without
splitting it. VM time is the time in which the VM was not kept from running (waiting for a pCPU or for the
hypervisor's disk): halted time counts, else the sample of an idle VM would never end.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    FREE_HARD,
    TOUCH_WATCHED,
    MemoryShare,
    balance,
    balloon_size,
    divide_memory,
    hookimpl,
    param,
    pending_balloon,
    random_below,
    set_balloon_driver,
    set_free_states,
    set_timer,
    state,
    watch,
)

AXIS = "memory"
CLAIMS = frozenset({"balloons", "gives-back", "taxes-idle-memory"})
HONOURS = frozenset({"limit"})
TIMER = 0
LOOK_NS = 1_000_000_000
"""Each VM's sample is looked at so often: whether its time is over."""


@frozen
class Params:
    """Parameters of idle-tax."""

    tax_percent: int = param(
        75, unit="percent", low=0, high=99, help="tax rate on idle memory", source="ESX: Mem.IdleTax 75"
    )
    period_ns: int = param(
        15_000_000_000, unit="ns", low=1_000_000, help="how often targets are set", source="ESX: Mem.BalancePeriod 15 s"
    )
    sample_pages: int = param(
        100,
        unit="page_count",
        low=1,
        high=1000,
        help="pages of each VM that are watched in a sampling period",
        source="Waldspurger 2002, 5.3: 100",
    )
    sample_ns: int = param(
        30_000_000_000,
        unit="ns",
        low=1_000_000_000,
        help="sampling period, in the VM's time",
        source="Waldspurger 2002, 5.3: 30 s",
    )
    slow_percent: int = param(
        12, unit="percent", low=1, high=100, help="gain of the slow average", source="choice of this project: 1/8"
    )
    fast_percent: int = param(
        50, unit="percent", low=1, high=100, help="gain of the fast averages", source="choice of this project: 1/2"
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
        -1,
        unit="percent",
        low=-1,
        high=100,
        help="what a VM leaves of its part, but for so much of its size, is lent to those that use all of theirs; "
        "-1: never",
        source="Waldspurger 2002: idle memory is taxed, not lent",
    )
    deflate_on_oom: bool = param(
        False,
        help="whether a guest without memory takes pages out of its balloon before it kills a process",
        source="ESX's vmmemctl has none",
    )

    def __attrs_post_init__(self) -> None:
        if not self.high_ppm >= self.soft_ppm >= self.hard_ppm >= self.low_ppm:
            raise ValueError("high, soft, hard and low must not rise in this order")


@state("host")
@define
class Sampler:
    """Whose sample is looked at next."""

    next_vm: int = 0


@state("vmem")
@define
class Sample(MemoryShare):
    """The sample of a VM, and its averages: touched shares, 0 to 1; what it claims and is to have."""

    began_ns: int = 0
    periods: int = 0
    watching: int = 0
    touched: int = 0
    first_sample: int = 0
    slow: float = 0.0
    fast: float = 0.0


@state("page")
@define
class Sampled:
    """The period in which a page was last in a sample, and the next page + 1 of that sample."""

    in_period: int = 0
    next_sample: int = 0


@hookimpl
def mem_init(host, now):
    p = host.params
    set_free_states(host, p.high_ppm, p.soft_ppm, p.hard_ppm, p.low_ppm)
    set_balloon_driver(host, p.deflate_on_oom)
    balance(host, p.period_ns)
    set_timer(host, TIMER, now)


# sampling --------------------------------------------------------------------------------------------------------


@hookimpl
def mem_timer(host, timer, now):
    """One VM at a time, so that the requests of all fit into the outbox."""
    set_timer(host, TIMER, now + LOOK_NS // host.vms)
    m = host.own.next_vm
    host.own.next_vm = m + 1 if m + 1 < host.vms else 0
    x = host.vmem[m]
    if x.watching == 0 or vm_time(host, m, now) - x.began_ns >= host.params.sample_ns:
        if x.watching > 0:
            end_sample(host, m)
        begin_sample(host, m, now)


def vm_time(host, m, now):
    """The VM's time: virtual time less the time that its vCPUs were kept from running, on average."""
    v = host.vm[m].first_vcpu
    kept = 0
    for i in range(v, v + host.vm[m].vcpus):
        kept += host.vcpu[i].waited_ns + host.vcpu_mem[i].stalled_ns
    return now - kept // host.vm[m].vcpus


def begin_sample(host, m, now):
    x = host.vmem[m]
    x.periods += 1
    x.began_ns = vm_time(host, m, now)
    x.touched = 0
    x.watching = 0
    x.first_sample = 0
    for _ in range(min(host.params.sample_pages, x.pages)):
        g = x.first + random_below(host, x.pages)
        if host.page[g].in_period != x.periods:
            # a page that was drawn twice is watched once
            host.page[g].in_period = x.periods
            host.page[g].next_sample = x.first_sample
            x.first_sample = g + 1
            x.watching += 1
            watch(host, g, 1)


def end_sample(host, m):
    x = host.vmem[m]
    share = x.touched / x.watching
    if x.periods == 1:
        x.slow = share
        x.fast = share
    else:
        x.slow += (share - x.slow) * host.params.slow_percent / 100
        x.fast += (share - x.fast) * host.params.fast_percent / 100
    g = x.first_sample - 1
    while g >= 0:
        watch(host, g, 0)
        g = host.page[g].next_sample - 1


@hookimpl
def mem_fault(host, vm, page, kind):
    if kind == TOUCH_WATCHED:
        host.vmem[vm].touched += 1


def active(host, m):
    """Estimated active pages of a VM: all that it holds until its first sample is complete."""
    x = host.vmem[m]
    if x.periods < 2:
        return x.resident
    current = x.fast + (x.touched / x.watching - x.fast) * host.params.fast_percent / 100
    return int(max(x.slow, x.fast, current) * x.pages)


# prices and targets --------------------------------------------------------------------------------------------


@hookimpl
def mem_idle_price(host, vm):
    x = host.vmem[vm]
    a = min(active(host, vm), x.resident)
    charged = a + (x.resident - a) * 100 // (100 - host.params.tax_percent)
    return x.shares * 1_000_000_000 // max(1, charged)


@hookimpl
def mem_balloon_target(host, vm):
    if vm == 0:
        # the VMs are asked in turn: the first question divides for all
        for m in range(host.vms):
            host.vmem[m].active_pages = active(host, m)
        divide_memory(host, host.params.tax_percent, host.params.lend_percent, host.params.least_percent)
    return balloon_size(host, vm)


@hookimpl
def mem_reclaim(host, pages, state):
    # the targets see to it, as far as balloons are fast enough and nobody waits
    if state >= FREE_HARD:
        return 0
    return min(pages, pending_balloon(host))
