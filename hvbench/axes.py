"""The six axes of a matrix, and which hooks belong to which."""

from __future__ import annotations

from collections.abc import Mapping

MOST_SEEDS = 10_000
"""Most seeds of a matrix."""

DECISION_AXES: tuple[str, ...] = ("scheduler", "memory", "storage", "switch")
"""Axes whose policies are code that is called at every decision."""

COST_AXES: tuple[str, ...] = ("technique", "host")
"""Axes whose plugins are tables of costs: the decision was taken by whoever built the machine."""

AXES: tuple[str, ...] = DECISION_AXES + COST_AXES

POLICY_AXES: tuple[str, ...] = ("scheduler", "memory")
"""Axes analysed as policies; the others are equipment (medium, path, switch, technique, host)."""

EQUIPMENT_AXES: tuple[str, ...] = ("storage", "switch", "technique", "host")

STACKING_AXES: tuple[str, ...] = ("memory",)
"""Axes on which a choice may be several policies, in order."""

MAX_STACK = 8
"""Memory slots of the kernel: a stack is never higher, so that a new stack compiles nothing."""

HOOK_AXIS: Mapping[str, str] = {
    "sched_": "scheduler",
    "mem_": "memory",
    "blk_": "storage",
    "net_": "switch",
    "tech_": "technique",
    "host_": "host",
}
"""Prefix of a hook's name -> the axis it belongs to. `hvbench_` hooks belong to none."""

COARSE_PREFIX = "hvbench_"

COARSE_AXES: Mapping[str, str] = {
    "hvbench_memory_stack": "memory",
    "hvbench_technique_costs": "technique",
    "hvbench_host_costs": "host",
    "hvbench_storage_path": "storage",
    "hvbench_switch_config": "switch",
}
"""Hooks that are called once a cell, in plain Python, and the axis that implements them."""


def axis_of_hook(name: str) -> str | None:
    """The axis a hook belongs to by its name; None for other `hvbench_*` hooks and for anything else."""
    return COARSE_AXES.get(name) or next((axis for prefix, axis in HOOK_AXIS.items() if name.startswith(prefix)), None)


def looks_like_hook(name: str) -> bool:
    """Whether a function's name claims to be a hook."""
    return name.startswith((COARSE_PREFIX, *HOOK_AXIS))
