"""Loading policies: what is accepted, what is refused by name, and that the rest load."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench import plugins
from hvbench.errors import UserError
from hvbench.plugins import Registry, bind_params, changed_params, load_registry
from tests.policies import GOOD, SMALL, write


def load(path: Path) -> plugins.Policy:
    return Registry().load_file(path)


def test_a_file_becomes_a_policy(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "my_turns"))
    assert (policy.name, policy.axis, policy.summary) == ("my-turns", "scheduler", "Fixed slices in turn.")
    assert policy.hooks == ("sched_pick_next",)
    assert policy.from_file and policy.control is None
    assert [(p.name, p.alias, p.unit, p.default) for p in policy.params] == [
        ("timeslice_ns", "timeslice", "ns", 5_000_000),
        ("other", "other", "", 3),
        ("share", "share", "ratio", 0.5),
        ("boost", "boost", "", False),
    ]


def test_a_stated_name_and_axis_are_taken(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "x", SMALL + '\nAXIS = "scheduler"\nNAME = "turns"\nCLAIMS = {"fair"}\n'))
    assert (policy.name, policy.claims) == ("turns", frozenset({"fair"}))
    assert policy.honours == frozenset()


def test_what_a_scheduler_honours_is_taken(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "x", SMALL + '\nHONOURS = {"cap", "weight"}\n'))
    assert policy.honours == frozenset({"weight", "cap"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            SMALL.replace("def sched_wake", "def sched_woke"),
            "unknown hook sched_woke; did you mean sched_wake",
        ),
        (SMALL.replace("vcpu, now", "vcpu, time"), "unknown argument 'time'; it may have host, vcpu, now"),
        (SMALL.replace("@hookimpl\n", ""), "sched_wake is not marked with @hookimpl"),
        (
            SMALL + "\ndef sched_wke(host):\n    pass\n",
            "sched_wke is named like a hook, but is none; did you mean",
        ),
        (SMALL + "\ndef mem_nothing(host):\n    pass\n", "mem_nothing is named like a hook"),
        (SMALL + '\nHONOURS = {"weigth"}\n', "HONOURS has 'weigth', which no [[vm]] can set; legal: weight, cap"),
        (SMALL + '\nHONOURS = "weight"\n', "HONOURS = 'weight' is no set of names"),
        (
            'from hvbench.policy import hookimpl\nHONOURS = {"cap"}\n\n@hookimpl\ndef blk_init(host, now):\n    pass\n',
            "HONOURS is for schedulers and memory policies; this is a policy of the axis storage",
        ),
        ("x = 1\n", "registered nothing"),
        (SMALL + '\nAXIS = "speed"\n', "AXIS = 'speed' is no axis; legal: scheduler"),
        (SMALL + '\nAXIS = "memory"\n', "AXIS is 'memory', but it has hooks of the axis scheduler"),
        ("def f(:\n", "does not import: SyntaxError"),
        (
            "x = 1\n\nimport nonsense_module\n",
            "ModuleNotFoundError: No module named 'nonsense_module' (line 3)",
        ),
        ("raise SystemExit(3)\n", "does not import: SystemExit: 3 (line 1)"),
        (SMALL + "\nclass Params:\n    pass\n", "Params is not an attrs class"),
        (GOOD.replace("other: int", "other: str"), "Params.other: annotate it as int, float or bool"),
        (
            GOOD.replace('param(3, help="a count")', "attrs.field(kw_only=True)"),
            "Params.other: has no default",
        ),
        (
            GOOD.replace('param(3, help="a count")', 'param(0.01, unit="ns", help="s")'),
            "Params.other: its default 0.01 ns is no int, as it is annotated; a part of a unit needs a smaller unit",
        ),
        (
            GOOD.replace('param(3, help="a count")', 'param(5, unit="ns", low=1000, help="ms")'),
            "Params.other: its default 5 ns is below its own low, 1000; is it in another unit?",
        ),
        (
            GOOD.replace('param(3, help="a count")', 'param(5_000, unit="percent", high=100, help="x")'),
            "Params.other: its default 5000 percent is above its own high, 100; is it in another unit?",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "bad", text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such policy file"):
        load(tmp_path / "gone.py")


def test_two_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    registry = Registry()
    first = registry.load_file(write(tmp_path / "a", "mine"))
    second = registry.load_file(write(tmp_path / "b", "mine", SMALL))
    assert first.module is not second.module
    assert first.name == "mine"
    assert second.name == str(tmp_path / "b" / "mine.py")
    assert registry.load_file(tmp_path / "a" / "mine.py") is first


def test_the_digest_follows_the_source(tmp_path: Path) -> None:
    before = load(write(tmp_path, "mine")).digest
    assert load(write(tmp_path, "mine")).digest == before
    assert load(write(tmp_path, "mine", GOOD + "\n")).digest != before


class _Dist:
    name, version = "other-dist", "1.0"


def _point(name: str, module: str) -> EntryPoint:
    point = EntryPoint(name=name, value=module, group="hvbench")
    vars(point)["dist"] = _Dist()
    return point


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    write(tmp_path, "pol_zeta", SMALL)
    write(tmp_path, "pol_good")
    write(tmp_path, "pol_broken", "import nonsense_module\n")
    write(tmp_path, "pol_misspelt", SMALL.replace("sched_wake", "sched_woke"))
    write(tmp_path, "pol_again", SMALL + '\nNAME = "pol-good"\n')
    write(tmp_path, "pol_coarse", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [
        _point("scheduler.zeta", "pol_zeta"),
        _point("scheduler.good", "pol_good"),
        _point("scheduler.broken", "pol_broken"),
        _point("scheduler.misspelt", "pol_misspelt"),
        _point("scheduler.second", "pol_again"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    monkeypatch.delenv("HVBENCH_LOAD_PLUGINS", raising=False)
    yield found
    for name in [name for name in sys.modules if name.startswith("pol_")]:
        del sys.modules[name]


def test_broken_plugins_are_named_and_the_rest_load(points: list[EntryPoint]) -> None:
    registry = load_registry()
    assert [p.name for p in registry.axis("scheduler")] == ["pol-good", "pol-zeta"]
    failed = dict(registry.failed)
    assert set(failed) == {
        "other-dist 1.0, entry point scheduler.broken",
        "other-dist 1.0, entry point scheduler.misspelt",
        "other-dist 1.0, entry point scheduler.second",
    }
    assert "nonsense_module" in failed["other-dist 1.0, entry point scheduler.broken"]
    assert "did you mean sched_wake" in failed["other-dist 1.0, entry point scheduler.misspelt"]
    assert "is already there" in failed["other-dist 1.0, entry point scheduler.second"]


def test_strict_raises_the_first_error(points: list[EntryPoint]) -> None:
    with pytest.raises(UserError, match=r"scheduler\.broken"):
        load_registry(strict=True)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [("scheduler.zeta", ["pol-zeta"]), ("other-dist", ["pol-good", "pol-zeta"]), ("", []), ("none", [])],
)
def test_the_environment_restricts_what_loads(
    points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, wanted: str, names: list[str]
) -> None:
    monkeypatch.setenv("HVBENCH_LOAD_PLUGINS", wanted)
    assert [p.name for p in load_registry().axis("scheduler")] == names


def test_an_unknown_name_gets_the_nearest_or_the_reason(points: list[EntryPoint]) -> None:
    registry = load_registry()
    with pytest.raises(UserError, match=r"no scheduler policy 'pol-godo'; did you mean pol-good"):
        registry.get("scheduler", "pol-godo")
    with pytest.raises(UserError, match=r"did not load: .*nonsense_module"):
        registry.get("scheduler", "broken")
    with pytest.raises(UserError, match="policy of the axis scheduler, not memory"):
        registry.get("memory", "pol-good")


def test_parameters_are_set_with_units(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "mine"))
    params = bind_params(policy, {"timeslice": "30us", "share": "25%", "boost": "on"})
    assert (params.timeslice_ns, params.other, params.share, params.boost) == (30_000, 3, 0.25, True)
    assert bind_params(policy, {"timeslice_ns": "7"}).timeslice_ns == 7
    assert changed_params(policy, params) == {"timeslice": "30us", "share": "0.25", "boost": "true"}
    assert changed_params(policy, bind_params(policy, {})) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"timeslce": "5ms"},
            "no parameter 'timeslce'; did you mean timeslice?; it has timeslice (ns, default 5ms)",
        ),
        ({"timeslice": "5parsecs"}, "timeslice: '5parsecs' has the unknown unit"),
        ({"timeslice": "5"}, "timeslice: 5 has no unit; write 5ms, 5us or 5ns"),
        ({"timeslice": "0"}, "below the least legal value, 1ns"),
        ({"timeslice": "2h"}, "above the greatest legal value"),
        ({"timeslice": "1ms", "timeslice_ns": "5"}, "timeslice is set twice"),
        ({"other": "1.5"}, "'1.5' is not a whole number"),
        ({"boost": "maybe"}, "neither true nor false"),
    ],
)
def test_a_bad_parameter_says_what_exists(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    policy = load(write(tmp_path, "mine"))
    with pytest.raises(UserError) as caught:
        bind_params(policy, settings)
    assert words in str(caught.value)
    assert "scheduler mine" in str(caught.value)


def test_a_policy_without_parameters_says_so(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "mine", SMALL))
    assert bind_params(policy, {}) is None
    with pytest.raises(UserError, match="it has no parameters"):
        bind_params(policy, {"x": "1"})


@given(st.integers(1, 10**12), st.integers(0, 2**50), st.floats(0, 1, allow_nan=False), st.booleans())
def test_changed_parameters_parse_back(timeslice: int, other: int, share: float, boost: bool) -> None:
    policy = load(_hypothesis_file())
    params = policy.params_class(timeslice, other, share, boost)  # type: ignore[misc]
    assert bind_params(policy, changed_params(policy, params)) == params


def _hypothesis_file() -> Path:
    import tempfile

    return write(Path(tempfile.gettempdir()), f"hvbench_test_policy_{__import__('os').getpid()}")


def test_finding_plugins_does_not_import_numba() -> None:
    code = "import sys, hvbench.plugins as p; p.load_registry(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TWINS = GOOD.replace(
    'other: int = param(3, help="a count")',
    'sample_ns: int = param(30, unit="ns", help="how long")\n'
    '    sample_pages: int = param(100, unit="page_count", help="how many")\n'
    '    limit_ns: int = param(9, unit="ns", help="a limit")\n'
    '    limit: int = param(2, help="another")',
)


def test_parameters_that_would_share_a_name_keep_their_units(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "twins", TWINS))
    assert [p.alias for p in policy.params][1:5] == ["sample_ns", "sample_pages", "limit_ns", "limit"]
    params = bind_params(policy, {"sample_ns": "5s", "sample_pages": "7", "limit": "4"})
    assert (params.sample_ns, params.sample_pages, params.limit_ns, params.limit) == (5_000_000_000, 7, 9, 4)
    written = changed_params(policy, params)
    assert written == {"sample_ns": "5s", "sample_pages": "7pages", "limit": "4"}
    assert bind_params(policy, written) == params


def test_a_short_name_of_two_parameters_is_refused_by_naming_both(tmp_path: Path) -> None:
    policy = load(write(tmp_path, "twins", TWINS))
    with pytest.raises(UserError) as caught:
        bind_params(policy, {"sample": "5s"})
    assert str(caught.value).endswith("'sample' may be sample_ns or sample_pages; write the whole name")


def test_no_bundled_policy_has_two_parameters_of_one_name() -> None:
    for policy in load_registry().policies.values():
        names = [p.alias for p in policy.params]
        assert len(set(names)) == len(names), policy.name
    idle_tax = load_registry().get("memory", "idle-tax")
    with pytest.raises(UserError, match="'sample' may be sample_pages or sample_ns"):
        bind_params(idle_tax, {"sample": "5s"})
    assert idle_tax.param("sample_pages").format(100) == "100pages"
