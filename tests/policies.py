"""Small policies as text, for tests that need files, and helpers that write and load them."""

from __future__ import annotations

from pathlib import Path

GOOD = '''
"""Fixed slices in turn.

Overview: an example.
"""

from __future__ import annotations

import attrs

from hvbench.policy import hookimpl, param


@attrs.frozen
class Params:
    timeslice_ns: int = param(5_000_000, unit="ns", help="slice", source="here", low=1, high=10**12)
    other: int = param(3, help="a count")
    share: float = param(0.5, unit="ratio", help="a share")
    boost: bool = param(False, help="a switch")


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return helper(-1), host.params.timeslice_ns


def helper(x):
    return x
'''

SMALL = '''
"""The smallest."""

from hvbench.policy import hookimpl


@hookimpl
def sched_wake(host, vcpu, now):
    pass
'''


def write(folder: Path, name: str, text: str = GOOD) -> Path:
    """A policy file in `folder`."""
    path = folder / f"{name}.py"
    path.write_text(text)
    return path
