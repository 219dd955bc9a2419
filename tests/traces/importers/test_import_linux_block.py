"""blkparse, blktrace and fio: requests, their recorded latencies, files above the page cache."""

# ruff: noqa: E501  (lines as the tools print them)

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import convert, counts, replay, shared

from hvbench.errors import UserError
from hvbench.traces.format import OP_NAMES, OPS, Trace
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

#: (device minor, ns, action, rwbs, sector, sectors): two disks, a merge in between, a flush, a discard, a second end
EVENTS = [
    (0, 1_000, "Q", "WS", 800, 8), (0, 2_000, "G", "WS", 800, 8), (0, 5_000, "D", "WS", 800, 8),
    (16, 6_000, "Q", "RA", 64, 256), (16, 7_000, "D", "RA", 64, 256), (0, 8_000, "D", "FN", 0, 0),
    (0, 9_000, "D", "D", 4096, 1024), (0, 105_000, "C", "WS", 800, 8), (16, 1_007_000, "C", "RA", 64, 256),
    (16, 1_008_000, "C", "RA", 64, 256), (0, 2_000_000, "D", "WM", 800, 8),
]  # fmt: skip


def as_text(events: list[Any]) -> str:
    lines = []
    for i, (minor, at, what, rwbs, sector, sectors) in enumerate(events):
        place = f"{sector} + {sectors} [0]" if sectors else "[0]"
        lines.append(
            f"  8,{minor:<4d} {i % 2} {i + 1:8d} {at // 10**9:5d}.{at % 10**9:09d} {697:5d}  {what:>2s} {rwbs:>3s} {place}"
        )
    return "\n".join(lines) + "\n"


def as_binary(events: list[Any], order: str = "<", pdu: bool = False) -> bytes:
    what = {"Q": 1, "G": 4, "D": 7, "C": 8}
    records = b""
    if pdu:  # what blktrace writes first: the name of a process
        records += struct.pack(order + "IIQQIIIIIHH", 0x65617407, 0, 0, 0, 0, 1 << 26, 697, 0, 0, 0, 5) + b"sync\0"
    for i, (minor, at, action, rwbs, sector, sectors) in enumerate(events):
        upper = (0x2 if "W" in rwbs else 0x1 if "R" in rwbs else 0x4) if rwbs != "D" else 1 << 13
        code = what[action] | upper << 16
        extra = b"\x28\0\0" if pdu and i % 3 == 0 else b""
        records += struct.pack(
            order + "IIQQIIIIIHH", 0x65617407, i, at, sector, 512 * sectors, code, 697, 8 << 20 | minor, 0, 0, len(extra)
        ) + extra  # fmt: skip
    return records


def requests_of(trace: Trace) -> list[tuple[int, str, str, int, int]]:
    """(ns, tier, operation, sector, sectors), by time."""
    c = trace.columns
    tiers = [t["tier"] for t in trace.meta["threads"]]
    return [
        (int(c["time_ns"][i]), tiers[c["thread"][i]], OP_NAMES[c["op"][i]], int(c["page"][i]), int(c["pages"][i]))
        for i in np.argsort(c["time_ns"], kind="stable").tolist()
    ]


ISSUED = [
    (0, "disk-8:0", "blk_write", 800, 8), (2_000, "disk-8:16", "blk_read", 64, 256),
    (1_995_000, "disk-8:0", "blk_write", 800, 8),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["text", "binary", "big-endian", "with-data"])
def test_text_and_binary_say_the_same(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sda.blktrace.0"
    order = ">" if kind == "big-endian" else "<"
    path.write_bytes(as_text(EVENTS).encode() if kind == "text" else as_binary(EVENTS, order, kind == "with-data"))
    name = "blkparse" if kind == "text" else "blktrace"
    assert load_formats().guess(path).name == name
    report, trace = convert(name, path, tmp_path / "x.parquet")
    # the trace begins with the log's first event, at 1 us
    assert requests_of(trace) == [(at + 4_000, *rest) for at, *rest in ISSUED]
    assert "2 requests without data (flushes, trims, other commands) are left out" in report.notes
    assert trace.meta["waited_ns"] == {"disk": 100_000 + 1_000_000}, "an end counts once"
    assert trace.meta["recorded"]["block_latency_p50_ns"] == pytest.approx(100_000, rel=0.05)
    assert report.silent == ["cpu", "memory", "network"] and report.replay == "open"
    _, queued = convert(name, path, tmp_path / "y.parquet", action="Q", device="8:0")
    assert requests_of(queued) == [(0, "disk-8:0", "blk_write", 800, 8)]


def test_the_lines_of_the_manual_and_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(
        "8,0    3        1     0.000000000   697  G   W 223490 + 8 [kjournald]\n"
        "8,0    3        2     0.000001829   697  P   R [kjournald]\n"
        "8,0    3        3     0.000002197   697  Q   W 223490 + 8 [kjournald]\n"
        "8,0    3        9     0.000006000   697  A   W 223498 + 8 <- (8,2) 1234\n"
        "8,0    3        0     0.000007000     0  m   N cfq697 insert_request\n"
        "8,0    3       11     0.000008000   697  I  WS 223490 + 8 [kjournald]\n"
        "8,0    3       10     0.000010000   697  D   W 223490 + 8 [kjournald]\n"
        "\nCPU3 (sda):\n Reads Queued:           0,        0KiB\t Writes Queued:           7,      128KiB\n"
    )
    _, trace = convert("blkparse", path, tmp_path / "x.parquet")
    assert requests_of(trace) == [(10_000, "disk-8:0", "blk_write", 223490, 8)]
    path.write_text(path.read_text().replace(" D   W", " Q   W"))
    with pytest.raises(UserError, match=r"no D \(--action\) in the log, but 2 Q: try --action Q"):
        convert("blkparse", path, tmp_path / "x.parquet")
    path.write_text("8,0 3 1 0.000000000 697 D W 223490 + x\n8,0 3\n")
    with pytest.raises(UserError, match=r"x\.txt:2: expected MAJOR,MINOR CPU SEQUENCE SECONDS\.NSEC PID ACTION"):
        convert("blkparse", path, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="--device sda: has to be MAJOR:MINOR, such as 8:0"):
        convert("blkparse", path, tmp_path / "x.parquet", device="sda")


def test_damaged_and_cut_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "sda.blktrace.0"
    whole = as_binary(EVENTS, pdu=True)
    path.write_bytes(whole[:-20])
    report, trace = convert("blktrace", path, tmp_path / "x.parquet")
    assert counts(trace) == {"blk_write": 1, "blk_read": 1}
    assert any("28 bytes are no whole record" in note for note in report.notes)
    second = 53 + 51  # the notify with its name, the first event with its data
    path.write_bytes(whole[:second] + b"\xff\xff\xff\xff" + whole[second + 4 :])
    with pytest.raises(UserError, match=r"at byte 104: expected a record's magic 0x65617407, found '0xffffffff'"):
        convert("blktrace", path, tmp_path / "x.parquet")
    assert convert("blktrace", path, tmp_path / "x.parquet", Settings(skip_bad=1))[0].rows == 3


def test_files_of_several_cpus_are_one_recording(tmp_path: Path) -> None:
    paths = [tmp_path / "sda.blktrace.0", tmp_path / "sda.blktrace.1"]
    paths[0].write_bytes(as_binary([e for e in EVENTS if e[2] != "C"]))
    paths[1].write_bytes(as_binary([e for e in EVENTS if e[2] == "C"]))
    _, trace = convert("blktrace", paths, tmp_path / "x.parquet")
    assert [row[1:] for row in requests_of(trace)] == [row[1:] for row in ISSUED]
    assert trace.meta["waited_ns"]["disk"] >= 1_000_000, "requests end in the other file"


def test_a_block_log_replays(tmp_path: Path, kernel: object) -> None:
    path = tmp_path / "b.txt"
    events = [(0, 100_000 * i, "D", "RW"[i % 2], 4096 * i, 8) for i in range(200)]
    path.write_text(as_text(events))
    _, trace = convert("blkparse", path, tmp_path / "x.parquet")
    row = replay(trace, tmp_path)
    assert row["disk_read_requests"] > 50 and row["disk_write_requests"] > 50


FIO = "fio version 3 iolog\n5 /dev/a add\n6 /dev/a open\n10 /dev/a read 4096 8192\n30 /dev/b write 100 512\n40 /dev/a trim 0 512\n50 /dev/a sync 0 0\n60 /dev/a close\n"


def test_fio_version_3(tmp_path: Path) -> None:
    path = tmp_path / "io.log"
    path.write_text(FIO)
    assert load_formats().guess(path).name == "fio"
    report, trace = convert("fio", path, tmp_path / "x.parquet")
    assert requests_of(trace) == [(5_000, "guest", "blk_read", 8, 16), (25_000, "disk-1", "blk_write", 0, 2)]
    assert "2 requests without data (flushes, trims, other commands) are left out" in report.notes
    assert report.replay == "open"
    _, trace = convert("fio", path, tmp_path / "x.parquet", buffered=True, time_unit="ms")
    assert [(at, op, page, pages) for at, _, op, page, pages in requests_of(trace)] == [
        (5_000_000, "fread", 1, 2), (25_000_000, "fwrite", 0, 1), (45_000_000, "fsync", 0, 0)
    ]  # fmt: skip
    assert [item["pages"] for item in trace.meta["objects"]] == [3, 1]
    path.write_text(FIO + "70 /dev/a reed 0 512\n")
    with pytest.raises(
        UserError, match=r"io\.log:9: expected TIME FILE ACTION \[OFFSET LENGTH\], the action one of add"
    ):
        convert("fio", path, tmp_path / "x.parquet")
    path.write_text(FIO + "70 /dev/a read 0\n")
    with pytest.raises(UserError, match=r"io\.log:9: expected an offset and a length in bytes"):
        convert("fio", path, tmp_path / "x.parquet")
    path.write_text("1 /dev/a read 0 512\n")
    with pytest.raises(UserError, match=r"io\.log:1: expected `fio version 2 iolog` or `fio version 3 iolog`"):
        convert("fio", path, tmp_path / "x.parquet")


def test_fio_version_2_has_an_order_and_no_times(tmp_path: Path) -> None:
    path = tmp_path / "io.log"
    path.write_text(
        "fio version 2 iolog\n/f add\n/f open\n/f read 0 4096\n/f wait 250 0\n/f write 4096 4096\n/f sync\n/f wait 50\n/f read 0 512\n"
    )
    report, trace = convert("fio", path, tmp_path / "x.parquet")
    assert report.replay == "closed"
    c = trace.columns
    assert [OP_NAMES[code] for code in c["op"].tolist()] == ["blk_read", "sleep", "blk_write", "sleep", "blk_read"]
    assert c["duration_ns"].tolist() == [0, 250_000, 0, 50_000, 0] and trace.meta["span_ns"] == 300_000
    _, trace = convert("fio", path, tmp_path / "x.parquet", buffered=True)
    assert [OP_NAMES[code] for code in trace.columns["op"].tolist()] == [
        "fread", "sleep", "fwrite", "fsync", "sleep", "fread"
    ]  # fmt: skip


def test_the_real_fio_log(tmp_path: Path, kernel: object) -> None:
    path = shared("recorded-linux/fio.iolog_v3.txt")
    assert load_formats().guess(path).name == "fio"
    _, trace = convert("fio", path, tmp_path / "x.parquet")
    lines = [line.split() for line in path.read_text().splitlines() if line.split()[2:3] in (["read"], ["write"])]
    assert counts(trace) == {
        "blk_read": sum(line[2] == "read" for line in lines), "blk_write": sum(line[2] == "write" for line in lines)
    }  # fmt: skip
    assert trace.meta["span_ns"] == (int(lines[-1][0]) - 33) * 1000 or trace.meta["span_ns"] > 14_000_000
    assert int(trace.columns["page"].max()) == max(int(line[3]) // 512 for line in lines)
    row = replay(trace, tmp_path)
    assert row["disk_read_requests"] + row["disk_write_requests"] > 100
    assert trace.columns["op"].dtype == np.int8 and OPS["blk_read"] in trace.columns["op"]
