"""Demand tables that an import of averages made: to expand them (again, or with another donor).

    hvbench import bitbrains 1.csv -o vm.demand.parquet
    hvbench import demand vm.demand.parquet --expand --donor cc-build --to 2h -o vm.parquet

The file is Parquet; what its columns mean stands in `hvbench.traces.demand`. It is read from disk as it is, not
compressed again and not out of an archive.
"""

from __future__ import annotations

from collections.abc import Iterator

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.demand import read_demand
from hvbench.traces.importers.api import Batch, Format, Head, Import


def read(job: Import) -> Iterator[Batch]:
    for source in job.sources():
        if source.member or source.head(4) != b"PAR1":
            raise UserError(f"{source.name}: not a demand table; unpack it first, or import what it was made of")
        demand = read_demand(source.path)
        before = len(job.meta.setdefault("vms", []))
        job.meta["vms"].extend(demand.meta["vms"])
        for name in ("licence", "attribution"):
            if demand.meta.get(name):
                job.meta[name] = demand.meta[name]
        job.notes.extend(demand.meta.get("degraded", []))
        columns = dict(demand.columns)
        columns["vm"] = columns["vm"] + before
        clock = job.clock(source)
        columns["time_ns"] = columns["time_ns"] + (clock.offset_ns if clock.start_ns is None else clock.start_ns)
        yield columns


def sniff(head: Head) -> float:
    return 0.6 if head.data.startswith(b"PAR1") else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="demand",
        summary="demand tables, to expand",
        read=read,
        sniff=sniff,
        extensions=(".parquet",),
        makes="demand",
        replay="open",
    )
