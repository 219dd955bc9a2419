"""`hvbench fidelity`: what it prints, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from hvbench.cli import execute
from hvbench.fidelity import registry
from hvbench.fidelity.bars import Bar, Control
from hvbench.fidelity.fb5 import BAR as FB5
from hvbench.fidelity.numbers import inputs, of_bar
from hvbench.fidelity.stage import Stage
from hvbench.plugins import load_registry


def quick(**changes: object) -> Bar:
    """FB5 with cells of a tenth of a second, and values that a test chooses."""

    def cells(stage: Stage, seen: object, model: str) -> dict[str, object]:
        from hvbench.traces.synthetic import compute_bound

        path = stage.workload(
            "quick",
            settings={"class": "micro", "horizon": "100ms", "warmup": "10ms"},
            host={"pcpus": 1, "memory": "1GiB"},
            vms=[{"name": "a", "memory": "16MiB", "trace": stage.trace("compute", compute_bound()), "image": ""}],
        )
        return {"only": stage.cell(path)}

    def read(results: object, seen: object) -> dict[str, float]:
        return {name: number.value for name, number in of_bar("FB5", "target").items()}

    return attrs.evolve(FB5, **{"cells": cells, "read": read, **changes})  # type: ignore[arg-type]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVBENCH_INTERPRET", "1")
    return monkeypatch


def test_all_met_is_0(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    only.setattr(registry, "BARS", {"FB5": quick()})
    assert execute(["fidelity"]) == 0
    out = capsys.readouterr().out
    targets = of_bar("FB5", "target")
    assert f"{len(targets)} of {len(targets)} targets met." in out
    for number in targets.values():
        assert number.what in out
    assert "S1: Barham et al." in out
    assert "Not met" not in out


def test_a_red_target_is_1_with_its_reason(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bar = quick(reasons={"a.weight8": "because of the weather"})
    right = bar.read
    bar = attrs.evolve(bar, read=lambda r, i: {**right(r, i), "a.weight8": 1.0, "a.weight7": 2.0})
    only.setattr(registry, "BARS", {"FB5": bar})
    assert execute(["fidelity", "fb5"]) == 1
    out = capsys.readouterr().out
    assert "FB5 RED: because of the weather. It concerns: CPU-bound: share of weight 8 of 36." in out
    assert "nobody has found out why yet. It concerns: CPU-bound: share of weight 7 of 36." in out
    assert execute(["fidelity", "fb5", "--json"]) == 1
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["fb5.a.weight8"]["verdict"] == "RED" and rows["fb5.a.weight8"]["simulated"] == 1.0
    assert rows["fb5.a.weight1"]["verdict"] == "green" and rows["fb5.a.weight1"]["reason"] == ""


def test_a_missing_policy_is_not_run_and_1(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bar = quick()
    right = bar.cells

    def cells(stage: Stage, seen: object, model: str) -> dict[str, object]:
        made = right(stage, seen, model)  # type: ignore[arg-type]
        stage.cell(stage.folder / "quick.toml", memory="static+telepathy")
        return dict(made)

    only.setattr(registry, "BARS", {"FB5": attrs.evolve(bar, cells=cells)})
    assert execute(["fidelity"]) == 1
    out = capsys.readouterr().out
    assert "NOT RUN" in out and "no memory policy telepathy is installed" in out


def test_a_control_that_passes_is_1(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bar = quick(controls={"nothing-wrong": Control("nothing at all", ("a.weight1",))})
    only.setattr(registry, "BARS", {"FB5": bar})
    assert execute(["fidelity", "--controls"]) == 1
    out = capsys.readouterr().out
    assert "PASSES" in out and "nothing at all" in out
    wrong = attrs.evolve(bar, read=lambda r, i: {**bar.read(r, i), "a.weight1": 99.0})
    only.setattr(registry, "BARS", {"FB5": wrong})
    assert execute(["fidelity", "--controls"]) == 0
    assert "refused" in capsys.readouterr().out


def test_the_scenarios_can_be_kept_and_run(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    only.setattr(registry, "BARS", {"FB5": quick()})
    assert execute(["fidelity", "--write", "kept"]) == 0
    assert execute(["run", "kept/quick.toml", "--technique", "native", "--scheduler", "null"]) == 0
    assert "slowdown_geomean" in capsys.readouterr().out


def test_bad_input_is_2(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["fidelity", "FB77"]) == 2
    assert "no bar 'FB77'; did you mean" in capsys.readouterr().err
    Path("file").write_text("")
    assert execute(["fidelity", "FB1", "--write", "file/below"]) == 2
    assert "file/below: cannot be made: Not a directory" in capsys.readouterr().err
    assert execute(["fidelity", "--format", "papyrus"]) == 2


def test_the_list_runs_nothing(only: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["fidelity", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in registry.BARS)
    assert not Path("hvbench.db").exists()


@pytest.mark.parametrize("bar", registry.BARS.values(), ids=lambda bar: bar.name)
def test_a_wrong_model_is_another_model(bar: Bar, tmp_path: Path) -> None:
    """A scenario can be set up with what is installed, and each control has cells that differ from its."""
    if bar.absent():
        pytest.skip(bar.absent())
    stage = Stage(tmp_path, load_registry())
    right = {cell.key for cell in bar.cells(stage, inputs(bar.name), "").values()}
    for control in bar.controls:
        wrong = {cell.key for cell in bar.cells(stage, inputs(bar.name), control).values()}
        assert wrong - right, f"{bar.name} {control} changes nothing"
