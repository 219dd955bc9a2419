"""`hvbench study seed` and `hvbench density`: what is printed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fakes
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]
POLICIES = ("--scheduler", "credit,null", "--memory", "static,balloon", "--storage", "das,nas", "--technique", "full")
GRID = ("--cpu", "1,2", "--overcommit", "0.7,1.3")


@pytest.fixture
def study(hvbench: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    from hvbench import choices
    from hvbench.cli import study

    parse = choices.parse_choice

    def fake_parse(axis: str, text: str, registry: object) -> object:
        return parse(axis, "static" if axis == "memory" else text, registry)

    monkeypatch.setattr(choices, "parse_choice", fake_parse)
    monkeypatch.setitem(study.STANDARD_STUDY, "host", "type1,type2")
    return hvbench


def test_a_table_a_workload_and_an_answer(study: Run) -> None:
    ran = study("study", "seed", "./fake.toml", *POLICIES, *GRID)
    assert ran.code == 0, ran.err
    assert "Does memory policy matter most?" in ran.out
    # the fake null is 10 % worse than credit, balloon 10 % worse than static: a tie goes to the first
    assert "×1.100" in ran.out and "4 of 4" in ran.out
    assert "One seed was run" in ran.out
    assert len(ran.out.split("fake: slowdown under")) == 2
    calls = len(fakes.CALLS)
    assert calls == 4 * (4 + 4)
    fakes.CALLS.clear()
    assert study("study", "seed", "./fake.toml", *POLICIES, *GRID).out == ran.out
    assert fakes.CALLS == []


def test_dry_run_counts(study: Run) -> None:
    ran = study("study", "seed", "./fake.toml", *POLICIES, *GRID, "--dry-run")
    assert ran.out == "1 workload at 4 points: 32 cells\n" and fakes.CALLS == []


@pytest.mark.parametrize("ratios", ["", "a", "0", "1,-2", "nan", "inf"])
def test_bad_ratios(study: Run, ratios: str) -> None:
    ran = study("study", "seed", "./fake.toml", "--cpu", ratios)
    assert ran.code == 2 and "is no list of ratios above 0, such as 0.5,1,2" in ran.err


def test_a_picture_that_cannot_be_drawn_is_refused_at_once(study: Run) -> None:
    ran = study("study", "seed", "./fake.toml", "--picture", "x.jpg")
    assert ran.code == 2 and "a picture ends in .png, .svg, .pdf" in ran.err
    assert fakes.CALLS == []


def test_a_picture_is_drawn(study: Run, home: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = study("study", "seed", "./fake.toml", *POLICIES, *GRID, "--picture", "answer.svg")
    assert ran.code == 0
    assert "vCPUs a pCPU" in (home / "answer.svg").read_text() or (home / "answer.svg").stat().st_size > 5_000
    assert not list(home.glob(".answer*"))


def test_density_shows_both_sides_of_the_answer(hvbench: Run) -> None:
    best = ("--switch", "internal", "--technique", "native")
    search = ("--limit-slowdown", "1.15", "--most", "4")
    ran = hvbench("density", "./fake.toml", *best, *search, "--scheduler", "credit,null")
    assert ran.code == 0, ran.err
    lines = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith(("credit", "null"))}
    # the fake simulator's worst slowdown is 1.1 times its mean, whatever the number of tenants
    assert "not reached with 4" in lines["credit"]
    assert lines["null"].split()[1] == "0" and "worst slowdown 1.2" in lines["null"]
