"""From scheduler events to what threads did: compute, waits and who ended them. Compiled, or plain Python.

A thread is on a CPU (compute), runnable (dropped: that is what a replay predicts) or blocked. A wait is classed when
it ends, by who woke the thread and where:

- a thread of the trace, in its own context: an edge, `wake` there and `wait` here;
- a hardware interrupt: a timer, `sleep`, or, if the thread slept uninterruptibly, the disk: then the block request
  that it issued up to `ISSUE_NS` before is the wait, or the time is kept (`outside`);
- a software interrupt (packets), or a thread that is not part of the trace: `outside`;
- the idle task, in logs without flags, where interrupts cannot be told: `unknown`, kept.

A thread that is first seen when it is woken has waited since the recording began; one first seen leaving a CPU has
run since the event before on that CPU. In `state`, a row is a thread; `rows` takes a row for each operation.
"""

from __future__ import annotations

from typing import Any, Final

from hvbench.jit import jit
from hvbench.traces.format import OPS
from hvbench.traces.importers.scan import (
    BLOCK_ISSUE,
    DEAD,
    DISK,
    EXIT,
    F_A,
    F_B,
    F_C,
    F_CONTEXT,
    F_CPU,
    F_D,
    F_KIND,
    F_TID,
    F_TIME,
    FAULT,
    FORK,
    IN_HARD,
    IN_SOFT,
    IN_TASK,
    NOWHERE,
    RUNNABLE,
    SLEEPS,
    STOPPED,
    SWITCH,
    SYS_ENTER,
    SYS_EXIT,
    WAKE,
)

STATE: Final = (
    "running", "since", "user", "kernel", "burst", "in_call", "calls", "faults", "switches", "ipis", "blocked",
    "blocked_since", "blocked_state", "woken", "early_at", "early_by", "early_context", "seen", "member", "rq_at",
    "rq_sector", "rq_sectors", "rq_write", "woken_at",
)  # fmt: skip
(S_RUNNING, S_SINCE, S_USER, S_KERNEL, S_BURST, S_IN_CALL, S_CALLS, S_FAULTS, S_SWITCHES, S_IPIS, S_BLOCKED, S_BSINCE,
 S_BSTATE, S_WOKEN, S_EARLY_AT, S_EARLY_BY, S_EARLY_CONTEXT, S_SEEN, S_MEMBER, S_RQ_AT, S_RQ_SECTOR, S_RQ_SECTORS,
 S_RQ_WRITE, S_WOKEN_AT) = range(len(STATE))  # fmt: skip

ROW: Final = (
    "thread", "op", "time_ns", "user_ns", "kernel_ns", "syscalls", "page_faults", "context_switches", "ipis", "peer",
    "duration_ns", "page", "pages", "object", "flags",
)  # fmt: skip
(R_THREAD, R_OP, R_TIME, R_USER, R_KERNEL, R_CALLS, R_FAULTS, R_SWITCHES, R_IPIS, R_PEER, R_DURATION, R_PAGE, R_PAGES,
 R_OBJECT, R_FLAGS) = range(len(ROW))  # fmt: skip
ROWS_PER_EVENT: Final = 5
"""No event makes more rows."""

#: Of the whole pass: rows written, ns waited by class, the first and last event, switches that are missing, any at all.
TOTALS: Final = ("rows", "edge", "timer", "disk", "outside", "unknown", "start", "end", "missing", "switches")
T_ROWS, T_EDGE, T_TIMER, T_DISK, T_OUTSIDE, T_UNKNOWN, T_START, T_END, T_MISSING, T_SWITCHES = range(len(TOTALS))

C_SINCE, C_THREAD = 0, 1
"""Of a CPU: when its last switch was (-1: none yet), and to whom."""
BACKGROUND: Final = -2
"""The thread of requests that nobody was seen to wait for."""
SMALLEST_BURST_NS = 1_000
EARLY_NS = 100_000
ISSUE_NS = 1_000_000
"""A thread that sleeps so soon after it issued a request waits for it."""

OP_COMPUTE, OP_TOUCH, OP_WAIT, OP_WAKE = OPS["compute"], OPS["touch"], OPS["wait"], OPS["wake"]
OP_SLEEP, OP_OUTSIDE, OP_UNKNOWN = OPS["sleep"], OPS["outside"], OPS["unknown"]
OP_READ, OP_WRITE = OPS["blk_read"], OPS["blk_write"]


@jit
def add(rows: Any, totals: Any, thread: int, op: int, time: int) -> Any:
    """A fresh row."""
    row = rows[totals[T_ROWS]]
    totals[T_ROWS] += 1
    for k in range(len(row)):
        row[k] = 0
    row[R_THREAD] = thread
    row[R_OP] = op
    row[R_TIME] = time
    row[R_PEER] = -1
    row[R_OBJECT] = -1
    return row


@jit
def account(s: Any, now: int) -> None:
    """Book the time since the last event of a running thread."""
    if s[S_RUNNING] == 0:
        return
    spent = now - s[S_SINCE]
    if spent <= 0:
        return
    if s[S_USER] + s[S_KERNEL] == 0:
        s[S_BURST] = s[S_SINCE]
    s[S_SINCE] = now
    if s[S_IN_CALL] > 0:
        s[S_KERNEL] += spent
    else:
        s[S_USER] += spent


@jit
def flush(s: Any, t: int, everything: bool, rows: Any, totals: Any) -> None:
    """A row of the compute collected so far; what is shorter than a microsecond goes to the next one."""
    spent = s[S_USER] + s[S_KERNEL]
    if spent == 0 or (spent < SMALLEST_BURST_NS and not everything) or s[S_MEMBER] == 0:
        return
    row = add(rows, totals, t, OP_COMPUTE, s[S_BURST])
    row[R_USER] = s[S_USER]
    row[R_KERNEL] = s[S_KERNEL]
    row[R_CALLS] = s[S_CALLS]
    row[R_FAULTS] = s[S_FAULTS]
    row[R_SWITCHES] = s[S_SWITCHES]
    row[R_IPIS] = s[S_IPIS]
    s[S_USER] = 0
    s[S_KERNEL] = 0
    s[S_CALLS] = 0
    s[S_FAULTS] = 0
    s[S_SWITCHES] = 0
    s[S_IPIS] = 0


@jit
def first_sight(s: Any, since: int) -> None:
    """A thread that was not heard of: it has been asleep since the recording began."""
    if s[S_SEEN] == 0:
        s[S_SEEN] = 1
        s[S_BLOCKED] = 1
        s[S_BSINCE] = since
        s[S_BSTATE] = SLEEPS


@jit
def background(s: Any, rows: Any, totals: Any) -> None:
    """A request that was issued and not waited for."""
    if s[S_RQ_AT] < 0 or s[S_MEMBER] == 0:
        return
    row = add(rows, totals, BACKGROUND, OP_WRITE if s[S_RQ_WRITE] > 0 else OP_READ, s[S_RQ_AT])
    row[R_PAGE] = s[S_RQ_SECTOR]
    row[R_PAGES] = s[S_RQ_SECTORS]
    s[S_RQ_AT] = -1


@jit
def end_wait(state: Any, t: int, now: int, waker: int, context: int, rows: Any, totals: Any) -> None:
    """A wait ends at `now`: class it and leave its rows. `waker` is a thread, -1 for one that is not known (idle)."""
    s = state[t]
    since = s[S_BSINCE]
    took = now - since
    s[S_WOKEN] = 1
    s[S_WOKEN_AT] = now
    if s[S_MEMBER] == 0 or took < 0 or s[S_BSTATE] == STOPPED:
        return
    flush(s, t, False, rows, totals)
    if waker >= 0 and waker != t and state[waker][S_MEMBER] > 0 and (context == IN_TASK or context == NOWHERE):
        w = state[waker]
        account(w, now)
        flush(w, waker, False, rows, totals)
        row = add(rows, totals, waker, OP_WAKE, now)
        row[R_PEER] = t
        add(rows, totals, t, OP_WAIT, since)
        totals[T_EDGE] += took
        return
    if s[S_BSTATE] == DISK:
        totals[T_DISK] += took
        if s[S_RQ_AT] >= 0 and since - s[S_RQ_AT] < ISSUE_NS:
            row = add(rows, totals, t, OP_WRITE if s[S_RQ_WRITE] > 0 else OP_READ, since)
            row[R_PAGE] = s[S_RQ_SECTOR]
            row[R_PAGES] = s[S_RQ_SECTORS]
            s[S_RQ_AT] = -1
            return
        op = OP_OUTSIDE
    elif context == IN_HARD:
        op = OP_SLEEP
        totals[T_TIMER] += took
    elif context == IN_SOFT or waker >= 0:
        op = OP_OUTSIDE
        totals[T_OUTSIDE] += took
    else:
        op = OP_UNKNOWN
        totals[T_UNKNOWN] += took
    if took > 0:
        row = add(rows, totals, t, op, since)
        row[R_DURATION] = took


@jit
def left_unseen(state: Any, cpu: int, cpus: Any, prev: int, now: int, totals: Any) -> None:
    """Another thread leaves a CPU than the one that came last: both its leaving and the other's coming are missing.

    The one that came keeps the time until the other was woken, if that was seen, else all of it up to now.
    """
    last = cpus[cpu][C_THREAD]
    totals[T_MISSING] += 1
    until = now
    if prev >= 0 and state[prev][S_SEEN] == 1 and state[prev][S_WOKEN] == 1:
        if state[prev][S_WOKEN_AT] >= cpus[cpu][C_SINCE]:
            until = state[prev][S_WOKEN_AT]
    if last >= 0 and state[last][S_RUNNING] == 1:
        account(state[last], until)
        state[last][S_RUNNING] = 0
    cpus[cpu][C_SINCE] = until


@jit
def on_switch(state: Any, event: Any, prev: int, following: int, cpus: Any, rows: Any, totals: Any) -> None:
    now = event[F_TIME]
    cpu = event[F_CPU]
    known = cpu >= 0 and cpu < len(cpus)
    if known and cpus[cpu][C_SINCE] >= 0 and cpus[cpu][C_THREAD] != prev:
        left_unseen(state, cpu, cpus, prev, now, totals)
    if prev >= 0:
        s = state[prev]
        if s[S_RUNNING] == 0:
            # nobody saw it come: it has run since the event before on this CPU, but not from before it was woken
            s[S_SINCE] = totals[T_START]
            if known and cpus[cpu][C_SINCE] >= 0:
                s[S_SINCE] = cpus[cpu][C_SINCE]
            if s[S_SEEN] == 1 and s[S_WOKEN] == 1 and s[S_WOKEN_AT] > s[S_SINCE]:
                s[S_SINCE] = s[S_WOKEN_AT]
            elif s[S_SEEN] == 1 and s[S_BLOCKED] == 1 and s[S_WOKEN] == 0 and s[S_BSINCE] > s[S_SINCE]:
                s[S_SINCE] = now
            s[S_SEEN] = 1
            s[S_BLOCKED] = 0
            s[S_RUNNING] = 1
        account(s, now)
        s[S_RUNNING] = 0
        s[S_SWITCHES] += 1
        left_as = event[F_B]
        if left_as == DEAD:
            flush(s, prev, True, rows, totals)
            background(s, rows, totals)
            s[S_SEEN] = 0  # the number may come again
            s[S_IN_CALL] = 0
        elif left_as != RUNNABLE:
            s[S_BLOCKED] = 1
            s[S_BSINCE] = now
            s[S_BSTATE] = left_as
            s[S_WOKEN] = 0
    if following >= 0:
        s = state[following]
        if s[S_SEEN] == 0:
            s[S_SEEN] = 1  # it was runnable when the recording began
        elif s[S_BLOCKED] == 1 and s[S_WOKEN] == 0 and s[S_BSINCE] > totals[T_START]:
            # nobody was seen to wake it since it slept: a wake-up just before that must have been it
            if s[S_EARLY_AT] >= s[S_BSINCE] - EARLY_NS and s[S_EARLY_AT] >= 0:
                at = s[S_EARLY_AT] if s[S_EARLY_AT] > s[S_BSINCE] else s[S_BSINCE]
                end_wait(state, following, at, s[S_EARLY_BY], s[S_EARLY_CONTEXT], rows, totals)
            else:
                end_wait(state, following, now, -1, NOWHERE, rows, totals)
        s[S_EARLY_AT] = -1
        s[S_BLOCKED] = 0
        s[S_WOKEN] = 0
        s[S_RUNNING] = 1  # if it still counts as running elsewhere, its leaving is missing: that time is dropped
        s[S_SINCE] = now
    if known:
        cpus[cpu][C_SINCE] = now
        cpus[cpu][C_THREAD] = following


@jit
def on_wake(state: Any, event: Any, by: int, target: int, totals: Any, rows: Any) -> None:
    now = event[F_TIME]
    context = event[F_CONTEXT]
    if event[F_C] == 1 and context != NOWHERE:
        context = IN_TASK  # a new thread is woken by its parent
    waker = by if context == IN_TASK or context == NOWHERE else -1
    s = state[target]
    first_sight(s, totals[T_START])
    if s[S_BLOCKED] == 0:
        s[S_EARLY_AT] = now
        s[S_EARLY_BY] = waker
        s[S_EARLY_CONTEXT] = context
        return
    if s[S_WOKEN] == 1 or target == waker:
        return
    if waker >= 0 and event[F_B] >= 0 and event[F_CPU] >= 0 and event[F_B] != event[F_CPU]:
        state[waker][S_IPIS] += 1
    end_wait(state, target, now, waker, context, rows, totals)


@jit
def on_own(state: Any, event: Any, t: int, rows: Any, totals: Any) -> None:
    """What a running thread does: system calls, faults, requests."""
    s = state[t]
    now = event[F_TIME]
    kind = event[F_KIND]
    if totals[T_SWITCHES] == 0:
        pass  # a log without switches does not say when threads ran
    elif s[S_SEEN] == 0:
        s[S_SEEN] = 1
        s[S_RUNNING] = 1
        s[S_SINCE] = totals[T_START]
    elif s[S_BLOCKED] == 1 and s[S_RUNNING] == 0 and s[S_BSINCE] == totals[T_START]:
        s[S_BLOCKED] = 0
        s[S_RUNNING] = 1
        s[S_SINCE] = now
    if kind == SYS_ENTER:
        account(s, now)
        s[S_IN_CALL] = 1
        s[S_CALLS] += 1
    elif kind == SYS_EXIT:
        s[S_IN_CALL] = 1
        account(s, now)
        s[S_IN_CALL] = 0
    elif kind == FAULT:
        s[S_FAULTS] += 1
        if event[F_C] >= 0 and s[S_MEMBER] > 0:
            account(s, now)
            flush(s, t, False, rows, totals)
            row = add(rows, totals, t, OP_TOUCH, now)
            row[R_OBJECT] = event[F_C]
            row[R_PAGE] = event[F_D]
            row[R_PAGES] = 1
            row[R_FLAGS] = 1 if event[F_B] == 1 else 0
    elif kind == BLOCK_ISSUE and event[F_B] >= 0 and event[F_D] > 0:
        background(s, rows, totals)
        s[S_RQ_AT] = now
        s[S_RQ_SECTOR] = event[F_C]
        s[S_RQ_SECTORS] = event[F_D]
        s[S_RQ_WRITE] = event[F_B]


@jit
def sched_pass(events: Any, count: int, state: Any, index: Any, cpus: Any, rows: Any, totals: Any) -> int:
    """All events of a block, in time order; thread numbers by `index` (of the id, -1: none). Rows made."""
    totals[T_ROWS] = 0
    for i in range(count):
        event = events[i]
        kind = event[F_KIND]
        if kind <= 0:
            continue
        if totals[T_START] < 0:
            totals[T_START] = event[F_TIME]
        totals[T_END] = event[F_TIME]
        by = index[event[F_TID]]
        if kind == SWITCH:
            on_switch(state, event, index[event[F_A]], index[event[F_C]], cpus, rows, totals)
        elif kind == WAKE:
            if index[event[F_A]] >= 0:
                on_wake(state, event, by, index[event[F_A]], totals, rows)
        elif kind == FORK:
            if event[F_B] >= 0 and index[event[F_B]] >= 0:
                s = state[index[event[F_B]]]
                s[S_SEEN] = 0
                first_sight(s, event[F_TIME])
                s[S_WOKEN] = 0
        elif kind != EXIT and by >= 0 and event[F_CONTEXT] != IN_HARD and event[F_CONTEXT] != IN_SOFT:
            on_own(state, event, by, rows, totals)
    return totals[T_ROWS]


@jit
def finish_pass(state: Any, threads: int, cpus: Any, rows: Any, totals: Any) -> int:
    """What is open at the end: the compute of those who run, requests not waited for. Rows made."""
    totals[T_ROWS] = 0
    for cpu in range(len(cpus)):
        if cpus[cpu][C_THREAD] >= 0:
            account(state[cpus[cpu][C_THREAD]], totals[T_END])
    for t in range(threads):
        s = state[t]
        flush(s, t, True, rows, totals)
        background(s, rows, totals)
    return totals[T_ROWS]
