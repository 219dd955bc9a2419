"""One line in an author's project gives the kit as pytest's tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hvbench.testing.kit import known_checks

POLICY = '''
"""A scheduler that does what it says, and one thing that it should not."""

from attrs import frozen

from hvbench.policy import hookimpl, param, runq_first

CLAIMS = frozenset({"work-conserving"})


@frozen
class Params:
    """One that counts and one that does not."""

    slice_ns: int = param(1_000_000, unit="ns", low=1, help="slice", source="here")
    ignored: int = param(3, help="nothing", source="here")


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return runq_first(host), host.params.slice_ns
'''


def run_pytest(folder: Path, test: str) -> subprocess.CompletedProcess[str]:
    (folder / "my_policy.py").write_text(POLICY)
    (folder / "test_mine.py").write_text(f"from hvbench.testing import conformance\n\n{test}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rxs", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=dict(os.environ), timeout=300)


def test_each_check_is_an_item_and_the_account_is_printed(tmp_path: Path, kernel: object) -> None:
    ran = run_pytest(tmp_path, 'test_mine = conformance("my_policy.py", expected_failures={"weights": "not claimed"})')
    assert ran.returncode == 1, ran.stdout
    assert "1 failed" in ran.stdout and "test_mine[parameters-used]" in ran.stdout
    assert "declared but ignored: ignored" in ran.stdout
    assert "hvbench conformance" in ran.stdout
    assert f"scheduler my-policy: {len(known_checks('scheduler'))} checks known, " in ran.stdout


def test_an_expected_failure_is_an_xfail(tmp_path: Path, kernel: object) -> None:
    line = 'test_mine = conformance("my_policy.py", expected_failures={"parameters-used": "kept for later"})'
    ran = run_pytest(tmp_path, line)
    assert ran.returncode == 0, ran.stdout
    assert "1 xfailed" in ran.stdout and "kept for later" in ran.stdout
