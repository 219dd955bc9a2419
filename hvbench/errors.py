"""The errors that hvbench raises on purpose.

`UserError` is anything the person at the keyboard can put right: the command line prints it as one
line and exits with code 2. `PolicyError` is a policy's fault inside a running cell: it costs that cell
and becomes part of the result.
"""

from __future__ import annotations

from attrs import define


class HvbenchError(Exception):
    """Base of every error that hvbench raises on purpose."""


class UserError(HvbenchError):
    """Bad input: what was wrong, where, what is legal, what to do. Exit code 2."""


@define
class PolicyError(HvbenchError):
    """A policy answered something illegal, or raised, inside a cell.

    `policy` and `hook` name the culprit, `now_ns` is the virtual time, `answer` what it said and
    `legal` what it could have said.
    """

    policy: str
    hook: str
    now_ns: int
    answer: str
    legal: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.hook} at {self.now_ns} ns answered {self.answer}; legal: {self.legal}"
