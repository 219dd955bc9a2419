"""VMs of a folder of Bitbrains files as a workload: a seeded choice, a window of time, a trace for each.

The files are put in an order drawn from the seed; the first ones that have samples through the whole window are taken.
Each becomes a trace of its own beside the workload, expanded by `hvbench.traces.expand`, and all of them begin at the
same time of day, so that what peaked together does. Guests of the archive have up to hundreds of GiB; where the largest
one would be above `most_bytes`, the memory of all is scaled by one factor, which the traces' metadata and the workload
name.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define

from hvbench import units
from hvbench.errors import UserError
from hvbench.traces.demand import Demand, read_demand
from hvbench.traces.expand import DEFAULT_DONOR, Choice, expand_file
from hvbench.traces.format import PAGE_SIZE, read_trace, write_trace
from hvbench.traces.handle.scale import scale
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings, import_files

Table = dict[str, Any]
MOST_BYTES: Final = 512 << 20
"""model.md: memory workloads have VMs of up to 512 MiB."""
COVERED: Final = 0.95
"""A VM counts as there through the window if its samples cover so much of it."""


@define(frozen=True)
class Wanted:
    """Which VMs, when, and how they become traces."""

    folder: Path
    vms: int
    window_ns: int
    from_ns: int = 0
    seed: int = 1
    donor: str = DEFAULT_DONOR
    most_bytes: int = MOST_BYTES
    licence: str = ""
    attribution: str = ""


def draw(wanted: Wanted, traces: Path, say: Callable[[str], None]) -> tuple[list[Table], list[str]]:
    """Make the traces in the folder `traces`; the `[[vm]]` tables and what is to be said of them. Raises UserError."""
    files = sorted(path for path in wanted.folder.glob("*.csv*") if path.is_file())
    if not files:
        raise UserError(f"{wanted.folder}: holds no *.csv; --from-bitbrains wants a folder with a file a VM")
    files.sort(key=lambda path: hashlib.blake2b(f"{wanted.seed}:{path.name}".encode(), digest_size=8).digest())
    traces.mkdir(exist_ok=True)
    try:
        return _draw(wanted, files, traces, say)
    except BaseException:
        with contextlib.suppress(OSError):
            traces.rmdir()  # if nothing was in it before
        raise


def _draw(wanted: Wanted, files: list[Path], traces: Path, say: Callable[[str], None]) -> tuple[list[Table], list[str]]:
    with tempfile.TemporaryDirectory(prefix=".demand.", dir=traces) as scratch:
        table = Path(scratch) / "demand.parquet"
        demand, chosen = _choose(wanted, files, table)
        made: list[tuple[Table, Path, int, int]] = []
        for number in chosen:
            say(f"VM {len(made) + 1} of {len(chosen)}")
            made.append(_expanded(wanted, demand, number, Path(scratch)))
        factor = _factor(wanted, made)
        tables = []
        for about_vm, temporary, provisioned, cores in made:
            name = f"vm-{about_vm['name']}".lower()
            path = traces / f"{name}.parquet"
            trace = read_trace(temporary)
            if factor != 1 and "memory" not in trace.meta.get("silent", []):
                trace = scale(trace, memory=factor)
            write_trace(path, {**trace.meta, "name": name}, trace.columns)
            memory = max(64 << 20, math.ceil(provisioned * factor / (1 << 20)) << 20)
            tables.append(
                {
                    "name": name,
                    "vcpus": cores,
                    "memory": units.format_size(memory),
                    "trace": str(path),
                    "image": "",
                    "start": "0s",
                }
            )
    about = [
        f"{len(tables)} VMs drawn with seed {wanted.seed}; {units.format_duration(wanted.window_ns)} from "
        f"{units.format_duration(wanted.from_ns)} on; averages expanded with the rhythm of {wanted.donor}."
    ]
    if factor != 1:
        about.append(f"Memory of all VMs is scaled by {float(factor):.4g}.")
    return tables, about


def _choose(wanted: Wanted, files: list[Path], table: Path) -> tuple[Demand, list[int]]:
    """Read as many files as it takes to find enough VMs that are there through the window."""
    formats = load_formats()
    taken = min(len(files), wanted.vms + 2)
    while True:
        # every clock of these files is the time of day: they join by themselves
        settings = Settings(keep_names=True, licence=wanted.licence, attribution=wanted.attribution)
        import_files(formats.by_name["bitbrains"], tuple(files[:taken]), table, settings)
        demand = read_demand(table)
        chosen = [vm for vm in range(len(demand.meta["vms"])) if _covers(demand, vm, wanted)]
        if len(chosen) >= wanted.vms:
            return demand, chosen[: wanted.vms]
        if taken == len(files):
            raise UserError(
                f"{wanted.folder}: {len(chosen)} of {taken} VMs have samples through the "
                f"{units.format_duration(wanted.window_ns)} from {units.format_duration(wanted.from_ns)} on; "
                f"{wanted.vms} were asked for"
            )
        taken = min(len(files), 2 * taken)


def _covers(demand: Demand, vm: int, wanted: Wanted) -> bool:
    rows = demand.of(vm)
    end = wanted.from_ns + wanted.window_ns
    inside = (rows["time_ns"] >= wanted.from_ns) & (rows["time_ns"] + rows["duration_ns"] <= end)
    return bool(rows["duration_ns"][inside].sum() >= COVERED * wanted.window_ns and (rows["cpu_ns"][inside] > 0).any())


def _expanded(wanted: Wanted, demand: Demand, vm: int, scratch: Path) -> tuple[Table, Path, int, int]:
    """One VM's trace; with its description, its provisioned memory in bytes and its cores."""
    about = demand.meta["vms"][vm]
    choice = Choice(
        donor=wanted.donor,
        seed=wanted.seed,
        vms=(str(about["name"]),),
        from_ns=wanted.from_ns,
        to_ns=wanted.from_ns + wanted.window_ns,
    )
    path = scratch / f"{vm}.parquet"
    expand_file(demand.path, path, choice)
    rows = demand.of(vm)
    inside = (rows["time_ns"] >= wanted.from_ns) & (rows["time_ns"] < wanted.from_ns + wanted.window_ns)
    pages = max(int(rows["provisioned_pages"][inside].max()), int(rows["memory_pages"][inside].max()), 0)
    return about, path, pages * PAGE_SIZE, max(1, int(np.max(rows["cores"][inside])))


def _factor(wanted: Wanted, made: list[tuple[Table, Path, int, int]]) -> Fraction:
    """What the memory of all is multiplied by, such that the largest is within the limit."""
    largest = max(provisioned for _, _, provisioned, _ in made)
    return (
        Fraction(1) if largest <= wanted.most_bytes else Fraction(wanted.most_bytes, largest).limit_denominator(10_000)
    )
