"""Benchmarks of page touches (`make bench`); nothing is asserted about time. Figures and bars: touches.py."""

from __future__ import annotations

from typing import Any

import pytest

from hvbench.state.records_memory import ANON, OWN
from tests.bench import touches

pytestmark = pytest.mark.bench
LENGTH = 4_000_000


@pytest.mark.parametrize("replacement", ["linux", "lru", "clock"])
@pytest.mark.parametrize("stream", ["zipf", "recorded"])
def test_resident(benchmark: Any, stream: str, replacement: str) -> None:
    made = touches.zipf(LENGTH, True) if stream == "zipf" else touches.recorded(LENGTH)

    def setup() -> Any:
        room = made.pages + made.pages // 8 + 4096
        return (*touches.host(made, room, replacement, ANON, True), 1), {}

    benchmark.pedantic(touches.replay, setup=setup, rounds=3, warmup_rounds=1)
    benchmark.extra_info["touches_per_s"] = made.touches / benchmark.stats.stats.min


@pytest.mark.parametrize("replacement", ["lru", "clock"])
@pytest.mark.parametrize("kind", ["file", "swap"])
def test_memory_for_half(benchmark: Any, kind: str, replacement: str) -> None:
    pytest.importorskip("libcachesim")
    made = touches.zipf(LENGTH, True)
    code = OWN if kind == "file" else ANON

    def setup() -> Any:
        return (*touches.host(made, made.pages // 2, replacement, code, False), 100), {}

    benchmark.pedantic(touches.replay, setup=setup, rounds=3, warmup_rounds=1)
    rate = made.touches / benchmark.stats.stats.min
    benchmark.extra_info["touches_per_s"] = rate
    benchmark.extra_info["of_libcachesim"] = rate / touches.simulator_rate(made, replacement, 0.5)[0]
