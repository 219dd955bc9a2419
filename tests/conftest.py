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
