"""The yardstick job, ready to run in each of the compared ways; each run returns its number of decisions."""

from __future__ import annotations

from collections.abc import Callable

from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.kernel.loop import MORE
from hvbench.readout import cpu_metrics
from tests.bench import yardstick
from tests.builders import bundled, chosen


def kernel(horizon_ns: int, plain_python: bool = False) -> Callable[[], int]:
    """The whole kernel under round robin at 1 ms, metrics included; laying out and binding are not timed."""
    memory = build(yardstick.host_spec(horizon_ns))
    policy = chosen(bundled("round_robin"), timeslice_ns=yardstick.SLICE_NS)
    bind(memory, [policy], plain_python=plain_python)
    loop = Loop(memory, False)
    loop.boot()

    def run() -> int:
        while loop.run(1_000_000) == MORE:
            pass
        assert not memory.header["error"][0]
        return int(cpu_metrics(memory)["decisions"])

    return run


def bare(horizon_ns: int) -> Callable[[], int]:
    """The bare Numba loop."""
    from tests.bench.bare_loop import loop

    lengths = yardstick.durations()
    loop(lengths, yardstick.PCPUS, yardstick.SLICE_NS, 1)
    return lambda: int(loop(lengths, yardstick.PCPUS, yardstick.SLICE_NS, horizon_ns)[0])


def simpy(horizon_ns: int) -> Callable[[], int]:
    """The idiomatic SimPy program."""
    from tests.bench import simpy_yardstick

    lengths = yardstick.durations()
    return lambda: simpy_yardstick.run(lengths, yardstick.PCPUS, yardstick.SLICE_NS, horizon_ns).decisions
