"""REPLAY: waiting and latency of a contended recording against those of its replay.

`contended_record` says how it was made, `contended_convert` what became of it. A thread that EEVDF scheduled is a vCPU,
its task group (with autogroups: a session) a VM; a task of the root group is a VM of its own, weighed by its nice
value. The host has as many pCPUs as the machine had; scheduler constants come from the recording's metadata. Recorded
compute holds the refill of caches and the cost of switches already, as the recording was made under contention: the
replay adds none. The medium is what a probe found before the recording, when the job did not run; it asked every
millisecond. A second probe (`pause_probe`), of a machine of the same kind, says what longer pauses add.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.contended_convert import DISK, JOB, TRACE, WARMUP_NS
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage, ns
from hvbench.traces.format import read_trace

FOLDER = Path(__file__).parent / "recordings"
BARE_DISK = Path(__file__).parent / "policies" / "bare_disk.py"
SMALL, LARGE = 4 << 10, 256 << 10
"""Sizes of the probe's requests."""
NICE_0 = 1024
WEIGHTS = {-20: 88_761, 5: 335, 19: 15}
"""Linux, kernel/sched/core.c: sched_prio_to_weight, of the nice values that kernel threads have."""
VM_WEIGHT = 256
AT_ONCE = 1_000_000
"""Weight of what submits others' requests: it takes no time, and must not wait."""
PAUSES = "pauses.json"
"""What pauses add to the disk's latency: `pause_probe`, without the job."""
ROUND_ROBIN, ONE_PCPU, IDLE_MACHINE, ALWAYS_AWAKE = "round-robin", "one-pcpu", "idle-machine", "always-awake"
SEEDS = (1, 2, 3)


NO_COSTS = {"switch_cost": "0s", "cache_refill": "0s", "cache_refill_other": "0s", "guest_switch": "0s"}
"""Of a host whose recorded compute holds them already."""


def task_group(tier: str, threads: int, trace: str, weight: int = VM_WEIGHT) -> dict[str, Any]:
    """A task group of the recorded machine as a VM: each of its threads is a vCPU."""
    return {
        "name": tier,
        "vcpus": threads,
        "memory": "16MiB",
        "weight": weight,
        "trace": trace,
        "tier": tier,
        "instance": "recorded",
        "image": "",
        "start": "0s",
        "guest.tick": "0s",
        "guest.balloon": False,
    }


@lru_cache(maxsize=1)
def metadata() -> dict[str, Any]:
    """The trace's metadata."""
    return read_trace(FOLDER / TRACE).meta


def groups(meta: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Threads by task group; the job first."""
    found: dict[str, list[Mapping[str, Any]]] = {JOB: []}
    for thread in meta["threads"]:
        found.setdefault(thread["tier"], []).append(thread)
    return found


def medium(probe: Mapping[str, float]) -> dict[str, Any]:
    """The disk that the probe saw: latencies, and one bandwidth, that of reads."""
    per_byte = (probe["read_large_ns"] - probe["read_small_ns"]) / (LARGE - SMALL)
    return {
        "disk.read_latency": ns(probe["read_small_ns"] - SMALL * per_byte),
        "disk.write_latency": ns(probe["write_small_ns"] - SMALL * per_byte),
        "disk.bandwidth": f"{round(1e9 / per_byte)}B/s",
    }


def after_pauses(latency_ns: Mapping[str, int]) -> str:
    """What a pause adds, as parameters of the disk, from the probe's medians by pause (ms)."""
    return "".join(
        f":after_{pause}ms={max(0, took - latency_ns['1'])}ns" for pause, took in latency_ns.items() if pause != "1"
    )


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    meta = metadata()
    machine = meta["machine"]
    shutil.copyfile(FOLDER / TRACE, stage.folder / TRACE)
    vms = []
    for tier, threads in groups(meta).items():
        weight = VM_WEIGHT * WEIGHTS.get(threads[0].get("nice", 0), NICE_0) // NICE_0
        vms.append(task_group(tier, len(threads), f"./{TRACE}", AT_ONCE if tier == DISK else max(1, weight)))
    path = stage.workload(
        "replay" + (f"-{model}" if model else ""),
        settings={
            "class": "micro",
            "summary": "A contended job on the recorded machine, and what else ran there",
            "stresses": ["scheduler"],
            "warmup": ns(WARMUP_NS),
            "horizon": ns(meta["span_ns"]),
        },
        host={
            "pcpus": {ONE_PCPU: 1, IDLE_MACHINE: 64}.get(model, machine["cpus"]),
            "memory": "4GiB",
            **NO_COSTS,
            **medium(machine["probe"]),
        },
        vms=vms,
    )
    lazy = "true" if machine["preemption"] == "lazy" else "false"
    scheduler = (
        f"eevdf:base_slice={machine['base_slice_ns']}ns:tick={1_000_000_000 // machine['hz']}ns:lazy_preemption={lazy}"
    )
    if model == ROUND_ROBIN:
        scheduler = "round-robin:timeslice=100ms"
    disk = str(BARE_DISK)
    if model != ALWAYS_AWAKE:
        disk += after_pauses(json.loads((FOLDER / PAUSES).read_text(encoding="ascii"))["latency_ns"])
    return {f"seed{seed}": stage.cell(path, seed, scheduler=scheduler, storage=disk) for seed in SEEDS}


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    """Mean over the seeds, which draw when run queues are balanced."""
    jobs = [next(vm for vm in result.vms if vm["name"] == JOB) for result in results.values()]

    def mean(name: str, unit: float) -> float:
        return sum(float(job[name]) for job in jobs) / len(jobs) / unit

    return {
        "wait_total": mean("ready_ns", 1e6),
        "wait_p50": mean("ready_p50_ns", 1e3),
        "wait_p90": mean("ready_p90_ns", 1e3),
        "wait_p99": mean("ready_p99_ns", 1e3),
        "block_p50": mean("io_latency_p50_ns", 1e3),
    }


BAR = Bar(
    name="REPLAY",
    title="A contended job, recorded and replayed",
    grade="A",
    scenario="six processes with pipes and a disk on 2 CPUs, beside all else that ran there",
    cells=cells,
    read=read,
    notes=(
        "A request's latency is taken from its issue to its completion, as the recording has it.",
        "The disk is a virtual machine's, and answers later after a pause, as a probe without the job found (69 µs for "
        "16 KiB after 1 ms, 106 µs after 8 ms, 158 µs after 32 ms). That probe is younger than the recording, and of a "
        "machine of the same kind; the recording's own probe, after 1 ms only, says 71 µs.",
        "The machine was saturated, so that the sum of waits alone tells little: one pCPU instead of two meets it.",
    ),
    controls={
        ROUND_ROBIN: Control("turns of 100 ms", ("wait_p50", "wait_p90")),
        ONE_PCPU: Control("one pCPU where the machine had two", ("wait_p50", "wait_p90", "wait_p99")),
        IDLE_MACHINE: Control("a pCPU for everybody", ("wait_total", "wait_p50", "wait_p90", "wait_p99")),
        ALWAYS_AWAKE: Control("a disk that takes the same time always, as if asked every millisecond", ("block_p50",)),
    },
)
