"""A cell, computed: lay out the host, bind the policies, run to the horizon, read the metrics.

`simulate` is what the runner calls, in a thread or in a worker process.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import attrs
import numpy as np

from hvbench import jit, readout
from hvbench.binding import BindError, Chosen, Loop, bind
from hvbench.build import HostSpec, build
from hvbench.build_io import refusal, storage_path, switch_config
from hvbench.build_memory import refusal as memory_refusal
from hvbench.cell import Cell, CellResult, Choice, StopFlag, Stopped
from hvbench.costs import HostCosts, TechniqueCosts
from hvbench.errors import UserError
from hvbench.honours import sentence, unhonoured
from hvbench.hookspecs import HOOKS, LAYERS
from hvbench.kernel.guards import (
    E_DEADLOCK,
    E_NO_TIME_IN_TRACE,
    E_RAISED,
    E_REFUSED,
    E_STANDS_STILL,
    E_STARVED,
    LEGAL,
)
from hvbench.kernel.loop import FINISHED, STOPPED
from hvbench.paths import Step, SwitchConfig, without_emulation
from hvbench.plan import (
    GroupPlan,
    Plan,
    cpu_spec,
    fault_specs,
    host_spec,
    io_spec,
    memory_spec,
    native_cpu,
    native_io,
    native_memory,
    plan_for,
)
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.units import format_duration, format_pages

OVERLOAD_SHARE = 0.05
"""An open-loop VM whose lateness grows by more than this share of the measured time is overloaded."""

SCAN_PASSES = 2
"""Full passes that a scanner of memory needs before what it found can be judged."""

EVENTS_A_SLICE = 1_000_000
EVENTS_A_SLICE_INTERPRETED = 2_000
"""Events between two looks at the stop flag."""

STALLS = frozenset({E_DEADLOCK, E_STANDS_STILL, E_STARVED})
DECISION_SLOTS = {"scheduler": schema.SCHEDULER_SLOT, "storage": schema.STORAGE_SLOT, "switch": schema.SWITCH_SLOT}
AXIS_ROWS = {"scheduler": 0, "storage": 1, "switch": 2, "memory": 3}


def simulate(cell: Cell, stop: StopFlag | None = None) -> CellResult:
    """Run a cell. Raises Stopped when the flag is set; a policy's fault is a result, not an exception."""
    started = time.perf_counter()
    plan = plan_for(cell.workload, cell.seed)
    technique = technique_costs(cell)
    place = host_costs(cell)
    spec = host_spec(plan, cpu_spec(cell.workload.host, technique, place), plan.groups, cell.horizon_ns, cell.warmup_ns)
    path, switch = io_choices(cell)
    spec = attrs.evolve(
        spec,
        hosted=place.hosted,
        faults=fault_specs(cell.workload),
        io=io_spec(cell.workload.host, path, switch, technique, place),
        memory=memory_spec(plan, plan.groups, place),
    )
    refused = refusal(spec, [vm.name for vm in cell.workload.vms])
    if refused:
        who = cell.choices["switch"].label
        return CellResult("refused", f"{who}: {refused}", wall_s=time.perf_counter() - started)
    memory = build(spec)
    try:
        bind(memory, chosen_policies(cell), interpreted=jit.interpreted())
    except BindError as error:
        return CellResult("failed", str(error), wall_s=time.perf_counter() - started)
    _, broken = run(memory, stop)
    if int(memory.header["error"][0]) == E_REFUSED:
        reason = memory_refusal(memory, [vm.name for vm in cell.workload.vms])
        return finish(CellResult("refused", reason), memory, started)
    if broken is not None:
        status, reason = broken
        return finish(CellResult(status, reason), memory, started)
    result = CellResult("ok")
    result.vms = vm_metrics(plan, memory, cell, path, stop)
    result.vcpu_ready_ns = [readout.vcpu_ready_ns(memory, vm) for vm in range(len(cell.workload.vms))]
    if plan.open_loop:
        summarise_open(result, memory)
    else:
        summarise(result, memory)
    result.notes = [
        *memory.notes,
        *short_warmup(plan, memory, cell.warmup_ns),
        *short_measurement(plan, memory, cell.horizon_ns - cell.warmup_ns),
        *short_scan(cell),
        *origins(plan),
    ]
    note_ignored(result, cell)
    return finish(result, memory, started)


def finish(result: CellResult, memory: HostMemory, started: float) -> CellResult:
    """Fill in what every result carries."""
    header = memory.header[0]
    result.events = int(header["events"])
    result.decisions = int(header["decisions"])
    axis = memory.tables["axis"]
    result.axis_asks = {name: int(axis["asks"][row]) for name, row in AXIS_ROWS.items()}
    result.axis_digest = {name: f"{int(axis['digest'][row]) & (1 << 64) - 1:016x}" for name, row in AXIS_ROWS.items()}
    result.wall_s = time.perf_counter() - started
    return result


def technique_costs(cell: Cell) -> TechniqueCosts:
    """What the cell's technique costs on the workload's clock."""
    made = _coarse(cell.choices["technique"], "hvbench_technique_costs", cell.workload.host.cpu_mhz)
    if not isinstance(made, TechniqueCosts):
        raise UserError(
            f"technique {cell.choices['technique'].label}: hvbench_technique_costs must return TechniqueCosts"
        )
    return made


def host_costs(cell: Cell) -> HostCosts:
    """What the place of the cell's hypervisor costs on the workload's clock."""
    made = _coarse(cell.choices["host"], "hvbench_host_costs", cell.workload.host.cpu_mhz)
    if not isinstance(made, HostCosts):
        raise UserError(f"host {cell.choices['host'].label}: hvbench_host_costs must return HostCosts")
    return made


def io_choices(cell: Cell) -> tuple[tuple[Step, ...], SwitchConfig]:
    """The storage path and the switch's configuration that the cell's policies state."""
    storage, storage_params = cell.choices["storage"].policies[0]
    switch, switch_params = cell.choices["switch"].policies[0]
    return storage_path(storage.module, storage_params), switch_config(switch.module, switch_params)


def _coarse(choice: Choice, hook: str, cpu_mhz: int) -> Any:
    from hvbench.hookspecs import plugin_manager

    policy, params = choice.policies[0]
    manager = plugin_manager()
    manager.register(policy.module)
    return getattr(manager.hook, hook)(params=params, cpu_mhz=cpu_mhz)


def chosen_policies(cell: Cell) -> list[Chosen]:
    """The cell's decision policies with their slots."""
    made = []
    for axis, slot in DECISION_SLOTS.items():
        for policy, params in cell.choices[axis].policies:
            made.append(Chosen(slot, policy.name, policy.module, params, policy.digest))
    for layer, (policy, params) in enumerate(cell.choices["memory"].policies):
        made.append(Chosen(schema.FIRST_MEMORY_SLOT + layer, policy.name, policy.module, params, policy.digest))
    return made


# running -------------------------------------------------------------------------------------------------


def run(memory: HostMemory, stop: StopFlag | None) -> tuple[int, tuple[str, str] | None]:
    """Boot and run a host to its horizon; returns the loop's outcome and, for a broken cell, (status, reason)."""
    interpreted = jit.interpreted()
    loop = Loop(memory, interpreted)
    limit = EVENTS_A_SLICE_INTERPRETED if interpreted else EVENTS_A_SLICE
    try:
        if stop is not None and stop.is_set():
            raise Stopped("stopped before it began")
        loop.boot()
        while True:
            outcome = loop.run(limit)
            if outcome in (FINISHED, STOPPED):
                break
            if stop is not None and stop.is_set():
                raise Stopped("stopped")
    except Stopped:
        raise
    except Exception as error:
        return STOPPED, ("failed", describe_exception(memory, int(memory.header["hook_row"][0]), error))
    broken = verdict(memory)
    if broken is not None:
        return STOPPED, broken
    return outcome, None


def verdict(memory: HostMemory) -> tuple[str, str] | None:
    """Status and reason of a host whose loop has ended on an error, None for one that reached its end."""
    if memory.exceptions:
        row, raised = memory.exceptions[0]
        if isinstance(raised, (KeyboardInterrupt, SystemExit)):
            raise raised
        return "failed", describe_exception(memory, row, raised)
    code = int(memory.header["error"][0])
    if code:
        return "stalled" if code in STALLS else "failed", describe_error(memory, code)
    return None


def _who(memory: HostMemory, row: int) -> tuple[str, str]:
    """Policy and hook of a row of the hook table."""
    if row < 0:
        return "the workload", ""
    hook = list(HOOKS)[row // LAYERS]
    slot = int(memory.tables["hook"]["slot_index"][row])
    policy = memory.policies.get(slot)
    return (policy.name if policy else HOOKS[hook].axis), hook


def describe_exception(memory: HostMemory, row: int, error: BaseException) -> str:
    """An exception in a hook, in one line: policy, hook, virtual time, what was raised."""
    policy, hook = _who(memory, row)
    now = int(memory.header["now"][0])
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if row < 0:
        return f"error inside the kernel at {now} ns: {what}"
    return f"{policy}: {hook} at {now} ns raised {what}"


def describe_error(memory: HostMemory, code: int) -> str:
    """An illegal answer, in one line: policy, hook, virtual time, answer, what was legal."""
    header = memory.header[0]
    row, answer, about, now = (int(header[n]) for n in ("error_hook", "error_answer", "error_extra", "now"))
    policy, hook = _who(memory, row)
    if code == E_DEADLOCK:
        return f"nothing can happen any more at {now} ns: every thread waits; legal: {LEGAL[code]}"
    if code == E_NO_TIME_IN_TRACE:
        return f"a trace passes without taking time at {now} ns; legal: {LEGAL[code]}"
    if code == E_RAISED:
        return f"{policy}: {hook} at {now} ns raised an exception"
    return f"{policy}: {hook} at {now} ns answered {answer} (about {about}); legal: {LEGAL[code]}"


# alone ---------------------------------------------------------------------------------------------------

_alone: dict[tuple[Any, ...], dict[int, float]] = {}
_alone_lock = threading.Lock()


def alone_rates(
    plan: Plan,
    group: GroupPlan,
    path: tuple[Step, ...],
    horizon_ns: int,
    warmup_ns: int,
    stop: StopFlag | None,
) -> dict[int, float]:
    """Progress of each VM of a group when it has a machine for itself: no hypervisor, no neighbours."""
    host = plan.workload.host
    key = (
        group.trace.digest,
        group.start_ns,
        plan.seed,
        horizon_ns,
        warmup_ns,
        repr(attrs.astuple(host)),
        repr(without_emulation(path)),
        tuple(repr(attrs.astuple(plan.workload.vms[v].spec)) for v in group.vms),
        tuple(sorted(group.tier_vm.items())),
    )
    with _alone_lock:
        known = _alone.get(key)
    if known is not None:
        return known
    memory = build(alone_spec(plan, group, path, horizon_ns, warmup_ns))
    bind(memory, [], interpreted=jit.interpreted())
    _, error = run(memory, stop)
    if error is not None:
        raise UserError(f"trace {group.trace.name} cannot be replayed alone: {error[1]}")
    rates = {vm: readout.progress(memory, i, group.counts_requests(vm)) for i, vm in enumerate(sorted(group.vms))}
    with _alone_lock:
        _alone[key] = rates
    return rates


def alone_spec(plan: Plan, group: GroupPlan, path: tuple[Step, ...], horizon_ns: int, warmup_ns: int) -> HostSpec:
    """The host of an alone run: no hypervisor, no neighbours, the same medium without emulation."""
    vcpus = sum(plan.workload.vms[v].spec.vcpus for v in group.vms)
    host = plan.workload.host
    spec = host_spec(plan, native_cpu(host, vcpus), (group,), horizon_ns, warmup_ns)
    return attrs.evolve(spec, io=native_io(host, path), memory=native_memory(plan, group))


# metrics -------------------------------------------------------------------------------------------------


def vm_metrics(
    plan: Plan, memory: HostMemory, cell: Cell, path: tuple[Step, ...], stop: StopFlag | None
) -> list[dict[str, float | int | str]]:
    """One row a VM, in the workload's order."""
    seconds = max(1, readout.measured_ns(memory)) / readout.NS_PER_S
    rows: dict[int, dict[str, float | int | str]] = {}
    if plan.open_loop:
        return [open_metrics(plan, memory, vm) for vm in range(len(plan.workload.vms))]
    for group in plan.groups:
        alone = alone_rates(plan, group, path, cell.horizon_ns, cell.warmup_ns, stop)
        for vm in group.vms:
            if group.background(vm):
                rows[vm] = {"trace": group.trace.name, **open_metrics(plan, memory, vm)}
                continue
            if alone[vm] <= 0:
                raise UserError(
                    f"{plan.workload.path}: VM {plan.workload.vms[vm].name} completes nothing even alone between "
                    f"{cell.warmup_ns / 1e9:g} s and {cell.horizon_ns / 1e9:g} s; make horizon longer, or start earlier"
                )
            here = readout.progress(memory, vm, group.counts_requests(vm))
            rows[vm] = {
                "name": plan.workload.vms[vm].name,
                "trace": group.trace.name,
                "progress_per_s": here / seconds,
                "alone_per_s": alone[vm] / seconds,
                "slowdown": alone[vm] / here if here > 0 else float("inf"),
                **readout.vm_cpu_metrics(memory, vm),
                **readout.vm_io_metrics(memory, vm),
                **readout.vm_memory_metrics(memory, vm),
            }
    return [rows[vm] for vm in sorted(rows)]


def open_metrics(plan: Plan, memory: HostMemory, vm: int) -> dict[str, float | int | str]:
    """A VM under open-loop replay: it has no slowdown, but response times and a backlog."""
    row = memory.tables["vm"][vm]
    return {
        "name": plan.workload.vms[vm].name,
        "progress_per_s": int(row["marks"]) / (max(1, readout.measured_ns(memory)) / readout.NS_PER_S),
        "backlog_ns": int(row["backlog_ns"]),
        "backlog_growth_ns": int(row["backlog_ns"] - row["backlog_warm_ns"]),
        **readout.vm_cpu_metrics(memory, vm),
        **readout.vm_io_metrics(memory, vm),
        **readout.vm_memory_metrics(memory, vm),
    }


def not_passed(plan: Plan, memory: HostMemory, within_ns: int) -> str:
    """The VMs whose traces take longer than that for their first pass, by name; empty for none."""
    loops = memory.tables["group"]["first_loop_ns"]
    late = [g for i, g in enumerate(plan.groups) if loops[i] == 0 or loops[i] > within_ns]
    return ", ".join(plan.workload.vms[vm].name for vm in sorted(vm for g in late for vm in g.vms))


def short_warmup(plan: Plan, memory: HostMemory, warmup_ns: int) -> list[str]:
    """A sentence where some trace was not passed once within the warm-up: what it meets first, it meets measured."""
    names = not_passed(plan, memory, warmup_ns)
    if not names:
        return []
    warmup = format_duration(warmup_ns)
    return [
        f"{plan.workload.name}: the warm-up of {warmup} is shorter than one pass of the trace of {names}: "
        "what it meets for the first time is measured too."
    ]


def short_measurement(plan: Plan, memory: HostMemory, measured_ns: int) -> list[str]:
    """A sentence where less than one pass of a trace is measured: alone and here, rates are then of different parts."""
    names = "" if plan.open_loop else not_passed(plan, memory, measured_ns)
    if not names:
        return []
    return [
        f"{plan.workload.name}: less than one pass of the trace of {names} is measured: alone and here "
        "these are not the same parts of it, so that a slowdown may be some percent off, and below 1."
    ]


def origins(plan: Plan) -> list[str]:
    """Sentences about traces that are expansions of averages, and about axes of which a trace's source says nothing."""
    name = plan.workload.name
    said: dict[str, list[str]] = {}
    for group in plan.groups:
        meta = group.trace.meta
        sentences = []
        expanded = meta.get("expanded")
        if isinstance(expanded, dict):
            sentences.append(
                f"expanded from averaged demand (rhythm of {expanded.get('donor')}, seed {expanded.get('seed')})"
            )
        if meta.get("silent"):
            sentences.append(f"not asked about {', '.join(map(str, meta['silent']))}: its source says nothing of it")
        for text in sentences:
            said.setdefault(text, []).extend(plan.workload.vms[vm].name for vm in group.vms)
    return [f"{name}: the trace of {', '.join(vms)} is {text}." for text, vms in said.items()]


def short_scan(cell: Cell) -> list[str]:
    """Of a memory workload: a sentence for each policy that looks at memory too slowly to merge before it is measured.

    A scanner is a memory policy whose module has `scan_pass_ns(params, vm_pages)`. It needs two passes: in the first it
    learns what is there, in the second it merges what has stayed.
    """
    if cell.workload.settings.klass != "memory":
        return []
    sizes = tuple(vm.spec.memory_pages for vm in cell.workload.vms)
    pages = sum(sizes)
    said = []
    for policy, params in cell.choices["memory"].policies:
        pass_ns = getattr(policy.module, "scan_pass_ns", None)
        if pass_ns is None:
            continue
        passes = cell.warmup_ns / max(1, pass_ns(params, sizes))
        if passes < SCAN_PASSES:
            said.append(
                f"{cell.workload.name}: {policy.name} makes {int(passes * 100) / 100:g} passes over the VMs' "
                f"{format_pages(pages)} within the warm-up of {format_duration(cell.warmup_ns)}; it needs "
                f"{SCAN_PASSES} before all that is equal can be merged."
            )
    return said


def note_ignored(result: CellResult, cell: Cell) -> None:
    """Mark a result whose workload sets something that the scheduler or the memory policies do not honour."""
    for axis in ("scheduler", "memory"):
        choice = cell.choices[axis]
        honours = frozenset().union(*(policy.honours for policy, _ in choice.policies))
        ignored = list(unhonoured(cell.workload, honours, axis))
        if axis == "scheduler":
            result.ignored = ignored
        else:
            result.ignored_memory = ignored
        result.notes += sentence(cell.workload, choice.label, honours, axis)


def summarise_open(result: CellResult, memory: HostMemory) -> None:
    """Cell-wide metrics under open-loop replay; a VM whose backlog grows by 5 % of the time is overloaded."""
    result.metrics = {**readout.cpu_metrics(memory), **readout.io_metrics(memory), **readout.memory_metrics(memory)}
    result.metrics["backlog_ns"] = sum(int(row["backlog_ns"]) for row in result.vms)
    bound = readout.measured_ns(memory) * OVERLOAD_SHARE
    late = [str(row["name"]) for row in result.vms if float(row["backlog_growth_ns"]) > bound]
    if late:
        result.status = "overloaded"
        result.reason = f"the backlog grows: {', '.join(late)}"


def summarise(result: CellResult, memory: HostMemory) -> None:
    """Cell-wide metrics, and whether some VM made no progress at all."""
    judged = [row for row in result.vms if "slowdown" in row]
    slowdowns = np.array([float(row["slowdown"]) for row in judged])
    stalled = [str(row["name"]) for row in judged if row["progress_per_s"] == 0]
    result.metrics = {**readout.cpu_metrics(memory), **readout.io_metrics(memory), **readout.memory_metrics(memory)}
    if stalled:
        result.status = "stalled"
        result.reason = f"no progress in the measured time: {', '.join(stalled)}"
        return
    rates = 1 / slowdowns
    result.metrics["slowdown_geomean"] = float(np.exp(np.mean(np.log(slowdowns))))
    result.metrics["slowdown_worst"] = float(slowdowns.max())
    result.metrics["fairness_jain"] = float(rates.sum() ** 2 / (len(rates) * (rates**2).sum()))
