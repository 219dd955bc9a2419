"""Every nanosecond of a pCPU and of a vCPU is accounted for, once, whatever a legal policy does."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.build import HostSpec
from hvbench.policy import hookimpl
from hvbench.testing import laws_cpu
from tests.builders import bundled, numbers, run, run_in_slices, scheduler
from tests.strategies import LEGAL, hosts, legal_params


class Watcher:
    """Follows every entity's state by the hooks alone: an account of time that owes nothing to the kernel's."""

    def __init__(self, spec: HostSpec):
        self.spec = spec
        entities = sum(m.vcpus for m in spec.vms) + len(spec.host_threads)
        self.state = ["blocked"] * entities
        self.since = [0] * entities
        self.spent = [{"blocked": 0, "ready": 0, "run": 0} for _ in range(entities)]

    def enter(self, v: int, state: str, now: int, came_from: tuple[str, ...]) -> None:
        assert self.state[v] in came_from, f"{v}: {self.state[v]} -> {state} at {now}"
        begin = max(self.since[v], self.spec.warmup_ns)
        self.spent[v][self.state[v]] += max(0, now - begin)
        self.state[v], self.since[v] = state, now

    def close(self) -> None:
        for v, state in enumerate(self.state):
            self.enter(v, state, self.spec.horizon_ns, (state,))

    @hookimpl(wrapper=True)
    def sched_wake(self, host: Any, vcpu: int, now: int) -> Generator[None, Any, Any]:
        self.enter(vcpu, "ready", now, ("blocked",))
        return (yield)

    @hookimpl(wrapper=True)
    def sched_sleep(self, host: Any, vcpu: int, now: int) -> Generator[None, Any, Any]:
        self.enter(vcpu, "blocked", now, ("ready", "blocked"))
        return (yield)

    @hookimpl(wrapper=True)
    def sched_running(self, host: Any, vcpu: int, pcpu: int, now: int) -> Generator[None, Any, Any]:
        self.enter(vcpu, "run", now, ("ready",))
        assert host.vcpu[vcpu].pcpu == pcpu
        return (yield)

    @hookimpl(wrapper=True)
    def sched_stopping(
        self, host: Any, vcpu: int, ran_ns: int, runnable: int, now: int
    ) -> Generator[None, Any, Any]:
        assert ran_ns == now - self.since[vcpu]
        self.enter(vcpu, "ready" if runnable else "blocked", now, ("run",))
        return (yield)


@settings(max_examples=40)
@given(hosts(longest_ns=80_000), legal_params)
def test_run_ready_and_blocked_as_the_hooks_tell_it(spec: HostSpec, params: dict[str, int]) -> None:
    watcher = Watcher(spec)
    done = run(spec, scheduler(LEGAL), "interpreted", observers=(watcher,), **params)
    assert done.error is None, done.error
    laws_cpu.time_adds_up(done.memory)
    watcher.close()
    measured = spec.horizon_ns - spec.warmup_ns
    for v, spent in enumerate(watcher.spent):
        assert sum(spent.values()) == measured
        assert done.vcpu["run_measured_ns"][v] == spent["run"]
        assert done.vcpu["ready_ns"][v] == spent["ready"]


@settings(max_examples=40)
@given(hosts(longest_ns=40_000), legal_params, st.integers(1, 30))
def test_tables_are_consistent_between_events(spec: HostSpec, params: dict[str, int], events: int) -> None:
    done = run_in_slices(spec, scheduler(LEGAL), events, laws_cpu.consistent, **params)
    assert done.error is None, done.error


@settings(max_examples=40)
@given(hosts(shortest_ns=100_000, longest_ns=1_000_000), legal_params)
def test_sums_hold_on_longer_cells(kernel: object, spec: HostSpec, params: dict[str, int]) -> None:
    done = run(spec, scheduler(LEGAL), "compiled", **params)
    assert done.error is None, done.error
    laws_cpu.time_adds_up(done.memory)


@settings(max_examples=40)
@given(hosts(shortest_ns=100_000, longest_ns=1_000_000), st.sampled_from(["round_robin", "credit", "null", "thrash"]))
def test_sums_hold_under_bundled_policies(kernel: object, spec: HostSpec, name: str) -> None:
    done = run(spec, bundled(name), "compiled")
    assert done.error is None, done.error
    laws_cpu.time_adds_up(done.memory)


@settings(max_examples=40)
@given(hosts(shortest_ns=200_000, longest_ns=3_000_000))
def test_nobody_waits_while_a_pcpu_idles(kernel: object, spec: HostSpec) -> None:
    """Under the kernel's defaults an idle pCPU means an empty list: the sum of both never exceeds the time."""
    free = attrs.evolve(spec, warmup_ns=0)
    worst = [0]

    def look(memory: Any) -> None:
        header = memory.header[0]
        idle = int(header["pcpus"] - header["running"] - memory.tables["pcpu"]["offline"].sum())
        worst[0] = max(worst[0], min(idle, int(header["runnable_count"])))

    done = run_in_slices(free, bundled("round_robin"), 1, look, "compiled", timeslice_ns=7_000)
    assert done.error is None
    assert worst == [0]
    if not any(f.kind == "pcpu" for f in spec.faults):
        everything = free.horizon_ns * free.cpu.pcpus
        assert sum(numbers(done.pcpu["idle_ns"])) + sum(numbers(done.vcpu["ran_ns"])) == everything
