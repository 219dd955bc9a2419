"""Null: every entity has its pCPU for good, and next to nobody is preempted.

Overview: entities are dealt to the pCPUs in the order of their index (respecting affinity). A pCPU runs its own
in order of arrival, each until it blocks or `sharing_slice_ns` is over. With at most one entity a pCPU this is
static partitioning, the baseline without any scheduling; with more it shows what scheduling is for.

Source: Xen, xen/common/sched/null.c.

Claims: affinity, starvation-free. Not work-conserving: a pCPU idles while others queue.

Not modelled: Xen parks entities that find no free pCPU until one is free, for ever if none ever is; here they
share one and take turns, so that hosts with more vCPUs than pCPUs can be compared at all.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Fifo, allowed_pcpu, fifo_pop, fifo_push, fifo_remove, hookimpl, kick, param, state

AXIS = "scheduler"
CLAIMS = frozenset({"affinity", "starvation-free"})
HONOURS = frozenset({"pinning"})
CONTAINERS = (Fifo("runq", of="vcpu", per="pcpu"),)


@frozen
class Params:
    """Parameters of null."""

    sharing_slice_ns: int = param(
        10_000_000,
        unit="ns",
        low=1,
        help="turn of an entity where several are bound to one pCPU",
        source="choice of this project: as round-robin",
    )


@state("vcpu")
class Vcpu:
    """The pCPU that an entity is bound to."""

    bound: int = -1


@hookimpl
def sched_vcpu_insert(host, vcpu, now):
    host.vcpu[vcpu].bound = allowed_pcpu(host, vcpu, vcpu % host.pcpus)


@hookimpl
def sched_pcpu_offline(host, pcpu, now):
    # bound for good, but to a pCPU that is there
    target = pcpu
    for vcpu in range(host.vcpus):
        v = host.vcpu[vcpu]
        if v.bound == pcpu:
            target = (target + 1) % host.pcpus
            if target == pcpu:
                target = (target + 1) % host.pcpus
            if fifo_remove(host, host.box.runq + pcpu, vcpu) == 1:
                fifo_push(host, host.box.runq + target, vcpu)
                kick(host, target)
            v.bound = target


@hookimpl
def sched_wake(host, vcpu, now):
    fifo_push(host, host.box.runq + host.vcpu[vcpu].bound, vcpu)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    return host.vcpu[vcpu].bound


@hookimpl
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    if runnable == 1:
        fifo_push(host, host.box.runq + host.vcpu[vcpu].bound, vcpu)


@hookimpl
def sched_sleep(host, vcpu, now):
    fifo_remove(host, host.box.runq + host.vcpu[vcpu].bound, vcpu)


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return fifo_pop(host, host.box.runq + pcpu), host.params.sharing_slice_ns
