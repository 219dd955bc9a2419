"""Inside the process of an evaluation: load the candidate, probe it, run its cells; errors become data."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hvbench.axes import AXES
from hvbench.cell import BROKEN, Cell, CellResult, Stopped
from hvbench.choices import DEFAULT, parse_choice
from hvbench.errors import UserError
from hvbench.evaluation import Outcome, Problem, Request, Result, lines_of
from hvbench.plugins import Policy, Registry, load_registry
from hvbench.stats import geometric_mean
from hvbench.workload import load_workload

EXPLAIN_S = 20.0
"""Wall time spent on running a failed cell again, interpreted, to name the line."""

Send = Callable[[tuple[str, Any]], None]
_RAISED = re.compile(r": (?P<hook>\w+) at \d+ ns (?P<what>raised|answered)")
_COMPILE = re.compile(r": (?P<hook>\w+) cannot be compiled")

_registry: Registry | None = None


class TooManySteps(Exception):
    """A hook executed more lines than it may."""


class Meter:
    """Counts the lines that each call of a candidate's hook executes, and remembers where an exception came from."""

    def __init__(self, file: str, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._depth = 0
        self._steps = 0
        self.most_steps = 0
        self.raised_line = 0
        self.exceeded_line = 0

    def calls(self, frame: FrameType, event: str, argument: Any) -> Any:
        """A global trace function: follows the frames of the candidate's file, and none else."""
        if frame.f_code.co_filename != self._file:
            return None
        if self._depth == 0:
            self._steps = 0
        self._depth += 1
        return self._within

    def _within(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._steps += 1
            self.most_steps = max(self.most_steps, self._steps)
            if self._steps > self._limit:
                self.exceeded_line = self.exceeded_line or frame.f_lineno
                raise TooManySteps(f"more than {self._limit} steps")
        elif event == "exception":
            self.raised_line = frame.f_lineno
        elif event == "return":
            self._depth = max(0, self._depth - 1)
        return self._within

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self.calls)
        try:
            yield
        finally:
            sys.settrace(before)


class _After:
    """A stop flag that lets a cell begin, and ends it at the first look after `events` events or `seconds`."""

    def __init__(self, looks: int = 1, seconds: float = math.inf) -> None:
        self._looks = looks
        self._end = time.monotonic() + seconds
        self._seen = 0

    def is_set(self) -> bool:
        self._seen += 1
        return self._seen > 1 and (self._seen > self._looks or time.monotonic() > self._end)


def judge(request: Request, folder: Path, send: Send) -> Result:
    """Evaluate one candidate; UserError where the question is wrong."""
    global _registry
    if _registry is None:
        _registry = load_registry()
    workloads = [load_workload(name) for name in request.workloads]
    name = "source" if request.is_source else request.candidate
    fixed = {
        axis: parse_choice(axis, request.choices.get(axis) or DEFAULT[axis], _registry)
        for axis in AXES
        if axis != request.axis
    }
    send(("load", None))
    kind = "load"
    try:
        policy, text = _candidate(request, folder, _registry)
        kind = "parameter"
        choice = parse_choice(policy.axis, request.stack.replace("{}", text), _registry)
    except UserError as error:
        message = _local(str(error))
        return Result(name, request.axis or "", "", None, [], [Problem(kind, message, line=lines_of(message))], 0.0)
    send(("work", None))
    if policy.axis in request.choices:
        raise UserError(
            f"the candidate {_local(policy.name)} is a {policy.axis} policy itself: leave out the choice "
            f"{policy.axis} {request.choices[policy.axis]}"
        )
    fixed[choice.axis] = choice
    problems: list[Problem] = []
    cells: list[Outcome] = []
    for workload in workloads:
        for seed in request.seeds:
            cell = Cell(workload, fixed, seed, workload.horizon_ns, workload.warmup_ns)
            send(("work", Problem("", "", workload=workload.name, seed=seed)))
            problem = _probe(cell, policy, request)
            if problem is None:
                outcome, problem = _run(cell, policy, send)
                cells.append(outcome)
            if problem is not None:
                problems.append(problem)
    slowdowns = [float(c.metrics["slowdown_geomean"]) for c in cells if "slowdown_geomean" in c.metrics]
    whole = not problems and len(slowdowns) == len(workloads) * len(request.seeds)
    score = geometric_mean(slowdowns) if whole else None
    label = name if request.is_source else choice.label
    return Result(label, choice.axis, policy.digest, score, cells, problems, 0.0)


def _candidate(request: Request, folder: Path, registry: Registry) -> tuple[Policy, str]:
    """The candidate, loaded, and the text that chooses it."""
    text = request.candidate
    if request.is_source:
        digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        file = folder / f"candidate_{digest}.py"
        file.write_text(text, encoding="utf-8")
        text = str(file)
    name = text.split(":", 1)[0] if not request.is_source else text
    if name.endswith(".py") or "/" in name:
        policy = registry.load_file(Path(name))
    else:
        axes = [request.axis] if request.axis else [a for a in AXES if (a, name) in registry.policies]
        if not axes:
            from hvbench.nearest import did_you_mean

            known = sorted({policy.name for policy in registry.policies.values()})
            raise UserError(f"no policy {name!r}{did_you_mean(name, known, always=True)}")
        if len(axes) > 1:
            raise UserError(f"{name!r} is on the axes {' and '.join(axes)}; say which: axis={axes[0]!r}")
        policy = registry.get(axes[0], name)
    if request.axis is not None and policy.axis != request.axis:
        raise UserError(f"it is a policy of the axis {policy.axis}, not {request.axis}")
    return policy, text


def _local(message: str) -> str:
    """A message without the name that the candidate's source was written under."""
    return re.sub(r"(?:[^\s'\"(]*/)?candidate[_-][0-9a-f]{16}", "candidate", message)


@contextmanager
def _interpreting() -> Iterator[None]:
    before = os.environ.get("HVBENCH_INTERPRET")
    os.environ["HVBENCH_INTERPRET"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HVBENCH_INTERPRET"]
        else:
            os.environ["HVBENCH_INTERPRET"] = before


def _interpreted(cell: Cell, policy: Policy, limit: int, stop: _After) -> tuple[Meter, CellResult | None]:
    """Run the beginning of a cell interpreted and metered; None where it was stopped before it ended."""
    from hvbench.executor import run_one
    from hvbench.simulate import simulate

    meter = Meter(str(policy.module.__file__), limit)
    with _interpreting(), meter.watching():
        try:
            return meter, run_one(simulate, cell, stop)
        except Stopped:
            return meter, None


def _probe(cell: Cell, policy: Policy, request: Request) -> Problem | None:
    """Run the first events interpreted: too many steps, exceptions and illegal answers are found with their line."""
    events = request.limits.probe_events
    if events == 0:
        return None
    from hvbench.simulate import EVENTS_A_SLICE_INTERPRETED

    looks = 1 + -(-events // EVENTS_A_SLICE_INTERPRETED)
    meter, result = _interpreted(cell, policy, request.limits.hook_steps, _After(looks))
    if meter.exceeded_line:
        hook = ""
        if result is not None and (found := _RAISED.search(result.reason)):
            hook = found["hook"]
        limit = request.limits.hook_steps
        message = f"{_local(policy.name)}: {hook or 'a hook'} took more than {limit} steps in one call"
        return Problem("steps", message, hook, meter.exceeded_line, cell.workload.name, cell.seed)
    return None if result is None else _problem(cell, policy, result, meter)


def _run(cell: Cell, policy: Policy, send: Send) -> tuple[Outcome, Problem | None]:
    from hvbench.executor import run_one
    from hvbench.simulate import simulate
    from hvbench.worker import SignOfLife

    result = run_one(simulate, cell, SignOfLife(send))
    send(("work", None))
    outcome = Outcome(
        cell.workload.name,
        cell.seed,
        result.status,
        _local(result.reason),
        cell.labels,
        _measured(result.metrics),
        [_measured(vm) for vm in result.vms],
        result.axis_digest,
        result.decisions,
        result.events,
        [_local(note) for note in result.notes],
    )
    problem = _problem(cell, policy, result, None)
    if problem is not None and problem.line == 0 and problem.kind == "exception":
        meter, again = _interpreted(cell, policy, sys.maxsize, _After(sys.maxsize, EXPLAIN_S))
        if again is not None:
            problem = _problem(cell, policy, again, meter) or problem
    return outcome, problem


def _measured(values: dict[str, Any]) -> dict[str, Any]:
    """Without what was not measured, so that equal results compare as equal."""
    return {name: value for name, value in values.items() if value == value}


def _problem(cell: Cell, policy: Policy, result: CellResult, meter: Meter | None) -> Problem | None:
    """What is wrong with a cell's result, if anything is."""
    if result.status not in BROKEN and result.status != "refused":
        return None
    reason = result.reason
    hook, line, kind = "", lines_of(reason), result.status
    if found := _COMPILE.search(reason):
        kind, hook = "compile", found["hook"]
    elif found := _RAISED.search(reason):
        hook = found["hook"]
        kind = "exception" if found["what"] == "raised" else "illegal"
        if result.status == "stalled":
            kind = "stalled"
        if meter is not None and kind == "exception":
            line = meter.raised_line
        elif kind != "exception":
            line = _first_line(policy, hook)
    elif result.status == "failed":
        kind = "internal"
    return Problem(kind, _local(reason), hook, line, cell.workload.name, cell.seed)


def _first_line(policy: Policy, hook: str) -> int:
    code = getattr(getattr(policy.module, hook, None), "__code__", None)
    return 0 if code is None else int(code.co_firstlineno)
