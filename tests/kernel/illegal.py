"""Policies that break the rules, run one after the other: a script, so that a crash would be seen as one.

    python tests/kernel/illegal.py SEED -> one JSON object a line: {kind, mode, value, status, reason}
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from tests.builders import MODES, US, compute, host, run, scheduler, sleep, vm

KINDS = (
    "vcpu_range",
    "running_vcpu",
    "blocked_vcpu",
    "negative_slice",
    "negative_idle",
    "select_pcpu",
    "kick_range",
    "tick_range",
    "migrate_vcpu",
    "migrate_pcpu",
    "timer_number",
    "timer_time",
    "flood",
    "block_twice",
    "unblock_free",
    "block_range",
    "no_time",
    "index_table",
    "index_own",
    "container_handle",
    "container_item",
    "divides_by_zero",
    "raises",
)

RAISES = {
    "index_table": "IndexError",
    "index_own": "IndexError",
    "container_handle": "IndexError",
    "container_item": "IndexError",
    "divides_by_zero": "ZeroDivisionError",
    "raises": "ValueError",
}
"""What these raise; the others answer."""

SOURCE = (
    "".join(f"{name.upper()} = {number}\n" for number, name in enumerate(KINDS))
    + '''
CONTAINERS = (Fifo("queue", of="vcpu"),)


@frozen
class Params:
    """What it does wrong, at which call, with which value."""

    kind: int = param(0, help="which rule is broken")
    at: int = param(0, help="calls that go well before")
    value: int = param(0, help="the illegal value")


@state("vcpu")
class Vcpu:
    mine: int = 0


@state("host")
class Own:
    calls: int = 0
    wakes: int = 0


def due(host, kind):
    """Whether this rule is the one to break, now."""
    return host.params.kind == kind and host.own.calls >= host.params.at


def some_running(host, but):
    for p in range(host.pcpus):
        if p != but and host.pcpu[p].current >= 0:
            return host.pcpu[p].current
    return NONE


def some_blocked(host):
    for v in range(host.vcpus):
        if host.vcpu[v].state == 0:
            return v
    return NONE


@hookimpl
def sched_wake(host, vcpu, now):
    host.own.wakes += 1
    if due(host, FLOOD):
        for _ in range(host.params.value):
            kick(host, 0)


@hookimpl
def sched_select_pcpu(host, vcpu, prev, now):
    if due(host, SELECT_PCPU):
        return host.params.value
    for p in range(host.pcpus):
        if host.pcpu[p].idle == 1:
            return p
    return NONE


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    host.own.calls += 1
    value = host.params.value
    if due(host, VCPU_RANGE):
        return value, 1000
    if due(host, RUNNING_VCPU) and some_running(host, pcpu) >= 0:
        return some_running(host, pcpu), 1000
    if due(host, BLOCKED_VCPU) and some_blocked(host) >= 0:
        return some_blocked(host), 1000
    if due(host, NEGATIVE_SLICE) and runq_first(host) >= 0:
        return runq_first(host), value
    if due(host, NEGATIVE_IDLE):
        return IDLE, value
    if due(host, KICK_RANGE):
        kick(host, value)
    if due(host, TICK_RANGE):
        set_tick(host, value, 1000)
    if due(host, MIGRATE_VCPU):
        migrate(host, value, 0)
    if due(host, MIGRATE_PCPU):
        migrate(host, 0, value)
    if due(host, TIMER_NUMBER):
        set_timer(host, value, now)
    if due(host, TIMER_TIME):
        set_timer(host, 0, value)
    if due(host, BLOCK_TWICE):
        block(host, 0)
        block(host, 0)
    if due(host, UNBLOCK_FREE):
        unblock(host, 0)
    if due(host, BLOCK_RANGE):
        block(host, value)
    if due(host, NO_TIME):
        kick(host, pcpu)
    if due(host, INDEX_TABLE):
        return host.vcpu[value].state, 1000
    if due(host, INDEX_OWN):
        host.vcpu[value].mine = 1
    if due(host, CONTAINER_HANDLE):
        fifo_push(host, value, 0)
    if due(host, CONTAINER_ITEM):
        fifo_push(host, host.box.queue, value)
    if due(host, DIVIDES_BY_ZERO):
        return now // (host.own.calls - host.own.calls), 1000
    if due(host, RAISES):
        raise ValueError("this policy gives up")
    return runq_first(host), 5000
'''
)

BIG = (1 << 62, -(1 << 61), (1 << 63) - 1)
LEGAL_VALUES = {"negative_slice": 1}


def values_of(kind: str, rng: random.Random) -> int:
    """A value that is illegal for this kind on a host of 2 pCPUs and 5 entities."""
    above = rng.choice([rng.randint(5, 70), rng.randint(5, 10**6), 1 << 62, (1 << 63) - 1])
    below = rng.choice([rng.randint(-70, -2), -(1 << 61), -(1 << 63)])
    if kind == "negative_slice":
        return rng.choice([0, -1, below])
    if kind == "negative_idle" or kind == "timer_time":
        return rng.choice([-1, below])
    if kind == "timer_number":
        return rng.choice([64, max(64, above), -1, below])
    if kind == "flood":
        return rng.choice([4097, 5000, 50_000])
    if kind in ("select_pcpu", "vcpu_range"):
        return rng.choice([above, below])
    return rng.choice([above, -1, below])


def main(seed: int) -> None:
    rng = random.Random(seed)
    policy = scheduler(SOURCE, "lawless")
    tenants = [
        vm([[compute(20_000), sleep(7_000)], [sleep(3_000), compute(9_000)]], vcpus=2),
        vm([[compute(11_000), sleep(5_000)], [compute(1_000), sleep(1 << 40)]], vcpus=3),
    ]
    spec = host(tenants, pcpus=2, horizon_ns=2_000 * US)
    for kind in KINDS:
        for turn in range(12):
            value, at = values_of(kind, rng), rng.choice([0, 1, rng.randint(2, 60)])
            modes: tuple[str, ...] = MODES if turn < 2 else ("compiled",)
            for mode in modes:
                params: dict[str, Any] = {"kind": KINDS.index(kind), "at": at, "value": value}
                done = run(spec, policy, mode, **params)
                status, reason = done.error or ("ok", "")
                said = {"kind": kind, "mode": mode, "at": at, "value": value, "status": status, "reason": reason}
                print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
