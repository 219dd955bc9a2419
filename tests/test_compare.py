"""Comparing results: rules to the last digit, vanished and new cells, axes, every kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hvbench.axes import AXES
from hvbench.cell import CellResult
from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.gate import parse_rule
from hvbench.store import Row, Store

RULES = [
    ("slowdown_geomean:+1%", 1.0, 1.01, False),
    ("slowdown_geomean:+1%", 1.0, 1.0101, True),
    ("slowdown_geomean:+1%", 1.0, 0.5, False),
    ("slowdown_geomean:+0.1%", 1.0, 1.002, True),
    ("throughput:-2%", 100.0, 98.0, False),
    ("throughput:-2%", 100.0, 97.9, True),
    ("throughput:-2%", 100.0, 150.0, False),
    ("network_frames_dropped:=0", 5.0, 0.0, False),
    ("network_frames_dropped:=0", 0.0, 1.0, True),
    ("network_frames_dropped:+0%", 0.0, 1.0, True),
    ("network_frames_dropped:+0%", 0.0, 0.0, False),
    ("migrations:=", 3.0, 3.0, False),
    ("migrations:=", 3.0, 2.0, True),
    ("io_latency_p99_ns:+5ms", 1e6, 6e6, False),
    ("io_latency_p99_ns:+5ms", 1e6, 6.1e6, True),
    ("x:-1.5", -1.0, -2.6, True),
]


@pytest.mark.parametrize(("text", "old", "new", "breaks"), RULES)
def test_rules(text: str, old: float, new: float, breaks: bool) -> None:
    assert parse_rule(text).breaks(old, new) is breaks


def test_a_new_cell_breaks_only_what_is_absolute() -> None:
    assert not parse_rule("x:+1%").breaks(None, 5.0)
    assert not parse_rule("x:=").breaks(None, 5.0)
    assert parse_rule("x:=0").breaks(None, 5.0)


@pytest.mark.parametrize("text", ["x", "x:5%", "x:+", "x:+a", "x:=5%", "x:+-1%", ":+1%", "x:+nan", "x:+inf%"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UserError, match="rule"):
        parse_rule(text)


@given(st.floats(1e-6, 1e12), st.floats(0, 50), st.floats(1e-6, 1e12))
def test_a_rise_rule_is_what_it_says(old: float, percent: float, new: float) -> None:
    excess = (new - old) - percent / 100 * old
    assume(abs(excess) > 1e-9 * (old + new))
    assert parse_rule(f"x:+{percent}%").breaks(old, new) == (excess > 0)


# files ------------------------------------------------------------------------------------------------------------

Make = Callable[..., Path]


def row(scheduler: str, memory: str, slowdown: float, status: str = "ok", **metrics: float) -> Row:
    labels = dict.fromkeys(AXES, "x") | {"scheduler": scheduler, "memory": memory}
    result = CellResult(status, metrics={"slowdown_geomean": slowdown, **metrics} if status == "ok" else {})
    return Row(f"{scheduler}{memory}{slowdown}", "build", labels, False, 1, 10, 1, result)


@pytest.fixture
def db(tmp_path: Path) -> Make:
    def make(name: str, *rows: Row) -> Path:
        with Store(tmp_path / name) as store:
            store.begin_run("hvbench matrix", [r.key for r in rows])
            store.put_many(rows)
        return tmp_path / name

    return make


OLD = [row(s, m, 1.2) for s in ("credit", "credit2") for m in ("static", "balloon")]


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    code = execute(["compare", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_equal_results_pass(db: Make, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, db("old.db", *OLD), db("new.db", *OLD))
    assert code == 0 and "4 cells are equal" in out and "Of the metrics 0 are worse" in out


def test_a_policy_that_became_worse_by_two_percent_is_named(db: Make, capsys: pytest.CaptureFixture[str]) -> None:
    new = [*OLD[:2], row("credit2", "static", 1.2 * 1.02), row("credit2", "balloon", 1.2 * 1.02)]
    code, out = run(capsys, db("old.db", *OLD), db("new.db", *new))
    assert code == 1
    assert "+2 %" in out and "worse FAIL slowdown_geomean:+1%" in out
    assert "slowdown_geomean changed only with scheduler credit2." in out
    code, _ = run(capsys, db("old2.db", *OLD), db("new2.db", *new), "--fail", "slowdown_geomean:+3%")
    assert code == 0
    code, _ = run(capsys, db("old3.db", *OLD), db("new3.db", *new), "--no-fail")
    assert code == 0


def test_vanished_new_and_broken_cells_are_reported(db: Make, capsys: pytest.CaptureFixture[str]) -> None:
    new = [OLD[0], row("credit", "balloon", 1.2, "stalled"), row("mine", "static", 1.0)]
    code, out = run(capsys, db("old.db", *OLD), db("new.db", *new))
    assert code == 1
    assert "2 cells have vanished" in out and "vanished: build: credit2, static" in out
    assert "new: build: mine, static" in out
    assert "broken now: build: credit, balloon, x, x, x, x, seed 1 (ok → stalled)" in out
    code, _ = run(capsys, db("old4.db", *OLD), db("new4.db", *OLD[:3]), "--vanished-ok")
    assert code == 0


def test_markdown_for_a_comment(db: Make, capsys: pytest.CaptureFixture[str]) -> None:
    new = [row("credit", "static", 1.1), *OLD[1:]]
    _, out = run(capsys, db("old.db", *OLD), db("new.db", *new), "--format", "github")
    assert out.startswith("### Of the metrics 0 are worse, 1 better")
    assert "| cell" in out and "<details>" in out


def test_a_gate_on_a_metric_that_nobody_has_guards_nothing(db: Make, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, db("old.db", *OLD), db("new.db", *OLD), "--fail", "slowdown_geomeen:+1%")
    assert code == 2 and "slowdown_geomean" in out


def test_runs_of_one_file(db: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = db("one.db", *OLD)
    with Store(path) as store:
        worse = row("credit", "static", 1.5)
        store.begin_run("again", [worse.key, *(r.key for r in OLD[1:])])
        store.put(worse)
    code, out = run(capsys, f"{path}@1", path)
    assert code == 1 and "+25 %" in out


def test_exported_json_and_stored_benchmarks(db: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from hvbench.export import write_rows

    write_rows(OLD, tmp_path / "old.json")
    code, _ = run(capsys, tmp_path / "old.json", db("new.db", *OLD))
    assert code == 0
    bench = {
        "benchmarks": [
            {
                "fullname": "test_a.py::test_cell[build]",
                "stats": {"mean": 1.5},
                "extra_info": {"workload": "build", "scheduler": "credit", "metrics": {"slowdown_geomean": 1.5}},
            },
            {"fullname": "test_a.py::test_cost", "stats": {"mean": 2e-7}, "extra_info": {}},
        ]
    }
    (tmp_path / "a.json").write_text(json.dumps(bench))
    bench["benchmarks"][0]["extra_info"]["metrics"] = {"slowdown_geomean": 1.4}
    bench["benchmarks"][1]["stats"] = {"mean": 3e-7}
    (tmp_path / "b.json").write_text(json.dumps(bench))
    code, out = run(capsys, tmp_path / "a.json", tmp_path / "b.json", "--fail", "mean_s:+10%")
    assert code == 1 and "mean_s:+10%" in out and "1 better" in out and "1 is worse" in out
    code, out = run(capsys, tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0 and "0 are worse" in out, "without a rule a time of the real clock is different, no verdict"


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"benchmarks": 3}', '"x"'])
def test_json_of_something_else(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    code, out = run(capsys, tmp_path / "x.json", tmp_path / "x.json")
    assert code == 2 and "Traceback" not in out
