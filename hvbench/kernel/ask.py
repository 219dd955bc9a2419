"""Calling a policy: one place, which counts and records every question and every answer."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import digest_call, invoke, mix
from hvbench.kernel.guards import E_RAISED, RAISED_ANSWER, fail

AXIS_SCHEDULER, AXIS_STORAGE, AXIS_SWITCH, AXIS_MEMORY = 0, 1, 2, 3


@jit
def ask(host: Any, axis: int, row: int, a: int, b: int, c: int, d: int, e: int, default: int) -> int:
    """Call the hook in row `row`; `default` is the answer where nobody implements it.

    The call is recorded for the axis whether or not the policy implements the hook: results may be shared between
    policies only if neither was asked anything.
    """
    entry = host.hook[row]
    answer = default
    if entry.address != 0:
        host.hook_row = row
        answer = invoke(host, row, a, b, c, d, e)
        host.hook_row = -1
        if answer == RAISED_ANSWER:
            fail(host, E_RAISED, row, 0, a)
            answer = default
    record = host.axis[axis]
    record.asks += 1
    record.digest = digest_call(record.digest, row, a, b, c, d, e, answer)
    return answer


@jit
def note_read(host: Any, axis: int, digest: int) -> None:
    """Record that the kernel read what a policy of this axis stated as data."""
    record = host.axis[axis]
    record.asks += 1
    record.digest = mix(record.digest, digest)


@jit
def tell(host: Any, axis: int, row: int, a: int, b: int) -> None:
    """Call a notify hook of the start, if anybody implements it: else there is nothing to record."""
    if host.hook[row].address != 0:
        ask(host, axis, row, a, b, 0, 0, 0, 0)
