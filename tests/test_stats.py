"""The analysis of a factorial, against hand-computed designs and brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hvbench import stats
from hvbench.axes import AXES
from hvbench.cell import CellResult
from hvbench.store import Row


def make_row(value: float | None, status: str = "ok", seed: int = 1, control: bool = False, **labels: str) -> Row:
    all_labels = {axis: labels.get(axis, "x") for axis in AXES}
    metrics: dict[str, float | int] = {} if value is None else {"slowdown_geomean": value}
    result = CellResult(
        status,
        metrics=metrics,
        axis_asks=dict.fromkeys(AXES, 1),
        axis_digest={axis: all_labels[axis] for axis in AXES},
    )
    return Row(f"{all_labels}{seed}", "w", all_labels, control, seed, 10, 5, result)


def factorial(effects: dict[str, list[float]], seeds: int = 1) -> list[Row]:
    """Rows whose slowdown is the product of one effect an axis."""
    axes = list(effects)
    return [
        make_row(
            math.prod(effects[axis][i] for axis, i in zip(axes, index, strict=True)),
            seed=seed,
            **{axis: f"{axis[:2]}{i}" for axis, i in zip(axes, index, strict=True)},
        )
        for index in itertools.product(*(range(len(effects[axis])) for axis in axes))
        for seed in range(1, seeds + 1)
    ]


def test_geometric_mean() -> None:
    assert stats.geometric_mean([1, 4]) == pytest.approx(2)
    assert stats.geometric_mean([1, math.inf]) == math.inf
    assert math.isnan(stats.geometric_mean([]))


def test_shares_equal_a_hand_computed_analysis_of_variance() -> None:
    # Two axes of 2 and 3 levels, two seeds. Cell means 1 2 3 / 3 4 8, each seed 0.5 off: grand mean 3.5.
    means = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    response = np.stack([means - 0.5, means + 0.5], axis=-1)
    # Rows: means 2 and 5, 6 values each: 2 * 6 * 1.5**2 = 27. Columns: 2, 3, 5.5, 4 values each:
    # 4 * (1.5**2 + 0.5**2 + 2**2) = 26. Cells: 2 * (6.25+2.25+.25+.25+.25+20.25) = 59: 6 for the interaction.
    # Within: 12 * 0.25 = 3. In all 62.
    shares = stats.variance_shares(response, ["scheduler", "memory"])
    assert shares == pytest.approx(
        {("scheduler",): 27 / 62, ("memory",): 26 / 62, ("scheduler", "memory"): 6 / 62, stats.SEEDS: 3 / 62}
    )


def test_an_axis_that_does_nothing_explains_nothing() -> None:
    design = stats.build_design(factorial({"scheduler": [1, 2, 5], "memory": [1, 1], "host": [1, 3]}))
    assert design is not None
    shares = stats.variance_shares(design.over(["scheduler", "memory"]).response, ["scheduler", "memory"])
    assert shares is not None
    assert shares["scheduler",] == pytest.approx(1)
    assert shares["memory",] == pytest.approx(0, abs=1e-12)


def test_equal_values_have_no_shares() -> None:
    assert stats.variance_shares(np.full((2, 3, 1), 0.7), ["scheduler", "memory"]) is None


@given(
    npst.arrays(
        float,
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
        elements=st.floats(-5, 5, width=32),
    )
)
def test_shares_sum_to_one_and_are_not_negative(response: Any) -> None:
    shares = stats.variance_shares(response, ["scheduler", "memory", "host"])
    if shares is not None:
        assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
        assert all(share >= -1e-9 for share in shares.values())


@given(npst.arrays(float, (3, 2, 4, 2), elements=st.floats(-3, 3, width=32)), st.floats(-9, 9), st.floats(0.1, 9))
def test_shares_do_not_depend_on_unit_or_scale(response: Any, shift: float, factor: float) -> None:
    axes = ["scheduler", "memory", "host"]
    first, second = (
        stats.variance_shares(response, axes),
        stats.variance_shares(response * factor + shift, axes),
    )
    if first is not None and second is not None and response.std() > 1e-3:
        assert second == pytest.approx(first, abs=1e-6)


@settings(deadline=None)
@given(npst.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))))
def test_the_sub_factorial_is_complete_and_the_largest(present: Any) -> None:
    kept = stats.complete_subfactorial(present)
    size = math.prod(map(len, kept))
    if size:
        assert present[np.ix_(*kept)].all()
    subsets = [[list(c) for r in range(1, n + 1) for c in itertools.combinations(range(n), r)] for n in present.shape]
    best = max(
        (math.prod(map(len, levels)) for levels in itertools.product(*subsets) if present[np.ix_(*levels)].all()),
        default=0,
    )
    assert size == best


def test_refused_levels_are_dropped_and_named() -> None:
    rows = factorial({"scheduler": [1, 2], "memory": [1, 2, 3]})
    rows = [
        make_row(None, "refused", **{a: r.labels[a] for a in AXES}) if r.labels["memory"] == "me0" else r for r in rows
    ]
    design = stats.build_design(rows)
    assert design is not None
    assert design.levels["memory"] == ["me1", "me2"]
    assert design.dropped == {"memory": ["me0"]}
    assert design.cells == 4


def test_controls_and_the_native_baseline_do_not_compete() -> None:
    rows = factorial({"technique": [1, 2], "scheduler": [1, 2]})
    native = [make_row(0.9, technique="native", scheduler=f"sc{i}") for i in range(2)]
    control = [make_row(99, technique=f"te{i}", scheduler="bad", control=True) for i in range(2)]
    design = stats.build_design([*rows, *native, *control])
    assert design is not None
    assert design.levels["technique"] == ["te0", "te1"]
    assert design.levels["scheduler"] == ["sc0", "sc1"]
    assert design.dropped == {}


def test_nothing_measured_has_no_design() -> None:
    assert stats.build_design([make_row(None, "failed"), make_row(None, "refused", scheduler="y")]) is None


def test_policies_and_equipment_are_analysed_apart() -> None:
    design = stats.build_design(factorial({"scheduler": [1, 4], "memory": [1, 2], "storage": [1, 9], "host": [1, 2]}))
    assert design is not None
    found = stats.analyses(design)
    assert {name: part.axes for name, part in found.items()} == {
        "policies": ["scheduler", "memory"],
        "equipment": ["storage", "switch", "technique", "host"],
    }
    shares = {share.effect: share.share for share in stats.shares_with_ranges(found["policies"])}
    # Only log 4 against log 2 is left when the equipment is averaged: squares as 4 to 1.
    assert shares["scheduler",] == pytest.approx(0.8)
    assert shares["memory",] == pytest.approx(0.2)


def test_ranges_come_from_leaving_one_level_out() -> None:
    design = stats.build_design(factorial({"scheduler": [1, 1, 8], "memory": [1, 2]}))
    assert design is not None
    ranges = {s.effect: s for s in stats.shares_with_ranges(stats.analyses(design)["policies"])}
    scheduler = ranges["scheduler",]
    # Without the level 8 the scheduler explains nothing; without one of the others it is log 8 against log 2.
    assert scheduler.low == pytest.approx(0, abs=1e-12)
    assert scheduler.high == pytest.approx(9 / 10)
    assert scheduler.low <= scheduler.share <= scheduler.high


def test_choice_means_are_geometric_and_best_first() -> None:
    design = stats.build_design(factorial({"scheduler": [2, 1], "memory": [1, 4]}))
    assert design is not None
    means = stats.choice_means(design, "scheduler")
    assert [(m.choice, round(m.mean, 9), round(m.ratio, 9), m.cells) for m in means] == [
        ("sc1", 2.0, 1.0, 2),
        ("sc0", 4.0, 2.0, 2),
    ]


def test_differences_are_held_against_their_spread_over_seeds() -> None:
    values = {("a", 1): 1.0, ("a", 2): 1.2, ("b", 1): 1.1, ("b", 2): 1.15, ("c", 1): 2.0, ("c", 2): 2.4}
    rows = [make_row(value, seed=seed, scheduler=name) for (name, seed), value in values.items()]
    design = stats.build_design(rows)
    assert design is not None
    pairs = [(a, b) for a, b, _, _ in stats.within_seed_spread(design, "scheduler")]
    assert pairs == [("a", "b")]
    single = stats.build_design([row for row in rows if row.seed == 1])
    assert single is not None and stats.within_seed_spread(single, "scheduler") == []


def test_identical_decisions_are_grouped_and_silent_axes_told_apart() -> None:
    rows = factorial({"scheduler": [1, 2, 3], "memory": [1, 2]})
    for row in rows:
        row.result.axis_digest["scheduler"] = "same" if row.labels["scheduler"] != "sc2" else "other"
        row.result.axis_asks["storage"] = 0
    assert stats.identical_groups(rows, "scheduler") == [["sc0", "sc1"]]
    assert stats.identical_groups(rows, "memory") == []
    assert stats.identical_groups(rows, "storage") == []
    assert stats.never_asked(rows, "storage") == ["x"]
    assert stats.never_asked(rows, "scheduler") == []


def test_one_differing_cell_makes_decisions_differ() -> None:
    rows = factorial({"scheduler": [1, 2], "memory": [1, 2]})
    for row in rows:
        row.result.axis_digest["scheduler"] = "same"
    rows[0].result.axis_digest["scheduler"] = "once different"
    assert stats.identical_groups(rows, "scheduler") == []
