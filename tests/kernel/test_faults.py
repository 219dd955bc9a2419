"""Faults of guests and pCPUs on small hosts; random ones are part of the conservation tests."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from hvbench.build import FaultSpec, HostSpec
from hvbench.policy import hookimpl
from tests.builders import MS, US, bundled, compute, host, numbers, run, scheduler, vm

FOREVER = compute(1 << 50)


def with_faults(spec: HostSpec, *faults: FaultSpec) -> HostSpec:
    return attrs.evolve(spec, faults=faults)


@pytest.mark.parametrize("policy", [None, "round_robin", "credit", "null"])
def test_a_dead_guest_leaves_its_cpu_to_the_others(policy: str | None) -> None:
    spec = with_faults(host([vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=200 * MS), FaultSpec("guest", 0, 50 * MS))
    done = run(spec, bundled(policy) if policy else None, "interpreted")
    assert done.error is None
    ran = numbers(done.vcpu["ran_ns"])
    assert sum(ran) == 200 * MS and ran[0] <= 50 * MS
    assert done.pcpu["guest_ns"][0] == 200 * MS, "the dead one's last segment counts as its work"


def test_a_host_whose_guests_all_died_still_reaches_its_horizon() -> None:
    spec = with_faults(host([vm([[FOREVER]])], horizon_ns=MS), FaultSpec("guest", 0, 300 * US))
    done = run(spec, None, "interpreted")
    assert done.error is None and done.now == MS
    assert done.pcpu["guest_ns"][0] == 300 * US and done.pcpu["idle_ns"][0] == 700 * US


def test_the_scheduler_hears_who_is_gone() -> None:
    heard: list[tuple[str, int, int]] = []

    class Watch:
        @hookimpl(wrapper=True)
        def sched_vcpu_remove(self, host: Any, vcpu: int, now: int) -> Any:
            heard.append(("remove", vcpu, now))
            return (yield)

        @hookimpl(wrapper=True)
        def sched_pcpu_offline(self, host: Any, pcpu: int, now: int) -> Any:
            heard.append(("offline", pcpu, now))
            return (yield)

        @hookimpl(wrapper=True)
        def sched_pcpu_online(self, host: Any, pcpu: int, now: int) -> Any:
            heard.append(("online", pcpu, now))
            return (yield)

    deaf = scheduler(
        "@hookimpl\ndef sched_vcpu_remove(host, vcpu, now):\n    pass\n"
        "@hookimpl\ndef sched_pcpu_offline(host, pcpu, now):\n    pass\n"
        "@hookimpl\ndef sched_pcpu_online(host, pcpu, now):\n    pass\n"
    )
    spec = host([vm([[FOREVER], [FOREVER]], vcpus=2), vm([[FOREVER]])], pcpus=2, horizon_ns=MS)
    spec = with_faults(spec, FaultSpec("guest", 0, 100 * US), FaultSpec("pcpu", 1, 200 * US, 300 * US))
    assert run(spec, deaf, "interpreted", observers=(Watch(),)).error is None
    assert heard == [
        ("online", 0, 0),
        ("online", 1, 0),
        ("remove", 0, 100 * US),
        ("remove", 1, 100 * US),
        ("offline", 1, 200 * US),
        ("online", 1, 300 * US),
    ]


def test_nothing_runs_on_a_pcpu_that_has_left() -> None:
    spec = host([vm([[FOREVER]]), vm([[FOREVER]])], pcpus=2, horizon_ns=MS)
    done = run(with_faults(spec, FaultSpec("pcpu", 1, 400 * US, 600 * US)), bundled("round_robin"), "interpreted")
    assert done.error is None
    assert done.pcpu["guest_ns"][1] == 800 * US
    assert done.pcpu["guest_ns"][0] == MS


def test_a_pcpu_that_idles_on_purpose_can_leave() -> None:
    shy = scheduler(
        "@hookimpl\n"
        "def sched_pick_next(host, pcpu, prev, now):\n"
        "    if pcpu == 1 and now < 500_000:\n"
        "        return IDLE, 50_000\n"
        "    return runq_first(host), 10_000\n"
    )
    spec = host([vm([[FOREVER]]) for _ in range(3)], pcpus=2, horizon_ns=MS)
    done = run(with_faults(spec, FaultSpec("pcpu", 1, 420 * US)), shy, "interpreted")
    assert done.error is None
    assert done.pcpu["guest_ns"][1] == 0
