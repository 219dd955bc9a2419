"""lackey's memory accesses, QEMU's trace log, libCacheSim's oracleGeneral."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import convert, counts, replay, shared
from test_import_linux_block import requests_of
from test_import_schedlog import rows_of

from hvbench.errors import UserError
from hvbench.traces.format import OP_NAMES
from hvbench.traces.importers.oracle_general import RECORD, Places
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

#: By hand, windows of 2: code page 4 with data page 9 stored; then code 4, a load over the border of 9 and a; one left
LACKEY = """\
==9237== Lackey, an example Valgrind tool
I  00004000,3
 S 00009ff8,8
I  00004003,5
I  00004008,2
 L 00009ffc,8
I  0000400a,2
I  00005000,1
 M 00009000,4
==9237== Exit code:       0
"""


def test_lackey_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LACKEY * 1)
    report, trace = convert("lackey", path, tmp_path / "x.parquet", window=2, instructions_per_us=1)
    # pages by first use: 4 is 0, 9 is 1, a is 2, 5 is 3
    assert rows_of(trace, 0) == [
        ("touch", 0, 0, 0), ("touch", 0, 1, 1), ("compute", 0, 2, 0),
        ("touch", 2, 0, 0), ("compute", 2, 2, 0),  # 0 to 2 as one range
        ("touch", 4, 3, 0), ("touch", 4, 1, 1), ("compute", 4, 1, 0),
    ]  # fmt: skip
    touches = trace.columns["pages"][trace.columns["op"] == OP_NAMES.index("touch")]
    assert touches.tolist() == [1, 1, 3, 1, 1] and trace.meta["objects"][0]["pages"] == 4
    assert trace.meta["touch_resolution_ns"] == 2000 and trace.meta["silent"] == ["storage", "network"]
    assert any("an assumption" in note for note in report.notes)
    path.write_text(LACKEY + "I  xyz,3\n")
    with pytest.raises(UserError, match=r"log\.txt:11: expected `I  ADDRESS,SIZE`, ` L …`, ` S …` or ` M …`, found"):
        convert("lackey", path, tmp_path / "x.parquet")
    path.write_text(LACKEY + "I  0040")
    report, _ = convert("lackey", path, tmp_path / "x.parquet")
    assert any("log.txt:11: the last line is incomplete" in note for note in report.notes)
    with pytest.raises(UserError, match="--window 0: has to be 1 to"):
        convert("lackey", path, tmp_path / "x.parquet", window=0)


def test_the_real_lackey_log(tmp_path: Path, kernel: object) -> None:
    path = shared("recorded-linux/true.lackey_trace_mem.txt.gz")
    assert load_formats().guess(path).name == "lackey"
    _, trace = convert("lackey", path, tmp_path / "x.parquet")
    lines = [line for line in gzip.decompress(path.read_bytes()).splitlines() if not line.startswith(b"==")]
    pages = set()
    for line in lines:
        address, _, size = line[3:].partition(b",")
        pages |= {int(address, 16) >> 12, (int(address, 16) + int(size) - 1) >> 12}
    instructions = sum(line.startswith(b"I") for line in lines)
    assert trace.meta["objects"][0]["pages"] == len(pages)
    assert int(trace.columns["user_ns"].sum()) == trace.meta["span_ns"] == instructions
    assert replay(trace, tmp_path, "50ms")["cpu_utilization"] > 0


QEMU = """\
11@100.000100:blk_co_preadv blk 0x1 bs 0x2 offset 512 bytes 1024 flags 0x0
11@100.000200:virtio_blk_handle_read vdev 0xa req 0xb1 sector 8 nsectors 16
11@100.000250:virtio_blk_handle_write vdev 0xa req 0xb2 sector 0 nsectors 1
11@100.000300:virtio_blk_handle_write vdev 0xc req 0xd1 sector 64 nsectors 8
11@100.000400:virtio_balloon_to_target virtio_balloon target: 0xa000000 num_pages: 24576
11@100.001200:virtio_blk_req_complete vdev 0xa req 0xb1 status 0
11@100.001250:virtio_blk_req_complete vdev 0xa req 0xb2 status 0
"""


def test_qemu_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "vm.qtrace"
    path.write_text(QEMU)
    assert load_formats().guess(path).name == "qemu"
    report, trace = convert("qemu", path, tmp_path / "x.parquet")
    assert requests_of(trace) == [
        (100_000, "guest", "blk_read", 8, 16), (150_000, "guest", "blk_write", 0, 1),
        (200_000, "disk-1", "blk_write", 64, 8),
    ]  # fmt: skip
    assert trace.meta["waited_ns"] == {"disk": 2_000_000} and report.silent == ["cpu", "memory", "network"]
    _, trace = convert("qemu", path, tmp_path / "x.parquet", layer="block")
    assert requests_of(trace) == [(0, "guest", "blk_read", 1, 2)]
    path.write_text(QEMU + "11@100.2:virtio_blk_handle_read vdev 0xa req 0xb1 sector\n")
    with pytest.raises(UserError, match=r"vm\.qtrace:8: expected TID@SECONDS\.USEC:EVENT ARGUMENTS"):
        convert("qemu", path, tmp_path / "x.parquet")
    path.write_text(QEMU + "virtio_blk_handle_read vdev 0xa\n")
    with pytest.raises(UserError, match=r"vm\.qtrace:8: expected TID@SECONDS\.USEC:EVENT ARGUMENTS"):
        convert("qemu", path, tmp_path / "x.parquet")
    path.write_text(QEMU + "11@50.0:virtio_blk_handle_read vdev 0xa req 0xb1 sector 8 nsectors 1\n")
    assert any("set back" in note for note in convert("qemu", path, tmp_path / "x.parquet")[0].notes)


@pytest.mark.parametrize(("name", "reads", "writes"), [("vm0", 14, 35), ("vm1", 63, 56)])
def test_real_qemu_logs(name: str, reads: int, writes: int, tmp_path: Path, kernel: object) -> None:
    path = shared(f"recorded-two-vms/{name}.qtrace.gz")
    assert load_formats().guess(path).name == "qemu"
    _, trace = convert("qemu", path, tmp_path / "x.parquet")
    assert counts(trace) == {"blk_read": reads, "blk_write": writes}, "as many as the log has events of them"
    assert trace.meta["recorded"]["block_latency_p50_ns"] > 10_000
    if name == "vm1":
        assert replay(trace, tmp_path, "15s")["disk_write_requests"] > 0


def oracle(requests: list[tuple[int, int, int]]) -> bytes:
    """(time, object, size) as the format keeps them, with the position of each object's next request."""
    records = np.zeros(len(requests), RECORD)
    for i, (time, name, size) in enumerate(requests):
        after = next((k for k in range(i + 1, len(requests)) if requests[k][1] == name), -1)
        records[i] = (time, name, size, after)
    return records.tobytes()


def test_oracle_general(tmp_path: Path, kernel: object) -> None:
    path = tmp_path / "x.oracleGeneral"
    path.write_bytes(oracle([(0, 7, 4096), (0, 1 << 63, 100), (1, 7, 4096), (3, 9, 512), (3, 1 << 63, 100)]))
    assert load_formats().guess(path).name == "oracle-general"
    report, trace = convert("oracle-general", path, tmp_path / "x.parquet")
    assert requests_of(trace) == [
        (0, "guest", "blk_read", 0, 8), (0, "guest", "blk_read", 8, 1), (10**9, "guest", "blk_read", 0, 8),
        (3 * 10**9, "guest", "blk_read", 9, 1), (3 * 10**9, "guest", "blk_read", 8, 1),
    ]  # fmt: skip
    assert replay(trace, tmp_path, "4s")["disk_read_requests"] >= 5
    with pytest.raises(UserError, match=r"at byte 24: expected an object that is a page of a disk \(--object name"):
        convert("oracle-general", path, tmp_path / "x.parquet", object="page")
    _, trace = convert("oracle-general", path, tmp_path / "x.parquet", Settings(skip_bad=2), object="page")
    assert [row[3] for row in requests_of(trace)] == [56, 56, 72]
    path.write_bytes(path.read_bytes()[:-5])
    report, _ = convert("oracle-general", path, tmp_path / "x.parquet")
    assert any("19 bytes are no whole record" in note for note in report.notes)


def test_oracle_general_is_what_libcachesim_reads(tmp_path: Path) -> None:
    """Differential: the same requests, from its own reader of the format."""
    libcachesim = pytest.importorskip("libcachesim")
    generator = np.random.default_rng(5)
    requests = [(i // 10, int(generator.integers(1, 40)), 512 * int(generator.integers(1, 9))) for i in range(300)]
    path = tmp_path / "x.oracleGeneral"
    path.write_bytes(oracle(requests))
    reader = libcachesim.TraceReader(
        trace=str(path), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE,
        reader_init_params=libcachesim.ReaderInitParam(ignore_obj_size=False),
    )  # fmt: skip
    theirs = [(r.clock_time, r.obj_id, r.obj_size) for r in reader]
    assert theirs == requests
    _, trace = convert("oracle-general", path, tmp_path / "x.parquet", object="page")
    found = [(at // 10**9, sector // 8, 512 * sectors) for at, _, _, sector, sectors in requests_of(trace)]
    assert sorted(found) == sorted(requests)


@given(st.lists(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 64)), min_size=1), max_size=6))
def test_objects_keep_their_places_and_do_not_overlap(blocks: list[list[tuple[int, int]]]) -> None:
    places = Places()
    first: dict[int, tuple[int, int]] = {}
    free = 0
    for block in blocks:
        names, sizes = zip(*block, strict=True)
        got = places.of(np.array(names, np.uint64), np.array(sizes, np.int64))
        for (name, size), at in zip(block, got.tolist(), strict=True):
            if name not in first:
                first[name] = (free, size)
                free += size
            assert at == first[name][0]
    assert places.free == free
