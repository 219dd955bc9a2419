"""The kit as pytest's tests: one line in the author's project, one test item for each check.

    from hvbench.testing import conformance

    test_my_policy = conformance("my_policy.py")

The policy is checked once a session, in a process of its own, when its first item runs; each item then reports its own
check. `expected_failures` maps a check that is known to fail to the reason why: its item is an xfail, and fails when
the check passes. A check of something that is not claimed is skipped with what was found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hvbench.testing.checks import Outcome, Status
from hvbench.testing.kit import Report

_reports: dict[tuple[Any, ...], Report] = {}
ACCOUNT = "every-check-accounted-for"
"""The item that fails where the kit itself has lost a check."""


def conformance(
    policy: str | Path,
    axis: str | None = None,
    *,
    effort: str = "quick",
    expected_failures: Mapping[str, str] | None = None,
    limit_s: float = 10.0,
) -> Callable[[str], None]:
    """A test function, parametrized by the ids of the checks that the policy's axis has.

    `policy` is a file (relative to the file that calls this), `axis.name`, or the name of an installed policy. A policy
    that does not load fails at collection, with the error that `hvbench check` prints.
    """
    import pytest

    from hvbench.testing.kit import find_policies, known_checks, selection

    expected = dict(expected_failures or {})
    name = _located(str(policy))
    found = find_policies(name, axis)[0]
    selection(found.axis, expected)
    key = (name, axis, effort, tuple(sorted(expected.items())), limit_s)
    ids = [c.id for c in known_checks(found.axis)]

    @pytest.mark.parametrize("check", [*ids, ACCOUNT])
    def conforms(check: str) -> None:
        report = _report(key, expected)
        if check == ACCOUNT:
            assert report.whole, report.summary()
            return
        outcome = next((o for o in report.outcomes if o.check == check), None)
        if outcome is None:
            pytest.fail(f"the kit made no check {check!r}: {report.summary()}", pytrace=False)
        _show(outcome)

    return conforms


def _located(policy: str) -> str:
    """A file relative to the file of the test; anything else as it is."""
    if not (policy.endswith(".py") or "/" in policy):
        return policy
    frame = inspect.stack()[2]
    beside = Path(frame.filename).parent / policy
    return str(beside if beside.exists() else Path(policy).resolve())


def _report(key: tuple[Any, ...], expected: Mapping[str, str]) -> Report:
    if key not in _reports:
        from hvbench.testing.isolation import check_apart

        name, axis, effort, _, limit_s = key
        _reports[key] = check_apart(name, axis, effort=effort, expected=expected, limit_s=limit_s)[0]
    return _reports[key]


def _show(outcome: Outcome) -> None:
    import pytest

    from hvbench.testing.report import told

    if outcome.status in (Status.FAIL, Status.ERROR, Status.UNEXPECTED_PASS):
        pytest.fail(told(outcome), pytrace=False)
    elif outcome.status is Status.EXPECTED_FAILURE:
        pytest.xfail(outcome.detail)
    elif outcome.status in (Status.NOT_CLAIMED, Status.NOT_APPLICABLE):
        pytest.skip(f"{outcome.status.value}: {outcome.detail}")


def summaries() -> list[str]:
    """The account of every policy that was checked in this session."""
    return [report.summary() for report in _reports.values()]
