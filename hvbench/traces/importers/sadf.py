"""sysstat's `sadf`: what sar recorded, as text (`sadf -d`) and as JSON (`sadf -j`). A host, or a guest, as one VM.

    sadf -j -- -u -r -n DEV -d -P ALL /var/log/sysstat/sa22 > host.json
    hvbench import sadf host.json -o host.demand.parquet

`-d`: lines `HOST;INTERVAL;YYYY-MM-DD HH:MM:SS UTC;[ITEM;]VALUE;…` by semicolons, under a header `# hostname;interval;
timestamp;…` for each kind of statistics; `LINUX-RESTART` between them. `-j`: `sysstat.hosts[].statistics[]`, each with
`timestamp`, `cpu-load`, `memory`, `disk`, `network`; read piece by piece. sar's binary files are bound to the version
of sysstat that wrote them and are not read: convert them with its own sadf.

A line is an average over the interval that *ends* at its time. Busy CPU is 100 % less idle, iowait and steal, of as
many cores as have lines of their own then (-P ALL), else of `number-of-cpus` of the JSON, else of one. Memory in use
is kbmemused, provisioned kbmemfree and kbmemused together. Disks and network interfaces are added up, without `lo`,
loop devices, device mapper and md (their requests are those of other disks), and partitions of a listed disk. What is
not in the file is silent.

Traps: INTERVAL is rounded to seconds and in some files longer than the distance of lines: the shorter of the two
counts; after a restart nothing is known of the time before; `number-of-cpus` counts those that are offline; times are
UTC where they say so (-t and `sadf -T` give local times: their zone is not known, and taken to be UTC). Source:
sadf(1), sysstat 12.6; its tests/expected.sadf-*.

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

import datetime
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
from hvbench.traces.importers.json_stream import events, objects
from hvbench.traces.importers.readings import PAGE, SECOND
from hvbench.traces.importers.sources import Source

_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?: ([A-Z]+))?")
_NOT_OWN: Final = re.compile(r"(lo|loop\d+|dm-\d+|md\d+|ram\d+|zram\d+|sr\d+)")
_PARTITION: Final = re.compile(r"(.*?\d)p\d+|(.*?\D)\d+")
KIB: Final = 1024
#: What a column of -d or a key of -j means: kind of list, and what is added up (column of the table, bytes or number).
DISK: Final = {"tps": "tps", "rkB/s": "rkB", "wkB/s": "wkB", "rkB": "rkB", "wkB": "wkB",
               "rd_sec/s": "rd_sec", "wr_sec/s": "wr_sec"}  # fmt: skip
NET: Final = {"rxkB/s": "rxkB", "txkB/s": "txkB", "rxkB": "rxkB", "txkB": "txkB"}


@attrs.frozen
class Options:
    cores: int = option(
        0, help="cores of the host, where the file does not say (default: those listed, or 1)", metavar="N"
    )


@define
class Sample:
    """What is known of a host at a time: an average over the interval before it."""

    interval_ns: int
    cpus: set[str] = field(factory=set)
    busy: float = -1.0
    memory_kib: float = -1.0
    free_kib: float = -1.0
    disks: dict[str, tuple[float, float]] = field(factory=dict)
    nets: dict[str, tuple[float, float]] = field(factory=dict)

    def load(self, cpu: str, values: dict[str, float]) -> None:
        if cpu not in ("-1", "all"):
            self.cpus.add(cpu)
        elif "idle" in values:
            idle = values["idle"] + values.get("iowait", 0.0) + values.get("steal", 0.0)
            self.busy = min(100.0, max(0.0, 100.0 - idle))


@define
class Host:
    name: str
    cores: int = 0
    samples: dict[int, Sample] = field(factory=dict)
    restarts: list[int] = field(factory=list)


def _stamp(text: str) -> int | None:
    """Seconds since 1970 of `YYYY-MM-DD HH:MM:SS [UTC]`."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    try:
        when = datetime.datetime(*(int(part) for part in match.groups()[:6]), tzinfo=datetime.UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    return int(when.timestamp())


def read(job: Import) -> Iterator[Batch]:
    if job.options.cores < 0:
        raise UserError(f"--cores {job.options.cores}: has to be 1 or more")
    for source in job.sources():
        hosts: dict[str, Host] = {}
        if source.head(64).lstrip()[:1] == b"{":
            _json(job, source, hosts)
        else:
            _text(job, source, hosts)
        for host in hosts.values():
            yield from _intervals(job, source, host)
    job.meta.setdefault("vms", [])


# -d ---------------------------------------------------------------------------------------------------------


def _text(job: Import, source: Source, hosts: dict[str, Host]) -> None:
    names: list[str] = []
    for lines in source.blocks():
        for number, raw in enumerate(lines.split(), lines.first):
            line = raw.decode("utf-8", "replace").rstrip("\r")
            if not line.strip():
                continue
            if line.startswith("# hostname;interval;timestamp"):
                names = line.split(";")
                continue
            parts = line.split(";")
            seconds = _stamp(parts[2]) if len(parts) > 3 else None
            interval = parts[1].lstrip("-") if len(parts) > 3 else ""
            if seconds is None or not interval.isdigit() or not names:
                expected = "HOST;INTERVAL;YYYY-MM-DD HH:MM:SS UTC;VALUES under a header `# hostname;…` (sadf -d)"
                job.bad_line(source, lines, number, expected, raw)
                continue
            host = hosts.setdefault(parts[0], Host(parts[0]))
            if parts[3].startswith("LINUX-RESTART"):
                host.restarts.append(seconds * SECOND)
                continue
            if parts[3].startswith("COM"):
                continue
            sample = host.samples.setdefault(seconds * SECOND, Sample(int(parts[1]) * SECOND))
            try:
                _values(sample, names, parts)
            except ValueError:
                job.bad_line(source, lines, number, f"{'; '.join(names[3:])} (numbers)", raw)


def _values(sample: Sample, names: list[str], parts: list[str]) -> None:
    """One line's statistics by its header; ValueError where they are no numbers."""
    kind = names[3]
    if len(parts) != len(names) and not (kind == "INTR"):
        raise ValueError
    if kind == "CPU" and any(name.endswith("idle") for name in names):
        keys = [name.lstrip("%") for name in names[4:]]
        sample.load(parts[3], dict(zip(keys, map(float, parts[4:]), strict=True)))
    elif kind == "DEV" and "tps" in names:
        given = dict(zip(names[4:], map(float, parts[4:]), strict=True))
        sample.disks[parts[3]] = _disk({DISK[name]: value for name, value in given.items() if name in DISK})
    elif kind == "IFACE" and "rxkB/s" in names:
        given = dict(zip(names[4:], map(float, parts[4:]), strict=True))
        sample.nets[parts[3]] = (given["rxkB/s"], given["txkB/s"])
    elif "kbmemused" in names:
        given = dict(zip(names[3:], map(float, parts[3:]), strict=True))
        sample.memory_kib, sample.free_kib = given["kbmemused"], given.get("kbmemfree", -1.0)


def _disk(values: dict[str, float]) -> tuple[float, float]:
    """KiB read and written a second; old versions count sectors."""
    return (
        values.get("rkB", values.get("rd_sec", -2.0) / 2),
        values.get("wkB", values.get("wr_sec", -2.0) / 2),
    )


# -j ---------------------------------------------------------------------------------------------------------


def _json(job: Import, source: Source, hosts: dict[str, Host]) -> None:
    host = Host("")
    for prefix, value in objects(
        job, source, events(source),
        whole=("sysstat.hosts.item.statistics.item", "sysstat.hosts.item.restarts.item"),
        scalars=("sysstat.hosts.item.nodename", "sysstat.hosts.item.number-of-cpus"),
    ):  # fmt: skip
        if prefix.endswith("nodename"):
            host = hosts.setdefault(str(value), Host(str(value)))
        elif prefix.endswith("number-of-cpus"):
            host.cores = int(value)
        elif prefix.endswith("restarts.item"):
            boot = value.get("boot", value) if isinstance(value, dict) else {}
            seconds = _stamp(f"{boot.get('date')} {boot.get('time')}") if isinstance(boot, dict) else None
            if seconds is not None:
                host.restarts.append(seconds * SECOND)
        else:
            _statistics(job, source, host, value)


def _statistics(job: Import, source: Source, host: Host, value: Any) -> None:
    try:
        stamp = value["timestamp"]
        seconds = _stamp(f"{stamp['date']} {stamp['time']}")
        interval = int(stamp.get("interval", 0))
        if seconds is None:
            raise ValueError
        sample = host.samples.setdefault(seconds * SECOND, Sample(interval * SECOND))
        for item in value.get("cpu-load", value.get("cpu-load-all", [])):
            sample.load(str(item["cpu"]), {k: float(v) for k, v in item.items() if k != "cpu"})
        memory = value.get("memory", {})
        if "memused" in memory:
            sample.memory_kib, sample.free_kib = float(memory["memused"]), float(memory.get("memfree", -1))
        for item in value.get("disk", []):
            sample.disks[item["disk-device"]] = _disk({k: float(v) for k, v in item.items() if k in DISK.values()})
        for item in value.get("network", {}).get("net-dev", []):
            sample.nets[item["iface"]] = (float(item["rxkB"]), float(item["txkB"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        number = len(host.samples)
        job.bad_record(
            f"{source.name}: statistics {number} of {host.name}", "a timestamp and statistics as sadf -j writes them",
            str(value),
        )  # fmt: skip


# intervals --------------------------------------------------------------------------------------------------


def _intervals(job: Import, source: Source, host: Host) -> Iterator[Batch]:
    samples = sorted(host.samples.items())
    if not samples:
        return
    cores = [job.options.cores or len(sample.cpus) or host.cores or 1 for _, sample in samples]
    if not (job.options.cores or host.cores or any(sample.cpus for _, sample in samples)):
        job.note(f"{host.name or source.name}: how many cores it has is not in the file: 1 (--cores, or sadf -P ALL)")
    vm = add_vm(job, host.name or source.path.name, cores=max(cores))
    clock = job.clock(source, "realtime")
    fixed = clock.fix(np.array([time for time, _ in samples], np.int64)).tolist()
    shift = fixed[0] - samples[0][0]
    restarts = [time + shift for time in host.restarts]
    made: list[dict[str, int]] = []
    before = -(1 << 62)
    longer = 0
    for end, number, (_, sample) in zip(fixed, cores, samples, strict=True):
        begin = max([end - sample.interval_ns, before, *(time for time in restarts if time <= end)])
        longer += begin > end - sample.interval_ns
        before = end
        if begin >= end:
            continue
        made.append(
            {"vm": vm, "time_ns": begin, "duration_ns": end - begin, "cores": number}
            | _row(sample, end - begin, number)
        )
    if longer:
        job.note(f"{host.name}: {longer} intervals reach back beyond the line before or a restart: cut there")
    if made:
        yield {name: np.array([row.get(name, SILENT) for row in made], kind) for name, kind in COLUMNS.items()}


def _row(sample: Sample, duration_ns: int, cores: int) -> dict[str, int]:
    row: dict[str, int] = {}
    if sample.busy >= 0:
        row["cpu_ns"] = round(sample.busy / 100 * cores * duration_ns)
    if sample.memory_kib >= 0:
        row["memory_pages"] = round(sample.memory_kib * KIB / PAGE)
        if sample.free_kib >= 0:
            row["provisioned_pages"] = round((sample.memory_kib + sample.free_kib) * KIB / PAGE)
    for devices, names in (
        (_own(sample.disks), ("read_bytes", "written_bytes")),
        (_own(sample.nets), ("received_bytes", "sent_bytes")),
    ):
        for i, name in enumerate(names):
            rates = [rate[i] for rate in devices if rate[i] >= 0]
            if rates:
                row[name] = round(sum(rates) * KIB * duration_ns / SECOND)
    return row


def _own(devices: dict[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """Devices that are not made of others in the list."""
    found = []
    for name, rates in devices.items():
        partition = _PARTITION.fullmatch(name)
        whole = (partition[1] or partition[2]) if partition else None
        if not _NOT_OWN.fullmatch(name) and whole not in devices:
            found.append(rates)
    return found


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    if head.data.startswith(b"# hostname;interval;timestamp"):
        return 1.0
    return 1.0 if re.match(rb'\s*\{\s*"sysstat"\s*:', head.data) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="sadf",
        summary="sysstat: sadf -d and sadf -j",
        read=read,
        sniff=sniff,
        extensions=(".csv", ".json", ".txt"),
        options=Options,
        clock="realtime",
        makes="demand",
        replay="open",
    )
