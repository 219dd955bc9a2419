"""Every bundled policy passes the kit that everybody's policies are held to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.axes import AXES
from hvbench.plugins import load_registry
from hvbench.testing.checks import BAD
from hvbench.testing.kit import check_policy
from hvbench.testing.other import OtherProcess
from hvbench.testing.report import told

ROOT = Path(__file__).resolve().parent.parent.parent
# by their names, not their files: so they share compiled code with the rest of the tests
BUNDLED = [policy for policy in load_registry().policies.values() if policy.origin.startswith("bundled ")]

EXPECTED: dict[str, dict[str, str]] = {}
"""What is known to fail (policy -> check -> the reason why): an unexpected pass fails, too."""


@pytest.fixture(scope="module")
def other() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.close()


def test_none_is_left_out() -> None:
    # modules that begin with an underscore are parts that several policies share
    files = {path.resolve() for axis in AXES for path in (ROOT / "plugins" / axis).glob("[!_]*.py")}
    assert {Path(str(policy.module.__file__)).resolve() for policy in BUNDLED} == files


@pytest.mark.parametrize("name", sorted(f"{policy.axis}.{policy.name}" for policy in BUNDLED))
def test_conforms(name: str, other: OtherProcess, kernel: object) -> None:
    policy = next(p for p in BUNDLED if f"{p.axis}.{p.name}" == name)
    report = check_policy(policy, effort="quick", other=other, expected=EXPECTED.get(name, {}))
    assert report.whole, report.summary()
    assert report.good, "\n\n".join(told(outcome) for outcome in report.outcomes if outcome.status in BAD)
