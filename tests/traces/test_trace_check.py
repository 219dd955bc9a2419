"""Every rule of the format, broken once: the text has to say what and where."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trace_builders import SMALL_ROWS, build, columns_of, small_meta

from hvbench.cli.trace import trace as trace_command
from hvbench.traces.check import check_trace, require_valid
from hvbench.traces.format import Trace, TraceError, write_trace
from hvbench.traces.info import format_info, trace_info

Row = tuple[int, str, int, dict[str, int]]


def texts(trace: Trace) -> list[str]:
    return [str(problem) for problem in check_trace(trace)]


def changed(row: int, **columns: Any) -> Trace:
    """The small trace with some cells of one row replaced."""
    rows = copy.deepcopy(SMALL_ROWS)
    thread, op, time_ns, rest = rows[row]
    op = columns.pop("op", op)
    thread, time_ns = columns.pop("thread", thread), columns.pop("time_ns", time_ns)
    rows[row] = (thread, op, time_ns, {**rest, **columns})
    return build(rows)


def without(row: int) -> Trace:
    return build(SMALL_ROWS[:row] + SMALL_ROWS[row + 1 :])


def test_a_good_trace_has_no_problems(small: Trace) -> None:
    assert texts(small) == []
    require_valid(small)


CASES: list[tuple[Trace, str]] = [
    (changed(2, time_ns=-5), "row 2: compute: negative time: -5 ns"),
    (changed(3, time_ns=15), "row 3: thread 0: time runs backwards, from 20 ns to 15 ns"),
    (changed(7, thread=0), "row 7: thread 0: time runs backwards, from 2000 ns to 0 ns"),
    (without(4), "row 6: wait of thread 1 has no wake-up that could end it: 1 waits, 0 wake-ups"),
    (changed(3, page=14), "row 3: touch: pages 14 to 17 lie outside object 0, which has 16 pages"),
    (changed(8, page=1), "row 8: fread: pages 1 to 8 lie outside object 1, which has 8 pages"),
    (changed(9, page=16), "row 9: content: pages 16 to 16 lie outside object 0, which has 16 pages"),
    (changed(3, page=-1), "row 3: touch: negative page: -1"),
    (changed(3, pages=0), "row 3: touch: 0 pages"),
    (changed(3, object=2), "row 3: touch: object 2 out of range; legal: 0 to 1"),
    (changed(3, object=-1), "row 3: touch: object -1 out of range; legal: 0 to 1"),
    (changed(3, object=1), "row 3: touch: object 1 is a file"),
    (changed(8, object=0), "row 8: fread: object 0 is anonymous memory"),
    (changed(16, thread=3), "row 16: mark_end: thread 3 out of range; legal: 0 to 2"),
    (changed(1, flow=1), "row 1: recv: flow 1 out of range; legal: 0 to 0"),
    (changed(4, peer=3), "row 4: wake: peer 3 out of range; legal: 0 to 2"),
    (changed(4, peer=0), "row 4: wake: thread 0 wakes itself"),
    (changed(4, peer=2), "tiers reach each other through flows only"),
    (changed(2, user_ns=-1), "row 2: compute: negative user_ns: -1"),
    (changed(2, syscalls=-2), "row 2: compute: negative syscalls: -2"),
    (changed(3, syscalls=2), "row 3: touch: syscalls is 2 outside a compute"),
    (changed(10, duration_ns=-500), "row 10: sleep: negative duration_ns: -500"),
    (changed(1, bytes=-100), "row 1: recv: negative bytes: -100"),
    (changed(1, bytes=0), "row 1: recv: 0 bytes"),
    (
        changed(1, bytes=101),
        "row 1: recv: flow 0: 101 bytes received at end 1 (server), but only 100 were ever sent",
    ),
    (without(14), "but only 0 were ever sent to it"),
    (changed(3, flags=9), "row 3: touch: unknown flags 9; legal bits: 1, 2, 4"),
    (without(13), "row 15: mark_end of thread 2 without a mark_begin"),
    (changed(3, op="unlock", peer=4), "row 3: unlock: thread 0 does not hold lock 4"),
    (changed(3, op="lock", peer=4), "thread 0 ends holding lock 4"),
    (changed(11, op="exit"), "row 11: exit of thread 1 is not its last row"),
    (changed(6, op="exit"), "row 12: exit: process 0 has exited in row 6 already"),
]


@pytest.mark.parametrize(("trace", "expected"), CASES, ids=[text for _, text in CASES])
def test_each_rule(trace: Trace, expected: str) -> None:
    assert any(expected in text for text in texts(trace)), texts(trace)


def test_all_problems_are_reported_and_bounded() -> None:
    rows: list[Row] = [(0, "touch", 10 * i, {"object": 0, "page": 16, "pages": 1}) for i in range(40)]
    rows.append((0, "sleep", 1000, {"duration_ns": -1}))
    problems = check_trace(build(rows))
    assert len(problems) == 7  # five touches, one that counts the rest, and the sleep
    assert "(and 34 more rows like it)" in problems[5].text
    assert problems[6].row == 40
    assert len(check_trace(build(rows), limit=3)) == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("threads", None, "metadata: threads is missing"),
        ("span_ns", -1, "metadata: span_ns is -1"),
        (
            "objects",
            [{"kind": "cloud", "pages": 1}],
            "metadata: objects[0].kind is 'cloud'; legal: anon, image, own",
        ),
        ("objects", [{"kind": "own", "pages": -1}], "metadata: objects[0].pages is -1"),
        ("warm", [[1, 0]], "metadata: warm[0] is [1, 0]; it has to be [object, first page, pages]"),
        ("warm", [[0, 0, 1]], "metadata: warm[0] is of object 0, which is no file"),
        ("flows", [{"proto": "tcp", "ends": ["server", "server"]}], "has to name two different tiers"),
        ("flows", [{"proto": "carrier", "ends": ["server", "outside"]}], "flows[0].proto is 'carrier'"),
        ("wait_shares", {"unknown": 1.5}, "metadata: wait_shares.unknown is 1.5"),
        (
            "threads",
            [{"process": 0, "tier": "moon", "role": "guest"}],
            "threads[0].tier is 'moon'; tiers: server",
        ),
        ("threads", [{"process": 0, "tier": "server", "role": "king"}], "threads[0].role is 'king'"),
        ("threads", [{"process": -1, "tier": "server", "role": "guest"}], "threads[0].process is -1"),
    ],
)
def test_metadata(key: str, value: Any, expected: str) -> None:
    meta = small_meta() | {key: value}
    assert any(expected in text for text in texts(build(SMALL_ROWS, meta)))


def test_a_flow_has_only_its_two_ends() -> None:
    meta = small_meta()
    meta["tiers"] = ["server", "cache"]
    meta["threads"][1]["tier"] = "cache"
    rows = [row for row in SMALL_ROWS if row[0] != 1 and row[1] not in ("wake", "wait")]
    rows.insert(5, (1, "send", 0, {"flow": 0, "bytes": 1}))
    assert "thread 1 is of tier cache, flow 0 joins outside and server" in " ".join(texts(build(rows, meta)))


def test_a_base_image_has_only_contents() -> None:
    meta = {**small_meta(), "kind": "base_image"}
    assert any("row 0: alloc in a base image" in text for text in texts(build(SMALL_ROWS, meta)))
    only = [(0, "content", 0, {"object": 1, "page": i, "pages": 1, "content": i}) for i in range(3)]
    assert texts(build(only, meta)) == []


def test_require_valid_is_one_line() -> None:
    with pytest.raises(TraceError) as caught:
        require_valid(changed(2, user_ns=-1, kernel_ns=-1))
    assert "\n" not in str(caught.value) and "1 more" in str(caught.value)


def test_commands(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write_trace(good, small_meta(), columns_of(SMALL_ROWS))
    write_trace(bad, small_meta(), changed(2, time_ns=-5, user_ns=-1).columns)
    run = CliRunner().invoke
    assert run(trace_command, ["check", str(good)]).exit_code == 0
    result = run(trace_command, ["check", str(good), str(bad), str(tmp_path / "none")])
    assert result.exit_code == 2
    for expected in ("good.parquet: ok", "negative time: -5 ns", "negative user_ns: -1", "No such file"):
        assert expected in result.output
    result = run(trace_command, ["info", str(good)])
    assert result.exit_code == 0 and "17 operations" in result.output
    assert run(trace_command, ["info", str(bad)]).exit_code == 2
    assert '"marks": 1' in run(trace_command, ["info", "--json", str(good)]).output


def test_info_counts(small: Trace) -> None:
    info = trace_info(small)
    assert (info.user_ns, info.kernel_ns, info.bursts) == (700, 300, 1)
    assert info.privileged_per_compute_s["syscalls"] == pytest.approx(2e6)
    assert (info.anon_pages_touched, info.anon_peak_pages, info.anon_pages_allocated) == (4, 4, 16)
    assert (info.file_read_pages, info.content_rows, info.content_common_share) == (8, 1, 1.0)
    assert info.bytes_sent == {"server -> outside": 500, "outside -> server": 100}
    assert (info.marks, info.mark_p50_ns) == (1, 2500)
    assert "2 server, 1 outside" in format_info(info)
