"""Bitbrains and Grid Workloads Archive CSV (GWA-T-12 and its like): a file a VM, a line every 300 s.

    Timestamp [ms]; CPU cores; CPU capacity provisioned [MHZ]; CPU usage [MHZ]; CPU usage [%];
    Memory capacity provisioned [KB]; Memory usage [KB]; Disk read throughput [KB/s]; Disk write throughput [KB/s];
    Network received throughput [KB/s]; Network transmitted throughput [KB/s]        (`;` and a tab between them)

Columns are found by their titles, so that sets with more of them (Materna) are read too; what is not there is silent.
Values are means over the interval. The CPU time of an interval is `usage [%]` of all cores times its duration.

Traps, all counted and said: times titled [ms] are seconds (told by their size: 10^11 ms is the year 1973, 10^11 s the
year 5138); stamps occur twice; gaps; more memory in use than provisioned; cores and capacity that change; usage above
100 %. Memory usage is what the hypervisor saw as active. Throughputs of disks are those of the virtual disk, below
the guest's page cache. Source: the archive's page of GWA-T-12; S. Shen, V. van Beek, A. Iosup, CCGrid 2015.

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.demand import SILENT, add_vm, intervals, note_dirt
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.delimited import Column, Table
from hvbench.traces.importers.sources import Source

#: Words of a title -> column, and what it counts.
TITLES: Final = (
    (("timestamp",), "time"),
    (("cpu cores",), "cores"),
    (("cpu usage", "%"), "cpu"),
    (("memory capacity provisioned",), "provisioned"),
    (("memory usage", "kb"), "memory"),
    (("disk read",), "read"),
    (("disk write",), "written"),
    (("network received",), "received"),
    (("network transmitted",), "sent"),
)
KIB: Final = 1024
SECONDS_BELOW: Final = 10**11
"""A time below that counts seconds, one above milliseconds."""


@attrs.frozen
class Options:
    interval_ns: int = option(
        0, unit="ns", help="how long a sample holds (default: the median distance)", metavar="TIME"
    )


def _columns(header: bytes, where: str) -> tuple[list[Column], dict[str, str]]:
    """How to read the lines under a header, and which column is what."""
    titles = [title.strip().lower() for title in header.decode("utf-8", "replace").rstrip("\r\n").split(";")]
    names: dict[str, str] = {}
    columns = []
    for number, title in enumerate(titles):
        name = next((name for words, name in TITLES if name not in names and all(word in title for word in words)), "")
        if name:
            names[name] = title
            kind = "int" if name == "time" else "float"
            columns.append(Column(name, kind, title))
        else:
            columns.append(Column(f"-{number}", "text", title))
    missing = [name for name in ("time", "cores", "cpu") if name not in names]
    if missing:
        raise UserError(
            f"{where}:1: expected a header with Timestamp, CPU cores and CPU usage [%], found "
            f"{bytes(header[:80]).decode('utf-8', 'replace')!r}"
        )
    return columns, names


def read(job: Import) -> Iterator[Batch]:
    for source in job.sources():
        yield from _read_vm(job, source)


def _read_vm(job: Import, source: Source) -> Iterator[Batch]:
    """A file: one VM. All of its samples are held at once (26,000 in the longest known)."""
    head = source.head()
    header = head[: head.find(b"\n") + 1]
    columns, names = _columns(header, source.name)
    table = Table(columns, ";", is_header=lambda line, number: number == 1)
    parts = []
    for lines in source.blocks():
        made, _ = table.parse(job, source, lines)
        parts.append(made)
    whole: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in names}
    stem = (source.member or source.path.name).rpartition("/")[2].partition(".")[0]
    if not len(whole["time"]):
        job.note(f"{source.name}: no samples: left out")
        return
    seconds = int(whole["time"].max()) < SECONDS_BELOW
    if seconds and "[ms]" in names["time"]:
        job.note("times titled [ms] are seconds, by their size: read as seconds")
    # the offset is one of the file; what runs backwards is sorted below, VM by VM, and not by the clock's rule
    clock = job.clock(source, "realtime")
    time = whole["time"] * (10**9 if seconds else 10**6)
    first = clock.fix(time[:1])
    time = time + int(first[0] - time[0])
    cores = np.maximum(whole["cores"], 0).astype(np.int64)
    rates = {"cpu_ns": whole["cpu"] / 100 * cores * 1e9}
    for name, column in (("read", "read_bytes"), ("written", "written_bytes"), ("received", "received_bytes"),
                         ("sent", "sent_bytes")):  # fmt: skip
        if name in names:
            rates[column] = whole[name] * KIB
    gauges = {"cores": cores}
    for name, column in (("memory", "memory_pages"), ("provisioned", "provisioned_pages")):
        if name in names:
            pages = np.rint(whole[name] * KIB / 4096)
            gauges[column] = np.where(np.isfinite(pages) & (pages >= 0), pages, SILENT)
    vm = add_vm(job, stem, cores=int(cores.max()))
    batch, dirt = intervals(vm, time, job.options.interval_ns, rates, gauges)
    note_dirt(job, dirt)
    if batch:
        yield batch


def sniff(head: Head) -> float:
    first = head.lines(1)[0].lower() if head.is_text and head.data else b""
    return 1.0 if first.startswith(b"timestamp") and b"cpu cores" in first and b"cpu usage [%]" in first else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="bitbrains",
        summary="Bitbrains / GWA CSV of VMs, averages over 300 s",
        read=read,
        sniff=sniff,
        extensions=(".csv",),
        options=Options,
        clock="realtime",
        makes="demand",
        replay="open",
    )
