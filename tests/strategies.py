"""Random hosts and random legal policies."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from hvbench.build import FaultSpec, HostSpec
from tests.builders import (
    Op,
    VmPlan,
    barrier,
    compute,
    host,
    lock,
    mark_begin,
    mark_end,
    outside,
    sleep,
    unlock,
    vm,
    wait,
    wake,
)

spans = st.one_of(st.integers(1, 20), st.integers(1, 2_000), st.integers(1_000, 60_000))


@st.composite
def vms(draw: Any) -> VmPlan:
    """A VM of a few threads whose waits all end: operations are drawn in an order that could be executed."""
    count = draw(st.integers(1, 4))
    threads: list[list[Op]] = [[] for _ in range(count)]
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["compute", "compute", "sleep", "outside", "wake", "lock", "barrier", "mark"]))
        t = draw(st.integers(0, count - 1))
        span = draw(spans)
        if kind == "compute":
            threads[t].append(compute(span, draw(st.integers(0, 500))))
        elif kind == "sleep":
            threads[t].append(sleep(span))
        elif kind == "outside":
            threads[t].append(outside(span))
        elif kind == "wake":
            peer = draw(st.integers(0, count - 1))
            threads[t].append(wake(peer))
            threads[peer].append(wait())
        elif kind == "lock":
            threads[t] += [lock(draw(st.integers(0, 1))), compute(span)]
            threads[t].append(unlock(threads[t][-2][1]))
        elif kind == "barrier":
            for thread in threads:
                thread.append(barrier(2, count))
        else:
            threads[t] += [mark_begin(), compute(span), mark_end()]
    clients = []
    if draw(st.integers(0, 3)) == 0:
        # a client that wakes nobody and only thinks
        clients = [[compute(draw(spans))]]
    # every pass takes time
    threads[0].append(compute(draw(st.integers(2_000, 20_000))))
    return vm(
        threads,
        clients=clients,
        vcpus=draw(st.integers(1, 3)),
        start_ns=draw(st.sampled_from([0, 0, 1, 777, 20_000])),
        weight=draw(st.sampled_from([1, 256, 512])),
    )


@st.composite
def faults(draw: Any, vms_: int, pcpus: int, horizon_ns: int) -> FaultSpec:
    """A guest that dies, or a pCPU (any but the first, so that one is left) that goes, for good or for a while."""
    kind = draw(st.sampled_from(["guest", "pcpu"] if pcpus > 1 else ["guest"]))
    target = draw(st.integers(0, vms_ - 1) if kind == "guest" else st.integers(1, pcpus - 1))
    at = draw(st.integers(1, max(1, horizon_ns)))
    return FaultSpec(kind, target, at, draw(st.sampled_from([0, at + 1, at + 5_000])))


costs = st.sampled_from([0, 0, 1, 7, 300, 2_500])


@st.composite
def hosts(draw: Any, shortest_ns: int = 1, longest_ns: int = 300_000) -> HostSpec:
    """A host of one to four pCPUs, one to four VMs, and costs from nothing to much."""
    horizon_ns = draw(st.integers(shortest_ns, longest_ns))
    tenants = draw(st.lists(vms(), min_size=1, max_size=4))
    pcpus = draw(st.integers(1, 4))
    made = host(
        tenants,
        pcpus=pcpus,
        horizon_ns=horizon_ns,
        warmup_ns=draw(st.one_of(st.just(0), st.integers(0, horizon_ns))),
        seed=draw(st.integers(0, 1 << 40)),
        threads_per_core=draw(st.integers(1, 2)),
        cores_per_llc=draw(st.integers(1, 2)),
        switch_cost_ns=draw(costs),
        cache_refill_ns=draw(costs),
        cache_refill_other_ns=draw(costs),
        cache_refill_tau_ns=draw(st.sampled_from([1, 1_000, 50_000])),
        guest_slice_ns=draw(st.sampled_from([300, 2_000, 20_000, 3_000_000])),
        guest_switch_ns=draw(costs),
        wake_cost_ns=draw(costs),
        halt_cost_ns=draw(costs),
        ipi_cost_ns=draw(costs),
        timer_fire_cost_ns=draw(costs),
        user_factor_ppm=draw(st.sampled_from([0, 0, 30_000])),
        kernel_factor_ppm=draw(st.sampled_from([0, 0, 500_000, -100_000])),
        host_tick_ns=draw(st.sampled_from([0, 0, 20_000])),
        host_tick_cost_ns=draw(costs),
    )
    listed = draw(st.lists(faults(len(tenants), pcpus, horizon_ns), max_size=2)) if draw(st.booleans()) else []
    return attrs.evolve(made, faults=tuple(listed))


LEGAL = '''
@frozen
class Params:
    """How often it does what, in percent; how long its slices are; periods."""

    idle_percent: int = param(5, help="idles on purpose")
    kick_percent: int = param(5, help="kicks a pCPU")
    block_percent: int = param(3, help="blocks an entity")
    migrate_percent: int = param(3, help="migrates an entity")
    spread_percent: int = param(30, help="names a pCPU for a woken entity itself")
    walk: int = param(3, help="how far into the arrival-ordered list it looks")
    longest_ns: int = param(20_000, unit="ns", help="longest slice")
    timer_ns: int = param(15_000, unit="ns", help="longest distance of two timers")
    tick_ns: int = param(9_000, unit="ns", help="period of ticks")


@state("vcpu")
class Vcpu:
    blocked: int = 0
    seen: int = 0


@state("pcpu")
class Pcpu:
    running: int = -1


@state("vm")
class Vm:
    share: int = 0


@state("host")
class Own:
    calls: int = 0


CONTAINERS = (Fifo("waked", of="vcpu"),)


def chance(host, percent):
    return random_below(host, 100) < percent


def meddle(host, now):
    """Anything that a policy may do, now and then."""
    host.own.calls += 1
    if chance(host, host.params.kick_percent):
        kick(host, random_below(host, host.pcpus))
    if chance(host, host.params.migrate_percent):
        migrate(host, random_below(host, host.vcpus), random_below(host, host.pcpus))
    if chance(host, host.params.block_percent):
        v = random_below(host, host.vcpus)
        if host.vcpu[v].blocked == 0:
            host.vcpu[v].blocked = 1
            block(host, v)
    if chance(host, 5):
        set_timer(host, random_below(host, 64), now + random_below(host, 1 + host.params.timer_ns))
    if chance(host, 2):
        cancel_timer(host, 1 + random_below(host, 63))
    if chance(host, 2):
        set_tick(host, random_below(host, host.pcpus), random_below(host, 2) * host.params.tick_ns)


@hookimpl
def sched_init(host, now):
    set_timer(host, 0, now + 1)
    for p in range(host.pcpus):
        set_tick(host, p, host.params.tick_ns)


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    host.vcpu[vcpu].seen = 1


@hookimpl
def sched_vcpu_remove(host, vcpu, now):
    host.vcpu[vcpu].seen = -1


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    meddle(host, now)


@hookimpl
def sched_pcpu_online(host, pcpu, now):
    host.pcpu[pcpu].running = -1


@hookimpl
def sched_set_weight(host, vm, weight, cap, now):
    host.vm[vm].share = weight


@hookimpl
def sched_set_affinity(host, vcpu, hard, soft, now):
    host.vcpu[vcpu].seen += 1


@hookimpl
def sched_wake(host, vcpu, now):
    fifo_push(host, host.box.waked, vcpu)
    meddle(host, now)


@hookimpl
def sched_sleep(host, vcpu, now):
    fifo_remove(host, host.box.waked, vcpu)
    meddle(host, now)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    if chance(host, host.params.spread_percent):
        return random_below(host, host.pcpus + 1) - 1
    for p in range(host.pcpus):
        if host.pcpu[p].idle == 1:
            return p
    return prev


@hookimpl
def sched_running(host, vcpu, pcpu, now):
    fifo_remove(host, host.box.waked, vcpu)
    host.pcpu[pcpu].running = vcpu
    meddle(host, now)


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    host.pcpu[host.vcpu[vcpu].pcpu].running = -1
    meddle(host, now)


@hookimpl
def sched_migrate(host, vcpu, origin, pcpu, now):
    host.vcpu[vcpu].seen += 1


@hookimpl
def sched_tick(host, pcpu, vcpu, now):
    meddle(host, now)


@hookimpl
def sched_timer(host, timer, now):
    if timer == 0:
        for v in range(host.vcpus):
            if host.vcpu[v].blocked == 1:
                host.vcpu[v].blocked = 0
                unblock(host, v)
        kick(host, random_below(host, host.pcpus))
        set_timer(host, 0, now + 1 + random_below(host, host.params.timer_ns))
    meddle(host, now)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    meddle(host, now)
    if chance(host, host.params.idle_percent):
        return IDLE, random_below(host, 3) * 700
    v = runq_first(host)
    for _ in range(random_below(host, 1 + host.params.walk)):
        after = runq_next(host, v)
        if after >= 0:
            v = after
    return v, 1 + random_below(host, host.params.longest_ns)
'''
"""A scheduler that does everything that is legal, at random: the same in every run with the same seed."""

# a decision asks about three times whether to kick: much more would let virtual time stand still
legal_params = st.fixed_dictionaries(
    {
        "idle_percent": st.sampled_from([0, 5, 40]),
        "kick_percent": st.sampled_from([0, 3, 10]),
        "block_percent": st.sampled_from([0, 3, 20]),
        "migrate_percent": st.sampled_from([0, 2, 5]),
        "spread_percent": st.sampled_from([0, 30, 100]),
        "walk": st.integers(0, 4),
        "longest_ns": st.sampled_from([150, 1_500, 8_000, 1 << 40]),
        "timer_ns": st.sampled_from([900, 5_000, 30_000]),
        "tick_ns": st.sampled_from([500, 3_000, 40_000]),
    }
)
