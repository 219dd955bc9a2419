"""One role for each number, a source and a mark; and the tolerances mean what they say."""

from __future__ import annotations

import importlib
from typing import Any

import attrs
import pytest

from hvbench.errors import HvbenchError
from hvbench.fidelity.numbers import MARKS, Inputs, Number, Tolerance, inputs, load, of_bar, parse, sources
from hvbench.fidelity.registry import BARS

NUMBERS = load()


def entry(**changes: Any) -> dict[str, Any]:
    made = {"id": "x.a", "bar": "X", "what": "a", "value": 2, "source": "S1 table 1", "mark": "F"}
    return made | changes


def test_every_bar_has_targets_and_every_number_a_bar() -> None:
    for name, bar in BARS.items():
        assert of_bar(name, "target"), name
        assert bar.name == name
    assert {n.bar for n in NUMBERS.values()} == set(BARS)


@pytest.mark.parametrize("number", NUMBERS.values(), ids=lambda n: n.id)
def test_a_number_is_complete(number: Number) -> None:
    assert number.id.startswith(f"{number.bar.lower()}.")
    assert number.mark in MARKS
    assert number.source.split()[0] in sources()
    assert (number.role == "target") == (number.tolerance is not None)
    if number.role == "target":
        assert number.held_by == "", "the model holds no target"


@pytest.mark.parametrize("number", [n for n in NUMBERS.values() if n.held_by], ids=lambda n: n.id)
def test_what_the_model_holds_is_what_stands_in_the_file(number: Number) -> None:
    """`module:Class.field` is a parameter whose default is this number."""
    module, _, path = number.held_by.partition(":")
    cls, _, name = path.partition(".")
    default = attrs.fields_dict(getattr(importlib.import_module(module), cls))[name].default
    assert default == number.value


def test_a_second_role_is_refused() -> None:
    raw = {"source": {"S1": "x"}, "input": [entry()], "target": [entry(tolerance={"absolute": 1})]}
    with pytest.raises(HvbenchError, match=r"x\.a is input and target; a number has one role"):
        parse(raw)


@pytest.mark.parametrize(
    ("role", "changes", "message"),
    [
        ("target", {}, "a target has a tolerance"),
        ("input", {"tolerance": {"absolute": 1}}, "an input or calibration has none"),
        ("input", {"mark": "M-high"}, "mark 'M-high'; legal: F, F2, V, D, M, P"),
        ("input", {"source": "hearsay"}, "no source 'hearsay'"),
        ("target", {"tolerance": {"wide": 1}}, "tolerance {'wide': 1}; legal: one of absolute"),
        ("target", {"tolerance": {"between": [3, 4]}}, "does not meet its own tolerance 3 to 4"),
    ],
)
def test_what_is_incomplete_is_refused(role: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HvbenchError, match="x.a: .*" + message.replace("(", r"\(")):
        parse({"source": {"S1": "x"}, role: [entry(**changes)]})


@pytest.mark.parametrize(
    ("tolerance", "inside", "outside", "text"),
    [
        (Tolerance("absolute", (0.5,)), (9.5, 10.5), (9.4, 10.6), "±0.5"),
        (Tolerance("relative", (0.1,)), (9.0, 11.0), (8.9, 11.1), "±10 %"),
        (Tolerance("between", (8, 12)), (8, 12), (7.9, 12.1), "8 to 12"),
        (Tolerance("at_least", (9,)), (9, 1e9), (8.9,), "≥ 9"),
        (Tolerance("at_most", (11,)), (-5, 11), (11.1,), "≤ 11"),
        (Tolerance("factor", (1.25,)), (8, 12.5), (7.9, 12.6), "×/÷ 1.25"),
        (Tolerance("exact"), (10,), (9.999, 10.001), "exact"),
    ],
)
def test_tolerances(tolerance: Tolerance, inside: tuple[float, ...], outside: tuple[float, ...], text: str) -> None:
    assert str(tolerance) == text
    assert all(tolerance.meets(10, value) for value in inside)
    assert not any(tolerance.meets(10, value) for value in outside)
    assert not tolerance.meets(10, float("nan"))


def test_a_scenario_sees_no_target() -> None:
    for name in BARS:
        seen = inputs(name)
        for target in of_bar(name, "target"):
            with pytest.raises(HvbenchError, match="a scenario sees no targets"):
                seen[target]
    with pytest.raises(HvbenchError, match="not a whole number"):
        Inputs("X", {"half": 0.5}).whole("half")
