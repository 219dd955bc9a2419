"""Thrash, a control: a slice of 100 us, and whoever ran elsewhere first. Deliberately bad.

Overview: each pCPU prefers a runnable entity that last ran on another pCPU, and takes it away again after 100 us, so
that every dispatch is a migration and caches are never warm.

Source: none; a control shows that the benchmark can tell bad from good.

Claims: work-conserving, starvation-free.

Not modelled: it is not meant to be good at anything.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Control, hookimpl, param, runq_first, runq_next

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "starvation-free"})
HONOURS: frozenset[str] = frozenset()
CONTROL = Control(
    worst_on={"build": "slowdown_geomean"},
    why="a switch and a cold cache for every 100 us of work",
)


@frozen
class Params:
    """Parameters of thrash."""

    timeslice_ns: int = param(100_000, unit="ns", low=1, help="slice", source="a control's choice")


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    first = runq_first(host)
    vcpu = first
    while vcpu >= 0 and host.vcpu[vcpu].pcpu == pcpu:
        vcpu = runq_next(host, vcpu)
    if vcpu < 0:
        vcpu = first
    return vcpu, host.params.timeslice_ns
