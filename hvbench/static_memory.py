"""Hosts whose VMs hold given page contents and do nothing: what a memory policy makes of them is all that happens.

    values = page_contents(zero=149_038, sharable=52_436, classes=3_577, unique=191_646, seed=5)
    spec = static_host(split_evenly(values, 3), horizon_ns=60_000_000_000)
    memory = build(spec); bind(memory, policies); ...
    frames_of_guests(memory)

Contents are identities (model.md): equal numbers are equal contents, 0 is a page of zeros. Every page has a frame of
its own at the start, as after the guests wrote them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, no_privileged
from hvbench.build_io import IoSpec
from hvbench.build_memory import BaseImage, GuestMemory, MemoryCosts, MemoryObject, MemorySpec
from hvbench.errors import UserError
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.state.records_memory import ANON
from hvbench.traces.format import OPS

FOREVER_NS = 1 << 61


def page_contents(*, zero: int, sharable: int, classes: int, unique: int, seed: int) -> NDArray[np.int64]:
    """Pages in random order: `zero` of zeros, `sharable` of `classes` contents of two pages or more, `unique` others.

    The sharable pages are dealt out to the classes in turn. Raises UserError where a class would have fewer than two.
    """
    if min(zero, sharable, classes, unique) < 0 or sharable < 2 * classes or (sharable and not classes):
        raise UserError(
            f"page contents: {sharable} sharable pages in {classes} classes, {zero} zero and {unique} unique pages; "
            "legal: none negative, and two sharable pages or more a class"
        )
    kinds = np.arange(sharable, dtype=np.int64) % max(1, classes)
    values = np.concatenate([np.zeros(zero, np.int64), 1 + kinds, 1 + classes + np.arange(unique, dtype=np.int64)])
    return np.random.default_rng(seed).permutation(values)


def split_evenly(values: NDArray[np.int64], vms: int) -> list[NDArray[np.int64]]:
    """The pages of each of `vms` VMs, in order; the first ones have one more where it does not come out even."""
    return list(np.array_split(values, vms))


def static_host(
    contents: Sequence[NDArray[np.int64]],
    *,
    horizon_ns: int,
    frames: int = 0,
    pcpus: int = 1,
    seed: int = 1,
    costs: MemoryCosts | None = None,
    **memory: Any,
) -> HostSpec:
    """A host with a VM for each array of contents; `frames` of machine memory, 0 for just enough to begin with.

    `costs` are the mechanisms' (the measured ones without it); `memory` are further fields of MemorySpec.
    """
    ops = schema.TABLES["op"].layout.zeros(1)
    ops["op"], ops["x"], ops["a"] = OPS["sleep"], -1, FOREVER_NS
    guests = tuple(GuestMemory(len(values) + 1, swap_pages=0, image=_image(values)) for values in contents)
    pages = sum(len(values) for values in contents)
    spec = MemorySpec(
        frames=frames or pages + 2,
        vms=guests,
        objects=((),) * len(guests),
        hypervisor_pages=1,
        vm_overhead_pages=0,
        overhead_ppm=0,
        free_states_ppm=(0, 0, 0, 0),
    )
    return HostSpec(
        cpu=CpuSpec(pcpus=pcpus),
        vms=tuple(VmSpec(vcpus=1, group=m, memory_pages=guest.pages) for m, guest in enumerate(guests)),
        groups=tuple(GroupSpec((ThreadSpec(m, 0, 1),)) for m in range(len(guests))),
        ops=ops,
        privileged=no_privileged(),
        horizon_ns=horizon_ns,
        seed=seed,
        io=IoSpec(),
        memory=attrs.evolve(spec, costs=costs or spec.costs, **memory),
    )


def _image(values: NDArray[np.int64]) -> BaseImage:
    """Memory of a guest's kernel, so that the guest never gives it up."""
    rows = np.arange(len(values))
    return BaseImage((MemoryObject(ANON, max(1, len(values)), 0),), rows, values, np.ones(len(values), np.int64))


def frames_of_guests(memory: HostMemory) -> int:
    """Frames that back guests' pages: the rest of machine memory is free, the hypervisor's, or VMs' overhead."""
    machine = memory.tables["machine"][0]
    overhead = int(memory.tables["vmem"]["overhead"].sum())
    return int(machine["frames"] - machine["hypervisor"] - machine["free"]) - overhead
