"""FB5: weights 1 to 8 on two pCPUs, with and without a disk in the way. Barham et al. 2003, figure 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage
from hvbench.traces.synthetic import compute_bound

SCHEDULER = "credit"
WEIGHT_UNIT = 32
"""Weight 1 of the paper: only ratios count, and 8 of them are the default weight of Xen, 256."""
WEIGHTS_IGNORED = "weights-ignored"


def vms_with(weights: list[int], trace: str) -> list[dict[str, Any]]:
    """A VM of one vCPU for each weight."""
    return [
        {
            "name": f"domain-{number}",
            "weight": weight * WEIGHT_UNIT,
            "memory": "16MiB",
            "trace": trace,
            "image": "",
            "start": "0s",
        }
        for number, weight in enumerate(weights, 1)
    ]


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    domains = inputs.whole("domains")
    scheduler = "round-robin" if model == WEIGHTS_IGNORED else SCHEDULER
    trace = stage.trace("compute", compute_bound())
    made = {}
    for label, weights in (("a", list(range(1, domains + 1))), ("a-equal", [1] * domains)):
        path = stage.workload(
            f"fb5-{label}",
            settings={
                "class": "micro",
                "summary": "Eight CPU-bound domains on two processors",
                "stresses": ["scheduler"],
                "warmup": "2s",
                "horizon": "32s",
            },
            host={"pcpus": inputs.whole("pcpus"), "memory": "1GiB"},
            vms=vms_with(weights, trace),
        )
        made[label] = stage.cell(path, scheduler=scheduler, technique="para")
    return made


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    weighted = [float(vm["progress_per_s"]) for vm in results["a"].vms]
    equal = [float(vm["progress_per_s"]) for vm in results["a-equal"].vms]
    values = {f"a.weight{k}": 100 * rate / sum(weighted) for k, rate in enumerate(weighted, 1)}
    values["a.total"] = sum(weighted) / sum(equal)
    return values


BAR = Bar(
    name="FB5",
    title="Weights 1 to 8, and what a disk makes of them",
    grade="A, C",
    scenario="8 VMs of one vCPU with weights 1 to 8 on 2 pCPUs",
    cells=cells,
    read=read,
    controls={
        WEIGHTS_IGNORED: Control("a scheduler that ignores weights", tuple(f"a.weight{k}" for k in range(1, 9))),
    },
)
