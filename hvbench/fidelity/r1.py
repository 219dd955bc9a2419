"""R1: a VM that is ballooned to a size does as well as one configured with it; Waldspurger 2002, figure 2.

dbench is stood in for by 40 clients that read and write a set of files larger than any of the sizes, with a popularity
that falls as Zipf's law has it. What the guest caches then decides how often it waits for the disk. The same VM whose
memory the hypervisor pages out at random, without the guest's knowing, is the contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage
from hvbench.traces.synthetic import file_clients

BALLOON = Path(__file__).parent / "policies" / "balloon_to.py"
SIZES = (128, 160, 192, 224)
CONFIGURED = 256
FILES_MIB = 448
CHUNK_PAGES = 16
OPERATIONS = 60_000
COMPUTE_NS = 500_000
WRITE_SHARE = 0.2
NO_BALLOON = "balloon-ignored"
ALL_FITS = "everything-fits"
NO_PRESSURE = "no-pressure"


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    files = 16 if model == ALL_FITS else FILES_MIB
    trace = stage.trace(
        f"dbench-{files}",
        file_clients(
            inputs.whole("clients"),
            OPERATIONS,
            files * 256,
            CHUNK_PAGES,
            compute_ns=COMPUTE_NS,
            write_share=WRITE_SHARE,
            exponent=inputs["zipf"],
            seed=21,
        ),
    )
    made = {}
    for size in (*SIZES, CONFIGURED):
        made[f"static.{size}"] = stage.cell(_workload(stage, f"static-{size}", model, trace, size, 1024))
    for size in SIZES:
        target = CONFIGURED if model == NO_BALLOON else size
        path = _workload(stage, f"balloon-{size}", model, trace, CONFIGURED, 1024)
        made[f"balloon.{size}"] = stage.cell(path, memory=f"{BALLOON}:size={target}MiB")
        # what the hypervisor keeps for itself, and the VM's own overhead, come on top
        machine = 1024 if model == NO_PRESSURE else size + 32 + 8 + 1
        path = _workload(stage, f"paging-{size}", model, trace, CONFIGURED, machine)
        made[f"paging.{size}"] = stage.cell(path, memory="overcommit:ratio=1000")
    return made


def _workload(stage: Stage, name: str, model: str, trace: str, size: int, machine: int) -> Path:
    return stage.workload(
        f"r1-{name}" + (f"-{model}" if model else ""),
        settings={
            "class": "memory",
            "summary": f"40 clients of a file server of {size} MiB on a machine of {machine} MiB",
            "stresses": ["memory", "storage"],
            "warmup": "400s",
            "horizon": "1000s",
        },
        host={"pcpus": 1, "memory": f"{machine}MiB", "hypervisor_memory": "32MiB", "reserve": 0, "disk.kind": "hdd"},
        vms=[{"name": "dbench", "memory": f"{size}MiB", "trace": trace, "image": "", "start": "0s"}],
    )


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    rate = {name: float(result.vms[0]["progress_per_s"]) for name, result in results.items()}
    values = {f"balloon.{size}": rate[f"balloon.{size}"] / rate[f"static.{size}"] for size in SIZES}
    static = [rate[f"static.{size}"] for size in (*SIZES, CONFIGURED)]
    ballooned = [rate[f"balloon.{size}"] for size in SIZES]
    values["monotone"] = float(all(a < b for rates in (static, ballooned) for a, b in pairwise(rates)))
    values["paging.128"] = rate["paging.128"] / rate["balloon.128"]
    return values


BAR = Bar(
    name="R1",
    title="Ballooned against statically sized",
    grade="C",
    scenario="a file server of 256 MB ballooned to 128 to 224 MB, configured with that size, and paged out at random",
    cells=cells,
    read=read,
    controls={
        NO_BALLOON: Control("the balloon is inflated and nobody gives up memory", tuple(f"balloon.{s}" for s in SIZES)),
        ALL_FITS: Control("the guest never has to read anything again, whatever its size", ("monotone",)),
        NO_PRESSURE: Control("the hypervisor never has to page", ("paging.128",)),
    },
    notes=("dbench's accesses are not published: 40 clients with a Zipf law stand in, and only ratios are judged.",),
    slow=True,
)
