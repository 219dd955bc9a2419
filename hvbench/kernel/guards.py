"""What happens to an answer that is not legal: the cell ends, and the error names who said what, when.

Every answer is checked before the kernel acts on it. `fail` keeps the first error of a cell; the loop
stops after the event in which it happened.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit

(
    OK,
    E_RAISED,
    E_VCPU_RANGE,
    E_VCPU_STATE,
    E_SLICE,
    E_PCPU_RANGE,
    E_OUTBOX_FULL,
    E_OUTBOX_KIND,
    E_TIMER,
    E_STANDS_STILL,
    E_NO_TIME_IN_TRACE,
    E_DEADLOCK,
    E_STARVED,
    E_BLOCK,
    E_RANGE,
    E_CAPACITY,
    E_VM_RANGE,
    E_PAGE_RANGE,
    E_PAGE_STATE,
    E_TARGET,
    E_PORT_RANGE,
    E_REQUEST_RANGE,
    E_REFUSED,
    E_COSTOP,
) = range(24)

LEGAL = {
    E_RAISED: "a number; the policy raised an exception instead",
    E_VCPU_RANGE: "-1 (idle) or the index of an entity",
    E_VCPU_STATE: "an entity that is runnable and runs nowhere",
    E_SLICE: "a slice of 1 ns or more (0 or more when idle)",
    E_PCPU_RANGE: "the index of a pCPU, or -1 where none is allowed",
    E_OUTBOX_FULL: "at most as many requests in one hook as the outbox holds",
    E_OUTBOX_KIND: "a request that this axis may make",
    E_TIMER: "a timer number from 0 to 63, a time that is not negative",
    E_STANDS_STILL: "decisions that let virtual time move on",
    E_NO_TIME_IN_TRACE: "a trace in which some operation takes time",
    E_DEADLOCK: "a host on which something can still happen",
    E_STARVED: "a policy under which every VM gets on",
    E_BLOCK: "blocking an entity that is not blocked by this policy, unblocking one that is",
    E_RANGE: "an index inside its table",
    E_CAPACITY: "no more entries than the host's tables have room for",
    E_VM_RANGE: "the index of a VM",
    E_PAGE_RANGE: "a page of that VM",
    E_PAGE_STATE: "a page in a state that allows this",
    E_TARGET: "a target from 0 to the VM's size",
    E_PORT_RANGE: "a port of the switch",
    E_REQUEST_RANGE: "a request that waits",
    E_REFUSED: "VMs that the memory policies let in",
    E_COSTOP: "co-stopping an entity that is not co-stopped, co-starting one that is",
}
"""What would have been legal, by error code."""

RAISED_ANSWER = -(1 << 62)
"""Reserved: a plain-Python hook that raised answers this, and the kernel stops at once."""


@jit
def fail(host: Any, code: int, row: int, answer: int, extra: int) -> None:
    """Keep an error: its code, the hook table's row that is to blame, the answer, what it was about."""
    if host.error == 0:
        host.error = code
        host.error_hook = row
        host.error_answer = answer
        host.error_extra = extra
