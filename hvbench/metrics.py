# ruff: noqa: E501  (one metric a line)
"""Every metric: its name (which ends in its unit), unit, direction and meaning. One list; add to it here."""

from __future__ import annotations

from attrs import define

from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

UNITS = ("ns", "pages", "bytes", "bytes/s", "share", "ratio", "count", "1/s")
DIRECTIONS = ("lower", "higher", "neutral")
SCOPES = ("cell", "vm")


@define(frozen=True)
class Metric:
    """A number that running a cell gives. `direction` is what is better; `scope` what it is of."""

    name: str
    unit: str
    direction: str
    scope: str
    title: str
    doc: str


def _cell(name: str, unit: str, direction: str, title: str, doc: str) -> Metric:
    return Metric(name, unit, direction, "cell", title, doc)


def _vm(name: str, unit: str, direction: str, title: str, doc: str) -> Metric:
    return Metric(name, unit, direction, "vm", title, doc)


_NOT_KERNEL: list[str] = []


def _policy(name: str, unit: str, direction: str, title: str, doc: str) -> Metric:
    _NOT_KERNEL.append(name)
    return _cell(name, unit, direction, title, doc)


METRICS: tuple[Metric, ...] = (
    # progress
    _cell("slowdown_geomean", "ratio", "lower", "slowdown", "Geometric mean over VMs of the rate alone over the rate here."),
    _cell("slowdown_worst", "ratio", "lower", "worst VM", "Slowdown of the VM that suffers most."),
    _cell("fairness_jain", "ratio", "higher", "fairness", "Jain's index over the VMs' rates relative to alone; 1 is equal."),
    # processors
    _cell("wakeup_latency_p50_ns", "ns", "lower", "wake-up p50", "From a vCPU's wake-up to its first instruction, median."),
    _cell("wakeup_latency_p99_ns", "ns", "lower", "wake-up p99", "From a vCPU's wake-up to its first instruction, 99th percentile."),
    _cell("cpu_ready_share", "share", "lower", "CPU ready", "Share of vCPU time spent runnable and waiting for a pCPU."),
    _cell("costop_share", "share", "lower", "co-stopped", "Share of vCPU time runnable but stopped for the sake of siblings."),
    _cell("overhead_share", "share", "lower", "overhead", "Share of busy pCPU time that hypervisor and technique took."),
    _cell("cache_refill_share", "share", "lower", "cache refill", "Share of busy pCPU time that refilling caches took."),
    _cell("cpu_utilization", "share", "neutral", "CPU busy", "Share of pCPU time that was not idle."),
    _cell("context_switches", "count", "lower", "switches", "Changes of the vCPU or host thread on a pCPU."),
    _cell("migrations", "count", "lower", "migrations", "Times that an entity ran on another pCPU than before."),
    # memory
    _cell("ballooned_pages_avg", "pages", "neutral", "ballooned", "Pages held by balloons, averaged over time, all VMs."),
    _cell("resident_pages_avg", "pages", "neutral", "resident", "Guest pages that stood in machine memory, averaged over time, all VMs."),
    _cell("host_faults", "count", "lower", "host faults", "Accesses to a guest page without machine memory: first touches and swap-ins."),
    _cell("host_swap_in_pages", "pages", "lower", "host swap in", "Pages that the hypervisor read back from its swap."),
    _cell("host_swap_out_pages", "pages", "lower", "host swap out", "Pages that the hypervisor wrote to its swap."),
    _cell("guest_swap_in_pages", "pages", "lower", "guest swap in", "Pages that guests read back from their own swap."),
    _cell("guest_swap_out_pages", "pages", "lower", "guest swap out", "Pages that guests wrote to their own swap."),
    _cell("double_paging_pages", "pages", "lower", "double paging", "Pages that a guest swapped out and the hypervisor had to read in for that."),
    _cell("shared_pages_avg", "pages", "higher", "shared", "Guest pages on frames that are or were shared, averaged over time."),
    _cell("saved_pages", "pages", "higher", "saved", "Machine frames that sharing saved, at the end."),
    _cell("stale_swap_in_pages", "pages", "lower", "stale swap in", "Pages that the hypervisor read back only for a guest's read or first use to overwrite them: double paging reversed."),
    _cell("oom_kills", "count", "lower", "OOM kills", "Processes that guests killed for want of memory; their recordings began again."),
    _cell("cow_breaks", "count", "lower", "COW breaks", "Writes that took a shared page apart."),
    _cell("compressed_pages", "pages", "neutral", "compressed", "Pages compressed into the pool before they would have been swapped."),
    _cell("decompressed_pages", "pages", "neutral", "decompressed", "Pages that came back from the pool instead of the disk."),
    _cell("pooled_pages", "pages", "neutral", "in the pool", "Compressed pages in the pool at the end."),
    _cell("pool_pages", "pages", "neutral", "pool", "Frames that the pool of compressed pages takes at the end."),
    _cell("pool_out_pages", "pages", "lower", "pool out", "Compressed pages written from the pool to the swap area."),
    # counters of memory policies, as they stand at the end: /sys/kernel/mm/ksm
    _policy("ksm_pages_shared", "pages", "neutral", "KSM shared", "Pages of KSM in use: merged frames."),
    _policy("ksm_pages_sharing", "pages", "higher", "KSM sharing", "Further pages that stand on them: how much is saved."),
    _policy("ksm_pages_unshared", "pages", "neutral", "KSM unshared", "Pages without an equal, looked at again and again."),
    _policy("ksm_pages_volatile", "pages", "neutral", "KSM volatile", "Pages that change too fast to be put in a tree."),
    _policy("ksm_pages_scanned", "pages", "neutral", "KSM scanned", "Pages that ksmd looked at."),
    _policy("ksm_pages_skipped", "pages", "neutral", "KSM skipped", "Pages that smart scan passed over."),
    _policy("ksm_full_scans", "count", "neutral", "KSM passes", "Times that all memory was scanned."),
    _policy("ksm_stable_node_chains", "count", "neutral", "KSM chains", "Contents with more pages than one merged page may stand for."),
    _policy("ksm_stable_node_dups", "count", "neutral", "KSM dups", "Merged pages in such chains."),
    _policy("ksm_zero_pages", "pages", "higher", "KSM zero pages", "Pages that stand on the host's page of zeros."),
    _cell("large_extents_avg", "count", "higher", "2 MiB mappings", "Guest memory mapped by 2 MiB, averaged over time, in such mappings."),
    _cell("extents_split_balloon", "count", "lower", "split: balloon", "2 MiB mappings split because a page of them went to a balloon."),
    _cell("extents_split_share", "count", "lower", "split: sharing", "2 MiB mappings split because a page of them was shared."),
    _cell("extents_split_swap", "count", "lower", "split: swap", "2 MiB mappings split because a page of them was swapped out by the hypervisor."),
    _cell("guest_faults", "count", "lower", "guest faults", "Accesses to a page that was not in guest memory."),
    # storage
    _cell("disk_read_requests", "count", "lower", "disk reads", "Read requests that reached a medium."),
    _cell("disk_write_requests", "count", "lower", "disk writes", "Write requests that reached a medium."),
    _cell("disk_reads_avoided", "count", "higher", "reads avoided", "Reads of guests that a cache or shared page of the host answered."),
    _cell("io_latency_p50_ns", "ns", "lower", "I/O p50", "From a guest's block request to its completion, median."),
    _cell("io_latency_p99_ns", "ns", "lower", "I/O p99", "From a guest's block request to its completion, 99th percentile."),
    # network
    _cell("network_bytes_per_s", "bytes/s", "higher", "network", "Bytes that reached receivers a second, in VMs and outside."),
    _cell("network_retransmissions", "count", "lower", "retransmissions", "Frames that senders sent again because they were dropped."),
    _cell("network_frames_dropped", "count", "lower", "drops", "Frames dropped in switches and at cards."),
    _cell("request_latency_p50_ns", "ns", "lower", "request p50", "Response time of marked requests, median."),
    _cell("request_latency_p99_ns", "ns", "lower", "request p99", "Response time of marked requests, 99th percentile."),
    _cell("backlog_ns", "ns", "lower", "backlog", "How late open-loop VMs' recorded work was at the end, in sum."),
    # the simulation itself
    _cell("decisions", "count", "neutral", "decisions", "Calls of sched_pick_next."),
    _cell("events", "count", "neutral", "events", "Entries popped from the event heap that were not cancelled."),
    _cell("memory_state_bytes", "bytes", "neutral", "page state", "What the simulation held for guest pages and machine frames that were ever used."),
    _cell("policy_state_bytes", "bytes", "neutral", "policy state", "What the policies of the cell declared for their own state."),
    # per VM
    _vm("slowdown", "ratio", "lower", "slowdown", "Its rate alone over its rate here."),
    _vm("progress_per_s", "1/s", "higher", "rate", "Recorded work (requests where marked) completed a second."),
    _vm("alone_per_s", "1/s", "neutral", "rate alone", "The same without neighbours and without a hypervisor."),
    _vm("cpu_share", "share", "neutral", "CPU", "Share of all pCPU time that it got."),
    _vm("ran_ns", "ns", "neutral", "ran", "Time its vCPUs ran, in sum."),
    _vm("spin_ns", "ns", "lower", "spinning", "Of that, time its threads spun at locks that another one held."),
    _vm("ready_ns", "ns", "lower", "ready", "Time its vCPUs were runnable and waited, in sum."),
    _vm("ready_p50_ns", "ns", "lower", "wait p50", "A wait of a vCPU for a pCPU, after a wake-up or a preemption, median."),
    _vm("ready_p90_ns", "ns", "lower", "wait p90", "The same, 90th percentile."),
    _vm("ready_p99_ns", "ns", "lower", "wait p99", "The same, 99th percentile."),
    _vm("costopped_ns", "ns", "lower", "co-stopped", "Time its vCPUs were runnable but co-stopped, in sum."),
    _vm("costopped_vcpu_worst_ns", "ns", "lower", "co-stopped, worst", "The same of the vCPU that was co-stopped longest."),
    _vm("overhead_ns", "ns", "lower", "overhead", "Time that hypervisor and technique took on its behalf."),
    _vm("wakeup_latency_p50_ns", "ns", "lower", "wake-up p50", "From its vCPUs' wake-ups to their first instruction, median."),
    _vm("wakeup_latency_p99_ns", "ns", "lower", "wake-up p99", "From its vCPUs' wake-ups to their first instruction, 99th percentile."),
    _vm("ballooned_pages_avg", "pages", "neutral", "ballooned", "Pages in its balloon, averaged over time."),
    _vm("resident_pages_avg", "pages", "neutral", "resident", "Its pages that stood in machine memory, averaged over time."),
    _vm("host_faults", "count", "lower", "host faults", "Accesses to its pages without machine memory: first touches and swap-ins."),
    _vm("host_swap_in_pages", "pages", "lower", "host swap in", "Its pages that the hypervisor read back from swap."),
    _vm("host_swap_out_pages", "pages", "lower", "host swap out", "Its pages that the hypervisor wrote to swap."),
    _vm("guest_swap_in_pages", "pages", "lower", "guest swap in", "Pages that its kernel read back from its swap."),
    _vm("guest_swap_out_pages", "pages", "lower", "guest swap out", "Pages that its kernel wrote to its swap."),
    _vm("double_paging_pages", "pages", "lower", "double paging", "Its pages that its kernel swapped out and the hypervisor had to read in for that."),
    _vm("stale_swap_in_pages", "pages", "lower", "stale swap in", "Its pages that the hypervisor read back only to be overwritten."),
    _vm("oom_kills", "count", "lower", "OOM kills", "Processes that its kernel killed for want of memory."),
    _vm("shared_pages_avg", "pages", "higher", "shared", "Its pages that stood on shared frames, averaged over time."),
    _vm("disk_read_requests", "count", "lower", "disk reads", "Its read requests."),
    _vm("disk_write_requests", "count", "lower", "disk writes", "Its write requests."),
    _vm("io_latency_p50_ns", "ns", "lower", "I/O p50", "From its block requests to their completion, median."),
    _vm("io_latency_p99_ns", "ns", "lower", "I/O p99", "From its block requests to their completion, 99th percentile."),
    _vm("network_bytes_per_s", "bytes/s", "higher", "network", "Bytes that reached it, or receivers outside from it, a second."),
    _vm("request_latency_p50_ns", "ns", "lower", "request p50", "Response time of its marked requests, median."),
    _vm("request_latency_p99_ns", "ns", "lower", "request p99", "Response time of its marked requests, 99th percentile."),
    _vm("backlog_ns", "ns", "lower", "backlog", "How late its recorded work was at the end."),
)  # fmt: skip

CELL_METRICS: dict[str, Metric] = {m.name: m for m in METRICS if m.scope == "cell"}
POLICY_METRICS = frozenset(_NOT_KERNEL)
"""Metrics of cells that a policy counts itself: `<policy>_<own field>`, for the fields in its module's COUNTERS."""
VM_METRICS: dict[str, Metric] = {m.name: m for m in METRICS if m.scope == "vm"}

TABLE_COLUMNS: tuple[str, ...] = (
    "slowdown_geomean",
    "slowdown_worst",
    "fairness_jain",
    "wakeup_latency_p99_ns",
    "cpu_ready_share",
    "overhead_share",
    "ballooned_pages_avg",
    "host_swap_in_pages",
    "shared_pages_avg",
    "disk_read_requests",
    "disk_reads_avoided",
    "io_latency_p99_ns",
    "network_bytes_per_s",
    "network_frames_dropped",
)
"""What a matrix's table shows where no metrics are named."""


def cell_metric(name: str) -> Metric:
    """A metric of cells by name; UserError with the nearest names."""
    if name in CELL_METRICS:
        return CELL_METRICS[name]
    raise UserError(f"no metric {name!r}{did_you_mean(name, list(CELL_METRICS), always=True)}")
