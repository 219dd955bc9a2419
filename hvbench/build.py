"""From a description of a host and its VMs to the host's memory, ready to boot."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from hvbench import build_io, build_memory
from hvbench.build_io import FlowSpec, IoSpec
from hvbench.build_memory import MemorySpec
from hvbench.kernel import histogram
from hvbench.kernel.events import (
    K_CONTROL,
    K_DEVICE,
    K_MEMORY,
    K_PCPU,
    K_THREAD,
    K_TICK,
    K_TIMER,
    KINDS,
)
from hvbench.kernel.faults import FAULTS
from hvbench.kernel.services import TIMERS_PER_SLOT
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.state.records import HOST_THREAD, N_PRIVILEGED, VCPU

SCHEDULING = (
    "rt_period_ns",
    "rt_budget_ns",
    "rt_extratime",
    "rt_latency_ns",
    "warp_ahead_ns",
    "warp_limit_ns",
    "warp_rest_ns",
)
"""Settings of a VM that go unchanged from its description to its record."""
OUTBOX_RECORDS = 4096
WORK_ITEMS = 1 << 16


@attrs.frozen
class CpuSpec:
    """The host's CPUs and what switching costs, native ns."""

    pcpus: int = 4
    threads_per_core: int = 1
    cores_per_llc: int = 8
    llcs_per_node: int = 1
    switch_cost_ns: int = 0
    cache_refill_ns: int = 0
    cache_refill_other_ns: int = 0
    cache_refill_tau_ns: int = 1_000_000
    guest_slice_ns: int = 3_000_000
    guest_switch_ns: int = 0
    guest_spin_ns: int = 0
    ple_window_ns: int = 0
    wake_cost_ns: int = 0
    halt_cost_ns: int = 0
    ipi_cost_ns: int = 0
    timer_fire_cost_ns: int = 0
    user_factor_ppm: int = 0
    kernel_factor_ppm: int = 0
    nested_walk: bool = False
    privileged_extra_ns: tuple[int, ...] = (0,) * N_PRIVILEGED
    host_tick_ns: int = 0
    host_tick_cost_ns: int = 0


@attrs.frozen
class ThreadSpec:
    """A guest thread: operations [first, end) of the op table, on VM `vm`."""

    vm: int
    first: int
    end: int
    outside: bool = False
    process: int = 0
    process_last: bool = False


@attrs.frozen
class GroupSpec:
    """An instance of a recorded trace: its threads in the trace's order, its start offset."""

    threads: tuple[ThreadSpec, ...]
    start_ns: int = 0
    locks: int = 0
    flows: tuple[FlowSpec, ...] = ()


@attrs.frozen
class VmSpec:
    """A VM: vCPUs, weight, cap and reservation in percent of a pCPU, affinity mask, memory in pages.

    The rest is what its vCPUs are promised by real-time schedulers (0: nothing) and how far BVT warps them.
    """

    vcpus: int
    group: int
    weight: int = 256
    cap: int = 0
    reservation: int = 0
    affinity: int = 0
    memory_pages: int = 0
    spin_limit_ns: int = -1
    guest_tick_ns: int = 0
    rt_period_ns: int = 0
    rt_budget_ns: int = 0
    rt_extratime: int = 1
    rt_latency_ns: int = 0
    warp_ahead_ns: int = 0
    warp_limit_ns: int = 0
    warp_rest_ns: int = 0


@attrs.frozen
class HostThreadSpec:
    """A host thread: on behalf of VM `vm` (-1: the host), with the weight of a VM."""

    vm: int
    weight: int = 256


@attrs.frozen
class FaultSpec:
    """A fault: its kind (hvbench.kernel.faults.FAULTS), the VM or pCPU, from when to when (0: for good)."""

    kind: str
    target: int
    at_ns: int
    until_ns: int = 0


@attrs.frozen
class HostSpec:
    """Everything that the CPU side of a host is made from."""

    cpu: CpuSpec
    vms: tuple[VmSpec, ...]
    groups: tuple[GroupSpec, ...]
    ops: np.ndarray[Any, Any]
    privileged: np.ndarray[Any, Any]
    host_threads: tuple[HostThreadSpec, ...] = ()
    horizon_ns: int = 1_000_000_000
    warmup_ns: int = 0
    seed: int = 0
    hosted: bool = False
    faults: tuple[FaultSpec, ...] = ()
    devices: int = 1
    io: IoSpec | None = None
    memory: MemorySpec | None = None
    memory_events: int = 1
    rows: dict[str, int] = attrs.field(factory=dict)
    shared: dict[str, np.ndarray[Any, Any]] = attrs.field(factory=dict)


def no_privileged() -> np.ndarray[Any, Any]:
    """A table of privileged operations with one row of zeros."""
    return schema.TABLES["privileged"].layout.zeros(1)


def build(spec: HostSpec) -> HostMemory:
    """Lay out a host. Its policies are bound, and it is booted, by the caller."""
    original = spec
    spec = build_io.extend(spec)
    kernel_threads = 0
    first_memory_thread = sum(m.vcpus for m in spec.vms) + len(spec.host_threads)
    if spec.memory is not None:
        kernel_threads = len(spec.vms)
        spec = attrs.evolve(
            spec,
            host_threads=(*spec.host_threads, *[HostThreadSpec(-1)] * build_memory.HOST_THREADS),
            memory_events=build_memory.memory_events(spec.memory),
            rows={**build_memory.table_rows(spec.memory), **spec.rows},
        )
    guest_vcpus = sum(m.vcpus for m in spec.vms)
    entities = guest_vcpus + len(spec.host_threads)
    threads = sum(len(g.threads) for g in spec.groups)
    pcpus = spec.cpu.pcpus
    slots = {
        K_CONTROL: 1 + len(spec.groups) + pcpus + 2 * len(spec.faults),
        K_DEVICE: spec.devices,
        K_THREAD: threads,
        K_TIMER: schema.SLOTS * TIMERS_PER_SLOT,
        K_MEMORY: spec.memory_events,
        K_TICK: pcpus,
        K_PCPU: pcpus,
    }
    total = sum(slots.values())
    rows = {
        "pcpu": pcpus,
        "vcpu": entities,
        "vcpu_mem": entities,
        "vm": len(spec.vms),
        "group": len(spec.groups),
        "thread": threads + kernel_threads,
        "cost": N_PRIVILEGED,
        "event": total,
        "position": total,
        "hook": _hook_rows(),
        "outbox": OUTBOX_RECORDS,
        "axis": 4,
        "bucket": len(spec.vms) * histogram.HISTOGRAMS * histogram.BUCKETS,
        "lock": max(1, sum(g.locks for g in spec.groups)),
        "idle": -(-pcpus // 32),
        "fault": max(1, len(spec.faults)),
        "kind": len(KINDS),
        "work": WORK_ITEMS if spec.host_threads else 1,
        **spec.rows,
    }
    memory = HostMemory(rows, {"op": spec.ops, "privileged": spec.privileged, **spec.shared})
    _fill_host(memory, spec, guest_vcpus, entities, threads)
    _fill_cpus(memory, spec.cpu)
    _fill_vms(memory, spec)
    _fill_groups(memory, spec)
    build_io.fill(memory, spec, original)
    if spec.memory is not None:
        build_memory.fill(memory, spec.memory, threads, first_memory_thread)
    base = 0
    for kind in range(len(KINDS)):
        memory.tables["kind"][kind] = (base, slots[kind])
        base += slots[kind]
    work = memory.tables["work"]
    if spec.host_threads:
        work["next"][:-1] = np.arange(1, len(work))
        work["next"][-1] = -1
        memory.header["work_free"] = 0
    _arm_first(memory, spec)
    return memory


def _hook_rows() -> int:
    from hvbench.hookspecs import HOOKS, LAYERS

    return len(HOOKS) * LAYERS


def _fill_host(memory: HostMemory, spec: HostSpec, guest_vcpus: int, entities: int, threads: int) -> None:
    header = memory.header
    for name, value in {
        "pcpus": spec.cpu.pcpus,
        "vcpus": entities,
        "guest_vcpus": guest_vcpus,
        "vms": len(spec.vms),
        "threads": threads,
        "horizon_ns": spec.horizon_ns,
        "warmup_ns": spec.warmup_ns,
        "seed": spec.seed,
        "hosted": int(spec.hosted),
        "groups": len(spec.groups),
        "groups_left": len(spec.groups),
    }.items():
        header[name] = value
    for name in (
        "switch_cost_ns",
        "cache_refill_ns",
        "cache_refill_other_ns",
        "cache_refill_tau_ns",
        "guest_slice_ns",
        "guest_switch_ns",
        "guest_spin_ns",
        "ple_window_ns",
        "wake_cost_ns",
        "halt_cost_ns",
        "ipi_cost_ns",
        "timer_fire_cost_ns",
        "host_tick_ns",
        "host_tick_cost_ns",
        "user_factor_ppm",
        "kernel_factor_ppm",
        "nested_walk",
    ):
        header[name] = getattr(spec.cpu, name)
    memory.tables["cost"]["extra_ns"] = spec.cpu.privileged_extra_ns


def _fill_cpus(memory: HostMemory, cpu: CpuSpec) -> None:
    table = memory.tables["pcpu"]
    number = np.arange(cpu.pcpus)
    core = number // cpu.threads_per_core
    table["core"] = core
    table["llc"] = core // cpu.cores_per_llc
    table["node"] = table["llc"] // cpu.llcs_per_node
    on_llc = cpu.threads_per_core * cpu.cores_per_llc
    table["llc_first"] = table["llc"] * on_llc
    table["llc_end"] = np.minimum(table["llc_first"] + on_llc, cpu.pcpus)
    for p in range(cpu.pcpus):
        memory.tables["idle"]["bits"][p >> 5] |= 1 << (p & 31)


def _fill_vms(memory: HostMemory, spec: HostSpec) -> None:
    vcpu, vm = memory.tables["vcpu"], memory.tables["vm"]
    first = 0
    for number, m in enumerate(spec.vms):
        row = vm[number]
        row["first_vcpu"], row["vcpus"] = first, m.vcpus
        row["weight"], row["cap"], row["reservation"] = m.weight, m.cap, m.reservation
        row["group"], row["memory_pages"] = m.group, m.memory_pages
        for name in SCHEDULING:
            row[name] = getattr(m, name)
        row["spin_limit_ns"] = spec.cpu.guest_spin_ns if m.spin_limit_ns < 0 else m.spin_limit_ns
        row["guest_tick_ns"] = m.guest_tick_ns
        for i in range(m.vcpus):
            e = vcpu[first + i]
            e["vm"], e["number"], e["kind"] = number, i, VCPU
            e["weight"], e["cap"], e["affinity"] = m.weight, m.cap, m.affinity
        first += m.vcpus
    for i, t in enumerate(spec.host_threads):
        e = vcpu[first + i]
        e["vm"], e["number"], e["kind"], e["weight"] = t.vm, i, HOST_THREAD, t.weight


def _fill_groups(memory: HostMemory, spec: HostSpec) -> None:
    group, thread, vm = memory.tables["group"], memory.tables["thread"], memory.tables["vm"]
    vm["first_thread"] = -1
    at = 0
    locks = 0
    for number, g in enumerate(spec.groups):
        row = group[number]
        row["first_thread"], row["threads"], row["start_ns"] = at, len(g.threads), g.start_ns
        row["first_lock"], row["locks"] = locks, g.locks
        locks += g.locks
        for t in g.threads:
            x = thread[at]
            x["vm"], x["group"], x["outside"] = t.vm, number, t.outside
            x["op_first"], x["op_end"] = t.first, t.end
            x["process"], x["process_last"] = t.process, t.process_last
            if not t.outside:
                if vm[t.vm]["first_thread"] < 0:
                    vm[t.vm]["first_thread"] = at
                vm[t.vm]["threads"] += 1
            at += 1


def _arm_first(memory: HostMemory, spec: HostSpec) -> None:
    """Arm the end of the warm-up and the start of every trace."""
    from hvbench.kernel.events import arm
    from hvbench.state.proxies import HostProxy

    host = HostProxy(memory, -1)
    if spec.warmup_ns > 0:
        arm(host, K_CONTROL, 0, spec.warmup_ns)
    for number, g in enumerate(spec.groups):
        arm(host, K_CONTROL, 1 + number, g.start_ns)
    for p in range(spec.cpu.pcpus if spec.cpu.host_tick_ns > 0 else 0):
        # the ticks of a host operating system are spread over its period
        first = spec.cpu.host_tick_ns * (p + 1) // spec.cpu.pcpus
        arm(host, K_CONTROL, 1 + len(spec.groups) + p, first)
    first_fault = 1 + len(spec.groups) + spec.cpu.pcpus
    for number, f in enumerate(spec.faults):
        memory.tables["fault"][number] = (FAULTS.index(f.kind), f.target, f.at_ns, f.until_ns)
        arm(host, K_CONTROL, first_fault + 2 * number, f.at_ns)
        if f.until_ns:
            arm(host, K_CONTROL, first_fault + 2 * number + 1, f.until_ns)
