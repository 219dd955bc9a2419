"""The validation recording: what is made of its events, and that the bar's numbers are those that were recorded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hvbench.errors import UserError
from hvbench.fidelity.contended_convert import (
    DISK,
    JOB,
    READERS,
    TRACE,
    WAITS,
    WARMUP_NS,
    Recording,
    convert,
    lanes,
    quantile,
    recorded,
)
from hvbench.fidelity.numbers import of_bar
from hvbench.fidelity.page_hashes import ZERO_HASH, snapshots
from hvbench.fidelity.replay import FOLDER, medium
from hvbench.traces.check import check_trace
from hvbench.traces.format import OP_NAMES, OPS, make_trace, read_trace
from hvbench.traces.load import load_trace
from hvbench.traces.record.ftrace import parse

US = 1_000


def line(task: str, cpu: int, micros: int, event: str, flags: str = "d..2.") -> str:
    return f"  {task} (  {task.rpartition('-')[2]}) [{cpu:03}] {flags} 0.{micros:06}: {event}"


def switch(cpu: int, micros: int, prev: str, state: str, following: str) -> str:
    def named(task: str, who: str) -> str:
        comm, _, tid = task.rpartition("-")
        return f"{who}_comm={comm} {who}_pid={tid} {who}_prio=120"

    left, came = named(prev, "prev"), named(following, "next")
    return line(prev, cpu, micros, f"sched_switch: {left} prev_state={state} ==> {came}")


def wake(task: str, cpu: int, micros: int, woken: str, what: str = "sched_waking", flags: str = "d..2.") -> str:
    comm, _, tid = woken.rpartition("-")
    return line(task, cpu, micros, f"{what}: comm={comm} pid={tid} prio=120 target_cpu=000", flags)


IDLE, FEED, WORK, OTHER = "swapper-0", "job-10", "job-11", "bash-20"
MARK = "tracing_mark_write: hvbench clock=0"
LINES = [
    line("x-1", 1, 0, MARK),
    # feed runs, wakes work, is preempted by another task, which sleeps
    switch(0, 100, IDLE, "R", FEED),
    wake(FEED, 0, 150, WORK),
    wake(FEED, 0, 160, WORK, "sched_wakeup"),
    wake(FEED, 0, 180, OTHER, flags="d.h2."),
    wake(FEED, 0, 190, OTHER, "sched_wakeup", "d.h2."),
    switch(0, 200, FEED, "R", OTHER),
    switch(0, 260, OTHER, "S", WORK),
    # work reads 8 sectors and blocks; feed goes on, then sleeps until a timer wakes it
    line(WORK, 0, 300, "block_rq_issue: 8,0 R 4096 () 64 + 8 none,0,0 [job]"),
    switch(0, 310, WORK, "D", FEED),
    line(FEED, 0, 390, "block_rq_complete: 8,0 R () 64 + 8 none,0,0 [0]", "d.h2."),
    wake(FEED, 0, 391, WORK, flags="d.h2."),
    wake(FEED, 0, 392, WORK, "sched_wakeup", "d.h2."),
    switch(0, 400, FEED, "S", WORK),
    wake(WORK, 0, 450, FEED, flags="d.h2."),
    wake(WORK, 0, 451, FEED, "sched_wakeup", "d.h2."),
    switch(0, 500, WORK, "S", FEED),
    # a request of somebody else, and a switch that the kernel does not show: bash came and went
    line(OTHER, 1, 520, "block_rq_issue: 8,0 WS 4096 () 128 + 8 none,0,0 [bash]"),
    line(OTHER, 1, 580, "block_rq_complete: 8,0 WS () 128 + 8 none,0,0 [0]"),
    line("x-1", 1, 600, MARK),
]


@pytest.fixture
def made() -> object:
    events = parse(LINES, READERS).events
    tasks = {20: {"name": "bash", "nice": 0, "group": "autogroup-7"}}
    about = {"device": {"number": "8:0"}, "cpus": 2}
    return convert(Recording(events, tasks, {10, 11}, {10: 90 * US}, about))


def rows(made: object, thread: int) -> list[tuple[str, int, int, int]]:
    c = made.columns  # type: ignore[attr-defined]
    mine = np.flatnonzero(c["thread"] == thread)
    return [
        (OP_NAMES[c["op"][r]], c["time_ns"][r] // US, c["user_ns"][r] // US, c["duration_ns"][r] // US) for r in mine
    ]


def test_threads_of_the_job_by_hand(made: object) -> None:
    assert rows(made, 0) == [
        ("compute", 100, 50, 0),
        ("wake", 150, 0, 0),
        ("compute", 150, 140, 0),  # 150 to 200, and 310 to 400: a preemption is no operation
        ("sleep", 400, 0, 50),  # to the timer at 450, and not to when it ran again
        ("compute", 500, 100, 0),
    ]
    assert rows(made, 1) == [
        ("wait", 0, 0, 0),
        ("compute", 260, 40, 0),
        ("compute", 300, 10, 0),
        ("blk_read", 300, 0, 0),
        ("compute", 400, 100, 0),
    ]


def test_waits_by_hand(made: object) -> None:
    waits = [(thread, at // US, wait // US) for thread, at, wait in made.waits]  # type: ignore[attr-defined]
    assert waits == [(1, 260, 100), (0, 310, 110), (1, 400, 8), (0, 500, 49)]
    assert [(at // US, took // US) for at, took in made.requests] == [(300, 90)]  # type: ignore[attr-defined]


def test_background_is_open_loop_in_groups_of_its_own(made: object) -> None:
    threads = made.meta["threads"]  # type: ignore[attr-defined]
    assert [t.get("replay", "closed") for t in threads] == ["closed", "closed"] + ["open"] * (len(threads) - 2)
    assert {t["tier"] for t in threads[2:]} >= {DISK}
    # due when it was woken, not when it got the CPU
    assert [t["tier"] for t in threads[2:] if ("compute", 190, 60, 0) in rows(made, t["id"])] == ["group-1"]
    disk = next(t["id"] for t in threads if t["tier"] == DISK)
    assert rows(made, disk) == [("blk_write", 520, 0, 0)]
    assert check_trace(make_trace(made.meta, made.columns)) == []  # type: ignore[attr-defined]


def test_a_hidden_switch_shows_at_the_next_event_of_the_cpu() -> None:
    lines = [
        line("x-1", 1, 0, MARK),
        switch(0, 100, FEED, "R", "agent-5"),
        wake(WORK, 0, 130, FEED, flags="d.h2."),
        switch(0, 200, WORK, "S", FEED),
        line("x-1", 1, 300, MARK),
    ]
    made = convert(Recording(parse(lines, READERS).events, {}, {10, 11}, {}, {"device": {"number": "8:0"}}))
    assert made.about["hidden_switches"] == 1
    agent = len(made.meta["threads"]) - 1
    assert rows(made, agent) == [("compute", 100, 30, 0)]
    assert rows(made, 1)[0] == ("compute", 130, 70, 0)


def test_a_recording_without_the_job_is_refused() -> None:
    with pytest.raises(UserError, match="no wait of the job on a run queue: was it running"):
        convert(Recording(parse(LINES, READERS).events, {}, {99}, {}, {"device": {"number": "8:0"}}))


def test_requests_of_one_lane_do_not_overlap() -> None:
    asked = [(0, 10, 1, "R", 0, 8), (5, 10, 1, "R", 0, 8), (10, 1, 1, "R", 0, 8), (12, 1, 1, "R", 0, 8)]
    assert lanes(asked) == [[asked[0], asked[2], asked[3]], [asked[1]]]


def test_quantiles_are_nearest_ranks() -> None:
    assert [quantile(range(1, 11), share) for share in (0.01, 0.5, 0.9, 0.99)] == [1, 5, 9, 10]


# the recording that is shipped ----------------------------------------------------------------------------------


def test_the_targets_are_what_was_recorded() -> None:
    found = json.loads((FOLDER / WAITS).read_text(encoding="ascii"))
    for name, value in recorded(found["waits"], found["requests"]).items():
        assert of_bar("REPLAY", "target")[name].value == pytest.approx(value, rel=1e-4), name


def test_two_ways_of_counting_agree() -> None:
    """Waits from events are what the kernel's own accounting (schedstat) says; all CPU time is accounted for."""
    about = json.loads((FOLDER / WAITS).read_text(encoding="ascii"))["about"]
    assert about["wait_by_events_ns"] == pytest.approx(about["wait_by_schedstat_ns"], rel=0.01)
    assert about["job_compute_ns"] + about["background_compute_ns"] <= about["cpus"] * about["span_ns"] * 1.01


def test_the_trace_knows_no_target_and_is_small() -> None:
    trace = read_trace(FOLDER / TRACE)
    assert check_trace(trace) == []
    assert not any(key.startswith("wait_") for key in trace.meta["machine"])
    assert {"kernel", "hz", "preemption", "base_slice_ns", "cpus"} <= set(trace.meta["machine"])
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 300_000
    job = [t["id"] for t in trace.meta["threads"] if t["tier"] == JOB]
    kept = np.isin(trace.columns["thread"], job) & np.isin(trace.columns["op"], [OPS["unknown"], OPS["outside"]])
    assert trace.columns["duration_ns"][kept].sum() < 0.05 * trace.meta["span_ns"]
    assert trace.meta["span_ns"] > 5 * WARMUP_NS


def test_background_threads_begin_at_recorded_times() -> None:
    made = load_trace(FOLDER / TRACE)
    for thread in made.threads:
        ops = made.ops[thread.first : thread.end]
        due = ops["op"] == len(OP_NAMES)
        assert due.any() == thread.background
        if thread.background:
            assert due[0]


def test_the_medium_is_what_the_probe_says() -> None:
    probe = {"read_small_ns": 54_096, "read_large_ns": 312_144, "write_small_ns": 64_096}
    assert medium(probe) == {
        "disk.read_latency": "50000ns",
        "disk.write_latency": "60000ns",
        "disk.bandwidth": 1_000_000_000,
    }


# page hashes ----------------------------------------------------------------------------------------------------


def hashes(path: Path, text: str) -> Path:
    with gzip.open(path, "wt") as file:
        file.write(text)
    return path


def test_snapshots_are_complete_and_forget_who_has_gone(tmp_path: Path) -> None:
    text = (
        "# t=0.000 vm=0 changed=2\n0 0 0a\n0 1 0b\n# t=0.000 vm=1 changed=2\n1 0 0b\n"
        f"1 1 {ZERO_HASH:016x}\n# t=1.500 vm=1 changed=1\n1 0 0c\n"
    )
    first, second = snapshots(hashes(tmp_path / "h.gz", text))
    assert (first.time_s, second.time_s) == (0.0, 1.5)
    assert {vm: pages.tolist() for vm, pages in first.contents.items()} == {0: [10, 11], 1: [11, 0]}
    assert first.in_both == 1
    assert {vm: pages.tolist() for vm, pages in second.contents.items()} == {1: [12, 0]}


def test_a_bad_line_of_page_hashes_is_named(tmp_path: Path) -> None:
    path = hashes(tmp_path / "h.gz", "# t=0.000 vm=0 changed=1\n0 zz 0a\n")
    with pytest.raises(UserError, match=r"h\.gz:2: '0 zz 0a'; legal: `# t=SECONDS vm=N changed=N` or `VM PAGE HASH`"):
        list(snapshots(path))


# background load in a workload ----------------------------------------------------------------------------------


def test_a_background_vm_keeps_to_its_times_and_has_no_slowdown(tmp_path: Path) -> None:
    """One pCPU, in turns of 10 ms: the job computes 30 ms, the other is due at 5 ms for 10 ms."""
    from hvbench.fidelity.stage import Stage
    from hvbench.plugins import load_registry
    from hvbench.simulate import simulate
    from hvbench.traces.format import write_trace

    ms = 1_000_000
    threads = [
        {"id": 0, "process": 0, "tier": "job", "name": "a", "role": "guest"},
        {"id": 1, "process": 1, "tier": "load", "name": "b", "role": "guest", "replay": "open"},
    ]
    meta = {"name": "two", "span_ns": 60 * ms, "page_size": 4096, "threads": threads, "tiers": ["job", "load"]}
    columns = {"thread": [0, 1], "op": [OPS["compute"]] * 2, "time_ns": [0, 5 * ms], "user_ns": [30 * ms, 10 * ms]}
    write_trace(tmp_path / "two.parquet", {**meta, "objects": [], "flows": [], "wait_shares": {}}, columns)
    stage = Stage(tmp_path, load_registry())
    vm = {"memory": "16MiB", "trace": "./two.parquet", "instance": "x", "image": "", "start": "0s"}
    path = stage.workload(
        "two",
        settings={"class": "micro", "warmup": "0s", "horizon": "35ms"},
        host={"pcpus": 1, "memory": "1GiB", "switch_cost": "0s", "cache_refill": "0s"},
        vms=[{**vm, "name": tier, "tier": tier} for tier in ("job", "load")],
    )
    result = simulate(stage.cell(path, scheduler="round-robin:timeslice=10ms"))
    assert result.status == "ok", result.reason
    job, load = result.vms
    # it ran 0 to 10, waited while the other had its 10 ms, and ran on
    assert job["ready_ns"] == 10 * ms
    assert job["ready_p99_ns"] == pytest.approx(10 * ms, rel=1 / 32)
    # ready at 0, as every thread is when a replay begins; due at 5, begun at 10, done at 20
    assert load["ready_ns"] == 10 * ms
    assert load["request_latency_p50_ns"] == pytest.approx(15 * ms, rel=1 / 32)
    assert "slowdown" in job and "slowdown" not in load
    assert result.vcpu_ready_ns == [[10 * ms], [10 * ms]]


def test_another_word_for_replay_is_refused() -> None:
    thread = {"id": 0, "process": 0, "tier": "job", "name": "a", "role": "guest", "replay": "ajar"}
    meta = {"span_ns": 1, "threads": [thread], "tiers": ["job"], "objects": [], "flows": []}
    problems = check_trace(make_trace(meta, {"thread": [0], "op": [OPS["compute"]], "user_ns": [1]}))
    assert "threads[0].replay is 'ajar'; legal: closed, open" in str(problems[0])
