"""`hvbench matrix` and `run`: what they print, store, export and answer to the shell."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hvbench.store import Store
from tests import fakes
from tests.cli.conftest import HOOKS, Outcome
from tests.policies import write

Run = Callable[..., Outcome]


def test_the_standard_choices_are_computed_once_and_shown(hvbench: Run) -> None:
    first = hvbench("matrix", "./fake.toml")
    assert first.code == 0
    assert "fake: 126 combinations, 1 seed" in first.out
    assert "the same in all: technique hardware, host type1" in first.out
    assert "116 combinations between them are not shown: --all shows all" in first.out
    assert "126 cells computed" in first.err
    second = hvbench("matrix", "./fake.toml")
    assert "0 cells computed, 0 shared, 126 from hvbench.db" in second.err
    assert second.out == first.out
    assert "126 cells computed" in hvbench("matrix", "./fake.toml", "--fresh").err


def test_choices_seeds_and_rows_are_taken(hvbench: Run) -> None:
    ran = hvbench(
        "matrix", "./fake.toml", "--scheduler", "credit,credit:effect={7,8}", "--memory", "overcommit+balloon",
        "--storage", "das", "--switch", "bridged", "--seeds", "3", "--rows", "1",
    )  # fmt: skip
    assert ran.code == 0
    assert "3 combinations, 3 seeds" in ran.out and "memory overcommit+balloon" in ran.out
    assert "credit:effect=8" in ran.out
    assert "9 cells computed" in ran.err
    assert "spread over seeds is unknown" not in ran.out


SMALL = ("--memory", "static", "--storage", "das", "--switch", "bridged")


def test_refused_cells_do_not_change_the_exit_code(hvbench: Run) -> None:
    ran = hvbench("matrix", "./fake.toml", *SMALL, "--memory", "static,static:mode=1", "--scheduler", "credit")
    assert ran.code == 0
    assert "refused, 1 cell with memory static:mode=1: static: too large" in ran.out


@pytest.mark.parametrize(("mode", "status"), [(2, "failed"), (5, "stalled"), (6, "failed")])
def test_a_policys_fault_is_exit_code_1_and_costs_its_own_cells(hvbench: Run, mode: int, status: str) -> None:
    ran = hvbench("matrix", "./fake.toml", *SMALL, "--scheduler", f"credit,null:mode={mode}")
    assert ran.code == 1
    assert f"{status}, 1 cell with scheduler null:mode={mode}" in ran.out
    assert "\ncredit " in ran.out


def test_a_policy_file_runs_in_a_process_of_its_own(hvbench: Run, home: Path) -> None:
    write(home, "mine", fakes.BEHAVIOUR)
    # The worker has no fake entry points: every axis but one is given as a file too.
    for axis in ("memory", "storage", "switch", "technique", "host"):
        text = fakes.BEHAVIOUR.replace(HOOKS["scheduler"], HOOKS[axis])
        write(home, axis, f'{text}\nAXIS = "{axis}"\n')
    files = [f"--{axis}=./{axis}.py" for axis in ("memory", "storage", "switch", "technique", "host")]
    ran = hvbench("matrix", "./fake.toml", "--scheduler", "./mine.py,./mine.py:mode=3", *files, "--limit", "0.5")
    assert ran.code == 1, ran.err
    assert "hung, 1 cell with scheduler mine:mode=3: scheduler mine or" in ran.out
    assert "\nmine " in ran.out
    assert fakes.CALLS == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["./fake.toml", "--scheduler", "credti"], "no scheduler policy 'credti'; did you mean credit?"),
        (["./fake.toml", "--scheduler", "credit:efect=1"], "no parameter 'efect'; did you mean effect?"),
        (["./fake.toml", "--scheduler", "./broken.py"], "broken.py: does not import: ModuleNotFoundError"),
        (["./gone.toml"], "gone.toml: cannot be read"),
        (["./bad.toml"], "bad.toml: 9 errors:"),
        (["./fake.toml", "--format", "githb"], "did you mean github"),
        (["./fake.toml", "-o", "x.xls"], "must end in .csv, .json, .parquet"),
        (["./fake.toml", "-o", "no/x.csv"], "its folder does not exist"),
        (["./fake.toml", "--metrics", "slowdwn_worst"], "did you mean slowdown_worst"),
        (["./fake.toml", "--sort", "speed"], "no metric 'speed'"),
        (["./fake.toml", "--seeds", "0"], "'--seeds': 0 is not in the range"),
        (["./fake.toml", "--shedule", "x"], "No such option"),
        (["./fake.toml", "--scheduler", "credit:effect=1", "credit:effect=2"], "put a sweep in quotes"),
        (["./study.toml"], "study.toml: 2 errors: worklods: unknown"),
        (["./fake.toml", "--db", "no/r.db"], "its folder does not exist"),
        (["./fake.toml", "--db", "./fake.toml"], "damaged, or no results file"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_half_written(
    hvbench: Run, home: Path, args: list[str], words: str
) -> None:
    write(home, "broken", "import nonsense_module\n")
    (home / "bad.toml").write_text("format = 2\n[workload]\nname = 3\nhorizn = '5s'\n")
    (home / "study.toml").write_text("format = 1\nworklods = ['x']\nseeds = 0\n")
    before = sorted(home.iterdir())
    ran = hvbench("matrix", *args)
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1 and ran.err.startswith("hvbench: ")
    assert ran.out == ""
    assert [p for p in sorted(home.iterdir()) if p.name != "__pycache__"] == before


def test_a_broken_installed_plugin_is_named_and_the_rest_run(
    hvbench: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    from hvbench import plugins

    points = plugins.entry_points(group="hvbench")
    broken = [*points, EntryPoint("scheduler.broken", "fake_broken", "hvbench")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: broken)
    ran = hvbench("matrix", "./fake.toml", *SMALL)
    assert ran.code == 0
    assert "scheduler.broken did not load: ModuleNotFoundError: No module named 'nonsense_module'" in ran.err


def test_a_study_is_the_same_as_its_options(hvbench: Run, home: Path) -> None:
    (home / "sub").mkdir()
    fakes.make_workload(home / "sub", "inner")
    write(home / "sub", "mine", fakes.BEHAVIOUR)
    (home / "sub" / "study.toml").write_text(
        'format = 1\nworkloads = ["./inner.toml"]\nseeds = 2\n[axes]\nscheduler = ["credit", "null"]\n'
        'memory = "static"\nstorage = "das"\nswitch = "bridged"\n'
    )
    ran = hvbench("matrix", "sub/study.toml")
    assert ran.code == 0 and "inner: 2 combinations, 2 seeds" in ran.out
    overridden = hvbench("matrix", "sub/study.toml", "--scheduler", "round-robin", "--seeds", "1")
    assert "inner: 1 combination, 1 seed" in overridden.out


def test_exports_hold_every_cell(hvbench: Run, home: Path) -> None:
    import pyarrow.parquet

    for name in ("r.csv", "r.json", "r.parquet"):
        assert hvbench("matrix", "./fake.toml", *SMALL, "-o", name).code == 0
    with (home / "r.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["scheduler"] for row in rows] == ["credit", "null", "round-robin"]
    assert float(rows[1]["slowdown_geomean"]) > 1
    data = json.loads((home / "r.json").read_text())
    assert [row["slowdown_geomean"] for row in data] == [float(row["slowdown_geomean"]) for row in rows]
    assert data[0]["vms"][0]["name"] == "vm-0"
    table = pyarrow.parquet.read_table(home / "r.parquet").to_pylist()
    assert [row["slowdown_geomean"] for row in table] == [row["slowdown_geomean"] for row in data]
    assert [row["key"] for row in table] == [row["key"] for row in rows]


def test_json_has_no_infinities(tmp_path: Path) -> None:
    from hvbench.export import write_rows
    from tests.test_stats import make_row

    row = make_row(float("inf"))
    row.result.vms.append({"name": "a", "slowdown": float("nan")})
    write_rows([row], tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data[0]["slowdown_geomean"] is None and data[0]["vms"][0]["slowdown"] is None


def test_an_export_that_fails_leaves_the_old_file(hvbench: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hvbench import export

    (home / "r.csv").write_text("old")

    def fail(rows: object, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export._WRITERS, ".csv", fail)
    ran = hvbench("matrix", "./fake.toml", *SMALL, "-o", "r.csv")
    assert ran.code == 2 and "No space left on device" in ran.err
    assert (home / "r.csv").read_text() == "old"
    assert not list(home.glob(".r.csv*"))


def test_a_dry_run_computes_and_writes_nothing(hvbench: Run, home: Path) -> None:
    ran = hvbench("matrix", "./fake.toml", "--dry-run")
    assert ran.code == 0
    assert "126 cells in all, 0 of them in hvbench.db, 126 to compute" in ran.out
    assert "expected time: not known" in ran.out and "expected memory: about" in ran.out
    assert fakes.CALLS == [] and not (home / "hvbench.db").exists()
    hvbench("matrix", "./fake.toml", *SMALL)
    again = hvbench("matrix", "./fake.toml", "--dry-run", "--jobs", "2")
    assert "3 of them in hvbench.db, 123 to compute" in again.out and "at 2 cells at once" in again.out


def test_sharing_is_said_and_can_be_turned_off(hvbench: Run) -> None:
    fakes.SILENT.add("switch")
    ran = hvbench("matrix", "./fake.toml", "--memory", "static", "--storage", "das", "--db", "a.db")
    assert "3 of 6 cells were not computed" in ran.out
    assert "The switch was never asked anything on this workload" in ran.out
    brute = hvbench("matrix", "./fake.toml", "--memory", "static", "--storage", "das", "--db", "b.db", "--no-share")
    assert "6 cells computed, 0 shared" in brute.err


def test_one_cell_shows_every_metric(hvbench: Run) -> None:
    ran = hvbench("run", "./fake.toml", "--scheduler", "null", "--memory", "overcommit+balloon", "--seed", "2")
    assert ran.code == 0
    assert "fake, seed 2: scheduler null, memory overcommit+balloon, storage das, switch bridged" in ran.out
    assert "slowdown_geomean" in ran.out and "vm-0" in ran.out and "vm-1" in ran.out
    assert len(fakes.CALLS) == 1
    hvbench("run", "./fake.toml", "--scheduler", "null", "--memory", "overcommit+balloon", "--seed", "2")
    assert len(fakes.CALLS) == 1


def test_one_cell_takes_one_choice(hvbench: Run) -> None:
    ran = hvbench("run", "./fake.toml", "--scheduler", "credit,null")
    assert ran.code == 2 and "lists 2 choices; one is needed here" in ran.err


def test_what_was_run_is_remembered_even_if_it_is_killed(hvbench: Run, home: Path) -> None:
    hvbench("matrix", "./fake.toml", *SMALL)
    with Store(home / "hvbench.db") as store:
        assert [run[3] for run in store.runs()] == [3]
        assert [row.labels["scheduler"] for row in store.run_rows()] == ["credit", "null", "round-robin"]
