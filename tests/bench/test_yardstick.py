"""Benchmarks of the yardstick job (`make bench`); nothing is asserted about time. Figures and bars: report.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.bench import jobs
from tests.builders import S

pytestmark = pytest.mark.bench


def measure(benchmark: Any, make: Callable[[], Callable[[], int]], rounds: int) -> None:
    decisions: list[int] = []
    benchmark.pedantic(
        lambda run: decisions.append(run()), setup=lambda: ((make(),), {}), rounds=rounds, warmup_rounds=1
    )
    assert len(set(decisions)) == 1 and decisions[0] > 0
    benchmark.extra_info["decisions"] = decisions[0]
    benchmark.extra_info["decisions_per_s"] = decisions[0] / benchmark.stats.stats.min


def test_kernel_with_a_compiled_policy(benchmark: Any) -> None:
    measure(benchmark, lambda: jobs.kernel(100 * S), 5)


def test_kernel_with_a_plain_python_policy(benchmark: Any) -> None:
    measure(benchmark, lambda: jobs.kernel(10 * S, plain_python=True), 5)


def test_bare_numba_loop(benchmark: Any) -> None:
    measure(benchmark, lambda: jobs.bare(400 * S), 5)


def test_simpy_program(benchmark: Any) -> None:
    pytest.importorskip("simpy")
    measure(benchmark, lambda: jobs.simpy(10 * S), 3)
