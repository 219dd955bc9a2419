"""What a decision costs must not grow with the host: lines of a scheduler's code that run for each event.

The host of `tests.bench.scale`, interpreted; lines are counted, not time, so that the figures are the same everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from hvbench.binding import Loop, bind
from hvbench.build import build
from tests.bench import scale
from tests.builders import S, bundled, chosen

PCPUS = {"small": 4, "large": 32}
LINES_FACTOR_BAR = 2.5
"""Lines for each event on the large host over those on the small one: eight times as many pCPUs and vCPUs."""


def lines_per_event(policy: ModuleType, pcpus: int, events: int = 800) -> float:
    """Lines of the policy's folder that run for each of so many events, after as many that are not counted."""
    folder = str(Path(str(policy.__file__)).parent)
    memory = build(scale.host_spec(pcpus, 10_000 * S))
    bind(memory, [chosen(policy)], interpreted=True)
    loop = Loop(memory, True)
    loop.boot()
    loop.run(events)
    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        nonlocal lines
        if event == "line":
            lines += 1
        return trace if frame.f_code.co_filename.startswith(folder) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        loop.run(events)
    finally:
        sys.settrace(before)
    return lines / events


@pytest.mark.parametrize("name", ["credit2", "cosched_strict", "lottery"])
def test_a_decision_costs_about_as_much_on_a_large_host(name: str) -> None:
    """With walks over all pCPUs, or all that wait, the factors are 2.7, 10 and 8."""
    small, large = (lines_per_event(bundled(name), pcpus) for pcpus in PCPUS.values())
    assert 0 < large < LINES_FACTOR_BAR * small
