"""Scheduler logs: what lines say, what becomes of them, and that no CPU time is made up."""

# ruff: noqa: E501  (lines as the kernel prints them)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import FIXTURES, convert, counts, replay, shared

from hvbench.errors import UserError
from hvbench.traces.format import OP_NAMES, Trace
from hvbench.traces.importers import compiled, scan
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

#: By hand: worker (12) is woken by main (11) and by a timer; main waits for worker and reads a block.
LOG = """\
# tracer: nop
#
            main-11    (     11) [000] d..2.   100.000000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=main next_pid=11 next_prio=120
            main-11    (     11) [000] d....   100.000100: sys_enter: NR 202 (1, 2, 3, 4, 5, 6)
            main-11    (     11) [000] d....   100.000150: sched_waking: comm=my worker-1 pid=12 prio=120 target_cpu=001
            main-11    (     11) [000] d....   100.000200: sys_exit: NR 202 = 0
            main-11    (     11) [000] d..2.   100.000300: sched_switch: prev_comm=main prev_pid=11 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
     my worker-1-12    (     11) [001] d..2.   100.000350: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=my worker-1 next_pid=12 next_prio=120
     my worker-1-12    (     11) [001] d....   100.000450: page_fault_user: address=0x7f0000001000 ip=0x1 error_code=0x6
     my worker-1-12    (     11) [001] d....   100.000550: sched_waking: comm=main pid=11 prio=120 target_cpu=000
     my worker-1-12    (     11) [001] d..2.   100.000600: sched_switch: prev_comm=my worker-1 prev_pid=12 prev_prio=120 prev_state=R+ ==> next_comm=swapper/1 next_pid=0 next_prio=120
            main-11    (     11) [000] d..2.   100.000700: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=main next_pid=11 next_prio=120
     my worker-1-12    (     11) [001] d..2.   100.000800: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=my worker-1 next_pid=12 next_prio=120
            main-11    (     11) [000] .....   100.000900: block_rq_issue: 254,0 R 4096 () 800 + 8 be,0,4 [main]
            main-11    (     11) [000] d..2.   100.001000: sched_switch: prev_comm=main prev_pid=11 prev_prio=120 prev_state=D ==> next_comm=swapper/0 next_pid=0 next_prio=120
     my worker-1-12    (     11) [001] d..2.   100.001100: sched_switch: prev_comm=my worker-1 prev_pid=12 prev_prio=120 prev_state=S ==> next_comm=swapper/1 next_pid=0 next_prio=120
          <idle>-0     (-------) [000] d.h2.   100.001900: block_rq_complete: 254,0 R () 800 + 8 be,0,4 [0]
          <idle>-0     (-------) [000] d.h2.   100.002000: sched_waking: comm=main pid=11 prio=120 target_cpu=000
            main-11    (     11) [000] d..2.   100.002000: sched_switch: prev_comm=swapper/0 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=main next_pid=11 next_prio=120
          <idle>-0     (-------) [001] d.h2.   100.003100: sched_waking: comm=my worker-1 pid=12 prio=120 target_cpu=001
     my worker-1-12    (     11) [001] d..2.   100.003200: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=my worker-1 next_pid=12 next_prio=120
     my worker-1-12    (     11) [001] d..2.   100.003300: sched_switch: prev_comm=my worker-1 prev_pid=12 prev_prio=120 prev_state=S ==> next_comm=swapper/1 next_pid=0 next_prio=120
            main-11    (     11) [000] d..2.   100.003500: sched_switch: prev_comm=main prev_pid=11 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120
"""


def rows_of(trace: Trace, thread: int) -> list[tuple[Any, ...]]:
    """A thread's rows: operation, us since the start, and what matters of it (us)."""
    c = trace.columns
    found: list[tuple[Any, ...]] = []
    for i in np.flatnonzero(c["thread"] == thread).tolist():
        op, at = OP_NAMES[c["op"][i]], int(c["time_ns"][i]) // 1000
        if op == "compute":
            found.append((op, at, int(c["user_ns"][i]) // 1000, int(c["kernel_ns"][i]) // 1000))
        elif op in ("sleep", "outside", "unknown"):
            found.append((op, at, int(c["duration_ns"][i]) // 1000))
        elif op == "wake":
            found.append((op, at, int(c["peer"][i])))
        elif op == "touch":
            found.append((op, at, int(c["page"][i]), int(c["flags"][i])))
        elif op.startswith("blk"):
            found.append((op, at, int(c["page"][i]), int(c["pages"][i])))
        else:
            found.append((op, at))
    return found


def test_a_log_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG)
    assert load_formats().guess(path).name == "ftrace"
    report, trace = convert("ftrace", path, tmp_path / "x.parquet", Settings(keep_names=True))
    assert [t["name"] for t in trace.meta["threads"]] == ["main", "my worker-1"]
    assert {t["process"] for t in trace.meta["threads"]} == {0}
    assert rows_of(trace, 0) == [
        ("compute", 0, 100, 50),  # up to the wake-up, half of it in the system call
        ("wake", 150, 1),
        ("compute", 150, 100, 50),
        ("wait", 300),  # until worker wakes it at 550; 550 to 700 it was runnable: dropped
        ("compute", 700, 300, 0),
        ("blk_read", 1000, 800, 8),  # the request is the wait, not the time it took then
        ("compute", 2000, 1500, 0),
    ]
    assert rows_of(trace, 1) == [
        ("wait", 0),  # since the recording began
        ("compute", 350, 100, 0),
        ("touch", 450, 0, 1),
        ("compute", 450, 100, 0),
        ("wake", 550, 0),
        ("compute", 550, 350, 0),  # 50 before it was preempted and 300 after: one burst
        ("sleep", 1100, 2000),
        ("compute", 3200, 100, 0),
    ]
    assert trace.meta["span_ns"] == 3_500_000
    assert trace.meta["waited_ns"] == {"thread_edge": 150_000 + 250_000, "timer": 2_000_000, "disk": 1_000_000}
    assert trace.meta["recorded"]["block_latency_p50_ns"] == pytest.approx(1_000_000, rel=0.05)
    assert int(trace.columns["syscalls"].sum()) == 1 and int(trace.columns["page_faults"].sum()) == 1
    assert not report.notes or all("touches" in note for note in report.notes)


def test_threads_that_are_left_out_are_the_world_outside(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG)
    _, trace = convert("ftrace", path, tmp_path / "x.parquet", only="^main$")
    assert [row[0] for row in rows_of(trace, 0)] == ["compute", "outside", "compute", "blk_read", "compute"]
    assert not rows_of(trace, 1)
    with pytest.raises(UserError, match=r"--only \[: not a regular expression"):
        convert("ftrace", path, tmp_path / "x.parquet", only="[")


def test_forms_of_lines() -> None:
    """tracefs of several ages, trace-cmd in its own and its raw form, perf with and without its columns."""
    lines = {
        "     CPU 0/TCG-11476   (  11473) [001] d..2.  3174.490530: sched_switch: prev_comm=CPU 0/TCG prev_pid=11476 "
        "prev_prio=120 prev_state=R ==> next_comm=a b: [c] next_pid=11466 next_prio=120":
            (3_174_490_530_000, 1, 11476, 11473, scan.IN_TASK, scan.SWITCH, 11476, scan.RUNNABLE, 11466),
        "           <...>-1701  [001]    76.211513: sched_switch:          prev_comm=trace-cmd prev_pid=1701 prev_prio=120 "
        "prev_state=64 next_comm=swapper/1 next_pid=0 next_prio=120":
            (76_211_513_000, 1, 1701, -1, scan.NOWHERE, scan.SWITCH, 1701, scan.DEAD, 0),
        "       trace-cmd-1701  [001] d..3    76.211513123: sched_switch:    trace-cmd:1701 [120] D ==> my x:22 [120]":
            (76_211_513_123, 1, 1701, -1, scan.IN_TASK, scan.SWITCH, 1701, scan.DISK, 22),
        "            perf  7947 [000]  2619.635239:       sched:sched_switch: prev_comm=perf prev_pid=7947 prev_prio=120 "
        "prev_state=S ==> next_comm=migration/0 next_pid=18 next_prio=0":
            (2_619_635_239_000, 0, 7947, -1, scan.NOWHERE, scan.SWITCH, 7947, scan.SLEEPS, 18),
        "             gcc  8124/8125   2632.291168: page-faults:     7fb774e64a80     7fb774e4d7c9":
            (2_632_291_168_000, -1, 8125, 8124, scan.NOWHERE, scan.FAULT, 0x7FB774E64, -1, -1),
        "             gcc  8124/8125   2632.291168:          1 page-faults:     7fb774e64a80":
            (2_632_291_168_000, -1, 8125, 8124, scan.NOWHERE, scan.FAULT, 0x7FB774E64, -1, -1),
        "     ksoftirqd/1-22      (     22) [001] ..s..  2757.205858: sched_wakeup: comm=x pid=9 prio=120 target_cpu=003":
            (2_757_205_858_000, 1, 22, 22, scan.IN_SOFT, scan.WAKE, 9, 3, 0),
    }  # fmt: skip
    for line, expected in lines.items():
        table = np.empty((1, len(scan.FIELDS)), np.int64)
        data = line.encode() + b"\n"
        assert scan.scan(data, len(data), table) == 1
        assert int(table[0, scan.F_STATUS]) == scan.OK, line
        assert tuple(table[0, 1:10].tolist()) == expected, line


def test_bad_lines_lost_events_and_ticks(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG + "CPU:1 [LOST 7 EVENTS]\n" + LOG.splitlines()[2].replace("prev_state=R ==>", "prev_st") + "\n")
    with pytest.raises(
        UserError, match=r"log\.txt:25: expected the event's arguments as the kernel prints them, found "
    ):
        convert("ftrace", path, tmp_path / "x.parquet")
    report, trace = convert("ftrace", path, tmp_path / "x.parquet", Settings(skip_bad=1))
    assert trace.meta["lost_events"] == 7 and any("7 events were lost" in note for note in report.notes)
    path.write_text(LOG.replace("100.00", "10000"))
    with pytest.raises(
        UserError, match=r"log\.txt:3: expected a time in seconds with a fraction \(record with clock mono"
    ):
        convert("ftrace", path, tmp_path / "x.parquet")


def test_compiled_and_interpreted_make_the_same_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = FIXTURES / "sched.ftrace.gz"
    monkeypatch.setattr(compiled, "SMALL_BYTES", 1 << 40)
    plain = convert("ftrace", fixture, tmp_path / "x.parquet")[1]
    monkeypatch.setattr(compiled, "SMALL_BYTES", 0)
    compiled.function.cache_clear()
    assert convert("ftrace", fixture, tmp_path / "x.parquet")[1].digest == plain.digest
    compiled.function.cache_clear()


def test_a_scheduler_log_replays(tmp_path: Path, kernel: object) -> None:
    _, trace = convert("ftrace", FIXTURES / "sched.ftrace.gz", tmp_path / "x.parquet")
    assert trace.meta["replay"] == "closed"
    row = replay(trace, tmp_path)
    assert row["cpu_utilization"] > 0.01 and row["context_switches"] > 10


# real files -------------------------------------------------------------------------------------------------

FTRACE = (
    "fio_loop0.ftrace_block.head100k", "fio_vda.ftrace_sched+block.head100k", "gcc.ftrace_sched+pagefaults.pidonly",
    "gcc.ftrace_sched+syscalls.pidonly", "gcc.ftrace_sched", "redis.ftrace_sched+net.head200k",
    "redis.ftrace_sched+syscalls.head200k", "redis.ftrace_sched",
)  # fmt: skip
LOGS = [
    *(("ftrace", f"recorded-linux/{name}.txt.gz") for name in FTRACE),
    ("ftrace", "recorded-two-vms/vcpu_sched.txt.gz"),
    ("ftrace", "lisa-tracecmd/trace.txt"),
    ("perf-script", "recorded-linux/gcc.perf_script_sched.txt.gz"),
    ("perf-script", "recorded-linux/gcc.perf_script_pagefaults.txt.gz"),
]


@pytest.mark.parametrize(("format", "name"), LOGS, ids=[name for _, name in LOGS])
def test_real_logs(format: str, name: str, tmp_path: Path) -> None:
    path = shared(name)
    assert load_formats().guess(path).name == format
    _, trace = convert(format, path, tmp_path / "x.parquet")
    busy = int(trace.columns["user_ns"].sum() + trace.columns["kernel_ns"].sum())
    cpus = 6 if "lisa" in name else 2
    assert busy <= cpus * trace.meta["span_ns"], "more CPU time than the machine had"
    if "sched" in name:
        assert counts(trace)["compute"] > 100
    if "block" in name:
        assert counts(trace)["blk_read"] > 1000
    if "pagefaults" in name:
        assert counts(trace)["touch"] > 20_000


@pytest.mark.parametrize("name", ["trace.txt", "trace_dynamic.txt"])
def test_logs_without_scheduler_events_are_refused(name: str, tmp_path: Path) -> None:
    path = shared(f"trappy-tracecmd/{name}")
    with pytest.raises(UserError, match="holds nothing that an import of ftrace replays"):
        convert("ftrace", path, tmp_path / "x.parquet")
