"""The kit in a process of its own: a policy that hangs, or ends the process, costs that process and one check.

The child loads the policy and makes the checks one by one. It says when a check begins and when a host is bound, run
and done; a run that gives no sign of its end in time is a hook that does not return. The child is then killed, the
check has failed, and another child makes those that are left.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from hvbench.errors import UserError
from hvbench.plugins import Policy
from hvbench.testing.checks import NOT_TRIED, Check, Outcome, Status
from hvbench.testing.kit import Report, known_checks

WORK_S = 600.0
"""Longest time for what is not a run: loading, compiling for the first time, making a failure short."""
INTERPRETED_FACTOR = 30
MOST_LOSSES = 3
"""Lost children after which the checks that are left are not tried."""


@attrs.frozen
class Task:
    """What a child is to do, as plain data."""

    path: Path | None
    axis: str | None
    name: str
    effort: str
    ids: tuple[str, ...] | None
    expected: Mapping[str, str]
    limit_s: float


@attrs.define
class _Child:
    process: Any
    connection: Connection
    traceback: Path


def check_apart(
    name: str,
    axis: str | None = None,
    *,
    effort: str = "normal",
    only: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    limit_s: float = 10.0,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Report]:
    """Check every policy of that name (a file, `axis.name`, a name), each in a process of its own."""
    from_file = name.endswith(".py") or "/" in name
    path = Path(name) if from_file else None
    if from_file:
        return [_check_one(Task(path, axis, name, effort, tuple(only) or None, expected or {}, limit_s), on_outcome)]
    from hvbench.testing.kit import find_policies

    return [
        _check_one(Task(None, p.axis, p.name, effort, tuple(only) or None, expected or {}, limit_s), on_outcome)
        for p in find_policies(name, axis)
    ]


def _check_one(task: Task, on_outcome: Callable[[Outcome], None]) -> Report:
    started = time.monotonic()
    facts: dict[str, Any] = {}
    outcomes: list[Outcome] = []
    left: list[str] | None = None if task.ids is None else list(task.ids)
    losses = 0

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    while left is None or left:
        child = _start(attrs.evolve(task, ids=None if left is None else tuple(left)))
        current, lost = "", ""
        try:
            for kind, content in _messages(child, task.limit_s):
                if kind == "facts":
                    facts = facts or content
                    left = list(content["ids"])
                elif kind == "begin":
                    current = content
                elif kind == "outcome":
                    add(content)
                    assert left is not None
                    left.remove(content.check)
                    current = ""
                elif kind == "bad input":
                    raise UserError(content)
                elif kind == "lost":
                    lost = content
        finally:
            _end(child)
        if not lost:
            break
        if left is None or not facts:
            raise UserError(f"{task.name}: {lost} while it was loaded")
        losses += 1
        if current:
            add(_lost(facts["axis"], current, f"{facts['policy']}: {lost}"))
            left.remove(current)
        if losses >= MOST_LOSSES or not current:
            for check in list(left):
                add(_lost(facts["axis"], check, f"{NOT_TRIED}: {facts['policy']} was lost in {losses} checks before"))
            break
    return Report(
        facts["policy"], facts["axis"], facts["origin"], facts["digest"], tuple(facts["claims"]), task.effort,
        tuple(outcomes), facts["known"], time.monotonic() - started, task.ids is not None,
    )  # fmt: skip


def _lost(axis: str, name: str, reason: str) -> Outcome:
    made: Check = next(c for c in known_checks(axis) if c.id == name)
    return Outcome(name, made.title, Status.FAIL, reason, made.claim)


# the parent's side ------------------------------------------------------------------------------------------------


def _start(task: Task) -> _Child:
    # spawn: a forked child would inherit whatever the parent has loaded and locked
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    handle, name = tempfile.mkstemp(prefix="hvbench-check-")
    os.close(handle)
    process = context.Process(target=_serve, args=(theirs, task, name), daemon=True)
    process.start()
    theirs.close()
    return _Child(process, ours, Path(name))


def _messages(child: _Child, limit_s: float) -> Any:
    """What the child says; at last ("lost", why) where it hung or died."""
    from hvbench.testing.lab import is_interpreted

    running_s = limit_s * (INTERPRETED_FACTOR if is_interpreted() else 1)
    allowed, deadline = WORK_S, time.monotonic() + WORK_S
    while True:
        try:
            if child.connection.poll(max(0.0, min(0.5, deadline - time.monotonic()))):
                kind, content = child.connection.recv()
                if kind == "done":
                    return
                allowed = running_s if kind == "phase" and content == "run" else WORK_S
                deadline = time.monotonic() + allowed
                if kind != "phase":
                    yield kind, content
            elif time.monotonic() >= deadline:
                yield "lost", f"a hook did not return within {allowed:g} s{_place(child)}"
                return
        except (EOFError, OSError):
            child.process.join(1.0)
            yield "lost", f"it ended the process{_code(child.process.exitcode)}"
            return


def _place(child: _Child) -> str:
    """Where the child hangs: the innermost line that is not the kit's own."""
    if child.process.pid is None or not hasattr(signal, "SIGUSR1"):
        return ""
    with contextlib.suppress(OSError):
        os.kill(child.process.pid, signal.SIGUSR1)
        time.sleep(0.3)
    text = child.traceback.read_text(errors="replace")
    for file, line, function in re.findall(r'File "([^"]+)", line (\d+) in (\S+)', text):
        if f"{os.sep}hvbench{os.sep}" not in file and "threading.py" not in file:
            return f" (at {os.path.basename(file)}:{line} in {function})"
    return ""


def _code(code: int | None) -> str:
    if code is None:
        return ""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f" ({signal.Signals(-code).name})"
    return f" with exit code {code}"


def _end(child: _Child) -> None:
    child.process.join(0.5)
    if child.process.is_alive():
        child.process.kill()
        child.process.join(2.0)
    child.connection.close()
    child.traceback.unlink(missing_ok=True)


# the child's side -------------------------------------------------------------------------------------------------


def _serve(connection: Connection, task: Task, traceback_file: str) -> None:
    """A child's life: load, check, tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stays = open(traceback_file, "w")  # noqa: SIM115  (for as long as the process lives)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, file=stays, all_threads=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # whatever a policy prints goes to standard error: standard output is the report's
    os.dup2(2, 1)
    with contextlib.suppress(EOFError, OSError):
        try:
            _work(connection, task)
        except UserError as error:
            connection.send(("bad input", str(error)))
        connection.send(("done", None))


def _work(connection: Connection, task: Task) -> None:
    from hvbench.testing.kit import check_policy, find_policies, references_for, selection
    from hvbench.testing.subject import tell_signs_to

    policy: Policy = find_policies(str(task.path) if task.path is not None else task.name, task.axis)[0]
    checks = selection(policy.axis, task.ids or ())
    connection.send(
        (
            "facts",
            {
                "policy": policy.name,
                "axis": policy.axis,
                "origin": policy.origin,
                "digest": policy.digest,
                "claims": sorted(policy.claims),
                "known": len(checks),
                "ids": [c.id for c in checks],
            },
        )
    )
    _compile_kernel()
    last_s, last_name = 0.0, ""

    def sign(name: str) -> None:
        nonlocal last_s, last_name
        # a host of a few events takes a millisecond: not every one of them has to be told
        now = time.monotonic()
        if now - last_s > 0.2 or (name == "run") != (last_name == "run"):
            last_s, last_name = now, name
            connection.send(("phase", name))

    tell_signs_to(sign)
    references = references_for(policy, task.effort) if any(c.id == "cost" for c in checks) else []
    check_policy(
        policy,
        effort=task.effort,
        only=[c.id for c in checks],
        expected=task.expected,
        references=references,
        on_begin=lambda check: connection.send(("begin", check.id)),
        on_outcome=lambda outcome: connection.send(("outcome", outcome)),
    )


def _compile_kernel() -> None:
    """Compile what every run needs before any of them has to come to its end in time."""
    from hvbench.binding import COMPILED
    from hvbench.testing.lab import is_interpreted

    if not is_interpreted():
        COMPILED.run()
        COMPILED.shim()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
