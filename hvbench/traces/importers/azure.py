"""Azure's public VM traces, V1 (2017) and V2 (2019): `vmtable` and CPU readings.

    hvbench import azure vmtable.csv.gz vm_cpu_readings-file-*.csv.gz --first-vms 100 -o azure.demand.parquet

Without headers, by commas: a reading is `SECONDS,VM,MINIMUM,MAXIMUM,AVERAGE` (CPU in % of the VM's cores, over 300 s);
a line of vmtable is `VM,SUBSCRIPTION,DEPLOYMENT,CREATED,DELETED,MAXIMUM,AVERAGE,P95,CATEGORY,CORES,MEMORY` (s, %, GB).
Both may be given in one import: name vmtable first, as cores and provisioned memory come from it; a VM that is not in
it gets 1 core, and that is counted. V2 gives ranges, such as `>24`: the lower end is taken, and said. A table of VMs in
columns, `interval,VM,VM…` and a line of averages each 300 s, is read too.

The average counts; `--value max` takes the maximum, for those who size by peaks. `--first-vms N` reads the first N VMs
only (the whole set has two millions). Silent: memory in use, storage, network. Traps: times count from the first day;
readings are sorted by time, with all VMs at each; stamps occur twice. Source: AzurePublicDataset, descriptions of V1
and V2; E. Cortez and others, Resource Central, SOSP 2017.

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.delimited import Column, Table
from hvbench.traces.importers.readings import PAGE, SECOND, Readings
from hvbench.traces.importers.sources import Source

READING: Final = Table(
    [Column("time", "int", "time in s"), Column("vm", "text"), Column("min", "float", "minimum in %"),
     Column("max", "float", "maximum in %"), Column("avg", "float", "average in %")],
    is_header=lambda line, number: number == 1 and line[:1].isalpha() and b"time" in line.lower(),
)  # fmt: skip
VMTABLE: Final = Table(
    [Column("vm", "text"), Column("-subscription", "text"), Column("-deployment", "text"),
     Column("-created", "text"), Column("-deleted", "text"), Column("-max", "text"), Column("-avg", "text"),
     Column("-p95", "text"), Column("-category", "text"), Column("cores", "text"), Column("memory", "text")],
    is_header=lambda line, number: number == 1 and line.lower().startswith((b"vmid,", b"vm id,", b"vm_id,")),
)  # fmt: skip
INTERVAL_NS: Final = 300 * SECOND
GB: Final = 1 << 30


@attrs.frozen
class Options:
    value: str = option("avg", legal=("avg", "max", "min"), help="which of a reading's values is the demand")
    first_vms: int = option(0, help="only the first N VMs (0: all)", metavar="N")


@define
class Azure:
    job: Import
    readings: Readings
    cores: dict[str, int] = field(factory=dict)
    pages: dict[str, int] = field(factory=dict)
    unlisted: int = 0
    ranges: bool = False
    of: Any = None
    """Of each VM number: cores, provisioned pages."""

    def vmtable(self, source: Source) -> None:
        for lines in source.blocks():
            made, numbers = VMTABLE.parse(self.job, source, lines)
            for row, number in enumerate(numbers.tolist()):
                cores, memory = _least(made["cores"][row]), _least(made["memory"][row])
                if cores is None or memory is None or cores < 1:
                    self.job.bad_line(source, lines, number, "cores and GB of memory in the last two columns")
                    continue
                self.ranges |= not (made["cores"][row][:1].isdigit() and made["memory"][row][:1].isdigit())
                self.cores[made["vm"][row]] = int(cores)
                self.pages[made["vm"][row]] = int(memory * GB) // PAGE

    def number(self, name: str) -> int:
        known = self.readings.numbers.get(name)
        if known is not None:
            return known
        cores = self.cores.get(name)
        number = self.readings.vm(name, cores=cores or 1)
        if number >= 0 and cores is None:
            self.unlisted += 1
        if number >= 0:
            self.of.append((cores or 1, self.pages.get(name, -1)))
        return number

    def batch(self, vm: Any, time: Any, percent: Any) -> Batch:
        of = np.array(self.of or [(1, -1)], np.int64)[np.maximum(vm, 0)]
        return self.readings.batch(
            vm, time, np.full(len(vm), INTERVAL_NS), cpu_ns=percent / 100 * of[:, 0] * INTERVAL_NS, cores=of[:, 0],
            provisioned_pages=of[:, 1],
        )  # fmt: skip

    def lines(self, source: Source) -> Iterator[Batch]:
        """Readings, a VM and a time a line."""
        clock = self.job.clock(source)
        for lines in source.blocks():
            made, numbers = READING.parse(self.job, source, lines)
            if not len(numbers):
                continue
            vm = np.array([self.number(name) for name in made["vm"].tolist()], np.int64)
            time = clock.fix(made["time"] * SECOND)
            yield self.batch(vm, time, made[self.job.options.value])

    def wide(self, source: Source) -> Iterator[Batch]:
        """A VM a column, a time a line."""
        names = source.head().split(b"\n", 1)[0].decode("utf-8", "replace").strip().split(",")[1:]
        if len(set(names)) != len(names):
            raise UserError(f"{source.name}:1: a VM stands there twice")
        table = Table(
            [Column("interval", "int"), *(Column(f"vm {name}", "float") for name in names)],
            is_header=lambda line, number: number == 1,
        )
        vm = np.array([self.number(name) for name in names], np.int64)
        clock = self.job.clock(source)
        for lines in source.blocks():
            made, numbers = table.parse(self.job, source, lines)
            if not len(numbers):
                continue
            time = clock.fix(made["interval"] * INTERVAL_NS)
            values = np.stack([made[f"vm {name}"] for name in names], axis=1)
            yield self.batch(np.tile(vm, len(time)), np.repeat(time, len(vm)), values.reshape(-1))


def _least(text: str) -> float | None:
    """A number, or the lower end of a range such as `>24` or `2-4`."""
    match = re.fullmatch(r"\s*>?\s*(\d+(?:\.\d+)?)(?:\s*-\s*\d+(?:\.\d+)?)?\s*", text)
    return float(match[1]) if match else None


def _kind(first: bytes) -> str:
    """What a file is, by its first line."""
    if first.lower().startswith(b"interval,"):
        return "wide"
    columns = first.count(b",") + 1
    return {5: "readings", 11: "vmtable"}.get(columns, "")


def read(job: Import) -> Iterator[Batch]:
    azure = Azure(job, Readings(job, job.options.first_vms), of=[])
    for source in job.sources():
        first = source.head().split(b"\n", 1)[0]
        kind = _kind(first)
        if not kind:
            raise UserError(
                f"{source.name}:1: expected a reading (5 columns), a line of vmtable (11) or `interval,VM,…`, found "
                f"{first[:80].decode('utf-8', 'replace')!r}"
            )
        if kind == "vmtable":
            if azure.readings.numbers:
                raise UserError(f"{source.name}: vmtable has to be named before the readings: it says how many cores")
            azure.vmtable(source)
        else:
            yield from azure.wide(source) if kind == "wide" else azure.lines(source)
    if azure.cores and not azure.readings.numbers:
        raise UserError(
            f"{source.name}: a vmtable alone has no demand; name the readings after it: "
            "`hvbench import azure vmtable.csv.gz vm_cpu_readings-file-1-of-125.csv.gz -o NEW.demand.parquet`"
        )
    if azure.unlisted:
        who = "1 VM is" if azure.unlisted == 1 else f"{azure.unlisted} VMs are"
        job.note(f"{who} in no vmtable: 1 core each, memory silent")
    if azure.ranges:
        job.note("cores or memory are ranges (V2): the lower end is taken")
    job.meta.setdefault("vms", [])


def sniff(head: Head) -> float:
    lines = [line.split(b",") for line in head.lines(10) if line] if head.is_text else []
    if not lines:
        return 0.0
    kind = _kind(b",".join(lines[0]))
    if kind == "vmtable":
        return 0.7 if all(len(line) == 11 and len(line[0]) > 20 for line in lines[1:] or lines) else 0.0
    if kind == "readings":
        plain = all(len(x) == 5 and x[0].isdigit() and len(x[1]) > 20 for x in lines[1:] or lines)
        return 0.8 if plain else 0.0
    return 0.6 if kind == "wide" and all(name.isdigit() for name in lines[0][1:3]) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="azure",
        summary="Azure's VM traces V1 and V2: vmtable, CPU readings",
        read=read,
        sniff=sniff,
        extensions=(".csv",),
        options=Options,
        makes="demand",
        replay="open",
    )
