"""Illegal policies: whatever they answer, ask for or raise ends their cell, by name, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from hvbench.binding import BindError
from hvbench.kernel.guards import E_STARVED, LEGAL
from hvbench.policy import FOREVER
from tests.builders import MODES, MS, ROOT, US, compute, host, run, scheduler, sleep, vm
from tests.kernel.illegal import KINDS, RAISES

HOOK_OF = {"flood": "sched_wake", "select_pcpu": "sched_select_pcpu"}
LINE = re.compile(
    r"(?P<policy>\S+): (?P<hook>\S+) at (?P<now>\d+) ns "
    r"(answered (?P<answer>-?\d+) .*legal: (?P<legal>.+)|raised (?P<what>.+))"
)


@pytest.fixture(scope="module")
def outcomes(kernel: object) -> list[dict[str, Any]]:
    """Some hundred runs of illegal policies in a process of their own, which must end well."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests/kernel/illegal.py"), "20260101"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert ended.returncode == 0, f"exit code {ended.returncode}: {ended.stderr[-2000:]}"
    assert ended.stderr == "", "nothing is printed behind the user's back"
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_rule_ends_the_cell_and_names_who_when_what(outcomes: list[dict[str, Any]], kind: str) -> None:
    mine = [o for o in outcomes if o["kind"] == kind]
    assert len(mine) == 12 + 2 * 2
    for o in mine:
        assert o["status"] == ("stalled" if kind == "no_time" else "failed"), o
        found = LINE.fullmatch(o["reason"])
        assert found is not None, o
        assert found["policy"].startswith("lawless")
        assert found["hook"] == HOOK_OF.get(kind, "sched_pick_next")
        assert int(found["now"]) < 2_000 * US
        if kind in RAISES:
            assert found["what"].startswith(RAISES[kind] + ": "), o
        else:
            assert found["legal"] in LEGAL.values()


@pytest.mark.parametrize(
    "kind", ["vcpu_range", "negative_slice", "select_pcpu", "kick_range", "timer_number", "block_range"]
)
def test_the_error_repeats_the_illegal_value(outcomes: list[dict[str, Any]], kind: str) -> None:
    for o in outcomes:
        if o["kind"] == kind:
            assert f"answered {o['value']} " in o["reason"], o


@pytest.mark.parametrize("kind", KINDS)
def test_the_three_ways_to_run_a_policy_agree(outcomes: list[dict[str, Any]], kind: str) -> None:
    by_case: dict[tuple[int, int], dict[str, str]] = {}
    for o in outcomes:
        if o["kind"] == kind:
            by_case.setdefault((o["at"], o["value"]), {})[o["mode"]] = o["reason"]
    compared = [c for c in by_case.values() if set(c) == set(MODES)]
    assert compared
    for reasons in compared:
        heads = {re.sub(r"(raised \w+): .*", r"\1", r) for r in reasons.values()}
        assert len(heads) == 1, reasons


# legal, but at the edge: none of these may hang, overflow or fail ------------------------------------------

EDGES = {
    "a slice for ever": "return runq_first(host), FOREVER",
    "the longest slice": "return runq_first(host), 9223372036854775807",
    "idle for ever": "return (IDLE, 9223372036854775807) if 0 < now < 50000 else (runq_first(host), 1000)",
    "the longest tick": "set_tick(host, pcpu, 9223372036854775807)\n    return runq_first(host), 1000",
    "a timer at the end of time": "set_timer(host, 63, 9223372036854775807)\n    return runq_first(host), 1000",
    "a timer in the past": "set_timer(host, 0, 0)\n    return runq_first(host), 1000",
}


@pytest.mark.parametrize("mode", ["interpreted", "compiled"])
@pytest.mark.parametrize("what", EDGES)
def test_the_largest_legal_values_are_legal(kernel: object, what: str, mode: str) -> None:
    policy = scheduler(f"@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    {EDGES[what]}\n")
    done = run(host([vm([[compute(5 * US), sleep(US)]])] * 2, horizon_ns=200 * US), policy, mode)
    assert done.error is None, done.error
    assert done.now == 200 * US
    assert done.events < 2_000


@pytest.mark.parametrize("mode", MODES)
def test_idle_on_purpose_is_kept_until_somebody_wakes(kernel: object, mode: str) -> None:
    lazy = scheduler(
        "@hookimpl\n"
        "def sched_pick_next(host, pcpu, prev, now):\n"
        "    if now < 50_000:\n"
        "        return IDLE, 0\n"
        "    return runq_first(host), FOREVER\n"
    )
    tenants = [vm([[compute(MS)]]), vm([[sleep(70 * US), compute(MS)]], start_ns=0)]
    done = run(host(tenants, horizon_ns=MS), lazy, mode)
    # both are woken at 0 and nobody wakes any more: starved, by name
    assert done.error is not None and done.error[0] == "stalled"
    assert "sched_pick_next at 0 ns" in done.reason and LEGAL[E_STARVED] in done.reason


def test_forever_is_longer_than_any_cell() -> None:
    assert FOREVER > 10**9 * 3600 * 24 * 365


@pytest.mark.parametrize("mode", ["plain", "interpreted"])
@pytest.mark.parametrize("answer", ["1.5, 1000", "None, 1000", "0", "0, 1000, 3", "0, 10.0", "1 << 70, 5", "'0', 1"])
def test_answers_of_a_wrong_type(kernel: object, mode: str, answer: str) -> None:
    policy = scheduler(f"@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    return {answer}\n")
    done = run(host([vm([[compute(US)]])]), policy, mode)
    assert done.error is not None and done.error[0] == "failed"
    assert "sched_pick_next at 0 ns raised" in done.reason


@pytest.mark.parametrize("answer", ["0", "0, 1000, 3"])
def test_answers_of_a_wrong_shape_end_the_cell(kernel: object, answer: str) -> None:
    """Numba does not compile them, and so they run as Python, where they fail."""
    policy = scheduler(f"@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    return {answer}\n")
    done = run(host([vm([[compute(US)]])]), policy)
    assert done.error is not None and done.error[0] == "failed"
    assert "sched_pick_next at 0 ns raised" in done.reason


@pytest.mark.parametrize("answer", ["1.5, 1000", "None, 1000", "0, 10.0", "now / 2, 5"])
def test_answers_of_a_wrong_type_are_refused_when_they_are_compiled(kernel: object, answer: str) -> None:
    policy = scheduler(f"@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    return {answer}\n")
    with pytest.raises(BindError) as refused:
        run(host([vm([[compute(US)]])]), policy)
    assert "sched_pick_next cannot be compiled" in str(refused.value)
    assert "\n" not in str(refused.value)
