"""FB1: what short slices cost. Compute-bound VMs on two pCPUs, N/2 in turn on each; Barham et al. 2003, figure 6."""

from __future__ import annotations

from collections.abc import Mapping

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import RIGHT, Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage, ns
from hvbench.traces.synthetic import compute_bound

SHORT = (1, 4, 8, 16, 32, 64, 96, 128)
LONG = (1, 4, 8, 16, 32, 64, 96, 128)
MS = 1_000_000
WARM_TURNS, TURNS = 2, 6
"""Turns of every VM before and after measuring begins: the first one finds nothing of its own evicted."""
VM_MIB = 4
NO_REFILL = "no-refill"


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    trace = stage.trace("compute", compute_bound())
    made = {}
    for label, counts, slice_ms in (
        ("5ms", SHORT, inputs.whole("short_slice")),
        ("50ms", LONG, inputs.whole("long_slice")),
    ):
        for count in counts:
            pcpus = inputs.whole("pcpus")
            turn_ns = slice_ms * MS * max(1, count // pcpus)
            name = f"fb1-{label}-n{count}" + (f"-{model}" if model else "")
            path = stage.workload(
                name,
                settings={
                    "class": "micro",
                    "summary": f"{count} compute-bound VMs on {pcpus} pCPUs, slices of {slice_ms} ms",
                    "stresses": ["scheduler"],
                    "warmup": ns(WARM_TURNS * turn_ns),
                    "horizon": ns((WARM_TURNS + TURNS) * turn_ns),
                },
                host={
                    "pcpus": pcpus,
                    "memory": "3GiB",
                    **({"cache_refill": 0, "cache_refill_other": 0} if model == NO_REFILL else {}),
                },
                vms=[
                    {
                        "name": "spec",
                        "count": count,
                        "memory": f"{VM_MIB}MiB",
                        "trace": trace,
                        "image": "",
                        "start": "0s",
                    }
                ],
            )
            # `null` binds VM k to pCPU k modulo 2 and gives turns there: a fixed placement, N/2 on each
            made[f"{label}.n{count}"] = stage.cell(path, scheduler=f"null:sharing_slice={slice_ms}ms", technique="para")
    return made


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    total = {name: sum(float(vm["progress_per_s"]) for vm in result.vms) for name, result in results.items()}
    return {name: rate / total[f"{name.split('.')[0]}.n1"] for name, rate in total.items() if not name.endswith(".n1")}


BAR = Bar(
    name="FB1",
    title="Slice length against throughput",
    grade="B",
    scenario="4 to 128 compute-bound VMs of one vCPU on 2 pCPUs, equal weights, in turn for 5 or 50 ms",
    cells=cells,
    read=read,
    controls={
        NO_REFILL: Control(
            "caches stay warm whoever ran: the refill after a switch is 0",
            tuple(f"5ms.n{n}" for n in SHORT if n not in (1, 4, 128)) + tuple(f"50ms.n{n}" for n in LONG if n >= 32),
        )
    },
    notes=(
        "The 5 ms points of 4 and 128 domains fixed the two parameters of the cache model and are not judged.",
        "The share of a cache that others evict grows with the time that they ran, not with their number.",
    ),
)

assert RIGHT not in BAR.controls
