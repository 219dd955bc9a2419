"""TWO-VMS: two recorded virtual machines, and what a replay says of them: contents in common, steal, ballooning.

Steal and ballooning are `two_vms_steal` and `two_vms_balloon`; here is what the VMs had in common, over time, against
complete scans of the same pages.

The recording hashed every page of two guests nine times. Each snapshot is a cell: the VMs start with those contents,
and KSM scans until nothing is left to merge; with pages of zeroes on a page of their own (`use_zero_pages`) it counts
those too. Contents that both VMs have are what two lone VMs' scans leave more than one of the two together.

The recording is not part of hvbench: HVBENCH_SHARED_TRACES names the folder that it is in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hvbench.cell import Cell, CellResult
from hvbench.fidelity import two_vms_balloon as balloon
from hvbench.fidelity import two_vms_steal as steal
from hvbench.fidelity.bars import RIGHT, Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.page_hashes import snapshots
from hvbench.fidelity.stage import Stage
from hvbench.traces.synthetic import idle_guest, memory_image

SHARED = "HVBENCH_SHARED_TRACES"
RECORDING = "recorded-two-vms"
SCANNER = "ksm:pages_to_scan=8000:sleep_millisecs=20:max_page_sharing=1000000:use_zero_pages=true:smart_scan=false"
"""400,000 pages a second, as many pages on one frame as are equal: only what complete scans leave counts here."""
NO_SHARING, WITHIN = "no-sharing", "within-a-vm"
FILES = ("pagehash.txt.gz", steal.EVENTS, steal.STATISTICS)
SNAPSHOTS = 9
EVERY = range(SNAPSHOTS)
STEAL = tuple(f"steal.vm{vm}" for vm in range(len(steal.VCPUS)))
WITH_BOTH = 7
"""Snapshots in which both VMs ran."""


def folder() -> Path:
    """Where the recording is, or would be."""
    return Path(os.environ.get(SHARED, SHARED)) / RECORDING


def absent() -> str:
    """Why the bar cannot be run here; empty if it can."""
    if not os.environ.get(SHARED):
        return f"{SHARED} is not set: it names the folder with the recording {RECORDING}"
    missing = [name for name in FILES if not (folder() / name).exists()]
    return f"{folder() / missing[0]} is missing" if missing else ""


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    """All cells; a wrong model is wrong in one part, and runs with the others as they are."""
    parts = {
        "sharing": sharing_cells(stage, model if model in (NO_SHARING, WITHIN) else RIGHT),
        "steal": steal.cells(stage, folder(), inputs, model if model in steal.MODELS else RIGHT),
        "balloon": balloon.cells(stage, inputs, model if model in balloon.MODELS else RIGHT),
    }
    return {f"{part}.{name}": cell for part, made in parts.items() for name, cell in made.items()}


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    """The values of all parts."""

    def part(name: str) -> dict[str, CellResult]:
        return {key.removeprefix(f"{name}."): result for key, result in results.items() if key.startswith(f"{name}.")}

    return {**read_sharing(part("sharing")), **steal.read(part("steal")), **balloon.read(part("balloon"))}


def sharing_cells(stage: Stage, model: str) -> dict[str, Cell]:
    """Complete scans of each snapshot, of both VMs together and of each alone."""
    idle = stage.trace("idle", idle_guest())
    scanner = "static" if model == NO_SHARING else SCANNER
    made = {}
    for number, snapshot in enumerate(snapshots(folder() / "pagehash.txt.gz")):
        vms = []
        for vm, contents in snapshot.contents.items():
            common = contents == 0 if model == WITHIN else True
            name = f"two-vms-{number}-{vm}" + (f"-{model}" if model == WITHIN else "")
            image = stage.trace(name, memory_image(contents, common))
            vms.append(
                {
                    "name": f"vm-{vm}",
                    "memory": f"{len(contents)}pages",
                    "trace": idle,
                    "image": image,
                    "start": "0s",
                }
            )
        sets = {"both": vms, **({f"vm{k}": [vm] for k, vm in enumerate(vms)} if len(vms) > 1 else {})}
        for who, present in sets.items():
            path = stage.workload(
                f"two-vms-{number}-{who}" + (f"-{model}" if model else ""),
                settings={
                    "class": "memory",
                    "summary": f"The pages of recorded VMs after {snapshot.time_s} s",
                    "stresses": ["memory"],
                    "warmup": "4s",
                    "horizon": "5s",
                },
                host={"pcpus": 2, "memory": "1GiB"},
                vms=present,
            )
            made[f"{number}.{who}"] = stage.cell(path, memory=scanner)
    return made


def read_sharing(results: Mapping[str, CellResult]) -> dict[str, float]:
    """What the scans found."""
    values: dict[str, float] = {}
    left: dict[str, float] = {}
    for name, result in results.items():
        pages = sum(float(vm["resident_pages_avg"]) for vm in result.vms)
        zero = float(result.metrics.get("ksm_zero_pages", 0))
        # the page that all pages of zeroes stand on is the host's own, and a content all the same
        left[name] = pages - float(result.metrics["saved_pages"]) + (1 if zero else 0)
        number, _, who = name.partition(".")
        if who == "both":
            values[f"{number}.unique"] = left[name]
            values[f"{number}.saved"] = pages - left[name]
            values[f"{number}.zero"] = zero
    for snapshot in EVERY:
        alone = [left[f"{snapshot}.vm{k}"] for k in range(2) if f"{snapshot}.vm{k}" in left]
        values[f"{snapshot}.in_both"] = sum(alone) - left[f"{snapshot}.both"] if alone else 0.0
    return values


BAR = Bar(
    name="TWO-VMS",
    title="Two recorded VMs: contents in common over time, steal, ballooning",
    grade="A",
    scenario="two QEMU guests of 256 MiB on 2 CPUs: their pages at nine times, 8 windows of 1.5 s, one ballooned",
    cells=cells,
    read=read,
    controls={
        NO_SHARING: Control("nothing is shared", tuple(f"{n}.{what}" for n in EVERY for what in ("unique", "saved"))),
        WITHIN: Control("pages are equal within a VM only", tuple(f"{n}.in_both" for n in range(WITH_BOTH))),
        steal.IDLE_MACHINE: Control("a pCPU for everybody", STEAL),
        steal.NOBODY_ELSE: Control("nothing ran beside the two QEMUs", STEAL),
        balloon.NO_COMMANDS: Control(
            "the balloon's commands are ignored", ("balloon.inflated", "balloon.returned", "balloon.stays")
        ),
        balloon.NEVER_DEFLATES: Control("the second command is ignored", ("balloon.deflated",)),
    },
    notes=(
        "Steal: the recorder hashed all pages every two seconds; those intervals are left out, 8 windows of 1.5 s "
        "remain, each a cell of its own. 77 % (VM 0) and 89 % (VM 1) of all recorded waiting is in the first, while "
        "the guests booted. In the third the replay lets the other VM wait: 38 and 100 ms, where 183 and 10 ms were "
        "recorded.",
        "Steal: the recorder and both QEMUs are one task group (a session), other processes one each. Autogroups, "
        "HZ 250 and the base slice are those of REPLAY's kernel, of the same version, as the recording does not say. "
        "Its events hold 97 % (VM 0) and 89 % (VM 1) of what the vCPUs ran.",
        "Steal: the reading of the events was mended once after the first run, as quiet windows held load that nobody "
        "had recorded; both readings meet the targets.",
        "Steal and balloon: no tolerance was stated for them; REPLAY's ±25 % was chosen before the first run. A "
        "balloon that has to be empty is exact.",
        "Balloon: what the guest used and freed is what its console said, the commands' times follow from the "
        "recorder's loop; the host's side is the change of QEMU's RSS.",
    ),
    absent=absent,
)
