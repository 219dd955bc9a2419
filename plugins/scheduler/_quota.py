"""Caps as quotas: a VM's vCPUs together may run so long in a period, then they are blocked until the next one.

No policy of its own: schedulers that cap this way take it over. It needs own fields `runtime_ns` and `throttled` of a
VM. What was overdrawn is taken from the next period. [Linux kernel/sched/fair.c: CFS bandwidth control]
"""

from __future__ import annotations

from hvbench.policy import VCPU, block, jit, unblock

BANDWIDTH = 0
"""The policy timer of the bandwidth period."""


@jit
def charge_quota(host, vcpu, ran_ns):
    """A vCPU of a capped VM used some of its quota. [account_cfs_rq_runtime]"""
    v = host.vcpu[vcpu]
    if v.kind == VCPU and v.cap > 0:
        m = host.vm[v.vm]
        m.runtime_ns -= ran_ns
        if m.runtime_ns <= 0 and m.throttled == 0:
            m.throttled = 1
            for other in range(m.first_vcpu, m.first_vcpu + m.vcpus):
                block(host, other)


@jit
def refill_quotas(host, period_ns):
    """A new bandwidth period: quotas are full again, less what was overdrawn. [do_sched_cfs_period_timer]"""
    for vm in range(host.vms):
        m = host.vm[vm]
        if m.cap > 0:
            quota = period_ns * m.cap // 100
            m.runtime_ns = min(quota, m.runtime_ns + quota)
            if m.throttled == 1 and m.runtime_ns > 0:
                m.throttled = 0
                for other in range(m.first_vcpu, m.first_vcpu + m.vcpus):
                    unblock(host, other)


@jit
def has_caps(host):
    """1 if any VM is capped."""
    for vm in range(host.vms):
        if host.vm[vm].cap > 0:
            return 1
    return 0
