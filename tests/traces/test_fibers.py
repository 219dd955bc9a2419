"""Event-loop threads become a fiber a connection: what is independent then, and what stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_oracle import replay
from trace_builders import build, columns_of

from hvbench.traces.check import check_trace
from hvbench.traces.fibers import VERSION, split_connections
from hvbench.traces.format import FLAG_BLOCKS, OP_NAMES, OPS, PRIVILEGED, UNTIL, Trace, read_trace, write_trace
from hvbench.traces.load import load_trace

Row = tuple[int, str, int, dict[str, int]]
BUNDLED = sorted((Path(__file__).parents[2] / "workloads" / "traces").glob("*.parquet"))


def meta_of(threads: list[tuple[str, int]], flows: list[list[str]]) -> dict[str, Any]:
    """Metadata for threads (tier, process) and flows (their ends)."""
    return {
        "format": 1,
        "name": "loop",
        "span_ns": 1_000_000,
        "threads": [
            {"id": i, "process": p, "tier": tier, "name": tier, "role": "outside" if tier == "outside" else "guest"}
            for i, (tier, p) in enumerate(threads)
        ],
        "tiers": sorted({tier for tier, _ in threads} - {"outside"}),
        "objects": [{"kind": "anon", "pages": 16, "process": 1, "name": "heap"}],
        "flows": [{"proto": "tcp", "ends": ends} for ends in flows],
        "wait_shares": {},
    }


def on(thread: int, *rows: tuple[Any, ...]) -> list[Row]:
    """Rows of a thread: (op, time) with flow and bytes behind a send or receive, else a dictionary of cells."""
    made: list[Row] = []
    for op, time_ns, *rest in rows:
        cells = rest[0] if rest and isinstance(rest[0], dict) else {}
        if op in ("send", "recv"):
            cells = {"flow": rest[0], "bytes": rest[1]}
        made.append((thread, op, time_ns, cells))
    return made


def listing(trace: Trace, thread: int) -> list[str]:
    """A thread's rows in words: the operation, its flow or duration."""
    c = trace.columns
    made = []
    for row in np.flatnonzero(c["thread"] == thread).tolist():
        words = OP_NAMES[c["op"][row]]
        if words in ("send", "recv"):
            words += f" {c['flow'][row]}"
        elif words in ("outside", "sleep"):
            words += f" {c['duration_ns'][row]}"
        elif words == "wake":
            words += f" {c['peer'][row]}"
        made.append(words)
    return made


# outside ---------------------------------------------------------------------------------------------------

TWO_CLIENTS = on(
    0,
    ("compute", 0, {"user_ns": 40}),
    ("mark_begin", 50),
    ("send", 50, 0, 10),
    ("mark_begin", 60),
    ("send", 60, 1, 10),
    ("recv", 70, 0, 5),
    ("mark_end", 70),  # as recorded: with the time at which its receive began to wait
    ("compute", 100, {"user_ns": 5}),
    ("recv", 105, 1, 5),
    ("mark_end", 105),
    ("sleep", 300, {"duration_ns": 100}),
    ("mark_begin", 400),
    ("send", 400, 0, 10),
    ("mark_begin", 410),
    ("send", 410, 1, 10),
    ("recv", 420, 0, 5),
    ("mark_end", 420),
    ("recv", 500, 1, 5),
    ("mark_end", 500),
)
#: A server that reads both requests before it answers one, as redis does.
LOOP = on(
    1,
    ("alloc", 0, {"object": 0, "pages": 16}),
    ("compute", 0, {"user_ns": 3}),
    ("recv", 55, 0, 10),
    ("compute", 56, {"user_ns": 7, "syscalls": 2}),
    ("recv", 65, 1, 10),
    ("compute", 66, {"user_ns": 8, "syscalls": 3}),
    ("send", 90, 0, 5),
    ("compute", 91, {"user_ns": 1}),
    ("send", 95, 1, 5),
    ("recv", 405, 0, 10),
    ("send", 406, 0, 5),
    ("recv", 412, 1, 10),
    ("send", 413, 1, 5),
    ("touch", 414, {"object": 0, "page": 1, "pages": 1, "flags": 1}),
)
LOOP_META = meta_of([("outside", 0), ("server", 1)], [["server", "outside"], ["server", "outside"]])


def test_a_load_generator_becomes_a_thread_a_connection_with_its_think_times() -> None:
    made = split_connections(build(TWO_CLIENTS + LOOP, LOOP_META))
    request = ["mark_begin", "send 0", "recv 0", "mark_end"]
    # from the end of the receive (100) to the send (400)
    assert listing(made, 0) == ["outside 50", *request, "outside 300", *request]
    # the second connection's receive ended at 300, when the thread went to sleep
    assert [word for word in listing(made, 1) if word.startswith("outside")] == ["outside 60", "outside 110"]
    assert made.meta["threads"][1] == {**LOOP_META["threads"][0], "id": 1, "fiber_of": 0, "flow": 1}
    assert check_trace(made) == []


def test_marks_that_name_no_connection_stay_with_the_request_that_they_enclose() -> None:
    with_flow = [
        (t, op, at, {**cells, "flow": 1 if at in (60, 105, 410, 500) else 0} if op.startswith("mark") else cells)
        for t, op, at, cells in TWO_CLIENTS
    ]
    named = split_connections(build(with_flow + LOOP, LOOP_META))
    unnamed = split_connections(build(TWO_CLIENTS + LOOP, LOOP_META))
    assert [listing(named, i) for i in range(4)] == [listing(unnamed, i) for i in range(4)]


def test_a_load_generator_of_one_connection_stays_as_it_is() -> None:
    rows = [row for row in TWO_CLIENTS + LOOP if row[3].get("flow") != 1]
    trace = build(rows, LOOP_META)
    made = split_connections(trace)
    assert all(np.array_equal(made.columns[name], trace.columns[name]) for name in trace.columns)


def test_wake_ups_among_outside_threads_are_kept_and_their_waits_are_think_time() -> None:
    meta = meta_of([("outside", 0), ("server", 1), ("outside", 0)], [["server", "outside"]] * 2)
    client = on(0, ("wait", 0), *[(op, at, *(list(cells.values()) or [{}])) for _, op, at, cells in TWO_CLIENTS[1:5]])
    client += on(0, ("wake", 65, {"peer": 2}), ("recv", 70, 0, 5), ("recv", 105, 1, 5))
    other = on(2, ("wake", 0, {"peer": 0}), ("wait", 10), ("compute", 80, {"user_ns": 1}))
    made = split_connections(build(client + LOOP[:9] + other, meta))
    assert "wait" not in listing(made, 0) + listing(made, 1)
    assert listing(made, 4) == ["wait", "compute"]
    assert sum(word == "wake 4" for i in range(4) for word in listing(made, i)) == 1
    assert replay(made).stuck == [] and check_trace(made) == []


# guest -----------------------------------------------------------------------------------------------------


def test_an_event_loop_becomes_fibers_under_one_lock() -> None:
    made = split_connections(build(TWO_CLIENTS + LOOP, LOOP_META))
    start = ["alloc", "compute", "barrier"]
    first = ["recv 0", "lock", "compute", "unlock", "lock", "send 0", "compute", "unlock"]
    assert listing(made, 2) == [*start, *first, "recv 0", "lock", "send 0", "unlock"]
    second = ["recv 1", "lock", "compute", "unlock", "lock", "send 1", "unlock"]
    assert listing(made, 3) == ["barrier", *second, "recv 1", "lock", "send 1", "touch", "unlock"]


def test_locks_and_barriers_do_not_meet_recorded_ones() -> None:
    meta = meta_of([("outside", 0), ("server", 1), ("server", 1)], [["server", "outside"]] * 2)
    other = on(2, ("lock", 0, {"peer": 6}), ("unlock", 1, {"peer": 6}))
    made = split_connections(build(TWO_CLIENTS + LOOP + other, meta))
    c = made.columns
    fibers = np.isin(c["thread"], [2, 3])
    assert set(c["peer"][fibers & np.isin(c["op"], [OPS["lock"], OPS["unlock"]])].tolist()) == {7}
    assert set(c["peer"][fibers & (c["op"] == OPS["barrier"])].tolist()) == {8}


def test_a_reply_that_never_comes_holds_up_only_its_own_connection() -> None:
    lost = [row for row in LOOP if row[:3] != (1, "send", 90)]
    trace = build(TWO_CLIENTS + lost, LOOP_META)
    assert len(replay(trace).stuck) == 2  # as recorded: both threads
    stuck = replay(split_connections(trace), seed=1).stuck
    assert [line.split()[1] for line in stuck] == ["0", "2"]  # the first connection's two fibers


@pytest.mark.parametrize("seed", range(20))
def test_one_fiber_at_a_time(seed: int) -> None:
    made = split_connections(build(TWO_CLIENTS + LOOP, LOOP_META))
    c = made.columns
    holder = -1
    for row in replay(made, seed=seed).order:
        thread, op = int(c["thread"][row]), OP_NAMES[c["op"][row]]
        if thread < 2 or op in ("recv", "barrier", "alloc") or c["time_ns"][row] == 0:
            continue
        if op == "lock":
            assert holder == -1
            holder = thread
        else:
            assert holder == thread, f"{op} of thread {thread}"
            holder = -1 if op == "unlock" else holder
    assert holder == -1


@pytest.mark.parametrize("seed", range(20))
def test_start_up_comes_first_and_exit_last(seed: int) -> None:
    rows = TWO_CLIENTS + LOOP + on(1, ("exit", 600))
    made = split_connections(build(rows, LOOP_META))
    assert replay(made, seed=seed).stuck == []
    order = [row for row in replay(made, seed=seed).order if made.columns["thread"][row] >= 2]
    ops = [OP_NAMES[made.columns["op"][row]] for row in order]
    ops = [op for op in ops if op != "barrier"]
    assert ops[:2] == ["alloc", "compute"]
    assert ops[-1] == "exit" and ops.count("exit") == 1
    assert listing(made, 3)[-2:] == ["barrier", "exit"]  # with the fiber that has the last row
    loaded = [t.process_last for t in _loaded(made)]
    assert loaded == [False, False, False, True]
    assert check_trace(made) == []


def _loaded(trace: Trace) -> Any:
    from hvbench.traces.load import convert

    return convert(trace).threads


def test_a_server_that_asks_another_stays_as_it_is() -> None:
    meta = meta_of(
        [("outside", 0), ("web", 1), ("cache", 2)],
        [["web", "outside"], ["web", "outside"], ["cache", "web"], ["cache", "web"]],
    )
    web, cache, client = [], [], []
    for i in range(4):
        at, flow = 100 * i, i % 2
        client += [("send", at, flow, 10), ("recv", at + 1, flow, 10)]
        ask = [("send", at + 20, 2, 1), ("recv", at + 21, 2, 1)]
        web += [("recv", at + 10, flow, 10), *ask, ("send", at + 90, flow, 10)]
        cache += [("recv", at + 20, 2, 1), ("send", at + 30, 2, 1)]
    trace = build(on(0, *client) + on(1, *web) + on(2, *cache), meta)
    made = split_connections(trace)
    assert [t.get("fiber_of") for t in made.meta["threads"]] == [0, 0, None, None]
    assert listing(made, 2) == listing(trace, 1)


@pytest.mark.parametrize(
    "rows",
    [
        on(1, ("recv", 1, 0, 1), ("send", 2, 1, 1), ("send", 3, 0, 1)),  # sends where it never receives
        on(1, ("recv", 1, 0, 1), ("lock", 2, {"peer": 0}), ("unlock", 3, {"peer": 0}), ("recv", 4, 1, 1)),
        on(1, ("recv", 1, 0, 1), ("recv", 2, 1, 1)) + on(2, ("recv", 3, 1, 1)),  # shares an end
    ],
    ids=["logs elsewhere", "recorded locks", "shared connection"],
)
def test_a_thread_whose_order_is_more_than_a_loop_stays_as_it_is(rows: list[Row]) -> None:
    meta = meta_of([("outside", 0), ("server", 1), ("server", 1)], [["server", "outside"]] * 2)
    made = split_connections(build(rows, meta))
    assert len(made.meta["threads"]) == 3


def test_a_wake_up_goes_to_the_fiber_with_the_wait_that_it_ended() -> None:
    """The helper works for the first connection only once the second has woken it: no wait under the lock."""
    meta = meta_of([("outside", 0), ("server", 1), ("server", 1), ("server", 1)], [["server", "outside"]] * 2)
    client = on(0, ("send", 0, 1, 1), ("send", 1, 0, 1), ("recv", 2, 1, 1), ("recv", 3, 0, 1))
    loop = on(1, ("recv", 5, 1, 1), ("wait", 6), ("wake", 20, {"peer": 2}), ("send", 21, 1, 1))
    loop += on(1, ("recv", 22, 0, 1), ("wait", 23), ("send", 60, 0, 1))
    helper = on(2, ("wait", 11), ("wake", 50, {"peer": 1})) + on(3, ("wake", 10, {"peer": 1}))
    made = split_connections(build(client + loop + helper, meta))
    assert listing(made, 2) == ["recv 1", "wait", "lock", "wake 4", "send 1", "unlock"]
    assert listing(made, 3) == ["recv 0", "wait", "lock", "send 0", "unlock"]
    assert listing(made, 4) == ["wait", "wake 3"] and listing(made, 5) == ["wake 2"]
    assert check_trace(made) == []
    for seed in range(30):
        assert replay(made, seed=seed).stuck == []


# all traces ------------------------------------------------------------------------------------------------


def totals(trace: Trace) -> dict[str, Any]:
    """What no regrouping may change: bytes, marks, compute, privileged and memory operations of the guest."""
    c = trace.columns
    outside = np.array([t.get("role") == "outside" for t in trace.meta["threads"]] or [False])[c["thread"]]
    made: dict[str, Any] = {}
    for op in ("send", "recv"):
        for side in (False, True):
            mine = (c["op"] == OPS[op]) & (outside == side)
            made[f"{op} {side}"] = np.bincount(c["flow"][mine], weights=c["bytes"][mine]).tolist()
    for op in ("mark_begin", "mark_end"):
        made[op] = int((c["op"] == OPS[op]).sum())
    for name in ("user_ns", "kernel_ns", *PRIVILEGED):
        made[name] = int(c[name][~outside].sum())
    put_in = [OPS[name] for name in ("lock", "unlock", "barrier", "wake")]
    made["ops"] = np.bincount(c["op"][~outside & ~np.isin(c["op"], put_in)], minlength=len(OPS)).tolist()
    made["pages"] = int(c["pages"][~outside & ~np.isin(c["op"], put_in)].sum())
    return made


def assert_lawful(trace: Trace, seeds: int) -> Trace:
    made = split_connections(trace)
    assert totals(made) == totals(trace)
    assert check_trace(made) == []
    again = split_connections(trace)
    assert again.meta == made.meta and made.digest == f"{trace.digest}-fibers{VERSION}"
    assert all(np.array_equal(made.columns[name], again.columns[name]) for name in made.columns)
    for seed in range(seeds):
        assert replay(made, loops=2, seed=seed).stuck == []
    return made


@pytest.mark.parametrize("path", BUNDLED, ids=[path.stem for path in BUNDLED])
def test_bundled_traces_keep_their_totals_and_come_to_their_end(path: Path) -> None:
    assert_lawful(read_trace(path), seeds=1)


def test_the_bundled_servers_are_split_and_the_asking_one_is_not() -> None:
    split = {
        path.stem: {t["tier"] for t in split_connections(read_trace(path)).meta["threads"] if "fiber_of" in t}
        for path in BUNDLED
    }
    assert split["nginx-wrk"] == {"outside", "web"} and split["redis-bench"] == {"outside", "cache"}
    assert split["web-cache"] == {"outside", "cache"} and split["postgres-pgbench"] == {"outside"}
    assert split["cc-build"] == set()


@st.composite
def recordings(draw: st.DrawFn) -> Trace:
    """A client of several connections, a loop that reads some requests and then answers them, and its helper."""
    flows = draw(st.integers(2, 4))
    client: list[tuple[Any, ...]] = []
    loop: list[tuple[Any, ...]] = [("alloc", 0, {"object": 0, "pages": 4})] if draw(st.booleans()) else []
    helper: list[tuple[Any, ...]] = []
    now = 0
    cut = draw(st.sets(st.integers(0, flows - 1)))  # replies to requests from before the recording
    for flow in sorted(cut):
        now += 10
        loop.append(("send", now, flow, 3))
        client.append(("recv", now, flow, 3))
    for _ in range(draw(st.integers(1, 6))):
        asked = draw(st.lists(st.integers(0, flows - 1), min_size=1, max_size=flows, unique=True))
        for flow in asked:
            now += draw(st.integers(0, 30))
            client += [("mark_begin", now), ("send", now, flow, 8)]
        for flow in asked:
            now += 5
            parts = draw(st.sampled_from([(8,), (3, 5)]))
            for part in parts:
                loop += [
                    ("recv", now, flow, part),
                    ("compute", now + 1, {"user_ns": draw(st.integers(0, 9)), "syscalls": 1}),
                ]
                now += 2
            if draw(st.integers(0, 3)) == 0:
                loop += [("wake", now, {"peer": 2}), ("wait", now + 1)]
                helper += [("wait", now), ("compute", now + 2, {"kernel_ns": 4}), ("wake", now + 3, {"peer": 1})]
                now += 5
        for flow in draw(st.permutations(asked)):
            now += 3
            loop += [
                ("send", now, flow, 2),
                ("touch", now + 1, {"object": 0, "page": 0, "pages": 2}),
                ("send", now + 2, flow, 4),
            ]
            client += [("recv", now, flow, 6), ("mark_end", now)]
            client += [("compute", now + 3, {"user_ns": 1})] * draw(st.integers(0, 1))
            now += 4
    if draw(st.booleans()):
        loop.append(("exit", now))
    meta = meta_of([("outside", 0), ("server", 1), ("server", 3)], [["server", "outside"]] * flows)
    return build(on(0, *client) + on(1, *loop) + on(2, *helper), meta)


@settings(max_examples=60, deadline=None)
@given(recordings())
def test_laws(trace: Trace) -> None:
    assert check_trace(trace) == [] and replay(trace).stuck == []
    made = assert_lawful(trace, seeds=3)
    for thread in range(len(made.meta["threads"])):
        words = listing(made, thread)
        if "fiber_of" in made.meta["threads"][thread]:
            assert len({word.split()[1] for word in words if word[:4] in ("send", "recv")}) == 1
        depth = np.cumsum([(word == "lock") - (word == "unlock") for word in words])
        assert np.isin(depth, (0, 1)).all() and depth[-1:].sum() == 0
        blocking = ("recv", "wait", "barrier", "exit")
        assert all(depth[i] == 0 for i, word in enumerate(words) if word.split()[0] in blocking)


# loading ---------------------------------------------------------------------------------------------------


def test_open_loop_fibers_begin_their_rows_at_their_recorded_times(tmp_path: Path) -> None:
    path = tmp_path / "loop.parquet"
    written = write_trace(path, LOOP_META, columns_of(TWO_CLIENTS + LOOP))
    closed, open_ = load_trace(path), load_trace(path, "open")
    assert closed.digest == f"{written.digest}-fibers{VERSION}" and open_.digest == f"{closed.digest}-open"
    assert (closed.ops["op"] == OPS["outside"]).sum() == 4
    assert (open_.ops["op"] == OPS["outside"]).sum() == 0
    assert len(open_.threads) == 4
    sends = []
    for t in open_.threads:
        due = 0
        for op in open_.ops[t.first : t.end]:
            if op["op"] == UNTIL:
                due = int(op["a"])
            elif op["op"] == OPS["send"]:
                sends.append(due)
            elif op["op"] == OPS["lock"]:
                locked_at = due
            elif op["op"] == OPS["compute"] and t.first > open_.threads[2].first:
                assert due == locked_at  # the lock is taken when its first row is due, not held until then
    assert sorted(sends) == [50, 60, 90, 95, 400, 406, 410, 413]


def test_nobody_spins_for_an_event_loop() -> None:
    made = split_connections(build(TWO_CLIENTS + LOOP + on(1, ("exit", 600)), LOOP_META)).columns
    waits = np.isin(made["op"], [OPS["lock"], OPS["barrier"]])
    assert waits.sum() > 4
    assert (made["flags"][waits] == FLAG_BLOCKS).all()
