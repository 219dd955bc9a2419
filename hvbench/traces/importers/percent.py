"""Files of percentages, a VM each, a line each 300 s: PlanetLab's and GCD's, as CloudSim and its kin read them.

    hvbench import planetlab planetlab-10days.tar.xz -o planetlab.demand.parquet
    hvbench import gcd GCD_VMs.tar.gz --memory 16GiB -o gcd.demand.parquet

- `planetlab`: one whole number a line, CPU in % (CoMon's data of PlanetLab's slivers, 288 lines a day);
- `gcd`: `CPU% MEMORY%` a line, of Google's cluster data of 2011: a job's tasks added up.

The file's name is the VM's. A percentage is of `--cores` (1: neither set says what it is of); memory is of what
`--memory` says, and silent without. `--interval` is the distance of lines (300 s, by the sets' descriptions). Values
above 100 % of the memory are cut to it, those of the CPU kept as demand. The files have no times: all begin together.

Traps: PlanetLab's slivers are containers, GCD's "VMs" are jobs; a day's folder in PlanetLab's archive is part of the
VM's name. Sources: K. Park, V. Pai, CoMon (2006); A. Beloglazov, planetlab-workload-traces; HiPro-IT, CPU and memory
resource usage from Google cluster data.

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.demand import MOST_CORES, add_vm, note_dirt
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.delimited import Column, Table
from hvbench.traces.importers.readings import PAGE, whole_series
from hvbench.traces.importers.sources import Lines, Source

INTERVAL_NS: Final = 300_000_000_000


@attrs.frozen
class Options:
    cores: int = option(1, help="cores that 100 % are of", metavar="N")
    interval_ns: int = option(INTERVAL_NS, unit="ns", help="how far lines are apart", metavar="TIME")


@attrs.frozen
class GcdOptions(Options):
    memory_bytes: int = option(0, unit="bytes", help="memory that 100 % are of (without: silent)", metavar="SIZE")


_PLANETLAB: Final = Table([Column("cpu", "int", "CPU in %")], " ", is_header=lambda line, number: False)
_GCD: Final = Table(
    [Column("cpu", "float", "CPU in %"), Column("memory", "float", "memory in %")],
    " ",
    is_header=lambda line, number: False,
)


def read(job: Import, table: Table) -> Iterator[Batch]:
    options = job.options
    if not 1 <= options.cores <= MOST_CORES:
        raise UserError(f"--cores {options.cores}: has to be 1 to {MOST_CORES}")
    if options.interval_ns < 1:
        raise UserError("--interval: has to be more than 0")
    if not getattr(options, "memory_bytes", 1):
        job.unsaid["memory"] = "--memory SIZE says what 100 % of it are"
    for source in job.sources():
        yield from _read_vm(job, source, table)
    job.note(f"times are not in the files: lines are {options.interval_ns / 1e9:g} s apart, all files begin together")


def _read_vm(job: Import, source: Source, table: Table) -> Iterator[Batch]:
    options = job.options
    parts = [_plain(table, lines) or table.parse(job, source, lines)[0] for lines in source.blocks()]
    start = int(job.clock(source).fix(np.zeros(1, np.int64))[0])
    if not parts or not sum(len(part["cpu"]) for part in parts):
        job.note(f"{source.name}: no values: left out")
        return
    cpu = np.concatenate([part["cpu"] for part in parts])
    name = source.member or source.path.name
    vm = add_vm(job, name, cores=options.cores)
    columns: dict[str, Any] = {
        "cpu_ns": cpu / 100 * options.cores * options.interval_ns,
        "cores": np.full(len(cpu), options.cores),
    }
    above = int((cpu > 100).sum())
    if above:
        note_dirt(job, {"cpu_above_cores": above})
    memory = getattr(options, "memory_bytes", 0)
    if memory and "memory" in parts[0]:
        used = np.concatenate([part["memory"] for part in parts])
        over = int((used > 100).sum())
        if over:
            note_dirt(job, {"memory_above_provision": over})
        columns["memory_pages"] = np.minimum(used, 100) / 100 * memory / PAGE
        columns["provisioned_pages"] = np.full(len(cpu), memory // PAGE)
    yield whole_series(vm, start, options.interval_ns, **columns)


def _plain(table: Table, lines: Lines) -> dict[str, Any] | None:
    """The values of a file as they should be; None for any other. A day is 288 lines: a reader's start costs more."""
    words = lines.data.split()
    width = len(table.columns)
    if len(words) != lines.data.count(b"\n") * width or (width == 1 and not b"".join(words).isdigit()):
        return None
    try:
        values = np.array(words).astype(np.float64)
    except ValueError:
        return None
    if not np.isfinite(values).all() or any(len(line.split()) != width for line in lines.split()):
        return None
    return {column.name: values[i::width] for i, column in enumerate(table.columns)}


def _sniff_planetlab(head: Head) -> float:
    lines = [line for line in head.lines(30) if line] if head.is_text else []
    return 0.3 if len(lines) > 2 and all(line.isdigit() and int(line) <= 100 for line in lines) else 0.0


def _sniff_gcd(head: Head) -> float:
    lines = [line.split() for line in head.lines(30) if line] if head.is_text else []
    try:
        fits = len(lines) > 2 and all(len(line) == 2 and all(0 <= float(x) <= 200 for x in line) for line in lines)
    except ValueError:
        return 0.0
    return 0.3 if fits else 0.0


@hookimpl
def hvbench_import_format() -> tuple[Format, ...]:
    planetlab = Format(
        name="planetlab",
        summary="PlanetLab: CPU in %, a file a VM",
        read=partial(read, table=_PLANETLAB),
        sniff=_sniff_planetlab,
        options=Options,
        makes="demand",
        replay="open",
    )
    return planetlab, attrs.evolve(
        planetlab,
        name="gcd",
        summary="GCD (Google cluster data): CPU and memory in %, a file a VM",
        read=partial(read, table=_GCD),
        sniff=_sniff_gcd,
        options=GcdOptions,
    )
