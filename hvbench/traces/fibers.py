"""An event-loop thread is replayed as a fiber a connection.

A load generator (wrk, pgbench, redis-benchmark) drives many connections from one thread, and an event-loop server (an
nginx worker, redis) answers them from one. The recorded order of such a thread's rows says in which order its
connections happened to be ready, not that one had to wait for another: replayed strictly, a reply that is late on one
connection holds up all the others, and the think times of all connections add up one after the other. So the rows are
regrouped before they are replayed, always by the same rules:

*Outside*: a thread with two or more connections becomes one thread for each: the connection's sends, receives and
marks, and before each send an `outside` wait as long as the recorded think time, which is the time from the end of
the row before on this connection to the send. Whatever else the thread did was the client's work, and is in those
times.

*Guest*: a thread that only answers becomes one thread for each connection. They exclude each other by a lock that is
fair (first come, first served, as a loop serves what is ready): a receive, then under the lock what was recorded up
to the next row of another connection. A thread only answers if, on every connection, nothing that it received
elsewhere in between can be what its reply waited for: between a receive and the send after it, the thread never sent
on another connection and then received there. A web server that asks a cache for each request does that, so it stays
as recorded; redis, which reads several requests and then writes several replies, does not. What the thread did before
its first connection is done by the first fiber while the others wait at a barrier; its `exit` comes when all of them
are done.

An event loop never spins for itself: who waits at such a lock or barrier waits at once (`FLAG_BLOCKS`).

The lock is not held across a recorded `wait`: the wake-up may come from a thread that itself waits for another
connection of the same loop. A wake-up of a thread that was split goes to the fiber with the wait that it ended (the
k-th wake-up ends the k-th wait). Threads that use recorded locks or barriers, or share the receiving end of a
connection with another thread, stay as they are: their order is more than the loop's.

Bytes of each connection, marks, compute and privileged operations of the guest are the same before and after.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.build_io import flow_ends
from hvbench.traces.format import COLUMNS, FLAG_BLOCKS, OPS, OUTSIDE, Trace, empty_columns

VERSION: Final = 2
"""Part of the loaded trace's digest: another rule, another replay."""

_SEND, _RECV, _WAIT, _WAKE = (OPS[name] for name in ("send", "recv", "wait", "wake"))
_MARKS: Final = (OPS["mark_begin"], OPS["mark_end"])
_ORDERED: Final = tuple(OPS[name] for name in ("lock", "unlock", "barrier"))
#: Rows are placed by 4 * (row of the trace); what is put in goes between.
_STEP: Final = 4
_BEFORE, _FIRST, _ROW, _AFTER = range(_STEP)

_Rows = NDArray[np.int64]
_Mask = NDArray[np.bool_]


def split_connections(trace: Trace, think: bool = True) -> Trace:
    """The same trace with a thread for each connection of an event loop. Deterministic.

    Without `think` no think times are put in: an open-loop replay begins every row at its recorded time anyway.
    """
    digest = f"{trace.digest}-fibers{VERSION}"
    split = _split_threads(trace)
    if not split:
        return attrs.evolve(trace, digest=digest)
    layout = _Layout(trace, split)
    for thread in split:
        if _is_outside(trace, thread):
            layout.split_outside(thread, think)
        else:
            layout.split_guest(thread)
    layout.retarget_wakes()
    return attrs.evolve(trace, meta=layout.meta(), columns=layout.columns(), digest=digest)


def _is_outside(trace: Trace, thread: int) -> bool:
    return bool(trace.meta["threads"][thread].get("role") == OUTSIDE)


# which threads ---------------------------------------------------------------------------------------------


def _split_threads(trace: Trace) -> list[int]:
    """The threads that become fibers, in order."""
    c = trace.columns
    talk = np.flatnonzero(((c["op"] == _SEND) | (c["op"] == _RECV)) & (c["flow"] >= 0))
    if not len(talk):
        return []
    thread, flow = c["thread"][talk].astype(np.int64), c["flow"][talk].astype(np.int64)
    received = c["op"][talk] == _RECV
    flows = int(flow.max()) + 1
    threads = len(trace.meta["threads"])
    uses = np.bincount(np.unique(thread * flows + flow) // flows, minlength=threads)
    ordered = np.bincount(c["thread"][np.isin(c["op"], _ORDERED)], minlength=threads)
    candidates = np.flatnonzero((uses > 1) & (ordered == 0))
    if not len(candidates):
        return []
    # connections with more than one thread at an end that receives
    end = 2 * flow + flow_ends(trace.meta, c)[talk]
    receivers = np.unique(end[received] * threads + thread[received])
    shared = np.bincount(receivers // threads, minlength=2 * flows) > 1
    shares = np.bincount(thread[received & shared[end]], minlength=threads) > 0
    result = []
    for i in candidates.tolist():
        mine = thread == i
        if not shares[i] and (_is_outside(trace, i) or _only_answers(flow[mine], ~received[mine])):
            result.append(i)
    return result


def _only_answers(flow: _Rows, sends: _Mask) -> bool:
    """Whether the sends and receives of a thread, in order, are those of a server that asks nobody else."""
    receives_on, sends_on = np.unique(flow[~sends]), np.unique(flow[sends])
    if len(receives_on) < 2 or len(np.setdiff1d(sends_on, receives_on)):
        return False
    before = _previous_of_flow(flow)
    known = before >= 0
    # a receive behind a send of the same connection: that exchange began at the send
    began = np.where(~sends & known & sends[before], before, -1)
    latest = np.maximum.accumulate(began)
    replies = sends & known & ~sends[before]
    return not bool((latest[replies] > before[replies]).any())


def _previous_of_flow(flow: _Rows) -> _Rows:
    """For each row the one before it of the same connection; -1 for the first."""
    order = np.argsort(flow, kind="stable")
    before = np.full(len(flow), -1, np.int64)
    same = flow[order[1:]] == flow[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


# how they are split ----------------------------------------------------------------------------------------


@attrs.define
class _Insert:
    """Rows that are put in: where (fiber, place), what, and their cells."""

    op: str
    thread: NDArray[Any]
    place: NDArray[Any]
    time_ns: NDArray[Any]
    cells: dict[str, Any]


class _Layout:
    """The rows of a trace on their way to their fibers."""

    def __init__(self, trace: Trace, split: list[int]) -> None:
        self.trace = trace
        self.c = c = trace.columns
        self.rows = len(c["op"])
        self.threads = len(trace.meta["threads"])
        self.bounds = np.searchsorted(c["thread"], np.arange(self.threads + 1))
        self.keep = np.ones(self.rows, bool)
        self.split = split
        self.flows: dict[int, _Rows] = {thread: self._order_of_flows(thread) for thread in split}
        fibers = np.ones(self.threads, np.int64)
        for thread, flows in self.flows.items():
            fibers[thread] = len(flows)
        self.fibers = fibers
        self.base = np.concatenate([[0], np.cumsum(fibers)])
        self.thread: _Rows = self.base[c["thread"]]
        self.peer = c["peer"].copy()
        self.inserts: list[_Insert] = []
        used = c["peer"][np.isin(c["op"], _ORDERED)]
        self.locks = int(used.max()) + 1 if len(used) else 0

    def _order_of_flows(self, thread: int) -> _Rows:
        """The connections of a thread, in the order in which it first used them."""
        a, b = self.bounds[thread : thread + 2]
        talk = np.isin(self.c["op"][a:b], (_SEND, _RECV))
        flows, first = np.unique(self.c["flow"][a:b][talk], return_index=True)
        return flows[np.argsort(first)].astype(np.int64)

    def _new_lock(self) -> int:
        self.locks += 1
        return self.locks - 1

    def _put(self, op: str, thread: Any, place: Any, time_ns: Any, **cells: Any) -> None:
        threads, places, times = np.broadcast_arrays(*(np.atleast_1d(x) for x in (thread, place, time_ns)))
        self.inserts.append(_Insert(op, threads, places, times, cells))

    def _own_flow(self, thread: int) -> tuple[_Rows, _Mask]:
        """For each row of a thread its connection (-1: none), and whether it is a send or receive.

        A mark without one is of the request that it encloses: it begins before a send and ends after a receive.
        """
        a, b = self.bounds[thread : thread + 2]
        op = self.c["op"][a:b]
        talk = (op == _SEND) | (op == _RECV)
        flow = np.where(talk, self.c["flow"][a:b], -1).astype(np.int64)
        marks = np.flatnonzero(np.isin(op, _MARKS))
        if len(marks):
            stated = self.c["flow"][a:b][marks].astype(np.int64)
            at = np.flatnonzero(talk)
            behind = np.searchsorted(at, marks)
            behind = behind - (op[marks] == _MARKS[1])
            near = flow[at[np.clip(behind, 0, len(at) - 1)]]
            flow[marks] = np.where(np.isin(stated, self.flows[thread]), stated, near)
        return flow, talk

    def _rank(self, thread: int, flow: _Rows) -> _Rows:
        """The fiber (index in the new trace) of each connection in `flow`."""
        flows = self.flows[thread]
        order = np.argsort(flows)
        return self.base[thread] + order[np.searchsorted(flows[order], flow)]

    def split_outside(self, thread: int, think: bool) -> None:
        """A fiber for each connection of a load generator; its own work becomes think time."""
        a, b = self.bounds[thread : thread + 2]
        op, time_ns = self.c["op"][a:b], self.c["time_ns"][a:b]
        flow, talk = self._own_flow(thread)
        # other outside threads may wait for this one: its wake-ups stay, behind what came before them
        wakes = op == _WAKE
        of_last = _filled(flow)
        flow = np.where(wakes, of_last, flow)
        stays = flow >= 0
        self.keep[a:b] = stays
        self.thread[a:b] = np.where(stays, self._rank(thread, np.where(stays, flow, self.flows[thread][0])), 0)
        if not think:
            return
        rows = np.flatnonzero(talk)
        before = _previous_of_flow(flow[rows])
        # a row ends where the next one begins; marks take no time, and carry the time when their receive began to wait
        ends = _next_true(~np.isin(op, _MARKS))
        ended_ns = np.where(before >= 0, time_ns[np.minimum(ends[rows[before] + 1], b - a - 1)], 0)
        think_ns = np.maximum(0, time_ns[rows] - ended_ns)
        pick = (op[rows] == _SEND) & (think_ns > 0)
        sends = rows[pick]
        first, before_first = _behind_previous(op, flow, sends)
        starts = np.maximum(time_ns[sends] - think_ns[pick], np.where(before_first >= 0, time_ns[before_first], 0))
        place = _STEP * (a + first) + _BEFORE
        self._put("outside", self.thread[a + sends], place, starts, duration_ns=think_ns[pick])

    def split_guest(self, thread: int) -> None:
        """A fiber for each connection of an event loop, one at a time."""
        a, b = (int(x) for x in self.bounds[thread : thread + 2])
        op, time_ns = self.c["op"][a:b], self.c["time_ns"][a:b]
        flow, _ = self._own_flow(thread)
        first = int(np.flatnonzero(flow >= 0)[0])
        leaves = op[-1] == OPS["exit"]
        end = b - a - (1 if leaves else 0)
        fiber = self._rank(thread, _filled(flow))
        self.thread[a:b] = fiber
        heads = (op == _RECV) | (op == _WAIT)
        starts = np.zeros(b - a, bool)
        starts[1:] = fiber[1:] != fiber[:-1]
        starts |= heads
        starts[first] = True
        starts[:first] = False
        starts[end:] = False
        start = np.flatnonzero(starts)
        last = np.append(start[1:], end) - 1
        locked_from = start + heads[start]
        held = locked_from <= last
        locked_from, last = locked_from[held], last[held]
        lock = self._new_lock()
        # before the first row under the lock: in an open loop nobody holds it before that row is due
        owner = fiber[locked_from]
        self._put("lock", owner, _STEP * (a + locked_from) + _FIRST, time_ns[locked_from], peer=lock, flags=FLAG_BLOCKS)
        self._put("unlock", owner, _STEP * (a + last) + _AFTER, time_ns[last], peer=lock)
        if first > 0:
            self._begin_together(thread, a, first)
        if leaves:
            self._leave_together(thread, a + end)

    def _begin_together(self, thread: int, a: int, first: int) -> None:
        """The rows of a thread before its first connection come before everything of the other fibers."""
        fibers = self._fibers_of(thread)
        starter = self.thread[a + first]
        others = fibers[fibers != starter]
        self.thread[a : a + first] = starter
        barrier, meet = self._new_lock(), len(fibers)
        self._put("barrier", others, -1, 0, peer=barrier, pages=meet, flags=FLAG_BLOCKS)
        at = _STEP * (a + first) + _BEFORE
        self._put("barrier", starter, at, self.c["time_ns"][a + first - 1], peer=barrier, pages=meet, flags=FLAG_BLOCKS)

    def _leave_together(self, thread: int, row: int) -> None:
        """The exit of a thread's process comes when all its fibers are done."""
        fibers = self._fibers_of(thread)
        leaver = self.thread[row] = self.thread[row - 1]
        others = fibers[fibers != leaver]
        barrier, meet = self._new_lock(), len(fibers)
        time_ns = self.c["time_ns"][row]
        self._put("barrier", others, _STEP * row + _BEFORE, time_ns, peer=barrier, pages=meet, flags=FLAG_BLOCKS)
        self._put("barrier", leaver, _STEP * row + _BEFORE, time_ns, peer=barrier, pages=meet, flags=FLAG_BLOCKS)

    def _fibers_of(self, thread: int) -> _Rows:
        return np.arange(self.base[thread], self.base[thread + 1])

    def retarget_wakes(self) -> None:
        """Every wake-up goes to the thread, or the fiber, with the wait that it ended."""
        c = self.c
        wakes = np.flatnonzero((c["op"] == _WAKE) & (c["peer"] >= 0) & (c["peer"] < self.threads))
        self.peer[wakes] = self.base[c["peer"][wakes]]
        for thread in self.split:
            mine = wakes[c["peer"][wakes] == thread]
            if not len(mine):
                continue
            a, b = self.bounds[thread : thread + 2]
            waits = a + np.flatnonzero(c["op"][a:b] == _WAIT)
            if _is_outside(self.trace, thread) or not len(waits):
                # what an outside thread waited for is in its think times
                self.keep[mine] = False
                continue
            mine = mine[np.argsort(c["time_ns"][mine], kind="stable")]
            ended = waits[np.minimum(np.arange(len(mine)), len(waits) - 1)]
            self.peer[mine] = self.thread[ended]

    def columns(self) -> dict[str, NDArray[Any]]:
        """All rows in the order of their fibers."""
        kept = np.flatnonzero(self.keep)
        thread = np.concatenate([self.thread[kept], *(x.thread for x in self.inserts)])
        place = np.concatenate([_STEP * kept + _ROW, *(x.place for x in self.inserts)])
        order = np.lexsort((place, thread))
        more = [self._cells(x) for x in self.inserts]
        made = {}
        for name, kind in COLUMNS.items():
            source = {"thread": self.thread, "peer": self.peer}.get(name, self.c[name])
            made[name] = np.concatenate([source[kept], *(x[name] for x in more)])[order].astype(kind, copy=False)
        return made

    @staticmethod
    def _cells(insert: _Insert) -> dict[str, NDArray[Any]]:
        columns = empty_columns(len(insert.thread))
        columns["op"][:] = OPS[insert.op]
        columns["thread"][:] = insert.thread
        columns["time_ns"][:] = insert.time_ns
        for name, values in insert.cells.items():
            columns[name][:] = values
        return columns

    def meta(self) -> dict[str, Any]:
        """The metadata with an entry for each fiber: the thread's, and of which thread and flow it is."""
        listed = []
        for i, entry in enumerate(self.trace.meta["threads"]):
            if i not in self.flows:
                listed.append(dict(entry))
                continue
            listed.extend({**entry, "fiber_of": i, "flow": int(flow)} for flow in self.flows[i])
        for i, entry in enumerate(listed):
            if "id" in entry:
                entry["id"] = i
        return {**self.trace.meta, "threads": listed}


def _filled(flow: _Rows) -> _Rows:
    """Each row's connection, or that of the last row that had one; at the start the first."""
    at = np.flatnonzero(flow >= 0)
    last = np.maximum.accumulate(np.where(flow >= 0, np.arange(len(flow)), -1))
    return np.where(last >= 0, flow[last], flow[at[0]])


def _behind_previous(op: NDArray[Any], flow: _Rows, sends: _Rows) -> tuple[_Rows, _Rows]:
    """For each send the first of the marks that begin right before it on its connection, else the send itself.

    And the row before that on the connection, -1 for none.
    """
    order = np.argsort(flow, kind="stable")
    at = np.arange(len(order))
    where = np.empty(len(order), np.int64)
    where[order] = at
    last_other = np.maximum.accumulate(np.where(op[order] == _MARKS[0], -1, at))
    group = np.searchsorted(flow[order], flow[sends])
    first = np.concatenate([[-1], last_other[:-1]])[where[sends]] + 1
    first = np.maximum(first, group)
    return order[first], np.where(first > group, order[first - 1], -1)


def _next_true(mask: _Mask) -> _Rows:
    """For each place, and one behind, the next one (itself included) where `mask` holds; the length where none is."""
    size = len(mask)
    at = np.where(mask, np.arange(size), size)
    result = np.minimum.accumulate(at[::-1])[::-1]
    return np.append(result, size)
