"""A cell: one workload with one choice on each axis and one seed; and what running it gives."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import attrs
from attrs import define, field

from hvbench.axes import AXES
from hvbench.errors import HvbenchError
from hvbench.plugins import Policy, changed_params, params_dict
from hvbench.workload import Workload

STATUSES: tuple[str, ...] = ("ok", "refused", "stalled", "overloaded", "failed", "hung")
"""How a cell ended.

ok: measured. refused: a policy declined the VMs, with its reason. stalled: nothing ran, or time stood still.
overloaded: an open-loop VM's backlog grows. failed: an illegal answer or an exception. hung: a hook did not
return.
"""

BROKEN: frozenset[str] = frozenset({"stalled", "failed", "hung"})
"""Statuses that are a policy's fault and make the exit code 1."""

MEASURED: frozenset[str] = frozenset({"ok", "overloaded"})
"""Statuses whose metrics may be compared."""


class Stopped(HvbenchError):
    """A simulation ended early because its stop flag was set; there is no result."""


class StopFlag(Protocol):
    """What `simulate` polls before each slice of events, the first one included.

    In a worker process each poll is also the sign of life that holds the hang limit off.
    """

    def is_set(self) -> bool: ...


class ThreadStop:
    """A stop flag shared by the threads of one process."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


def label_of(policies: Iterable[tuple[Policy, Any]]) -> str:
    """The text that chooses policies with their parameters."""
    return "+".join(
        ":".join([policy.name, *(f"{name}={text}" for name, text in changed_params(policy, params).items())])
        for policy, params in policies
    )


@define(frozen=True, eq=False)
class Choice:
    """What an axis is set to: one policy with its parameters; on memory possibly a stack, in order.

    `written` is how it was chosen where that says less than `policies`: a named stack by its name.
    """

    axis: str
    policies: tuple[tuple[Policy, Any], ...]
    written: str = ""

    @cached_property
    def label(self) -> str:
        """The text that chooses it again: `credit:timeslice=5ms`, `overcommit+balloon`."""
        return self.written or label_of(self.policies)

    @property
    def is_control(self) -> bool:
        """Whether a deliberately bad policy is part of it."""
        return any(policy.control is not None for policy, _ in self.policies)

    @property
    def from_file(self) -> bool:
        """Whether a policy of it was given as a file."""
        return any(policy.from_file for policy, _ in self.policies)

    def canonical(self) -> list[dict[str, Any]]:
        """Everything of it that can change a result, as plain JSON values."""
        return [
            {"name": policy.name, "source": policy.digest, "params": params_dict(params)}
            for policy, params in self.policies
        ]


@define(frozen=True, eq=False, slots=False)
class Cell:
    """One workload, one choice per axis, one seed, measured over [warmup_ns, horizon_ns)."""

    workload: Workload
    choices: Mapping[str, Choice]
    seed: int
    horizon_ns: int
    warmup_ns: int

    @cached_property
    def key(self) -> str:
        """Digest of everything that can change the result, and of the names it is stored under."""
        text = json.dumps(
            {
                "kernel": source_digest(),
                "name": self.workload.name,
                "workload": _workload_digest(self.workload),
                "choices": {axis: self.choices[axis].canonical() for axis in AXES if axis in self.choices},
                "seed": self.seed,
                "horizon_ns": self.horizon_ns,
                "warmup_ns": self.warmup_ns,
            },
            sort_keys=True,
        )
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def labels(self) -> dict[str, str]:
        """The label of each axis's choice."""
        return {axis: self.choices[axis].label for axis in AXES if axis in self.choices}

    @property
    def needs_process(self) -> bool:
        """Whether a policy came from a file, so that its code may never return."""
        return any(choice.from_file for choice in self.choices.values())

    @property
    def is_control(self) -> bool:
        """Whether a deliberately bad policy takes part."""
        return any(choice.is_control for choice in self.choices.values())

    def describe(self) -> str:
        """For messages: `build: credit, balloon, das, bridged, hardware, type1, seed 1`."""
        return f"{self.workload.name}: {', '.join(self.labels.values())}, seed {self.seed}"


@define
class CellResult:
    """What running a cell gave. Metric names carry their units and stand in `hvbench.metrics`.

    `axis_asks` counts, per axis, the times the kernel reached one of its hooks, insert and admission hooks
    and unimplemented ones (answered by their defaults) included: 0 proves that no other choice there could
    have changed the result. `axis_digest` is a digest of each axis's trace of (hook, arguments, answer).
    `vcpu_ready_ns` has, per VM, how long each of its vCPUs was runnable and waited for a pCPU, ns: its steal.
    `notes` are sentences that the tables must carry (sampled touches, a warm-up shorter than a loop ...);
    `ignored` is what of the workload's settings the scheduler does not honour, `ignored_memory` what the memory
    policies do not (hvbench.honours).
    """

    status: str
    reason: str = ""
    metrics: dict[str, float | int] = field(factory=dict)
    vms: list[dict[str, float | int | str]] = field(factory=list)
    vcpu_ready_ns: list[list[int]] = field(factory=list)
    axis_asks: dict[str, int] = field(factory=dict)
    axis_digest: dict[str, str] = field(factory=dict)
    wall_s: float = 0.0
    events: int = 0
    decisions: int = 0
    notes: list[str] = field(factory=list)
    ignored: list[str] = field(factory=list)
    ignored_memory: list[str] = field(factory=list)

    def to_json(self) -> str:
        """As text for the store."""
        return json.dumps(attrs.asdict(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> CellResult:
        """Back from `to_json`."""
        return cls(**json.loads(text))


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored")


_PRESENTATION = frozenset(
    [
        "cell",
        "choices",
        "compare",
        "debugger",
        "density",
        "drawing",
        "evaluation",
        "executor",
        "export",
        "gate",
        "judge",
        "machine",
        "matrix",
        "metrics",
        "nearest",
        "picture",
        "plugins",
        "pressure",
        "reference",
        "query",
        "scaffold",
        "settings",
        "stats",
        "store",
        "study",
        "tables",
        "words",
        "worker",
        "workload",
    ]
)
"""Modules that carry cells to and from the kernel and cannot change a result (a workload's parsed
values are part of the key by themselves)."""

_APART = frozenset({"cli", "fidelity", "testing"})
"""Packages above the runner: the command line, the conformance kit, and what the model is judged by."""

_MAKES_TRACES = frozenset({("traces", "record"), ("traces", "importers"), ("traces", "synthetic")})
"""What makes traces, whose contents are part of the key."""


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Digest of every source of hvbench that can change a result: not of command line, recorder, tables, bars."""
    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] in _APART or parts[:2] in _MAKES_TRACES or (len(parts) == 1 and parts[0] in _PRESENTATION):
            continue
        digest.update("/".join(parts).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()


_workload_digests: dict[int, tuple[Workload, str]] = {}


def _workload_digest(workload: Workload) -> str:
    """Digest of a workload and its traces, computed once for each workload object."""
    known = _workload_digests.get(id(workload))
    if known is None or known[0] is not workload:
        text = json.dumps(workload.canonical(), sort_keys=True)
        known = workload, hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        _workload_digests[id(workload)] = known
    return known[1]
