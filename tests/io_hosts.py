"""Small hosts with disks and networks, from lists of operations, and what must hold on any of them."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.build_io import FlowSpec, IoSpec
from hvbench.kernel.guards import LEGAL
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.testing.laws_io import conserved, free_lists_are_whole, row  # noqa: F401  (tests take them from here)
from hvbench.traces.format import OPS

MS = 1_000_000


@attrs.frozen
class T:
    """A thread: its VM, its operations, whether it is outside."""

    vm: int
    ops: tuple[tuple[Any, ...], ...]
    outside: bool = False


def compute(ns: int) -> tuple[Any, ...]:
    return ("compute", -1, ns, 0)


def sleep(ns: int) -> tuple[Any, ...]:
    return ("sleep", -1, ns, 0)


def read(page: int, pages: int = 1) -> tuple[Any, ...]:
    """A block read in units of 4 KiB."""
    return ("blk_read", -1, page * 8, pages * 8)


def write(page: int, pages: int = 1) -> tuple[Any, ...]:
    return ("blk_write", -1, page * 8, pages * 8)


def send(flow: int, end: int, size: int) -> tuple[Any, ...]:
    return ("send", 2 * flow + end, size, 0)


def recv(flow: int, end: int, size: int, timeout_ns: int = 0) -> tuple[Any, ...]:
    return ("recv", 2 * flow + end, size, timeout_ns)


def forever() -> tuple[Any, ...]:
    """A last operation that outlasts any test, so that a recording is passed once."""
    return sleep(1 << 50)


def spec_of(
    groups: Sequence[Sequence[T]],
    io: IoSpec,
    flows: Sequence[Sequence[FlowSpec]] = (),
    *,
    vcpus: int = 1,
    pcpus: int = 4,
    horizon_ns: int = 1_000 * MS,
    warmup_ns: int = 0,
    vms: int = 0,
    cpu: CpuSpec | None = None,
) -> HostSpec:
    """A host: one VM for each number in `groups`."""
    rows: list[tuple[Any, ...]] = []
    specs = []
    for number, threads in enumerate(groups):
        made = []
        for t in threads:
            made.append(ThreadSpec(t.vm, len(rows), len(rows) + len(t.ops), outside=t.outside))
            rows.extend(t.ops)
        specs.append(GroupSpec(tuple(made), flows=tuple(flows[number]) if flows else ()))
    ops = schema.TABLES["op"].layout.zeros(max(1, len(rows)))
    for op, (name, x, a, b) in zip(ops, rows, strict=False):
        op["op"], op["x"], op["a"], op["b"] = OPS[name], x, a, b
    count = vms or 1 + max(t.vm for threads in groups for t in threads)
    group_of = {t.vm: number for number, threads in enumerate(groups) for t in threads}
    return HostSpec(
        cpu=cpu or CpuSpec(pcpus=pcpus),
        vms=tuple(VmSpec(vcpus=vcpus, group=group_of.get(v, 0)) for v in range(count)),
        groups=tuple(specs),
        ops=ops,
        privileged=no_privileged(),
        horizon_ns=horizon_ns,
        warmup_ns=warmup_ns,
        io=io,
    )


def module_of(axis: str, **hooks: Any) -> types.ModuleType:
    """A policy module made of functions."""
    from hvbench.policy import hookimpl

    module = types.ModuleType(f"test_{axis}")
    module.__file__ = __file__
    for name, function in hooks.items():
        is_hook = name.startswith(("blk_", "net_", "sched_", "hvbench_"))
        setattr(module, name, hookimpl(function) if is_hook else function)
    return module


def chosen(slot: int, name: str, module: Any, **params: Any) -> Chosen:
    """A policy with its default parameters, or others."""
    cls = getattr(module, "Params", None)
    return Chosen(slot, name, module, cls(**params) if cls else None, f"test {name} {sorted(params.items())}")


def plugin(axis: str, name: str) -> types.ModuleType:
    """A bundled policy's module, from this tree."""
    path = Path(__file__).parents[1] / "plugins" / axis / f"{name}.py"
    full = f"tested_{axis}_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, path)
        assert spec is not None and spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


def run(
    spec: HostSpec,
    policies: Sequence[Chosen] = (),
    *,
    interpreted: bool = True,
    check: bool = True,
    step: int = 50,
    watch: Callable[[HostMemory], None] | None = None,
) -> HostMemory:
    """Run a host to its end, looking at the laws every `step` events; the memory is left to be looked at."""
    memory = build(spec)
    bind(memory, list(policies), interpreted=interpreted)
    loop = Loop(memory, interpreted)
    loop.boot()
    while loop.run(step) == 0:
        if check:
            conserved(memory)
        if watch is not None:
            watch(memory)
    error = int(memory.header["error"][0])
    assert error == 0, f"{error}: legal is {LEGAL.get(error)}, answer {memory.header['error_answer'][0]}"
    if check:
        conserved(memory)
    return memory
