"""Benchmarks of hosts of 4 and of 64 pCPUs (`make bench`); nothing is asserted about time. Figures: scale.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import scale

pytestmark = pytest.mark.bench


@pytest.mark.parametrize("pcpus", [scale.SMALL, scale.LARGE])
@pytest.mark.parametrize("policy", ["null", "credit", "eevdf"])
def test_events_of_a_host(benchmark: Any, policy: str, pcpus: int) -> None:
    rates: list[float] = []
    benchmark.pedantic(lambda: rates.append(scale.events_per_s(policy, pcpus, 300_000)), rounds=3, warmup_rounds=1)
    benchmark.extra_info["events_per_s"] = max(rates)
    assert min(rates) > 0
