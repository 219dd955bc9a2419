"""Every bundled policy passes the kit that everybody's policies are held to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.axes import AXES
from hvbench.plugins import Registry
from hvbench.testing.checks import BAD
from hvbench.testing.kit import check_policy
from hvbench.testing.other import OtherProcess
from hvbench.testing.report import told

ROOT = Path(__file__).resolve().parent.parent.parent
# modules that begin with an underscore are parts that several policies share
FILES = sorted(path for axis in AXES for path in (ROOT / "plugins" / axis).glob("[!_]*.py"))

EXPECTED = {
    "scheduler.credit2": {"work-conserving": "a pCPU idles for 75 us beside a waiting vCPU; not yet known why"},
}
"""What is known to fail, and why as far as it is known: an unexpected pass fails, too."""


@pytest.fixture(scope="module")
def other() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_conforms(path: Path, other: OtherProcess, kernel: object) -> None:
    expected = EXPECTED.get(f"{path.parent.name}.{path.stem}", {})
    report = check_policy(Registry().load_file(path), effort="quick", other=other, expected=expected)
    assert report.whole, report.summary()
    assert report.good, "\n\n".join(told(outcome) for outcome in report.outcomes if outcome.status in BAD)
