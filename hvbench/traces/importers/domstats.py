"""`virsh domstats` in series: snapshots of a host's domains, one after the other.

    while sleep 5; do date +%s.%N; virsh domstats; done > series.txt

A snapshot is a line `Domain: 'NAME'` for each domain and lines `key=value` under it; it ends where a domain comes
again. Its time is the line before it: seconds (of `date +%s.%N`, or as a comment `# 1703555715.2`); without such
lines `--interval` says how far snapshots are apart. Counters are cumulative: an interval is the difference of two
snapshots, exactly; a counter that falls (the domain was restarted) makes its interval silent. Read: cpu.time or, if
all are there, the sum of vcpu.N.time (ns), balloon.current, unused and maximum (KiB), block.N.rd and wr (bytes,
reqs), net.N.rx and tx (bytes, as the guest sees them: libvirt swaps the counters of the host's tap device).

The CSV that a sampler of QEMU keeps, with a header `t_s,vm,cpu_ns,…` and cumulative columns, is read too.

Traps: a single snapshot says nothing of time; balloon.last-update is of the guest's statistics, not of the snapshot;
cpu.time includes the emulator's threads. Source: virsh(1), domstats; libvirt, virDomainListGetStats.

The result is a demand table; `--expand` makes a trace of it.
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
from hvbench.traces.demand import COLUMNS, SILENT, add_vm
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.delimited import Column, Table
from hvbench.traces.importers.sources import Lines, Source

_DOMAIN: Final = re.compile(rb"Domain: '(.*)'")
_VALUE: Final = re.compile(rb"([a-z][\w.-]*)=(.*)")
_TIME: Final = re.compile(rb"(?:#\s*)?(\d{1,12})(?:\.(\d{1,9}))?")
_BATCH: Final = 4096
#: Counter of the table -> keys of domstats that are summed (N is any number).
COUNTERS: Final = {
    "read_bytes": r"block\.\d+\.rd\.bytes", "written_bytes": r"block\.\d+\.wr\.bytes", "reads": r"block\.\d+\.rd\.reqs",
    "writes": r"block\.\d+\.wr\.reqs", "received_bytes": r"net\.\d+\.rx\.bytes", "sent_bytes": r"net\.\d+\.tx\.bytes",
}  # fmt: skip
_PATTERNS: Final = {name: re.compile(text) for name, text in COUNTERS.items()}
_VCPU: Final = re.compile(r"vcpu\.\d+\.time")
_CSV: Final = {
    "cpu_ns": "cpu_ns", "rd_bytes": "read_bytes", "wr_bytes": "written_bytes", "rd_ops": "reads", "wr_ops": "writes",
    "rx_bytes": "received_bytes", "tx_bytes": "sent_bytes",
}  # fmt: skip
NOT_REPORTED: Final = 2**64 - 1


@attrs.frozen
class Options:
    interval_ns: int = option(
        0, unit="ns", help="how far snapshots are apart, where the file does not say", metavar="TIME"
    )


@define
class Series:
    """What was last seen of each domain, and the intervals made since the last batch."""

    job: Import
    numbers: dict[str, int] = field(factory=dict)
    last: dict[str, tuple[int, dict[str, int]]] = field(factory=dict)
    rows: list[dict[str, int]] = field(factory=list)
    restarts: int = 0
    snapshots: int = 0

    def sample(self, name: str, time: int, counters: dict[str, int], gauges: dict[str, int]) -> None:
        """A domain's counters at a time; `gauges` hold for the interval that begins then."""
        before = self.last.get(name)
        if name not in self.numbers:
            self.numbers[name] = add_vm(self.job, name)
        self.last[name] = (time, {**counters, **{f"gauge {key}": value for key, value in gauges.items()}})
        if before is None or time <= before[0]:
            return
        row = {"vm": self.numbers[name], "time_ns": before[0], "duration_ns": time - before[0]}
        fell = False
        for column in (*COUNTERS, "cpu_ns"):
            old, new = before[1].get(column), counters.get(column)
            row[column] = SILENT if old is None or new is None or new < old else new - old
            fell |= old is not None and new is not None and new < old
        self.restarts += fell
        for column in ("cores", "memory_pages", "provisioned_pages"):
            row[column] = before[1].get(f"gauge {column}", SILENT)
        vms = self.job.meta["vms"]
        vms[row["vm"]]["cores"] = max(vms[row["vm"]].get("cores", 1), row["cores"], 1)
        self.rows.append(row)

    def batch(self) -> Batch:
        rows, self.rows = self.rows, []
        return {name: np.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()}


def read(job: Import) -> Iterator[Batch]:
    series = Series(job)
    for source in job.sources():
        csv = _is_csv(source.head(4096))
        yield from _read_csv(job, source, series) if csv else _read_text(job, source, series)
    if series.restarts:
        job.note(f"{series.restarts} times a counter fell (a domain was restarted): that interval is silent there")
    if series.snapshots == 1 and not any(series.rows):
        raise UserError(
            "one snapshot only: counters say something from two on; repeat it: "
            "while sleep 5; do date +%s.%N; virsh domstats; done > series.txt"
        )
    if series.rows:
        yield series.batch()


# text -------------------------------------------------------------------------------------------------------


def _read_text(job: Import, source: Source, series: Series) -> Iterator[Batch]:
    clock = job.clock(source, "realtime")
    time = -1
    at = 0
    name = ""
    values: dict[str, int] = {}
    done: set[str] = set()
    pending: list[tuple[str, dict[str, int]]] = []
    stamped = False

    def flush() -> None:
        nonlocal at
        if not pending:
            return
        series.snapshots += 1
        if time >= 0:
            when = time
        elif job.options.interval_ns:
            when = at * job.options.interval_ns
        elif series.snapshots > 1:
            raise UserError(
                f"{source.name}: snapshots without times: --interval 5s says how far they are apart, or put "
                "`date +%s.%N` before each"
            )
        else:
            when = 0
        at += 1
        fixed = int(clock.fix(np.array([when]))[0])
        for domain, found in pending:
            counters, gauges = _amounts(found)
            series.sample(domain, fixed, counters, gauges)
        pending.clear()
        done.clear()

    for lines in source.blocks():
        for number, line in enumerate(lines.split(), lines.first):
            bare = line.strip()
            if not bare:
                continue
            domain = _DOMAIN.fullmatch(bare)
            stamp = _TIME.fullmatch(bare)
            if domain:
                if name:
                    pending.append((name, values))
                    done.add(name)
                name, values = domain[1].decode("utf-8", "replace"), {}
                if name in done and not stamped:
                    flush()
                stamped = False
                continue
            if stamp:
                if name:
                    pending.append((name, values))
                    name = ""
                flush()
                time = int(stamp[1]) * 10**9 + int((stamp[2] or b"0").ljust(9, b"0"))
                stamped = True
                continue
            value = _VALUE.fullmatch(bare)
            if value is None or not name:
                _bad(job, source, lines, number, bare)
                continue
            if value[2].lstrip(b"-").isdigit():
                values[value[1].decode()] = int(value[2])
        if len(series.rows) >= _BATCH:
            yield series.batch()
    if name:
        pending.append((name, values))
    flush()


def _bad(job: Import, source: Source, lines: Lines, number: int, line: bytes) -> None:
    job.bad_line(source, lines, number, "Domain: 'NAME', key=value or a time in seconds", line)


def _amounts(values: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Counters and gauges of the table from a domain's keys."""
    counters: dict[str, int] = {}
    vcpus = [value for key, value in values.items() if _VCPU.fullmatch(key)]
    if vcpus and len(vcpus) == values.get("vcpu.current", len(vcpus)):
        counters["cpu_ns"] = sum(vcpus)
    elif "cpu.time" in values:
        counters["cpu_ns"] = values["cpu.time"]
    for column, pattern in _PATTERNS.items():
        found = [value for key, value in values.items() if pattern.fullmatch(key)]
        if found:
            counters[column] = sum(found)
    gauges: dict[str, int] = {"cores": values.get("vcpu.current", max(1, len(vcpus)))}
    if "balloon.maximum" in values:
        gauges["provisioned_pages"] = values["balloon.maximum"] // 4
    if "balloon.current" in values:
        used = values["balloon.current"]
        if "balloon.available" in values and "balloon.unused" in values:
            used = max(0, values["balloon.available"] - values["balloon.unused"])
        gauges["memory_pages"] = used // 4
    return counters, gauges


# the sampler's CSV ------------------------------------------------------------------------------------------


def _is_csv(head: bytes) -> bool:
    return head.startswith(b"t_s,vm,cpu_ns")


def _read_csv(job: Import, source: Source, series: Series) -> Iterator[Batch]:
    header = source.head(4096).split(b"\n", 1)[0].decode().strip().split(",")
    columns = [
        Column(name, "decimal" if name == "t_s" else "text" if name == "vm" or name not in _USED else "int")
        if name in _USED
        else Column(f"-{name}", "text")
        for name in header
    ]
    table = Table(columns, is_header=lambda line, number: number == 1)
    clock = job.clock(source, "relative")
    for lines in source.blocks():
        made, numbers = table.parse(job, source, lines)
        time = clock.fix(made["t_s"]) if len(numbers) else made["t_s"]
        for row in range(len(numbers)):
            counters = {new: int(made[old][row]) for old, new in _CSV.items() if old in made}
            gauges = {"cores": 1}
            if "balloon_bytes" in made:
                gauges["provisioned_pages"] = int(made["balloon_bytes"][row]) // 4096
            if "rss_kb" in made:
                gauges["memory_pages"] = min(int(made["rss_kb"][row]) // 4, gauges.get("provisioned_pages", 1 << 40))
            series.sample(f"vm {made['vm'][row]}", int(time[row]), counters, gauges)
        series.snapshots += len(numbers)
        if len(series.rows) >= _BATCH:
            yield series.batch()


_USED: Final[Any] = {"t_s", "vm", "balloon_bytes", "rss_kb", *_CSV}


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    if _is_csv(head.data):
        return 1.0
    lines = [line.strip() for line in head.lines(8) if line.strip()]
    return 1.0 if any(_DOMAIN.fullmatch(line) for line in lines[:3]) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="domstats",
        summary="virsh domstats snapshots in series",
        read=read,
        sniff=sniff,
        extensions=(".txt", ".csv", ".domstats"),
        options=Options,
        clock="realtime",
        makes="demand",
        replay="open",
    )
