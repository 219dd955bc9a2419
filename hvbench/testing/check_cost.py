"""What a decision of a policy costs on the real clock: reported, never failed."""

from __future__ import annotations

import time

from hvbench.axes import DECISION_AXES
from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.simulate import AXIS_ROWS
from hvbench.testing import probes
from hvbench.testing.checks import check
from hvbench.testing.lab import Lab, is_interpreted
from hvbench.testing.story import S, Story
from hvbench.testing.subject import Subject, phase

ROUNDS = 3


@check(
    "cost",
    DECISION_AXES,
    "what a decision costs (reported, never failed)",
    how="""CPU time of the whole event loop, the kernel's own part included, for each question to the axis, on one probe
    workload, best of three; beside it the same for bundled policies. Figures of one machine at one moment: compare
    them with each other only.""",
)
def cost(lab: Lab) -> str:
    story = workload(lab.subject.axis)
    mine = ns_per_decision(lab.subject, story)
    others = [f"{other.name} {ns_per_decision(other, story):,.0f} ns" for other in lab.references]
    mode = ", interpreted" if is_interpreted() else ""
    return f"{mine:,.0f} ns a decision{mode}" + (f" ({', '.join(others)})" if others else "")


def workload(axis: str) -> Story:
    """A probe with some thousand decisions."""
    if is_interpreted():
        return probes.for_parameters(axis)[0]
    if axis == "scheduler":
        return probes.crowds(4 * S)[1][1]
    if axis == "memory":
        return probes.pressure()
    return probes.disk_load(40) if axis == "storage" else probes.messages(200)


def ns_per_decision(subject: Subject, story: Story) -> float:
    """Least CPU time of the event loop for a question to the policy's axis."""
    row = AXIS_ROWS[subject.axis]
    best = float("inf")
    for _ in range(ROUNDS):
        phase("bind")
        memory = build(subject.spec(story))
        bind(memory, subject.chosen(), interpreted=is_interpreted())
        phase("run")
        loop = Loop(memory, is_interpreted())
        loop.boot()
        started = time.thread_time_ns()
        while loop.run(1_000_000) == 0:
            pass
        taken = time.thread_time_ns() - started
        best = min(best, taken / max(1, int(memory.tables["axis"]["asks"][row])))
    phase("idle")
    return best
