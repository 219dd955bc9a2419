"""Same inputs, same bits out: twice, in threads, compiled, plain or interpreted, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from hvbench.build import HostSpec
from tests.bench import yardstick
from tests.builders import (
    MS,
    ROOT,
    US,
    Done,
    barrier,
    bundled,
    compute,
    host,
    lock,
    mark_begin,
    mark_end,
    run,
    scheduler,
    sleep,
    unlock,
    vm,
    wait,
    wake,
)
from tests.strategies import LEGAL, hosts, legal_params


def busy_host(seed: int = 5, horizon_ns: int = 3 * MS) -> HostSpec:
    """A host with everything that a guest's threads can do, and every cost."""
    talk = vm(
        [
            [mark_begin(), compute(9_001), wake(1), wait(), mark_end(), sleep(2_003)],
            [wait(), compute(3_777, 211), wake(0), compute(1_234)],
        ],
        vcpus=2,
    )
    meet = vm(
        [[compute((i + 1) * 1_701), lock(0), compute(907), unlock(0), barrier(1, 3)] for i in range(3)],
        vcpus=2,
        weight=512,
    )
    spin = vm([[compute(50_000)]], start_ns=777)
    return host(
        [talk, meet, spin],
        pcpus=2,
        horizon_ns=horizon_ns,
        warmup_ns=200 * US,
        seed=seed,
        cores_per_llc=1,
        switch_cost_ns=1_500,
        cache_refill_ns=4_000,
        cache_refill_other_ns=9_000,
        cache_refill_tau_ns=30_000,
        guest_slice_ns=2_500,
        guest_switch_ns=170,
        wake_cost_ns=433,
        halt_cost_ns=511,
        ipi_cost_ns=207,
        timer_fire_cost_ns=301,
        user_factor_ppm=12_345,
        kernel_factor_ppm=-200_000,
        host_tick_ns=100_000,
        host_tick_cost_ns=1_001,
    )


def legal_run(mode: str = "compiled", seed: int = 5) -> Done:
    return run(busy_host(seed), scheduler(LEGAL), mode, longest_ns=20_000)


def test_twice(kernel: object) -> None:
    first, second = legal_run(), legal_run()
    assert first.error is None
    assert first.fingerprint() == second.fingerprint()
    assert first.events > 1_000


def test_the_seed_counts(kernel: object) -> None:
    assert legal_run(seed=5).fingerprint()["digests"] != legal_run(seed=6).fingerprint()["digests"]


@pytest.mark.parametrize("mode", ["plain", "interpreted"])
def test_compiled_or_not(kernel: object, mode: str) -> None:
    assert legal_run(mode).fingerprint() == legal_run("compiled").fingerprint()


@settings(max_examples=12)
@given(hosts(longest_ns=60_000), legal_params)
def test_compiled_or_not_on_random_hosts(kernel: object, spec: HostSpec, params: dict[str, int]) -> None:
    policy = scheduler(LEGAL)
    found = [run(spec, policy, mode, **params).fingerprint() for mode in ("compiled", "plain", "interpreted")]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["round_robin", "credit", "null", "thrash"])
def test_bundled_policies_on_the_yardstick_job(kernel: object, name: str) -> None:
    spec = attrs.evolve(yardstick.host_spec(100 * MS), warmup_ns=20 * MS)
    costs = {"switch_cost_ns": 2_000, "cache_refill_ns": 30_000, "cache_refill_other_ns": 60_000}
    spec = attrs.evolve(spec, cpu=attrs.evolve(spec.cpu, cores_per_llc=2, wake_cost_ns=900, **costs))
    compiled, interpreted = (run(spec, bundled(name), mode).fingerprint() for mode in ("compiled", "interpreted"))
    assert compiled == interpreted
    assert compiled["events"] > 200


def test_two_threads_at_once(kernel: object) -> None:
    alone = [legal_run(seed=s).fingerprint() for s in range(8)]
    with ThreadPoolExecutor(2) as pool:
        together = [f.fingerprint() for f in pool.map(lambda s: legal_run(seed=s), range(8))]
    assert together == alone


CHILD = """
import json
from tests.kernel.test_determinism import legal_run
print(json.dumps(legal_run().fingerprint()))
"""


def test_in_another_process(kernel: object) -> None:
    here = legal_run().fingerprint()
    for hash_seed in ("1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        text = subprocess.run(
            [sys.executable, "-c", CHILD], check=True, capture_output=True, text=True, env=environment, timeout=120
        ).stdout
        there: dict[str, Any] = json.loads(text)
        assert there == json.loads(json.dumps(here))
