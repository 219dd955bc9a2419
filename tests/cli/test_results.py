"""`hvbench results`: stored results sorted, filtered, compared, exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fakes
from tests.cli.conftest import Outcome

Run = Callable[..., Outcome]
SMALL = ("--storage", "das", "--switch", "bridged", "--memory", "static,balloon")


@pytest.fixture
def stored(hvbench: Run) -> Run:
    assert hvbench("matrix", "./fake.toml", *SMALL).code == 0
    fakes.CALLS.clear()
    return hvbench


def first_column(text: str) -> list[str]:
    names = ("credit", "null", "round-robin")
    return [line.split()[0] for line in text.splitlines() if line.startswith(names)]


def test_the_last_run_is_shown_again_without_computing(stored: Run) -> None:
    ran = stored("results")
    assert ran.code == 0 and "fake: 6 combinations" in ran.out
    assert fakes.CALLS == []


def test_sorted_best_first_whatever_best_is(stored: Run) -> None:
    by_slowdown = stored("results", "--sort", "slowdown_worst", "--all", "--where", "memory=static")
    by_fairness = stored("results", "--sort", "fairness_jain", "--all", "--where", "memory=static")
    assert first_column(by_slowdown.out)[:3] == ["credit", "null", "round-robin"]
    assert first_column(by_fairness.out)[:3] == ["credit", "null", "round-robin"]


def test_only_the_metrics_asked_for(stored: Run) -> None:
    ran = stored("results", "--metrics", "fairness_jain")
    header = next(line for line in ran.out.splitlines() if line.startswith("scheduler"))
    assert header.split() == ["scheduler", "memory", "fairness"]


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        (["scheduler=credit"], 2),
        (["scheduler=credit,memory=static"], 1),
        (["scheduler=credit", "memory!=static"], 1),
        (["slowdown_geomean<1.5"], 3),
        (["slowdown_geomean>=1.5"], 3),
        (["status=ok"], 6),
        (["seed=1"], 6),
    ],
)
def test_conditions_select(stored: Run, conditions: list[str], count: int) -> None:
    args = [part for condition in conditions for part in ("--where", condition)]
    assert f"fake: {count} combination" in stored("results", *args).out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--where", "shedule=x"], "no 'shedule'; did you mean scheduler"),
        (["--where", "scheduler<x"], "compare it with = or !="),
        (["--where", "slowdown_worst<fast"], "not a quantity"),
        (["--where", "nonsense"], "write NAME=VALUE"),
        (["--where", "scheduler=x"], "no result fits the conditions, of 6"),
        (["--baseline", "x"], "no choice 'x' in these results"),
        (["otherload"], "no results of workload 'otherload'; there are fake"),
        (["--run", "99"], "no run 99"),
        (["--db", "gone.db"], "gone.db: no results file"),
        (["-o", "r.txt"], "must end in"),
    ],
)
def test_bad_input_is_one_line(stored: Run, args: list[str], words: str) -> None:
    ran = stored("results", *args)
    assert ran.code == 2 and words in ran.err and ran.err.count("\n") == 1 and ran.out == ""


def test_latencies_are_compared_with_units() -> None:
    from hvbench.query import parse_where
    from tests.test_stats import make_row

    row = make_row(1.5)
    row.result.metrics["wakeup_latency_p99_ns"] = 2_000_000
    row.result.metrics["cpu_ready_share"] = 0.1
    assert parse_where(["wakeup_latency_p99_ns<3ms"])(row)
    assert not parse_where(["wakeup_latency_p99_ns<1ms"])(row)
    assert parse_where(["cpu_ready_share>=5%"])(row)
    assert not parse_where(["io_latency_p99_ns<1ms"])(row), "an absent metric fits no condition"


def test_differences_to_a_choice(stored: Run) -> None:
    ran = stored("results", "--baseline", "scheduler=credit", "--metrics", "slowdown_geomean")
    assert "Differences in percent to scheduler credit" in ran.out
    assert "+10.0 %" in ran.out and "+20.0 %" in ran.out


def test_runs_are_listed_and_shown_by_number(stored: Run) -> None:
    stored("matrix", "./fake.toml", *SMALL, "--scheduler", "null")
    listed = stored("results", "--runs").out
    assert "hvbench" in listed and len([line for line in listed.splitlines() if line.strip()[:1].isdigit()]) == 2
    assert "fake: 2 combinations" in stored("results").out
    assert "fake: 6 combinations" in stored("results", "--run", "1").out
    assert "fake: 6 combinations" in stored("results", "--every-run").out


def test_stored_results_are_exported(stored: Run, home: Path) -> None:
    assert stored("results", "--where", "scheduler=null", "-o", "null.csv").code == 0
    assert len((home / "null.csv").read_text().splitlines()) == 3
