"""`perf script` text of scheduler events, page faults, system calls and block requests.

    perf record -e 'sched:sched_switch,sched:sched_waking,raw_syscalls:*' -a -- sleep 5 && perf script > log.txt

A line is `COMM TID [CPU] SECONDS.USEC: PERIOD GROUP:EVENT: ARGUMENTS`; with `-F pid,tid` the thread is `PID/TID`, and
CPU and PERIOD may be missing. Lines of a call stack (they begin with a tab or are empty) are skipped. `page-faults`
has an address if `-F addr` asked for it. Events and their meaning are those of the format `ftrace`.

Traps: perf prints no flags, so that a wake-up in an interrupt looks like one by the thread that it interrupted (one
while the CPU idled is known to be an interrupt's); the clock is perf's own, which is CLOCK_MONOTONIC only with `-k
mono`. Source: Linux, tools/perf/builtin-script.c (perf_sample__fprintf_start).
"""

from __future__ import annotations

from hvbench.policy import hookimpl
from hvbench.traces.importers import scan
from hvbench.traces.importers.api import Format, Head
from hvbench.traces.importers.schedlog import Options, looks_like, read


def sniff(head: Head) -> float:
    if not head.is_text or head.data.startswith(b"# tracer:"):
        return 0.0
    lines = head.lines(40)
    events, wrong, table = looks_like(lines)
    if not events or wrong * 4 > events:
        return 0.0
    if any(b" sched:sched_" in line for line in lines):
        return 0.9
    return 0.8 if (table[:, scan.F_KIND] == scan.FAULT).any() and any(b"-faults:" in line for line in lines) else 0.3


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="perf-script",
        summary="perf script text of scheduler events",
        read=read,
        sniff=sniff,
        extensions=(".perf", ".script", ".txt"),
        options=Options,
        clock="mono",
    )
