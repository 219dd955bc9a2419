"""Round robin: everybody in turn, in order of arrival, for one fixed slice.

Overview: one queue for the whole host. A pCPU takes whoever has been runnable longest and runs it for
`timeslice_ns`; who is preempted goes to the back.

Source: textbook; Silberschatz, Galvin, Gagne, "Operating System Concepts", CPU scheduling.

Claims: work-conserving, starvation-free.

Not modelled: weights, caps and affinity are not honoured; a woken vCPU preempts nobody.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import hookimpl, param, runq_first

AXIS = "scheduler"
CLAIMS = frozenset({"work-conserving", "starvation-free"})
HONOURS: frozenset[str] = frozenset()


@frozen
class Params:
    """Parameters of round-robin."""

    timeslice_ns: int = param(
        10_000_000,
        unit="ns",
        low=1,
        help="how long a vCPU runs before the next one's turn",
        source="Linux SCHED_RR's usual order of magnitude (sched(7): sched_rr_timeslice_ms 100); 10 ms here",
    )


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return runq_first(host), host.params.timeslice_ns
