"""How a check is declared, and what comes of it.

    @check("one-pcpu", DECISION_AXES, "runs on a host of one pCPU", how="...")
    def one_pcpu(lab: Lab) -> str:
        ...
        raise Violated("what the policy did wrong", story)
        return "what was measured"

A check that names a `claim` is judged only for policies that make it; for others what was found is reported.
"""

from __future__ import annotations

import enum
import linecache
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from hvbench.errors import UserError
from hvbench.testing.claims import promises

if TYPE_CHECKING:
    from hvbench.testing.lab import Lab


class Status(enum.StrEnum):
    """What came of a check."""

    PASS = "pass"
    FAIL = "FAIL"
    ERROR = "ERROR"
    NOT_CLAIMED = "not claimed"
    NOT_APPLICABLE = "not applicable"
    EXPECTED_FAILURE = "expected failure"
    UNEXPECTED_PASS = "unexpected pass"


BAD = frozenset({Status.FAIL, Status.ERROR, Status.UNEXPECTED_PASS})
"""Statuses for which `hvbench check` ends with exit code 1."""

RAN = frozenset({Status.PASS, Status.FAIL, Status.ERROR, Status.EXPECTED_FAILURE, Status.UNEXPECTED_PASS})


class Violated(Exception):
    """The policy broke what a check demands: why in one line, and the story that shows it."""

    def __init__(self, reason: str, story: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.story = list(story)


class NotApplicable(Exception):
    """There is nothing to check: why."""


@attrs.frozen
class Check:
    """A declared check. `how` is the paragraph that the documentation prints."""

    id: str
    axes: tuple[str, ...]
    title: str
    how: str
    run: Callable[[Lab], str]
    claim: str = ""


@attrs.frozen
class Outcome:
    """What came of one check of one policy."""

    check: str
    title: str
    status: Status
    detail: str = ""
    claim: str = ""
    story: tuple[str, ...] = ()
    wall_s: float = 0.0


NOT_TRIED = "not tried"
"""How the detail of a check begins that was given up because the policy hung or died in others."""

REGISTRY: list[Check] = []


def check(
    name: str, axes: Iterable[str], title: str, *, how: str, claim: str = ""
) -> Callable[[Callable[[Lab], str]], Callable[[Lab], str]]:
    """Declare a check for these axes."""

    def declare(function: Callable[[Lab], str]) -> Callable[[Lab], str]:
        made = Check(name, tuple(axes), title, " ".join(how.split()), function, claim)
        for axis in made.axes:
            if any(c.id == name and axis in c.axes for c in REGISTRY):
                raise ValueError(f"there are two checks {name!r} on the axis {axis}")
        REGISTRY.append(made)
        return function

    return declare


def perform(one: Check, lab: Lab, expected: str | None = None) -> Outcome:
    """Run a check; `expected` says why it is known to fail. Never raises."""
    started = time.perf_counter()
    lab.judged = not one.claim or one.claim in promises(lab.subject.policy)
    status, detail, story = _attempt(one, lab)
    if not lab.judged and status in (Status.PASS, Status.FAIL):
        found = "it holds here" if status is Status.PASS else "it does not hold"
        status, detail, story = Status.NOT_CLAIMED, f"{found}: {detail}", []
    elif expected is not None and status is Status.FAIL:
        status, detail = Status.EXPECTED_FAILURE, f"{expected} ({detail})" if expected else detail
    elif expected is not None and status is Status.PASS:
        status, detail = Status.UNEXPECTED_PASS, f"was expected to fail ({expected or 'no reason given'}): {detail}"
    return Outcome(one.id, one.title, status, detail, one.claim, tuple(story), time.perf_counter() - started)


def _attempt(one: Check, lab: Lab) -> tuple[Status, str, list[str]]:
    try:
        return Status.PASS, one.run(lab), []
    except Violated as error:
        return Status.FAIL, error.reason, error.story
    except NotApplicable as error:
        return Status.NOT_APPLICABLE, str(error), []
    except UserError as error:
        # what the binder and the layout of a host refuse, they refuse because of the policy
        return Status.FAIL, str(error), []
    except Exception as error:
        return Status.ERROR, where(error), []


def where(error: BaseException) -> str:
    """An exception as one line: what it says (an assertion: what it demands), and where it rose."""
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split())
    if not frames:
        return f"{type(error).__name__}: {text}"
    last = frames[-1]
    if isinstance(error, AssertionError):
        demanded = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip().removeprefix("assert ")
        text = f"{text} ({demanded})" if text else demanded
    return f"{type(error).__name__}: {text} ({last.filename.rsplit('/', 1)[-1]}:{last.lineno})"
