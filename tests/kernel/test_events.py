"""The event heap behaves as a sorted list of (time, kind, sequence of arming)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.kernel.events import KINDS, ORDER_BITS, arm, armed, disarm, pop, slot_of
from hvbench.state.memory import HostMemory
from hvbench.state.proxies import HostProxy

A_KIND = 5
"""Event slots of each kind."""


def make_host() -> tuple[HostMemory, Any]:
    total = A_KIND * len(KINDS)
    memory = HostMemory({"event": total, "position": total, "kind": len(KINDS)})
    for kind in range(len(KINDS)):
        memory.tables["kind"][kind] = (kind * A_KIND, A_KIND)
    return memory, HostProxy(memory, -1)


def check_heap(memory: HostMemory) -> None:
    """Every entry stands behind its parent, and every slot knows its place."""
    length = int(memory.header["heap_len"][0])
    entries = [tuple(int(x) for x in e) for e in memory.tables["event"][:length]]
    for at in range(1, length):
        assert entries[(at - 1) // 2][:2] < entries[at][:2]
    places = {slot: at for at, (_, _, slot) in enumerate(entries)}
    assert len(places) == length
    for slot, at in enumerate(memory.tables["position"]["at"]):
        assert int(at) == places.get(slot, -1)


kinds = st.integers(0, len(KINDS) - 1)
numbers = st.integers(0, A_KIND - 1)
times = st.integers(0, 6) | st.integers(0, 1 << 60)
steps = st.one_of(
    st.tuples(st.just("arm"), kinds, numbers, times),
    st.tuples(st.just("arm"), kinds, numbers, times),
    st.tuples(st.just("disarm"), kinds, numbers, st.just(0)),
    st.tuples(st.just("pop"), st.just(0), st.just(0), st.just(0)),
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=60))
def test_heap_against_sorted_list(script: list[tuple[str, int, int, int]]) -> None:
    memory, host = make_host()
    model: dict[int, tuple[int, int, int]] = {}
    armed_so_far = 0
    for verb, kind, number, time_ns in script:
        slot = slot_of(host, kind, number)
        if verb == "arm":
            arm(host, kind, number, time_ns)
            armed_so_far += 1
            model[slot] = (time_ns, kind, armed_so_far)
        elif verb == "disarm":
            disarm(host, kind, number)
            model.pop(slot, None)
        elif model:
            first = min(model, key=lambda s: model[s])
            assert host.event[0].time_ns == model[first][0]
            assert host.event[0].order >> ORDER_BITS == model[first][1]
            assert pop(host) == first
            del model[first]
        assert host.heap_len == len(model)
        assert all(armed(host, s) == (s in model) for s in range(A_KIND * len(KINDS)))
        check_heap(memory)
    drained = []
    while host.heap_len > 0:
        drained.append(pop(host))
    assert drained == sorted(model, key=lambda s: model[s])


def test_at_one_instant_the_kind_decides_then_the_sequence() -> None:
    _, host = make_host()
    for kind in reversed(range(len(KINDS))):
        for number in (3, 1):
            arm(host, kind, number, 7)
    arm(host, len(KINDS) - 1, 0, 6)
    served = [pop(host) for _ in range(host.heap_len)]
    expected = [(len(KINDS) - 1) * A_KIND]
    expected += [kind * A_KIND + number for kind in range(len(KINDS)) for number in (3, 1)]
    assert served == expected


def test_arming_again_for_the_same_time_goes_behind_its_equals() -> None:
    _, host = make_host()
    for number in range(3):
        arm(host, 2, number, 100)
    arm(host, 2, 0, 100)
    assert [pop(host) - 2 * A_KIND for _ in range(3)] == [1, 2, 0]
