"""Fixtures of the trace tests."""

from __future__ import annotations

import pytest
from trace_builders import SMALL_ROWS, build

from hvbench.traces.format import Trace


@pytest.fixture
def small() -> Trace:
    return build(SMALL_ROWS)
