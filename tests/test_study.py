"""What a study concludes, from rows whose truth is known; and how density is searched."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.axes import AXES
from hvbench.cell import CellResult
from hvbench.density import Search, find
from hvbench.errors import UserError
from hvbench.pressure import _table_pages
from hvbench.store import Row
from hvbench.study import Finding, Point, analyse, cells_of, grid, responses_of, touched_pages, verdict
from hvbench.workload import Workload, load_workload
from tests import fakes

SCHEDULERS = ("a", "b", "c")
MEMORIES = ("x", "y", "z")
STORAGES = ("s", "t")


@pytest.fixture
def point() -> Point:
    return grid([load_workload("build")], [2], [1.3])[0]


def choices(tmp_path: Path) -> dict[str, list[object]]:
    policy = fakes.make_policy(tmp_path)
    levels = {"scheduler": SCHEDULERS, "memory": MEMORIES, "storage": STORAGES}
    return {axis: [fakes.choice(policy, axis, name) for name in levels.get(axis, (axis,))] for axis in AXES}


def rows_of(point: Point, tmp_path: Path, effects: dict[str, float], refused: str = "") -> tuple[list[Row], dict]:
    """Rows in which the choice `name` multiplies the slowdown by `effects[name]`."""
    made = choices(tmp_path)
    fixed = {axis: levels[0] for axis, levels in made.items()}
    rows = []
    for cell in cells_of(point, made, fixed, [1]):
        slowdown = math.prod(effects.get(label, 1.0) for label in cell.labels.values())
        result = CellResult("ok", metrics={"slowdown_geomean": slowdown, "slowdown_worst": slowdown})
        if refused in cell.labels.values():
            result = CellResult("refused", "too little")
        rows.append(Row(cell.key, cell.workload.name, cell.labels, False, 1, 1, 0, result))
    return rows, fixed


def finding(point: Point, tmp_path: Path, effects: dict[str, float], refused: str = "") -> Finding:
    rows, fixed = rows_of(point, tmp_path, effects, refused)
    return analyse(point, rows, fixed)


def test_both_factorials_are_run_once(point: Point, tmp_path: Path) -> None:
    made = choices(tmp_path)
    cells = cells_of(point, made, {axis: levels[0] for axis, levels in made.items()}, [1, 2])
    # 3 x 3 policies on fixed equipment and 2 storages under fixed policies, of which one cell is the same
    assert len(cells) == 2 * (9 + 2 - 1)
    assert len({cell.key for cell in cells}) == len(cells)


def test_memory_that_matters_most_is_found(point: Point, tmp_path: Path) -> None:
    found = finding(point, tmp_path, {"b": 1.05, "y": 1.5, "z": 2.0, "t": 1.2})
    assert found.strongest == "memory"
    assert found.effects["memory"].ratio == pytest.approx(2.0)
    assert (found.effects["memory"].best, found.effects["memory"].worst) == ("x", "z")
    assert found.effects["storage"].ratio == pytest.approx(1.2)
    assert found.shares[("memory",)].share > 0.9
    said = " ".join(verdict([found]))
    assert "memory policy matters most at 1 (cpu 2, memory 1.3)" in said
    assert "at 0 of 1 points some choice of equipment does more" in said


def test_a_scheduler_that_matters_most_is_found(point: Point, tmp_path: Path) -> None:
    found = finding(point, tmp_path, {"b": 1.6, "y": 1.1, "t": 3.0})
    assert found.strongest == "scheduler"
    said = " ".join(verdict([found]))
    assert "the scheduler matters most at 1" in said
    assert "at 1 of 1 points some choice of equipment does more" in said


def test_less_than_a_percent_decides_nothing(point: Point, tmp_path: Path) -> None:
    assert finding(point, tmp_path, {"b": 1.005, "z": 1.009}).strongest == "neither"


def test_refused_choices_reduce_the_design_and_are_counted(point: Point, tmp_path: Path) -> None:
    found = finding(point, tmp_path, {"b": 1.2, "z": 2.0}, refused="y")
    assert found.policies is not None and found.policies.levels["memory"] == ["x", "z"]
    assert (found.policies.cells, found.policy_cells) == (6, 9)
    assert found.statuses["refused"] == 3


def test_a_point_without_cells_is_said_to_be_unmeasured(point: Point, tmp_path: Path) -> None:
    rows, fixed = rows_of(point, tmp_path, {}, refused="das")
    for row in rows:
        row.result.status = "failed"
    assert "too few cells were measured at 1" in " ".join(verdict([analyse(point, rows, fixed)]))


def test_response_times_are_analysed_beside_slowdown(point: Point, tmp_path: Path) -> None:
    """Pacing hides waiting from the rate: a policy may cost nothing in the one and half in the other."""
    rows, fixed = rows_of(point, tmp_path, {})
    for row in rows:
        row.result.metrics["request_latency_p99_ns"] = 150.0 if row.labels["memory"] == "z" else 100.0
    assert responses_of(rows) == ["slowdown_geomean", "request_latency_p99_ns"]
    found = [analyse(point, rows, fixed, response) for response in responses_of(rows)]
    assert [item.strongest for item in found] == ["neither", "memory"]
    assert found[1].effects["memory"].ratio == pytest.approx(1.5)
    said = verdict(found)
    assert any(line.startswith("build: of 1 points, neither makes 1 %") for line in said)
    assert any(line.startswith("build, p99 response time: of 1 points, memory policy matters most") for line in said)


def test_what_is_within_two_buckets_of_a_percentile_decides_nothing(point: Point, tmp_path: Path) -> None:
    rows, fixed = rows_of(point, tmp_path, {})
    for row in rows:
        row.result.metrics["request_latency_p99_ns"] = 104.0 if row.labels["memory"] == "z" else 100.0
    assert analyse(point, rows, fixed, "request_latency_p99_ns").strongest == "neither"


def test_memory_counts_against_what_is_touched_where_that_is_asked(tmp_path: Path) -> None:
    workload = load_workload("build")
    configured, touched = (grid([workload], [1], [1.3], need)[0] for need in (None, {"build": 50_000}))
    assert touched.workload.name == "build@cpu1-touched1.3" and touched.touched and not configured.touched
    room = touched.workload.host.memory_pages * (1 - touched.workload.host.reserve_share)
    room -= touched.workload.host.hypervisor_pages
    tables = _table_pages(workload)
    assert (50_000 + tables) / 1.3 <= room < (50_000 + tables) / 1.3 + 2, "the need over the room is 1.3"
    assert touched.workload.host.memory_pages < configured.workload.host.memory_pages
    assert touched.workload.vms == configured.workload.vms


def test_what_was_not_measured_is_no_need(point: Point, tmp_path: Path) -> None:
    rows, _ = rows_of(point, tmp_path, {}, refused="a")
    with pytest.raises(UserError, match="build: what its VMs touch was not measured: refused, too little"):
        touched_pages(load_workload("build"), next(row for row in rows if row.status == "refused"))


# density -------------------------------------------------------------------------------------------------------


def search(workload: Workload, capacity: int, most: int = 200) -> tuple[Search, list[int]]:
    """A search on a host that carries `capacity` tenants."""
    asked: list[int] = []
    it = Search(workload, {}, 1.5, most)

    def compute(cells: list) -> list[Row]:
        count = len(cells[0].workload.vms)
        asked.append(count)
        worst = 1.0 + 0.5 * count / capacity
        result = CellResult("ok", metrics={"slowdown_worst": worst})
        return [Row("k", "w", {}, False, 1, 1, 0, result) for _ in cells]

    return find(it, range(1, 2), compute), asked


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_search_finds_the_capacity(capacity: int, most: int) -> None:
    found, asked = search(load_workload("build"), capacity, most)
    assert found.fits == min(capacity, most)
    assert len(asked) == len(set(asked)), "nothing is tried twice"
    assert max(asked) <= most
    assert found.breaks == (None if capacity >= most else capacity + 1)


def test_a_refused_cell_ends_the_search_with_its_reason() -> None:
    it = Search(load_workload("build"), {}, 1.5, 8)
    result = CellResult("refused", "static refuses VM b")
    find(it, range(1, 2), lambda cells: [Row("k", "w", {}, False, 1, 1, 0, result)])
    assert it.fits == 0 and it.breaks == 1
    assert it.why[1] == "refused: static refuses VM b"
