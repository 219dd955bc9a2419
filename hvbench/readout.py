"""What a finished host says: metrics of the cell and of each VM, read from its memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvbench.kernel import histogram
from hvbench.metrics import CELL_METRICS, POLICY_METRICS
from hvbench.state.memory import HostMemory
from hvbench.state.records import VCPU

NS_PER_S = 1_000_000_000


def histograms(memory: HostMemory) -> np.ndarray[Any, Any]:
    """Counts by (VM, histogram, bucket)."""
    counts = memory.tables["bucket"]["count"]
    return counts.reshape(-1, histogram.HISTOGRAMS, histogram.BUCKETS)


def measured_ns(memory: HostMemory) -> int:
    """Length of the measured part of the cell, ns."""
    header = memory.header[0]
    return int(header["now"] - min(header["warmup_ns"], header["now"]))


def progress(memory: HostMemory, vm: int, by_marks: bool) -> float:
    """Recorded work that a VM completed, measured: requests, or seconds of recorded compute."""
    row = memory.tables["vm"][vm]
    return float(row["marks"]) if by_marks else float(row["work_done_ns"]) / NS_PER_S


def cpu_metrics(memory: HostMemory) -> dict[str, float | int]:
    """The CPU side of a cell."""
    pcpu, vcpu = memory.tables["pcpu"], memory.tables["vcpu"]
    guests = vcpu[vcpu["kind"] == VCPU]
    total = max(1, measured_ns(memory) * len(pcpu))
    busy = int(pcpu["guest_ns"].sum() + pcpu["refill_ns"].sum() + pcpu["hypervisor_ns"].sum())
    wakeups = histograms(memory)[:, histogram.H_WAKEUP].sum(axis=0)
    requests = histograms(memory)[:, histogram.H_REQUEST].sum(axis=0)
    ready = int(guests["ready_ns"].sum())
    ran = int(guests["run_measured_ns"].sum())
    costopped = int(guests["costopped_ns"].sum())
    header = memory.header[0]
    return {
        "wakeup_latency_p50_ns": histogram.percentile(wakeups, 0.5),
        "wakeup_latency_p99_ns": histogram.percentile(wakeups, 0.99),
        "request_latency_p50_ns": histogram.percentile(requests, 0.5),
        "request_latency_p99_ns": histogram.percentile(requests, 0.99),
        "cpu_ready_share": ready / (ready + ran) if ready + ran else 0.0,
        "costop_share": costopped / (costopped + ready + ran) if costopped else 0.0,
        "overhead_share": int(pcpu["hypervisor_ns"].sum()) / busy if busy else 0.0,
        "cache_refill_share": int(pcpu["refill_ns"].sum()) / busy if busy else 0.0,
        "cpu_utilization": busy / total,
        "context_switches": int(pcpu["dispatches"].sum()),
        "migrations": int(vcpu["migrations"].sum()),
        "decisions": int(header["decisions"]),
        "events": int(header["events"]),
    }


def _vcpus(memory: HostMemory, vm: int) -> Any:
    """The records of a VM's vCPUs."""
    row = memory.tables["vm"][vm]
    return memory.tables["vcpu"][int(row["first_vcpu"]) : int(row["first_vcpu"] + row["vcpus"])]


def vcpu_ready_ns(memory: HostMemory, vm: int) -> list[int]:
    """How long each vCPU of a VM was runnable and waited for a pCPU."""
    return [int(time) for time in _vcpus(memory, vm)["ready_ns"]]


def vm_cpu_metrics(memory: HostMemory, vm: int) -> dict[str, float | int]:
    """The CPU side of one VM."""
    row = memory.tables["vm"][vm]
    mine = _vcpus(memory, vm)
    total = max(1, measured_ns(memory) * len(memory.tables["pcpu"]))
    counts = histograms(memory)[vm]
    return {
        "cpu_share": int(mine["run_measured_ns"].sum()) / total,
        "ran_ns": int(mine["run_measured_ns"].sum()),
        "ready_ns": int(mine["ready_ns"].sum()),
        "ready_p50_ns": histogram.percentile(counts[histogram.H_WAIT], 0.5),
        "ready_p90_ns": histogram.percentile(counts[histogram.H_WAIT], 0.9),
        "ready_p99_ns": histogram.percentile(counts[histogram.H_WAIT], 0.99),
        "spin_ns": int(row["spin_ns"]),
        "costopped_ns": int(mine["costopped_ns"].sum()),
        "costopped_vcpu_worst_ns": int(mine["costopped_ns"].max(initial=0)),
        "overhead_ns": int(row["overhead_ns"]),
        "wakeup_latency_p50_ns": histogram.percentile(counts[histogram.H_WAKEUP], 0.5),
        "wakeup_latency_p99_ns": histogram.percentile(counts[histogram.H_WAKEUP], 0.99),
        "request_latency_p50_ns": histogram.percentile(counts[histogram.H_REQUEST], 0.5),
        "request_latency_p99_ns": histogram.percentile(counts[histogram.H_REQUEST], 0.99),
    }


def io_metrics(memory: HostMemory) -> dict[str, float | int]:
    """Storage and network of a cell."""
    io = memory.tables["vm_io"]
    counts = histograms(memory)[:, histogram.H_IO].sum(axis=0)
    seconds = max(1, measured_ns(memory)) / NS_PER_S
    return {
        "disk_read_requests": int(io["disk_read_requests"].sum()),
        "disk_write_requests": int(io["disk_write_requests"].sum()),
        "io_latency_p50_ns": histogram.percentile(counts, 0.5),
        "io_latency_p99_ns": histogram.percentile(counts, 0.99),
        "network_bytes_per_s": int(io["net_rx_bytes"].sum() + io["net_out_bytes"].sum()) / seconds,
        "network_frames_dropped": int(io["frames_dropped"].sum()),
        "network_retransmissions": int(io["retransmissions"].sum()),
    }


def vm_io_metrics(memory: HostMemory, vm: int) -> dict[str, float | int]:
    """Storage and network of one VM."""
    row = memory.tables["vm_io"][vm]
    counts = histograms(memory)[vm]
    seconds = max(1, measured_ns(memory)) / NS_PER_S
    return {
        "disk_read_requests": int(row["disk_read_requests"]),
        "disk_write_requests": int(row["disk_write_requests"]),
        "io_latency_p50_ns": histogram.percentile(counts[histogram.H_IO], 0.5),
        "io_latency_p99_ns": histogram.percentile(counts[histogram.H_IO], 0.99),
        "network_bytes_per_s": int(row["net_rx_bytes"] + row["net_out_bytes"]) / seconds,
        "network_frames_dropped": int(row["frames_dropped"]),
    }


_PAGE_COUNTS = (
    "host_swap_in_pages",
    "host_swap_out_pages",
    "guest_swap_in_pages",
    "guest_swap_out_pages",
    "double_paging_pages",
    "stale_swap_in_pages",
    "disk_reads_avoided",
    "cow_breaks",
    "compressed_pages",
    "decompressed_pages",
    "oom_kills",
    "extents_split_balloon",
    "extents_split_share",
    "extents_split_swap",
    "guest_faults",
    "host_faults",
)


PER_PAGE = ("page", "mapping", "guest_slot", "host_slot", "extent")
"""Tables with a row for each guest page, page of an object, or page of a swap area; table page_frame has the frames."""


def rows_in_use(table: np.ndarray[Any, Any]) -> int:
    """Rows that are not all zeros: those that were ever used, since an unused row takes no memory."""
    words = table.view(np.uint8).reshape(len(table), -1)
    return int(np.count_nonzero(words.view(f"u{min(4, words.shape[1])}").any(axis=1)))


def memory_state_bytes(memory: HostMemory) -> int:
    """Bytes that the kernel holds for guest pages and frames, of those rows that were ever used."""
    tables = [memory.tables[name] for name in (*PER_PAGE, "page_frame")]
    return sum(rows_in_use(table) * table.dtype.itemsize for table in tables)


def policy_state_bytes(memory: HostMemory) -> int:
    """Bytes that the policies declared for themselves: own fields of every row, containers, host-wide state."""
    slots = memory.slots.values()
    return sum(x.arena.nbytes + sum(own.nbytes for own in x.own.values()) for x in slots)


def memory_metrics(memory: HostMemory) -> dict[str, float | int]:
    """The memory side of a cell."""
    table = memory.tables["vmem"]
    span = max(1, measured_ns(memory))
    return {
        **policy_counters(memory),
        "pooled_pages": int(memory.tables["machine"]["pool_entries"][0]),
        "pool_pages": int(memory.tables["machine"]["pool_frames"][0]),
        "pool_out_pages": int(memory.tables["machine"]["pool_out_pages"][0]),
        **{name: int(table[name].sum()) for name in _PAGE_COUNTS},
        "ballooned_pages_avg": float(table["ballooned_page_ns"].sum()) / span,
        "shared_pages_avg": float(table["shared_page_ns"].sum()) / span,
        "resident_pages_avg": float(table["resident_page_ns"].sum()) / span,
        "saved_pages": int(memory.tables["machine"]["saved"][0]),
        "large_extents_avg": float(table["large_extent_ns"].sum()) / span,
        "memory_state_bytes": memory_state_bytes(memory),
        "policy_state_bytes": policy_state_bytes(memory),
    }


def policy_counters(memory: HostMemory) -> dict[str, float | int]:
    """What the layers of the memory stack counted themselves: the own fields that their COUNTERS name."""
    found: dict[str, float | int] = {}
    for slot, policy in sorted(memory.policies.items()):
        for field in getattr(policy.module, "COUNTERS", ()):
            name = f"{policy.name.replace('-', '_')}_{field}"
            if name in CELL_METRICS and name not in POLICY_METRICS:
                # a policy must not overwrite what the kernel measures
                continue
            found[name] = memory.slots[slot].own["own"][field][0].item()
    return found


def vm_memory_metrics(memory: HostMemory, vm: int) -> dict[str, float | int]:
    """The memory side of one VM."""
    row = memory.tables["vmem"][vm]
    span = max(1, measured_ns(memory))
    return {
        **{name: int(row[name]) for name in _PAGE_COUNTS},
        "ballooned_pages_avg": float(row["ballooned_page_ns"]) / span,
        "shared_pages_avg": float(row["shared_page_ns"]) / span,
        "resident_pages_avg": float(row["resident_page_ns"]) / span,
        "large_extents_avg": float(row["large_extent_ns"]) / span,
        "host_fault_stall_ns": int(row["stalled_ns"]),
    }
