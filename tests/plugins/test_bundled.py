"""A walk over the bundled policies: declared, documented, with sources; and over the bundled workloads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS
from hvbench.plugins import Policy, Registry
from hvbench.units import is_known_unit

ROOT = Path(__file__).resolve().parent.parent.parent
# modules that begin with an underscore are parts that several policies share
FILES = sorted(path for axis in AXES for path in (ROOT / "plugins" / axis).glob("[!_]*.py"))
UNITS = ("", "cycles", "entries", "requests", "frames", "1/s")
"""Units of parameters that are plain counts, beside those that can be written with a suffix."""


def name_of(path: Path) -> str:
    return f"{path.parent.name}.{path.stem}"


@pytest.fixture(params=FILES, ids=name_of)
def policy(request: pytest.FixtureRequest) -> Policy:
    return Registry().load_file(request.param)


def test_every_policy_file_is_an_entry_point_and_every_entry_point_a_file() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["hvbench"]
    expected = {}
    for path in FILES:
        policy = Registry().load_file(path)
        expected[f"{policy.axis}.{policy.name}"] = f"hvbench_plugins.{path.parent.name}.{path.stem}"
    formats = ROOT / "hvbench" / "traces" / "importers"
    for path in formats.glob("*.py"):
        if "def hvbench_import_format" in path.read_text():
            expected[f"import.{path.stem.replace('_', '-')}"] = f"hvbench.traces.importers.{path.stem}"
    assert declared == expected


def test_a_policy_is_of_its_folders_axis(policy: Policy) -> None:
    assert policy.path is not None
    assert policy.axis == policy.path.parent.name
    assert policy.name == policy.name.lower().replace("_", "-")


def test_a_policy_is_documented(policy: Policy) -> None:
    assert policy.summary.endswith(".") and len(policy.summary) < 120
    for heading in ("Overview", "Source", "Claims", "Not modelled"):
        assert f"\n{heading}:" in policy.doc, heading


def test_every_parameter_has_a_meaning_a_unit_and_a_source(policy: Policy) -> None:
    for info in policy.params:
        assert info.help, info.name
        assert info.source, info.name
        assert info.unit in UNITS or is_known_unit(info.unit), (info.name, info.unit)
        assert info.parse(info.format(info.default)) == info.default


def test_a_control_names_where_it_is_worst(policy: Policy) -> None:
    if policy.control is None:
        return
    assert policy.control.why
    assert set(policy.control.worst_on.values()) <= set(CELL_METRICS)
    bundled = {path.stem for path in (ROOT / "workloads").glob("*.toml")}
    if not bundled:
        pytest.skip("no workload is bundled")
    assert policy.control.worst_on and set(policy.control.worst_on) <= bundled


def test_there_is_one_control_on_each_decision_axis_that_has_policies() -> None:
    for axis in AXES[:4]:
        loaded = [Registry().load_file(path) for path in FILES if path.parent.name == axis]
        if loaded:
            assert sum(policy.control is not None for policy in loaded) == 1, axis


def test_an_unknown_parameter_of_any_policy_is_explained(policy: Policy) -> None:
    with pytest.raises(UserError, match="no parameter 'nonsense'"):
        policy.param("nonsense")
