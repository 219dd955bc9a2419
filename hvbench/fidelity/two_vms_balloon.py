"""TWO-VMS, balloon: what a guest gave back when it was told to, and what it took again.

VM 0 of the recording wrote 60 MiB of files, removed them, and was ballooned from 256 to 160 MiB, later back to 256. Of
what its balloon took, only what had a frame came back to the host. What the guest used, wrote and removed is what it
said itself (vm0.console: available memory at each phase); when the commands were sent follows from the recorder's loop
(recipe/vmrec.py): the reading before the first sign of each. The recorded side is domstats.csv.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage, ns
from hvbench.traces.format import FLAG_WRITE
from hvbench.traces.synthetic import Script, in_turn, memory_image, repeated, rows

COMMANDS = Path(__file__).parent / "policies" / "balloon_commands.py"
MODELS = NO_COMMANDS, NEVER_DEFLATES = "no-commands", "never-deflates"
PAGES_PER_MIB = 256
KB_PER_PAGE = 4
TICK_NS = 100_000_000
SPANS = {"before": ("13.681", "14.191"), "inflated": ("14.699", "15.207"), "deflated": ("23.826", "24.835")}
"""Readings without a hashing between them: before the first command, after it, and after the second; s."""


def guest(inputs: Inputs) -> Script:
    """What VM 0 did with its memory, from what it said was available."""
    written = round((inputs["free_before"] - inputs["free_written"]) / KB_PER_PAGE)
    kept = round((inputs["free_before"] - inputs["free_removed"]) / KB_PER_PAGE)
    script = Script("two-vms-guest", f"writes {written} pages, and frees all but {kept}")
    region = script.region(written)
    writes, removes, ends = (round(1e9 * inputs[name]) for name in ("writes_at", "removes_at", "end"))
    script.thread(
        rows("sleep", duration_ns=writes),
        rows("alloc", object=region, page=0, pages=written),
        rows("touch", object=region, page=0, pages=written, flags=FLAG_WRITE),
        rows("sleep", duration_ns=removes - writes),
        rows("free", object=region, page=kept, pages=written - kept),
        rows("sleep", duration_ns=ends - removes),
    )
    # the guest's own ticks
    script.thread(
        repeated(in_turn(rows("compute", user_ns=10_000), rows("sleep", duration_ns=TICK_NS)), ends // TICK_NS),
        process=1,
    )
    return script


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    """The whole run for each span, measured in that."""
    pages = inputs.whole("memory_pages")
    used = pages - round(inputs["free_before"] / KB_PER_PAGE)
    image = stage.trace("two-vms-booted", memory_image(np.arange(1, used + 1), True))
    trace = stage.trace("two-vms-guest", guest(inputs))
    times = {name: ns(1e9 * inputs[name]) for name in ("first_command", "second_command")}
    first = pages if model == NO_COMMANDS else inputs.whole("first_pages")
    last = inputs.whole("first_pages") if model == NEVER_DEFLATES else pages
    memory = (
        f"{COMMANDS}:first_at={times['first_command']}:first_size={first}pages"
        f":second_at={times['second_command']}:second_size={last}pages"
    )
    made = {}
    for name, (start, end) in SPANS.items():
        path = stage.workload(
            f"two-vms-balloon-{name}" + (f"-{model}" if model else ""),
            settings={
                "class": "memory",
                "summary": "A guest that is ballooned from 256 to 160 MiB and back",
                "stresses": ["memory"],
                "warmup": f"{start}s",
                "horizon": f"{end}s",
            },
            host={"pcpus": 2, "memory": "1GiB"},
            vms=[{"name": "vm-0", "memory": f"{pages}pages", "trace": trace, "image": image, "start": "0s"}],
        )
        made[name] = stage.cell(path, memory=memory)
    return made


def read(results: Mapping[str, CellResult]) -> dict[str, float]:
    """Sizes of the balloon, and the memory that the host has back, MiB."""
    mib = {
        (name, what): float(result.vms[0][f"{what}_pages_avg"]) / PAGES_PER_MIB
        for name, result in results.items()
        for what in ("ballooned", "resident")
    }
    return {
        "balloon.inflated": mib["inflated", "ballooned"],
        "balloon.returned": mib["before", "resident"] - mib["inflated", "resident"],
        "balloon.deflated": mib["deflated", "ballooned"],
        "balloon.stays": mib["before", "resident"] - mib["deflated", "resident"],
    }
