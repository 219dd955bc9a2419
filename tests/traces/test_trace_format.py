"""Writing, reading, and what a file that is no trace is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_builders import SMALL_ROWS, columns_of, small_meta

from hvbench.traces.format import (
    COLUMNS,
    OPS,
    PAGE_SIZE,
    TraceError,
    make_trace,
    name_hash,
    page_identity,
    read_trace,
    write_trace,
)
from hvbench.traces.load import convert


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.parquet"
    write_trace(file, small_meta(), columns_of(SMALL_ROWS))
    return file


def test_round_trip(path: Path) -> None:
    trace = read_trace(path)
    expected = columns_of(SMALL_ROWS)
    assert trace.meta == small_meta()
    for name, kind in COLUMNS.items():
        assert trace.columns[name].dtype == kind
        np.testing.assert_array_equal(trace.columns[name], expected[name])


def test_codes_follow_the_order_of_the_format() -> None:
    assert OPS["compute"] == 0 and OPS["exit"] == 3 and OPS["send"] == 12 and OPS["mark_end"] == 23


def test_the_file_holds_names_not_codes(path: Path) -> None:
    assert set(pq.read_table(path).column("op").to_pylist()) == {row[1] for row in SMALL_ROWS}


def test_digest_does_not_depend_on_how_the_file_was_compressed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(path), other, compression="snappy", row_group_size=3)
    assert read_trace(other).digest == read_trace(path).digest


def test_digest_sees_every_column_and_the_metadata(path: Path) -> None:
    base = read_trace(path)
    digests = {base.digest, make_trace({**base.meta, "name": "x"}, base.columns).digest}
    for name in COLUMNS:
        columns = {key: value.copy() for key, value in base.columns.items()}
        columns[name][0] += 1
        digests.add(make_trace(base.meta, columns).digest)
    assert len(digests) == len(COLUMNS) + 2


def test_writing_leaves_no_half_file_behind(tmp_path: Path) -> None:
    target = tmp_path / "t.parquet"
    write_trace(target, small_meta(), columns_of(SMALL_ROWS))
    before = target.read_bytes()
    with pytest.raises(TypeError):
        write_trace(target, {**small_meta(), "bad": object()}, columns_of(SMALL_ROWS))
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.parquet"]


def test_writing_to_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(tmp_path / "no" / "t.parquet", small_meta(), columns_of(SMALL_ROWS))


def test_values_that_do_not_fit_are_refused() -> None:
    columns = columns_of(SMALL_ROWS)
    columns["pages"] = columns["pages"].astype(np.int64)
    columns["pages"][0] = 1 << 40
    with pytest.raises(TraceError, match="pages has values that do not fit int32"):
        make_trace(small_meta(), columns)


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.parquet")


def test_not_parquet(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text("thread,op\n")
    assert "not a Parquet file" in refusal(file)


def test_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"")
    assert "not a Parquet file" in refusal(file)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: max(5, int(len(data) * share))])
    assert "truncated" in refusal(path)


def test_damaged_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_parquet_but_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), file)
    assert "not an hvbench trace" in refusal(file)


def test_wrong_version(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write_trace(file, {**small_meta(), "format": 2}, columns_of(SMALL_ROWS))
    assert "trace format version 2; this hvbench reads version 1" in refusal(file)


def rewrite(path: Path, change: object) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)  # type: ignore[operator]


def test_missing_column(path: Path) -> None:
    rewrite(path, lambda t: t.drop_columns(["peer", "flow"]))
    assert "columns are missing: flow, peer" in refusal(path)


def test_unknown_operation(path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        names = table.column("op").to_pylist()
        names[3] = "teleport"
        return table.set_column(table.schema.get_field_index("op"), "op", pa.array(names))

    rewrite(path, change)
    assert "row 3: unknown operation 'teleport'; there are: compute, alloc" in refusal(path)


def test_column_of_a_wrong_type(path: Path) -> None:
    rewrite(path, lambda t: t.set_column(2, "time_ns", pa.array(["x"] * len(t))))
    assert "column time_ns is of type string" in refusal(path)


def test_empty_cell(path: Path) -> None:
    rewrite(path, lambda t: t.set_column(2, "time_ns", pa.array([None] + [0] * (len(t) - 1), pa.int64())))
    assert "column time_ns has 1 empty cells" in refusal(path)


def test_identities() -> None:
    assert page_identity(bytes(PAGE_SIZE)) == 0
    one, two = page_identity(b"\1" * PAGE_SIZE), page_identity(b"\2" * PAGE_SIZE)
    assert one == 0xC7CD5453F90883F0  # pinned: other salts or hashes are another format version
    assert 0 < one < 1 << 64 and one != two
    assert name_hash("/usr/bin/cc") == name_hash("/usr/bin/cc") != name_hash("/usr/bin/ld")


@given(st.binary(max_size=64), st.integers(0, PAGE_SIZE - 64))
def test_only_a_page_of_zeroes_has_identity_zero(piece: bytes, at: int) -> None:
    page = bytes(at) + piece + bytes(PAGE_SIZE - at - len(piece))
    assert (page_identity(page) == 0) == (page == bytes(PAGE_SIZE))


def test_an_interrupt_of_a_wake_up_that_is_replayed_is_not_counted_twice() -> None:
    # the kernel of the simulator charges an interrupt where a `wake` reaches a halted vCPU
    meta = small_meta()
    rows = [
        (0, "compute", 0, {"user_ns": 10, "ipis": 3}),
        (0, "wake", 10, {"peer": 1}),
        (0, "mark_begin", 10, {}),
        (0, "wake", 10, {"peer": 1}),
        (0, "compute", 10, {"user_ns": 10, "ipis": 2}),
        (1, "wake", 0, {"peer": 0}),
        (1, "compute", 0, {"user_ns": 10, "ipis": 1}),
        (1, "wake", 10, {"peer": 0}),
        (1, "compute", 10, {"user_ns": 10, "syscalls": 1}),
        (1, "wake", 20, {"peer": 0}),
        (1, "wait", 20, {}),
    ]
    loaded = convert(make_trace(meta, columns_of(rows)))
    computes = loaded.ops["x"][loaded.ops["op"] == OPS["compute"]].tolist()
    assert [int(loaded.privileged["ipis"][x]) if x >= 0 else 0 for x in computes] == [1, 2, 0, 0]
