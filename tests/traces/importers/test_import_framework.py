"""What holds for every format: files, clocks, bad lines, guessing, third parties, sorting, nothing half-written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from importing import convert, counts

from hvbench import plugins
from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, read_trace
from hvbench.traces.importers import spool as spool_module
from hvbench.traces.importers.clocks import LATE_NS, Clock, unit_ns
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings
from hvbench.traces.importers.sources import RawFile, open_sources
from hvbench.traces.importers.spool import Spool

LINES = "".join(f"{1000 * i},{'RW'[i % 2]},{8192 * i},4096\n" for i in range(10))
COLUMNS = {"columns": "time,op,offset,size", "time_unit": "us"}

TOY = '''
"""One sleep a line: `SECONDS NAME`."""
import numpy as np
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Format, rows


def read(job):
    for source in job.sources():
        clock = job.clock(source)
        for lines in source.blocks():
            for number, line in enumerate(lines.split(), lines.first):
                try:
                    time = float(line.split()[0])
                except (ValueError, IndexError):
                    job.bad_line(source, lines, number, "seconds and a name")
                    continue
                thread = job.thread(line.split()[1].decode())
                yield rows("sleep", thread, clock.fix(np.array([int(time * 1e9)])), duration_ns=5)


def sniff(head):
    return 1.0 if head.data.startswith(b"0.5 first") else 0.0


@hookimpl
def hvbench_import_format():
    return Format(name="toy", summary="a toy", read=read, sniff=sniff)
'''


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "some.csv"
    path.write_text(LINES)
    return path


# files ------------------------------------------------------------------------------------------------------


def _tar(data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("a.csv", "sub/b.csv"):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2", "zst", "tar", "tar.gz", "tar.xz"])
def test_compressed_files_and_archives_are_read_as_they_are(kind: str, csv: Path, tmp_path: Path) -> None:
    data = csv.read_bytes()
    packed = _tar(data) if "tar" in kind else data
    pack = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
    pack["zst"] = lambda raw: pa.compress(raw, "zstd", asbytes=True)
    path = tmp_path / "nothing-in-the-name"
    path.write_bytes(pack[kind.split(".")[-1]](packed) if kind != "tar" else packed)
    _, plain = convert("block", csv, tmp_path / "plain.parquet", **COLUMNS)
    _, made = convert("block", path, tmp_path / "made.parquet", **COLUMNS)
    assert len(made) == len(plain) * (2 if "tar" in kind else 1)
    assert set(made.columns["time_ns"].tolist()) == set(plain.columns["time_ns"].tolist())


def test_members_of_archives_are_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "two.tar"
    path.write_bytes(_tar(b"1,R,0,4096\nnonsense\n"))
    with pytest.raises(UserError, match=re.escape(f"{path}!a.csv:2: expected 4 columns (time, op, ")):
        convert("block", path, tmp_path / "x.parquet", **COLUMNS)


def test_a_compressed_file_that_ends_early_is_read_up_to_there(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{i},R,{4096 * i},4096\n" for i in range(100_000)).encode())
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    report, trace = convert("block", path, tmp_path / "x.parquet", **COLUMNS)
    assert 10_000 < len(trace) < 100_000
    assert any("ends early (still being written?)" in note for note in report.notes)


def test_damage_is_told_apart_from_a_cut(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress("".join(f"{i},R,{4096 * i},4096\n" for i in range(100_000)).encode()))
    whole[len(whole) // 2 : len(whole) // 2 + 100] = bytes(100)
    path = tmp_path / "bad.gz"
    path.write_bytes(whole)
    with pytest.raises(UserError, match="the compressed data is damaged"):
        convert("block", path, tmp_path / "x.parquet", **COLUMNS)


LINE = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b""))


@given(st.lists(LINE, max_size=50), st.integers(1, 40), st.booleans())
def test_blocks_are_the_lines_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, end: bool
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "file"
    data = b"\n".join(lines) + (b"\n" if end and lines else b"")
    path.write_bytes(b"x" + data)
    (source,) = open_sources(RawFile(path))
    got: list[bytes] = []
    for block in source.blocks(size):
        assert block.first == len(got) + 1
        got += block.split()
    assert got == (b"x" + data).removesuffix(b"\n").split(b"\n")


# bad lines --------------------------------------------------------------------------------------------------


def test_a_bad_line_is_named_with_what_was_expected(csv: Path, tmp_path: Path) -> None:
    csv.write_text(LINES.replace("3000,W,24576,4096", "3000,W,oops,4096"))
    out = tmp_path / "x.parquet"
    with pytest.raises(UserError) as error:
        convert("block", csv, out, **COLUMNS)
    assert str(error.value) == (
        f"{csv}:4: expected offset (a whole number), found '3000,W,oops,4096'; "
        "--skip-bad N tolerates up to N such lines"
    )
    assert not out.exists() and list(tmp_path.iterdir()) == [csv]


def test_bad_lines_are_tolerated_up_to_a_number_and_said(csv: Path, tmp_path: Path) -> None:
    csv.write_text(LINES.replace("3000,W,24576,4096", "x").replace("5000,W,", "y,W,"))
    report, trace = convert("block", csv, tmp_path / "x.parquet", Settings(skip_bad=2), **COLUMNS)
    assert len(trace) == 8 and trace.meta["import"]["bad"] == 2
    assert [n for n in report.notes if f"{csv}:4: left out" in n] and [n for n in report.notes if f"{csv}:6: " in n]
    with pytest.raises(UserError, match=r":6: expected .*; 1 bad ones before it were tolerated"):
        convert("block", csv, tmp_path / "x.parquet", Settings(skip_bad=1), **COLUMNS)


def test_an_existing_trace_survives_a_failed_import(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    _, before = convert("block", csv, out, **COLUMNS)
    csv.write_text(LINES + "nonsense\n")
    with pytest.raises(UserError):
        convert("block", csv, out, **COLUMNS)
    assert read_trace(out).digest == before.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["some.csv", "x.parquet"]


def test_the_cut_last_line_of_a_growing_log_is_left_out_and_said(csv: Path, tmp_path: Path) -> None:
    csv.write_text(LINES + "10000,R,819")
    report, trace = convert("block", csv, tmp_path / "x.parquet", **COLUMNS)
    assert len(trace) == 10 and trace.meta["import"]["bad"] == 0
    assert f"{csv}:11: the last line is incomplete (still being written?): left out" in report.notes


def test_a_last_line_without_its_newline_counts_if_it_is_whole(csv: Path, tmp_path: Path) -> None:
    csv.write_text(LINES.removesuffix("\n"))
    report, trace = convert("block", csv, tmp_path / "x.parquet", **COLUMNS)
    assert len(trace) == 10 and not report.notes


def test_an_import_never_writes_over_what_it_reads(csv: Path) -> None:
    with pytest.raises(UserError, match="is read by this command"):
        convert("block", csv, csv, **COLUMNS)


# clocks -----------------------------------------------------------------------------------------------------


def test_late_records_are_kept_and_a_clock_set_back_goes_on() -> None:
    clock = Clock()
    s = LATE_NS
    assert clock.fix(np.array([10 * s, 11 * s, 11 * s - 5])).tolist() == [10 * s, 11 * s, 11 * s - 5]
    # set back by four seconds: from here on everything is shifted to continue at the latest time, in later calls too
    assert clock.fix(np.array([7 * s, 8 * s])).tolist() == [11 * s, 12 * s]
    assert clock.fix(np.array([9 * s])).tolist() == [13 * s]
    assert (clock.late, clock.set_back, clock.set_back_ns) == (1, 1, 4 * s)
    first, second = clock.notes("f")
    assert "1 records were out of order" in first and "set back 1 times, by up to 4 s" in second


@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=60), st.integers(0, 60), st.sampled_from([0, 10**9]))
def test_clocks_do_not_depend_on_how_records_are_batched(times: list[int], cut: int, gap: int) -> None:
    whole, pieces = Clock(longest_gap_ns=gap), Clock(longest_gap_ns=gap)
    one = whole.fix(np.array(times)).tolist()
    two = pieces.fix(np.array(times[:cut], np.int64)).tolist() + pieces.fix(np.array(times[cut:], np.int64)).tolist()
    assert one == two and whole.late == pieces.late
    latest = np.maximum.accumulate(one)
    assert (latest - np.array(one) <= LATE_NS).all()
    if gap:
        assert (np.diff(latest) <= gap).all()


def test_time_running_backwards_is_put_right_and_said(csv: Path, tmp_path: Path) -> None:
    csv.write_text("5000000,R,0,4096\n5000001,R,0,4096\n1000000,W,0,4096\n1000001,W,0,4096\n")
    report, trace = convert("block", csv, tmp_path / "x.parquet", **COLUMNS)
    assert sorted(trace.columns["time_ns"].tolist()) == [0, 1000, 1000, 2000]
    assert any("the clock was set back 1 times, by up to 4" in note for note in report.notes)


def test_offsets_lay_files_beside_each_other(csv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("500000,W,0,512\n")
    settings = Settings(offsets={"other.csv": -499_000_000})
    _, trace = convert("block", [csv, other], tmp_path / "x.parquet", settings, **COLUMNS)
    assert trace.columns["time_ns"][trace.columns["pages"] == 1].tolist() == [1_000_000]
    _, trace = convert("block", [csv, other], tmp_path / "x.parquet", Settings(offsets={str(other): None}), **COLUMNS)
    assert trace.columns["time_ns"][trace.columns["pages"] == 1].tolist() == [0]
    with pytest.raises(UserError, match=r"--offset nobody\.csv: none of the files"):
        convert("block", csv, tmp_path / "x.parquet", Settings(offsets={"nobody.csv": 5}), **COLUMNS)


def test_long_gaps_are_shortened_when_asked_and_years_are_refused(csv: Path, tmp_path: Path) -> None:
    csv.write_text("0,R,0,4096\n200000000000000,R,0,4096\n200000000000001,R,0,4096\n")
    with pytest.raises(UserError, match=r"spans 6\.3 years, a trace two at most.*--longest-gap"):
        convert("block", csv, tmp_path / "x.parquet", **COLUMNS)
    report, trace = convert("block", csv, tmp_path / "x.parquet", Settings(longest_gap_ns=10**9), **COLUMNS)
    assert sorted(trace.columns["time_ns"].tolist()) == [0, 10**9, 10**9 + 1000]
    assert any("1 gap was shortened" in note for note in report.notes)


def test_units_of_time() -> None:
    assert [unit_ns(u) for u in ("ns", "us", "ms", "s", "100ns")] == [1, 1000, 10**6, 10**9, 100]
    with pytest.raises(UserError, match="--time-unit fortnight: no unit of time; legal: ns, us"):
        unit_ns("fortnight")


# sorting in bounded memory ----------------------------------------------------------------------------------


ROW = st.tuples(st.integers(0, 3), st.integers(0, 20))


@given(
    st.lists(st.lists(ROW, min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_runs_merge_to_what_one_sort_gives(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]], piece: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    old = spool_module.RUN_BYTES, spool_module.PIECE_ROWS
    results = []
    try:
        for run_bytes, piece_rows in ((1 << 30, 1 << 17), (200, piece)):
            spool_module.RUN_BYTES, spool_module.PIECE_ROWS = run_bytes, piece_rows
            spool = Spool(folder)
            number = 0
            for batch in batches:
                count = len(batch)
                spool.add(
                    {
                        "thread": np.array([t for t, _ in batch], np.int32),
                        "time_ns": np.array([n for _, n in batch], np.int64),
                        "op": np.full(count, OPS["sleep"], np.int8),
                        "duration_ns": np.arange(number, number + count),
                        **({"page": np.full(count, 7)} if count % 2 else {}),
                    }
                )
                number += count
            rows = [
                (int(t), int(n), int(d), int(p))
                for piece in spool.pieces()
                for t, n, d, p in zip(
                    piece["thread"],
                    piece["time_ns"],
                    piece["duration_ns"],
                    piece["page"] if "page" in piece else np.zeros(len(piece["op"])),
                    strict=True,
                )
            ]
            results.append(rows)
    finally:
        spool_module.RUN_BYTES, spool_module.PIECE_ROWS = old
    assert results[0] == results[1]
    assert list(folder.iterdir()) == []


# formats of third parties -----------------------------------------------------------------------------------


def test_an_installed_package_adds_a_format_as_the_bundled_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy_format.py").write_text(TOY)
    (tmp_path / "broken_format.py").write_text("import nonsense_module\n")
    (tmp_path / "log.txt").write_text("0.5 first\n0.75 second\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [
            EntryPoint("import.toy", "toy_format", "hvbench"), EntryPoint("import.broken", "broken_format", "hvbench")
        ],
    )  # fmt: skip
    monkeypatch.delenv("HVBENCH_LOAD_PLUGINS", raising=False)
    assert execute(["import", str(tmp_path / "log.txt"), "-o", str(tmp_path / "x.parquet"), "--keep-names"]) == 0
    assert "2 operations of 2 threads, 0.25 s" in capsys.readouterr().out
    trace = read_trace(tmp_path / "x.parquet")
    assert check_trace(trace) == [] and counts(trace) == {"sleep": 2}
    assert [t["name"] for t in trace.meta["threads"]] == ["first", "second"]
    assert execute(["import", "--list"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("toy ") and "import.broken: ModuleNotFoundError" in said.err
    assert plugins.load_registry().policies == {}, "formats are no policies"


def test_a_format_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "log.txt").write_text("0.5 first\n0.75 second\nnonsense\n")
    words = ["import", str(tmp_path / "toy.py"), str(tmp_path / "log.txt"), "-o", str(tmp_path / "x.parquet")]
    assert execute(words) == 2
    assert execute([*words, "--skip-bad", "1"]) == 0
    assert len(read_trace(tmp_path / "x.parquet")) == 2


def test_what_is_no_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "no.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"no\.py: has no hook hvbench_import_format"):
        load_formats().get(str(tmp_path / "no.py"))
    with pytest.raises(UserError, match=r"no format 'vsci'.*vscsi"):
        load_formats().get("vsci")


def test_names_are_hashed_unless_they_are_to_be_kept(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "secret.txt").write_text("0.5 password\n")
    words = ["import", str(tmp_path / "toy.py"), str(tmp_path / "secret.txt"), "-o", str(tmp_path / "x.parquet")]
    assert execute(words) == 0
    data = (tmp_path / "x.parquet").read_bytes()
    assert b"password" not in data and b"secret" not in data
    assert "hashes" in read_trace(tmp_path / "x.parquet").meta["privacy"]


# the command ------------------------------------------------------------------------------------------------


def test_the_metadata_says_where_a_trace_came_from(csv: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    words = ["import", "block", str(csv), "-o", str(out), "--columns", "time,op,offset,size", "--time-unit", "us"]
    assert execute([*words, "--licence", "MIT", "--attribution", "somebody", "--name", "mine"]) == 0
    meta = read_trace(out).meta
    assert (meta["licence"], meta["attribution"], meta["name"], meta["replay"]) == ("MIT", "somebody", "mine", "open")
    assert meta["silent"] == ["cpu", "memory", "network"]
    assert meta["import"]["format"] == "block" and meta["import"]["options"]["time_unit"] == "us"
    (file,) = meta["import"]["files"]
    assert file["bytes"] == len(LINES) and re.fullmatch("[0-9a-f]{32}", file["blake2b"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.csv"], "x.csv: no such file"),
        (["some.csv", "-o", "x.parquet"], "some.csv: no format recognises it; name one"),
        (["block", "some.csv"], "where to? -o names the trace to write"),
        (["block", "some.csv", "-o", "no/where.parquet"], "there is no folder no"),
        (["block", "some.csv", "-o", "o.csv"], "o.csv: what is written is Parquet; -o names a file that ends in"),
        (["block", "some.csv", "-o", "x.parquet"], "--columns: say what the columns are"),
        (["block", "some.csv", "-o", "x.parquet", "--columns", "time,op,size"], "offset or sector is missing"),
        (["block", "some.csv", "-o", "x.parquet", "--columns", "time,what"], "'what' is no column; legal: time, op"),
        (["vscsi", "some.csv", "-o", "x.parquet"], "expected vscsiStats records of version 1 or 2"),
        (["vscsi", "gone.csv", "-o", "x.parquet"], "gone.csv: cannot be read: No such file"),
        (["vscsi", "some.csv", "-o", "x.parquet", "--columns", "a"], "No such option '--columns'"),
        (["block", "some.csv", "-o", "x.parquet", "--offset", "x"], "has to be FILE=TIME"),
        (["blok", "some.csv", "-o", "x.parquet"], "no format 'blok'"),
        ([], "nothing to import"),
    ],
)  # fmt: skip
def test_errors_are_one_line_that_says_what_to_do(
    words: list[str], said: str, csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(csv.parent)
    assert execute(["import", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert [p.name for p in csv.parent.iterdir()] == ["some.csv"]


def test_help_lists_the_options_of_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["import", "block", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--columns NAMES" in out and "--skip-bad" in out and "MSR Cambridge" in out
    assert execute(["import", "--list"]) == 0
    out = capsys.readouterr().out
    assert "vscsi" in out and "--time-unit" in out
