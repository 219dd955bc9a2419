"""Is a trace replayable? Every rule of the format that the file's types do not already hold.

`check_trace` returns *all* problems up to a bound, each with the row (0 is the first) where it was seen, so
that whoever writes an importer can mend them in one go. An empty list means that a replay can neither index
outside of anything nor wait for a wake-up, a byte or a lock that never comes in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.traces.format import (
    ALL_FLAGS,
    OBJECT_KINDS,
    OP_NAMES,
    OPS,
    OUTSIDE,
    PRIVILEGED,
    PROTOCOLS,
    ROLES,
    Trace,
    TraceError,
    read_trace,
)

#: How many problems of one kind are listed row by row before the rest are only counted.
PER_KIND = 5

FILE_OPS = ("mtouch", "fread", "fwrite", "fsync")
ANON_OPS = ("alloc", "free", "touch")
RANGE_OPS = ("alloc", "free", "touch", "mtouch", "fread", "fwrite", "content")
FILE_KINDS = ("image", "own")
#: Largest index or count of pages.
INT32_MOST = 2**31 - 1
#: Longest time that one row or a whole trace may take, about two years: sums of a few stay within 64 bits.
LONGEST_NS = 1 << 56
#: Longest message, and last block.
MOST = 1 << 48
MARK_OPS = ("mark_begin", "mark_end")


@define(frozen=True)
class Problem:
    """One thing wrong with a trace; `row` is -1 where it is about the metadata or the whole file."""

    row: int
    text: str

    def __str__(self) -> str:
        return self.text if self.row < 0 else f"row {self.row}: {self.text}"


def open_trace(path: Path | str) -> Trace:
    """`read_trace`, that tells a demand table apart from a damaged trace. Raises `TraceError`."""
    try:
        return read_trace(path)
    except TraceError as error:
        from hvbench.traces.demand import expand_hint, read_meta

        meta = read_meta(Path(path))
        if meta is None:
            raise
        raise TraceError(f"{path}: {expand_hint(Path(path), meta)}") from error


def check_file(path: Path | str, limit: int = 50) -> list[Problem]:
    """`check_trace` of a file; what keeps it from being read at all raises `TraceError`."""
    return check_trace(open_trace(path), limit)


def require_valid(trace: Trace) -> None:
    """Raise `TraceError` with the first problem and the number of all, if there are any."""
    problems = check_trace(trace)
    if problems:
        more = f" (and {len(problems) - 1} more: `hvbench trace check` lists them)" if len(problems) > 1 else ""
        raise TraceError(f"{trace.path or trace.name}: {problems[0]}{more}")


def check_trace(trace: Trace, limit: int = 50) -> list[Problem]:
    """All problems of a trace, by row, at most `limit` of them."""
    try:
        problems = list(_metadata_problems(trace.meta))
    except (AttributeError, TypeError) as error:  # a list where a table has to be, a table where a name has to be
        problems = [Problem(-1, f"metadata: malformed: {error}")]
    if not problems:  # rows point into the metadata: they mean nothing while it is broken
        checker = _Rows(trace)
        problems.extend(checker.run())
    problems.sort(key=lambda problem: problem.row)
    return problems[:limit]


# ---------------------------------------------------------------- metadata


def _is_count(value: Any, most: int = INT32_MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _metadata_problems(meta: dict[str, Any]) -> Iterator[Problem]:
    for key, kind in (("threads", list), ("objects", list), ("flows", list), ("tiers", list)):
        if not isinstance(meta.get(key), kind):
            yield Problem(-1, f"metadata: {key} is missing or not a list")
            return
    if not _is_count(meta.get("span_ns"), LONGEST_NS):
        yield Problem(-1, f"metadata: span_ns is {meta.get('span_ns')!r}; it has to be a number of ns, 0 or more")
    tiers = meta["tiers"]
    known = {*tiers, OUTSIDE}
    for i, thread in enumerate(meta["threads"]):
        if thread.get("role") not in ROLES:
            yield Problem(-1, f"metadata: threads[{i}].role is {thread.get('role')!r}; legal: {', '.join(ROLES)}")
        if thread.get("tier") not in known:
            yield Problem(-1, f"metadata: threads[{i}].tier is {thread.get('tier')!r}; tiers: {', '.join(tiers)}")
        if (thread.get("role") == OUTSIDE) != (thread.get("tier") == OUTSIDE):
            yield Problem(-1, f"metadata: threads[{i}] has role {thread.get('role')!r} and tier {thread.get('tier')!r}")
        if thread.get("replay", "closed") not in ("closed", "open"):
            yield Problem(-1, f"metadata: threads[{i}].replay is {thread['replay']!r}; legal: closed, open")
        if not _is_count(thread.get("process")):
            yield Problem(-1, f"metadata: threads[{i}].process is {thread.get('process')!r}; it has to be 0 or more")
    for i, item in enumerate(meta["objects"]):
        if item.get("kind") not in OBJECT_KINDS:
            yield Problem(-1, f"metadata: objects[{i}].kind is {item.get('kind')!r}; legal: {', '.join(OBJECT_KINDS)}")
        if not isinstance(item.get("process", -1), int):
            yield Problem(-1, f"metadata: objects[{i}].process is {item['process']!r}; it has to be a whole number")
        if not _is_count(item.get("pages")):
            yield Problem(-1, f"metadata: objects[{i}].pages is {item.get('pages')!r}; it has to be 0 or more")
    for i, item in enumerate(meta.get("warm", [])):
        if not (isinstance(item, list) and len(item) == 3 and all(map(_is_count, item))):
            yield Problem(-1, f"metadata: warm[{i}] is {item!r}; it has to be [object, first page, pages]")
        elif item[0] >= len(meta["objects"]) or meta["objects"][item[0]].get("kind") not in FILE_KINDS:
            yield Problem(-1, f"metadata: warm[{i}] is of object {item[0]}, which is no file")
    for i, flow in enumerate(meta["flows"]):
        if flow.get("proto") not in PROTOCOLS:
            yield Problem(-1, f"metadata: flows[{i}].proto is {flow.get('proto')!r}; legal: {', '.join(PROTOCOLS)}")
        ends = flow.get("ends")
        if not (isinstance(ends, list) and len(ends) == 2 and set(ends) <= known and ends[0] != ends[1]):
            yield Problem(-1, f"metadata: flows[{i}].ends is {ends!r}; it has to name two different tiers")
    for key, share in meta.get("wait_shares", {}).items():
        if not (isinstance(share, int | float) and -1e-9 <= share <= 1 + 1e-9):
            yield Problem(-1, f"metadata: wait_shares.{key} is {share!r}; it has to lie in [0, 1]")


# ---------------------------------------------------------------- rows


class _Rows:
    """The checks over rows, vectorised; each is a generator of problems."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.meta = trace.meta
        self.c = trace.columns
        self.op: NDArray[Any] = trace.columns["op"]

    def run(self) -> Iterator[Problem]:
        if not len(self.op):
            yield Problem(-1, "the trace has no rows")
            return
        if self.trace.is_base_image:
            other = self.op != OPS["content"]
            yield from self._list(other, lambda r: f"{self._name(r)} in a base image; only content rows are legal")
        yield from self._indices()
        yield from self._times()
        yield from self._amounts()
        yield from self._pages()
        yield from self._edges()
        yield from self._flows()
        yield from self._threads()

    def _name(self, row: int) -> str:
        return OP_NAMES[int(self.op[row])]

    def _is(self, *names: str) -> NDArray[np.bool_]:
        return np.isin(self.op, [OPS[name] for name in names])

    def _list(self, mask: NDArray[np.bool_], text: Any) -> Iterator[Problem]:
        """A problem for each of the first rows of `mask`, and one for the rest."""
        rows = np.flatnonzero(mask)
        for row in rows[:PER_KIND].tolist():
            yield Problem(row, text(row))
        if len(rows) > PER_KIND:
            last = int(rows[PER_KIND])
            yield Problem(last, f"{text(last)} (and {len(rows) - PER_KIND - 1} more rows like it)")

    def _range(self, column: str, size: int, mask: NDArray[np.bool_], what: str) -> Iterator[Problem]:
        values = self.c[column]
        bad = mask & ((values < 0) | (values >= size))
        legal = f"legal: 0 to {size - 1}" if size else f"the trace has no {what}s"
        yield from self._list(bad, lambda r: f"{self._name(r)}: {what} {values[r]} out of range; {legal}")

    def _indices(self) -> Iterator[Problem]:
        everything = np.ones(len(self.op), dtype=bool)
        yield from self._range("thread", len(self.meta["threads"]), everything, "thread")
        with_object = self._is(*ANON_OPS, *FILE_OPS, "content")
        yield from self._range("object", len(self.meta["objects"]), with_object, "object")
        yield from self._range("flow", len(self.meta["flows"]), self._is("send", "recv"), "flow")
        marks = self._is(*MARK_OPS) & (self.c["flow"] != -1)
        yield from self._range("flow", len(self.meta["flows"]), marks, "flow")
        yield from self._range("peer", len(self.meta["threads"]), self._is("wake"), "peer")
        # locks and barriers are numbered from 0, and no more of them than rows
        yield from self._range("peer", len(self.op), self._is("lock", "unlock", "barrier"), "lock")
        flags = self.c["flags"]
        yield from self._list(
            (flags & ~ALL_FLAGS) != 0,
            lambda r: f"{self._name(r)}: unknown flags {flags[r]}; legal bits: 1, 2, 4",
        )

    def _times(self) -> Iterator[Problem]:
        time, thread = self.c["time_ns"], self.c["thread"]
        yield from self._list(
            time > LONGEST_NS, lambda r: f"{self._name(r)}: time {time[r]} ns is above {LONGEST_NS} ns"
        )
        yield from self._list(time < 0, lambda r: f"{self._name(r)}: negative time: {time[r]} ns")
        order = np.zeros(len(self.op), dtype=bool)
        order[1:] = thread[1:] < thread[:-1]
        yield from self._list(order, lambda r: f"thread {thread[r]} after thread {thread[r - 1]}: rows are not sorted")
        back = np.zeros(len(self.op), dtype=bool)
        back[1:] = (thread[1:] == thread[:-1]) & (time[1:] < time[:-1])
        yield from self._list(
            back, lambda r: f"thread {thread[r]}: time runs backwards, from {time[r - 1]} ns to {time[r]} ns"
        )

    def _amounts(self) -> Iterator[Problem]:
        for column in ("user_ns", "kernel_ns", "duration_ns", *PRIVILEGED, "pages", "page", "bytes"):
            values = self.c[column]
            yield from self._list(
                values < 0,
                lambda r, values=values, column=column: f"{self._name(r)}: negative {column}: {values[r]}",
            )
        for column, most in (
            ("user_ns", LONGEST_NS),
            ("kernel_ns", LONGEST_NS),
            ("duration_ns", LONGEST_NS),
            ("page", MOST),
            ("bytes", MOST),
        ):
            values = self.c[column]
            yield from self._list(
                values > most,
                lambda r, values=values, column=column, most=most: (
                    f"{self._name(r)}: {column} is {values[r]}; {most} at most"
                ),
            )
        compute = self._is("compute")
        for column in ("user_ns", "kernel_ns", *PRIVILEGED):
            values = self.c[column]
            yield from self._list(
                ~compute & (values != 0),
                lambda r, values=values, column=column: f"{self._name(r)}: {column} is {values[r]} outside a compute",
            )

    def _pages(self) -> Iterator[Problem]:
        objects = self.meta["objects"]
        index = self.c["object"]
        known = (index >= 0) & (index < len(objects))
        if not objects:
            return
        size = np.array([item["pages"] for item in objects], dtype=np.int64)[np.where(known, index, 0)]
        first, count = self.c["page"], self.c["pages"].astype(np.int64)
        ranged = self._is(*RANGE_OPS) & known & (first >= 0) & (count >= 0)
        yield from self._list(
            ranged & (first + count > size),
            lambda r: (
                f"{self._name(r)}: pages {first[r]} to {first[r] + count[r] - 1} lie outside object "
                f"{index[r]}, which has {size[r]} pages"
            ),
        )
        yield from self._list(ranged & (count == 0), lambda r: f"{self._name(r)}: 0 pages")
        anon = np.array([item["kind"] == "anon" for item in objects])[np.where(known, index, 0)]
        yield from self._list(
            known & self._is(*ANON_OPS) & ~anon, lambda r: f"{self._name(r)}: object {index[r]} is a file"
        )
        yield from self._list(
            known & self._is(*FILE_OPS) & anon,
            lambda r: f"{self._name(r)}: object {index[r]} is anonymous memory",
        )
        owner = np.array([item.get("process", -1) for item in objects], dtype=np.int64)[np.where(known, index, 0)]
        shared = np.array([bool(item.get("shared")) for item in objects])[np.where(known, index, 0)]
        threads = self.meta["threads"]
        thread = self.c["thread"]
        if threads and not self.trace.is_base_image:
            valid = known & (thread >= 0) & (thread < len(threads))
            process = np.array([t["process"] for t in threads], dtype=np.int64)[np.where(valid, thread, 0)]
            yield from self._list(
                valid & anon & ~shared & self._is(*ANON_OPS) & (owner != process),
                lambda r: (
                    f"{self._name(r)}: object {index[r]} belongs to process {owner[r]}, not to process {process[r]}"
                ),
            )

    def _edges(self) -> Iterator[Problem]:
        """Every wait can be ended: as many wake-ups of a thread as it has waits; wakes stay within a tier."""
        threads = self.meta["threads"]
        count = len(threads)
        peer, thread = self.c["peer"], self.c["thread"]
        wakes = self._is("wake") & (peer >= 0) & (peer < count)
        waits = self._is("wait") & (thread >= 0) & (thread < count)
        woken = np.bincount(peer[wakes], minlength=count)
        waiting = np.bincount(thread[waits], minlength=count)
        for index in np.flatnonzero(waiting > woken).tolist():
            rows = np.flatnonzero(waits & (thread == index))
            row = int(rows[woken[index]])
            yield Problem(
                row,
                f"wait of thread {index} has no wake-up that could end it: {waiting[index]} waits, "
                f"{woken[index]} wake-ups",
            )
        if count:
            tiers: dict[str, int] = {}
            tier = np.array([tiers.setdefault(t["tier"], len(tiers)) for t in threads])
            valid = wakes & (thread >= 0) & (thread < count)
            across = np.zeros(len(self.op), dtype=bool)
            across[valid] = tier[thread[valid]] != tier[peer[valid]]
            yield from self._list(
                across,
                lambda r: (
                    f"wake: thread {thread[r]} ({threads[thread[r]]['tier']}) wakes thread {peer[r]} "
                    f"({threads[peer[r]]['tier']}); tiers reach each other through flows only"
                ),
            )
            yield from self._list(wakes & (peer == thread), lambda r: f"wake: thread {thread[r]} wakes itself")

    def _flows(self) -> Iterator[Problem]:
        """Senders and receivers stand at an end of the flow; no end receives more than was sent to it."""
        flows, threads = self.meta["flows"], self.meta["threads"]
        flow, thread, amount = self.c["flow"], self.c["thread"], self.c["bytes"]
        valid = (flow >= 0) & (flow < len(flows)) & (thread >= 0) & (thread < len(threads))
        rows = np.flatnonzero(valid & self._is("send", "recv") & (amount >= 0))
        sent: dict[tuple[int, int], int] = {}
        strangers = 0
        receives: list[tuple[int, int, int]] = []
        for row in rows.tolist():
            ends = flows[flow[row]]["ends"]
            tier = threads[thread[row]]["tier"]
            if tier not in ends:
                strangers += 1
                if strangers <= PER_KIND:
                    yield Problem(
                        row,
                        f"{self._name(row)}: thread {thread[row]} is of tier {tier}, flow {flow[row]} joins "
                        f"{ends[0]} and {ends[1]}",
                    )
                continue
            end = ends.index(tier)
            if amount[row] == 0:
                yield Problem(row, f"{self._name(row)}: 0 bytes")
            elif self.op[row] == OPS["send"]:
                key = (int(flow[row]), 1 - end)
                sent[key] = sent.get(key, 0) + int(amount[row])
            else:
                receives.append((row, int(flow[row]), end))
        received: dict[tuple[int, int], int] = {}
        reported: set[tuple[int, int]] = set()
        for row, index, end in receives:
            key = (index, end)
            received[key] = received.get(key, 0) + int(amount[row])
            if received[key] > sent.get(key, 0) and key not in reported:
                reported.add(key)
                yield Problem(
                    row,
                    f"recv: flow {index}: {received[key]} bytes received at end {end} "
                    f"({flows[index]['ends'][end]}), but only {sent.get(key, 0)} were ever sent to it",
                )

    def _threads(self) -> Iterator[Problem]:
        """What has to hold along one thread: marks pair up, who unlocks holds the lock, exit is last."""
        thread, peer = self.c["thread"], self.c["peer"]
        interesting = np.flatnonzero(self._is("mark_begin", "mark_end", "lock", "unlock", "exit"))
        depth: dict[tuple[int, int], int] = {}
        flow = self.c["flow"]
        held: dict[int, set[int]] = {}
        exited: dict[int, int] = {}
        threads = self.meta["threads"]
        for row in interesting.tolist():
            index, name = int(thread[row]), self._name(row)
            mark = (index, int(flow[row]))  # requests on different flows may overlap
            if name == "mark_begin":
                depth[mark] = depth.get(mark, 0) + 1
            elif name == "mark_end":
                if depth.get(mark, 0) == 0:
                    yield Problem(row, f"mark_end of thread {index} without a mark_begin")
                else:
                    depth[mark] -= 1
            elif name == "lock":
                if int(peer[row]) in held.setdefault(index, set()):
                    yield Problem(row, f"lock: thread {index} holds lock {peer[row]} already")
                held[index].add(int(peer[row]))
            elif name == "unlock":
                if int(peer[row]) not in held.get(index, set()):
                    yield Problem(row, f"unlock: thread {index} does not hold lock {peer[row]}")
                held.get(index, set()).discard(int(peer[row]))
            elif 0 <= index < len(threads):
                process = threads[index]["process"]
                if process in exited:
                    yield Problem(row, f"exit: process {process} has exited in row {exited[process]} already")
                exited[process] = row
                if row + 1 < len(self.op) and thread[row + 1] == thread[row]:
                    yield Problem(row, f"exit of thread {index} is not its last row")
        for index, locks in held.items():
            if locks:
                yield Problem(-1, f"thread {index} ends holding lock {min(locks)}")
