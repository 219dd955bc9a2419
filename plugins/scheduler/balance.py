"""Balance: CFS that keeps the vCPUs of a VM on different pCPUs' run queues.

Overview: as `cfs`, with one rule more: a vCPU is never put on a run queue in which another vCPU of its VM waits or
runs, as long as there is a queue without one. Siblings that synchronize then never wait for each other behind each
other, and run together more often than by chance, without anybody being made to wait for a gang.

Source: O. Sukwong, H. S. Kim, "Is Co-scheduling Too Expensive for SMP VMs?", EuroSys 2011, section 4 (balance
scheduling on Linux/KVM). The base is cfs here as there; its hooks are taken over.

Claims: starvation-free, weight-proportional, as cfs.

Not modelled: what cfs leaves out. The paper restricts a task's allowed CPUs before CFS places it; here placement and
stealing ask for siblings themselves.
"""

from __future__ import annotations

from attrs import frozen
from hvbench_plugins.scheduler import cfs
from hvbench_plugins.scheduler.cfs import (
    CONTAINERS,
    Group,
    Runqueue,
    Task,
    sched_init,
    sched_pcpu_offline,
    sched_pick_next,
    sched_select_pcpu,
    sched_sleep,
    sched_stopping,
    sched_tick,
    sched_timer,
    sched_wake,
    sched_yield,
)

from hvbench.policy import param

__all__ = [
    "CONTAINERS",
    "Group",
    "Runqueue",
    "Task",
    "sched_init",
    "sched_pcpu_offline",
    "sched_pick_next",
    "sched_select_pcpu",
    "sched_sleep",
    "sched_stopping",
    "sched_tick",
    "sched_timer",
    "sched_wake",
    "sched_yield",
]

AXIS = "scheduler"
CLAIMS = cfs.CLAIMS
HONOURS = cfs.HONOURS


@frozen
class Params(cfs.Params):
    """Tunables of cfs; only the last differs."""

    spread_siblings: bool = param(
        True,
        help="never put two vCPUs of a VM on one run queue, if it can be helped",
        source="Sukwong and Kim, EuroSys 2011",
    )
