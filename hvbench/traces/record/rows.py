"""What the builder's parts pass to each other: threads, processes, rows under construction."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, field

from hvbench.traces.format import PRIVILEGED

WAIT_CLASSES = ("thread_edge", "timer", "disk", "network", "outside", "unknown")


@define(eq=False)
class Row:
    """An operation under construction.

    The operation "slot" is none of the format: there a thread blocked for a packet, and the receive that follows
    may belong there. `at` are further columns; while rows are being collected it may also hold `space`/`file`/`socket`
    (what later becomes object or flow) and, for waits, the edge.
    """

    op: str
    time: int
    at: dict[str, Any] = field(factory=dict)


@define(eq=False)
class Process:
    """One process from its start (or the recording's) to its end; `names` are all that it was known by."""

    pid: int
    index: int
    names: set[str] = field(factory=set)
    threads: list[Thread] = field(factory=list)
    started: bool = False  # inside the recording
    exited_ns: int = -1
    calls: Counter[int] = field(factory=Counter)  # system calls made, by number
    tier: str = ""  # empty: left out

    @property
    def main(self) -> Thread:
        return self.threads[0]


@define(eq=False)
class Block:
    """A wait that has begun and not ended: since when, in what, where in the thread's rows."""

    since: int
    syscall: int
    arguments: tuple[int, ...]
    state: str
    faulting: bool = False
    woken: bool = False
    woken_at: int = -1


@define(eq=False)
class EarlyWake:
    """A wake-up that came while the sleeper was still on its way to sleep; counts if nothing else wakes it."""

    time: int
    waker: Thread | None
    position: int  # in the waker's rows
    context: str
    comm: str


@define(eq=False)
class Thread:
    """A thread's rows and the state that is needed to make them."""

    tid: int
    process: Process
    name: str
    rows: list[Row] = field(factory=list)
    running: bool = False
    accounted_to: int = 0
    syscall: int = -1
    arguments: tuple[int, ...] = ()
    syscall_since: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    burst_since: int = 0
    since_touch_ns: int = 0
    fault_debt_ns: int = 0
    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(PRIVILEGED, 0))
    fault: tuple[int, bool] | None = None  # page, write: not yet known whether of a file
    touches: list[tuple[Any, int, int, bool]] = field(factory=list)  # space or file, page, pages, write
    block: Block | None = None
    early_wake: EarlyWake | None = None
    slot: Row | None = None  # where it blocked for a packet whose receive is still to come
    ports: tuple[int, int] | None = None
    exited: bool = False
    left_at: int = 0  # when it was last seen to leave a CPU
    last_time: int = 0
    waited: dict[str, int] = field(factory=lambda: dict.fromkeys(WAIT_CLASSES, 0))
    index: int = -1  # number in the trace, once it is known

    def add(self, op: str, time: int, **at: Any) -> Row:
        row = Row(op, max(time, self.rows[-1].time if self.rows else 0), at)
        self.rows.append(row)
        return row
