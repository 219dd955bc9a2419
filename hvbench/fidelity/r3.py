"""R3: lock-holder preemption. A guest with two vCPUs, alone and beside a VM that only computes; Friebel 2008.

The source does not say how often the guest takes locks, nor for how long. Here each of two threads computes 35 µs on
average (exponentially distributed) and then holds the one lock for 2 µs: Linux's commit of pause-loop exiting in Xen
(b67758cda13b) puts most holding times below 2^12 cycles. That rate makes for some spinning alone; how much more there
is with a competitor is the model's answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage
from hvbench.traces.synthetic import compute_bound, critical_sections, exponential

PAIRS = 20_000
SLEEPING_LOCKS = "sleeping-locks"
NO_GANG = "no-gang"
ONE_PCPU = "one-pcpu"
SCHEDULER, GANG = "credit", "cosched-strict"
SEEDS = (1, 2, 3)


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    vcpus = inputs.whole("vcpus")
    sections = stage.trace(
        "sections",
        critical_sections(
            exponential(inputs["compute"], PAIRS, seed=11),
            inputs.whole("hold"),
            threads=vcpus,
        ),
    )
    compute = stage.trace("compute", compute_bound())
    small: dict[str, Any] = {"memory": "16MiB", "image": "", "start": "random"}
    guest = {"name": "kernbench", "vcpus": vcpus, "trace": sections, **small}
    if model == ONE_PCPU:
        guest["affinity"] = [0]
    hog = {"name": "hog", "trace": compute, **small}
    made = {}
    for name, pcpus, vms, scheduler in (
        ("alone", vcpus, [guest], SCHEDULER),
        ("competitor", vcpus, [guest, hog], SCHEDULER),
        ("spare", vcpus + 1, [guest, hog], SCHEDULER),
        ("gang", vcpus, [guest, hog], SCHEDULER if model == NO_GANG else GANG),
    ):
        path = stage.workload(
            f"r3-{name}" + (f"-{model}" if model else ""),
            settings={
                "class": "micro",
                "summary": f"Two threads with a lock on {pcpus} pCPUs, {len(vms) - 1} competitors",
                "stresses": ["scheduler"],
                "warmup": "1s",
                "horizon": "21s",
            },
            host={
                "pcpus": pcpus,
                "memory": "1GiB",
                # a kernel's spinlock never gives up, and the processors of 2008 did not exit at pauses
                "guest_spin": "0s" if model == SLEEPING_LOCKS else "1000s",
                "ple_window": 0,
            },
            vms=vms,
        )
        for seed in SEEDS:
            made[f"{name}.{seed}"] = stage.cell(path, seed, scheduler=scheduler, technique="para")
    return made


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    """Percent of the guest's CPU time that it spins, over all seeds."""
    spun: dict[str, float] = {}
    ran: dict[str, float] = {}
    for name, result in results.items():
        case = name.split(".")[0]
        guest = result.vms[0]
        spun[case] = spun.get(case, 0) + float(guest["spin_ns"])
        ran[case] = ran.get(case, 0) + float(guest["ran_ns"])
    share = {case: 100 * spun[case] / ran[case] for case in spun}
    return {
        "alone": share["alone"],
        "competitor": share["competitor"],
        "times_more": share["competitor"] / share["alone"] if share["alone"] else 0.0,
        "spare": share["spare"],
        "gang": share["gang"],
    }


BAR = Bar(
    name="R3",
    title="Lock-holder preemption",
    grade="C",
    scenario="a VM of 2 vCPUs with a spinlock on 2 pCPUs, alone and beside a VM that computes",
    cells=cells,
    read=read,
    controls={
        SLEEPING_LOCKS: Control("who finds a lock held sleeps at once", ("times_more",)),
        ONE_PCPU: Control("a VM's vCPUs take turns on one pCPU while others idle", ("alone", "spare")),
        NO_GANG: Control("gang scheduling does not keep a VM's vCPUs together", ("gang",)),
    },
    notes=("Rate and length of the critical sections are not published: only the shape is judged.",),
)
