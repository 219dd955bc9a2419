"""ftrace as text: what tracefs' `trace` and `trace_pipe` print, and `trace-cmd report`.

A line is `COMM-TID (TGID) [CPU] FLAGS SECONDS.USEC: EVENT: ARGUMENTS`. FLAGS (irqs-off, need-resched, hard or soft
interrupt ...) are left out by trace-cmd, (TGID) unless the option record-tgid is set. Lines that begin with # are the
header.

Read: sched_switch, sched_waking, sched_wakeup, sched_wakeup_new (in tracefs' form, trace-cmd's own and its raw one),
sys_enter and sys_exit (raw_syscalls), page_fault_user (or exceptions:), block_rq_issue and block_rq_complete,
sched_process_fork. All else is skipped. Compute comes from sched_switch, split into user and kernel by system calls
where there are any.

A machine's log becomes one VM with all its threads; `--only` and `--without` choose by name. Waiting to run is
dropped. Block requests: one that its thread then sleeps for is the thread's wait; others go to threads of their own.

Traps: COMM may hold anything; times are of the trace clock (set `mono` or `boot`: a counter of ticks is refused); a
log without flags cannot tell wake-ups in interrupts; lost events are counted (`[LOST n EVENTS]`). Without system
calls all compute counts as user time. Source: Linux, kernel/trace/trace_output.c (lines),
include/trace/events/{sched,block,syscalls}.h.
"""

from __future__ import annotations

import re
from typing import Final

from hvbench.policy import hookimpl
from hvbench.traces.importers import scan
from hvbench.traces.importers.api import Format, Head
from hvbench.traces.importers.schedlog import Options, looks_like, read

#: A line of perf script: a blank before the thread, a group before the event.
PERF: Final = re.compile(rb" *\S.*? \d+(?:/\d+)? +(?:\[\d+\] +)?\d+\.\d+: +(?:\d+ +)?[\w-]+:\w+: ")


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    if head.data.startswith(b"# tracer:"):
        return 1.0
    events, wrong, table = looks_like(head.lines(40))
    if not events or wrong * 4 > events:
        return 0.0
    if any(PERF.match(line) for line in head.lines(40)[:5]):
        return 0.2  # below what perf-script says of events of other groups
    # perf's names of events have a group, its threads a blank before them
    perf = any(b": sched:" in line or b" sched:" in line or b"/" in line[:40] for line in head.lines(40)[:5])
    cpus = (table[:, scan.F_CPU] >= 0).any()
    return 0.4 if perf or not cpus else 0.7


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="ftrace",
        summary="ftrace text (tracefs) and trace-cmd report",
        read=read,
        sniff=sniff,
        extensions=(".ftrace", ".txt", ".trace"),
        options=Options,
        clock="mono",
    )
