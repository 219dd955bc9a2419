"""The policy under test, and one way to run it on a story."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import attrs
import numpy as np

from hvbench import simulate
from hvbench.axes import DECISION_AXES
from hvbench.binding import Around, Chosen, Loop, bind
from hvbench.build import HostSpec, build
from hvbench.build_io import IoSpec, storage_path, switch_config
from hvbench.jit import interpreted as interpreting
from hvbench.kernel.guards import E_REFUSED
from hvbench.plugins import Policy, Registry, bind_params, load_registry
from hvbench.stacks import is_stack, layers_of
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.testing.story import Story

MODES = ("compiled", "plain", "interpreted")
SLOTS = {
    "scheduler": schema.SCHEDULER_SLOT,
    "storage": schema.STORAGE_SLOT,
    "switch": schema.SWITCH_SLOT,
    "memory": schema.FIRST_MEMORY_SLOT,
}

Look = Callable[[HostMemory], None]


@lru_cache(maxsize=1)
def _installed() -> Registry:
    """Where a named stack's layers are found."""
    return load_registry()


@attrs.frozen(eq=False)
class Subject:
    """A policy with parameters."""

    policy: Policy
    params: Any

    @property
    def axis(self) -> str:
        return self.policy.axis

    @property
    def name(self) -> str:
        return self.policy.name

    def with_params(self, **values: Any) -> Subject:
        """The same policy with other values of some parameters."""
        return attrs.evolve(self, params=attrs.evolve(self.params, **values))

    def chosen(self) -> list[Chosen]:
        """The policy as the binder takes it."""
        p = self.policy
        if p.axis not in DECISION_AXES:
            return []
        layers = layers_of(p, self.params, _installed()) if is_stack(p) else [(p, self.params)]
        return [Chosen(SLOTS[p.axis] + i, x.name, x.module, params, x.digest) for i, (x, params) in enumerate(layers)]

    def spec(self, story: Story) -> HostSpec:
        """The story's host, with the path or the switch that the policy states."""
        spec = story.spec()
        if self.axis == "storage":
            path = storage_path(self.policy.module, self.params)
            spec = attrs.evolve(spec, io=attrs.evolve(spec.io or IoSpec(), path=path))
        elif self.axis == "switch":
            switch = switch_config(self.policy.module, self.params)
            spec = attrs.evolve(spec, io=attrs.evolve(spec.io or IoSpec(), switch=switch))
        return spec


def subject_of(policy: Policy) -> Subject:
    """A policy with its default parameters."""
    return Subject(policy, bind_params(policy, {}))


@attrs.define
class Ran:
    """A host that has run. `status` is ok, refused, stalled or failed, `reason` why."""

    memory: HostMemory
    status: str
    reason: str

    def table(self, name: str) -> Any:
        """A table of the host."""
        return self.memory.tables[name]

    @property
    def events(self) -> int:
        return int(self.memory.header["events"][0])

    @property
    def decisions(self) -> int:
        """Questions that the policy's axis was asked."""
        return int(self.memory.tables["axis"]["asks"].sum())

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal where the same host is run again: what was asked and answered, and what came of it."""
        t = self.memory.tables
        found: dict[str, Any] = {
            "status": [self.status, self.reason],
            "hooks": [int(x) for x in t["axis"]["digest"]],
            "asks": [int(x) for x in t["axis"]["asks"]],
            "events": self.events,
        }
        columns = {
            "vcpu": ("ran_ns", "ready_ns", "dispatches", "migrations"),
            "vm": ("work_done_ns", "marks", "overhead_ns"),
            "pcpu": ("guest_ns", "idle_ns", "hypervisor_ns"),
            "vm_io": ("disk_wait_ns", "disk_read_requests", "net_tx_bytes", "net_rx_bytes", "frames_dropped"),
            "vmem": ("host_swap_out_pages", "ballooned", "shared", "resident"),
        }
        for table, names in columns.items():
            for name in names:
                found[f"{table}.{name}"] = [int(x) for x in t[table][name]]
        return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first figure in which two fingerprints differ, empty where none does."""
    for name, value in one.items():
        if value != other.get(name):
            return f"{name}: {_short(value)} and {_short(other.get(name))}"
    return ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def default_mode() -> str:
    """Hooks as plain Python under the compiled kernel: nothing to compile, and errors with their line."""
    return "interpreted" if interpreting() else "plain"


@contextmanager
def _interpreting(wanted: bool) -> Iterator[None]:
    before = os.environ.get("HVBENCH_INTERPRET")
    os.environ["HVBENCH_INTERPRET"] = "1" if wanted else ""
    try:
        yield
    finally:
        if before is None:
            del os.environ["HVBENCH_INTERPRET"]
        else:
            os.environ["HVBENCH_INTERPRET"] = before


Sign = Callable[[str], None]
"""Told what is about to happen: `bind` (which may compile), `run`, `idle`."""

_signs: list[Sign] = []


def tell_signs_to(sign: Sign) -> None:
    """Have `sign` told of every phase from now on: a process that watches this one knows when to wait no longer."""
    _signs.append(sign)


def phase(name: str) -> None:
    """Say that a phase begins."""
    for sign in _signs:
        sign(name)


def run(
    subject: Subject,
    story: Story,
    mode: str = "",
    *,
    look: Look | None = None,
    events: int = 1_000_000,
    around: Around | None = None,
) -> Ran:
    """Run a story to its horizon; `look` sees the host's memory every `events` events, and at the end."""
    mode = mode or default_mode()
    phase("bind")
    memory = build(subject.spec(story))
    with _interpreting(mode == "interpreted"):
        policies = subject.chosen()
        bind(memory, policies, interpreted=mode == "interpreted", plain_python=mode == "plain", around=around)
        return drive(memory, mode, look, events)


def drive(memory: HostMemory, mode: str, look: Look | None, events: int) -> Ran:
    """Boot a bound host and run it to its horizon."""
    phase("run")
    try:
        return _drive(memory, mode, look, events)
    finally:
        phase("idle")


def _drive(memory: HostMemory, mode: str, look: Look | None, events: int) -> Ran:
    if look is None:
        _, broken = simulate.run(memory, None)
    else:
        broken = _run_in_slices(memory, Loop(memory, mode == "interpreted"), look, events)
    if int(memory.header["error"][0]) == E_REFUSED:
        return Ran(memory, "refused", "a VM was not admitted")
    return Ran(memory, *(broken or ("ok", "")))


def _run_in_slices(memory: HostMemory, loop: Loop, look: Look, events: int) -> tuple[str, str] | None:
    try:
        loop.boot()
        while loop.run(events) == 0:
            look(memory)
        if not memory.exceptions and not memory.header["error"][0]:
            look(memory)
    except Exception as error:
        row = int(memory.header["hook_row"][0])
        if row < 0:
            raise
        return "failed", simulate.describe_exception(memory, row, error)
    return simulate.verdict(memory)


def equal_tables(one: HostMemory, other: HostMemory) -> bool:
    """Whether two hosts hold the same bytes in the tables that time changes."""
    return all(np.array_equal(one.tables[n], other.tables[n]) for n in ("vcpu", "pcpu", "vm", "thread"))
