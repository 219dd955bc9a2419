"""Fixtures for every test, and where compiled code of the test run is cached.

Compiling the event loop takes a good ten seconds; compiled code lands in the same cache as `hvbench` itself
uses, so that one environment compiles it once. Nothing is compiled before a test asks for it.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# a simulated host is slow to make and to shrink: what counts is that every example is checked, not how fast
settings.register_profile(
    "hvbench",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("hvbench")


@pytest.fixture(scope="session")
def kernel() -> object:
    """The compiled event loop, compiled (or loaded) once for the whole run."""
    from hvbench.binding import COMPILED

    return COMPILED.run()


SLOW = (
    "tests/fidelity/test_bars.py",
    "tests/fidelity/test_command.py",
    "tests/fidelity/test_replay.py",
    "tests/fidelity/test_contract.py::test_a_model_run",
    "tests/kernel/test_memory_laws.py",
    "tests/plugins/test_controls.py",
    "tests/queueing",
    "tests/testing/test_tracking.py",
    "tests/plugins/test_honours.py",
    "tests/plugins/test_ksm_machine.py",
    "tests/test_scaffold.py::test_the_template_passes_the_kit",
    "tests/test_docs.py::test_command_line[docs/",
)
"""Tests of minutes: `make test` leaves them to `make test-all`, so that a change is answered within 15 minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes minutes."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
