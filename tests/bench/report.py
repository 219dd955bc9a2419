"""Decisions a second of the yardstick job, ratios and bars, measured interleaved in one run.

    python -m tests.bench.report

Bars are printed as met or missed and never asserted: a busy machine is no bug.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.bench import jobs, workload
from tests.builders import S

ROUNDS = 5
KERNEL_BAR, PLAIN_BAR, SIMPY_BAR, THREADS_BAR = 5e6, 150e3, 35.0, 0.93
EVENTS_BAR = 3e6


def rate(run: Callable[[], int]) -> float:
    """Decisions a second of one run."""
    started = time.perf_counter()
    decisions = run()
    return decisions / (time.perf_counter() - started)


def rate_of_two(runs: list[Callable[[], int]]) -> float:
    """Decisions a second of two runs at once, together."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda f: f(), [lambda: None] * 2))
        started = time.perf_counter()
        decisions = sum(pool.map(lambda run: run(), runs))
        return decisions / (time.perf_counter() - started)


def measure() -> dict[str, float]:
    """Best of the rounds for each way to run the job, the ways taking turns."""
    best: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        best[name] = max(best.get(name, 0.0), value)

    for _ in range(ROUNDS):
        note("kernel", rate(jobs.kernel(1800 * S)))
        note("bare", rate(jobs.bare(9000 * S)))
        note("kernel, two threads", rate_of_two([jobs.kernel(1800 * S) for _ in range(2)]))
        note("bare, two threads", rate_of_two([jobs.bare(9000 * S) for _ in range(2)]))
        note("plain", rate(jobs.kernel(4 * S, plain_python=True)))
        note("simpy", rate(jobs.simpy(4 * S)))
    best["events"], best["simulated"], best["events, two threads"] = workload.measure()
    return best


def lines(best: dict[str, float]) -> list[str]:
    """The report."""

    def against(value: float, bar: float, form: str) -> str:
        return f"{form.format(value)}  (bar {form.format(bar)}: {'met' if value >= bar else 'missed'})"

    gain = best["kernel, two threads"] / best["kernel"]
    bare_gain = best["bare, two threads"] / best["bare"]
    return [
        f"yardstick job, decisions a second, best of {ROUNDS} interleaved rounds"
        f" ({os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end)",
        "  kernel, compiled round robin   " + against(best["kernel"], KERNEL_BAR, "{:,.0f}"),
        "  kernel, plain-Python policy    " + against(best["plain"], PLAIN_BAR, "{:,.0f}"),
        f"  bare Numba loop                {best['bare']:,.0f}",
        f"  SimPy program                  {best['simpy']:,.0f}",
        "  kernel / SimPy                 " + against(best["kernel"] / best["simpy"], SIMPY_BAR, "{:.1f}"),
        f"  bare Numba loop / kernel       {best['bare'] / best['kernel']:.1f}",
        f"  two threads: kernel gains      {gain:.2f}, bare Numba loop gains {bare_gain:.2f}",
        "  kernel's gain / bare loop's    " + against(gain / bare_gain, THREADS_BAR, "{:.2f}"),
        f"bundled workload {workload.WORKLOAD}, all axes at work ({', '.join(workload.CHOICES.values())})",
        "  events a second, one core      " + against(best["events"], EVENTS_BAR, "{:,.0f}"),
        f"  simulated seconds a second     {best['simulated']:,.0f}",
        f"  two threads gain               {best['events, two threads'] / best['events']:.2f}"
        f" ({best['events, two threads'] / best['events'] / bare_gain:.2f} of the bare loop's gain)",
    ]


if __name__ == "__main__":
    print("\n".join(lines(measure())))
