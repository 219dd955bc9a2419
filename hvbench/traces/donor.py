"""What an expansion borrows from a recorded trace: its rhythm, as a tape that is wound on by compute.

The *tape* of a donor is its guest threads' compute, one thread behind the other, in recorded order: a row a burst,
with what it took (user, kernel, privileged operations), how long the thread then waited, and which pages it touched
at which point of its compute. An expansion reads so much of it as an interval's CPU time asks for, and goes on from
there in the next interval; at its end the tape begins anew. Bursts shorter than `min_burst_ns` are joined with those
after them, so that a long demand does not become millions of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.check import open_trace, require_valid
from hvbench.traces.format import FLAG_WRITE, OPS, OUTSIDE, PRIVILEGED, Trace

_WAITS: Final = ("wait", "sleep", "outside", "unknown", "recv")
SECTORS_PER_PAGE: Final = 8


@define(frozen=True)
class Donor:
    """A donor's tape. Arrays of one length belong together; `end` is the tape's coordinate (ns of compute)."""

    name: str
    digest: str
    end: NDArray[np.int64]
    """Coordinate at which each burst ends."""
    kernel: NDArray[np.int64]
    """Kernel time up to the end of each burst."""
    counts: dict[str, NDArray[np.int64]]
    """Privileged operations up to the end of each burst, by name."""
    gaps: NDArray[np.int64]
    """How long the thread waited after each burst."""
    touch_at: NDArray[np.int64]
    """Coordinates of touches, ascending."""
    touch_place: NDArray[np.float64]
    """Where in the memory in use they are, 0 to 1."""
    touch_pages: NDArray[np.int64]
    touch_write: NDArray[np.bool_]
    read_sectors: NDArray[np.int64]
    """Sizes of reads and writes, in recorded order."""
    write_sectors: NDArray[np.int64]
    message_bytes: NDArray[np.int64]

    @property
    def length(self) -> int:
        """Compute of the whole tape, ns."""
        return int(self.end[-1])


def load_donor(name: str, min_burst_ns: int) -> Donor:
    """A bundled trace by name or a file; UserError where it has no compute to borrow from."""
    from hvbench.workload import find_trace

    trace = open_trace(find_trace(name, Path(".")))
    require_valid(trace)
    if trace.meta.get("expanded"):
        raise UserError(f"--donor {name}: is an expansion itself; a donor is a recording")
    return make_donor(trace, name, min_burst_ns)


def make_donor(trace: Trace, name: str, min_burst_ns: int) -> Donor:
    """The tape of a trace."""
    c = trace.columns
    guest = np.array([thread["role"] != OUTSIDE for thread in trace.meta["threads"]] or [False])
    mine = np.flatnonzero(guest[c["thread"]]) if len(trace.meta["threads"]) else np.zeros(0, np.int64)
    op = c["op"][mine]
    compute = op == OPS["compute"]
    took = np.where(compute, c["user_ns"][mine] + c["kernel_ns"][mine], 0)
    total = np.cumsum(took)
    if not len(total) or not total[-1]:
        raise UserError(f"--donor {name}: has no compute, so that there is no rhythm to borrow; name another")
    # a burst ends where the thread waits, or another thread begins
    waits = np.isin(op, [OPS[wait] for wait in _WAITS])
    thread = c["thread"][mine]
    last = np.append(thread[1:] != thread[:-1], True)
    waited = np.where(waits, _durations(c, mine, op), 0)
    ends = np.flatnonzero(waits | last)
    coordinate = total[ends]
    gap = np.add.reduceat(waited, np.append(0, ends[:-1] + 1)) if len(ends) else waited[:0]
    # joined until they are long enough
    kept: list[int] = []
    before = 0
    for i, at in enumerate(coordinate.tolist()):
        if at - before >= min_burst_ns or (i == len(coordinate) - 1 and at > before):
            kept.append(i)
            before = at
    if coordinate[kept[-1]] != total[-1]:
        kept[-1] = len(coordinate) - 1
    keep = np.array(kept)
    joined = np.add.reduceat(gap, np.append(0, keep[:-1] + 1))
    rows = ends[keep]
    counts = {}
    for column in PRIVILEGED:
        values = np.cumsum(c[column][mine].astype(np.int64))
        if values[-1]:
            counts[column] = values[rows]
    return Donor(
        name,
        trace.digest,
        coordinate[keep],
        np.cumsum(np.where(compute, c["kernel_ns"][mine], 0))[rows],
        counts,
        joined,
        *_touches(trace, mine, op, total, coordinate[keep]),
        *_sizes(c, mine, op),
    )


def _durations(c: dict[str, NDArray[Any]], mine: NDArray[np.int64], op: NDArray[Any]) -> NDArray[np.int64]:
    """How long each row took that waits: its duration, or the time to the thread's next row."""
    time = c["time_ns"][mine]
    following = np.append(time[1:], time[-1:])
    same = np.append(c["thread"][mine][1:] == c["thread"][mine][:-1], False)
    until = np.where(same, following - time, 0)
    duration = c["duration_ns"][mine]
    return np.where(duration > 0, duration, np.maximum(until, 0))


def _touches(
    trace: Trace, mine: NDArray[np.int64], op: NDArray[Any], total: NDArray[np.int64], bursts: NDArray[np.int64]
) -> tuple[Any, ...]:
    """Touches of anonymous memory: objects laid side by side, so that places are shares of all of it.

    Those of one burst that overlap or adjoin are one, at the burst's end, a write if any of them wrote: within a
    burst it matters which pages it needs, not how often.
    """
    c = trace.columns
    rows = np.flatnonzero(op == OPS["touch"])
    objects = trace.meta["objects"]
    sizes = np.array([item["pages"] if item["kind"] == "anon" else 0 for item in objects] or [0], np.int64)
    base = np.append(0, np.cumsum(sizes))
    whole = max(1, int(base[-1]))
    at = mine[rows]
    first = base[np.maximum(c["object"][at], 0)] + c["page"][at]
    end = first + c["pages"][at]
    write = (c["flags"][at] & FLAG_WRITE) != 0
    burst = np.minimum(np.searchsorted(bursts, total[rows], side="left"), len(bursts) - 1)
    order = np.lexsort((first, burst))
    first, end, write, burst = first[order], end[order], write[order], burst[order]
    # the farthest end so far within a burst; bursts are kept apart by more pages than there are
    apart = burst * (whole + 1)
    reach = np.maximum.accumulate(end + apart) if len(end) else end
    begins = np.append(True, (first + apart)[1:] > reach[:-1]) if len(end) else np.zeros(0, bool)
    heads = np.flatnonzero(begins)
    tails = np.append(heads[1:], len(first))[: len(heads)] - 1
    pages = reach[tails] - apart[tails] - first[heads] if len(heads) else first[:0]
    wrote = np.logical_or.reduceat(write, heads) if len(heads) else write[:0]
    return bursts[burst[heads]], first[heads] / whole, pages, wrote


def _sizes(c: dict[str, NDArray[Any]], mine: NDArray[np.int64], op: NDArray[Any]) -> tuple[Any, ...]:
    """Sizes of disk reads and writes (sectors) and of messages (bytes)."""
    found = []
    for block, file in (("blk_read", "fread"), ("blk_write", "fwrite")):
        rows = (op == OPS[block]) | (op == OPS[file])
        pages = c["pages"][mine][rows].astype(np.int64)
        found.append(np.where(op[rows] == OPS[block], pages, pages * SECTORS_PER_PAGE))
    found.append(c["bytes"][mine][(op == OPS["send"]) | (op == OPS["recv"])])
    return tuple(values[values > 0] for values in found)
