"""The recording of two VMs: its windows, what is made of events that are not all there, and what is judged."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hvbench.fidelity import two_vms, two_vms_balloon, two_vms_steal
from hvbench.fidelity.contended_convert import READERS
from hvbench.fidelity.numbers import inputs, of_bar
from hvbench.fidelity.two_vms_steal import QEMU, VCPUS, PartialReader, convert, read_window, windows
from hvbench.traces.check import check_trace
from hvbench.traces.format import OP_NAMES, make_trace
from hvbench.traces.record.ftrace import Event, parse
from tests.fidelity.test_replay import IDLE, US, switch, wake

VCPU, OTHER = "CPU0/TCG-10", "make-20"
recorded = pytest.mark.skipif(bool(two_vms.absent()), reason=two_vms.absent() or "is there")


def read(*lines: str, start: int = 0, end: int = 1000) -> PartialReader:
    return read_window(parse(lines, READERS).events, [10, 11], start * US, end * US)


def computed(reader: PartialReader, tid: int) -> list[tuple[int, int]]:
    """When each of a task's computes is due, and how long it is, µs."""
    return [(r[1] // US, r[2] // US) for r in reader.tasks[tid].rows if OP_NAMES[r[0]] == "compute"]


def waits(reader: PartialReader) -> list[tuple[int, int]]:
    return [(at // US, wait // US) for _, at, wait in reader.waits]


# events that are not all there ----------------------------------------------------------------------------------


def test_a_vcpu_found_running_took_an_idle_cpu_when_it_was_woken() -> None:
    reader = read(
        switch(0, 100, VCPU, "S", IDLE),
        wake(IDLE, 0, 200, VCPU, "sched_wakeup", "dNh2."),
        # the switch from idle is missing
        switch(0, 500, VCPU, "S", IDLE),
    )
    assert computed(reader, 10) == [(0, 100), (200, 300)]
    assert waits(reader) == [(200, 0)]
    assert reader.hidden == 1


def test_so_it_did_where_another_task_was_seen_last() -> None:
    """A switch from another task would have been there: that one had gone to sleep before."""
    reader = read(
        switch(0, 100, VCPU, "S", OTHER),
        wake("x-1", 1, 300, VCPU, "sched_wakeup"),
        switch(0, 500, VCPU, "S", IDLE),
    )
    assert computed(reader, 10) == [(0, 100), (300, 200)]
    assert computed(reader, 20) == []


def test_what_others_ran_counts_where_it_ends_at_a_qemu_thread() -> None:
    reader = read(
        switch(0, 100, VCPU, "R", OTHER),
        switch(0, 400, OTHER, "R", VCPU),
        switch(0, 500, VCPU, "S", OTHER),
        # it slept, nobody knows since when
        switch(0, 900, IDLE, "R", VCPU),
    )
    assert computed(reader, 20) == [(100, 300)]
    assert waits(reader) == [(400, 300)]


def test_a_window_begins_with_what_is_left() -> None:
    lines = [
        switch(0, 100, IDLE, "R", VCPU),
        switch(1, 120, "CPU0/TCG-11", "S", IDLE),
        # the window begins at 300
        wake(VCPU, 0, 400, "CPU0/TCG-11", "sched_wakeup"),
        switch(1, 410, IDLE, "R", "CPU0/TCG-11"),
        switch(0, 600, VCPU, "S", IDLE),
    ]
    reader = read(*lines, start=300, end=1000)
    rows = {
        tid: [(OP_NAMES[r[0]], r[1] // US, r[2] // US, r[6] // US) for r in reader.tasks[tid].rows] for tid in (10, 11)
    }
    # who still sleeps at the end sleeps on
    assert rows[10] == [("compute", 300, 100, 0), ("wake", 400, 0, 0), ("compute", 400, 200, 0), ("sleep", 600, 0, 400)]
    assert rows[11] == [("wait", 300, 0, 0), ("compute", 410, 590, 0)]
    assert waits(reader) == [(410, 10)]


def test_windows_are_what_lies_between_hashings(tmp_path: Path) -> None:
    path = tmp_path / "domstats.csv"
    text = "t_s,vm,runq_wait_ns\n"
    for time, first, second in ((0.0, 0, 0), (3.0, 500, 400), (3.5, 510, 440), (4.0, 530, 450), (7.0, -1, 900)):
        text += "".join(f"{time},{vm},{wait}\n" for vm, wait in enumerate((first, second)) if wait >= 0)
    path.write_text(text + "7.5,1,907\n")
    found = [(w.start // 10**6, w.end // 10**6, w.wait_ns) for w in windows(path)]
    assert found == [(3000, 4000, (30, 50)), (7000, 7500, (0, 7))]


def test_threads_of_the_qemus_and_their_recorder_are_one_group() -> None:
    def event(tid: int, tgid: int, time: int) -> Event:
        return Event(time * US, 0, tid, tgid, "x", "", "sched_switch", ("x", tid, "S", "idle", 0))

    events = [event(VCPUS[0], QEMU[0], 100), event(VCPUS[1], QEMU[1], 200), event(QEMU[0], QEMU[0], 300)]
    busy = Event(350 * US, 0, QEMU[0], QEMU[0], "x", "", "sched_switch", ("x", QEMU[0], "S", "make", 20))
    back = Event(600 * US, 0, 20, 19, "make", "", "sched_switch", ("make", 20, "R", "x", QEMU[0]))
    for others in (True, False):
        meta, columns = convert([*events, busy, back], 0, 1000 * US, others)
        assert check_trace(make_trace(meta, columns)) == []
        tiers = [thread["tier"] for thread in meta["threads"]]
        assert tiers == ["job"] * 3 + ["process-19"] * others
        assert [t["name"] for t in meta["threads"][:2]] == [f"task-{tid}" for tid in VCPUS]


# the recording ----------------------------------------------------------------------------------------------------


@recorded
def test_the_steal_that_is_judged_is_the_kernel_s_count() -> None:
    found = windows(two_vms.folder() / two_vms_steal.STATISTICS)
    for vm in range(2):
        waited = sum(window.wait_ns[vm] for window in found) / 1e6
        assert of_bar("TWO-VMS", "target")[f"steal.vm{vm}"].value == pytest.approx(waited, abs=1e-3)


@recorded
def test_events_and_the_kernel_s_counts_agree() -> None:
    """Waiting within 5 %; of what the vCPUs ran, the events hold the share that the notes name."""
    events = two_vms_steal.recorded_events(two_vms.folder() / two_vms_steal.EVENTS)
    found = windows(two_vms.folder() / two_vms_steal.STATISTICS)
    readers = [read_window(events, list(VCPUS), window.start, window.end) for window in found]
    with (two_vms.folder() / two_vms_steal.STATISTICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for vm, tid in enumerate(VCPUS):
        waited = sum(wait for reader in readers for thread, _, wait in reader.waits if thread == vm)
        assert waited == pytest.approx(sum(window.wait_ns[vm] for window in found), rel=0.05)
        cpu = {round(1e9 * float(r["t_s"])): int(r["cpu_ns"]) for r in rows if r["vm"] == str(vm)}
        counted = sum(cpu[w.end] - cpu[w.start] for w in found if w.end in cpu)
        ran = sum(r[2] for k, reader in enumerate(readers) if found[k].end in cpu for r in reader.tasks[tid].rows)
        assert ran / counted == pytest.approx((0.97, 0.89)[vm], abs=0.01)


@recorded
def test_what_the_balloon_is_judged_by_is_what_was_read() -> None:
    with (two_vms.folder() / two_vms_steal.STATISTICS).open(newline="") as file:
        rows = {row["t_s"]: row for row in csv.DictReader(file) if row["vm"] == "0"}
    given = inputs("TWO-VMS")
    targets = {name: number.value for name, number in of_bar("TWO-VMS", "target").items()}
    before, after, last = (rows[two_vms_balloon.SPANS[name][1]] for name in two_vms_balloon.SPANS)
    balloons = [(given["memory_pages"] * 4096 - int(row["balloon_bytes"])) / 2**20 for row in (before, after, last)]
    assert balloons == [0, targets["balloon.inflated"], targets["balloon.deflated"]]
    soon = rows[two_vms_balloon.SPANS["inflated"][0]]
    rss = [int(row["rss_kb"]) / 1024 for row in (before, soon, last)]
    assert targets["balloon.returned"] == pytest.approx(rss[0] - rss[1], abs=1e-3)
    assert targets["balloon.stays"] == pytest.approx(rss[0] - rss[2], abs=1e-3)
    # commands follow the last readings without a sign of them
    stamps = list(rows)
    for name, size in (("first_command", before), ("second_command", after)):
        sent = next(a for a, b in pairwise(stamps) if float(a) >= given[name])
        assert float(sent) == given[name]
        assert rows[sent]["balloon_bytes"] == size["balloon_bytes"]
        assert rows[stamps[stamps.index(sent) + 1]]["balloon_bytes"] != size["balloon_bytes"]
    for name, phase in (("free_before", "mem"), ("free_written", "memdone"), ("free_removed", "freed")):
        console = (two_vms.folder() / "vm0.console").read_text(errors="replace")
        assert int(console.split(f"PHASE {phase} ")[1].split()[1].removeprefix("free=")) == given[name]


def test_the_guest_writes_and_removes_what_its_console_said() -> None:
    trace = two_vms_balloon.guest(inputs("TWO-VMS")).trace()
    assert check_trace(trace) == []
    ops = [OP_NAMES[op] for op in trace.columns["op"]]
    touched, freed = (int(trace.columns["pages"][ops.index(op)]) for op in ("touch", "free"))
    assert (touched * 4, freed * 4) == (197_408 - 135_140, 196_412 - 135_140)
    assert np.all(np.diff(trace.columns["time_ns"][trace.columns["thread"] == 0]) >= 0)
