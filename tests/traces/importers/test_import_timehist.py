"""perf sched timehist: runs, waits, delays, wake-ups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from importing import FIXTURES, convert, counts, replay, shared
from test_import_schedlog import rows_of

from hvbench.errors import UserError
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

HEAD = """\
           time    cpu  task name                       wait time  sch delay   run time  state
                        [tid/pid]                          (msec)     (msec)     (msec)
--------------- ------  ------------------------------  ---------  ---------  ---------  -----
"""
#: main (5) runs 1 ms and sleeps; my[x] (6/5) wakes it; main is delayed by 0.2 ms, runs, is preempted, runs on
LOG = (
    HEAD
    + """\
       100.001000 [0000]  main[5]                             0.000      0.000      1.000      S
       100.001000 [0000]  <idle>                              0.000      0.000      0.000      R
       100.002500 [0001]  my[x][6/5]                                                     awakened: main[5]
       100.003000 [0001]  my[x][6/5]                          0.000      0.000      2.000      S
       100.004000 [0000]  main[5]                             1.700      0.200      1.300      R
       100.006000 [0000]  main[5]                             1.000      0.000      1.000      S
       100.009000 [0001]  my[x][6/5]                          5.500      0.500      0.500      S
"""
)


def test_a_listing_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG + "\nRuntime summary\n whatever\n")
    assert load_formats().guess(path).name == "timehist"
    report, trace = convert("timehist", path, tmp_path / "x.parquet", Settings(keep_names=True))
    assert [(t["name"], t["process"]) for t in trace.meta["threads"]] == [("main", 0), ("my[x]", 0)]
    assert rows_of(trace, 0) == [
        ("compute", 0, 1000, 0),
        ("wait", 1000),  # until 2500; the delay of 200 us is what a replay predicts
        ("compute", 2700, 1300, 0),
        ("compute", 5000, 1000, 0),  # preempted in between: no wait
    ]
    assert rows_of(trace, 1) == [
        ("compute", 1000, 2000, 0), ("wake", 2500, 0), ("unknown", 3000, 5000), ("compute", 8500, 500, 0)
    ]  # fmt: skip
    assert trace.meta["recorded"]["delay_ns"] == 700_000
    assert trace.meta["waited_ns"] == {"thread_edge": 1_500_000, "unknown": 5_000_000}
    assert trace.meta["silent"] == ["memory", "storage", "network"]
    assert not any("no states" in note for note in report.notes)
    _, trace = convert("timehist", path, tmp_path / "x.parquet", without="^main")
    assert len(trace.meta["threads"]) == 1 and "wake" not in counts(trace)


def line(cpu: int, task: str, wait: float, delay: float, run: float) -> str:
    return f"    other[{cpu:04d}]  {task}   {wait:.3f}  {delay:.3f}  {run:.3f} \n"


def test_without_times_runs_add_up(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    listed = [
        (0, "main[5]", 0, 0, 1.0), (0, "<idle>", 0, 0, 1.7), (1, "my[x][6/5]", 0, 0, 2.0),
        (0, "main[5]", 1.7, 0.2, 1.3), (0, "other[9]", 0, 0, 1.0), (0, "main[5]", 1.0, 0, 1.0),
        (1, "<idle>", 2.0, 0, 5.0), (1, "my[x][6/5]", 5.0, 0.5, 0.5),
    ]  # fmt: skip
    path.write_text(HEAD + "".join(line(*item) for item in listed))
    with pytest.raises(UserError, match=r"log\.txt:4: expected a time SECONDS\.USEC \(--times runs does without"):
        convert("timehist", path, tmp_path / "x.parquet")
    report, trace = convert("timehist", path, tmp_path / "x.parquet", times="runs")
    # CPU 0: 1.0, 2.7, 4.0, 5.0 and 6.0 ms; CPU 1's first line stands behind 2.7: 2.7, 7.7, 8.2
    assert rows_of(trace, 0) == [
        ("compute", 0, 1000, 0), ("unknown", 1000, 1500), ("compute", 2700, 1300, 0), ("compute", 5000, 1000, 0)
    ]  # fmt: skip
    assert rows_of(trace, 1) == [("compute", 700, 2000, 0), ("unknown", 2700, 4500), ("compute", 7700, 500, 0)]
    assert any("sums of the runs" in note for note in report.notes)
    path.write_text(path.read_text().replace("<idle>", "idle[9]"))
    with pytest.raises(UserError, match="no <idle> in the listing: the runs do not add up; list it with -I"):
        convert("timehist", path, tmp_path / "x.parquet", times="runs")


def test_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG + "       100.010 [0001]  my[x][6/5]   5.500      0.500\n")
    with pytest.raises(UserError, match=r"log\.txt:11: expected SECONDS \[CPU\] COMM\[TID/PID\] WAIT DELAY RUN"):
        convert("timehist", path, tmp_path / "x.parquet")
    assert convert("timehist", path, tmp_path / "x.parquet", Settings(skip_bad=1))[0].rows == 8


def test_a_listing_of_perf_replays(tmp_path: Path, kernel: object) -> None:
    _, trace = convert("timehist", FIXTURES / "sched.timehist.gz", tmp_path / "x.parquet")
    assert counts(trace)["wake"] == counts(trace)["wait"] > 5, "perf listed who woke whom"
    assert replay(trace, tmp_path, "50ms")["cpu_utilization"] > 0.01


def test_the_real_listing(tmp_path: Path) -> None:
    path = shared("recorded-linux/gcc.perf_sched_timehist.txt.gz")
    assert load_formats().guess(path).name == "timehist"
    with pytest.raises(UserError, match="--times runs does without"):
        convert("timehist", path, tmp_path / "x.parquet")
    _, trace = convert("timehist", path, tmp_path / "x.parquet", times="runs")
    c = trace.columns
    # the log's last line of perf says that it slept for 3106.236 ms: the sums have to reach that
    assert trace.meta["span_ns"] == pytest.approx(3_106_300_000, rel=1e-4)
    assert int(c["user_ns"].sum()) <= 2 * trace.meta["span_ns"]
    assert np.all(c["kernel_ns"] == 0)
