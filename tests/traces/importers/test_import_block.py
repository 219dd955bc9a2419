"""Block requests: declared columns, presets, vscsiStats."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import FIXTURES, convert, counts, replay, shared

from hvbench.errors import UserError
from hvbench.traces.importers.delimited import Column, Table, _value
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

#: preset -> lines as their publishers write them, and what they say: (us after the first, write, sector, sectors)
PRESETS: dict[str, tuple[str, list[tuple[float, bool, int, int]]]] = {
    "msr": (
        "128166372003061629,hm,0,Write,7014912,4096,26\n128166372016382155,hm,0,Read,1074696192,4096,113\n",
        [(0, True, 13701, 8), (1_332_052.6, False, 2_099_016, 8)],
    ),
    "spc": (
        "0,303567,3584,w,0.000000\n0,20941264,8192,W,0.551706,Alpha/NT\n",
        [(0, True, 303567, 7), (551_706, True, 20941264, 16)],
    ),
    "systor17": (
        "Timestamp,Response,IOType,LUN,Offset,Size\n1456095145.133076000,0.000806000,R,0,899056122368,131072\n"
        "1456095145.133076001,0.000806000,,0,0,512\n1456095145.133077000,,W,0,899056122368,512\n".replace(
            "000,,W", "000,0.1,W"
        ),
        [(0, False, 1755969 * 1000 - 30 + 18, 256), (1, True, 1755969 * 1000 - 30 + 18, 1)],
    ),
    "alibaba": (
        "0,R,126703644672,4096,1577808000000626\n0,W,8126,512,1577808000000700\n",
        [(0, False, 247468056, 8), (74, True, 15, 2)],
    ),
    "tencent": (
        "1538323200,12910952,128,0,1283\n1538323201,6265688,8,1,1283\n",
        [(0, False, 12910952, 128), (1_000_000, True, 6265688, 8)],
    ),
    "mqsim": ("11413000 0 657728 16 1\n11414000 0 8 16 0\n", [(0, False, 657728, 16), (1, True, 8, 16)]),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_read_the_published_lines(preset: str, tmp_path: Path) -> None:
    text, expected = PRESETS[preset]
    path = tmp_path / "trace.csv"
    path.write_text(text)
    assert load_formats().guess(path).name == preset
    _, trace = convert(preset, path, tmp_path / "x.parquet")
    c = trace.columns
    names = ["blk_read", "blk_write"]
    if preset == "systor17":
        expected = [(t, w, 899056122368 // 512, n) for t, w, _, n in expected]
    order = np.argsort(c["time_ns"])
    got = [
        (c["time_ns"][i] / 1000, bool(counts_name(c, i, names)), int(c["page"][i]), int(c["pages"][i])) for i in order
    ]
    assert got == expected


def counts_name(columns: dict[str, Any], row: int, names: list[str]) -> int:
    from hvbench.traces.format import OP_NAMES

    return names.index(OP_NAMES[columns["op"][row]])


def test_an_unknown_type_and_empty_requests_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(PRESETS["systor17"][0] + "1456095146.0,0.1,W,0,0,0\n")
    report, trace = convert("systor17", path, tmp_path / "x.parquet")
    assert len(trace) == 2
    assert "2 requests without data (flushes, trims, other commands) are left out" in report.notes


def test_latencies_that_were_recorded_are_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{i},R,0,512,{100 + i}\n" for i in range(100)))
    options = {"columns": "time,op,offset,size,response", "time_unit": "ms", "response_unit": "us"}
    _, trace = convert("block", path, tmp_path / "x.parquet", **options)
    recorded = trace.meta["recorded"]
    assert recorded["block_latency_p50_ns"] == pytest.approx(150_000, rel=0.05)
    assert recorded["block_latency_p99_ns"] == pytest.approx(199_000, rel=0.05)
    assert trace.meta["wait_shares"]["disk"] == 1.0


def test_devices_are_tiers_and_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("7,R,0,4096,1577808000000626\n9,W,0,4096,1577808000000627\n7,R,8192,4096,1577808000000628\n")
    _, trace = convert("alibaba", path, tmp_path / "x.parquet", lanes=2)
    assert trace.meta["tiers"] == ["disk-7", "disk-9"] and len(trace.meta["threads"]) == 4
    _, trace = convert("alibaba", path, tmp_path / "x.parquet", device="9")
    assert counts(trace) == {"blk_write": 1}


def test_requests_in_flight_together_are_on_different_threads(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{i},R,{512 * i},512\n" for i in range(7)))
    _, trace = convert("block", path, tmp_path / "x.parquet", columns="time,op,offset,size", lanes=3)
    assert trace.columns["thread"].tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert trace.columns["page"].tolist() == [0, 3, 6, 1, 4, 2, 5]


field = st.one_of(
    st.integers(-5, 10**12).map(str),
    st.sampled_from(["", "x", "1.5", " 7", "1e3", "99999999999999999999", "+4", "0.000000001"]),
)


@given(st.lists(st.tuples(field, st.sampled_from(["R", "W", "read"]), field), min_size=1, max_size=20))
def test_the_quick_and_the_exact_reading_agree(rows: list[tuple[str, str, str]]) -> None:
    """Whatever the quick reader takes, the exact one reads as the same; it never takes what that refuses."""
    table = Table([Column("a"), Column("op", "text"), Column("b", "decimal")])
    quick = table._quick(("\n".join(",".join(row) for row in rows) + "\n").encode())
    if quick is None:
        return
    assert quick["a"].tolist() == [_value("int", a.encode()) for a, _, _ in rows]
    assert quick["b"].tolist() == [_value("decimal", b.encode()) for _, _, b in rows]


# vscsiStats -------------------------------------------------------------------------------------------------


def v1(records: list[tuple[int, int, int, int]]) -> bytes:
    """Command, bytes, block, us."""
    pack = struct.Struct("<IIIHHQQ").pack
    return b"".join(pack(i, size, 1, cmd, 0x0100, lbn, us) for i, (cmd, size, lbn, us) in enumerate(records))


def v2(records: list[tuple[int, int, int, int]]) -> bytes:
    pack = struct.Struct("<HHIIIQQQ").pack
    return b"".join(pack(cmd, 0x0200, i, size, 1, lbn, us, 250) for i, (cmd, size, lbn, us) in enumerate(records))


RECORDS = [
    (0x28, 4096, 1000, 5_000_000),
    (0x2A, 512, 7, 5_000_500),
    (0x35, 0, 0, 5_000_600),
    (0x8A, 1024, 9, 5_001_000),
]


@pytest.mark.parametrize("make", [v1, v2])
def test_vscsi_records(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(make(RECORDS) + b"cut")
    assert load_formats().guess(path).name == "vscsi"
    report, trace = convert("vscsi", path, tmp_path / "x.parquet")
    c = trace.columns
    assert counts(trace) == {"blk_read": 1, "blk_write": 2}
    assert c["time_ns"].tolist() == [0, 500_000, 1_000_000]
    assert c["page"].tolist() == [1000, 7, 9] and c["pages"].tolist() == [8, 1, 2]
    assert any("the last 3 bytes are no whole record" in note for note in report.notes)
    assert ("recorded" in trace.meta and bool(trace.meta["recorded"])) == (make is v2)


def test_a_vscsi_record_of_another_version_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(v1(RECORDS * 20) + b"\xff" * 32)
    with pytest.raises(UserError, match="at byte 2560: expected a record of version 1, found 'version 0xffff'"):
        convert("vscsi", path, tmp_path / "x.parquet")
    assert len(convert("vscsi", path, tmp_path / "x.parquet", Settings(skip_bad=1))[1]) == 60


def test_a_block_trace_replays(tmp_path: Path, kernel: object) -> None:
    _, trace = convert("vscsi", FIXTURES / "disk.vscsi", tmp_path / "x.parquet")
    row = replay(trace, tmp_path, horizon="2s")
    assert row["disk_read_requests"] > 0 and row["disk_write_requests"] > 0


# real files -------------------------------------------------------------------------------------------------


def test_cloudphysics_binary_and_text_are_the_same_requests(tmp_path: Path) -> None:
    _, binary = convert("vscsi", shared("cloudphysics/cloudPhysicsIO.vscsi"), tmp_path / "b.parquet")
    options = {"columns": "-,time,op,size,sector", "reads": "28", "writes": "2a"}
    _, text = convert("block", shared("cloudphysics/cloudPhysicsIO.csv.xz"), tmp_path / "t.parquet", **options)
    assert counts(binary) == counts(text) == {"blk_read": 46_974, "blk_write": 66_898}
    assert binary.meta["span_ns"] == pytest.approx(7200.09e9, rel=1e-6)
    for name in ("page", "pages", "op"):
        assert np.array_equal(binary.columns[name], text.columns[name])
    # the text's times are whole seconds
    assert np.abs(binary.columns["time_ns"] - text.columns["time_ns"]).max() <= 1_000_000_000


@pytest.mark.parametrize(("name", "rows"), [("wsrch-small.trace", 24_783), ("tpcc-small.trace", 6_999)])
def test_mqsim_traces(name: str, rows: int, tmp_path: Path) -> None:
    path = shared(f"mqsim/{name}")
    assert load_formats().guess(path).name == "mqsim"
    _, trace = convert("mqsim", path, tmp_path / "x.parquet")
    assert len(trace) == rows
