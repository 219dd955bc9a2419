"""Reading ring-buffer text: the grammar, its traps, and both clocks."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from hvbench.traces.record.ftrace import Clock, in_nanoseconds, parse

DATA = Path(__file__).parent / "data"


def one(line: str) -> object:
    capture = parse([line])
    assert capture.unparsed == 0 and len(capture.events) == 1, capture
    return capture.events[0]


def test_a_switch_with_awkward_names() -> None:
    event = one(
        "       CPU 0/TCG-x-11476   (  11473) [001] d..2.  3174.490530: sched_switch: prev_comm=a: b=c prev_pid=11476 "
        "prev_prio=120 prev_state=R+ ==> next_comm=qemu system-x86 next_pid=11466 next_prio=120"
    )
    assert event.comm == "CPU 0/TCG-x" and (event.tid, event.tgid, event.cpu) == (11476, 11473, 1)
    assert event.time == 3174_490530_000
    assert event.args == ("a: b=c", 11476, "R+", "qemu system-x86", 11466)


def test_context_of_wakers() -> None:
    line = "  x-7 [000] d.{}3. 1.000001: sched_waking: comm=y pid=8 prio=120 target_cpu=001"
    assert [one(line.format(flag)).context for flag in ".hsH"] == ["", "h", "s", "h"]


def test_a_line_without_flags_or_group() -> None:
    event = one("  gcc-9 [000] 2.5: sys_exit: NR 262 = -2")
    assert (event.time, event.tgid, event.args) == (2_500_000_000, 0, (262, -2))


def test_arguments() -> None:
    head = "  x-7 (      7) [000] ..... 1.0: "
    assert one(head + "sys_enter: NR 257 (ffffff9c, 55d6, 441, 1b6, 0, 20)").args[1][:2] == (0xFFFFFF9C, 0x55D6)
    assert one(head + "page_fault_user: address=0x7f0200218a10 ip=0x1 error_code=0x6").args == (0x7F0200218A10, 6)
    assert one(head + "mm_filemap_get_pages: dev=254:0 ino=3fb5c ofs=4096-12287").args == ("254:0", 0x3FB5C, 1, 2)
    assert one(head + "mm_filemap_fault: dev=254:0 ino=1f ofs=8192").args == ("254:0", 31, 2, 1)
    write = one(head + "ext4_da_write_end: dev 254,0 ino 99 pos 4000 len 200 copied 200")
    assert write.args == ("254:0", 99, 0, 2)
    send = one(
        head + "sock_send_length: sk address = 00000000c1c7c2a1, family = AF_INET protocol = IPPROTO_TCP, "
        "length = 12, error = 0, flags = 0x0"
    )
    assert send.args == ("00000000c1c7c2a1", "AF_INET", "IPPROTO_TCP", 12, 0)
    assert one(head + "sched_process_exec: filename=/a b/c pid=7 old_pid=7").args == ("/a b/c", 7, 7)


def test_lost_events_and_rubbish_are_counted() -> None:
    capture = parse(["# tracer: nop", "", "CPU:1 [LOST 17 EVENTS]", "rubbish", "  x-7 [000] ..... 1.0: new_event: a=1"])
    assert (capture.lost, capture.unparsed, capture.events) == (17, 1, [])


def test_ticks_become_nanoseconds() -> None:
    lines = [
        "  x-1 [000] ..... 1000: tracing_mark_write: hvbench clock=5000",
        "  x-1 [000] ..... 2000: sys_exit: NR 0 = 0",
        "  x-1 [000] ..... 3000: tracing_mark_write: hvbench clock=6000",
    ]
    assert [event.time for event in in_nanoseconds(parse(lines))] == [5000, 5500, 6000]
    with pytest.raises(ValueError, match="two `hvbench clock=` markers"):
        list(in_nanoseconds(parse(lines[:2])))
    assert Clock.of([]) is None


@pytest.mark.parametrize("name", ["build", "messages"])
def test_a_real_capture_is_read_whole(name: str) -> None:
    with gzip.open(DATA / f"{name}.txt.gz", "rt", errors="surrogateescape") as file:
        capture = parse(file)
    assert capture.unparsed == 0 and capture.lost == 0 and capture.ticks
    assert len(capture.events) > 1000
    times = [event.time for event in in_nanoseconds(capture)]
    assert times == sorted(times)
    assert 0.02e9 < times[-1] - times[0] < 60e9
