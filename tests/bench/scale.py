"""Events a second of a large host against a small one, the same load on every pCPU, by scheduler.

    python -m tests.bench.scale

Eight vCPUs a pCPU, in VMs of four, each computing and sleeping for exponential times with mean 5 and 15 ms: two of the
eight want the pCPU on average. The large host has 64 pCPUs on eight last-level caches, the small one 4. What grows with
the host must not be paid at every event: the bar is a factor of 2.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hvbench import simulate
from hvbench.binding import Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.kernel.loop import MORE
from hvbench.state import schema
from hvbench.traces.format import OPS
from tests.builders import MS, S, bundled, chosen

SMALL, LARGE = 4, 64
VCPUS_PER_PCPU = 8
VCPUS_PER_VM = 4
PAIRS = 200
EVENTS = 1_500_000
FACTOR_BAR = 2.0
SCHEDULERS = (
    "null",
    "round_robin",
    "credit",
    "credit2",
    "bvt",
    "sedf",
    "rtds",
    "stride",
    "lottery",
    "cfs",
    "eevdf",
    "balance",
    "cosched_relaxed",
    "cosched_strict",
)
ROUNDS = 3


def host_spec(pcpus: int, horizon_ns: int) -> HostSpec:
    """A host of so many pCPUs and eight times as many vCPUs."""
    vcpus = pcpus * VCPUS_PER_PCPU
    rng = np.random.default_rng(20260102)
    ops = schema.TABLES["op"].layout.zeros(vcpus * PAIRS * 2)
    ops["op"][0::2], ops["op"][1::2] = OPS["compute"], OPS["sleep"]
    ops["a"][0::2] = np.maximum(1, rng.exponential(5 * MS, vcpus * PAIRS))
    ops["a"][1::2] = np.maximum(1, rng.exponential(15 * MS, vcpus * PAIRS))
    ops["x"] = -1
    groups = []
    for vm in range(vcpus // VCPUS_PER_VM):
        first = vm * VCPUS_PER_VM
        threads = tuple(
            ThreadSpec(vm, v * PAIRS * 2, (v + 1) * PAIRS * 2) for v in range(first, first + VCPUS_PER_VM)
        )
        groups.append(GroupSpec(threads))
    return HostSpec(
        cpu=CpuSpec(pcpus=pcpus, cores_per_llc=8, guest_slice_ns=1 << 50),
        vms=tuple(VmSpec(vcpus=VCPUS_PER_VM, group=g) for g in range(len(groups))),
        groups=tuple(groups),
        ops=ops,
        privileged=no_privileged(),
        horizon_ns=horizon_ns,
    )


def events_per_s(policy: str, pcpus: int, events: int = EVENTS) -> float:
    """Events served in a second of CPU time; building, binding and the first events are not timed."""
    memory = build(host_spec(pcpus, 10_000 * S))
    bind(memory, [chosen(bundled(policy))])
    loop = Loop(memory, False)
    loop.boot()
    loop.run(20_000)
    started = time.process_time()
    while int(memory.header["events"][0]) < events and loop.run(500_000) == MORE:
        pass
    code = int(memory.header["error"][0])
    assert not code, simulate.describe_error(memory, code)
    return (int(memory.header["events"][0]) - 20_000) / (time.process_time() - started)


def measure(policies: tuple[str, ...] = SCHEDULERS) -> dict[str, tuple[float, float]]:
    """Best of the rounds by scheduler: small host, large host; taking turns."""
    best: dict[str, tuple[float, float]] = dict.fromkeys(policies, (0.0, 0.0))
    for _ in range(ROUNDS):
        for policy in policies:
            small, large = best[policy]
            best[policy] = max(small, events_per_s(policy, SMALL)), max(large, events_per_s(policy, LARGE))
    return best


def lines(best: dict[str, tuple[float, float]]) -> list[str]:
    """The report."""
    shown = [f"events a second of CPU time: {SMALL} pCPUs, {LARGE} pCPUs, factor (bar {FACTOR_BAR:.0f})"]
    for policy, (small, large) in best.items():
        verdict = "met" if small <= FACTOR_BAR * large else "missed"
        shown.append(f"  {policy:<16} {small:>12,.0f} {large:>12,.0f} {small / large:>6.2f}  {verdict}")
    return shown


def main(argv: list[Any]) -> None:
    print("\n".join(lines(measure(tuple(argv) or SCHEDULERS))))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
