"""Worker processes for cells with policies from files: code that nobody installed may never return.

The parent sends a cell as plain data, the worker loads the policies again and computes it. Each poll of
the stop flag inside `simulate` is a sign of life; a worker that gives none for `Limits.hook_s` is killed and
its cell is `hung`. A worker ends when its parent does, however that died.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field

from hvbench.cell import Cell, CellResult, Choice, StopFlag, Stopped
from hvbench.errors import UserError
from hvbench.plugins import Policy, Registry, load_registry, params_dict
from hvbench.workload import Workload


@define(frozen=True)
class Limits:
    """How long a worker may be silent, in seconds of wall time."""

    start_s: float = 300.0
    """Until the first slice of events begins: imports, and the first compilation ever, happen here."""
    hook_s: float = 10.0
    """Between two slices of events: a hook that does not return."""


@define(frozen=True)
class PolicySpec:
    """A policy by where it is found, with the digest it must have."""

    axis: str
    name: str
    path: Path | None
    digest: str
    params: dict[str, Any]


@define(frozen=True)
class CellSpec:
    """A cell as plain data that crosses to another process."""

    workload: Workload
    choices: dict[str, tuple[PolicySpec, ...]]
    written: dict[str, str]
    seed: int
    horizon_ns: int
    warmup_ns: int


def spec_of(cell: Cell) -> CellSpec:
    """A cell as data."""
    return CellSpec(
        cell.workload,
        {
            axis: tuple(
                PolicySpec(axis, policy.name, policy.path, policy.digest, params_dict(params))
                for policy, params in choice.policies
            )
            for axis, choice in cell.choices.items()
        },
        {axis: choice.written for axis, choice in cell.choices.items()},
        cell.seed,
        cell.horizon_ns,
        cell.warmup_ns,
    )


def cell_of(spec: CellSpec, registry: Registry) -> Cell:
    """A cell from data; UserError where a policy is gone or has changed meanwhile."""
    return Cell(
        spec.workload,
        {
            axis: Choice(axis, tuple(_policy_of(policy, registry) for policy in policies), spec.written.get(axis, ""))
            for axis, policies in spec.choices.items()
        },
        spec.seed,
        spec.horizon_ns,
        spec.warmup_ns,
    )


def _policy_of(spec: PolicySpec, registry: Registry) -> tuple[Policy, Any]:
    policy = registry.get(spec.axis, spec.name) if spec.path is None else registry.load_file(spec.path)
    if policy.digest != spec.digest:
        raise UserError(f"{policy.origin}: changed while the matrix was running; run it again")
    if policy.name != spec.name:
        policy = attrs.evolve(policy, name=spec.name)
    return policy, None if policy.params_class is None else policy.params_class(**spec.params)


# --- the parent's side ---------------------------------------------------------------------------------


@define(eq=False)
class WorkerProcess:
    """One worker process, started when first needed and again after it was killed. Used by one thread."""

    simulate: str
    limits: Limits
    stop: StopFlag
    _process: Any = field(default=None, init=False)
    _connection: Connection | None = field(default=None, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def run(self, cell: Cell) -> CellResult:
        """The cell's result; `hung` or `failed` where the worker was lost. Raises Stopped and UserError."""
        started = time.monotonic()
        connection = self._connected()
        try:
            connection.send(spec_of(cell))
            kind, content = self._answer(connection)
        except (EOFError, OSError):
            kind, content = "died", None
        wall_s = time.monotonic() - started
        if kind == "result":
            result: CellResult = content
            return result
        if kind == "bad input":
            raise UserError(content)
        if kind == "error":
            raise RuntimeError(f"in a worker process: {content}")
        code = self.kill()
        if self.stop.is_set():
            raise Stopped("stopped")
        if kind == "silent":
            return CellResult("hung", f"{_culprits(cell)}: {content}", wall_s=wall_s)
        return CellResult("failed", f"{_culprits(cell)}: the worker process died{_death(code)}", wall_s=wall_s)

    def _connected(self) -> Connection:
        with self._lock:
            if self.stop.is_set():
                raise Stopped("stopped")
            if self._process is None or not self._process.is_alive() or self._connection is None:
                # spawn: a forked child would inherit the locks that other threads hold just now.
                context = multiprocessing.get_context("spawn")
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, self.simulate), daemon=True)
                process.start()
                theirs.close()
                self._process, self._connection = process, ours
            return self._connection

    def _answer(self, connection: Connection) -> tuple[str, Any]:
        """The worker's answer, or ("silent", why) when it gave no sign of life for too long."""
        limit_s, what = self.limits.start_s, "did not begin within"
        deadline = time.monotonic() + limit_s
        while True:
            if connection.poll(min(0.2, max(0.0, deadline - time.monotonic()))):
                kind, content = connection.recv()
                if kind != "alive":
                    return kind, content
                limit_s, what = self.limits.hook_s, "a hook did not return within"
                deadline = time.monotonic() + limit_s
            elif self.stop.is_set():
                return "stopped", None
            elif time.monotonic() >= deadline:
                return "silent", f"{what} {limit_s:g} s"

    def kill(self) -> int | None:
        """Kill the worker; returns its exit code where it had ended by itself. Any thread may call it."""
        with self._lock:
            process, self._process = self._process, None
            connection, self._connection = self._connection, None
        if process is None:
            return None
        # A dying process closes its pipe a moment before it can be waited for.
        process.join(0.2)
        code: int | None = process.exitcode
        process.kill()
        process.join(1.0)
        if connection is not None:
            connection.close()
        return code

    def close(self) -> None:
        """Let the worker end."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.send(None)
            connection.close()
        if process is not None:
            process.join(1.0)
            process.kill()


def _culprits(cell: Cell) -> str:
    """The policies from files of a cell: the only ones that a worker process is lost to."""
    names = [
        f"{policy.axis} {policy.name}" for c in cell.choices.values() for policy, _ in c.policies if policy.from_file
    ]
    return " or ".join(names)


def _death(code: int | None) -> str:
    if code is None:
        return ""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f" ({signal.Signals(-code).name})"
    return f" (exit code {code})"


# --- the worker's side ---------------------------------------------------------------------------------


class SignOfLife:
    """The stop flag of a worker: never set (its parent kills it), but each poll tells the parent so."""

    EVERY_S = 0.05

    def __init__(self, send: Callable[[tuple[str, Any]], None]) -> None:
        self._send = send
        self._last_s = -1.0

    def is_set(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s >= self.EVERY_S:
            self._last_s = now_s
            self._send(("alive", None))
        return False


def _serve(connection: Connection, simulate_name: str) -> None:
    """A worker's life: cells in, results out, until the parent closes the pipe or dies."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    from hvbench.executor import load_simulate, run_one

    registry = load_registry()
    with contextlib.suppress(EOFError, OSError):
        while (spec := connection.recv()) is not None:
            try:
                cell = cell_of(spec, registry)
                answer: tuple[str, Any] = (
                    "result",
                    run_one(load_simulate(simulate_name), cell, SignOfLife(connection.send)),
                )
            except UserError as error:
                answer = "bad input", str(error)
            except Exception:
                answer = "error", traceback.format_exc()
            connection.send(answer)


def end_with_parent() -> None:
    """Workers that outlive a killed parent would stay for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
