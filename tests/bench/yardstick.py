"""The yardstick job: 16 vCPUs on 4 pCPUs, round robin at 1 ms, bursts and waits exponential with mean 5 ms."""

from __future__ import annotations

import numpy as np

from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, no_privileged
from hvbench.state import schema
from hvbench.traces.format import OPS

VCPUS = 16
PCPUS = 4
MEAN_NS = 5_000_000
SLICE_NS = 1_000_000
PAIRS = 4000


def durations() -> np.ndarray:
    """One fixed sequence: (vCPU, pair, burst or wait) in ns."""
    rng = np.random.default_rng(20260101)
    return np.maximum(1, rng.exponential(MEAN_NS, (VCPUS, PAIRS, 2)).astype(np.int64))


def host_spec(horizon_ns: int) -> HostSpec:
    """The job as a host: one VM and one thread a vCPU, a compute and a sleep for each pair."""
    lengths = durations()
    ops = schema.TABLES["op"].layout.zeros(VCPUS * PAIRS * 2)
    ops["op"][0::2] = OPS["compute"]
    ops["op"][1::2] = OPS["sleep"]
    ops["a"] = lengths.reshape(-1)
    ops["x"] = -1
    groups = tuple(
        GroupSpec((ThreadSpec(v, v * PAIRS * 2, (v + 1) * PAIRS * 2),)) for v in range(VCPUS)
    )
    return HostSpec(
        cpu=CpuSpec(pcpus=PCPUS, guest_slice_ns=1 << 50),
        vms=tuple(VmSpec(vcpus=1, group=v) for v in range(VCPUS)),
        groups=groups,
        ops=ops,
        privileged=no_privileged(),
        horizon_ns=horizon_ns,
    )
