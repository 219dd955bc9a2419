"""From events to operations, rule by rule, on hand-written ring-buffer text."""

from __future__ import annotations

import pytest

from hvbench.traces.record.ftrace import in_nanoseconds, parse
from hvbench.traces.record.rows import Row, Thread
from hvbench.traces.record.timeline import FAULT_NS, Timeline

SWITCH = (
    "sched_switch: prev_comm={0} prev_pid={1} prev_prio=120 prev_state={2} ==> next_comm={3} next_pid={4} next_prio=120"
)


def line(us: int, tid: int, event: str, flags: str = ".....", cpu: int = 0) -> str:
    """An event at `us` microseconds; threads are p<tid>, each its own process unless the text says otherwise."""
    name, group = ("<idle>", "-------") if tid == 0 else (f"p{tid}", f"{tid:7}")
    return f"  {name}-{tid} ({group}) [{cpu:03}] {flags} 0.{us:06}: {event}"


def switch(us: int, prev: int, state: str, following: int, cpu: int = 0) -> str:
    names = {0: "swapper"}
    text = SWITCH.format(names.get(prev, f"p{prev}"), prev, state, names.get(following, f"p{following}"), following)
    return line(us, prev, text, "d..2.", cpu)


def waking(us: int, by: int, target: int, context: str = ".") -> str:
    return line(us, by, f"sched_waking: comm=p{target} pid={target} prio=120 target_cpu=000", f"d.{context}3.")


def enter(us: int, tid: int, number: int, *args: int) -> str:
    words = [*args, *[0] * (6 - len(args))]
    return line(us, tid, f"sys_enter: NR {number} ({', '.join(f'{word:x}' for word in words)})")


def leave(us: int, tid: int, number: int, result: int = 0) -> str:
    return line(us, tid, f"sys_exit: NR {number} = {result}")


def run(*lines: str, resolution: int = 0) -> Timeline:
    capture = parse(sorted(lines, key=lambda text: text.split("] ")[1].split()[1]))
    assert capture.unparsed == 0
    timeline = Timeline(0, resolution)
    timeline.run(in_nanoseconds(capture))
    return timeline


def rows(timeline: Timeline, tid: int) -> list[Row]:
    return timeline.by_tid[tid].rows


def kinds(timeline: Timeline, tid: int) -> list[str]:
    return [row.op for row in rows(timeline, tid)]


def computed(thread: Thread) -> tuple[int, int]:
    spent = [row.at for row in thread.rows if row.op == "compute"]
    return sum(at["user_ns"] for at in spent), sum(at["kernel_ns"] for at in spent)


#: p1 is first seen here: a call that takes 10 us
START = (enter(100, 1, 1), leave(110, 1, 1))


def test_user_and_kernel_time() -> None:
    timeline = run(*START, enter(150, 1, 0), leave(170, 1, 0), switch(200, 1, "S", 0))
    assert computed(timeline.by_tid[1]) == (40_000 + 30_000, 10_000 + 20_000)
    compute = rows(timeline, 1)[0]
    assert compute.at["syscalls"] == 2 and compute.at["context_switches"] == 1


def test_time_on_the_run_queue_is_dropped() -> None:
    timeline = run(*START, switch(150, 1, "R", 2), switch(950, 2, "S", 1), switch(1000, 1, "S", 0))
    assert computed(timeline.by_tid[1]) == (40_000 + 50_000, 10_000)
    assert kinds(timeline, 1) == ["compute"]


def test_who_came_unseen_has_run_since_it_was_woken() -> None:
    """The switch to it is missing: its time is not lost, nor does it count from before its wake-up."""
    begin = [*START, switch(200, 1, "S", 0)]
    timeline = run(*begin, waking(500, 9, 1), switch(800, 1, "S", 0))
    assert computed(timeline.by_tid[1])[0] == (90 + 300) * 1000 and timeline.unseen == 1
    # it was never seen to be woken either: since the switch before on that CPU
    timeline = run(*begin, switch(400, 0, "R", 9), switch(600, 9, "S", 0), switch(800, 1, "S", 0))
    assert computed(timeline.by_tid[1])[0] == (90 + 200) * 1000
    # a call of its own shows that it runs
    timeline = run(*begin, waking(500, 9, 1), enter(700, 1, 0), leave(720, 1, 0), switch(800, 1, "S", 0))
    assert sum(computed(timeline.by_tid[1])) == (90 + 10 + 300) * 1000
    assert [row.at.get("duration_ns") for row in rows(timeline, 1) if row.op == "outside"] == [300_000]


def test_a_wake_up_between_threads_is_an_edge() -> None:
    timeline = run(
        *START,
        enter(120, 1, 202, 0, 0x80),
        switch(130, 1, "S", 2),
        enter(200, 2, 202, 0, 0x81),
        waking(210, 2, 1),
        leave(220, 2, 202),
        switch(300, 2, "S", 1),
        leave(310, 1, 202),
        switch(400, 1, "S", 0),
    )
    assert kinds(timeline, 1) == ["compute", "wait", "compute"]
    assert kinds(timeline, 2) == ["compute", "wake", "compute"]
    waker, wake = rows(timeline, 1)[1].at["edge"]
    assert waker.tid == 2 and wake is rows(timeline, 2)[1] and wake.at["target"].tid == 1
    assert timeline.by_tid[1].waited["thread_edge"] == 80_000


def test_a_wake_up_on_the_way_to_sleep_counts() -> None:
    timeline = run(
        *START,
        enter(120, 1, 202, 0, 0x80),
        enter(100, 2, 1),
        waking(149, 2, 1),
        switch(150, 1, "S", 0),
        switch(155, 0, "R", 1),
        switch(160, 1, "S", 0),
    )
    assert "wait" in kinds(timeline, 1) and "wake" in kinds(timeline, 2)
    assert timeline.by_tid[1].waited["unknown"] == 0


def test_an_old_wake_up_does_not_count() -> None:
    timeline = run(
        *START, enter(100, 2, 1), waking(149, 2, 1), switch(550, 1, "S", 0), switch(600, 0, "R", 1), leave(700, 1, 1)
    )
    assert "unknown" in kinds(timeline, 1)


def test_a_sleep_keeps_its_duration() -> None:
    timeline = run(
        *START,
        enter(120, 1, 230),
        switch(130, 1, "S", 0),
        waking(630, 0, 1, "h"),
        switch(650, 0, "R", 1),
        leave(660, 1, 230),
    )
    sleep = rows(timeline, 1)[1]
    assert (sleep.op, sleep.at["duration_ns"], sleep.time) == ("sleep", 500_000, 130_000)


def test_a_time_out_is_a_sleep_and_programs_a_timer() -> None:
    timeline = run(
        *START,
        enter(120, 1, 232, 3, 0, 10, 50),
        switch(130, 1, "S", 0),
        waking(430, 0, 1, "h"),
        switch(431, 0, "R", 1),
        leave(440, 1, 232),
    )
    assert kinds(timeline, 1)[:2] == ["compute", "sleep"]
    assert rows(timeline, 1)[0].at["timer_programs"] == 1


def test_a_receive_without_a_seen_waker_is_of_the_network() -> None:
    timeline = run(*START, enter(120, 1, 45, 5), switch(130, 1, "S", 0), switch(431, 0, "R", 1), leave(440, 1, 45, 9))
    assert timeline.by_tid[1].waited["network"] == 301_000 and timeline.by_tid[1].waited["unknown"] == 0


def test_a_stopped_process_does_not_wait() -> None:
    timeline = run(*START, switch(130, 1, "T", 0), waking(430, 9, 1), switch(431, 0, "R", 1), leave(440, 1, 0))
    assert set(kinds(timeline, 1)) == {"compute"}


def test_woken_by_a_stranger_is_outside() -> None:
    timeline = run(
        *START, enter(120, 1, 61), switch(130, 1, "S", 0), waking(430, 9, 1), switch(431, 0, "R", 1), leave(440, 1, 61)
    )
    outside = rows(timeline, 1)[1]
    assert (outside.op, outside.at["duration_ns"]) == ("outside", 300_000)
    assert any(cause.startswith("outside: wait4") for cause in timeline.causes)


def test_waiting_for_the_disk_is_the_operation_itself() -> None:
    timeline = run(
        *START,
        enter(120, 1, 0),
        line(125, 1, "mm_filemap_get_pages: dev=254:0 ino=1f ofs=0-8191"),
        switch(130, 1, "D", 0),
        waking(530, 0, 1, "h"),
        switch(531, 0, "R", 1),
        leave(540, 1, 0, 8192),
    )
    assert kinds(timeline, 1) == ["compute", "fread", "compute"]
    assert timeline.by_tid[1].waited["disk"] == 400_000


def fork(us: int, parent: int, child: int) -> str:
    return line(us, parent, f"sched_process_fork: comm=p{parent} pid={parent} child_comm=p{parent} child_pid={child}")


def test_a_child_waits_for_its_parent() -> None:
    timeline = run(
        *START,
        enter(120, 1, 56),
        fork(125, 1, 5),
        line(126, 1, "sched_wakeup_new: comm=p1 pid=5 prio=120 target_cpu=001", "d..3."),
        switch(140, 0, "R", 5, cpu=1),
        leave(145, 5, 56),
        switch(190, 5, "S", 0, cpu=1),
        leave(150, 1, 56, 5),
    )
    assert kinds(timeline, 5)[0] == "wait"
    assert kinds(timeline, 1)[1] == "wake"
    assert timeline.by_tid[5].process is not timeline.by_tid[1].process


def test_a_thread_joins_its_process() -> None:
    own = line(145, 5, "sys_exit: NR 56 = 0").replace("(      5)", "(      1)")
    timeline = run(*START, fork(125, 1, 5), switch(140, 0, "R", 5, cpu=1), own)
    assert timeline.by_tid[5].process is timeline.by_tid[1].process
    assert len(timeline.processes) == 1


def fault(us: int, tid: int, page: int, code: int = 6) -> str:
    return line(us, tid, f"page_fault_user: address={page * 4096 + 8:#x} ip=0x1 error_code={code:#x}", "d....")


def test_faults_in_anonymous_memory_are_touches() -> None:
    timeline = run(
        *START,
        fault(120, 1, 1000),
        fault(121, 1, 1001),
        fault(122, 1, 1002, 4),
        fault(123, 1, 2000),
        switch(150, 1, "S", 0),
    )
    touches = [(row.at["page"], row.at["pages"], row.at["flags"]) for row in rows(timeline, 1) if row.op == "touch"]
    assert touches == [(1000, 2, 1), (2000, 1, 1), (1002, 1, 0)]
    compute = rows(timeline, 1)[0]
    assert compute.at["page_faults"] == 4
    assert computed(timeline.by_tid[1])[1] == 10_000 + 4 * FAULT_NS


def test_faults_in_files_are_mapped_touches() -> None:
    timeline = run(
        *START,
        fault(120, 1, 1000, 4),
        line(121, 1, "mm_filemap_map_pages: dev=254:0 ino=1f ofs=0-65535"),
        switch(150, 1, "S", 0),
    )
    touch = rows(timeline, 1)[1]
    assert (touch.op, touch.at["page"], touch.at["pages"]) == ("mtouch", 0, 16)
    assert "touch" not in kinds(timeline, 1)


def test_touches_are_batched_to_the_resolution() -> None:
    lines = [fault(120 + 10 * i, 1, 1000 + i) for i in range(50)]
    io = [
        line(125 + 10 * i, 1, f"mm_filemap_get_pages: dev=254:0 ino=1f ofs={i * 40960}-{i * 40960 + 4095}")
        for i in range(50)
    ]
    fine = run(*START, *lines, *io, switch(900, 1, "S", 0))
    coarse = run(*START, *lines, *io, switch(900, 1, "S", 0), resolution=200_000)
    for timeline, most in ((fine, 51), (coarse, 3)):
        touches = [row for row in rows(timeline, 1) if row.op == "touch"]
        assert sum(row.at["pages"] for row in touches) == 50
        assert len(touches) <= most
    assert len([row for row in rows(fine, 1) if row.op == "touch"]) > 40


def test_unmapping_frees_what_was_touched() -> None:
    timeline = run(
        *START,
        fault(120, 1, 1000),
        fault(121, 1, 1001),
        fault(122, 1, 1005),
        enter(130, 1, 11, 1001 * 4096, 10 * 4096),
        leave(135, 1, 11),
        switch(150, 1, "S", 0),
    )
    freed = [(row.at["page"], row.at["pages"]) for row in rows(timeline, 1) if row.op == "free"]
    assert freed == [(1001, 1), (1005, 1)]
    assert kinds(timeline, 1).index("touch") < kinds(timeline, 1).index("free")
    assert timeline.memory.spaces[0].live == {1000}


@pytest.mark.parametrize(("advice", "freed"), [(4, 1), (8, 1), (3, 0)])
def test_madvise(advice: int, freed: int) -> None:
    timeline = run(
        *START,
        fault(120, 1, 1000),
        enter(130, 1, 28, 1000 * 4096, 4096, advice),
        leave(135, 1, 28),
        switch(150, 1, "S", 0),
    )
    assert kinds(timeline, 1).count("free") == freed


def test_shared_memory_is_one_object_for_all() -> None:
    timeline = run(
        *START,
        enter(120, 1, 9, 0, 8 * 4096, 3, 0x21),
        leave(121, 1, 9, 5000 * 4096),
        fork(125, 1, 5),
        switch(140, 0, "R", 5, cpu=1),
        leave(141, 5, 56),
        fault(142, 5, 5003),
        fault(143, 1, 5003),
        switch(190, 5, "S", 0, cpu=1),
        switch(191, 1, "S", 0),
    )
    files = [row.at["file"] for tid in (1, 5) for row in rows(timeline, tid) if "file" in row.at]
    assert len(files) == 2 and files[0] is files[1]
    assert not any("space" in row.at for tid in (1, 5) for row in rows(timeline, tid))
    assert {row.op for tid in (1, 5) for row in rows(timeline, tid) if "file" in row.at} == {"touch"}
    assert files[0].kind == "anon"


def test_reads_that_continue_are_one() -> None:
    pieces = [
        line(120 + i, 1, f"mm_filemap_get_pages: dev=254:0 ino=1f ofs={i * 8192}-{i * 8192 + 8191}") for i in range(1)
    ]
    again = line(121, 1, "mm_filemap_get_pages: dev=254:0 ino=1f ofs=0-8191")
    timeline = run(*START, enter(119, 1, 0), *pieces, again, leave(125, 1, 0), switch(150, 1, "S", 0))
    assert [(row.at["page"], row.at["pages"]) for row in rows(timeline, 1) if row.op == "fread"] == [(0, 2)]


def test_writes_and_fsync() -> None:
    write = "ext4_da_write_end: dev 254,0 ino 31 pos {} len 4096 copied 4096"
    timeline = run(
        *START,
        enter(119, 1, 1),
        line(120, 1, write.format(0)),
        line(121, 1, write.format(4096)),
        leave(125, 1, 1),
        enter(130, 1, 75),
        line(131, 1, "ext4_sync_file_enter: dev 254,0 ino 31 parent 2 datasync 1 "),
        leave(180, 1, 75),
        switch(190, 1, "S", 0),
    )
    assert [row.op for row in rows(timeline, 1) if row.op != "compute"] == ["fwrite", "fsync"]
    assert rows(timeline, 1)[kinds(timeline, 1).index("fwrite")].at["pages"] == 2


def test_a_program_marks_its_own_units() -> None:
    timeline = run(
        *START,
        enter(120, 1, 157, 0x68766D62, 1),
        leave(121, 1, 157, -22),
        enter(220, 1, 157, 0x68766D62, 2),
        leave(221, 1, 157, -22),
        switch(230, 1, "S", 0),
    )
    assert [op for op in kinds(timeline, 1) if op != "compute"] == ["mark_begin", "mark_end"]


def test_time_never_runs_backwards_within_a_thread() -> None:
    timeline = run(
        *START, *[fault(120 + i, 1, 1000 + 3 * i) for i in range(20)], enter(150, 1, 230), switch(160, 1, "S", 0),
        waking(660, 0, 1, "h"), switch(670, 0, "R", 1), leave(680, 1, 230), switch(700, 1, "S", 0),
        resolution=10_000_000,
    )  # fmt: skip
    times = [row.time for row in rows(timeline, 1)]
    assert times == sorted(times)
