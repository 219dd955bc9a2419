"""A workload under more or less pressure: fewer processors, less memory, more tenants.

The VMs, their traces, weights and sizes stay as they are; what changes is the host under them, or how many of them
there are. Each ratio is defined once, here.
"""

from __future__ import annotations

import math
from fractions import Fraction

import attrs

from hvbench.build_memory import MemorySpec
from hvbench.errors import UserError
from hvbench.machine import MOST_PCPUS
from hvbench.workload import MOST_VMS, Vm, Workload


def at_pressure(workload: Workload, cpu: float, memory: float, touched_pages: int | None = None) -> Workload:
    """The workload on a host with `cpu` vCPUs a pCPU and `memory` of the VMs' needs in its memory.

    `cpu` is the number of vCPUs over the number of pCPUs; pCPUs are whole, so the ratio that is reached may differ
    (`cpu_overcommit` says it). `memory` is what the VMs are configured with, virtualization's tables included, over
    what the host has left without the hypervisor and its reserve: at 1.0 a static partition just fits. With
    `touched_pages`, what the VMs hold together where nothing is taken from them, the need is that and the tables: at
    1.0 all that they use just fits, however much more they were promised. The name tells the point:
    `mixed@cpu2-mem1.3`, `mixed@cpu2-touched1.3`. UserError where the host cannot be made.
    """
    if not (cpu > 0 and memory > 0 and math.isfinite(cpu) and math.isfinite(memory)):
        raise UserError(f"{workload.name}: overcommit {cpu:g} and {memory:g}: ratios are above 0")
    vcpus = sum(vm.spec.vcpus for vm in workload.vms)
    pcpus = max(1, round(vcpus / cpu))
    if pcpus > MOST_PCPUS:
        raise UserError(f"{workload.name}: {vcpus} vCPUs at {cpu:g} a pCPU need {pcpus} pCPUs; at most {MOST_PCPUS}")
    pinned = [(vm.name, p) for vm in workload.vms for p in vm.spec.affinity if p >= pcpus]
    if pinned:
        raise UserError(
            f"{workload.path}: VM {pinned[0][0]} is pinned to pCPU {pinned[0][1]}, and the host would have {pcpus}; "
            "study a workload without affinity"
        )
    off = [fault.pcpu for fault in workload.faults if fault.kind == "pcpu" and fault.pcpu >= pcpus]
    if off:
        raise UserError(f"{workload.path}: pCPU {off[0]} fails, and the host would have {pcpus}; leave the fault out")
    need = _needed_pages(workload) if touched_pages is None else touched_pages + _table_pages(workload)
    host = attrs.evolve(workload.host, pcpus=pcpus, memory_pages=_memory_pages(workload, memory, need))
    name = f"{workload.name}@cpu{cpu:g}-{'mem' if touched_pages is None else 'touched'}{memory:g}"
    return attrs.evolve(workload, host=host, settings=attrs.evolve(workload.settings, name=name))


def cpu_overcommit(workload: Workload) -> float:
    """vCPUs over pCPUs."""
    return sum(vm.spec.vcpus for vm in workload.vms) / workload.host.pcpus


def memory_overcommit(workload: Workload) -> float:
    """What the VMs are configured with, tables included, over what the host has left for them."""
    room = _room_pages(workload, workload.host.memory_pages)
    return _needed_pages(workload) / room if room > 0 else math.inf


def _room_pages(workload: Workload, frames: int) -> int:
    """What a host of so many frames has left for VMs."""
    return frames - int(frames * workload.host.reserve_share) - workload.host.hypervisor_pages


def _memory_pages(workload: Workload, ratio: float, need: int) -> int:
    """The least memory in which `need` pages are `ratio` of the room."""
    if workload.host.reserve_share >= 1:
        raise UserError(f"{workload.path}: host.reserve: the hypervisor keeps all of the memory for itself")
    room = math.ceil(Fraction(need) / Fraction(ratio))
    frames = math.floor((room + workload.host.hypervisor_pages) / (1 - workload.host.reserve_share))
    while _room_pages(workload, frames) < room:
        frames += 1
    return frames


def _needed_pages(workload: Workload) -> int:
    """Configured memory and the tables that map all of it."""
    return sum(vm.spec.memory_pages for vm in workload.vms) + _table_pages(workload)


def _table_pages(workload: Workload) -> int:
    """What virtualization takes for itself to map all configured memory."""
    defaults = MemorySpec(frames=0, vms=(), objects=())
    fixed, ppm = defaults.vm_overhead_pages, defaults.overhead_ppm
    return sum(fixed + (vm.spec.memory_pages * ppm + 999_999) // 1_000_000 for vm in workload.vms)


def with_tenants(workload: Workload, count: int) -> Workload:
    """The workload with its first `count` tenants, or with more: then they begin again from the first.

    A tenant is a VM, or the VMs that replay a recording together. Its name and word of instance get a number, so
    that the second round's are others. The name tells the count: `web@12`.
    """
    sets: dict[str, list[Vm]] = {}
    for vm in workload.vms:
        sets.setdefault(vm.instance, []).append(vm)
    tenants = list(sets.values())
    vms: list[Vm] = []
    for number in range(count):
        turn, which = divmod(number, len(tenants))
        for vm in tenants[which]:
            mark = f"-r{turn + 1}" if turn else ""
            vms.append(attrs.evolve(vm, index=len(vms), name=vm.name + mark, instance=vm.instance + mark))
    if count < 1 or len(vms) > MOST_VMS:
        raise UserError(f"{workload.name}: {count} tenants are {len(vms)} VMs; from 1 to {MOST_VMS} are legal")
    gone = [fault.vm for fault in workload.faults if fault.kind == "guest" and fault.vm not in {v.name for v in vms}]
    if gone:
        raise UserError(f"{workload.path}: a fault hits VM {gone[0]}, which is not among {count} tenants")
    return attrs.evolve(
        workload, vms=tuple(vms), settings=attrs.evolve(workload.settings, name=f"{workload.name}@{count}")
    )


def tenants(workload: Workload) -> int:
    """How many tenants a workload has: VMs, or sets of VMs that replay a recording together."""
    return len({vm.instance for vm in workload.vms})
