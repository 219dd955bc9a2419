"""Workloads written from a few words: what `hvbench workload new` makes.

What the words leave open is chosen so that the workload runs at once, by rules that stand here:

- **memory** of a VM: what its trace touches, files included, a quarter more, whole 64 MiB, 256 MiB at least;
- **vcpus**: as many as its trace computes on at once in the mean, rounded up;
- **host**: 4 pCPUs, and the memory of all VMs and the hypervisor's reserve, whole GiB;
- **replay**: what the traces say (`replay` in their metadata), closed where they say nothing;
- **warm-up**: one pass of the longest trace, as model.md has it, at least 1 s; **horizon**: three times that. Traces
  of averages are run through once instead: the horizon is the longest span, a tenth of it warm-up.
- **class**: "memory" from a horizon of a minute on, else "micro".
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from hvbench import units
from hvbench.errors import UserError
from hvbench.traces.check import open_trace, require_valid
from hvbench.traces.format import PAGE_SIZE, Trace
from hvbench.traces.info import trace_info
from hvbench.whole import written_whole
from hvbench.words import plural
from hvbench.workload import Workload, find_trace, parse_workload

Table = dict[str, Any]

SECOND: Final = 1_000_000_000
MIB: Final = 1 << 20
PCPUS: Final = 4
LEAST_MEMORY: Final = 256 * MIB
MEMORY_STEP: Final = 64 * MIB
MEMORY_CLASS_NS: Final = 60 * SECOND
MOST_MEMORY: Final = 16 << 40
"""Choice of this project: each page of it is a row of the host's tables."""
RESERVE: Final = 0.1
"""Of the host's memory, more than the hypervisor keeps by default."""


@define
class Draft:
    """A workload in the making; `settings`, `host` and each of `vms` are TOML tables without what is to be chosen."""

    name: str
    path: Path
    settings: Table = field(factory=dict)
    host: Table = field(factory=dict)
    vms: list[Table] = field(factory=list)
    about: list[str] = field(factory=list)
    """Lines for the head of the file."""


def settings_of(text: str, option: str) -> Table:
    """`pcpus=4,memory=4GiB,nic.bandwidth=1Gbit/s` as a TOML table; a value may be a list: `affinity=[0,1]`."""
    made: Table = {}
    for piece in re.split(r",(?![^\[]*\])", text) if text else []:
        key, equals, value = piece.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise UserError(f"{option}: {piece!r} has to be KEY=VALUE, such as memory=2GiB")
        table = made
        *above, last = key.strip().split(".")
        for name in above:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UserError(f"{option}: {key} stands in {name}, which is a value")
        if last in table:
            raise UserError(f"{option}: {key} is given twice")
        table[last] = _value(value.strip())
    return made


def _value(text: str) -> Any:
    """A number, a truth value or a list as such, all else as a text."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, int | float | list | str) else text


def vm_of(text: str) -> Table:
    """`TRACE[:KEY=VALUE,...]` as a `[[vm]]` table."""
    trace, _, rest = text.partition(":")
    if not trace:
        raise UserError(f"--vm {text}: has to be TRACE[:KEY=VALUE,...], such as cc-build:vcpus=2,memory=512MiB")
    made = {**settings_of(rest, f"--vm {text}"), "trace": trace}
    count = made.get("count", 1)
    if isinstance(count, int) and count < 1:
        raise UserError(f"--vm {text}: count is {count}; legal: 1 and more, or leave the --vm out")
    return made


def complete(draft: Draft) -> str:
    """The draft's TOML, with all that it leaves open chosen. Raises UserError where it cannot run."""
    found = [_trace(vm["trace"]) for vm in draft.vms]
    vms: list[Table] = []
    for number, (vm, (path, trace)) in enumerate(zip(draft.vms, found, strict=True)):
        tiers = [str(tier) for tier in trace.meta["tiers"]]
        if path.parent.name != "traces" or "/" in vm["trace"] or vm["trace"].endswith(".parquet"):
            vm = {**vm, "trace": _relative(path, draft.path)}
        if len(tiers) < 2 or "tier" in vm:
            vms.append(_filled(vm, trace, vm.get("tier", "")))
            continue
        # recorded together: a VM for each tier, and they talk to each other
        stem = vm.get("name")
        for tier in tiers:
            name = f"{stem}-{tier}" if stem else tier
            made = {**vm, "name": _name(name), "tier": tier, "instance": f"group-{number}"}
            vms.append(_filled(made, trace, tier))
    _number(vms)
    settings = {"name": draft.name, **_times([trace for _, trace in found]), **draft.settings}
    settings.setdefault("summary", plural(sum(vm.get("count", 1) for vm in vms), "VM"))
    host = dict(draft.host)
    host.setdefault("pcpus", PCPUS)
    if "memory" not in host:
        wanted = sum(vm.get("count", 1) * int(units.parse_value(vm["memory"], "bytes")) for vm in vms)
        host["memory"] = f"{math.ceil(wanted / (1 - RESERVE) / 2**30)}GiB"
    text = "".join(f"# {line}\n" for line in draft.about) + "format = 1\n\n"
    text += "\n".join(
        [_toml("[workload]", settings), _toml("[host]", host), *(_toml("[[vm]]", vm, "vm") for vm in vms)]
    )
    _check_memory(parse_workload(text, draft.path))  # says what is wrong with it, by its path in the file
    return text


def _check_memory(made: Workload) -> None:
    """UserError for memory that nobody has, and for a VM that the host could not hold with nothing beside it."""
    of_vms = [(f"VM {vm.name}", vm.spec.memory_pages) for vm in made.vms]
    for where, pages in [*of_vms, ("host", made.host.memory_pages)]:
        if pages * PAGE_SIZE > MOST_MEMORY:
            raise UserError(
                f"memory of {where}: {units.format_pages(pages)} is more than can be simulated; "
                f"legal: up to {units.format_size(MOST_MEMORY)}"
            )
    largest = max(made.vms, key=lambda vm: vm.spec.memory_pages)
    if largest.spec.memory_pages > made.host.memory_pages:
        raise UserError(
            f"host.memory: {units.format_pages(made.host.memory_pages)} is less than VM {largest.name} alone has, "
            f"{units.format_pages(largest.spec.memory_pages)}: it could not start; give the host more or the VM less"
        )


def overcommit(made: Workload) -> str:
    """A sentence where the VMs have more memory than the host gives them; "" else."""
    wanted = sum(vm.spec.memory_pages for vm in made.vms)
    given = int(made.host.memory_pages * (1 - made.host.reserve_share))
    if wanted <= given:
        return ""
    return (
        f"the VMs have {units.format_size(wanted * PAGE_SIZE >> 20 << 20)}, {wanted / given:.2f} times what the host "
        "leaves them: memory policies that do not overcommit, such as static, refuse some of them"
    )


def write(draft: Draft, overwrite: bool = False) -> None:
    """Write the workload; never half of it, and never over another one without being told to."""
    if not draft.path.parent.is_dir():
        raise UserError(f"{draft.path}: the folder {draft.path.parent} does not exist")
    if draft.path.exists() and not overwrite:
        raise UserError(f"{draft.path}: is there already; give --force, or another name")
    text = complete(draft)
    with written_whole(draft.path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _trace(name: str) -> tuple[Path, Trace]:
    path = find_trace(name, Path.cwd())
    trace = open_trace(path)
    require_valid(trace)
    if trace.is_base_image:
        raise UserError(f"{path}: a base image, which no VM can do; write image={name} behind another trace")
    return path, trace


def _relative(trace: Path, workload: Path) -> str:
    relative = os.path.relpath(trace, workload.resolve().parent)
    return relative if "/" in relative else f"./{relative}"


def _name(text: str) -> str:
    """A name as workloads want it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "vm"


def _filled(vm: Table, trace: Trace, tier: str) -> Table:
    """A `[[vm]]` table with name, vCPUs and memory chosen."""
    info = trace_info(trace)
    share = max(1, len(trace.meta["tiers"])) if tier else 1
    pages = (info.anon_peak_pages + info.file_pages_touched) / share
    memory = max(LEAST_MEMORY, math.ceil(pages * PAGE_SIZE * 1.25 / MEMORY_STEP) * MEMORY_STEP)
    made = {"name": _name(Path(vm["trace"]).stem), **vm}
    made.setdefault("vcpus", max(1, math.ceil(info.compute_share / share)))
    made.setdefault("memory", units.format_size(memory))
    return made


def _number(vms: list[Table]) -> None:
    """Different names for different tables."""
    taken: set[str] = set()
    for vm in vms:
        name, number = vm["name"], 2
        while vm["name"] in taken:
            vm["name"], number = f"{name}-{number}", number + 1
        taken.add(vm["name"])


def _times(traces: list[Trace]) -> Table:
    """Replay, class, warm-up and horizon by the traces."""
    modes = {str(trace.meta.get("replay", "closed")) for trace in traces}
    if len(modes) > 1:
        names = ", ".join(f"{trace.name} {trace.meta.get('replay', 'closed')}" for trace in traces)
        raise UserError(f"traces of closed-loop and of open-loop replay cannot stand in one workload: {names}")
    span = max(int(trace.meta["span_ns"]) for trace in traces)
    if all("expanded" in trace.meta for trace in traces):
        horizon = math.ceil(span / SECOND) * SECOND
        warmup = horizon // 10
    else:
        warmup = max(1, math.ceil(span / SECOND)) * SECOND
        horizon = 3 * warmup
    return {
        "class": "memory" if horizon >= MEMORY_CLASS_NS else "micro",
        "horizon": units.format_duration(horizon),
        "warmup": units.format_duration(warmup),
        "replay": modes.pop(),
    }


_FIRST: Final = ("name", "count", "vcpus", "memory", "trace")


def _toml(head: str, table: Table, inner: str = "") -> str:
    """One table and those in it."""
    inner = inner or head.strip("[]")
    keys = sorted(table, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    lines = [head] + [f"{key} = {_literal(table[key])}" for key in keys if not isinstance(table[key], dict)]
    text = "\n".join(lines) + "\n"
    return text + "".join(_toml(f"[{inner}.{key}]", table[key]) for key in keys if isinstance(table[key], dict))


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    escaped = "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped)
    return f'"{escaped}"'
