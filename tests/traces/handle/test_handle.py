"""Cut, scale, merge and export: what comes out is valid, replays, and adds up."""

from __future__ import annotations

import csv
import io
import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from replay_oracle import replay
from trace_builders import SMALL_ROWS, build, columns_of, small_meta

from hvbench.cli.trace import trace as trace_command
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import FLAG_COMMON, OP_NAMES, OPS, Trace, make_trace, read_trace, write_trace
from hvbench.traces.handle.csv import write_csv
from hvbench.traces.handle.cut import cut
from hvbench.traces.handle.merge import merge
from hvbench.traces.handle.scale import mixed, scale
from hvbench.traces.handle.series import plot, series
from hvbench.traces.info import format_info, trace_info

BUNDLED = Path(__file__).parents[3] / "workloads" / "traces"
NAMES = ("cc-build", "postgres-pgbench", "web-cache", "dbench", "memjob")


@pytest.fixture(scope="module")
def bundled() -> dict[str, Trace]:
    return {name: read_trace(BUNDLED / f"{name}.parquet") for name in NAMES}


def rows_of(trace: Trace, *columns: str) -> list[tuple[object, ...]]:
    c = trace.columns
    return [
        (int(c["thread"][i]), OP_NAMES[c["op"][i]], int(c["time_ns"][i]), *(int(c[name][i]) for name in columns))
        for i in range(len(trace))
    ]


def total(trace: Trace, op: str, column: str) -> int:
    return int(trace.columns[column][trace.columns["op"] == OPS[op]].sum())


# ------------------------------------------------------------------------------------------------ cut


def test_a_cut_by_hand() -> None:
    """[1050, 1650) of the small trace: 1 waited from 0 on and was woken at 1030; 0 waits for 1's wake-up at 1600."""
    made = cut(build(SMALL_ROWS), 1050, 1650)
    assert check_trace(made) == [] and made.meta["span_ns"] == 600
    assert rows_of(made, "page", "pages", "duration_ns", "bytes") == [
        (0, "alloc", 0, 2, 4, 0, 0),  # touched at 1020, so held when the part begins
        (0, "touch", 0, 2, 4, 0, 0),
        (0, "wait", 0, 0, 0, 0, 0),
        (1, "fread", 0, 0, 8, 0, 0),
        (1, "content", 10, 2, 1, 0, 0),
        (1, "sleep", 20, 0, 0, 500, 0),
        (1, "wake", 550, 0, 0, 0, 0),
    ]
    assert [thread["name"] for thread in made.meta["threads"]] == ["main", "worker"]
    (step,) = made.meta["derived"]
    assert step["by"] == "hvbench trace cut" and step["from"][0]["digest"] == build(SMALL_ROWS).digest
    assert step["how"] == {"from_ns": 1050, "to_ns": 1650, "of_ns": 10_000}


def test_a_wait_that_nothing_in_the_part_ends_lasts_to_its_end() -> None:
    made = cut(build(SMALL_ROWS), 1035, 1300)
    assert (0, "outside", 5, 260) in rows_of(made, "duration_ns")
    assert (1, "sleep", 35, 230) in rows_of(made, "duration_ns")
    assert not (made.columns["op"] == OPS["wait"]).any()


def test_bytes_that_were_under_way_are_not_waited_for() -> None:
    """The request of 100 bytes is sent at 0: the receive at 10 has them, a cut from 5 does without it."""
    rows = [*SMALL_ROWS]
    assert total(cut(build(rows), 5, 3000), "recv", "bytes") == 500  # the answer, sent at 2000
    assert total(cut(build(rows), 5, 1500), "recv", "bytes") == 0


def test_locks_barriers_and_requests_over_the_edges() -> None:
    rows = [
        (0, "lock", 0, {"peer": 0}),
        (0, "barrier", 10, {"peer": 1, "pages": 2}),
        (0, "unlock", 60, {"peer": 0}),
        (0, "lock", 70, {"peer": 2}),
        (0, "compute", 75, {"user_ns": 50}),
        (0, "unlock", 120, {"peer": 2}),
        (1, "mark_begin", 0, {}),
        (1, "barrier", 30, {"peer": 1, "pages": 2}),
        (1, "mark_end", 40, {}),
        (1, "mark_begin", 50, {}),
        (1, "mark_end", 60, {}),
    ]
    made = cut(make_trace(small_meta(), columns_of(rows)), 20, 100)
    assert check_trace(made) == []
    assert [(t, op, at, peer) for t, op, at, peer in rows_of(made, "peer")] == [
        (0, "lock", 0, 0),
        (0, "unlock", 40, 0),
        (0, "lock", 50, 2),
        (0, "compute", 55, -1),
        (0, "unlock", 80, 2),
        (1, "mark_begin", 30, -1),
        (1, "mark_end", 40, -1),
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_any_cut_of_a_recording_replays(bundled: dict[str, Trace], name: str, seed: int) -> None:
    draw = random.Random(f"{name} {seed}")
    begin, share = draw.uniform(0, 0.9), draw.uniform(0.05, 1)
    whole = bundled[name]
    span = whole.meta["span_ns"]
    start = int(span * begin)
    made = cut(whole, start, start + max(1, int((span - start) * share)))
    assert check_trace(made) == []
    assert replay(made, loops=2).stuck == []


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_add_up_to_the_whole(bundled: dict[str, Trace], name: str) -> None:
    whole = bundled[name]
    span = whole.meta["span_ns"]
    edges = [0, span // 3, span // 2, span]
    parts = [cut(whole, a, b) for a, b in pairwise(edges)]
    for op, column in (("compute", "user_ns"), ("compute", "syscalls"), ("fread", "pages"), ("send", "bytes")):
        assert sum(total(part, op, column) for part in parts) == total(whole, op, column)
    # a sleep that was cut in two lasts as long in both together; what lies behind the recorded span is no part of it
    slept = whole.columns["op"] == OPS["sleep"]
    ends = np.minimum(whole.columns["time_ns"] + whole.columns["duration_ns"], span)
    assert sum(total(part, "sleep", "duration_ns") for part in parts) == int(
        (ends - whole.columns["time_ns"])[slept].sum()
    )
    held = trace_info(whole).anon_peak_pages
    assert max(trace_info(part).anon_peak_pages for part in parts) == held


def test_the_whole_is_its_own_cut(bundled: dict[str, Trace]) -> None:
    """From the beginning to the end only what nobody could see is left out: wake-ups that end no wait."""
    whole = bundled["cc-build"]
    made = cut(whole, 0, 1 << 60)
    assert total(made, "compute", "user_ns") == total(whole, "compute", "user_ns")
    assert len(made) == len(whole)


# ---------------------------------------------------------------------------------------------- scale


def test_scale_by_hand() -> None:
    made = scale(build(SMALL_ROWS), Fraction(2), Fraction(1, 3), Fraction(3, 2))
    assert check_trace(made) == [] and made.meta["span_ns"] == 20_000
    assert total(made, "sleep", "duration_ns") == 1000
    assert (total(made, "compute", "user_ns"), total(made, "compute", "kernel_ns")) == (233, 100)
    assert total(made, "compute", "syscalls") == 2
    assert [item["pages"] for item in made.meta["objects"]] == [24, 8]
    assert (0, "touch", 2040, 3, 6) in rows_of(made, "page", "pages")
    assert [row[3:] for row in rows_of(made, "page", "content", "pages") if row[1] == "content"] == [(3, 7, 1)]
    assert made.meta["derived"][0]["how"] == {"time": 2.0, "compute": 1 / 3, "memory": 1.5}


def test_equal_pages_have_equal_copies() -> None:
    rows = [
        (0, "touch", 0, {"object": 0, "page": 0, "pages": 4}),
        *[
            (0, "content", 1, {"object": 0, "page": page, "pages": 1, "content": content})
            for page, content in enumerate((7, 7, 0, 9))
        ],
    ]
    made = scale(build(rows), memory=Fraction(3))
    found = {row[3]: row[4] for row in rows_of(made, "page", "content") if row[1] == "content"}
    assert sorted(found) == list(range(12))
    assert [found[i] for i in range(3)] == [found[i] for i in range(3, 6)] == [7, mixed(7, 1), mixed(7, 2)]
    assert [found[i] for i in range(6, 9)] == [0, 0, 0] and found[9] == 9
    assert len({7, mixed(7, 1), mixed(7, 2), 9, mixed(9, 1)}) == 5
    before, after = trace_info(build(rows)), trace_info(made)
    assert before.sharing_zero_share == after.sharing_zero_share
    assert before.sharing_duplicate_share == after.sharing_duplicate_share


@pytest.mark.parametrize(
    ("memory", "files"), [("1/50", "4"), ("1/3", "1/50"), ("3953015608162237/988253902040600", "0.7")]
)
@pytest.mark.parametrize("name", NAMES)
def test_any_scale_of_a_recording_replays(bundled: dict[str, Trace], name: str, memory: str, files: str) -> None:
    whole = bundled[name]
    made = scale(whole, memory=Fraction(memory), files=Fraction(files))
    assert check_trace(made) == []
    assert total(made, "compute", "user_ns") == total(whole, "compute", "user_ns")
    peak, before = trace_info(made).anon_peak_pages, trace_info(whole).anon_peak_pages
    # a page at least of each region that is held, and a rounded one at each end of a range
    assert 0.95 * float(Fraction(memory)) * before <= peak <= float(Fraction(memory)) * before + 100


def test_factors_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"--memory 0: a factor from 0\.0001 to 10000 is legal"):
        scale(build(SMALL_ROWS), memory=Fraction(0))
    with pytest.raises(UserError, match="nothing to scale; give --time, --compute, --memory or --files"):
        scale(build(SMALL_ROWS))
    meta = small_meta() | {"span_ns": 1 << 55}
    with pytest.raises(UserError, match="--time 4: a time of 36028797018963968 ns would be above"):
        scale(build(SMALL_ROWS, meta), time=Fraction(4))


# ---------------------------------------------------------------------------------------------- merge


def test_merge_by_hand() -> None:
    one, two = build(SMALL_ROWS), build(SMALL_ROWS, small_meta() | {"name": "other", "span_ns": 20_000})
    made = merge([one, two])
    assert check_trace(made) == [] and replay(made, loops=2).stuck == []
    assert made.name == "small+other" and made.meta["span_ns"] == 20_000 and made.meta["tiers"] == ["guest"]
    assert [thread["process"] for thread in made.meta["threads"]] == [0, 0, 1, 2, 2, 3]
    assert [item["process"] for item in made.meta["objects"] if item["kind"] == "anon"] == [0, 2]
    assert len([item for item in made.meta["objects"] if item["kind"] == "own"]) == 1  # one file, one page cache
    assert made.columns["flow"].max() == 1 and made.columns["peer"].max() == 4
    for name in ("user_ns", "bytes", "duration_ns"):
        assert made.columns[name].sum() == one.columns[name].sum() + two.columns[name].sum()
    assert [source["name"] for source in made.meta["derived"][-1]["from"]] == ["small", "other"]


def test_two_instances_of_one_program_share_only_what_is_common() -> None:
    rows = [
        (0, "content", 1, {"object": 0, "page": 0, "pages": 1, "content": 7}),
        (0, "content", 1, {"object": 0, "page": 1, "pages": 1, "content": 8, "flags": FLAG_COMMON}),
    ]
    made = merge([build(rows), build(rows)])
    assert made.columns["content"].tolist() == [7, 8, mixed(7, 1), 8]
    assert [item["kind"] for item in made.meta["objects"]] == ["anon", "own", "anon", "own"]


def test_recordings_merge_and_replay(bundled: dict[str, Trace]) -> None:
    made = merge([bundled["cc-build"], bundled["postgres-pgbench"], bundled["dbench"], bundled["dbench"]])
    assert check_trace(made) == [] and replay(made).stuck == []
    images = [item["name_hash"] for item in made.meta["objects"] if item["kind"] == "image"]
    assert len(images) == len(set(images))


def test_what_cannot_be_merged(bundled: dict[str, Trace]) -> None:
    small = build(SMALL_ROWS)
    with pytest.raises(UserError, match=r"small: its salt is 00, that of small is 6876.*never compare equal"):
        merge([small, build(SMALL_ROWS, small_meta() | {"salt": "00"})])
    with pytest.raises(UserError, match=r"has 2 tiers \(web, cache\).*only traces of one guest can be merged"):
        merge([small, bundled["web-cache"]])
    with pytest.raises(UserError, match="replays open-loop, small closed-loop"):
        merge([small, build(SMALL_ROWS, small_meta() | {"replay": "open"})])
    with pytest.raises(UserError, match="one trace is nothing to merge"):
        merge([small])
    image = read_trace(BUNDLED / "base-idle.parquet")
    with pytest.raises(UserError, match="a base image holds no operations; `hvbench trace merge` wants a trace"):
        merge([small, image])


# ------------------------------------------------------------------------------------- info and export


def test_series_by_hand() -> None:
    rows = [
        (0, "touch", 0, {"object": 0, "page": 0, "pages": 8}),
        (0, "compute", 0, {"user_ns": 150}),
        (0, "content", 0, {"object": 0, "page": 0, "pages": 1, "content": 5}),
        (0, "content", 0, {"object": 0, "page": 1, "pages": 1, "content": 5}),
        (0, "touch", 210, {"object": 0, "page": 0, "pages": 2}),
        (0, "touch", 220, {"object": 0, "page": 1, "pages": 2}),
        (0, "content", 230, {"object": 0, "page": 1, "pages": 1, "content": 6}),
        (0, "free", 310, {"object": 0, "page": 4, "pages": 4}),
    ]
    found = {item.name: item.values for item in series(build(rows, small_meta() | {"span_ns": 400}), steps=4)}
    assert found["compute"] == [1.0, 0.5, 0.0, 0.0]
    pages = 4096 / 2**20
    assert found["memory held"] == [8 * pages, 8 * pages, 8 * pages, 4 * pages]
    assert found["working set"] == [8 * pages, 0.0, 3 * pages, 0.0]
    assert found["sharable"] == [50.0, 50.0, 0.0, 0.0]
    lines = plot(series(build(rows, small_meta() | {"span_ns": 400}), steps=4), "400 ns")
    assert lines[0] == "  compute       █▅    mean 0.38, most 1.00 vCPUs"


def test_sharable_at_the_end_is_what_info_says(bundled: dict[str, Trace]) -> None:
    whole = bundled["postgres-pgbench"]
    info = trace_info(whole)
    last = next(item for item in info.series if item.name == "sharable").values[-1]
    assert last == pytest.approx(100 * (info.sharing_zero_share + info.sharing_duplicate_share))
    held = next(item for item in info.series if item.name == "memory held").values
    assert max(held) <= info.anon_peak_pages * 4096 / 2**20
    assert "could be saved" in format_info(info)


def test_export_has_every_cell() -> None:
    out = io.BytesIO()
    small = build(SMALL_ROWS)
    write_csv(small, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue().decode())))
    assert len(rows) == len(small)
    for name, values in small.columns.items():
        expected = [OP_NAMES[value] for value in values] if name == "op" else [str(int(value)) for value in values]
        assert [row[name] for row in rows] == expected


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(trace_command, [str(word) for word in words])
    return done.exit_code, done.output + (f"{done.exception}" if done.exception else "")


def test_commands(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    write_trace(source, small_meta(), columns_of(SMALL_ROWS))
    made = tmp_path / "b.parquet"
    assert run("cut", source, "--from", "1us", "--to", "2us", "-o", made)[0] == 0
    half = tmp_path / "c.parquet"
    assert run("scale", made, "--compute", "1/2", "-o", half)[0] == 0
    assert run("merge", source, half, "--name", "both", "-o", made)[0] == 0
    half.unlink()
    steps = read_trace(made).meta["derived"]
    assert [step["by"].split()[-1] for step in steps] == ["cut", "scale", "merge"]
    code, text = run("info", made)
    assert code == 0 and "derived       hvbench trace scale of small" in text and "compute 0.5" in text
    assert run("export", made, "--csv", tmp_path / "b.csv", "--metadata", tmp_path / "b.json")[0] == 0
    assert (tmp_path / "b.json").read_text().startswith("{")

    before = made.read_bytes()
    for words, said in (
        (
            ("cut", source, "--from", "9us", "--to", "3us", "-o", made),
            "--from 9us to 3us is no part of a trace of 10us",
        ),
        (("cut", source, "--from", "soon", "-o", made), "--from soon: 'soon'"),
        (("cut", source, "--from", "4us", "--to", "5us", "-o", made), "nothing happens from 4us to 5us"),
        (("scale", source, "--time", "fast", "-o", made), "--time fast: a factor is a number, such as 2, 0.5 or 1/3"),
        (("scale", source, "--time", "2", "-o", tmp_path / "no" / "x.parquet"), "there is no folder"),
        (("export", source, "--csv", tmp_path / "no" / "x.csv"), "cannot be written"),
        (("export", source, "--csv", source), "--csv names another file"),
        (("export", source, "--csv", tmp_path / "x.csv", "--metadata", source), "--metadata names another file"),
        (("export", source, "--csv", tmp_path / "x", "--metadata", tmp_path / "x"), "--csv and --metadata name one"),
        (("export", source, "--csv", tmp_path / "x", "--metadata", tmp_path / "no" / "x"), "there is no folder"),
        (("cut", made, "--from", "1us", "-o", made), "is read by this command; -o names another file"),
        (("scale", made, "--time", "2", "-o", made), "is read by this command"),
        (("merge", source, made, "-o", made), "is read by this command"),
        (("scale", source, "--time", "2", "-o", tmp_path / "x.csv"), "-o names a file that ends in .parquet"),
        (("cut", tmp_path / "none.parquet", "-o", made), "cannot be read"),
    ):
        code, text = run(*words)
        assert code != 0 and said in text, text
    assert made.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.csv", "b.json", "b.parquet"]
