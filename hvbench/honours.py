"""What a `[[vm]]` may ask of a scheduler or a memory policy, and which of it the chosen one does not honour.

A policy states what it honours in a module constant, `HONOURS = frozenset({"weight", "pinning"})`, which the loader
checks against the properties of its axis. One without that constant honours nothing; a stack of memory policies honours
what one of its layers does. What a workload sets and its policy ignores is said by `hvbench plugins`, by a note of the
cell, and by the row of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hvbench.workload import DEFAULT_WEIGHT, VmGroup, Workload

PROPERTIES: Mapping[str, str] = {
    "weight": "shares of the processors in proportion to `weight`",
    "cap": "no more than `cap` percent of a pCPU",
    "reservation": "at least `cpu_reservation` percent of a pCPU, whatever the weights",
    "pinning": "only the pCPUs of `affinity`",
    "realtime": "`budget` in every `period` of [vm.realtime], for each vCPU",
    "warp": "ahead of others by `ahead` of [vm.warp] when woken",
}
"""What a scheduler may honour, with what honouring it means."""

MEMORY_PROPERTIES: Mapping[str, str] = {"limit": "no more than `memory_limit` of machine memory"}
"""The same of memory policies. `memory_reservation` is the kernel's own rule, and `memory_shares` counts only for
policies that take memory away."""


def properties_of(axis: str) -> Mapping[str, str]:
    """What policies of an axis may honour; nothing on axes of which a `[[vm]]` sets nothing."""
    return {"scheduler": PROPERTIES, "memory": MEMORY_PROPERTIES}.get(axis, {})


def set_by(group: VmGroup) -> list[str]:
    """The properties that a `[[vm]]` table sets to something else than their defaults, in order."""
    found = {
        "weight": group.weight != DEFAULT_WEIGHT,
        "cap": group.cap_percent > 0,
        "reservation": group.cpu_reservation_percent > 0,
        "pinning": bool(group.affinity),
        "realtime": group.realtime.period_ns > 0,
        "warp": group.warp.ahead_ns > 0,
    }
    found["limit"] = 0 < group.memory_limit_pages < group.memory_pages
    return [name for name in (*PROPERTIES, *MEMORY_PROPERTIES) if found[name]]


def unhonoured(workload: Workload, honours: Iterable[str], axis: str = "scheduler") -> dict[str, list[str]]:
    """What a workload sets and a policy that honours `honours` ignores: property -> names of the VMs that set it."""
    honoured = set(honours)
    found: dict[str, list[str]] = {}
    for name in properties_of(axis):
        vms = [vm.name for vm in workload.vms if name in set_by(vm.spec)]
        if vms and name not in honoured:
            found[name] = vms
    return found


def sentence(workload: Workload, label: str, honours: Iterable[str], axis: str = "scheduler") -> list[str]:
    """The note of a cell: empty, or one sentence that names policy, properties and VMs."""
    ignored = unhonoured(workload, honours, axis)
    if not ignored:
        return []
    what = "; ".join(f"{name} of {', '.join(vms)}" for name, vms in ignored.items())
    return [f"{workload.name}: {axis} {label} does not honour what the workload sets: {what}."]
