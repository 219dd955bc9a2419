"""The kernel and an idiomatic SimPy program of the same job come to exactly the same counts and times."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import yardstick
from tests.builders import MS, bundled, numbers, run

simpy = pytest.importorskip("simpy")


@pytest.mark.parametrize(("slice_ns", "horizon_ns"), [(1 * MS, 600 * MS), (350_001, 300 * MS), (1 << 40, 600 * MS)])
@pytest.mark.parametrize("mode", ["interpreted", "compiled"])
def test_round_robin_against_simpy(kernel: object, slice_ns: int, horizon_ns: int, mode: str) -> None:
    from tests.bench import simpy_yardstick

    lengths = yardstick.durations()[:, :200]
    assert len(np.unique(lengths)) == lengths.size, "two equal durations could tie"
    expected = simpy_yardstick.run(lengths, yardstick.PCPUS, slice_ns, horizon_ns)
    done = run(yardstick.host_spec(horizon_ns), bundled("round_robin"), mode, timeslice_ns=slice_ns)
    assert done.error is None
    passed = numbers((done.thread["op"] - done.thread["op_first"] + 1) // 2)
    assert passed == expected.completed
    assert numbers(done.vcpu["ran_ns"]) == expected.ran_ns
    assert sum(expected.completed) > 200
    assert max(expected.completed) < 200, "the sequence must not run out"
