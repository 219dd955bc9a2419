"""Small hosts from Python lists, schedulers from text, and one way to run them.

    spec = host([vm([[compute(5_000), sleep(1_000)]], vcpus=2), vm(...)], pcpus=4, horizon_ns=1_000_000)
    done = run(spec, scheduler(RANDOM_LEGAL), mode="interpreted")
    assert done.error is None and done.pcpu["idle_ns"].sum() == 0
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import numpy as np

from hvbench import readout, simulate
from hvbench.binding import Chosen, Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, HostThreadSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.related import source_digest
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.traces.format import OPS

ROOT = Path(__file__).resolve().parent.parent

US = 1_000
MS = 1_000_000
S = 1_000_000_000

MODES = ("compiled", "plain", "interpreted")

# operations ------------------------------------------------------------------------------------------------

Op = tuple[str, int, int, int]
"""Name, x, a, b: a row of table op."""


def compute(user_ns: int, kernel_ns: int = 0) -> Op:
    return ("compute", -1, user_ns, kernel_ns)


def sleep(duration_ns: int) -> Op:
    return ("sleep", -1, duration_ns, 0)


def outside(duration_ns: int) -> Op:
    return ("outside", -1, duration_ns, 0)


def wait() -> Op:
    return ("wait", -1, 0, 0)


def wake(peer: int) -> Op:
    """Wake thread `peer` of the same group."""
    return ("wake", peer, 0, 0)


def lock(number: int) -> Op:
    return ("lock", number, 0, 0)


def unlock(number: int) -> Op:
    return ("unlock", number, 0, 0)


def barrier(number: int, threads: int) -> Op:
    return ("barrier", number, 0, threads)


def mark_begin() -> Op:
    return ("mark_begin", -1, 0, 0)


def mark_end() -> Op:
    return ("mark_end", -1, 0, 0)


# hosts -----------------------------------------------------------------------------------------------------


@attrs.frozen
class VmPlan:
    """A VM and what its threads do; with `clients`, threads outside the host."""

    threads: tuple[tuple[Op, ...], ...]
    clients: tuple[tuple[Op, ...], ...]
    locks: int
    start_ns: int
    settings: dict[str, int]


def vm(
    threads: Sequence[Sequence[Op]],
    *,
    clients: Sequence[Sequence[Op]] = (),
    start_ns: int = 0,
    **settings: int,
) -> VmPlan:
    """A VM whose threads do these operations, over and over; `settings` are VmSpec's (vcpus, weight, cap ...)."""
    named = [op[1] for thread in (*threads, *clients) for op in thread if op[0] in ("lock", "unlock", "barrier")]
    return VmPlan(
        tuple(tuple(t) for t in threads),
        tuple(tuple(t) for t in clients),
        max(named, default=-1) + 1,
        start_ns,
        {"vcpus": 1, **settings},
    )


def host(
    vms: Sequence[VmPlan],
    *,
    pcpus: int = 1,
    horizon_ns: int = MS,
    warmup_ns: int = 0,
    seed: int = 0,
    host_threads: tuple[HostThreadSpec, ...] = (),
    **cpu: Any,
) -> HostSpec:
    """A host with these VMs, each replaying a group of its own; `cpu` are CpuSpec's costs (all 0 by default)."""
    rows: list[Op] = []
    groups = []
    for number, plan in enumerate(vms):
        threads = []
        for is_outside, listed in ((False, plan.threads), (True, plan.clients)):
            for ops in listed:
                threads.append(ThreadSpec(number, len(rows), len(rows) + len(ops), outside=is_outside))
                rows.extend(ops)
        groups.append(GroupSpec(tuple(threads), start_ns=plan.start_ns, locks=plan.locks))
    table = schema.TABLES["op"].layout.zeros(max(1, len(rows)))
    for at, (name, x, a, b) in enumerate(rows):
        table[at] = (OPS[name], 0, x, a, b)
    return HostSpec(
        cpu=CpuSpec(pcpus=pcpus, **cpu),
        vms=tuple(VmSpec(group=number, **plan.settings) for number, plan in enumerate(vms)),
        groups=tuple(groups),
        ops=table,
        privileged=no_privileged(),
        host_threads=host_threads,
        horizon_ns=horizon_ns,
        warmup_ns=warmup_ns,
        seed=seed,
    )


# policies --------------------------------------------------------------------------------------------------

@lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="hvbench-tests-"))


HEADER = '''
"""A policy of a test."""

from attrs import frozen

from hvbench.policy import *
from hvbench.policy import hookimpl, param, state

'''


_writing = threading.Lock()


def scheduler(body: str, name: str = "made") -> ModuleType:
    """A policy module from text; everything that hvbench.policy exports stands in it already."""
    text = HEADER + body
    # named by its content: the same text is compiled once, in every run
    path = _folder() / f"{name}_{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}.py"
    with _writing:
        # two threads of a test must not read a file that the other is writing
        if not path.exists():
            path.write_text(text)
        return load_file(path)


def load_file(path: Path) -> ModuleType:
    """Import a policy file under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"hvbench_test_policies.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def bundled(name: str, axis: str = "scheduler") -> ModuleType:
    """A policy of this repository by its file's name."""
    try:
        return importlib.import_module(f"hvbench_plugins.{axis}.{name}")
    except ModuleNotFoundError:
        return load_file(ROOT / "plugins" / axis / f"{name}.py")


def chosen(module: ModuleType, slot: int = schema.SCHEDULER_SLOT, **params: Any) -> Chosen:
    """A policy as the binder takes it."""
    kind = getattr(module, "Params", None)
    name = str(module.__name__).rsplit(".", 1)[-1]
    return Chosen(slot, name, module, kind(**params) if kind else None, source_digest(module))


# running ---------------------------------------------------------------------------------------------------


@attrs.define
class Done:
    """A host that has run: its tables, and the error that ended it, if one did."""

    memory: HostMemory
    error: tuple[str, str] | None

    def __getattr__(self, name: str) -> Any:
        if name in schema.TABLES:
            return self.memory.tables[name]
        if name in schema.SCALARS:
            return int(self.memory.header[name][0])
        raise AttributeError(name)

    @property
    def reason(self) -> str:
        """Why the cell ended early; fails where it did not."""
        assert self.error is not None, "the cell ended well"
        return self.error[1]

    def fingerprint(self) -> dict[str, Any]:
        """Everything that must be equal where the same cell is run again: digests and all metrics."""
        found: dict[str, Any] = {
            "digests": [int(d) for d in self.axis["digest"]],
            "asks": [int(n) for n in self.axis["asks"]],
            "error": self.error,
        }
        found.update(readout.cpu_metrics(self.memory))
        for number in range(len(self.vm)):
            found.update({f"{number}.{k}": v for k, v in readout.vm_cpu_metrics(self.memory, number).items()})
            found[f"{number}.work"] = int(self.vm["work_done_ns"][number])
            found[f"{number}.marks"] = int(self.vm["marks"][number])
        return {k: (repr(v) if isinstance(v, float) else v) for k, v in found.items()}


@contextmanager
def _interpreted(wanted: bool) -> Iterator[None]:
    before = os.environ.get("HVBENCH_INTERPRET")
    if wanted:
        os.environ["HVBENCH_INTERPRET"] = "1"
    try:
        yield
    finally:
        if wanted:
            if before is None:
                del os.environ["HVBENCH_INTERPRET"]
            else:
                os.environ["HVBENCH_INTERPRET"] = before


def run(
    spec: HostSpec,
    policy: ModuleType | Chosen | None = None,
    mode: str = "compiled",
    observers: tuple[Any, ...] = (),
    **params: Any,
) -> Done:
    """Build, bind, boot and run a host to its horizon, as `hvbench.simulate` does."""
    memory = build(spec)
    policies = [] if policy is None else [policy if isinstance(policy, Chosen) else chosen(policy, **params)]
    with _interpreted(mode == "interpreted"):
        bind(
            memory,
            policies,
            interpreted=mode == "interpreted",
            plain_python=mode == "plain",
            observers=observers,
        )
        _, error = simulate.run(memory, None)
    return Done(memory, error)


def run_in_slices(
    spec: HostSpec,
    policy: ModuleType,
    events: int,
    look: Callable[[HostMemory], None],
    mode: str = "interpreted",
    **params: Any,
) -> Done:
    """Run a host, `events` at a time, and have `look` at its memory between the slices."""
    memory = build(spec)
    bind(memory, [chosen(policy, **params)], interpreted=mode == "interpreted", plain_python=mode == "plain")
    loop = Loop(memory, mode == "interpreted")
    loop.boot()
    while loop.run(events) == 0:
        look(memory)
    look(memory)
    code = int(memory.header["error"][0])
    return Done(memory, ("failed", simulate.describe_error(memory, code)) if code else None)


def who_ran(spec: HostSpec, policy: ModuleType, **params: Any) -> dict[int, list[tuple[int, int]]]:
    """By pCPU, whoever ran there and from when on (-1: it idled), interpreted, looked at after every event."""
    seen: dict[int, list[tuple[int, int]]] = {p: [] for p in range(spec.cpu.pcpus)}

    def look(memory: HostMemory) -> None:
        now = int(memory.header["now"][0])
        for p, current in enumerate(numbers(memory.tables["pcpu"]["current"])):
            if now < spec.horizon_ns and (not seen[p] or seen[p][-1][1] != current):
                seen[p].append((now, current))

    done = run_in_slices(spec, policy, 1, look, **params)
    assert done.error is None, done.error
    return seen


def numbers(values: Any) -> list[int]:
    """A column as a list of Python integers."""
    return [int(v) for v in np.asarray(values)]


