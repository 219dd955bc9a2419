"""TWO-VMS: what two recorded virtual machines had in common, over time, against complete scans of the same pages.

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
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.page_hashes import snapshots
from hvbench.fidelity.stage import Stage
from hvbench.traces.synthetic import idle_guest, memory_image

SHARED = "HVBENCH_SHARED_TRACES"
RECORDING = "recorded-two-vms"
SCANNER = "ksm:pages_to_scan=8000:sleep_millisecs=20:max_page_sharing=1000000:use_zero_pages=true:smart_scan=false"
"""400,000 pages a second, as many pages on one frame as are equal: only what complete scans leave counts here."""
NO_SHARING, WITHIN = "no-sharing", "within-a-vm"
SNAPSHOTS = 9
EVERY = range(SNAPSHOTS)
WITH_BOTH = 7
"""Snapshots in which both VMs ran."""


def folder() -> Path:
    """Where the recording is, or would be."""
    return Path(os.environ.get(SHARED, SHARED)) / RECORDING


def absent() -> str:
    """Why the bar cannot be run here; empty if it can."""
    if not os.environ.get(SHARED):
        return f"{SHARED} is not set: it names the folder with the recording {RECORDING}"
    return "" if (folder() / "pagehash.txt.gz").exists() else f"{folder()} is missing"


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
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


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
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
    title="What two recorded VMs have in common, over time",
    grade="A",
    scenario="the page contents of two VMs of 256 MiB at nine times",
    cells=cells,
    read=read,
    controls={
        NO_SHARING: Control("nothing is shared", tuple(f"{n}.{what}" for n in EVERY for what in ("unique", "saved"))),
        WITHIN: Control("pages are equal within a VM only", tuple(f"{n}.in_both" for n in range(WITH_BOTH))),
    },
    absent=absent,
)
