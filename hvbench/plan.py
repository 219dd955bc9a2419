"""From a workload, a seed and the cost axes to the description of a host that `hvbench.build` lays out.

What a cell and its *alone* runs share is decided here: which VMs replay which recorded group, which thread belongs to
which VM, and the start offset that the seed draws for each group.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import attrs

from hvbench.build import CpuSpec, FaultSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec
from hvbench.build_io import IoSpec, flows_of
from hvbench.build_memory import NO_COSTS, GuestMemory, MemorySpec, trace_objects
from hvbench.costs import HostCosts, TechniqueCosts
from hvbench.errors import UserError
from hvbench.machine import Host
from hvbench.paths import NATIVE_SWITCH, Step, SwitchConfig, without_emulation
from hvbench.traces.load import LoadedTrace, Tables, load_image, load_tables, load_trace
from hvbench.workload import START_RANDOM_NS, Vm, Workload

LAST_AFFINE_PCPU = 61
"""Affinity is a mask of 62 bits of an int64."""

LOCKSTEP_NS = 1_000_000
"""Start offsets are drawn in whole steps of this size."""


@attrs.frozen(eq=False)
class GroupPlan:
    """A recorded group on the host: its trace, and the VM (by index) of each of its tiers."""

    instance: str
    trace: LoadedTrace
    vms: tuple[int, ...]
    tier_vm: dict[str, int]
    start_ns: int

    def counts_requests(self, vm: int) -> bool:
        """Whether a VM's progress is counted in requests: those of its outside clients; else in recorded compute."""
        served = {self.tier_vm.get(t.serves, self.vms[0]) for t in self.trace.threads if t.outside}
        return self.trace.counts_requests and vm in served

    def background(self, vm: int) -> bool:
        """Whether all that a VM replays is background load: it is there for the others, and not judged itself."""
        mine = [t for t in self.trace.threads if not t.outside and self.tier_vm[t.tier] == vm]
        return bool(mine) and all(t.background for t in mine)


@attrs.frozen(eq=False)
class Plan:
    """A workload with its traces loaded and its start offsets drawn."""

    workload: Workload
    seed: int
    tables: Tables
    groups: tuple[GroupPlan, ...]

    @property
    def open_loop(self) -> bool:
        """Whether operations begin at their recorded times, whatever became of the ones before."""
        return self.workload.settings.replay == "open"


def draw(seed: int, *names: str) -> int:
    """63 random bits from a seed and names: the same on every machine."""
    text = "\0".join([str(seed), *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def start_offset_ns(vm: Vm, seed: int, span_ns: int, warmup_ns: int) -> int:
    """When a group begins: stated, or drawn uniformly over one span of its trace, at most half the warm-up."""
    if vm.spec.start_ns != START_RANDOM_NS:
        return vm.spec.start_ns
    bound = min(max(span_ns, 1), max(warmup_ns // 2, 1))
    steps = max(1, bound // LOCKSTEP_NS)
    return draw(seed, "start", vm.instance) % steps * LOCKSTEP_NS


def make_plan(workload: Workload, seed: int) -> Plan:
    """Load what a workload replays and draw its start offsets. Raises UserError for what does not fit."""
    instances: dict[str, list[Vm]] = {}
    for vm in workload.vms:
        instances.setdefault(vm.instance, []).append(vm)
    groups = []
    for instance, members in instances.items():
        paths = {vm.trace_path for vm in members}
        if len(paths) != 1:
            raise UserError(
                f"{workload.path}: instance {instance!r} replays {len(paths)} different traces; VMs of one instance "
                "replay one recording"
            )
        trace = load_trace(members[0].trace_path, workload.settings.replay)
        groups.append(
            GroupPlan(
                instance=instance,
                trace=trace,
                vms=tuple(vm.index for vm in members),
                tier_vm=_tiers(workload, instance, members, trace),
                start_ns=start_offset_ns(members[0], seed, trace.span_ns, workload.warmup_ns),
            )
        )
    tables = load_tables(tuple(sorted({vm.trace_path for vm in workload.vms})), workload.settings.replay)
    return Plan(workload, seed, tables, tuple(groups))


def _tiers(workload: Workload, instance: str, members: list[Vm], trace: LoadedTrace) -> dict[str, int]:
    tiers = sorted({t.tier for t in trace.threads if not t.outside})
    where = {}
    for vm in members:
        wanted = vm.spec.tier
        if not wanted and len(members) == 1:
            return dict.fromkeys(tiers, vm.index)
        if wanted not in tiers:
            raise UserError(
                f"{workload.path}: VM {vm.name}: trace {trace.name} has no tier {wanted!r}; it has {', '.join(tiers)}"
            )
        if wanted in where:
            raise UserError(f"{workload.path}: instance {instance!r}: two VMs replay tier {wanted!r}; one each")
        where[wanted] = vm.index
    missing = [tier for tier in tiers if tier not in where]
    if missing:
        raise UserError(
            f"{workload.path}: instance {instance!r}: no VM replays tier {', '.join(missing)} of {trace.name}; "
            "add a [[vm]] with that tier"
        )
    return where


@lru_cache(maxsize=32)
def _plan(workload_id: int, seed: int, stamps: tuple[tuple[Path, int], ...]) -> Plan:
    return make_plan(_known[workload_id], seed)


_known: dict[int, Workload] = {}


def plan_for(workload: Workload, seed: int) -> Plan:
    """`make_plan`, remembered for the workload object and the state of its files."""
    _known[id(workload)] = workload
    paths = sorted({vm.trace_path for vm in workload.vms})
    return _plan(id(workload), seed, tuple((p, p.stat().st_mtime_ns if p.exists() else 0) for p in paths))


def cpu_spec(host: Host, technique: TechniqueCosts, place: HostCosts) -> CpuSpec:
    """The host's CPUs under a technique and a place of the hypervisor."""
    # an exit that the host operating system must see goes there and back
    world = 2 * place.world_switch_ns
    return CpuSpec(
        pcpus=host.pcpus,
        threads_per_core=host.threads_per_core,
        cores_per_llc=host.cores_per_llc or host.pcpus,
        llcs_per_node=host.llcs_per_node or host.pcpus,
        switch_cost_ns=host.switch_cost_ns + technique.vcpu_switch_ns + place.dispatch_ns,
        cache_refill_ns=host.cache_refill_ns,
        cache_refill_other_ns=host.cache_refill_other_ns,
        cache_refill_tau_ns=host.cache_refill_tau_ns,
        guest_slice_ns=host.guest_slice_ns,
        guest_switch_ns=host.guest_switch_ns,
        guest_spin_ns=host.guest_spin_ns,
        ple_window_ns=host.ple_window_ns,
        wake_cost_ns=technique.interrupt_ns + (world if place.hosted else 0),
        halt_cost_ns=technique.halt_ns + (world if place.hosted else 0),
        timer_fire_cost_ns=technique.interrupt_ns,
        user_factor_ppm=technique.user_factor_ppm,
        kernel_factor_ppm=technique.kernel_factor_ppm,
        nested_walk=technique.nested_walk,
        privileged_extra_ns=technique.privileged_ns,
        host_tick_ns=place.host_tick_ns,
        host_tick_cost_ns=place.host_tick_cost_ns,
    )


def io_spec(
    host: Host, path: tuple[Step, ...], switch: SwitchConfig, technique: TechniqueCosts, place: HostCosts
) -> IoSpec:
    """Storage and network of a host on the ways that its storage and switch choices take."""
    world = 2 * place.world_switch_ns
    return IoSpec(
        path=path,
        switch=switch,
        disk=host.disk,
        nic=host.nic,
        filer=host.filer,
        array=host.array,
        # a path that is never used must not shift the index of any entity: schedulers place by it
        uniform_threads=True,
        exit_ns=technique.io_submit_ns + world + place.io_path_ns,
        interrupt_ns=technique.interrupt_ns + world,
    )


def native_io(host: Host, path: tuple[Step, ...]) -> IoSpec:
    """Storage and network of an *alone* run: the same medium, no emulation."""
    return io_spec(host, without_emulation(path), NATIVE_SWITCH, TechniqueCosts(), HostCosts())


def memory_spec(plan: Plan, groups: tuple[GroupPlan, ...], place: HostCosts) -> MemorySpec:
    """The memory side of a host that runs `groups` of a plan."""
    host = plan.workload.host
    wanted = sorted(v for g in groups for v in g.vms)
    position = {vm: i for i, vm in enumerate(wanted)}
    guests = []
    for index in wanted:
        vm = plan.workload.vms[index]
        guests.append(
            GuestMemory(
                pages=vm.spec.memory_pages,
                replacement=vm.spec.guest.replacement,
                swap_pages=vm.spec.guest.swap_pages,
                balloon=vm.spec.guest.balloon,
                reservation_pages=vm.spec.memory_reservation_pages,
                limit_pages=vm.spec.memory_limit_pages,
                shares=vm.spec.memory_shares,
                large_backing=None if vm.spec.backing == "host" else vm.spec.backing == "2MiB",
                image=load_image(vm.image_path) if vm.image_path else None,
            )
        )
    return MemorySpec(
        frames=host.memory_pages,
        vms=tuple(guests),
        objects=tuple(
            trace_objects([x.meta for x in g.trace.objects], [position[g.tier_vm[x.tier]] for x in g.trace.objects])
            for g in groups
        ),
        warm=tuple(g.trace.warm for g in groups),
        hypervisor_pages=host.hypervisor_pages + place.host_os_pages,
        reserve_pages=int(host.memory_pages * host.reserve_share),
        host_swap_pages=host.swap_pages or sum(g.pages for g in guests),
        large_backing=host.backing == "2MiB",
        cpu_mhz=host.cpu_mhz,
    )


def native_memory(plan: Plan, group: GroupPlan) -> MemorySpec:
    """The memory of an *alone* run: as much as the VM is configured with, and nobody between."""
    made = memory_spec(plan, (group,), HostCosts())
    return attrs.evolve(
        made,
        frames=2 * sum(g.pages for g in made.vms) + 1024,
        hypervisor_pages=0,
        reserve_pages=0,
        vm_overhead_pages=0,
        overhead_ppm=0,
        costs=NO_COSTS,
    )


def native_cpu(host: Host, vcpus: int) -> CpuSpec:
    """The CPUs of an *alone* run: enough for every vCPU, no hypervisor."""
    bare = attrs.evolve(host, pcpus=max(host.pcpus, vcpus))
    return attrs.evolve(
        cpu_spec(bare, TechniqueCosts(), HostCosts()),
        switch_cost_ns=0,
        cache_refill_ns=0,
        cache_refill_other_ns=0,
        ple_window_ns=0,
    )


def fault_specs(workload: Workload) -> tuple[FaultSpec, ...]:
    """The faults that a workload states, by index."""
    index = {vm.name: vm.index for vm in workload.vms}
    return tuple(
        FaultSpec(
            kind=f.kind,
            target=index[f.vm] if f.kind == "guest" else f.pcpu,
            at_ns=f.at_ns,
            until_ns=f.at_ns + f.duration_ns if f.duration_ns else 0,
        )
        for f in workload.faults
    )


def host_spec(plan: Plan, cpu: CpuSpec, groups: tuple[GroupPlan, ...], horizon_ns: int, warmup_ns: int) -> HostSpec:
    """The CPU side of a host that runs `groups` of a plan; its VMs keep the workload's order."""
    wanted = sorted(v for g in groups for v in g.vms)
    place = {vm: i for i, vm in enumerate(wanted)}
    group_of = {vm: i for i, g in enumerate(groups) for vm in g.vms}
    vms = []
    for index in wanted:
        spec = plan.workload.vms[index].spec
        mask = 0
        for p in spec.affinity:
            if p > LAST_AFFINE_PCPU:
                raise UserError(
                    f"{plan.workload.path}: VM {plan.workload.vms[index].name}: affinity to pCPU {p}; only the first "
                    f"{LAST_AFFINE_PCPU + 1} pCPUs can be pinned to"
                )
            mask |= 1 << p
        vms.append(
            VmSpec(
                vcpus=spec.vcpus,
                group=group_of[index],
                weight=spec.weight,
                cap=spec.cap_percent,
                reservation=spec.cpu_reservation_percent,
                affinity=mask,
                memory_pages=spec.memory_pages,
                spin_limit_ns=spec.guest.spin_ns,
                guest_tick_ns=spec.guest.tick_ns,
                rt_period_ns=spec.realtime.period_ns,
                rt_budget_ns=spec.realtime.budget_ns,
                rt_extratime=int(spec.realtime.extratime),
                rt_latency_ns=spec.realtime.latency_ns,
                warp_ahead_ns=spec.warp.ahead_ns,
                warp_limit_ns=spec.warp.limit_ns,
                warp_rest_ns=spec.warp.rest_ns,
            )
        )
    return HostSpec(
        cpu=cpu,
        vms=tuple(vms),
        groups=tuple(
            GroupSpec(
                threads=_threads(plan, g, place),
                start_ns=g.start_ns,
                locks=g.trace.locks,
                flows=flows_of(g.trace.meta, {tier: place[vm] for tier, vm in g.tier_vm.items()}),
            )
            for g in groups
        ),
        ops=plan.tables.ops,
        privileged=plan.tables.privileged,
        horizon_ns=horizon_ns,
        warmup_ns=warmup_ns,
        seed=plan.seed,
    )


def _threads(plan: Plan, group: GroupPlan, place: dict[int, int]) -> tuple[ThreadSpec, ...]:
    base = plan.tables.first_op[group.trace.digest]
    first_vm = place[group.vms[0]]
    made = []
    for t in group.trace.threads:
        vm = place[group.tier_vm[t.serves]] if t.serves else first_vm
        if not t.outside:
            vm = place[group.tier_vm[t.tier]]
        made.append(
            ThreadSpec(
                vm=vm,
                first=base + t.first,
                end=base + t.end,
                outside=t.outside,
                process=t.process,
                process_last=t.process_last,
            )
        )
    return tuple(made)
