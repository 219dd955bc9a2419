"""The conformance kit: what every policy of an axis must do, and what it may claim to do, checked.

`hvbench check` runs it on the command line; in a policy's own project one line gives its checks as pytest's tests:

    from hvbench.testing import conformance

    test_my_policy = conformance("my_policy.py")

docs/check.md explains each check. Nothing here imports pytest, hypothesis or Numba before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvbench.testing.checks import Check, Outcome, Violated
    from hvbench.testing.claims import CLAIMS
    from hvbench.testing.kit import check_policy, known_checks
    from hvbench.testing.pytest_suite import conformance

__all__ = ["CLAIMS", "Check", "Outcome", "Violated", "check_policy", "conformance", "known_checks"]

_HOME = {
    "CLAIMS": "claims",
    "Check": "checks",
    "Outcome": "checks",
    "Violated": "checks",
    "check_policy": "kit",
    "conformance": "pytest_suite",
    "known_checks": "kit",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"hvbench.testing.{_HOME[name]}"), name)
    raise AttributeError(f"hvbench.testing has no {name!r}")
