"""Binding: one policy, three ways to run it, with and without observers; what is refused, and how that reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hvbench.binding import BindError
from hvbench.build import HostSpec
from hvbench.policy import hookimpl
from tests.builders import MODES, MS, US, bundled, compute, host, run, scheduler, sleep, vm


def small_host() -> HostSpec:
    tenants = [vm([[compute((i + 2) * 3_001), sleep(1_009)]]) for i in range(5)]
    return host(tenants, pcpus=2, horizon_ns=400 * US, switch_cost_ns=77)


class Counter:
    """An observer: counts what passes, and changes nothing."""

    def __init__(self) -> None:
        self.picks: list[tuple[int, int]] = []
        self.ran: list[int] = []

    @hookimpl(wrapper=True)
    def sched_pick_next(self, host: Any, pcpu: int, prev: int, now: int) -> Any:
        answer = yield
        self.picks.append((now, answer[0]))
        return answer

    @hookimpl(wrapper=True)
    def sched_stopping(self, host: Any, vcpu: int, ran_ns: int, runnable: int, now: int) -> Any:
        self.ran.append(ran_ns)
        return (yield)


@pytest.mark.parametrize("name", ["round_robin", "credit", "null"])
@pytest.mark.parametrize("mode", ["compiled", "interpreted"])
def test_an_observer_sees_every_call_and_changes_nothing(kernel: object, name: str, mode: str) -> None:
    plain = run(small_host(), bundled(name), mode)
    counter = Counter()
    watched = run(small_host(), bundled(name), mode, observers=(counter,))
    assert watched.error is None
    assert watched.fingerprint() == plain.fingerprint()
    assert len(counter.picks) == watched.decisions
    if name != "round_robin":
        # round robin has no sched_stopping of its own: nobody is called, and nobody can be watched
        assert sum(counter.ran) <= sum(int(r) for r in watched.vcpu["ran_ns"])
        assert counter.ran


def test_an_observer_may_change_an_answer(kernel: object) -> None:
    class Meddler:
        @hookimpl(wrapper=True)
        def sched_pick_next(self, host: Any, pcpu: int, prev: int, now: int) -> Any:
            vcpu, _ = yield
            return vcpu, 500

    spec = host([vm([[compute(MS)]])] * 2, horizon_ns=100 * US)
    done = run(spec, bundled("round_robin"), observers=(Meddler(),))
    assert done.decisions == 200


def test_an_exception_in_an_observer_ends_the_cell(kernel: object) -> None:
    class Clumsy:
        @hookimpl(wrapper=True)
        def sched_pick_next(self, host: Any, pcpu: int, prev: int, now: int) -> Any:
            if now > 50_000:
                raise RuntimeError("lost count")
            return (yield)

    for mode in ("compiled", "interpreted"):
        done = run(small_host(), bundled("round_robin"), mode, observers=(Clumsy(),))
        assert "sched_pick_next" in done.reason and "RuntimeError: lost count" in done.reason


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_ctrl_c_in_a_plain_hook_reaches_the_caller(kernel: object, error: str) -> None:
    policy = scheduler(f"@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n    raise {error}\n")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(small_host(), policy, "plain")


@pytest.mark.parametrize("name", ["round_robin", "credit", "null", "thrash"])
def test_plain_python_equals_compiled(kernel: object, name: str) -> None:
    found = [run(small_host(), bundled(name), mode).fingerprint() for mode in MODES]
    assert found[0] == found[1] == found[2]


def test_parameters_compile_nothing_and_count(kernel: object) -> None:
    from hvbench.binding import COMPILED

    run(small_host(), bundled("round_robin"))
    before = set(COMPILED.keep)
    short, long = (run(small_host(), bundled("round_robin"), timeslice_ns=t) for t in (500, 5_000))
    assert set(COMPILED.keep) == before
    assert short.decisions > long.decisions


def test_own_state_stands_beside_the_kernels_and_starts_at_its_default(kernel: object) -> None:
    policy = scheduler(
        '@state("vcpu")\nclass Vcpu:\n    turns: int = 7\n    share: float = 0.5\n\n'
        '@state("host")\nclass Own:\n    calls: int = 0\n\n'
        "@hookimpl\n"
        "def sched_pick_next(host, pcpu, prev, now):\n"
        "    host.own.calls += 1\n"
        "    v = runq_first(host)\n"
        "    if v >= 0:\n"
        "        host.vcpu[v].turns += 1\n"
        "        host.vcpu[v].share = host.vcpu[v].share / 2\n"
        "    return v, 1000\n"
    )
    states = []
    for mode in MODES:
        done = run(small_host(), policy, mode)
        assert done.error is None
        own = done.memory.slots[0].own
        assert own["own"]["calls"][0] == done.decisions
        assert all(int(t) > 7 for t in own["vcpu"]["turns"])
        states.append((own["vcpu"]["turns"].tolist(), own["vcpu"]["share"].tolist()))
    assert states[0] == states[1] == states[2]


# what is refused --------------------------------------------------------------------------------------------

WRITES = {
    "host.vcpu[0].state = 1": ("vcpu.state", "read-only", '@state("vcpu")'),
    "host.pcpu[pcpu].idle = 1": ("pcpu.idle", "read-only", '@state("pcpu")'),
    "host.vm[0].weight += 1": ("vm.weight", "read-only", '@state("vm")'),
    "host.now = 5": ("host.now", "read-only", '@state("host")'),
}


def writer(statement: str) -> Any:
    head = "@hookimpl\ndef sched_pick_next(host, pcpu, prev, now):\n"
    return scheduler(f"{head}    {statement}\n    return runq_first(host), 1000\n")


@pytest.mark.parametrize("statement", WRITES)
def test_kernel_fields_are_read_only_when_compiled(kernel: object, statement: str) -> None:
    with pytest.raises(BindError) as refused:
        run(small_host(), writer(statement))
    text = str(refused.value).replace("'", '"')
    for part in WRITES[statement]:
        assert part in text


@pytest.mark.parametrize("mode", ["plain", "interpreted"])
@pytest.mark.parametrize("statement", WRITES)
def test_kernel_fields_are_read_only_in_python(kernel: object, statement: str, mode: str) -> None:
    done = run(small_host(), writer(statement), mode)
    text = done.reason.replace("'", '"')
    assert "sched_pick_next at 0 ns raised AttributeError" in text
    for part in WRITES[statement]:
        assert part in text


def test_an_unknown_field_names_those_that_exist(kernel: object) -> None:
    policy = writer("x = host.vcpu[0].credits")
    with pytest.raises(BindError, match=r"no field 'credits'.*weight"):
        run(small_host(), policy)
    assert "credits" in run(small_host(), policy, "plain").reason


UNCOMPILABLE = {
    "x = {now: 1}[now].foo if now < 0 else 0": ("Unknown attribute 'foo'", "integers, floats"),
    "x = open('/dev/null')": ("'open'", "HVBENCH_INTERPRET=1"),
    "x = 'a' + 1 if now < 0 else 0": ("there is no add(", "compute with numbers"),
    "import os": ("IMPORT_NAME", "at the top of the file"),
    "x = sorted([v for v in (3, 1)], key=str)": ("sorted", "Fifo"),
}
"""What is legal Python: its complaint, and what to write instead."""


@pytest.mark.parametrize("statement", UNCOMPILABLE)
def test_what_cannot_be_compiled_is_explained_and_runs_as_python(kernel: object, statement: str) -> None:
    policy = writer(statement)
    done = run(small_host(), policy)
    assert done.error is None
    assert done.fingerprint() == run(small_host(), policy, "plain").fingerprint()
    (text,) = done.memory.notes
    assert "\n" not in text and text.endswith("Meanwhile it runs as plain Python, which is slower.")
    complaint, advice = UNCOMPILABLE[statement]
    assert complaint in text and advice in text
    _names_the_line(text, policy, statement)


def _names_the_line(text: str, policy: Any, statement: str) -> None:
    found = re.search(r"sched_pick_next cannot be compiled \((?P<file>[^:)]+):(?P<line>\d+)\)", text)
    assert found is not None, text
    assert found["file"].endswith(str(policy.__file__).rsplit("/", 1)[-1])
    source = Path(str(policy.__file__)).read_text().splitlines()
    assert statement in source[int(found["line"]) - 1]


def test_a_name_that_nobody_defines_is_refused_with_its_line(kernel: object) -> None:
    policy = writer("x = undefined_name")
    with pytest.raises(BindError, match="name 'undefined_name' is not defined") as refused:
        run(small_host(), policy)
    _names_the_line(str(refused.value), policy, "x = undefined_name")


FORGOTTEN = {
    "sched_pick_next": "    v = runq_first(host)\n    if v > 0:\n        return v, 1000\n",
    "sched_select_pcpu": "    if prev >= 0:\n        return prev\n",
}


@pytest.mark.parametrize("hook", FORGOTTEN)
def test_a_missing_return_is_called_one(kernel: object, hook: str) -> None:
    arguments = {"sched_pick_next": "pcpu, prev, now", "sched_select_pcpu": "vcpu, prev, now"}[hook]
    policy = scheduler(f"@hookimpl\ndef {hook}(host, {arguments}):\n{FORGOTTEN[hook]}")
    with pytest.raises(BindError, match=f"{hook} may end without `return`.*on every path"):
        run(small_host(), policy)
    assert "ended without `return`; it must answer on every path" in run(small_host(), policy, "plain").reason


NOTHING = "@hookimpl\ndef sched_pick_next(host):\n    return 0, 1\n"


def test_own_fields_may_not_hide_the_kernels(kernel: object) -> None:
    policy = scheduler('@state("vcpu")\nclass Vcpu:\n    weight: int = 0\n' + NOTHING)
    with pytest.raises(BindError, match="weight would hide a kernel field"):
        run(small_host(), policy)


def test_state_of_an_unknown_table_names_the_tables(kernel: object) -> None:
    policy = scheduler('@state("cpu")\nclass Cpu:\n    x: int = 0\n' + NOTHING)
    with pytest.raises(BindError, match=r"no such table; legal: host, .*vcpu"):
        run(small_host(), policy)


def test_a_scheduler_may_not_implement_other_axes_hooks(kernel: object) -> None:
    policy = scheduler(NOTHING + "\n@hookimpl\ndef mem_init(host, now):\n    pass\n")
    with pytest.raises(BindError, match="one policy, one axis"):
        run(small_host(), policy)
