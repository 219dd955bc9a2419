"""Prometheus: the JSON of a range query (`/api/v1/query_range`), series of VMs or containers.

    curl -s "$SERVER/api/v1/query_range?query=libvirt_domain_info_cpu_time_seconds_total&start=…&end=…&step=30" \\
        > cpu.json
    hvbench import prometheus cpu.json memory.json -o vms.demand.parquet

`{"data": {"result": [{"metric": {"__name__": NAME, LABELS}, "values": [[SECONDS, "VALUE"], …]}]}}`; several files are
put together by VM and time. The VM is the label that `--label` names, or the first there is of domain, vm, name, pod,
instance. What a series counts is told by its name:

- counters (an interval is the difference of two samples; a counter that falls began anew, and what it has then counts
  from 0 in that interval, as in Prometheus's own increase()): libvirt exporter's cpu_time_seconds_total, block_stats
  read and write bytes and requests, interface_stats receive and transmit bytes; cAdvisor's
  container_cpu_usage_seconds_total, fs_reads and fs_writes bytes, network bytes; node exporter's
  node_cpu_seconds_total (modes other than idle, iowait, steal), node_disk and node_network bytes;
- gauges: virtual CPUs, memory in use and at most.

A query that computes has no name (`rate(…)`): `--kind` says what it is, one of cpu-cores (CPU seconds a second),
cpu-percent (of one core), read-bytes, written-bytes, received-bytes, sent-bytes (a second), memory-bytes. Series of
one VM that count the same (devices, cores) are added up.

Traps: a sample holds until the next one, for at most 1.5 times the usual distance: after a gap it is unknown what was;
"NaN" is no value; scrapes (text) have no time and are not read. Source: Prometheus, HTTP API (query_range);
libvirt_exporter, cadvisor and node_exporter, their lists of metrics.

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.demand import COLUMNS, SILENT, add_vm
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.json_stream import events, objects
from hvbench.traces.importers.readings import PAGE, SECOND
from hvbench.traces.importers.sources import Source

LABELS: Final = ("domain", "vm", "name", "pod", "instance")
#: Name of a metric (a pattern) -> column, factor, whether it is a counter.
METRICS: Final = (
    (r"libvirt_domain_info_cpu_time_seconds_total|container_cpu_usage_seconds_total|node_cpu_seconds_total",
     "cpu_ns", 1e9, True),
    (r"libvirt_domain_block_stats_read_bytes_total|container_fs_reads_bytes_total|node_disk_read_bytes_total",
     "read_bytes", 1, True),
    (r"libvirt_domain_block_stats_write_bytes_total|container_fs_writes_bytes_total|node_disk_written_bytes_total",
     "written_bytes", 1, True),
    (r"libvirt_domain_block_stats_read_requests_total|node_disk_reads_completed_total", "reads", 1, True),
    (r"libvirt_domain_block_stats_write_requests_total|node_disk_writes_completed_total", "writes", 1, True),
    (r"libvirt_domain_interface_stats_receive_bytes_total|container_network_receive_bytes_total|"
     r"node_network_receive_bytes_total", "received_bytes", 1, True),
    (r"libvirt_domain_interface_stats_transmit_bytes_total|container_network_transmit_bytes_total|"
     r"node_network_transmit_bytes_total", "sent_bytes", 1, True),
    (r"libvirt_domain_info_virtual_cpus", "cores", 1, False),
    (r"libvirt_domain_info_memory_usage_bytes|container_memory_working_set_bytes", "memory_pages", 1 / PAGE, False),
    (r"libvirt_domain_info_maximum_memory_bytes|container_spec_memory_limit_bytes|node_memory_MemTotal_bytes",
     "provisioned_pages", 1 / PAGE, False),
)  # fmt: skip
#: --kind -> column, factor of a rate a second; 0: a gauge of bytes.
KINDS: Final = {
    "cpu-cores": ("cpu_ns", 1e9), "cpu-percent": ("cpu_ns", 1e7), "read-bytes": ("read_bytes", 1.0),
    "written-bytes": ("written_bytes", 1.0), "received-bytes": ("received_bytes", 1.0),
    "sent-bytes": ("sent_bytes", 1.0), "memory-bytes": ("memory_pages", 0.0),
}  # fmt: skip
IDLE_MODES: Final = ("idle", "iowait", "steal", "guest", "guest_nice")
"""guest is within user already (node exporter)."""
GAUGES: Final = ("cores", "memory_pages", "provisioned_pages")


@attrs.frozen
class Options:
    label: str = option(
        "", help=f"the label that names the VM (default: the first of {', '.join(LABELS)})", metavar="NAME"
    )
    kind: str = option("", legal=("", *KINDS), help="what series without a known name are")


@define
class _Vm:
    """A VM's amounts and values: column -> time -> value."""

    found: dict[str, dict[int, float]] = field(factory=dict)
    durations: dict[int, int] = field(factory=dict)


def read(job: Import) -> Iterator[Batch]:
    vms: dict[str, _Vm] = {}
    skipped: dict[str, int] = {}
    resets = 0
    for source in job.sources():
        clock = job.clock(source)
        first: int | None = None
        shift = 0
        stream = objects(job, source, events(source), whole=("data.result.item",), scalars=("status", "error"))
        failed = False
        for prefix, value in stream:
            if prefix == "status":
                failed = value != "success"
                continue
            if prefix == "error" and failed:
                raise UserError(f"{source.name}: Prometheus answered with an error: {value}")
            series = _series(job, source, value)
            if series is None:
                continue
            metric, time, values = series
            if first is None:
                first = int(time[0])
                shift = int(clock.fix(time[:1])[0]) - first
            name, column, factor, counter, rate = _meaning(job, metric)
            if not column:
                skipped[name] = skipped.get(name, 0) + 1
                continue
            resets += _add(vms, _who(job, source, metric), column, factor, counter, rate, time + shift, values)
    for name, count in skipped.items():
        job.note(
            f"{count} series of {name or 'no name'} are not read: --kind says what series without a known name are"
        )
    if resets:
        job.note(f"{resets} times a counter fell: it began anew, and counts from 0 there")
    for name, vm in sorted(vms.items()):
        yield from _rows(job, name, vm)
    job.meta.setdefault("vms", [])


def _series(
    job: Import, source: Source, value: Any
) -> tuple[dict[str, str], NDArray[np.int64], NDArray[np.float64]] | None:
    """A result's labels, times (ns) and values; None where it has no values."""
    try:
        metric = {str(k): str(v) for k, v in value["metric"].items()}
        pairs = [(round(float(time) * 1000), float(text)) for time, text in value["values"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        job.bad_record(f"{source.name}: a result", '{"metric": {…}, "values": [[seconds, "value"], …]}', str(value))
        return None
    pairs = [(time, number) for time, number in pairs if math.isfinite(number)]
    if len(pairs) < 2:
        job.note("series with fewer than two values say nothing of time: left out")
        return None
    # Prometheus counts ms
    times = np.array([time for time, _ in pairs], np.int64) * 1_000_000
    if (np.diff(times) <= 0).any():
        job.bad_record(f"{source.name}: a result of {metric.get('__name__', '')!r}", "times that rise", str(pairs[:3]))
        return None
    return metric, times, np.array([number for _, number in pairs])


def _meaning(job: Import, metric: dict[str, str]) -> tuple[str, str, float, bool, bool]:
    """Name, column ("" for none), factor, whether a counter, whether a rate."""
    name = metric.get("__name__", "")
    for pattern, column, factor, counter in METRICS:
        if re.fullmatch(pattern, name):
            if metric.get("mode", "") in IDLE_MODES or metric.get("device", "") == "lo":
                return f"{name} ({metric.get('mode') or metric.get('device')})", "", 0.0, False, False
            return name, column, factor, counter, False
    if job.options.kind:
        column, factor = KINDS[job.options.kind]
        return name, column, factor or 1 / PAGE, False, bool(factor)
    return name, "", 0.0, False, False


def _who(job: Import, source: Source, metric: dict[str, str]) -> str:
    wanted = (job.options.label,) if job.options.label else LABELS
    for label in wanted:
        if label in metric:
            return metric[label]
    if job.options.label or len(metric) > 1:
        raise UserError(
            f"{source.name}: a series has no label {' or '.join(wanted)}; it has {', '.join(metric) or 'none'}: --label"
        )
    return "vm"


def _add(
    vms: dict[str, _Vm], name: str, column: str, factor: float, counter: bool, rate: bool, time: NDArray[np.int64],
    values: NDArray[np.float64],
) -> int:  # fmt: skip
    """Put a series to its VM's; how often its counter fell."""
    vm = vms.setdefault(name, _Vm())
    steps = np.diff(time)
    usual = int(np.median(steps))
    known = steps <= usual * 3 // 2
    resets = 0
    if counter:
        amount = np.diff(values)
        fell = amount < 0
        resets = int(fell.sum())
        amount = np.where(fell, values[1:], amount) * factor
    elif rate:
        amount = values[:-1] * factor * (steps / SECOND)
    else:
        amount = values[:-1] * factor
    into = vm.found.setdefault(column, {})
    for at, step, number in zip(time[:-1][known].tolist(), steps[known].tolist(), amount[known].tolist(), strict=True):
        into[at] = into.get(at, 0.0) + number
        vm.durations[at] = min(step, vm.durations.get(at, step))
    return resets


def _rows(job: Import, name: str, vm: _Vm) -> Iterator[Batch]:
    """The intervals of a VM: what was found at each time."""
    times = sorted(vm.durations)
    durations = [min(vm.durations[at], after - at) for at, after in zip(times, [*times[1:], 1 << 62], strict=True)]
    shorter = sum(duration < vm.durations[at] for at, duration in zip(times, durations, strict=True))
    if shorter:
        raise UserError(f"VM {name!r}: its series were sampled at different times; query them with one start and step")
    cores = vm.found.get("cores", {})
    number = add_vm(job, name, cores=max((round(value) for value in cores.values()), default=1) or 1)
    made: Batch = {
        "vm": np.full(len(times), number, np.int32),
        "time_ns": np.array(times, np.int64),
        "duration_ns": np.array(durations, np.int64),
    }
    for column, kind in COLUMNS.items():
        if column not in made:
            found = vm.found.get(column, {})
            made[column] = np.array([round(found[at]) if at in found else SILENT for at in times], kind)
    if times:
        yield made


def sniff(head: Head) -> float:
    return 0.95 if head.is_text and re.match(rb'\s*\{\s*"status"\s*:\s*"(success|error)"', head.data) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="prometheus",
        summary="Prometheus: JSON of range queries",
        read=read,
        sniff=sniff,
        extensions=(".json",),
        options=Options,
        clock="realtime",
        makes="demand",
        replay="open",
    )
