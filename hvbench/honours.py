"""What a `[[vm]]` may ask of a scheduler, and which of it the chosen scheduler does not honour.

A scheduler states what it honours in a module constant, `HONOURS = frozenset({"weight", "pinning"})`, which the loader
checks against `PROPERTIES`. One without that constant honours nothing. What a workload sets and its scheduler ignores
is said by `hvbench plugins`, by a note of the cell, and by the row of a table.
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
"""What may be honoured, with what honouring it means. Memory has settings of its own."""


def set_by(group: VmGroup) -> list[str]:
    """The properties that a `[[vm]]` table sets to something else than their defaults, in the order of PROPERTIES."""
    found = {
        "weight": group.weight != DEFAULT_WEIGHT,
        "cap": group.cap_percent > 0,
        "reservation": group.cpu_reservation_percent > 0,
        "pinning": bool(group.affinity),
        "realtime": group.realtime.period_ns > 0,
        "warp": group.warp.ahead_ns > 0,
    }
    return [name for name in PROPERTIES if found[name]]


def unhonoured(workload: Workload, honours: Iterable[str]) -> dict[str, list[str]]:
    """What a workload sets and a scheduler that honours `honours` ignores: property -> names of the VMs that set it."""
    honoured = set(honours)
    found: dict[str, list[str]] = {}
    for name in PROPERTIES:
        vms = [vm.name for vm in workload.vms if name in set_by(vm.spec)]
        if vms and name not in honoured:
            found[name] = vms
    return found


def sentence(workload: Workload, label: str, honours: Iterable[str]) -> list[str]:
    """The note of a cell: empty, or one sentence that names scheduler, properties and VMs."""
    ignored = unhonoured(workload, honours)
    if not ignored:
        return []
    what = "; ".join(f"{name} of {', '.join(vms)}" for name, vms in ignored.items())
    return [f"{workload.name}: scheduler {label} does not honour what the workload sets: {what}."]
