"""A small host for tests of the memory side: VMs with lists of operations, policies by name, invariants."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.build_io import IoSpec
from hvbench.build_memory import GuestMemory, MemoryObject, MemorySpec
from hvbench.state import schema
from hvbench.state.records_memory import (
    ANON,
    FRAME_HYPERVISOR,
    FRAME_OVERHEAD,
    LISTS,
    OWN,
    P_ABSENT,
    P_BALLOON,
    P_FREE,
    P_KERNEL,
    P_LISTED,
    P_READING,
    P_SHARED,
    P_SWAPPING,
    P_VM_SHIFT,
    P_WRITEBACK,
)
from hvbench.traces.format import FLAG_COMMON, FLAG_WRITE, OPS

PLUGINS = Path(__file__).parents[2] / "plugins" / "memory"
WRITE, COMMON = FLAG_WRITE, FLAG_COMMON
MS = 1_000_000
SECOND = 1_000_000_000


def policy(name: str) -> Any:
    """A bundled memory policy's module."""
    path = PLUGINS / f"{name.replace('-', '_')}.py"
    key = f"memory_rig_{path.stem}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


def stack(*layers: Any) -> list[Chosen]:
    """A memory stack: names, modules, or (name or module, parameters)."""
    made = []
    for i, layer in enumerate(layers):
        module, values = layer if isinstance(layer, tuple) else (layer, {})
        module = policy(module) if isinstance(module, str) else module
        params = module.Params(**values) if hasattr(module, "Params") else None
        digest = f"{getattr(module, '__file__', module.__name__)}"
        made.append(
            Chosen(
                schema.FIRST_MEMORY_SLOT + i,
                f"{module.__name__.removeprefix('memory_rig_')}-{i}",
                module,
                params,
                digest,
            )
        )
    return made


def op(name: str, x: int = -1, a: int = 0, b: int = 0, flags: int = 0) -> tuple[int, int, int, int, int]:
    """One operation; see Op."""
    return OPS[name], flags, x, a, b


def touch(o: int, page: int, pages: int = 1, write: bool = False) -> tuple[int, int, int, int, int]:
    return op("touch", o, page, pages, WRITE if write else 0)


def compute(ns: int) -> tuple[int, int, int, int, int]:
    return op("compute", -1, ns)


def sleep(ns: int) -> tuple[int, int, int, int, int]:
    return op("sleep", -1, ns)


def host(
    programs: list[list[list[tuple[int, int, int, int, int]]]],
    guests: list[GuestMemory],
    objects: list[list[tuple[int, int]]],
    layers: list[Chosen] | None = None,
    *,
    frames: int = 4096,
    horizon_ns: int = 10 * SECOND,
    pcpus: int = 2,
    interpreted: bool = True,
    seed: int = 1,
    processes: dict[tuple[int, int], int] | None = None,
    cpu: dict[str, Any] | None = None,
    **memory: Any,
) -> tuple[Any, Loop]:
    """A booted host: `programs[vm][thread]` are operations, `objects[vm]` pairs (kind, pages)."""
    rows: list[tuple[int, int, int, int, int]] = []
    groups = []
    for m, threads in enumerate(programs):
        made = []
        for t, ops in enumerate(threads):
            process = (processes or {}).get((m, t), 0)
            made.append(ThreadSpec(m, len(rows), len(rows) + len(ops), process=process))
            rows += ops
        groups.append(GroupSpec(tuple(made)))
    table = schema.TABLES["op"].layout.zeros(max(1, len(rows)))
    for name, column in zip(("op", "flags", "x", "a", "b"), zip(*rows, strict=True), strict=True):
        table[name] = column
    defaults: dict[str, Any] = {"hypervisor_pages": 16, "vm_overhead_pages": 4}
    spec = MemorySpec(
        frames=frames,
        vms=tuple(guests),
        objects=tuple(
            tuple(
                MemoryObject(k, n, m, 0 if k == ANON else -1, 0 if k == ANON else 1000 + i)
                for i, (k, n) in enumerate(x)
            )
            for m, x in enumerate(objects)
        ),
        **{**defaults, **memory},
    )
    made_host = build(
        HostSpec(
            cpu=CpuSpec(pcpus=pcpus, **(cpu or {})),
            vms=tuple(VmSpec(vcpus=1, group=m, memory_pages=guests[m].pages) for m in range(len(guests))),
            groups=tuple(groups),
            ops=table,
            privileged=no_privileged(),
            horizon_ns=horizon_ns,
            seed=seed,
            io=IoSpec(),
            memory=spec,
        )
    )
    bind(made_host, layers or [], interpreted=interpreted)
    loop = Loop(made_host, interpreted)
    loop.boot()
    return made_host, loop


def run(
    programs: list[list[list[tuple[int, int, int, int, int]]]],
    guests: list[GuestMemory],
    objects: list[list[tuple[int, int]]],
    layers: list[Chosen] | None = None,
    check: bool = True,
    **options: Any,
) -> Any:
    """Run to the horizon and check the laws of conservation."""
    memory, loop = host(programs, guests, objects, layers, **options)
    while loop.run(1000) == 0:
        pass
    if check:
        assert int(memory.header["error"][0]) == 0, error(memory)
        conserved(memory)
    return memory


def error(memory: Any) -> tuple[int, int, int, int, list[Any]]:
    h = memory.header[0]
    return int(h["error"]), int(h["error_hook"]), int(h["error_answer"]), int(h["error_extra"]), memory.exceptions


def conserved(memory: Any) -> None:
    """Every frame has exactly one owner, every guest page exactly one state, every counter agrees with what it
    counts."""
    t = memory.tables
    page, frame, vmem, machine, mapping = t["page"], t["page_frame"], t["vmem"], t["machine"][0], t["mapping"]
    frames = int(machine["frames"])
    refs = np.zeros(frames, np.int64)
    backed = page["frame"] > 0
    np.add.at(refs, page["frame"][backed] - 1, 1)
    reading = t["mem_io"][(t["mem_io"]["used"] == 1)]
    hostin = [int(x["frame"]) - 1 for x in reading if x["frame"] > 0]
    for f in hostin:
        refs[f] += 1
    stored = frame["refs"].astype(np.int64)
    zero = int(machine["zero_frame"])
    if zero:
        # the hypervisor's page of zeros keeps one reference of its own
        refs[zero - 1] += 1
    guest_owned = stored > 0
    assert (refs[guest_owned] == stored[guest_owned]).all()
    assert (refs[~guest_owned] == 0).all()
    assert (stored == FRAME_HYPERVISOR).sum() + (zero > 0) == machine["hypervisor"]
    assert (stored == FRAME_OVERHEAD).sum() == vmem["overhead"].sum()
    assert (stored == 0).sum() == machine["free"]
    # the free list and what was never used are the free frames
    seen = frames - int(machine["fresh"])
    f = int(machine["free_first"])
    while f:
        assert stored[f - 1] == 0
        seen += 1
        f = int(frame["owner"][f - 1])
    assert seen == machine["free"]
    assert machine["saved"] == (refs[guest_owned] - 1).sum()
    swapped = page["frame"] < 0
    slots = -page["frame"][swapped] - 1
    assert len(np.unique(slots)) == len(slots)
    slot_page = t["host_slot"]["page"][slots].astype(np.int64)
    read = slot_page < 0
    slot_page[read] = t["mem_io"]["first"][-slot_page[read] - 1] + 1
    assert (slot_page == np.flatnonzero(swapped) + 1).all()
    moving = int(machine["swapping"])
    assert (t["host_slot"]["page"] != 0).sum() == machine["slots_used"] == len(slots) + moving
    at = mapping["at"]
    owners = np.flatnonzero(at > 0)
    assert (page["owner"][at[owners] - 1] == owners + 1).all()
    assert (page["owner"] != 0).sum() == len(owners)
    for m, x in enumerate(vmem):
        first, count = int(x["first"]), int(x["pages"])
        mine = page[first : first + count]
        flags = mine["flags"]
        assert (flags[mine["owner"] != 0] >> P_VM_SHIFT == m).all()
        used = np.arange(count) < x["fresh"]
        free = (flags & P_FREE) != 0
        ballooned = (flags & P_BALLOON) != 0
        held = mine["owner"] != 0
        assert (free.astype(int) + ballooned + held + ~used == 1).all()
        assert free.sum() + (~used).sum() == x["free"]
        assert ballooned.sum() == x["ballooned"]
        assert not (mine["frame"][ballooned] != 0).any()
        assert x["resident"] == (mine["frame"] > 0).sum()
        assert x["swapped"] == (mine["frame"] < 0).sum()
        assert x["shared"] == ((flags & P_SHARED) != 0).sum()
        listed = (flags & P_LISTED) != 0
        assert listed.sum() == t["page_list"]["count"][m * LISTS : (m + 1) * LISTS].sum()
        for k in range(LISTS):
            g, before, n = int(t["page_list"]["first"][m * LISTS + k]), 0, 0
            while g:
                assert page["prev"][g - 1] == before and page["flags"][g - 1] & P_LISTED
                before, g, n = g, int(page["next"][g - 1]), n + 1
            assert n == t["page_list"]["count"][m * LISTS + k] and before == t["page_list"]["last"][m * LISTS + k]
        # a held page is on a list, or the kernel's, or on its way
        way = (flags & (P_ABSENT | P_READING | P_WRITEBACK | P_KERNEL)) != 0
        assert (listed | way)[held].all()
        slots_here = t["guest_slot"]["owner"][int(x["first_slot"]) : int(x["first_slot"] + x["slots"])]
        assert (slots_here != 0).sum() == x["slots_used"]
    for o in t["object"]:
        rows = at[int(o["first"]) : int(o["first"] + o["pages"])]
        assert o["resident"] == (rows > 0).sum()
    _ = P_SWAPPING, OWN
