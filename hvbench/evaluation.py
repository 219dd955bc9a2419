"""A judge for programs that search for policies: source or file in, a score and errors as data out.

    >>> from hvbench import evaluate
    >>> result = evaluate("credit:timeslice=5ms", workloads=["build"])
    >>> result.score                              # geometric mean of slowdowns; None where a cell has none

The candidate is loaded and run in a process of its own: whatever it does (an endless loop, `os._exit`, a crash) costs
that process, and comes back as a `Problem`. The same candidate gives the same bits. Each hook has two limits: so many
*steps* (lines of Python in one call, counted in an interpreted probe of the first events of every cell, so that they
are the same on every machine), and so much wall time for whatever the probe did not reach. `Evaluator` keeps the
process between candidates.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from hvbench.errors import UserError

KINDS = (
    "load",
    "parameter",
    "compile",
    "steps",
    "exception",
    "illegal",
    "stalled",
    "refused",
    "hung",
    "died",
    "internal",
)
"""What may be wrong with a candidate.

load: it does not import, or is no policy (a wrong hook name, a missing argument ...). parameter: a value that its
parameters do not take. compile: Numba cannot compile a hook. steps: a hook took more steps than the limit. exception: a
hook raised. illegal: a hook answered what is not legal. stalled: under it nothing ran, or time stood still. refused: it
declined the workload's VMs. hung: a hook did not return in time. died: it ended its process. internal: an error inside
hvbench.
"""

RECYCLE = 200
"""Candidates after which the process is made anew: each leaves its module and its compiled code in it."""


@attrs.frozen
class Limits:
    """What a candidate may take; times are wall time in seconds."""

    load_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Importing it."""
    hook_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """A hook that does not return."""
    hook_steps: int = attrs.field(default=100_000, validator=attrs.validators.ge(1))
    """Lines that one call of a hook may execute in the probe."""
    probe_events: int = attrs.field(default=2_000, validator=attrs.validators.ge(0))
    """Events of each cell that the probe runs, interpreted; 0 leaves it out."""
    total_s: float = attrs.field(default=600.0, validator=attrs.validators.gt(0))
    """The whole evaluation; the kernel's first compilation ever (a minute or so) counts too."""


@attrs.frozen
class Problem:
    """What went wrong. `line` is a line of the candidate's source, 0 where none can be named."""

    kind: str
    message: str
    hook: str = ""
    line: int = 0
    workload: str = ""
    seed: int = 0


@attrs.frozen
class Outcome:
    """One cell: metrics carry their units in their names (`hvbench.metrics`)."""

    workload: str
    seed: int
    status: str
    reason: str
    choices: dict[str, str]
    metrics: dict[str, float | int]
    vms: list[dict[str, float | int | str]]
    digests: dict[str, str]
    """A digest for each axis of every (hook, arguments, answer)."""
    decisions: int
    events: int
    notes: list[str] = attrs.field(factory=list)
    """What qualifies the result: sampled touches, a hook that Numba cannot compile and that ran as plain Python ..."""


@attrs.frozen
class Result:
    """What an evaluation gave. `score` is better when it is smaller."""

    candidate: str
    axis: str
    digest: str
    """blake2b-128 of the policy's source."""
    score: float | None
    """Geometric mean over cells of the geometric mean slowdown; None unless every cell has one."""
    cells: list[Outcome]
    problems: list[Problem]
    wall_s: float

    @property
    def ok(self) -> bool:
        """Whether every cell was measured."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what is not finite becomes a text, so that it is legal JSON."""
        return {"ok": self.ok, **_plain(attrs.asdict(self))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


@attrs.frozen
class Request:
    """What is evaluated, as data that crosses to another process."""

    candidate: str
    is_source: bool
    axis: str | None
    workloads: tuple[str, ...]
    choices: Mapping[str, str]
    stack: str
    seeds: tuple[int, ...]
    limits: Limits


def evaluate(
    policy: str | Path,
    workloads: Sequence[str] = ("build",),
    *,
    axis: str | None = None,
    choices: Mapping[str, str] | None = None,
    stack: str = "{}",
    seeds: Sequence[int] = (1,),
    limits: Limits | None = None,
) -> Result:
    """Score a policy on workloads.

    `policy` is source (a text of several lines), the path of a `.py` file, or a choice as on the command line
    (`credit:timeslice=5ms`). `workloads` are names or files. `axis` is needed only for a choice whose name is on
    several axes. `choices` sets the other axes (default: those of `hvbench run`). `stack` puts a memory policy among
    others: `"{}+overcommit"`. Never raises for what a candidate does; UserError where the question itself is wrong
    (an unknown workload, a bad limit).
    """
    with Evaluator() as judge:
        return judge.evaluate(policy, workloads, axis=axis, choices=choices, stack=stack, seeds=seeds, limits=limits)


class Evaluator:
    """Evaluates one candidate after the other in a process that is kept; lost ones are replaced."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Any = None
        self._done = 0

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def evaluate(
        self,
        policy: str | Path,
        workloads: Sequence[str] = ("build",),
        *,
        axis: str | None = None,
        choices: Mapping[str, str] | None = None,
        stack: str = "{}",
        seeds: Sequence[int] = (1,),
        limits: Limits | None = None,
    ) -> Result:
        """As `hvbench.evaluate`."""
        request = _request(policy, workloads, axis, choices or {}, stack, seeds, limits or Limits())
        started = time.monotonic()
        if self._done >= RECYCLE:
            self.close()
        connection = self._connected()
        self._done += 1
        connection.send(request)
        kind, content, seen = self._answer(request, started)
        if kind == "bad input":
            raise UserError(content)
        if kind == "result":
            result: Result = content
            return attrs.evolve(result, wall_s=time.monotonic() - started)
        self._kill()
        name = "source" if request.is_source else request.candidate
        return Result(name, axis or "", "", None, [], [attrs.evolve(seen, kind=kind, message=content)],
                      time.monotonic() - started)  # fmt: skip

    def _answer(self, request: Request, started: float) -> tuple[str, Any, Problem]:
        """(kind, content, where the candidate was): what the process says at last, or why it says nothing."""
        limits = request.limits
        end = started + limits.total_s
        allowed_s, what = limits.total_s, "the evaluation did not end"
        deadline = end
        seen = Problem("", "")
        while True:
            now = time.monotonic()
            try:
                if self._connection.poll(max(0.0, min(0.2, deadline - now))):
                    kind, content = self._connection.recv()
                    if kind in ("result", "bad input"):
                        return kind, content, seen
                    if kind == "load":
                        allowed_s, what = limits.load_s, "it was not imported"
                    elif kind == "alive":
                        allowed_s, what = limits.hook_s, "a hook did not return"
                    else:  # compiling and everything else that is not the candidate's
                        allowed_s, what = limits.total_s, "the evaluation did not end"
                        seen = content or seen
                    deadline = min(end, time.monotonic() + allowed_s)
                    if deadline == end:
                        allowed_s, what = limits.total_s, "the evaluation did not end"
                elif now >= deadline:
                    return "hung", f"{what} within {allowed_s:g} s", seen
            except (EOFError, OSError):
                self._process.join(1.0)
                code = self._process.exitcode
                return "died", f"it ended its process{'' if code is None else f' with exit code {code}'}", seen

    def _connected(self) -> Any:
        if self._process is None or not self._process.is_alive():
            # spawn: a forked child would inherit the locks that other threads hold just now.
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._done = 0
        return self._connection

    def _kill(self) -> None:
        self._process.kill()
        self._process.join(1.0)
        self._connection.close()
        self._process = None

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._connection.send(None)
            self._process.join(0.5)
            self._kill()


def _request(
    policy: str | Path,
    workloads: Sequence[str],
    axis: str | None,
    choices: Mapping[str, str],
    stack: str,
    seeds: Sequence[int],
    limits: Limits,
) -> Request:
    from hvbench.axes import AXES

    text = str(policy)
    is_source = isinstance(policy, str) and "\n" in policy
    if isinstance(workloads, str):
        workloads = (workloads,)
    unknown = [name for name in choices if name not in AXES]
    if unknown:
        raise UserError(f"choices: {unknown[0]!r} is no axis; legal: {', '.join(AXES)}")
    if axis is not None and axis not in AXES:
        raise UserError(f"axis: {axis!r} is no axis; legal: {', '.join(AXES)}")
    if stack.count("{}") != 1:
        raise UserError(f"stack: {stack!r} must have one {{}}, where the candidate stands")
    if not workloads or not seeds:
        raise UserError("workloads and seeds: at least one of each is needed")
    bad = [seed for seed in seeds if isinstance(seed, bool) or not isinstance(seed, int) or seed < 1]
    if bad:
        raise UserError(f"seeds: {bad[0]!r} is no whole number from 1 on")
    return Request(text, is_source, axis, tuple(workloads), dict(choices), stack, tuple(seeds), limits)


# the process's side -----------------------------------------------------------------------------------------------


def _serve(connection: Any) -> None:
    """A judge's life: requests in, results out, until the parent closes the pipe or dies."""
    import os
    import signal
    import threading

    from hvbench.worker import end_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.dup2(2, 1)  # whatever a candidate prints is not the caller's output
    from hvbench.judge import judge

    with contextlib.suppress(EOFError, OSError), tempfile.TemporaryDirectory(prefix="hvbench-evaluate-") as folder:
        while (request := connection.recv()) is not None:
            try:
                connection.send(("result", judge(request, Path(folder), connection.send)))
            except UserError as error:
                connection.send(("bad input", str(error)))


def lines_of(message: str) -> int:
    """The line of a file that a message names (`mine.py:12`, `(line 12)`), 0 where it names none."""
    found = re.search(r"\.py:(\d+)|\(line (\d+)\)", message)
    return int(found[1] or found[2]) if found else 0
