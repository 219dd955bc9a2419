"""A small host for tests of the memory side: VMs with lists of operations, policies by name, invariants."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.build_io import IoSpec
from hvbench.build_memory import GuestMemory, MemoryObject, MemorySpec
from hvbench.state import schema
from hvbench.state.records_memory import ANON
from hvbench.testing.laws_memory import conserved
from hvbench.traces.format import FLAG_COMMON, FLAG_WRITE, OPS

PLUGINS = Path(__file__).parents[2] / "plugins" / "memory"
WRITE, COMMON = FLAG_WRITE, FLAG_COMMON
MS = 1_000_000
SECOND = 1_000_000_000
FAST_SCAN = {"scan_time_ns": 2 * MS, "period_ns": MS, "vm_pages_per_s": 1 << 30, "host_mb_per_s_per_ghz": 1 << 16}
"""page-sharing that scans every VM in two milliseconds."""


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
        file = getattr(module, "__file__", None)
        # by its text: an edited policy must not be served from what was compiled before
        digest = hashlib.blake2b(Path(file).read_bytes()).hexdigest()[:16] if file else module.__name__
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
