"""From a timeline to a trace: choose who is in it, number everything, close what is open.

Every row that could make a replay wait for ever is mended here or dropped, and what was dropped is said in
the metadata: the recording itself is a schedule in which nobody waited for ever, so rows in its order cannot
deadlock as long as each wait's wake-up and each receive's bytes are in the trace.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from typing import Any, Final

from attrs import define, field

from hvbench.traces.format import (
    COLUMNS,
    FLAG_SAMPLED,
    FLAG_WRITE,
    OPS,
    OUTSIDE,
    empty_columns,
    name_hash,
)
from hvbench.traces.record.contents import content_rows, retouch
from hvbench.traces.record.flows import Connection, Sockets
from hvbench.traces.record.memory import FileObject
from hvbench.traces.record.peers import by_peer
from hvbench.traces.record.procfs import ProcessState, runs
from hvbench.traces.record.rows import WAIT_CLASSES, Process, Row, Thread
from hvbench.traces.record.syscall_classes import by_class
from hvbench.traces.record.timeline import Timeline

GUEST_TIER: Final = "guest"
MEMORY_OPS: Final = frozenset({"alloc", "free", "touch", "mtouch", "fread", "fwrite", "fsync", "content"})


@define
class Selection:
    """Who belongs where: the first pattern that a name of the process matches decides."""

    tiers: list[tuple[str, re.Pattern[str]]] = field(factory=list)
    outside: list[re.Pattern[str]] = field(factory=list)

    def tier(self, process: Process) -> str:
        names = [name for name in process.names if name]
        if any(pattern.search(name) for pattern in self.outside for name in names):
            return OUTSIDE
        for tier, pattern in self.tiers:
            if any(pattern.search(name) for name in names):
                return tier
        return "" if self.tiers else GUEST_TIER

    @property
    def tier_names(self) -> list[str]:
        names = list(dict.fromkeys(tier for tier, _ in self.tiers))
        return names or [GUEST_TIER]


@define
class Built:
    """The parts of a trace that come from the events: columns, and the metadata that describes them."""

    meta: dict[str, Any]
    columns: dict[str, Any]


@define
class Builder:
    """Turns a finished `Timeline` and snapshots into rows of the format."""

    timeline: Timeline
    selection: Selection
    seed: int = 0
    before: list[ProcessState] = field(factory=list)  # at the start of the recording
    snapshots: list[list[ProcessState]] = field(factory=list)  # later ones, in time order
    common: frozenset[int] = frozenset()  # contents also seen in another run
    files: dict[tuple[str, int], tuple[str, int, float]] = field(factory=dict)
    started_at: float = 0.0  # wall clock, to tell old files from new
    hide_names: bool = False
    keep_names: bool = False
    degraded: list[str] = field(factory=list)
    flows: dict[Connection, int] = field(factory=dict)
    flow_list: list[dict[str, Any]] = field(factory=list)
    peers: list[dict[str, Any]] = field(factory=list)
    clamped: int = 0
    warm: list[tuple[FileObject, int, int]] = field(factory=list)  # cached when the recording began
    warm_list: list[tuple[int, int, int]] = field(factory=list)
    shared_seen: set[tuple[FileObject, int, int]] = field(factory=set)

    def build(self) -> Built:
        line = self.timeline
        for process in line.processes:
            process.tier = self.selection.tier(process)
        self._name_files()
        self._drop_unused_rows()
        self._edges()
        self._flows()
        self._join_replies()
        self._initial_memory()
        retouch(self)
        content_rows(self)
        self._marks()
        threads = self._number_threads()
        self._allocations()
        self._exits()
        return self._columns(threads)

    # ------------------------------------------------------------ who

    def members(self) -> list[Thread]:
        return [thread for process in self.timeline.processes if process.tier for thread in process.threads]

    def guests(self) -> list[Process]:
        return [process for process in self.timeline.processes if process.tier not in ("", OUTSIDE)]

    def _number_threads(self) -> list[Thread]:
        chosen = [thread for thread in self.members() if thread.rows]
        # a waker or a sleeper without rows of its own cannot be: both ends of an edge are rows
        for index, thread in enumerate(chosen):
            thread.index = index
        return chosen

    def _drop_unused_rows(self) -> None:
        """The world outside has no memory and no files: only its messages, its waits and its thinking."""
        for thread in self.members():
            if thread.process.tier == OUTSIDE:
                thread.rows = [row for row in thread.rows if row.op not in MEMORY_OPS]

    # ------------------------------------------------------------ edges

    def _edges(self) -> None:
        """Keep edges within a tier; others become what they are to the sleeper: something from outside."""
        kept: set[int] = set()
        for thread in self.members():
            for row in thread.rows:
                if row.op != "wait":
                    continue
                waker, wake = row.at["edge"]
                if waker.process.tier == thread.process.tier:
                    kept.add(id(wake))
                else:
                    row.op = "outside"
                    row.at = {"duration_ns": row.at["took"]}
                    thread.waited["thread_edge"] -= row.at["duration_ns"]
                    thread.waited["outside"] += row.at["duration_ns"]
        for thread in self.members():
            thread.rows = [row for row in thread.rows if row.op != "wake" or id(row) in kept]

    # ------------------------------------------------------------ flows

    def _flows(self) -> None:
        """Give messages their flows; afterwards no end receives what was not sent to it before."""
        sockets = Sockets()
        sockets.learn(self.timeline.sockets, self.timeline.opened)
        self.peers = by_peer(self.timeline, sockets, self.guests(), self.keep_names)
        ends: dict[tuple[Connection, int], Counter[str]] = {}
        nameless = 0
        for thread in self.members():
            for row in thread.rows:
                if row.op not in ("send", "recv"):
                    continue
                named = sockets.name(row.at["socket"], row.at["when"])
                if named is None:
                    nameless += 1
                    continue
                connection, port = named
                row.at["connection"], row.at["port"] = connection, port
                ends.setdefault((connection, port), Counter())[thread.process.tier] += 1
        if nameless:
            self.degraded.append(
                f"{nameless} messages belong to sockets that never received anything in the recording: left out"
            )
        connections: dict[Connection, list[str]] = {}
        for connection in sorted({connection for connection, _ in ends}):
            low, high, _ = connection
            pair = []
            for port in (low, high):
                tiers = ends.get((connection, port))
                pair.append(tiers.most_common(1)[0][0] if tiers else OUTSIDE)
            connections[connection] = pair
        inner = 0
        for thread in self.members():
            rows: list[Row] = []
            for row in thread.rows:
                if row.op in ("send", "recv"):
                    found = row.at.get("connection")
                    pair = connections.get(found, []) if found else []
                    if found is None or pair[0] == pair[1] or thread.process.tier not in pair:
                        inner += found is not None
                        if row.at.get("blocked"):
                            self._as_outside(thread, row)
                            rows.append(row)
                        continue
                    row.at["flow"] = self._flow(found, pair)
                rows.append(row)
            thread.rows = rows
        if inner:
            self.degraded.append(
                f"{inner} messages stayed within one tier: left out, waits for them are kept as durations"
            )
        self._clamp()

    @staticmethod
    def _as_outside(thread: Thread, row: Row) -> None:
        took = row.at["blocked"]
        row.op, row.at = "outside", {"duration_ns": took}
        thread.waited["outside"] += took

    def _flow(self, connection: Connection, pair: list[str]) -> int:
        if connection not in self.flows:
            self.flows[connection] = len(self.flow_list)
            self.flow_list.append({"proto": "tcp", "ends": list(pair)})
        return self.flows[connection]

    def _clamp(self) -> None:
        """In the order of the recording, no receive may get more than is there (bytes sent before it began)."""
        order: list[tuple[int, int, int, Thread, Row]] = []
        for thread in self.members():
            for position, row in enumerate(thread.rows):
                if row.op == "send":
                    order.append((row.at["sent"], 0, position, thread, row))
                elif row.op == "recv":
                    order.append((row.at["done"], 1, position, thread, row))
        order.sort(key=lambda item: item[:3])
        there: dict[tuple[int, int], int] = {}
        for _, _, _, thread, row in order:
            flow = row.at["flow"]
            end = self.flow_list[flow]["ends"].index(thread.process.tier)
            if row.op == "send":
                there[flow, 1 - end] = there.get((flow, 1 - end), 0) + row.at["bytes"]
                continue
            available = there.get((flow, end), 0)
            if row.at["bytes"] > available:
                self.clamped += 1
                row.at["bytes"] = available
            there[flow, end] = available - row.at["bytes"]
        for thread in self.members():
            for row in thread.rows:
                if row.op == "recv" and not row.at["bytes"] and row.at["blocked"]:
                    self._as_outside(thread, row)
            thread.rows = [row for row in thread.rows if row.op != "recv" or row.at["bytes"]]
        self._fill_slots(order)
        if self.clamped:
            self.degraded.append(
                f"{self.clamped} receives were of bytes sent before the recording began: cut to what was sent in it"
            )

    def _join_replies(self) -> None:
        """A client that takes a reply in pieces, doing nothing between that others see, takes it at once."""
        for thread in self.members():
            if thread.process.tier != OUTSIDE:
                continue
            rows: list[Row] = []
            for row in thread.rows:
                if row.op == "recv" and len(rows) > 1 and rows[-1].op == "compute":
                    before = rows[-2]
                    if before.op == "recv" and before.at["flow"] == row.at["flow"]:
                        before.at["bytes"] += row.at["bytes"]
                        before.at["done"] = row.at["done"]
                        rows[-1].time = row.at["done"]  # what it computed between the pieces comes after
                        continue
                last = rows[-1] if rows else None
                if row.op == "compute" and last is not None and last.op == "compute":
                    for name, value in row.at.items():
                        last.at[name] = last.at.get(name, 0) + value
                    continue
                rows.append(row)
            thread.rows = rows

    def _fill_slots(self, order: list[tuple[int, int, int, Thread, Row]]) -> None:
        """Move a receive to where its thread blocked for it (in epoll_wait, say).

        Only if all of its bytes had been sent when that wait ended: else the wait was for something else, and
        a receive before what the thread did in between could wait for ever.
        """
        sent: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        received: dict[tuple[int, int], int] = {}
        moves: dict[int, Row] = {}
        for time, _, _, thread, row in order:
            if "flow" not in row.at:
                continue
            flow = row.at["flow"]
            end = self.flow_list[flow]["ends"].index(thread.process.tier)
            if row.op == "send":
                times, sums = sent.setdefault((flow, 1 - end), ([], []))
                sums.append((sums[-1] if sums else 0) + row.at["bytes"])
                times.append(time)
                continue
            received[flow, end] = received.get((flow, end), 0) + row.at["bytes"]
            slot = row.at.get("slot")
            times, sums = sent.get((flow, end), ([], []))
            by_then = bisect_right(times, slot.at["woke"]) if slot is not None else 0
            if slot is not None and by_then and sums[by_then - 1] >= received[flow, end]:
                moves[id(slot)] = row
        moved = {id(row) for row in moves.values()}
        for thread in self.members():
            rows = []
            for row in thread.rows:
                if row.op == "slot":
                    mine = moves.get(id(row))
                    if mine is not None:
                        mine.time = row.time
                        rows.append(mine)
                elif id(row) not in moved:
                    rows.append(row)
            thread.rows = rows

    # ------------------------------------------------------------ memory

    def _name_files(self) -> None:
        for key, file in self.timeline.memory.files.items():
            found = self.files.get(key)
            if found is not None:
                path, size, modified = found
                file.path = file.path or path
                file.reach(-(-size // 4096))
                file.old = modified < self.started_at - 60

    def process_of(self, pid: int) -> Process | None:
        for process in self.timeline.processes:
            if process.pid == pid:
                return process
        return None

    def _initial_memory(self) -> None:
        """Anonymous memory at the start is touched when the process starts (again, at each loop).

        Files stay cached over loops: what was mapped of them is only listed, as `warm`.
        """
        memory = self.timeline.memory
        for state in self.before:
            process = self.process_of(state.pid)
            if process is None or process.tier in ("", OUTSIDE) or not process.threads:
                continue
            first_space = next((s for s in memory.spaces if s.process is process), None)
            space = first_space or memory.space(process)
            rows: list[Row] = []
            for first, count in runs(state.anonymous):
                space.ever.update(range(first, first + count))
                at = {"space": space, "page": first, "pages": count, "flags": FLAG_WRITE | FLAG_SAMPLED}
                rows.append(Row("touch", 0, at))
            for file, first, count in self.mapped_runs(process, state):
                if not file.shared_memory:
                    self.warm.append((file, first, count))
                elif (file, first, count) not in self.shared_seen:
                    self.shared_seen.add((file, first, count))
                    at = {"file": file, "page": first, "pages": count, "flags": FLAG_WRITE | FLAG_SAMPLED}
                    rows.append(Row("touch", 0, at))
            process.main.rows[:0] = rows

    def mapped_runs(self, process: Process, state: ProcessState) -> list[tuple[FileObject, int, int]]:
        """Resident pages of files as (file, first page, pages)."""
        memory = self.timeline.memory
        found = []
        for first, count in runs(state.mapped):
            page = first
            while page < first + count:
                vma = state.vma_at(page)
                if vma is None or not vma.inode:
                    page += 1
                    continue
                end = min(first + count, vma.end)
                file = memory.file("shm", vma.inode) if vma.memory_file else memory.file(vma.device, vma.inode)
                file.path = file.path or vma.path
                file.shared_memory = file.shared_memory or vma.memory_file
                start = page - vma.first + vma.offset
                file.reach(start + end - page)
                found.append((file, start, end - page))
                page = end
        return found

    def _allocations(self) -> None:
        """Lay out each image's memory and allocate it in the thread that touches it first."""
        for space in self.timeline.memory.spaces:
            space.lay_out()
        first: dict[int, tuple[int, Thread, int]] = {}
        for thread in self.members():
            for position, row in enumerate(thread.rows):
                mine = row.at.get("space")
                if mine is not None and (id(mine) not in first or row.time < first[id(mine)][0]):
                    first[id(mine)] = (row.time, thread, position)
        inserts: dict[int, list[tuple[int, Row]]] = {}
        for space in self.timeline.memory.spaces:
            if id(space) in first and space.pages:
                time, thread, position = first[id(space)]
                row = Row("alloc", time, {"space": space, "place": 0, "pages": space.pages})
                inserts.setdefault(id(thread), []).append((position, row))
        for thread in self.members():
            for position, row in sorted(inserts.get(id(thread), ()), key=lambda item: -item[0]):
                thread.rows.insert(position, row)

    def _exits(self) -> None:
        for process in self.guests():
            alive = [thread for thread in process.threads if thread.rows]
            if process.exited_ns >= 0 and alive:
                last = max(alive, key=lambda thread: thread.rows[-1].time)
                last.add("exit", process.exited_ns)

    # ------------------------------------------------------------ marks

    def _marks(self) -> None:
        """Requests of the world outside; else the program's own marks; else a mark per process."""
        found = False
        for thread in self.members():
            if thread.process.tier == OUTSIDE:
                found |= _mark_requests(thread)
        if found:
            return
        if any(row.op == "mark_begin" for thread in self.members() for row in thread.rows):
            for thread in self.members():
                thread.rows = _paired_marks(thread.rows)
            return
        for process in self.guests():
            if process.started and process.exited_ns >= 0 and process.threads and process.main.rows:
                main = process.main
                at = 1 if main.rows[0].op == "wait" else 0
                time = main.rows[min(at, len(main.rows) - 1)].time
                main.rows.insert(at, Row("mark_begin", time))
                main.add("mark_end", main.rows[-1].time)

    # ------------------------------------------------------------ output

    def _columns(self, threads: list[Thread]) -> Built:
        rows = [(thread, row) for thread in threads for row in thread.rows]
        used_files: list[FileObject] = []
        columns = empty_columns(len(rows))
        objects: list[dict[str, Any]] = []
        processes: dict[int, int] = {}
        for thread in threads:
            processes.setdefault(thread.process.index, len(processes))
        for at, (thread, row) in enumerate(rows):
            values: dict[str, int] = {}
            space, file = row.at.get("space"), row.at.get("file")
            if space is not None:
                if space.index < 0:
                    space.index = len(objects)
                    owner = processes.get(space.process.index, 0)
                    objects.append({"kind": "anon", "pages": space.pages, "process": owner, "name": "anonymous"})
                values["object"] = space.index
                values["page"] = row.at["place"] if "place" in row.at else space.place(row.at["page"])
            elif file is not None:
                if file.index < 0:
                    file.index = len(objects)
                    used_files.append(file)
                    objects.append({"kind": file.kind, "pages": file.pages, "process": -1, "name_hash": file.hash})
                    if self.keep_names and file.path:
                        objects[-1]["name"] = file.path
                if file.shared_memory:
                    # it lives as long as the oldest process that uses it
                    mine, known = processes[thread.process.index], objects[file.index]["process"]
                    objects[file.index]["process"] = mine if known < 0 else min(mine, known)
                    objects[file.index]["shared"] = True
                values["object"] = file.index
                values["page"] = row.at.get("page", 0)
            if "target" in row.at:
                values["peer"] = row.at["target"].index
            for name, value in row.at.items():
                if name in COLUMNS and name != "page":
                    values[name] = value
            columns["thread"][at] = thread.index
            columns["op"][at] = OPS[row.op]
            columns["time_ns"][at] = row.time
            for name, value in values.items():
                columns[name][at] = value
        for file in used_files:
            objects[file.index]["pages"] = file.pages
        self.warm_list = sorted(
            {(file.index, first, min(count, file.pages - first)) for file, first, count in self.warm if file.index >= 0}
        )
        return Built(self._meta(threads, processes, objects), columns)

    def _meta(self, threads: list[Thread], processes: dict[int, int], objects: list[Any]) -> dict[str, Any]:
        described = []
        for thread in threads:
            name = {"name_hash": name_hash(thread.name)} if self.hide_names else {"name": thread.name}
            described.append(
                {
                    "id": thread.index,
                    "process": processes[thread.process.index],
                    "tier": thread.process.tier,
                    "role": "outside" if thread.process.tier == OUTSIDE else "guest",
                    **name,
                }
            )
        present = {item["tier"] for item in described}
        waited: Counter[str] = Counter()
        for thread in threads:
            if thread.process.tier != OUTSIDE:
                waited.update(thread.waited)
        total = sum(waited.values())
        calls: Counter[int] = Counter()
        for process in self.guests():
            calls.update(process.calls)
        counted: dict[str, Any] = {"syscalls": by_class(calls.items())} if calls else {}
        if self.peers:
            counted["peers"] = self.peers
        return {
            **counted,
            "span_ns": max((thread.rows[-1].time for thread in threads), default=0),
            "threads": described,
            "tiers": [tier for tier in self.selection.tier_names if tier in present],
            "objects": objects,
            "flows": self.flow_list,
            "warm": [list(item) for item in self.warm_list],
            "wait_shares": {name: round(waited[name] / total, 6) if total else 0.0 for name in WAIT_CLASSES},
            "kept_waits": dict(self.timeline.causes.most_common(8)),
            "waited_ns": {name: waited[name] for name in WAIT_CLASSES},
            "degraded": list(self.degraded),
        }


def _mark_requests(thread: Thread) -> bool:
    """Around each request of a client: from its first send to the last receive before its next send."""
    begin: dict[int, int] = {}
    last_receive: dict[int, int] = {}
    pairs: list[tuple[int, int, int]] = []
    for position, row in enumerate(thread.rows):
        flow = row.at.get("flow", -1)
        if row.op == "send":
            if flow in last_receive:
                pairs.append((begin.pop(flow), last_receive.pop(flow), flow))
            begin.setdefault(flow, position)
        elif row.op == "recv" and flow in begin:
            last_receive[flow] = position
    pairs.extend((begin[flow], position, flow) for flow, position in last_receive.items())
    inserts: list[tuple[int, int, Row]] = []
    for first, last, flow in pairs:
        inserts.append((first, 1, Row("mark_begin", thread.rows[first].time, {"flow": flow})))
        # a receive's own time is when its thread began to wait for it
        done = thread.rows[last].at["done"]
        if last + 1 < len(thread.rows):
            done = min(done, thread.rows[last + 1].time)
        inserts.append((last + 1, 0, Row("mark_end", done, {"flow": flow})))
    for position, _, row in sorted(inserts, key=lambda item: item[:2], reverse=True):
        thread.rows.insert(position, row)
    return bool(pairs)


def _paired_marks(rows: list[Row]) -> list[Row]:
    """Without marks that end what began before the recording, or begin what ends after it."""
    depth = 0
    kept: list[Row] = []
    opened: list[Row] = []
    for row in rows:
        if row.op == "mark_end":
            if not depth:
                continue
            depth -= 1
            opened.pop()
        elif row.op == "mark_begin":
            depth += 1
            opened.append(row)
        kept.append(row)
    unfinished = {id(row) for row in opened}
    return [row for row in kept if id(row) not in unfinished]
