"""FB6: two VMs of 256 MB with equal shares, one idle; what they have without and with a tax on idle memory.

Waldspurger 2002, figure 7. The idle VM touches few pages, the busy one most of its own, and fills what else it gets
with page cache. Both begin with all of their memory in use. An allocation is what the balloon leaves of a VM. What the
paper calls active is its sampler's estimate, which reads high (the largest of three averages); so the true active sets
are smaller here: with samples of 100 pages and the gains of `idle-tax` the estimate exceeds a share f by about
0.45 sqrt(f (1 - f) / 100), which is 2.0 MB of 7.8 MB and 4.9 MB of 196.3 MB. The allocations are averaged over 26
minutes that begin 3 minutes after the start, as the paper's minutes 34 to 60 do after the change of the tax.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage
from hvbench.traces.format import FLAG_COMMON
from hvbench.traces.synthetic import Chunk, Script, in_turn, rows

PAGES_PER_MB = 256
S = 1_000_000_000
ROUND_NS = 5 * S
FILE_PAGES = 65_536
READS_ON_MB = 2
"""What the busy VM reads anew in a round, six times that in a sampling period: its page cache takes what it gets."""
ROUNDS_A_SAMPLE = 6
GUEST_FREE_MB = 4
"""Above the watermark up to which a Linux guest of 256 MB keeps memory free."""
LONG_NS = 3700 * S
"""Longer than any cell, so that no trace begins anew."""
HYPERVISOR_PAGES = 8192
OVERHEAD_PAGES = 2048
MAPPED_TO_OVERHEAD = 512
HIGH_SHARE = 0.06
"""What the hypervisor keeps: itself, each VM's fixed overhead and its page tables, and free memory."""
TAX_IGNORED, SHARES_UNEQUAL, SLOW = "tax-ignored", "shares-unequal", "slow-balance"
SHARES = 2560
SEEDS = tuple(range(1, 11))


def held_at_first(pages: int, name: str) -> Script:
    """A base image whose page cache holds the first pages of the file `data`, clean and unused."""
    script = Script(name, f"a page cache of {pages} pages", base_image=True)
    data = script.file(FILE_PAGES, "data", image=True)
    numbers = np.arange(pages)
    script.thread(rows("content", object=data, page=numbers, pages=1, content=1 + numbers, flags=FLAG_COMMON))
    return script


def guest(active_pages: int, reads_on_pages: int, name: str) -> Script:
    """A thread that reads the same part of the file again and again, and reads on elsewhere, a bit at a time."""
    script = Script(name, f"{active_pages} active pages, {reads_on_pages} new ones a round")
    data, more = script.file(FILE_PAGES, "data", image=True), script.file(FILE_PAGES, "more")
    pause = in_turn(rows("compute", user_ns=1_000_000), rows("sleep", duration_ns=ROUND_NS))
    again = rows("fread", object=data, page=0, pages=active_pages)
    chunks: list[Chunk] = []
    for number in range(LONG_NS // ROUND_NS):
        chunks.append(again)
        if reads_on_pages:
            at = number * reads_on_pages % (FILE_PAGES - reads_on_pages)
            chunks.append(rows("fread", object=more, page=at, pages=reads_on_pages))
        chunks.append(pause)
    script.thread(*chunks)
    return script


def machine_pages(total_mb: float, vms: int) -> int:
    """Machine memory that leaves the VMs so much in all."""
    total = total_mb * PAGES_PER_MB
    return round((total * (1 + 1 / MAPPED_TO_OVERHEAD) + HYPERVISOR_PAGES + vms * OVERHEAD_PAGES) / (1 - HIGH_SHARE))


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    size = inputs.whole("vm")
    vms: list[dict[str, Any]] = []
    held = stage.trace("fb6-held", held_at_first((size - GUEST_FREE_MB) * PAGES_PER_MB, "fb6-held"))
    for name, on in (("vm1", 0), ("vm2", READS_ON_MB)):
        active = round((inputs[f"active_{name}"] - on * ROUNDS_A_SAMPLE) * PAGES_PER_MB)
        trace = stage.trace(f"fb6-{name}", guest(active, on * PAGES_PER_MB, f"fb6-{name}"))
        vms.append(
            {
                "name": name,
                "memory": f"{size}MiB",
                "memory_shares": SHARES,
                "trace": trace,
                "image": held,
                "start": "0s",
            }
        )
    if model == SHARES_UNEQUAL:
        vms[1]["memory_shares"] = 2 * SHARES
    taxed = 0 if model == TAX_IGNORED else inputs.whole("tax")
    period = ":period=600s" if model == SLOW else ""
    made = {}
    for case, total, tax, warmup_s, horizon_s, seeds in (
        ("untaxed", inputs["total_before"], 0, 180, 480, SEEDS[:3]),
        ("taxed", inputs["total_after"], taxed, 180, 1740, SEEDS),
        ("taxed_358", inputs["total_before"], taxed, 180, 1740, SEEDS[:3]),
        ("early", inputs["total_after"], taxed, 180, 300, SEEDS),
    ):
        path = _workload(stage, case, model, vms, machine_pages(total, len(vms)), warmup_s, horizon_s)
        for seed in seeds[:2] if model else seeds:
            made[f"{case}.{seed}"] = stage.cell(path, seed, memory=f"idle-tax:tax={tax}{period}", technique="native")
    return made


def _workload(
    stage: Stage, case: str, model: str, vms: list[dict[str, Any]], pages: int, warmup_s: int, horizon_s: int
) -> Path:
    return stage.workload(
        f"fb6-{case.replace('_', '-')}" + (f"-{model}" if model else ""),
        settings={
            "class": "memory",
            "summary": "An idle and a busy VM of 256 MB with equal shares",
            "stresses": ["memory"],
            "warmup": f"{warmup_s}s",
            "horizon": f"{horizon_s}s",
        },
        host={"pcpus": 2, "memory": f"{pages}pages", "hypervisor_memory": f"{HYPERVISOR_PAGES}pages", "reserve": 0},
        vms=vms,
    )


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    sums: dict[str, list[float]] = {}
    for name, result in results.items():
        case = name.split(".")[0]
        for vm in result.vms:
            allocated = inputs["vm"] - float(vm["ballooned_pages_avg"]) / PAGES_PER_MB
            sums.setdefault(f"{case}.{vm['name']}", []).append(allocated)
    mean = {key: sum(values) / len(values) for key, values in sums.items()}
    early = [mean.pop(f"early.{vm}") for vm in ("vm1", "vm2")]
    mean["settled"] = max(abs(early[i] - mean[f"taxed.{vm}"]) for i, vm in enumerate(("vm1", "vm2")))
    return mean


TAXED = tuple(f"{case}.{vm}" for case in ("taxed", "taxed_358") for vm in ("vm1", "vm2"))

BAR = Bar(
    name="FB6",
    title="Idle-memory tax",
    grade="B",
    scenario="an idle and a busy VM of 256 MB with equal shares on memory for 345 MB of them; tax 0 and 75 %",
    cells=cells,
    read=read,
    controls={
        TAX_IGNORED: Control("idle memory is not taxed", TAXED),
        SHARES_UNEQUAL: Control("the busy VM has twice the shares", ("untaxed.vm1", "untaxed.vm2")),
        SLOW: Control("memory is divided anew every ten minutes only", ("settled",)),
    },
    notes=(
        "The true active sets are 7.8 and 196.3 MB: what the paper prints is its sampler's estimate, which reads high.",
        "The tax is on from the start of a cell, where the paper raises it at minute 31.",
        "An allocation is what the balloon leaves of a VM. The idle guest keeps about 10 MB of its own free, for which "
        "the hypervisor holds no frames.",
    ),
)
