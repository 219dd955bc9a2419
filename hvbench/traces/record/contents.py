"""Touches between faults, and contents: what snapshots add to the events.

**The rule for touches that no event shows.** Between two snapshots of a process, `Referenced` of smaps says how
many pages of each mapping were used, and the change of contents says which anonymous pages were written. For
each mapping: the pages that were written, then as many further resident pages as were referenced and not seen
in faults, in runs of up to `RUN_PAGES`, the runs in the order of a keyed hash of (seed, process, page). They
are spread evenly over the process's computes of that interval and carry the flag "sampled".

**Contents.** A content row stands only where sharing could see it: zero pages, contents that occur twice or
more in the recording, contents that another run of the command had too (flag "common"). A page without one
holds something of its own.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from hvbench.traces.format import FLAG_COMMON, FLAG_SAMPLED, FLAG_WRITE, OUTSIDE, ZERO_PAGE
from hvbench.traces.record.memory import FileObject, Space
from hvbench.traces.record.procfs import ProcessState, runs
from hvbench.traces.record.rows import Process, Row, Thread

if TYPE_CHECKING:
    from hvbench.traces.record.builder import Builder

RUN_PAGES: Final = 32


def rank(seed: int, process: int, page: int) -> bytes:
    """The seeded order in which runs of pages are chosen."""
    return hashlib.blake2b(f"{seed}:{process}:{page}".encode(), digest_size=8).digest()


def series(builder: Builder) -> dict[int, list[ProcessState]]:
    """The snapshots of each process, in time order, the one at the start included."""
    found: dict[int, list[ProcessState]] = {}
    for states in [builder.before, *builder.snapshots]:
        for state in states:
            found.setdefault(state.pid, []).append(state)
    return found


def retouch(builder: Builder) -> None:
    """Insert the sampled touches of every process that was seen in two snapshots."""
    for pid, states in series(builder).items():
        process = builder.process_of(pid)
        if process is None or process.tier in ("", OUTSIDE):
            continue
        for earlier, later in pairwise(states):
            _retouch_interval(builder, process, earlier, later)


def _retouch_interval(builder: Builder, process: Process, earlier: ProcessState, later: ProcessState) -> None:
    start, end = earlier.taken_ns - builder.timeline.start_ns, later.taken_ns - builder.timeline.start_ns
    memory = builder.timeline.memory
    space = next((s for s in reversed(memory.spaces) if s.process is process), None)
    if space is None:
        return
    changed = {page for page, value in later.contents.items() if earlier.contents.get(page, value) != value}
    resident = set(later.anonymous.tolist())
    seen: set[int] = set()
    for thread in process.threads:
        for row in thread.rows:
            if (
                row.op == "touch"
                and "space" in row.at
                and row.at["space"] is space
                and start <= row.time < end
                and not _initial(row)
            ):
                seen.update(range(row.at["page"], row.at["page"] + row.at["pages"]))
    chosen: list[tuple[Space | FileObject, int, int, int]] = []
    written = sorted(page for page in changed - seen if page in resident)
    chosen += [(space, first, count, FLAG_WRITE) for first, count in _pieces(written)]
    seen |= changed
    for first, referenced in later.referenced.items():
        vma = later.vma_at(first)
        if vma is None:
            continue
        inside = [page for page in resident if vma.first <= page < vma.end]
        missing = referenced - sum(1 for page in inside if page in seen)
        for begin, count in _choose(builder.seed, process.index, [p for p in inside if p not in seen], missing):
            chosen.append((space, begin, count, 0))
            missing -= count
        if vma.inode and missing > 0 and not vma.memory_file:
            file = memory.file(vma.device, vma.inode)
            mapped = later.mapped[(later.mapped >= vma.first) & (later.mapped < vma.end)].tolist()
            for begin, count in _choose(builder.seed, process.index, mapped, missing):
                file.reach(begin - vma.first + vma.offset + count)
                chosen.append((file, begin - vma.first + vma.offset, count, 0))
    chosen.sort(key=lambda item: rank(builder.seed, process.index, item[1]))
    _spread(process, start, end, chosen)


def _pieces(pages: list[int]) -> list[tuple[int, int]]:
    """Contiguous runs of at most `RUN_PAGES`."""
    found = []
    for first, count in runs(pages):
        found += [(at, min(RUN_PAGES, first + count - at)) for at in range(first, first + count, RUN_PAGES)]
    return found


def _choose(seed: int, process: int, pages: list[int], wanted: int) -> list[tuple[int, int]]:
    """Runs of `wanted` pages in all, by the seeded order."""
    found = []
    if wanted <= 0:
        return []
    for first, count in sorted(_pieces(sorted(pages)), key=lambda piece: rank(seed, process, piece[0])):
        if wanted <= 0:
            break
        found.append((first, min(count, wanted)))
        wanted -= count
    return found


def _spread(process: Process, start: int, end: int, chosen: list[tuple[Space | FileObject, int, int, int]]) -> None:
    """Put the touches after the process's computes in [start, end), evenly by compute time."""
    slots: list[tuple[int, Thread, int]] = []  # compute so far, thread, row
    found: list[tuple[int, Thread, int, int]] = []
    for thread in process.threads:
        for position, row in enumerate(thread.rows):
            if row.op == "compute" and start <= row.time < end:
                found.append((row.time, thread, position, row.at["user_ns"] + row.at["kernel_ns"]))
    found.sort(key=lambda item: item[0])
    total = 0
    for _, thread, position, spent in found:
        total += spent
        slots.append((total, thread, position))
    if not slots or not chosen:
        return
    sums = [slot[0] for slot in slots]
    inserts: dict[int, list[tuple[int, Row]]] = {}
    by_id: dict[int, Thread] = {}
    for number, (target, first, count, flags) in enumerate(chosen):
        slot = min(bisect_left(sums, total * (2 * number + 1) // (2 * len(chosen))), len(slots) - 1)
        _, thread, position = slots[slot]
        at = {"page": first, "pages": count, "flags": flags | FLAG_SAMPLED}
        if isinstance(target, Space):
            target.ever.update(range(first, first + count))
            row = Row("touch", thread.rows[position].time, {"space": target, **at})
        else:
            row = Row("mtouch", thread.rows[position].time, {"file": target, **at})
        inserts.setdefault(id(thread), []).append((position + 1, row))
        by_id[id(thread)] = thread
    for key, rows in inserts.items():
        insert_rows(by_id[key], rows)


def insert_rows(thread: Thread, rows: list[tuple[int, Row]]) -> None:
    """Insert rows before the given positions (of the list as it is now), in one pass."""
    rows.sort(key=lambda item: item[0])
    merged: list[Row] = []
    taken = 0
    for position, row in rows:
        merged += thread.rows[taken:position]
        taken = position
        merged.append(row)
    merged += thread.rows[taken:]
    thread.rows = merged


def content_rows(builder: Builder) -> None:
    """Insert the contents that sharing could see, at the first operation after each snapshot."""
    occurrences: Counter[int] = Counter()
    for states in [builder.before, *builder.snapshots]:
        at_once: Counter[int] = Counter()
        for state in states:
            at_once.update(state.contents.values())
        for value, count in at_once.items():
            occurrences[value] = max(occurrences[value], count)
    for pid, states in series(builder).items():
        process = builder.process_of(pid)
        if process is None or process.tier in ("", OUTSIDE) or not process.threads:
            continue
        space = next((s for s in reversed(builder.timeline.memory.spaces) if s.process is process), None)
        if space is None:
            continue
        previous: dict[int, int] = {}
        for state in states:
            begin = state is states[0] and state in builder.before
            time = 0 if begin else state.taken_ns - builder.timeline.start_ns
            rows = []
            for page, value in sorted(state.contents.items()):
                if previous.get(page) == value or page not in space.ever:
                    continue
                if value != ZERO_PAGE and occurrences[value] < 2 and value not in builder.common:
                    continue
                flags = FLAG_COMMON if value in builder.common or value == ZERO_PAGE else 0
                rows.append({"space": space, "page": page, "pages": 1, "content": value, "flags": flags})
            previous.update(state.contents)
            if begin:
                thread = process.main
                position = next((i for i, row in enumerate(thread.rows) if not _initial(row)), len(thread.rows))
                at = 0
            else:
                thread = max(process.threads, key=lambda t: t.rows[-1].time if t.rows else -1)
                position = next((i for i, row in enumerate(thread.rows) if row.time >= time), len(thread.rows))
                at = thread.rows[position - 1].time if position else 0
            insert_rows(thread, [(position, Row("content", at, row)) for row in rows])


def _initial(row: Row) -> bool:
    """One of the rows that bring back what was resident at the start: no use of the page by itself."""
    return row.op in ("touch", "mtouch") and row.time == 0 and bool(row.at["flags"] & FLAG_SAMPLED)
