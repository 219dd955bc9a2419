"""The yardstick job as one writes it with SimPy: a Store for the run queue, a process a pCPU and a vCPU."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
import numpy as np
import simpy


@attrs.define
class Burst:
    """A compute burst in the run queue."""

    vcpu: int
    left_ns: int
    done: simpy.Event


@attrs.define
class Outcome:
    """What the program counted: bursts completed and time run, by vCPU; decisions of all pCPUs."""

    completed: list[int]
    ran_ns: list[int]
    decisions: int = 0


def run(lengths: np.ndarray[Any, Any], pcpus: int, slice_ns: int, horizon_ns: int) -> Outcome:
    """Simulate `lengths` (vCPU, pair, burst or wait) up to the horizon."""
    env = simpy.Environment()
    queue = simpy.Store(env)
    vcpus = len(lengths)
    outcome = Outcome([0] * vcpus, [0] * vcpus)
    running: dict[int, tuple[int, int]] = {}

    def vcpu(number: int) -> Generator[simpy.Event, Any, None]:
        for burst_ns, wait_ns in lengths[number].tolist():
            burst = Burst(number, burst_ns, env.event())
            yield queue.put(burst)
            yield burst.done
            yield env.timeout(wait_ns)

    def pcpu(number: int) -> Generator[simpy.Event, Any, None]:
        while True:
            burst = yield queue.get()
            outcome.decisions += 1
            span = min(burst.left_ns, slice_ns)
            running[number] = (burst.vcpu, env.now)
            yield env.timeout(span)
            del running[number]
            outcome.ran_ns[burst.vcpu] += span
            burst.left_ns -= span
            if burst.left_ns:
                yield queue.put(burst)
            else:
                outcome.completed[burst.vcpu] += 1
                burst.done.succeed()

    for number in range(vcpus):
        env.process(vcpu(number))
    for number in range(pcpus):
        env.process(pcpu(number))
    env.run(until=horizon_ns)
    for v, since in running.values():
        outcome.ran_ns[v] += horizon_ns - since
    return outcome
