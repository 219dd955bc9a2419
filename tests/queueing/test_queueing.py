"""Open-loop Poisson arrivals at pCPUs and at a disk wait as long as queueing theory says.

Arrivals and service times are drawn by NumPy with fixed seeds and stand in the trace. Job k goes to VM k modulo 40, so
that a VM has next to never two of them and the queue is the host's own: the run queue of a first-come, first-served
scheduler whose slices do not end, or the queue of the disk. Costs are zero. The mean wait is compared with theory by
batch means; the intervals of all cases together hold with 95 %.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from attrs import frozen
from numpy.typing import NDArray

from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec
from hvbench.build_io import IoSpec
from hvbench.machine import Disk
from hvbench.paths import Step
from hvbench.state.memory import HostMemory
from hvbench.traces.load import convert, open_loop
from hvbench.traces.synthetic import Chunk, Script, exponential, poisson_times, rows
from tests.builders import bundled, run_in_slices
from tests.queueing.theory import Interval, batch_means, student_quantile, wait_md1, wait_mmc

VMS = 40
JOBS = 240_000
BATCHES = 30
UTILISATIONS = (0.3, 0.6, 0.8)
PAGE_NS = 4096
"""A page at 1 GB/s."""
SERVICE_NS = 250 * PAGE_NS
FOREVER = 1 << 60

CASES = [
    (kind, service, servers, utilisation)
    for kind in ("cpu", "disk")
    for service, servers in (("exponential", 1), ("constant", 1), ("exponential", 2), ("exponential", 4))
    for utilisation in UTILISATIONS
]
CONFIDENCE = 1 - 0.05 / len(CASES)


@frozen
class Load:
    """What arrives: times, and the service that each asks for, ns; for a disk in pages."""

    arrival_ns: NDArray[np.int64]
    pages: NDArray[np.int64]


def load_of(kind: str, service: str, servers: int, utilisation: float) -> Load:
    seed = 1000 * servers + round(100 * utilisation) + (7 if service == "constant" else 0)
    seed += 100_000 if kind == "disk" else 0
    pages = np.full(JOBS, SERVICE_NS // PAGE_NS)
    if service == "exponential":
        pages = exponential(SERVICE_NS / PAGE_NS, JOBS, seed)
    rate = servers * utilisation / (pages.mean() * PAGE_NS / 1e9)
    return Load(poisson_times(rate, JOBS, seed + 1), pages)


def host_for(kind: str, load: Load, servers: int) -> HostSpec:
    """VMs that replay their parts of the load open-loop."""
    script = Script("queue")
    for number in range(VMS):
        mine = slice(number, None, VMS)
        script.thread(_operations(kind, load.arrival_ns[mine], load.pages[mine]))
    trace = script.trace()
    loaded = open_loop(convert(trace), trace.columns["time_ns"])
    return HostSpec(
        cpu=CpuSpec(pcpus=servers if kind == "cpu" else VMS),
        vms=tuple(VmSpec(vcpus=1, group=0) for _ in range(VMS)),
        groups=(GroupSpec(tuple(ThreadSpec(i, t.first, t.end) for i, t in enumerate(loaded.threads))),),
        ops=loaded.ops,
        privileged=loaded.privileged,
        horizon_ns=int(load.arrival_ns[-VMS]),
        warmup_ns=int(load.arrival_ns[JOBS // 100]),
        io=IoSpec(
            path=(Step("medium"),),
            disk=Disk(read_latency_ns=0, bandwidth_bytes_per_s=10**9, channels=servers, queue_depth=VMS),
        ),
    )


def _operations(kind: str, times: NDArray[np.int64], pages: NDArray[np.int64]) -> Chunk:
    if kind == "cpu":
        return rows("compute", time_ns=times, user_ns=pages * PAGE_NS)
    return rows("blk_read", time_ns=times, pages=pages * 8)


def waited(kind: str, memory: HostMemory) -> tuple[int, int]:
    """What all jobs have waited so far and how many there were, of those that are in service or done."""
    if kind == "cpu":
        guests = memory.tables["vcpu"][: VMS]
        return int(guests["ready_ns"].sum()), int(guests["dispatches"].sum())
    io = memory.tables["vm_io"]
    served = int(io["disk_read_pages"].sum()) * PAGE_NS
    return int(io["disk_wait_ns"].sum()) - served, int(io["disk_read_requests"].sum())


@cache
def simulated(kind: str, service: str, servers: int, utilisation: float) -> Interval:
    """The mean wait by batch means, ns."""
    spec = host_for(kind, load_of(kind, service, servers, utilisation), servers)
    seen: list[tuple[int, int]] = []
    done = run_in_slices(
        spec,
        bundled("round_robin"),
        3 * JOBS // BATCHES,
        lambda memory: seen.append(waited(kind, memory)),
        "compiled",
        timeslice_ns=FOREVER,
    )
    assert done.error is None, done.error
    jobs = np.diff([count for _, count in seen if count])
    waits = np.diff([wait for wait, count in seen if count])
    whole = jobs > jobs.max() // 2
    assert whole.sum() >= BATCHES // 2
    return batch_means(list(waits[whole] / jobs[whole]), CONFIDENCE)


def expected(service: str, servers: int, utilisation: float) -> float:
    if service == "constant":
        return wait_md1(utilisation, SERVICE_NS)
    return wait_mmc(servers, utilisation, SERVICE_NS)


@pytest.mark.parametrize(("kind", "service", "servers", "utilisation"), CASES)
def test_mean_wait(kernel: object, kind: str, service: str, servers: int, utilisation: float) -> None:
    found = simulated(kind, service, servers, utilisation)
    theory = expected(service, servers, utilisation)
    assert found.holds(theory), f"theory {theory:.0f} ns, simulated {found.mean:.0f} ± {found.half:.0f} ns"
    assert found.half < 0.2 * theory, "so wide an interval holds anything"


@pytest.mark.parametrize("kind", ["cpu", "disk"])
@pytest.mark.parametrize("utilisation", UTILISATIONS)
def test_the_wrong_queue_is_told_apart(kernel: object, kind: str, utilisation: float) -> None:
    """The intervals are narrow enough to tell M/M/1 from M/D/1, and one server from two."""
    assert not simulated(kind, "exponential", 1, utilisation).holds(expected("constant", 1, utilisation))
    assert not simulated(kind, "constant", 1, utilisation).holds(expected("exponential", 1, utilisation))
    assert not simulated(kind, "exponential", 2, utilisation).holds(expected("exponential", 1, utilisation))


def test_the_theory_by_hand() -> None:
    """One server: rho / (1 - rho); two servers, from their state probabilities: rho^2 / (1 - rho^2)."""
    assert wait_mmc(1, 0.8, 1.0) == pytest.approx(4.0)
    assert wait_mmc(2, 0.6, 1.0) == pytest.approx(0.36 / 0.64)
    assert wait_md1(0.8, 1.0) == pytest.approx(2.0)
    # tables of Student's t: 0.975 and 10 degrees of freedom, 0.995 and 29
    assert student_quantile(0.95, 10) == pytest.approx(2.228, abs=5e-4)
    assert student_quantile(0.99, 29) == pytest.approx(2.756, abs=5e-4)
