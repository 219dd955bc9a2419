"""A part of a trace, as a trace: what happened from one time to another.

The times are the recording's: an operation belongs to the part in which it began. What reaches over an edge of the part
is mended so that nothing in it waits for what lies outside:

- a sleep, and a wait of a kept duration, is clipped to the part;
- a wait and the wake-up that ends it (the k-th wake-up of a thread ends its k-th wait): if the thread was waiting when
  the part begins, it begins by waiting; if the wake-up comes after the part, the wait lasts, as a duration, to its end;
- a receive gets only bytes that are sent in the part: what was under way when it begins had been sent before;
- a thread that holds a lock when the part begins takes it first; one that holds it at the end gives it back;
- threads that meet at a barrier do so only if all of them reach it within the part;
- a request (mark) counts if it begins and ends in the part.

Memory that a process held when the part begins is touched at its beginning (flag "sampled"), with the contents that it
had; file pages that had been used are listed as `warm`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.check import LONGEST_NS
from hvbench.traces.format import FLAG_SAMPLED, FLAG_WRITE, OPS, Trace, make_trace
from hvbench.traces.handle.derived import (
    Columns,
    columns_of,
    derivation,
    is_op,
    joined,
    needs_operations,
    row,
    taken,
)
from hvbench.traces.record.procfs import runs
from hvbench.units import rounded_duration

_CLIPPED = ("sleep", "outside", "unknown")
_FILE_USE = ("mtouch", "fread", "fwrite")


def cut(trace: Trace, from_ns: int, to_ns: int) -> Trace:
    """The part [from_ns, to_ns) of a valid trace, its times counted from `from_ns`. Raises UserError."""
    needs_operations(trace, "cut")
    span = int(trace.meta["span_ns"])
    where = trace.path or trace.name
    to_ns = min(to_ns, span)
    if not 0 <= from_ns < to_ns:
        raise UserError(
            f"{where}: --from {rounded_duration(from_ns)} to {rounded_duration(to_ns)} is no part of a trace of "
            f"{rounded_duration(span)}; --from has to lie before --to and before the end"
        )
    part = _Part(trace, from_ns, to_ns)
    columns = part.build()
    if not len(columns["op"]):
        part_of = f"from {rounded_duration(from_ns)} to {rounded_duration(to_ns)}"
        raise UserError(f"{where}: nothing happens {part_of}; take a longer part")
    return part.trace_of(columns)


class _Part:
    """One cut: which rows stay, which are changed, which are added."""

    def __init__(self, trace: Trace, start: int, end: int) -> None:
        self.trace, self.start, self.end = trace, start, end
        # what stands at the very end of the recording belongs to the part that goes up to it
        self.until = end if end < int(trace.meta["span_ns"]) else LONGEST_NS + 1
        self.source = trace.columns
        self.c = {name: values.copy() for name, values in trace.columns.items()}
        time = self.c["time_ns"]
        self.keep: NDArray[np.bool_] = (time >= start) & (time < self.until)
        self.order = np.argsort(time, kind="stable")
        self.first: list[dict[str, int]] = []  # before everything else in the part
        self.last: list[dict[str, int]] = []  # behind it
        self.warm: list[list[int]] = []

    def build(self) -> Columns:
        self._durations()
        self._waits()
        self._messages()
        self._locks()
        self._barriers()
        self._marks()
        self._memory()
        kept = taken(self.c, self.keep)
        kept["time_ns"] = np.clip(kept["time_ns"], self.start, None) - self.start
        exits = set(kept["thread"][is_op(kept, "exit")].tolist())
        last = [made for made in self.last if made["thread"] not in exits]
        return joined([columns_of(self.first), kept, columns_of(last)])

    def _in_time(self, *names: str) -> list[int]:
        """Rows of these operations, in the order of the recording."""
        return self.order[is_op(self.c, *names)[self.order]].tolist()

    def _durations(self) -> None:
        """Clip what has a duration of its own to the part."""
        c = self.c
        timed = is_op(c, *_CLIPPED)
        begins = c["time_ns"]
        ends = begins + c["duration_ns"]
        inside = timed & (ends > self.start) & (begins < self.until)
        c["duration_ns"][inside] = (np.minimum(ends, self.until) - np.maximum(begins, self.start))[inside]
        self.keep |= inside

    def _waits(self) -> None:
        """The k-th wake-up of a thread ends its k-th wait: keep both, or mend what is left of them."""
        c, time = self.c, self.c["time_ns"]
        waits: dict[int, list[int]] = {}
        wakes: dict[int, list[int]] = {}
        for at in self._in_time("wait"):
            waits.setdefault(int(c["thread"][at]), []).append(at)
        for at in self._in_time("wake"):
            wakes.setdefault(int(c["peer"][at]), []).append(at)
        for thread, waiting in waits.items():
            for wait, wake in zip(waiting, wakes.get(thread, ()), strict=False):
                begins, ends = int(time[wait]), int(time[wake])
                self.keep[wait] = begins < self.until and self.start <= ends < self.until
                self.keep[wake] = self.keep[wait]
                if begins < self.until <= ends:
                    self.keep[wait] = True
                    c["op"][wait] = OPS["outside"]
                    c["duration_ns"][wait] = self.end - max(begins, self.start)

    def _messages(self) -> None:
        """Receives take, in their order, the bytes that are sent in the part and no others."""
        c, time = self.c, self.c["time_ns"]
        tiers = [thread["tier"] for thread in self.trace.meta["threads"]]
        flows = self.trace.meta["flows"]
        before: dict[tuple[int, int], int] = {}
        within: dict[tuple[int, int], int] = {}
        for at in self._in_time("send"):
            flow = int(c["flow"][at])
            end = 1 - flows[flow]["ends"].index(tiers[c["thread"][at]])
            if time[at] < self.until:
                sums = before if time[at] < self.start else within
                sums[flow, end] = sums.get((flow, end), 0) + int(c["bytes"][at])
        received: dict[tuple[int, int], int] = {}
        for at in self._in_time("recv"):
            if time[at] >= self.until:
                continue
            flow = int(c["flow"][at])
            key = (flow, flows[flow]["ends"].index(tiers[c["thread"][at]]))
            first = received.get(key, 0)
            received[key] = first + int(c["bytes"][at])
            there = before.get(key, 0)
            got = min(received[key], there + within.get(key, 0)) - max(first, there)
            self.keep[at] = got > 0
            if got > 0:
                c["bytes"][at] = got

    def _locks(self) -> None:
        c, time = self.c, self.c["time_ns"]
        held_before: dict[tuple[int, int], bool] = {}
        held_after: dict[tuple[int, int], bool] = {}
        for at in self._in_time("lock", "unlock"):
            key = (int(c["thread"][at]), int(c["peer"][at]))
            taken_now = bool(c["op"][at] == OPS["lock"])
            if time[at] < self.start:
                held_before[key] = taken_now
            if time[at] < self.until:
                held_after[key] = taken_now
        flags = {(int(c["peer"][at])): int(c["flags"][at]) for at in self._in_time("lock")}
        self.first += [
            row("lock", thread, 0, peer=lock, flags=flags[lock]) for (thread, lock), held in held_before.items() if held
        ]
        self.last += [
            row("unlock", thread, self.end - self.start, peer=lock)
            for (thread, lock), held in held_after.items()
            if held
        ]

    def _barriers(self) -> None:
        """A meeting counts if all who meet come within the part."""
        c = self.c
        arrivals: dict[int, list[int]] = {}
        for at in self._in_time("barrier"):
            mine = arrivals.setdefault(int(c["peer"][at]), [])
            mine.append(at)
            if len(mine) >= c["pages"][at]:
                self.keep[mine] = bool(self.keep[mine].all())
                mine.clear()
        for unfinished in arrivals.values():
            self.keep[unfinished] = False

    def _marks(self) -> None:
        c = self.c
        open_marks: dict[tuple[int, int], list[int]] = {}
        for at in self._in_time("mark_begin", "mark_end"):
            stack = open_marks.setdefault((int(c["thread"][at]), int(c["flow"][at])), [])
            if c["op"][at] == OPS["mark_begin"]:
                stack.append(at)
            elif stack:
                begin = stack.pop()
                self.keep[begin] = self.keep[at] = bool(self.keep[begin] and self.keep[at])
        for stack in open_marks.values():
            self.keep[stack] = False

    def _memory(self) -> None:
        """What was in memory when the part begins: touched first (anonymous), warm (files), with its contents."""
        c, time = self.c, self.c["time_ns"]
        objects, threads = self.trace.meta["objects"], self.trace.meta["threads"]
        resident = {i: np.zeros(item["pages"], bool) for i, item in enumerate(objects)}
        contents: dict[tuple[int, int], tuple[int, int]] = {}
        of_process: dict[int, list[int]] = {}
        for i, item in enumerate(objects):
            if item["kind"] == "anon":
                of_process.setdefault(int(item.get("process", -1)), []).append(i)
        toucher: dict[int, int] = {}
        for at in self._in_time("touch", "free", "exit", "content", *_FILE_USE):
            if time[at] >= self.start:
                break
            index, op = int(c["object"][at]), int(c["op"][at])
            if op == OPS["exit"]:
                for mine in of_process.get(int(threads[c["thread"][at]]["process"]), ()):
                    resident[mine][:] = False
                continue
            pages = slice(int(c["page"][at]), int(c["page"][at]) + int(c["pages"][at]))
            if op == OPS["content"]:
                for page in range(pages.start, pages.stop):
                    contents[index, page] = int(c["content"][at]), int(c["flags"][at])
                continue
            resident[index][pages] = op != OPS["free"]
            toucher[index] = int(c["thread"][at])
        for index, there in resident.items():
            if not there.any():
                continue
            thread = self._first_thread(int(objects[index].get("process", -1)), toucher[index])
            for first, count in runs(np.flatnonzero(there)):
                if objects[index]["kind"] == "anon":
                    flags = FLAG_WRITE | FLAG_SAMPLED
                    self.first.append(row("alloc", thread, 0, object=index, page=first, pages=count))
                    self.first.append(row("touch", thread, 0, object=index, page=first, pages=count, flags=flags))
                else:
                    self.warm.append([index, first, count])
        for (index, page), (content, flags) in contents.items():
            if resident[index][page]:
                thread = self._first_thread(int(objects[index].get("process", -1)), toucher[index])
                self.first.append(
                    row("content", thread, 0, object=index, page=page, pages=1, content=content, flags=flags)
                )

    def _first_thread(self, process: int, otherwise: int) -> int:
        """The thread that brings a process's memory back: its first in the part, as it is there from the beginning."""
        threads = self.trace.meta["threads"]
        mine = [i for i, thread in enumerate(threads) if thread["process"] == process and thread["role"] == "guest"]
        active = set(np.unique(self.c["thread"][self.keep]).tolist())
        return next((i for i in mine if i in active), mine[0] if mine else otherwise)

    def trace_of(self, columns: Columns) -> Trace:
        """Number the threads that are left, and say what was done."""
        meta = dict(self.trace.meta)
        wakes = is_op(columns, "wake")
        used = np.unique(np.concatenate([columns["thread"], columns["peer"][wakes]]))
        columns["thread"] = np.searchsorted(used, columns["thread"]).astype(np.int32)
        columns["peer"][wakes] = np.searchsorted(used, columns["peer"][wakes])
        meta["threads"] = [{**meta["threads"][old], "id": new} for new, old in enumerate(used.tolist())]
        meta["span_ns"] = self.end - self.start
        meta["warm"] = _joined_warm([*meta.get("warm", []), *self.warm], len(meta["objects"]))
        how: dict[str, Any] = {"from_ns": self.start, "to_ns": self.end, "of_ns": int(self.trace.meta["span_ns"])}
        meta["derived"] = [*meta.get("derived", []), derivation("cut", [self.trace], how)]
        return make_trace(meta, columns)


def _joined_warm(warm: list[list[int]], objects: int) -> list[list[int]]:
    """Warm pages as runs without overlaps."""
    pages: list[list[NDArray[np.int64]]] = [[] for _ in range(objects)]
    for index, first, count in warm:
        pages[index].append(np.arange(first, first + count))
    return [
        [index, first, count]
        for index, parts in enumerate(pages)
        if parts
        for first, count in runs(np.concatenate(parts))
    ]
