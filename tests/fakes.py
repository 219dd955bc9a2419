"""A stand-in for `hvbench.simulate.simulate`: results that depend on the cell alone, quickly or slowly.

What it does is steered by the parameters of the fake policies (`DELAY`), so that it works in worker
processes too, where a test cannot patch anything.
"""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import attrs

from hvbench.axes import AXES
from hvbench.cell import Cell, CellResult, Choice, StopFlag, Stopped
from hvbench.plugins import Policy, Registry, bind_params
from hvbench.workload import Workload, parse_workload
from tests.policies import write

CALLS: list[str] = []
"""Keys of the cells computed in this process."""
SILENT: set[str] = set()
"""Axes that `simulate` reports as never asked."""
_lock = threading.Lock()

BEHAVIOUR = '''
"""A policy whose parameters tell the fake simulator what to do."""

import attrs
from hvbench.policy import hookimpl, param


@attrs.frozen
class Params:
    effect: int = param(0, help="slowdown in percent")
    sleep_ns: int = param(0, unit="ns", help="wall time that the cell takes")
    mode: int = param(0, help="1 refuse, 2 fail, 3 hang deaf, 4 die, 5 stall, 6 raise, 7 hang polling")
    note: int = param(0, help="1 writes its process id beside the policy file")


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return -1, 0
'''


def simulate(cell: Cell, stop: StopFlag | None) -> CellResult:
    """Slowdown is the product of all effects, times one in a thousand for each seed; memory counts double."""
    with _lock:
        CALLS.append(cell.key)
    started = time.perf_counter()
    slowdown = 1.0 + cell.seed / 1000
    if stop is not None and stop.is_set():
        raise Stopped("stopped")
    for axis, choice in cell.choices.items():
        for policy, params in choice.policies:
            if axis not in SILENT:
                slowdown *= 1 + params.effect / 100
            if params.note and policy.path is not None:
                policy.path.with_suffix(f".{os.getpid()}.pid").touch()
            end = started + params.sleep_ns / 1e9
            while time.perf_counter() < end:
                time.sleep(0.01)
                if stop is not None and stop.is_set():
                    raise Stopped("stopped")
            result = _misbehave(params.mode, policy, stop)
            if result is not None:
                return result
    return CellResult(
        "ok",
        metrics={
            "slowdown_geomean": slowdown,
            "slowdown_worst": slowdown * 1.1,
            "fairness_jain": 1 / slowdown,
        },
        vms=[{"name": vm.name, "slowdown": slowdown} for vm in cell.workload.vms],
        axis_asks={axis: 0 if axis in SILENT else 10 for axis in AXES},
        axis_digest={axis: "" if axis in SILENT else cell.labels[axis] for axis in AXES},
        wall_s=time.perf_counter() - started,
        events=1000,
        decisions=100,
    )


def _misbehave(mode: int, policy: Policy, stop: StopFlag | None) -> CellResult | None:
    if mode == 1:
        return CellResult("refused", f"{policy.name}: too large")
    if mode == 2:
        return CellResult("failed", f"{policy.name}: sched_pick_next at 5 ns answered 9; legal: 0 to 3")
    if mode == 3:
        while True:
            time.sleep(0.05)
    if mode == 4:
        os._exit(7)
    if mode == 5:
        return CellResult("stalled", f"{policy.name}: nothing ran")
    if mode == 6:
        raise ZeroDivisionError(f"{policy.name} divided")
    while mode == 7 and stop is not None and not stop.is_set():
        time.sleep(0.01)
    return None


WORKLOAD = """
format = 1
[workload]
name = "{name}"
class = "micro"
horizon = "2s"
warmup = "1s"
[host]
pcpus = 2
memory = "1GiB"
[[vm]]
name = "vm"
count = 2
memory = "256MiB"
trace = "./t.parquet"
image = ""
"""


def make_workload(folder: Path, name: str = "fake") -> Workload:
    """A workload whose trace is any file: the fake never reads it."""
    (folder / "t.parquet").write_bytes(b"no trace")
    path = folder / f"{name}.toml"
    path.write_text(WORKLOAD.format(name=name))
    return parse_workload(path.read_text(), path)


def make_policy(folder: Path) -> Policy:
    """The behaving policy, loaded from a file."""
    return Registry().load_file(write(folder, "behaviour", BEHAVIOUR))


def choice(policy: Policy, axis: str, name: str, *, file: bool = False, **settings: int) -> Choice:
    """A choice called `name` on `axis`; `file` makes it run in a worker process."""
    named = attrs.evolve(policy, axis=axis, name=name, path=policy.path if file else None)
    return Choice(axis, ((named, bind_params(named, {key: str(value) for key, value in settings.items()})),))


def make_choices(policy: Policy, *, file: bool = False, **axes: list[Choice]) -> dict[str, list[Choice]]:
    """Choices for all axes: the given ones, and one that does nothing on each other axis."""
    return {axis: axes.get(axis, [choice(policy, axis, f"{axis}-0", file=file)]) for axis in AXES}


def is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9)
