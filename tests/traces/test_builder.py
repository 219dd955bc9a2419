"""From timelines to traces: real captures, and what no replay may stumble over."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from replay_oracle import replay

from hvbench.traces.check import check_trace
from hvbench.traces.format import FLAG_COMMON, FLAG_SAMPLED, OPS, PAGE_SIZE, Trace, make_trace
from hvbench.traces.info import trace_info
from hvbench.traces.record.builder import Builder, Selection
from hvbench.traces.record.contents import RUN_PAGES
from hvbench.traces.record.flows import Sockets
from hvbench.traces.record.ftrace import in_nanoseconds, parse
from hvbench.traces.record.memory import HUGE_PAGES, FileObject, Space
from hvbench.traces.record.procfs import ProcessState, Vma, parse_maps, runs
from hvbench.traces.record.rows import Process, Row, Thread
from hvbench.traces.record.timeline import Timeline

DATA = Path(__file__).parent / "data"


def timeline_of(name: str) -> Timeline:
    with gzip.open(DATA / f"{name}.txt.gz", "rt", errors="surrogateescape") as file:
        capture = parse(file)
    events = list(in_nanoseconds(capture))
    timeline = Timeline(events[0].time, 1_000_000)
    timeline.devices_with_write_events(["254:0"])
    timeline.run(events)
    return timeline


def built(name: str, selection: Selection | None = None) -> Trace:
    parts = Builder(timeline=timeline_of(name), selection=selection or Selection()).build()
    return make_trace({"format": 1, "name": name, **parts.meta}, parts.columns)


def selection(outside: str = "", **tiers: str) -> Selection:
    pairs = [(name, re.compile(pattern)) for name, pattern in tiers.items()]
    return Selection(pairs, [re.compile(outside)] if outside else [])


def test_a_build() -> None:
    trace = built("build")
    assert check_trace(trace) == []
    assert replay(trace, loops=2).stuck == []
    info = trace_info(trace)
    names = {thread["name"] for thread in trace.meta["threads"]}
    assert {"gcc", "cc1", "as", "sleep", "cat", "wc"} <= names
    for op in ("wait", "wake", "fread", "fwrite", "fsync", "touch", "mtouch", "sleep", "exit"):
        assert info.operations.get(op), op
    assert info.marks >= 6  # processes
    assert trace.meta["wait_shares"]["unknown"] <= 0.05
    assert sum(trace.meta["wait_shares"].values()) == pytest.approx(1.0, abs=1e-4)
    sleeps = trace.columns["duration_ns"][trace.columns["op"] == OPS["sleep"]]
    assert 50e6 <= sleeps.max() < 60e6
    # CPU time cannot exceed what two CPUs had
    assert 0 < info.user_ns + info.kernel_ns < 2 * info.span_ns
    exits = np.flatnonzero(trace.columns["op"] == OPS["exit"])
    processes = {trace.meta["threads"][int(trace.columns["thread"][row])]["process"] for row in exits}
    assert len(processes) == len(exits)


def test_messages_between_two_tiers() -> None:
    timeline = timeline_of("messages")
    servers = {thread.process.index for thread in timeline.threads if _bytes(thread, "send") > 50_000}
    clients = {thread.process.index for thread in timeline.threads if _bytes(thread, "recv") > 100_000}
    assert len(servers) == len(clients) == 1 and servers != clients
    for process in timeline.processes:
        process.names = {"srv" if process.index in servers else "cli" if process.index in clients else "sh"}
    chosen = selection("^cli", server="^srv")
    parts = Builder(timeline=timeline, selection=chosen).build()
    trace = make_trace({"format": 1, **parts.meta}, parts.columns)
    assert check_trace(trace) == []
    for seed in (None, 1, 2):
        assert replay(trace, loops=2, seed=seed).stuck == []
    assert [flow["ends"] for flow in trace.meta["flows"]] in ([["outside", "server"]] * 2, [["server", "outside"]] * 2)
    info = trace_info(trace)
    assert info.bytes_sent == {"outside -> server": 3000, "server -> outside": 30 * 4000}
    assert info.marks == 30
    c = trace.columns
    server = [i for i, thread in enumerate(trace.meta["threads"]) if thread["tier"] == "server"]
    received = c["bytes"][(c["op"] == OPS["recv"]) & np.isin(c["thread"], server)]
    assert received.tolist() == [100] * 30
    assert {thread["role"] for thread in trace.meta["threads"]} == {"guest", "outside"}
    outside = [i for i, thread in enumerate(trace.meta["threads"]) if thread["role"] == "outside"]
    memory = [OPS[name] for name in ("touch", "mtouch", "fread", "alloc", "free")]
    assert not np.any(np.isin(c["thread"], outside) & np.isin(c["op"], memory))


def _bytes(thread: Thread, op: str) -> int:
    return sum(row.at["bytes"] for row in thread.rows if row.op == op)


def test_messages_within_one_tier_are_left_out_and_said() -> None:
    trace = built("messages")
    assert trace.meta["flows"] == [] and check_trace(trace) == []
    assert any("stayed within one tier" in text for text in trace.meta["degraded"])
    assert replay(trace).stuck == []


def test_an_edge_from_another_tier_becomes_a_wait_for_outside() -> None:
    everything = built("build")
    compiler = built("build", selection(compiler="^(gcc|cc1|as)$"))
    assert check_trace(compiler) == []
    assert {thread["tier"] for thread in compiler.meta["threads"]} == {"compiler"}
    assert compiler.meta["wait_shares"]["outside"] > everything.meta["wait_shares"]["outside"]
    assert replay(compiler).stuck == []


def test_names_can_be_hidden() -> None:
    parts = Builder(timeline=timeline_of("build"), selection=Selection(), hide_names=True).build()
    assert all("name" not in thread and len(thread["name_hash"]) == 16 for thread in parts.meta["threads"])


# ---------------------------------------------------------------- parts


def one_process(*rows: Row) -> Timeline:
    timeline = Timeline(0, 0)
    process = timeline._new_process(7, "job")
    thread = timeline._thread(7, process, "job")
    thread.rows = list(rows)
    return timeline


def compute(time: int, ns: int) -> Row:
    return Row("compute", time, {"user_ns": ns, "kernel_ns": 0})


def snapshot(taken_ns: int, contents: dict[int, int], referenced: int) -> ProcessState:
    state = ProcessState(pid=7, parent=1, comm="job", titles=[], taken_ns=taken_ns)
    state.vmas = [Vma(1000, 2000, False, True, 0, "0:0", 0, "")]
    state.anonymous = np.array(sorted(contents), dtype=np.int64)
    state.contents = contents
    state.referenced = {1000: referenced}
    return state


def sampled(seed: int) -> Trace:
    timeline = one_process(*(compute(i * 1000, 900) for i in range(100)))
    timeline.memory.space(timeline.processes[0]).touch(1000, 200)
    first = {page: page for page in range(1000, 1200)}
    later = {**first, 1010: 5, 1011: 5, 1150: 0}
    builder = Builder(
        timeline=timeline,
        selection=Selection(),
        seed=seed,
        before=[snapshot(0, first, 0)],
        snapshots=[[snapshot(100_000, later, 83)]],
        common=frozenset({1001}),
    )
    parts = builder.build()
    return make_trace({"format": 1, **parts.meta}, parts.columns)


def test_touches_between_faults_follow_the_rule() -> None:
    trace = sampled(1)
    assert check_trace(trace) == []
    c = trace.columns
    touch = (c["op"] == OPS["touch"]) & (c["time_ns"] > 0)
    assert np.all(c["flags"][touch] & FLAG_SAMPLED)
    written = touch & ((c["flags"] & 1) != 0)
    pages = {page + i for page, n in zip(c["page"][written], c["pages"][written], strict=True) for i in range(n)}
    assert pages == {10, 11, 150}  # exactly those whose content changed
    assert c["pages"][touch].sum() == 83 and c["pages"][touch].max() <= RUN_PAGES
    times = c["time_ns"][touch]
    assert times.min() < 30_000 and times.max() > 70_000  # spread over the interval's compute


def test_sampled_touches_depend_on_the_seed_only() -> None:
    assert sampled(1).digest == sampled(1).digest != sampled(2).digest


def test_contents_that_sharing_could_see() -> None:
    c = sampled(1).columns
    rows = np.flatnonzero(c["op"] == OPS["content"])
    found = {(int(c["page"][r]), int(c["content"][r]), bool(c["flags"][r] & FLAG_COMMON)) for r in rows}
    assert found == {(1, 1001, True), (10, 5, False), (11, 5, False), (150, 0, True)}


def test_memory_at_the_start_is_touched_at_the_start() -> None:
    c = sampled(1).columns
    assert c["op"][0] == OPS["alloc"] and c["pages"][0] == 200
    assert (c["op"][1], c["page"][1], c["pages"][1], c["time_ns"][1]) == (OPS["touch"], 0, 200, 0)


def test_layout_keeps_small_gaps_and_closes_large_ones() -> None:
    space = Space(Process(1, 0))
    for page in (100, 105, 5000, 5001, 10_000, 10_020):
        space.touch(page)
    space.lay_out()
    assert [space.place(page) for page in (100, 105, 5000, 5001, 10_000, 10_020)] == [0, 5, 6, 7, 8, 9]
    assert space.pages == 10


def test_layout_keeps_huge_alignment() -> None:
    space = Space(Process(1, 0))
    space.touch(3)
    space.touch(10 * HUGE_PAGES + 7, 3 * HUGE_PAGES)
    space.lay_out()
    assert space.place(10 * HUGE_PAGES + 7) % HUGE_PAGES == 7
    assert space.place(12 * HUGE_PAGES) - space.place(11 * HUGE_PAGES) == HUGE_PAGES


def test_image_files_and_own_files() -> None:
    file = FileObject("254:0", 9, path="/usr/lib/libc.so.6", pages=4, old=True)
    assert file.kind == "image"
    file.written = True
    assert file.kind == "own"
    assert FileObject("254:0", 9, path="/home/x", pages=4, old=True).kind == "own"
    assert FileObject("254:0", 9, path="/usr/lib/new.so", pages=4).kind == "own"


def test_maps() -> None:
    text = (
        "55d6275a0000-55d6275c0000 r--p 00020000 fe:00 1234                       /usr/bin/a b\n"
        "7f0000000000-7f0000800000 rw-s 00000000 00:01 77                         /dev/zero (deleted)\n"
        "7ffe30043000-7ffe30045000 rw-p 00000000 00:00 0                          [stack]\n"
        "7ffe300d0000-7ffe300d2000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    code, shared, stack = parse_maps(text)
    assert (code.device, code.inode, code.offset, code.path) == ("254:0", 1234, 0x20, "/usr/bin/a b")
    assert shared.memory_file and not code.memory_file and stack.anonymous
    assert code.end - code.first == 0x20000 // PAGE_SIZE


def test_runs() -> None:
    assert runs([5, 1, 2, 3, 9, 2]) == [(1, 3), (5, 1), (9, 1)]
    assert runs([]) == []


def test_sockets_used_again() -> None:
    sockets = Sockets()
    sockets.learn([("a", 10, 80, 5000), ("a", 100, 80, 6000), ("b", 12, 5000, 80)], [(50, 6000, 80)])
    assert sockets.name("a", 5) == ((80, 5000, 0), 80)
    assert sockets.name("a", 40) == ((80, 5000, 0), 80)  # 6000 had not begun
    assert sockets.name("a", 60) == ((80, 6000, 1), 80)
    assert sockets.name("b", 500) == ((80, 5000, 0), 5000)
    assert sockets.name("c", 5) is None


def _talk(client: list[Row], server: list[Row]) -> Trace:
    timeline = Timeline(0, 0)
    for pid, name, rows in ((1, "cli", client), (2, "srv", server)):
        process = timeline._new_process(pid, name)
        timeline._thread(pid, process, name).rows = rows
    timeline.sockets = [("c", 0, 5000, 80), ("s", 0, 80, 5000)]
    parts = Builder(timeline=timeline, selection=selection("^cli", server="^srv")).build()
    return make_trace({"format": 1, **parts.meta}, parts.columns)


def send(socket: str, time: int, amount: int) -> Row:
    return Row("send", time, {"socket": socket, "bytes": amount, "sent": time, "when": time})


def recv(socket: str, time: int, amount: int, slot: Row | None = None) -> Row:
    blocked = slot.at["took"] if slot else 0
    at = {"socket": socket, "bytes": amount, "done": time, "when": time, "blocked": blocked, "slot": slot}
    return Row("recv", time, at)


def slot(time: int, woke: int) -> Row:
    return Row("slot", time, {"woke": woke, "took": woke - time})


def ops(trace: Trace, tier: str) -> list[str]:
    from hvbench.traces.format import OP_NAMES

    threads = [i for i, thread in enumerate(trace.meta["threads"]) if thread["tier"] == tier]
    c = trace.columns
    return [OP_NAMES[op] for op, thread in zip(c["op"], c["thread"], strict=True) if thread in threads]


def test_a_receive_goes_where_its_thread_blocked() -> None:
    place = slot(100, 200)
    trace = _talk([send("c", 190, 10)], [place, compute(210, 5000), recv("s", 5300, 10, place)])
    assert ops(trace, "server") == ["recv", "compute"]


def test_a_receive_stays_where_the_wait_was_for_something_else() -> None:
    place = slot(100, 200)
    client = [recv("c", 320, 1), send("c", 330, 10)]
    server = [place, compute(210, 100), send("s", 310, 1), recv("s", 400, 10, place)]
    trace = _talk(client, server)
    assert ops(trace, "server") == ["compute", "send", "recv"]
    assert replay(trace).stuck == []


def test_bytes_from_before_the_recording_are_not_waited_for() -> None:
    trace = _talk([send("c", 300, 10)], [recv("s", 100, 25), recv("s", 400, 10)])
    assert check_trace(trace) == []
    c = trace.columns
    assert c["bytes"][c["op"] == OPS["recv"]].tolist() == [10]
    assert any("before the recording began" in text for text in trace.meta["degraded"])


def test_a_reply_in_pieces_is_one_request() -> None:
    client = [send("c", 100, 5), recv("c", 300, 40), compute(310, 2000), recv("c", 400, 60), send("c", 500, 5)]
    server = [recv("s", 150, 5), send("s", 200, 40), send("s", 350, 60), recv("s", 550, 5)]
    trace = _talk(client, server)
    assert ops(trace, "outside") == ["mark_begin", "send", "recv", "mark_end", "compute", "send"]
    assert trace_info(trace).mark_p50_ns == 300
