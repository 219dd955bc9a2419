"""Stepping through a policy's decisions with pdb, in interpreted mode."""

from __future__ import annotations

import bdb
import inspect
import pdb
from collections.abc import Callable, Iterator
from typing import IO, Any

from hvbench.cell import Cell, CellResult
from hvbench.errors import UserError
from hvbench.plugins import Policy
from hvbench.store import Row, row_of


class Debugger(pdb.Pdb):
    """pdb that begins by going on to the first breakpoint, and ends a run quietly on `q`."""

    def __init__(self, stdin: IO[str] | None = None, stdout: IO[str] | None = None) -> None:
        super().__init__(stdin=stdin, stdout=stdout, nosigint=True, readrc=False)
        if stdin is not None:
            self.use_rawinput = False
        self.prompt = "(hvbench) "
        self.rcLines.append("continue")  # the first stop is before anything has happened
        self.left = False

    def set_quit(self) -> None:
        """The user has had enough (what is raised then may be taken for a policy's exception)."""
        self.left = True
        super().set_quit()


def hook_lines(policy: Policy) -> Iterator[tuple[str, str, int]]:
    """(hook, file, first line of its body) of each hook of a policy."""
    for hook in policy.hooks:
        function = getattr(policy.module, hook, None)
        code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
        if code is not None:
            first = min((line for _, _, line in code.co_lines() if line and line > code.co_firstlineno), default=None)
            if first is not None:
                yield hook, code.co_filename, first


def step_through(
    cell: Cell,
    stdin: IO[str] | None = None,
    stdout: IO[str] | None = None,
    simulate: Callable[..., CellResult] | None = None,
) -> Row:
    """Run a cell under the debugger; UserError where the user quits."""
    from hvbench.simulate import simulate as run

    chosen = [policy for choice in cell.choices.values() for policy, _ in choice.policies]
    wanted = [policy for policy in chosen if policy.from_file] or chosen
    debugger = Debugger(stdin, stdout)
    for policy in wanted:
        for _, file, line in hook_lines(policy):
            problem = debugger.set_break(file, line)
            if problem:
                raise UserError(f"{file}:{line}: no breakpoint: {problem}")
    results: list[Any] = []

    def go() -> None:
        results.append((simulate or run)(cell))

    try:
        debugger.runcall(go)
    except bdb.BdbQuit:
        pass
    finally:
        debugger.clear_all_breaks()
    if debugger.left or not results:
        raise UserError("the debugger was left before the cell had ended; there is no result")
    return row_of(cell, results[0])
