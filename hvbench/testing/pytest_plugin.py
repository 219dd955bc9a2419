"""The pytest plugin of the kit: the account of checked policies at the end of a run.

It is loaded into every run of pytest in an environment with hvbench, and imports nothing of hvbench by itself.
"""

from __future__ import annotations

import sys
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say for each policy how many checks were known, ran, passed and were not claimed."""
    suite = sys.modules.get("hvbench.testing.pytest_suite")
    lines = suite.summaries() if suite is not None else []
    if lines:
        terminalreporter.section("hvbench conformance")
        for line in lines:
            terminalreporter.line(line)
