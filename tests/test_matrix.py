"""Cells: the product, keys, and study files."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.axes import AXES
from hvbench.cell import Cell, CellResult
from hvbench.errors import UserError
from hvbench.matrix import is_study, load_study, load_workloads, make_cells
from tests import fakes


@given(st.fixed_dictionaries({axis: st.integers(1, 3) for axis in AXES}), st.integers(1, 3))
def test_the_matrix_is_the_product(sizes: dict[str, int], seeds: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        policy = fakes.make_policy(Path(folder))
        workload = fakes.make_workload(Path(folder))
        choices = {
            axis: [fakes.choice(policy, axis, f"{axis}-{i}") for i in range(size)] for axis, size in sizes.items()
        }
        cells = make_cells([workload], choices, range(1, seeds + 1))
        expected = seeds
        for size in sizes.values():
            expected *= size
        assert len(cells) == expected
        assert len({cell.key for cell in cells}) == expected


def test_a_key_follows_everything_that_can_change_the_result(tmp_path: Path) -> None:
    policy = fakes.make_policy(tmp_path)
    workload = fakes.make_workload(tmp_path)
    choices = {axis: fakes.choice(policy, axis, "p") for axis in AXES}
    cell = Cell(workload, choices, 1, 2 * 10**9, 10**9)
    assert cell.key == Cell(fakes.make_workload(tmp_path), dict(choices), 1, 2 * 10**9, 10**9).key
    longer = attrs.evolve(workload, host=attrs.evolve(workload.host, pcpus=3))
    other_source = attrs.evolve(policy, digest="x", axis="host", name="p")
    variants = [
        Cell(workload, choices, 2, 2 * 10**9, 10**9),
        Cell(workload, choices, 1, 3 * 10**9, 10**9),
        Cell(workload, choices, 1, 2 * 10**9, 10**8),
        Cell(longer, choices, 1, 2 * 10**9, 10**9),
        Cell(
            workload,
            {**choices, "memory": fakes.choice(policy, "memory", "p", effect=1)},
            1,
            2 * 10**9,
            10**9,
        ),
        Cell(workload, {**choices, "host": fakes.choice(other_source, "host", "p")}, 1, 2 * 10**9, 10**9),
    ]
    keys = {cell.key, *(variant.key for variant in variants)}
    assert len(keys) == 1 + len(variants)


def test_the_order_of_a_stack_is_part_of_the_key(tmp_path: Path) -> None:
    policy = fakes.make_policy(tmp_path)
    workload = fakes.make_workload(tmp_path)
    a, b = fakes.choice(policy, "memory", "a"), fakes.choice(policy, "memory", "b")
    ab = attrs.evolve(a, policies=a.policies + b.policies)
    ba = attrs.evolve(a, policies=b.policies + a.policies)
    assert Cell(workload, {"memory": ab}, 1, 2, 1).key != Cell(workload, {"memory": ba}, 1, 2, 1).key


def test_results_survive_storage() -> None:
    import numpy as np

    result = CellResult("ok", metrics={"a": np.float64(1.5), "b": np.int64(3)}, vms=[{"name": "x"}], wall_s=0.5)
    assert CellResult.from_json(result.to_json()) == CellResult(
        "ok", metrics={"a": 1.5, "b": 3}, vms=[{"name": "x"}], wall_s=0.5
    )


def test_a_study_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        'format = 1\nworkloads = ["build", "./mine.toml"]\nseeds = 3\n'
        '[axes]\nscheduler = ["all", "./mine.py"]\nmemory = "static,overcommit+balloon"\n'
    )
    study = load_study(path)
    assert study.workloads == ("build", "./mine.toml")
    assert (study.seeds, study.base) == (3, tmp_path)
    assert study.axes == {"scheduler": "all,./mine.py", "memory": "static,overcommit+balloon"}
    assert is_study(path)
    fakes.make_workload(tmp_path)
    assert not is_study(tmp_path / "fake.toml")


def test_a_bad_study_gets_all_errors_at_once(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('format = 2\nworklods = ["x"]\nseeds = 0\n[axes]\nschedler = "all"\nmemory = 3\nhost = []\n')
    with pytest.raises(UserError) as caught:
        load_study(path)
    message = str(caught.value)
    for words in (
        "6 errors",
        "worklods: unknown; did you mean workloads",
        "format: 2",
        "seeds: 0",
        "axes.schedler: no axis; did you mean scheduler",
        "axes.memory: 3 is neither",
        "axes.host: an empty list",
    ):
        assert words in message
    assert "\n" not in message


def test_workload_files_are_relative_to_their_study(tmp_path: Path) -> None:
    fakes.make_workload(tmp_path)
    assert [w.name for w in load_workloads(["./fake.toml"], tmp_path)] == ["fake"]


def test_two_workloads_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    fakes.make_workload(tmp_path)
    fakes.make_workload(tmp_path / "b")
    with pytest.raises(UserError, match="both named fake"):
        load_workloads([str(tmp_path / "fake.toml"), str(tmp_path / "b" / "fake.toml")])
