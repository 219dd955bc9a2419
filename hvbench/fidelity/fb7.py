"""FB7: what page sharing finds. (i) exactly what there is; (ii) as many VMs as one likes.

(i) Gupta et al. 2008, table 1: the counts of zero, sharable and unique pages in three VMs of 512 MB say how many frames
a complete scan leaves. (ii) Waldspurger 2002, figure 4: the contents of identical VMs are worked out from what sharing
found in one VM and in two, and ten of them are predicted:

    frames of one VM = C + P, of two = C + 2 P      (C: contents common to all VMs, P: of one VM alone)

Zero pages are given. Of the pages that are shared within one VM, the rest are copies of few contents; the pages of two
VMs that stay unshared are single in their VM.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.stage import Stage
from hvbench.static_memory import page_contents
from hvbench.traces.synthetic import idle_guest, memory_image

PAGES_PER_MB = 256
SEED = 5
NO_SHARING = "no-sharing"
ONE_VM = "within-a-vm"
ZEROES = "zeroes-only"
CHAINS = "bounded-chains"
SCANNERS = {
    "page-sharing": "page-sharing:scan_time=4s:period=20ms:vm_pages_per_s=100000:host_mb_per_s_per_ghz=65536",
    "ksm": "ksm:pages_to_scan=2000:sleep_millisecs=20:max_page_sharing=1000000",
}
"""100,000 pages a second, and as many pages on one frame as there are equal ones: only what complete scans leave counts
here, not how long they take."""


def contents_of(inputs: Inputs) -> NDArray[np.uint64]:
    """The pages of Difference Engine's three VMs, in a random order."""
    zero, sharable, classes, unique = (inputs.whole(f"i.{n}") for n in ("zero", "sharable", "classes", "unique"))
    values = page_contents(zero=zero, sharable=sharable, classes=classes, unique=unique, seed=SEED)
    return values.astype(np.uint64)


@frozen
class Mix:
    """Pages of one of the identical VMs: zeroes, and single pages and copies of contents, common and private."""

    zero: int
    common_single: int
    common_copies: int
    common_copied: int
    private_single: int
    private_copies: int
    private_copied: int

    def image(self) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Contents, and which of them are common to all VMs."""
        parts, common = [np.zeros(self.zero, np.int64)], [np.ones(self.zero, bool)]
        first = 1
        for single, copies, copied, shared in (
            (self.common_single, self.common_copies, self.common_copied, True),
            (self.private_single, self.private_copies, self.private_copied, False),
        ):
            parts += [first + np.arange(single), first + single + np.arange(copies) % max(1, copied)]
            common.append(np.full(single + copies, shared))
            first += single + copied
        order = np.random.default_rng(SEED).permutation(sum(map(len, common)))
        return np.concatenate(parts).astype(np.uint64)[order], np.concatenate(common)[order]


def mix_of(inputs: Inputs) -> Mix:
    """The contents of a VM from what sharing found in one and in two of them."""
    mb = inputs.group("ii.")
    frames_one = mb["vm"] - mb["reclaimed1"]
    private = mb["vm2"] - mb["reclaimed2"] - frames_one
    private_single = (mb["vm2"] - mb["shared2"]) / 2
    copies = mb["shared1"] - mb["zero1"]
    copied = copies - (mb["reclaimed1"] - mb["zero1"])
    private_copied = private - private_single
    share = private_copied / copied
    pages = {
        "zero": mb["zero1"],
        "private_single": private_single,
        "private_copied": private_copied,
        "private_copies": copies * share,
        "common_copied": copied - private_copied,
        "common_copies": copies * (1 - share),
    }
    counts = {name: round(value * PAGES_PER_MB) for name, value in pages.items()}
    total = round(mb["vm"] * PAGES_PER_MB)
    single = total - sum(counts[n] for n in ("zero", "private_single", "private_copies", "common_copies"))
    return Mix(common_single=single, **counts)


def cells(stage: Stage, inputs: Inputs, model: str) -> dict[str, Cell]:
    policies = dict(SCANNERS)
    if model == NO_SHARING:
        policies = dict.fromkeys(SCANNERS, "static")
    elif model == CHAINS:
        policies["ksm"] = policies["ksm"].replace("max_page_sharing=1000000", "max_page_sharing=256")
    idle = stage.trace("idle", idle_guest())
    made = {}
    images = [
        stage.trace(f"fb7-i-{k}{'-' + model if model == ONE_VM else ''}", memory_image(part, model != ONE_VM))
        for k, part in enumerate(np.split(contents_of(inputs), inputs.whole("i.vms")))
    ]
    pages = len(contents_of(inputs)) // len(images)
    one = stage.workload(
        "fb7-i" + (f"-{model}" if model else ""),
        settings={
            "class": "memory",
            "summary": "Three VMs with the page contents that Difference Engine counted",
            "stresses": ["memory"],
            "warmup": "20s",
            "horizon": "21s",
        },
        host={"pcpus": 2, "memory": "2GiB"},
        vms=[
            {"name": f"vm-{k}", "memory": f"{pages}pages", "trace": idle, "image": image, "start": "0s"}
            for k, image in enumerate(images)
        ],
    )
    mix = mix_of(inputs)
    identities, common = mix.image()
    image = stage.trace(
        f"fb7-ii{'-' + model if model == ZEROES else ''}",
        memory_image(
            np.where(identities == 0, 0, 1 + np.arange(len(identities))) if model == ZEROES else identities,
            identities == 0 if model == ZEROES else common,
        ),
    )
    ten = stage.workload(
        "fb7-ii" + (f"-{model}" if model else ""),
        settings={
            "class": "memory",
            "summary": "Ten identical VMs of 39.1 MB",
            "stresses": ["memory"],
            "warmup": "10s",
            "horizon": "11s",
        },
        host={"pcpus": 2, "memory": "1GiB"},
        vms=[
            {
                "name": "linux",
                "count": inputs.whole("ii.vms"),
                "memory": f"{len(identities)}pages",
                "trace": idle,
                "image": image,
                "start": "0s",
            }
        ],
    )
    for name, policy in policies.items():
        made[f"i.{name}"] = stage.cell(one, memory=policy)
        made[f"ii.{name}"] = stage.cell(ten, memory=policy)
    return made


def read(results: Mapping[str, CellResult], inputs: Inputs) -> dict[str, float]:
    values = {}
    for name, result in results.items():
        part, _, policy = name.partition(".")
        pages = sum(float(vm["resident_pages_avg"]) for vm in result.vms)
        saved = float(result.metrics["saved_pages"])
        if part == "i":
            values[f"i.{policy}.frames"] = pages - saved
        else:
            shared = float(result.metrics["shared_pages_avg"])
            values[f"ii.{policy}.reclaimed"] = saved / PAGES_PER_MB
            values[f"ii.{policy}.reclaimed_share"] = 100 * saved / pages
            values[f"ii.{policy}.shared_share"] = 100 * shared / pages
    return values


FRAMES = tuple(f"i.{policy}.frames" for policy in SCANNERS)
GROWTH = tuple(
    f"ii.{policy}.{what}" for policy in SCANNERS for what in ("reclaimed", "reclaimed_share", "shared_share")
)

BAR = Bar(
    name="FB7",
    title="Page sharing: exactly what there is, and its growth with the number of VMs",
    grade="A, B",
    scenario="(i) 393,120 pages with counted contents in 3 VMs; (ii) 10 identical VMs of 39.1 MB",
    cells=cells,
    read=read,
    controls={
        NO_SHARING: Control("nothing is shared", FRAMES + GROWTH),
        CHAINS: Control("a frame of KSM takes 256 pages, the default: zeroes alone leave 583", ("i.ksm.frames",)),
        ONE_VM: Control("pages are equal within a VM only", FRAMES),
        ZEROES: Control("only pages of zeroes are ever equal", GROWTH),
    },
    notes=("(ii): the contents are those that the figure's values for one and two VMs imply; ten are predicted.",),
)
