"""What the tests of schedulers share: hosts of CPU-bound VMs, turns as they were taken, and shares."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from hvbench.build import HostSpec
from hvbench.policy import hookimpl
from tests.builders import MS, US, Done, S, compute, host, numbers, run, sleep, vm

FOREVER = compute(1 << 50)


def hogs(weights: list[int], *, pcpus: int = 1, horizon_ns: int = S, **settings: Any) -> HostSpec:
    """A VM for each weight, whose one vCPU always wants to run."""
    return host([vm([[FOREVER]], weight=w, **settings) for w in weights], pcpus=pcpus, horizon_ns=horizon_ns)


def turns(spec: HostSpec, policy: ModuleType, **params: Any) -> list[tuple[int, int]]:
    """Who was put on a pCPU, and when, in order: (entity, ns); one that was asked about twice at an instant, once."""
    taken: list[tuple[int, int]] = []

    class Watch:
        @hookimpl(wrapper=True)
        def sched_pick_next(self, host, pcpu, prev, now):  # type: ignore[no-untyped-def]
            answer = yield
            if answer[0] >= 0 and (answer[0], now) not in taken[-1:]:
                taken.append((answer[0], now))
            return answer

    done = run(spec, policy, "interpreted", observers=(Watch(),), **params)
    assert done.error is None, done.reason
    return taken


def assert_proportional(done: Done, weights: list[int], rel: float) -> None:
    """Every entity has run in proportion to its weight, within `rel`."""
    assert done.error is None, done.reason
    ran = numbers(done.vcpu["ran_ns"])[: len(weights)]
    for weight, time_ns in zip(weights, ran, strict=True):
        assert time_ns == pytest.approx(weight / sum(weights) * sum(ran), rel=rel), ran


def busy_mix(pcpus: int, horizon_ns: int = 40 * MS, **settings: Any) -> HostSpec:
    """Sleepers and CPU-bound VMs of several weights and vCPUs: what most paths of a scheduler are met on."""
    tenants = [
        vm([[compute(300 * US), sleep(700 * US)] * 4, [compute(900 * US), sleep(100 * US)]], vcpus=2, weight=512),
        vm([[FOREVER], [FOREVER]], vcpus=2, **settings),
        vm([[compute(50 * US), sleep(150 * US)] * 3], weight=128),
        vm([[FOREVER]], weight=1024),
    ]
    return host(tenants, pcpus=pcpus, horizon_ns=horizon_ns, switch_cost_ns=2 * US, cache_refill_ns=20 * US)


def assert_same_bits(policy: ModuleType, pcpus: int, **params: Any) -> None:
    """Compiled and interpreted give the same bits, and so does the same again."""
    spec = busy_mix(pcpus)
    first = run(spec, policy, **params)
    assert first.error is None, first.reason
    assert first.fingerprint() == run(spec, policy, **params).fingerprint()
    assert first.fingerprint() == run(spec, policy, "interpreted", **params).fingerprint()
