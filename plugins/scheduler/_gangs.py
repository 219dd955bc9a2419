"""Gangs: a VM's vCPUs as a unit that gets CPU time by its weight. Shared by the co-scheduling policies.

No policy of its own. A gang is known by its *leader*, the VM's first vCPU; a host thread is a gang of its own. A
gang's virtual time advances with the time that all its members run, divided by the VM's weight; who has had the least
is first. [ESX: proportional share, shares of a VM divided among its vCPUs]
"""

from __future__ import annotations

from hvbench.policy import VCPU, jit, state

DEFAULT_WEIGHT = 256
NONE_AT_ALL = -1 << 61


@state("vm")
class Quota:
    """What is left of a capped VM's quota."""

    runtime_ns: int = 0
    throttled: int = 0


@jit
def leader_of(host, vcpu):
    """The entity that stands for its gang."""
    v = host.vcpu[vcpu]
    return host.vm[v.vm].first_vcpu if v.kind == VCPU else vcpu


@jit
def size_of(host, leader):
    """Number of entities of a gang, which follow each other from the leader on."""
    v = host.vcpu[leader]
    return host.vm[v.vm].vcpus if v.kind == VCPU else 1


@jit
def virtual(host, leader, ran_ns):
    """Time run as virtual time: ns of a VM of default weight."""
    return ran_ns * DEFAULT_WEIGHT // max(1, host.vcpu[leader].weight)
