"""From a trace file to the arrays that the kernel replays: loaded once, shared by every cell of a process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.build_io import flow_ends, flow_operand
from hvbench.build_memory import BaseImage, base_image
from hvbench.state import schema
from hvbench.traces.check import open_trace, require_valid
from hvbench.traces.fibers import split_connections
from hvbench.traces.format import OPS, PRIVILEGED, UNTIL, Trace, TraceError

_A_USER = ("compute",)
_A_PAGE = ("alloc", "free", "exit", "touch", "mtouch", "fread", "fwrite", "fsync", "content", "blk_read", "blk_write")
_A_BYTES = ("send", "recv")
_A_DURATION = ("sleep", "outside", "unknown")
_X_PEER = ("wait", "wake", "lock", "unlock", "barrier")


@attrs.frozen
class LoadedThread:
    """A recorded thread: operations [first, end) of its trace's op table."""

    first: int
    end: int
    tier: str
    outside: bool
    process: int
    process_last: bool
    background: bool = False
    """It goes its own way, at recorded times, whatever becomes of the rest."""
    serves: str = ""
    """Outside threads: the tier that they talk to."""


@attrs.frozen
class LoadedObject:
    """An object of a trace as one tier sees it: its metadata, and the tier whose VM has it."""

    meta: dict[str, Any]
    tier: str


@attrs.frozen(eq=False)
class LoadedTrace:
    """A trace as the kernel takes it: `ops` and `privileged` rows, threads, metadata.

    `warm` lists the file pages that were mapped when the recording began: (number in `objects`, first page, pages).
    """

    name: str
    digest: str
    meta: dict[str, Any]
    ops: NDArray[Any]
    privileged: NDArray[Any]
    threads: tuple[LoadedThread, ...]
    objects: tuple[LoadedObject, ...]
    warm: tuple[tuple[int, int, int], ...]
    locks: int
    counts_requests: bool

    @property
    def span_ns(self) -> int:
        """How long the recording took."""
        return int(self.meta.get("span_ns", 0))


def convert(trace: Trace) -> LoadedTrace:
    """Lay a trace's columns out as kernel records; vectorised."""
    c = trace.columns
    codes = c["op"]
    ops = schema.TABLES["op"].layout.zeros(max(1, len(codes)))[: len(codes)]
    ops["op"] = codes
    ops["flags"] = c["flags"]
    ops["x"], objects, listed = _objects_by_tier(trace)

    def where(names: tuple[str, ...]) -> NDArray[Any]:
        chosen = np.zeros(len(OPS), bool)  # a look-up by code is several times faster than np.isin
        chosen[[OPS[n] for n in names]] = True
        return chosen[codes]

    compute, pages, by_bytes = where(_A_USER), where(_A_PAGE), where(_A_BYTES)
    timed, peers = where(_A_DURATION), where(_X_PEER)
    ops["a"][compute] = c["user_ns"][compute]
    ops["b"][compute] = c["kernel_ns"][compute]
    ops["a"][pages] = c["page"][pages]
    ops["b"][pages] = c["pages"][pages]
    content = codes == OPS["content"]
    ops["b"][content] = c["content"][content].view(np.int64)
    ops["x"][by_bytes] = flow_operand(c["flow"], flow_ends(trace.meta, c))[by_bytes]
    ops["a"][by_bytes] = c["bytes"][by_bytes]
    ops["b"][by_bytes] = c["duration_ns"][by_bytes]
    ops["a"][timed] = c["duration_ns"][timed]
    ops["x"][peers] = c["peer"][peers]
    ops["b"][peers] = c["pages"][peers]
    busy = np.flatnonzero(compute)
    counts = np.empty((len(busy), len(PRIVILEGED)), np.int64)
    for i, name in enumerate(PRIVILEGED):
        column = _other_interrupts(codes, c["thread"], c["ipis"]) if name == "ipis" else c[name]
        counts[:, i] = column[busy]
    some = counts.any(axis=1)
    counted = busy[some]
    # equal rows of counts are stored once: most system calls look alike
    distinct, index = _distinct_rows(counts[some])
    privileged = schema.TABLES["privileged"].layout.zeros(max(1, len(distinct)))
    for i, name in enumerate(PRIVILEGED):
        privileged[name][: len(distinct)] = distinct[:, i]
    ops["x"][compute] = -1
    ops["x"][counted] = index.reshape(-1)
    is_lock = where(("lock", "unlock", "barrier"))
    locks = int(c["peer"][is_lock].max()) + 1 if is_lock.any() else 0
    return LoadedTrace(
        name=trace.name,
        digest=trace.digest,
        meta=trace.meta,
        ops=ops,
        privileged=privileged,
        threads=_threads(trace),
        objects=objects,
        warm=_warm(trace, listed),
        locks=locks,
        counts_requests=_counts_requests(trace),
    )


def _distinct_rows(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct rows of counts, sorted, and which of them each row is.

    Rows are packed into one number each where they fit, which sorts as they do and much faster.
    """
    sizes = [int(column.max()) + 1 for column in counts.T] if len(counts) else []
    whole = 1
    for size in sizes:
        whole *= size
    if not len(counts) or whole >= 1 << 63:
        distinct, index = np.unique(counts, axis=0, return_inverse=True)
        return distinct, index.reshape(-1)
    packed = np.zeros(len(counts), np.int64)
    for i, size in enumerate(sizes):
        packed = packed * size + counts[:, i]
    _, first, index = np.unique(packed, return_index=True, return_inverse=True)
    return counts[first], index.reshape(-1)


def _other_interrupts(codes: NDArray[Any], thread: NDArray[Any], ipis: NDArray[Any]) -> NDArray[Any]:
    """Interrupts to other vCPUs that the replay does not send by itself.

    A recorded wake-up of a thread on another CPU stands twice in a trace: as an interrupt counted in the
    waker's compute, and as the `wake` behind it. Whether it takes an interrupt here depends on where the replay
    has the two threads, so that the kernel charges it; of a compute's interrupts only those beyond the wake-ups
    behind it are left.
    """
    if not ipis.any():
        return ipis
    compute = codes == OPS["compute"]
    starts = compute.copy()
    starts[1:] |= thread[1:] != thread[:-1]
    stretch = np.cumsum(starts)
    wakes = np.bincount(stretch[codes == OPS["wake"]], minlength=int(starts.sum()) + 1)
    return np.where(compute, np.maximum(0, ipis.astype(np.int64) - wakes[stretch]), ipis)


def _objects_by_tier(trace: Trace) -> tuple[NDArray[Any], tuple[LoadedObject, ...], list[int]]:
    """The column of objects, the objects, such that each belongs to one tier, and which in the metadata each is.

    Tiers are different VMs: a file that two of them read (the C library) is two objects, one in each VM's page cache.
    """
    listed = trace.meta.get("objects", [])
    threads = trace.meta["threads"]
    tiers = sorted({str(t.get("tier", "")) for t in threads if t.get("role") != "outside"})
    column = trace.columns["object"]
    if len(tiers) <= 1:
        tier = tiers[0] if tiers else ""
        return column.astype(np.int32), tuple(LoadedObject(x, tier) for x in listed), list(range(len(listed)))
    number = {tier: i for i, tier in enumerate(tiers)}
    tier_of_thread = np.array([number.get(str(t.get("tier", "")), 0) for t in threads])
    used = column >= 0
    pairs = column[used].astype(np.int64) * len(tiers) + tier_of_thread[trace.columns["thread"][used]]
    distinct, index = np.unique(pairs, return_inverse=True)
    made = np.full(len(column), -1, np.int32)
    made[used] = index.reshape(-1)
    objects = tuple(LoadedObject(listed[int(p) // len(tiers)], tiers[int(p) % len(tiers)]) for p in distinct)
    return made, objects, [int(p) // len(tiers) for p in distinct]


def _warm(trace: Trace, listed: list[int]) -> tuple[tuple[int, int, int], ...]:
    """The metadata's warm pages, of each object made of the one that they name: who mapped them is not recorded.

    Of several tiers' objects, one that no row uses belongs to no tier, and its warm pages to no VM.
    """
    made: dict[int, list[int]] = {}
    for number, of in enumerate(listed):
        made.setdefault(of, []).append(number)
    return tuple(
        (number, int(first), int(pages))
        for of, first, pages in trace.meta.get("warm", [])
        for number in made.get(int(of), [])
    )


def _counts_requests(trace: Trace) -> bool:
    """Whether progress is counted in requests: marks of outside clients, each a request with its reply.

    Marks of guest threads (a compiled file, a finished batch) are kept as latencies; they are too few and too uneven to
    count progress by, so that such a trace counts recorded compute.
    """
    ends = trace.columns["thread"][trace.columns["op"] == OPS["mark_end"]]
    outside = [i for i, t in enumerate(trace.meta["threads"]) if t.get("role") == "outside"]
    return bool(np.isin(ends, outside).any())


def _threads(trace: Trace) -> tuple[LoadedThread, ...]:
    listed = trace.meta["threads"]
    owner = trace.columns["thread"]
    first = np.searchsorted(owner, np.arange(len(listed)), side="left")
    end = np.searchsorted(owner, np.arange(len(listed)), side="right")
    last_of: dict[int, int] = {}
    exits = np.flatnonzero(trace.columns["op"] == OPS["exit"])
    for row in exits:
        last_of[int(listed[owner[row]].get("process", 0))] = int(owner[row])
    return tuple(
        LoadedThread(
            first=int(first[i]),
            end=int(end[i]),
            tier=str(t.get("tier", "")),
            outside=t.get("role") == "outside",
            process=int(t.get("process", 0)),
            process_last=last_of.get(int(t.get("process", 0))) == i,
            background=t.get("replay") == "open",
            serves=_served_tier(trace, int(first[i]), int(end[i])) if t.get("role") == "outside" else "",
        )
        for i, t in enumerate(listed)
    )


def _served_tier(trace: Trace, first: int, end: int) -> str:
    """The tier at the other end of the first flow that an outside thread uses; empty if it uses none."""
    used = trace.columns["flow"][first:end]
    used = used[used >= 0]
    if not len(used):
        return ""
    ends = trace.meta["flows"][int(used[0])]["ends"]
    return str(next((tier for tier in ends if tier != "outside"), ""))


def open_loop(trace: LoadedTrace, time_ns: NDArray[Any], rows: NDArray[Any] | None = None) -> LoadedTrace:
    """The same operations, each begun at its recorded time (or late), whatever became of the ones before.

    `rows`, a mask, says of which operations that is true; of all, where it is left out.

    Before each operation whose recorded time is later than that of the one before it in its thread, an `UNTIL` is put
    in; `time_ns` are the recorded times of the trace's rows.
    """
    moves = np.ones(len(trace.ops), bool)
    moves[1:] = time_ns[1:] > time_ns[:-1]
    for t in trace.threads:
        if t.first < t.end:
            moves[t.first] = True
    if rows is not None:
        moves &= rows
    shift = np.cumsum(moves)
    ops = schema.TABLES["op"].layout.zeros(len(trace.ops) + int(moves.sum()))
    at = np.arange(len(trace.ops)) + shift
    ops[at] = trace.ops
    until = at[moves] - 1
    ops["op"][until] = UNTIL
    ops["x"][until] = -1
    ops["a"][until] = time_ns[moves]
    before = np.concatenate([[0], shift])
    threads = tuple(
        attrs.evolve(t, first=int(t.first + before[t.first]), end=int(t.end + before[t.end])) for t in trace.threads
    )
    return attrs.evolve(trace, digest=f"{trace.digest}-open", ops=ops, threads=threads)


@lru_cache(maxsize=64)
def _load(path: Path, mtime_ns: int, replay: str) -> LoadedTrace:
    read = open_trace(path)
    require_valid(read)  # the kernel indexes with what stands in it
    trace = split_connections(read, think=replay != "open")
    made = convert(trace)
    if replay == "open":
        return open_loop(made, trace.columns["time_ns"])
    background = [thread.background for thread in made.threads]
    if any(background):
        return open_loop(made, trace.columns["time_ns"], np.array(background)[trace.columns["thread"]])
    return made


def load_trace(path: Path, replay: str = "closed") -> LoadedTrace:
    """Read and convert a trace for closed- or open-loop replay; remembered until it changes. Raises TraceError."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        stamp = 0
    return _load(path, stamp, replay)


@attrs.frozen(eq=False)
class Tables:
    """The op and privileged tables of several traces, one behind the other, and where each begins."""

    ops: NDArray[Any]
    privileged: NDArray[Any]
    first_op: dict[str, int]


@lru_cache(maxsize=16)
def _concatenate(paths: tuple[tuple[Path, int], ...], replay: str) -> Tables:
    loaded: dict[str, LoadedTrace] = {}
    for path, stamp in paths:
        made = _load(path, stamp, replay)
        loaded.setdefault(made.digest, made)
    ops, privileged, first_op = [], [], {}
    at = rows = 0
    for digest, trace in loaded.items():
        first_op[digest] = at
        mine = trace.ops.copy()
        counted = (mine["op"] == OPS["compute"]) & (mine["x"] >= 0)
        mine["x"][counted] += rows
        ops.append(mine)
        privileged.append(trace.privileged)
        at += len(mine)
        rows += len(trace.privileged)
    return Tables(_joined("op", ops), _joined("privileged", privileged), first_op)


def _joined(table: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Parts one behind the other, in the table's own layout (np.concatenate would drop its padding)."""
    made = schema.TABLES[table].layout.zeros(sum(len(p) for p in parts))
    at = 0
    for part in parts:
        made[at : at + len(part)] = part
        at += len(part)
    return made


@lru_cache(maxsize=16)
def _image(path: Path, mtime_ns: int) -> BaseImage:
    trace = open_trace(path)
    if not trace.is_base_image:
        raise TraceError(f'{path}: not a base image; record one, or write image = ""')
    require_valid(trace)
    return base_image(trace.meta, trace.columns)


def load_image(path: Path) -> BaseImage:
    """A base image; remembered until the file changes. Raises TraceError."""
    return _image(path, path.stat().st_mtime_ns if path.exists() else 0)


def load_tables(paths: tuple[Path, ...], replay: str = "closed") -> Tables:
    """The shared tables of a workload's traces. They are never written, so that cells in threads share them."""
    return _concatenate(tuple((p, p.stat().st_mtime_ns) for p in sorted(set(paths))), replay)
