"""Containers of a policy: they behave as deque, sorted list and dict do, and misuse never costs memory."""

from __future__ import annotations

import itertools
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.errors import UserError
from hvbench.jit import jit
from hvbench.kernel import containers as c
from hvbench.kernel.arena import BASE, ENTRY, HEAD

ITEMS = 6
MEMBERS = 2
ROWS = {"vcpu": ITEMS, "pcpu": MEMBERS, "vm": 2}
DECLARATIONS = (
    c.Fifo("runq", of="vcpu", per="pcpu"),
    c.Heap("deadlines", of="vcpu", per="pcpu"),
    c.OrderedIndex("by_vruntime", of="vcpu", per="pcpu"),
    c.HashMap("flows", capacity=4, per="pcpu"),
)
EDGES = [-(2**63), -1, 0, 1, 2**63 - 1]

items = st.integers(0, ITEMS - 1)
members = st.integers(0, MEMBERS - 1)
keys = st.integers(-2, 2) | st.sampled_from(EDGES)
many = settings(max_examples=150, deadline=None)


def make_host(*declarations: Any, rows: dict[str, int] = ROWS) -> tuple[Any, dict[str, int]]:
    """The least that containers see of a host, and the handles."""
    arena, handles = c.arena_layout(declarations or DECLARATIONS, rows)
    return SimpleNamespace(
        slot_index=0, memory=SimpleNamespace(slots={0: SimpleNamespace(arena=arena)})
    ), handles


def arena_of(host: Any) -> np.ndarray[Any, Any]:
    return host.memory.slots[0].arena


# against Python's own containers ----------------------------------------------------------------------


@many
@given(st.lists(st.tuples(st.sampled_from(["push", "front", "pop", "remove"]), members, items), max_size=60))
def test_fifo_behaves_as_deques_that_share_their_items(script: list[tuple[str, int, int]]) -> None:
    host, handles = make_host()
    queues: list[deque[int]] = [deque() for _ in range(MEMBERS)]
    for verb, member, item in script:
        q, queue = handles["runq"] + member, queues[member]
        taken = any(item in other for other in queues)
        if verb in ("push", "front"):
            push, append = (
                (c.fifo_push, queue.append) if verb == "push" else (c.fifo_push_front, queue.appendleft)
            )
            if taken:
                with pytest.raises(IndexError, match="already in"):
                    push(host, q, item)
            else:
                push(host, q, item)
                append(item)
        elif verb == "pop":
            assert c.fifo_pop(host, q) == (queue.popleft() if queue else -1)
        else:
            assert c.fifo_remove(host, q, item) == int(item in queue)
            if item in queue:
                queue.remove(item)
        for number, expected in enumerate(queues):
            handle = handles["runq"] + number
            assert list(walk(host, c.fifo_first, c.fifo_next, handle)) == list(expected)
            assert c.fifo_len(host, handle) == len(expected)
        where = [handles["runq"] + n for n, queue in enumerate(queues) if item in queue]
        assert c.fifo_where(host, q, item) == (where[0] if where else -1)


def walk(host: Any, first: Any, after: Any, handle: int) -> Any:
    item = first(host, handle)
    for _ in range(1000):
        if item == -1:
            return
        yield item
        item = after(host, handle, item)
    raise AssertionError("the walk does not end")


@many
@given(
    st.lists(st.tuples(st.sampled_from(["push", "push", "pop", "remove"]), members, items, keys), max_size=60)
)
def test_heap_pops_by_key_then_by_insertion(script: list[tuple[str, int, int, int]]) -> None:
    host, handles = make_host()
    heaps: list[list[tuple[int, int, int]]] = [[] for _ in range(MEMBERS)]
    for number, (verb, member, item, key) in enumerate(script):
        h, heap = handles["deadlines"] + member, heaps[member]
        inside = [entry for entry in heap if entry[2] == item]
        if verb == "push":
            if any(entry[2] == item for other in heaps for entry in other):
                with pytest.raises(IndexError, match="already in"):
                    c.heap_push(host, h, item, key)
            else:
                c.heap_push(host, h, item, key)
                heap.append((key, number, item))
                heap.sort()
        elif verb == "pop":
            assert c.heap_pop(host, h) == (heap.pop(0)[2] if heap else -1)
        else:
            assert c.heap_remove(host, h, item) == len(inside)
            if inside:
                heap.remove(inside[0])
        assert c.heap_len(host, h) == len(heap)
        assert c.heap_first(host, h) == (heap[0][2] if heap else -1)
        if heap:
            assert c.heap_first_key(host, h) == heap[0][0]
    for member, heap in enumerate(heaps):
        popped = [c.heap_pop(host, handles["deadlines"] + member) for _ in range(len(heap) + 1)]
        assert popped == [item for _, _, item in heap] + [-1]


@many
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "remove"]), members, st.integers(0, 30), keys), max_size=80
    )
)
def test_ordered_index_stays_sorted_and_moves(script: list[tuple[str, int, int, int]]) -> None:
    host, handles = make_host(rows={**ROWS, "vcpu": 31})
    indices: list[dict[int, tuple[int, int]]] = [{} for _ in range(MEMBERS)]
    for number, (verb, member, item, key) in enumerate(script):
        o = handles["by_vruntime"] + member
        if verb == "put":
            for other in indices:
                other.pop(item, None)
            c.order_put(host, o, item, key)
            indices[member][item] = (key, number)
        else:
            assert c.order_remove(host, o, item) == int(item in indices[member])
            indices[member].pop(item, None)
        for other, index in enumerate(indices):
            handle = handles["by_vruntime"] + other
            expected = sorted(index, key=lambda i, index=index: index[i])
            assert list(walk(host, c.order_first, c.order_after, handle)) == expected
            assert c.order_len(host, handle) == len(expected)


@many
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "del"]), members, st.integers(0, 9) | keys, keys),
        max_size=80,
    )
)
def test_map_behaves_as_a_dict_with_a_limit(script: list[tuple[str, int, int, int]]) -> None:
    host, handles = make_host()
    maps: list[dict[int, int]] = [{} for _ in range(MEMBERS)]
    for verb, member, key, value in script:
        m, known = handles["flows"] + member, maps[member]
        if verb == "put":
            fits = key in known or len(known) < 4
            assert c.map_put(host, m, key, value) == int(fits)
            if fits:
                known[key] = value
        else:
            assert c.map_del(host, m, key) == int(known.pop(key, None) is not None)
        for other, expected in enumerate(maps):
            assert c.map_len(host, handles["flows"] + other) == len(expected)
            for probe in [*range(10), *EDGES, -2]:
                assert c.map_get(host, handles["flows"] + other, probe, -77) == expected.get(probe, -77)


def test_a_heap_survives_removals_from_anywhere_in_any_order() -> None:
    for order in itertools.permutations(range(ITEMS)):
        host, handles = make_host()
        h = handles["deadlines"]
        for item in range(ITEMS):
            c.heap_push(host, h, item, item)
        if order[0] % 2:  # after a pop the tree is more than one level deep
            c.heap_push(host, h + 1, c.heap_pop(host, h), 0)
        left = set(range(order[0] % 2, ITEMS))
        for item in order[:4]:
            assert c.heap_remove(host, h, item) == int(item in left)
            left.discard(item)
        assert [c.heap_pop(host, h) for _ in range(len(left) + 1)] == [*sorted(left), -1]


def test_a_map_that_was_emptied_is_as_it_was_at_first() -> None:
    host, handles = make_host(c.HashMap("flows", capacity=50))
    fresh = arena_of(host).copy()
    for turn in range(40):
        for key in range(50):
            assert c.map_put(host, handles["flows"], key * 7 + turn, key) == 1
        assert c.map_put(host, handles["flows"], -5, 0) == 0
        for key in range(50):
            assert c.map_del(host, handles["flows"], key * 7 + turn) == 1
    assert np.array_equal(arena_of(host), fresh)


def test_a_content_identity_is_a_key_of_64_bits() -> None:
    host, handles = make_host(c.HashMap("by_content", capacity=4))
    identity = np.uint64(2**63 + 5)
    c.map_put(host, handles["by_content"], identity, 3)
    assert c.map_get(host, handles["by_content"], identity, -1) == 3
    assert c.map_get(host, handles["by_content"], int(identity) - 2**64, -1) == 3


def test_ascending_keys_keep_the_tree_shallow() -> None:
    count = 2048
    host, handles = make_host(c.OrderedIndex("tree", of="page"), rows={"page": count})
    for item in range(count):
        c.order_put(host, handles["tree"], item, item)
    arena = arena_of(host)
    entry = 1 + (handles["tree"] - 1) * ENTRY
    depth, level = 0, [int(arena[entry + HEAD])]
    while level:
        depth += 1
        level = [int(arena[node + side]) for node in level for side in (4, 5) if arena[node + side]]
    assert depth < 4 * count.bit_length()


# misuse -------------------------------------------------------------------------------------------------

TAKES_ITEM = [
    (c.fifo_push, "runq", ()),
    (c.fifo_push_front, "runq", ()),
    (c.fifo_next, "runq", ()),
    (c.fifo_remove, "runq", ()),
    (c.fifo_where, "runq", ()),
    (c.heap_push, "deadlines", (0,)),
    (c.heap_remove, "deadlines", ()),
    (c.order_put, "by_vruntime", (0,)),
    (c.order_after, "by_vruntime", ()),
    (c.order_remove, "by_vruntime", ()),
]
OTHERS = [
    (c.fifo_pop, "runq", ()),
    (c.fifo_first, "runq", ()),
    (c.fifo_len, "runq", ()),
    (c.heap_pop, "deadlines", ()),
    (c.heap_first, "deadlines", ()),
    (c.heap_first_key, "deadlines", ()),
    (c.heap_len, "deadlines", ()),
    (c.order_first, "by_vruntime", ()),
    (c.order_len, "by_vruntime", ()),
    (c.map_put, "flows", (1, 1)),
    (c.map_get, "flows", (1, 1)),
    (c.map_del, "flows", (1,)),
    (c.map_len, "flows", ()),
]
EVERY = [(f, name, (0, *rest)) for f, name, rest in TAKES_ITEM] + OTHERS


def fill(host: Any, handles: dict[str, int]) -> None:
    for item in range(3):
        c.fifo_push(host, handles["runq"] + item % 2, item)
        c.heap_push(host, handles["deadlines"] + item % 2, item, -item)
        c.order_put(host, handles["by_vruntime"] + item % 2, item, -item)
        c.map_put(host, handles["flows"] + item % 2, item, item)


@pytest.mark.parametrize(("function", "name", "rest"), TAKES_ITEM, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("item", [-1, ITEMS, 2**63 - 1, -(2**63)])
def test_an_item_outside_of_the_table_is_refused(function: Any, name: str, rest: Any, item: int) -> None:
    host, handles = make_host()
    fill(host, handles)
    before = arena_of(host).copy()
    with pytest.raises(IndexError, match="outside of the container's table"):
        function(host, handles[name], item, *rest)
    assert np.array_equal(arena_of(host), before)


@pytest.mark.parametrize(("function", "name", "rest"), EVERY, ids=lambda v: getattr(v, "__name__", ""))
def test_every_wrong_handle_is_refused_and_writes_nothing(function: Any, name: str, rest: Any) -> None:
    host, handles = make_host()
    fill(host, handles)
    before = arena_of(host).copy()
    right = {handles[name] + member for member in range(MEMBERS)}
    texts = set()
    for handle in (*range(-60, 400), 2**31, 2**61, 2**63 - 1, -(2**63)):
        if handle not in right:
            with pytest.raises(IndexError) as caught:
                function(host, handle, *rest)
            texts.add(str(caught.value).split(":")[0])
    assert np.array_equal(arena_of(host), before)
    assert texts == {
        "no container has this handle",
        "this handle is one before the first or behind the last of a declaration",
        "this handle is of a container of another kind",
    }


def test_one_index_too_many_never_reaches_the_next_declaration() -> None:
    host, handles = make_host(c.Fifo("a", of="vcpu", per="pcpu"), c.Fifo("b", of="vcpu", per="pcpu"))
    for handle in (handles["a"] - 1, handles["a"] + MEMBERS, handles["b"] - 1, handles["b"] + MEMBERS):
        with pytest.raises(IndexError, match="one before the first or behind the last"):
            c.fifo_push(host, handle, 0)
    with pytest.raises(IndexError, match="no container has this handle"):
        c.fifo_push(host, 0, 0)


@many
@given(st.sampled_from(EVERY), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), items)
def test_a_container_writes_only_its_own_declaration(use: Any, handle: int, item: int) -> None:
    function, _, rest = use
    host, handles = make_host()
    fill(host, handles)
    before = arena_of(host).copy()
    try:
        function(host, handle, *rest)
    except IndexError:
        assert np.array_equal(arena_of(host), before)
        return
    owned = [name for name, first in handles.items() if first <= handle < first + MEMBERS]
    assert len(owned) == 1
    bases = {name: int(before[1 + (first - 1) * ENTRY + BASE]) for name, first in handles.items()}
    ends = dict(itertools.pairwise([*bases.values(), len(before)]))
    changed = np.flatnonzero(arena_of(host) != before)
    directory = range(1 + (handle - 1) * ENTRY, 1 + handle * ENTRY)
    nodes = range(bases[owned[0]], ends[bases[owned[0]]])
    assert all(word in directory or word in nodes for word in changed.tolist())


def test_walking_on_from_an_item_that_was_removed_is_refused() -> None:
    host, handles = make_host()
    fill(host, handles)
    c.fifo_remove(host, handles["runq"], 0)
    c.order_remove(host, handles["by_vruntime"], 0)
    with pytest.raises(IndexError, match="not in this queue; ask for the next one before removing"):
        c.fifo_next(host, handles["runq"], 0)
    with pytest.raises(IndexError, match="not in this index; ask for the next one before removing"):
        c.order_after(host, handles["by_vruntime"], 0)


def test_an_empty_heap_has_no_first_key() -> None:
    host, handles = make_host()
    with pytest.raises(IndexError, match="this heap is empty; ask heap_len"):
        c.heap_first_key(host, handles["deadlines"])


@pytest.mark.parametrize(
    "use",
    [
        lambda host, h: c.heap_push(host, h["deadlines"], 0, 0.5),
        lambda host, h: c.order_put(host, h["by_vruntime"], 0, 0.5),
        lambda host, h: c.fifo_push(host, h["runq"] + 0.0, 0),
        lambda host, h: c.fifo_push(host, h["runq"], 0.0),
        lambda host, h: c.map_put(host, h["flows"], 0, 0.5),
    ],
)
def test_a_float_is_refused(use: Any) -> None:
    host, handles = make_host()
    before = arena_of(host).copy()
    with pytest.raises(TypeError):
        use(host, handles)
    assert np.array_equal(arena_of(host), before)


# declarations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: c.Fifo("run queue", of="vcpu"), "identifier"),
        (lambda: c.Heap("_h", of="vcpu"), "identifier"),
        (lambda: c.HashMap("m", capacity=0), "from 1 to"),
        (lambda: c.HashMap("m", capacity=1.5), "whole number"),
        (lambda: c.arena_layout([c.Fifo("q", of="cpu")], ROWS), "legal: pcpu, vcpu, vm"),
        (lambda: c.arena_layout([c.Fifo("q", of="vcpu", per="cpu")], ROWS), "per='cpu'"),
        (lambda: c.arena_layout([c.Fifo("q", of="vcpu"), c.Heap("q", of="vm")], ROWS), "two named 'q'"),
        (lambda: c.arena_layout(["q"], ROWS), "legal: Fifo"),
    ],
)
def test_a_wrong_declaration_is_explained(make: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()


def test_a_policy_without_containers_has_an_arena_that_refuses_every_handle() -> None:
    arena, handles = c.arena_layout((), ROWS)
    host = SimpleNamespace(slot_index=0, memory=SimpleNamespace(slots={0: SimpleNamespace(arena=arena)}))
    assert handles == {}
    for handle in range(-2, 5):
        with pytest.raises(IndexError):
            c.fifo_len(host, handle)


def test_memory_does_not_grow_with_the_number_of_members() -> None:
    few, _ = c.arena_layout([c.Heap("h", of="page", per="vm")], {"page": 10_000, "vm": 1})
    lots, _ = c.arena_layout([c.Heap("h", of="page", per="vm")], {"page": 10_000, "vm": 100})
    assert len(lots) - len(few) == 99 * ENTRY


# compiled and interpreted -------------------------------------------------------------------------------


@jit
def script(host: Any, runq: int, deadlines: int, tree: int, flows: int, steps: int) -> int:
    """A pseudo-random walk through all functions; gives a digest of all answers."""
    seen = 0
    x = 12345
    for _ in range(steps):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        verb = (x >> 8) % 12
        item = (x >> 12) % 16
        member = (x >> 17) & 1
        key = ((x >> 18) & 7) - 4
        answer = 0
        if verb == 0 and c.fifo_where(host, runq, item) == -1:
            c.fifo_push(host, runq + member, item)
        elif verb == 1 and c.fifo_where(host, runq, item) == -1:
            c.fifo_push_front(host, runq + member, item)
        elif verb == 2:
            answer = c.fifo_pop(host, runq + member)
        elif verb == 3:
            answer = c.fifo_remove(host, runq + member, item) + c.fifo_len(host, runq + member)
            if c.fifo_len(host, runq + member) > 0:
                first = c.fifo_first(host, runq + member)
                answer += 7 * c.fifo_next(host, runq + member, first)
        elif verb <= 5:
            if c.heap_remove(host, deadlines, item) + c.heap_remove(host, deadlines + 1, item) == verb - 4:
                c.heap_push(host, deadlines + member, item, key)
        elif verb == 6:
            if c.heap_len(host, deadlines + member) > 0:
                answer = c.heap_first_key(host, deadlines + member) + c.heap_first(host, deadlines + member)
            answer += 5 * c.heap_pop(host, deadlines + member)
        elif verb <= 8:
            c.order_put(host, tree + member, item, key)
        elif verb == 9:
            answer = c.order_remove(host, tree + member, item) + c.order_len(host, tree + member)
            if c.order_len(host, tree + member) > 0:
                answer += 3 * c.order_after(host, tree + member, c.order_first(host, tree + member))
        elif verb == 10:
            answer = c.map_put(host, flows + member, key * (1 << 60), x) + c.map_len(host, flows + member)
        else:
            answer = c.map_get(host, flows + member, key * (1 << 60), -9)
            answer += c.map_del(host, flows + member, item - 8)
        seen = (seen * 31 + answer) & 0xFFFFFFFFFFF
    return seen


@jit
def use_wrongly(host: Any, case: int, handle: int, item: int) -> int:
    """One misuse by number, so that compiled texts can be compared with interpreted ones."""
    if case == 0:
        c.fifo_push(host, handle, item)
    elif case == 1:
        return c.heap_first_key(host, handle)
    elif case == 2:
        return c.order_after(host, handle, item)
    elif case == 3:
        return c.map_put(host, handle, item, item)
    elif case == 4:
        c.heap_push(host, handle, item, 0)
    return 0


@pytest.fixture(scope="module")
def native() -> Any:
    """Compiled forms of the two drivers above."""
    numba = pytest.importorskip("numba")
    from hvbench.jit import activate
    from hvbench.state.native import HostType, host_at

    activate()
    view = host_at(HostType())

    def run(header: int, slot: int, runq: int, deadlines: int, tree: int, flows: int, steps: int) -> int:
        return script(view(header, slot), runq, deadlines, tree, flows, steps)

    def misuse(header: int, slot: int, case: int, handle: int, item: int) -> int:
        return use_wrongly(view(header, slot), case, handle, item)

    def identities(header: int, slot: int, flows: int, key: int) -> int:
        host = view(header, slot)
        c.map_put(host, flows, key, 3)
        return c.map_get(host, flows, np.int64(key), -1)

    def float_key(header: int, slot: int, deadlines: int) -> None:
        c.heap_push(view(header, slot), deadlines, 0, 0.5)

    return SimpleNamespace(
        **{f.__name__: numba.njit(f) for f in (run, misuse, identities, float_key)},
        TypingError=numba.TypingError,
    )


def real_host() -> tuple[Any, Any, Any, dict[str, int]]:
    from hvbench.state.memory import HostMemory
    from hvbench.state.proxies import HostProxy

    memory = HostMemory({})
    declarations = (*DECLARATIONS[:3], c.HashMap("flows", capacity=4, per="pcpu"))
    words, handles = c.arena_layout(declarations, {**ROWS, "vcpu": 16})
    slot = memory.add_slot(0, {}, len(words))
    slot.arena[:] = words
    kernel = HostProxy(memory)
    return memory, slot, HostProxy(memory, 0, kernel), handles


def test_compiled_and_interpreted_arenas_are_the_same_byte_for_byte(native: Any) -> None:
    memory, slot, _, handles = real_host()
    _, interpreted_slot, host, _ = real_host()
    start = slot.arena.copy()
    for steps in (1, 10, 3000):
        compiled = native.run(memory.address, slot.address, *handles.values(), steps)
        assert compiled == script(host, *handles.values(), steps)
        assert slot.arena.tobytes() == interpreted_slot.arena.tobytes()
        slot.arena[:] = start
        interpreted_slot.arena[:] = start


def test_compiled_misuse_gives_the_same_text_and_writes_nothing(native: Any) -> None:
    memory, slot, _, handles = real_host()
    _, interpreted_slot, host, _ = real_host()
    native.run(memory.address, slot.address, *handles.values(), 200)
    interpreted_slot.arena[:] = before = slot.arena.copy()
    refused = 0
    for case in range(5):
        for handle in (-(2**63), -1, *range(14), 2**40, 2**63 - 1):
            for item in (-1, 0, 5, 16, 2**63 - 1):
                compiled = interpreted = ""
                try:
                    native.misuse(memory.address, slot.address, case, handle, item)
                except IndexError as error:
                    compiled = str(error)
                    assert np.array_equal(slot.arena, before)
                try:
                    use_wrongly(host, case, handle, item)
                except IndexError as error:
                    interpreted = str(error)
                assert compiled == interpreted
                assert np.array_equal(slot.arena, interpreted_slot.arena)
                refused += bool(compiled)
                slot.arena[:] = interpreted_slot.arena[:] = before
    assert refused > 300


def test_compiled_code_takes_a_content_identity_and_refuses_a_float(native: Any) -> None:
    memory, slot, host, handles = real_host()
    identity = np.uint64(2**63 + 5)
    assert native.identities(memory.address, slot.address, handles["flows"], identity) == 3
    assert c.map_get(host, handles["flows"], identity, -1) == 3
    with pytest.raises(native.TypingError):
        native.float_key(memory.address, slot.address, handles["deadlines"])
