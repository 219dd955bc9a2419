"""The grammar of choices: separators, stacks, parameters, sweeps, files, and what bad text gets."""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.choices import parse_choice, parse_choices
from hvbench.errors import UserError
from hvbench.plugins import Registry
from tests.policies import GOOD, SMALL, write


def make_registry(folder: Path) -> Registry:
    """A registry of `credit`, `null`, `bad` (a control) on the scheduler axis and three memory policies."""
    registry = Registry()
    control = SMALL + "\nfrom hvbench.policy import Control\nCONTROL = Control({'build': 'x'}, why='test')\n"
    for name, text in {"credit": GOOD, "null": SMALL, "bad": control}.items():
        registry.load_file(write(folder, name, text))
    registry.files.clear()
    for key, policy in list(registry.policies.items()):
        registry.policies[key] = attrs.evolve(policy, path=None)
    credit = registry.get("scheduler", "credit")
    for name in ("static", "balloon", "overcommit"):
        registry.policies["memory", name] = attrs.evolve(credit, axis="memory", name=name)
    return registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    folder = tmp_path / "installed"
    folder.mkdir()
    return make_registry(folder)


def labels(registry: Registry, text: str, axis: str = "scheduler", base: Path = Path()) -> list[str]:
    return [choice.label for choice in parse_choices(axis, text, registry, base)]


def test_commas_separate_and_parameters_are_set(registry: Registry) -> None:
    assert labels(registry, "credit, null,credit:timeslice=7ms:other=4") == [
        "credit",
        "null",
        "credit:timeslice=7ms:other=4",
    ]


def test_a_default_written_out_is_the_same_choice(registry: Registry) -> None:
    assert labels(registry, "credit,credit:timeslice=5ms,credit:timeslice_ns=5000000") == ["credit"]


def test_sweeps_multiply(registry: Registry) -> None:
    assert labels(registry, "credit:timeslice={1,5,30}ms") == [
        "credit:timeslice=1ms",
        "credit",
        "credit:timeslice=30ms",
    ]
    assert len(labels(registry, "credit:timeslice={1,2}ms:other={7,8,9},null")) == 7


def test_all_is_everything_but_controls(registry: Registry) -> None:
    assert labels(registry, "all") == ["credit", "null"]
    assert labels(registry, "all,bad") == ["credit", "null", "bad"]
    assert [c.is_control for c in parse_choices("scheduler", "all,bad", registry)] == [False, False, True]


def test_files_are_choices_and_not_part_of_all(registry: Registry, tmp_path: Path) -> None:
    write(tmp_path, "mine")
    assert labels(registry, "all,./mine.py:timeslice=1ms", base=tmp_path) == [
        "credit",
        "null",
        "mine:timeslice=1ms",
    ]
    choice = parse_choice("scheduler", str(tmp_path / "mine.py"), registry)
    assert choice.from_file and choice.label == "mine"


def test_memory_policies_stack_in_order(registry: Registry) -> None:
    assert labels(registry, "overcommit+balloon:other={3,4},balloon+overcommit", "memory") == [
        "overcommit+balloon",
        "overcommit+balloon:other=4",
        "balloon+overcommit",
    ]
    with pytest.raises(UserError, match="has balloon twice"):
        parse_choices("memory", "balloon+balloon:other=4", registry)
    with pytest.raises(UserError, match="9 layers; 8 at most"):
        parse_choices("memory", "+".join(["balloon"] * 9), registry)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("credti", "no scheduler policy 'credti'; did you mean credit"),
        ("credit:timeslce=5ms", "no parameter 'timeslce'; did you mean timeslice"),
        ("credit:timeslice", "'timeslice' is not of the form parameter=value"),
        ("credit:timeslice=1ms:timeslice=2ms", "timeslice is set twice"),
        ("credit,,null", "something is missing beside ','"),
        ("", "something is missing"),
        ("credit+null", "only memory policies stack"),
        ("all:timeslice=5ms", "'all' stands alone"),
        ("credit:timeslice={1,2ms", "braces do not match"),
        ("credit:timeslice={1,,2}ms", "an empty value in the sweep"),
        ("credit:timeslice={1,2}{3,4}ms", "one pair of braces"),
        ("./gone.py", "no such policy file"),
        ("static", "policy of the axis memory, not scheduler"),
    ],
)
def test_bad_text_is_explained(registry: Registry, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_choices("scheduler", text, registry)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_choice_is_asked_for_where_one_is_needed(registry: Registry) -> None:
    with pytest.raises(UserError, match="lists 2 choices; one is needed"):
        parse_choice("scheduler", "credit,null", registry)


@given(
    st.lists(st.integers(1, 999), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(4, 99), min_size=1, max_size=4, unique=True),
    st.booleans(),
)
def test_the_size_of_a_sweep_is_the_product(slices: list[int], others: list[int], null: bool) -> None:
    registry = _shared_registry()
    text = f"credit:timeslice={{{','.join(map(str, slices))}}}us:other={{{','.join(map(str, others))}}}"
    choices = parse_choices("scheduler", text + ",null" * null, registry)
    assert len(choices) == len(slices) * len(others) + null
    pairs = {(c.policies[0][1].timeslice_ns, c.policies[0][1].other) for c in choices[: len(choices) - null]}
    assert pairs == {(s * 1000, o) for s, o in itertools.product(slices, others)}


@given(st.integers(1, 10**12), st.integers(0, 10**6))
def test_a_label_chooses_the_same_again(timeslice_ns: int, other: int) -> None:
    registry = _shared_registry()
    first = parse_choice("scheduler", f"credit:timeslice={timeslice_ns}ns:other={other}", registry)
    again = parse_choice("scheduler", first.label, registry)
    assert again.label == first.label
    assert again.canonical() == first.canonical()


_REGISTRIES: list[Registry] = []


def _shared_registry() -> Registry:
    if not _REGISTRIES:
        import tempfile

        _REGISTRIES.append(make_registry(Path(tempfile.mkdtemp(prefix="hvbench-test-"))))
    return _REGISTRIES[0]


@pytest.mark.parametrize(
    ("axis", "text", "said"),
    [
        ("scheduler", "credit:timeslice=5MiB", "timeslice: '5MiB' has the unknown unit 'MiB'; write it like 5ms"),
        ("memory", "overcommit:ratio=5ms", "overcommit: ratio: '5ms' has the unknown unit 'ms'; write it like 75%"),
        ("memory", "balloon:high=5ms", "balloon: high: '5ms' has the unknown unit 'ms'; write it like 500ppm, 0.05%"),
        ("scheduler", "round-robin:timeslice=-1ms", "timeslice: '-1ms' is below the least legal value, 1ns"),
    ],
)
def test_a_parameter_of_the_wrong_unit(axis: str, text: str, said: str) -> None:
    from hvbench.plugins import load_registry

    with pytest.raises(UserError) as error:
        parse_choice(axis, text, load_registry())
    assert said in str(error.value)
