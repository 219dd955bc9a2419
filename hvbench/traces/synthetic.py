"""Traces from Python instead of a recording: for models with a known answer, and for policies in the making.

    script = Script("two-phases")
    script.thread(rows("compute", 100, user_ns=1_000_000), rows("sleep", duration_ns=50_000_000))
    script.save("two-phases.parquet")              # and `trace = "./two-phases.parquet"` in a workload

A thread is a list of chunks; a chunk is operations of the trace format with their columns (`hvbench.traces.format`).
The generators below make the usual ones. Random variates are drawn beforehand, with NumPy, and stand in the trace: a
simulation draws none. A synthetic trace says so in its metadata (`synthetic`: true), and no bundled workload replays
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import ArrayLike, NDArray

from hvbench.errors import UserError
from hvbench.traces.format import (
    COLUMNS,
    FLAG_COMMON,
    FLAG_WRITE,
    FORMAT_VERSION,
    OPS,
    PAGE_SIZE,
    Trace,
    make_trace,
    write_trace,
)

Chunk = dict[str, NDArray[Any]]
"""Columns of equal length; `op` holds codes."""

SECTORS_PER_PAGE = 8
_TIME_COLUMNS = ("user_ns", "kernel_ns", "duration_ns")
TIER = "server"


def rows(op: str, count: int = 1, **columns: ArrayLike) -> Chunk:
    """`count` rows of one operation; a column is one value for all of them or one for each.

    Raises UserError for an unknown operation or column, and for columns of another length.
    """
    if op not in OPS:
        raise UserError(f"no operation {op!r}; there are: {', '.join(OPS)}")
    made: Chunk = {}
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    lengths = {len(values) for values in arrays.values() if values.ndim}
    if count == 1 and len(lengths) == 1:
        count = lengths.pop()
    for name, values in arrays.items():
        if name not in COLUMNS or name in ("op", "thread"):
            raise UserError(f"no column {name!r} of an operation; there are: {', '.join(COLUMNS)}")
        if values.ndim and len(values) != count:
            raise UserError(f"{op}: {len(values)} values of {name} for {count} rows")
        made[name] = np.broadcast_to(values, (count,))
    made["op"] = np.full(count, OPS[op])
    return made


def in_turn(*chunks: Chunk) -> Chunk:
    """One row of each chunk, again and again; they are of one length."""
    counts = {len(chunk["op"]) for chunk in chunks}
    if len(counts) != 1:
        raise UserError(f"chunks of {', '.join(map(str, sorted(counts)))} rows cannot take turns; make them equal")
    names = {name for chunk in chunks for name in chunk}
    parts = [_filled(chunk, names) for chunk in chunks]
    return {name: np.stack([part[name] for part in parts], axis=1).reshape(-1) for name in names}


def repeated(chunk: Chunk, times: int) -> Chunk:
    """A chunk, so many times behind itself."""
    return {name: np.tile(values, times) for name, values in chunk.items()}


def _filled(chunk: Chunk, names: set[str]) -> Chunk:
    absent = {"object": -1, "flow": -1, "peer": -1}
    count = len(chunk["op"])
    return {name: chunk.get(name, np.full(count, absent.get(name, 0))) for name in names}


@define
class Script:
    """A trace in the making: objects (regions and files) and threads with what they do."""

    name: str
    about: str = ""
    base_image: bool = False
    _objects: list[dict[str, Any]] = field(factory=list)
    _threads: list[dict[str, Any]] = field(factory=list)
    _chunks: list[list[Chunk]] = field(factory=list)

    def region(self, pages: int, process: int = 0) -> int:
        """An anonymous region of a process; returns its number."""
        return self._object("anon", pages, process, f"region-{len(self._objects)}")

    def file(self, pages: int, name: str, image: bool = False) -> int:
        """A file of the VM's own disk, or of the base image; returns its number."""
        return self._object("image" if image else "own", pages, -1, name)

    def _object(self, kind: str, pages: int, process: int, name: str) -> int:
        self._objects.append({"kind": kind, "pages": int(pages), "process": process, "name": name})
        return len(self._objects) - 1

    def thread(self, *chunks: Chunk, process: int = 0) -> int:
        """A guest thread that does these operations one after the other; returns its number."""
        number = len(self._threads)
        self._threads.append(
            {"id": number, "process": process, "tier": TIER, "name": f"thread-{number}", "role": "guest"}
        )
        self._chunks.append(list(chunks))
        return number

    def columns(self) -> Chunk:
        """All rows, thread by thread; rows without a recorded time get the time that those before them take."""
        names = {name for chunks in self._chunks for chunk in chunks for name in chunk} | {"time_ns"}
        parts = []
        for number, chunks in enumerate(self._chunks):
            timed = any("time_ns" in chunk for chunk in chunks)
            joined = [_filled(chunk, names) for chunk in chunks]
            part = {name: np.concatenate([chunk[name] for chunk in joined]) for name in names}
            if not timed:
                taken = sum(part[name].astype(np.int64) for name in _TIME_COLUMNS if name in part)
                ends = np.cumsum(np.broadcast_to(taken, part["op"].shape))
                part["time_ns"] = np.concatenate([[0], ends[:-1]])
            part["thread"] = np.full(len(part["op"]), number)
            parts.append(part)
        return {name: np.concatenate([part[name] for part in parts]) for name in [*sorted(names), "thread"]}

    def trace(self) -> Trace:
        """The trace in memory, without a file."""
        columns = self.columns()
        return make_trace(self._meta(columns), columns)

    def save(self, path: Path | str) -> Trace:
        """Write the trace to a file, as `hvbench record` writes one."""
        columns = self.columns()
        return write_trace(path, self._meta(columns), columns)

    def _meta(self, columns: Chunk) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "command": f"hvbench.traces.synthetic: {self.about or self.name}",
            "synthetic": True,
            "span_ns": int(columns["time_ns"].max()),
            "page_size": PAGE_SIZE,
            "threads": self._threads,
            "tiers": [TIER],
            "objects": self._objects,
            "flows": [],
            "wait_shares": {},
            "licence": "CC0-1.0",
        }
        if self.base_image:
            meta["kind"] = "base_image"
        return meta


# processors ----------------------------------------------------------------------------------------------------


def compute_bound(name: str = "compute", burst_ns: int = 10_000_000, bursts: int = 1000) -> Script:
    """One thread that computes without end, in bursts."""
    script = Script(name, f"one thread, {bursts} bursts of {burst_ns} ns")
    script.thread(rows("compute", bursts, user_ns=burst_ns))
    return script


def idle_guest(period_ns: int = 100_000_000, tick_ns: int = 10_000, name: str = "idle") -> Script:
    """One thread that does next to nothing: wakes up every `period_ns` for `tick_ns`."""
    script = Script(name, f"{tick_ns} ns of work every {period_ns} ns")
    script.thread(repeated(in_turn(rows("compute", user_ns=tick_ns), rows("sleep", duration_ns=period_ns)), 100))
    return script


def critical_sections(
    compute_ns: ArrayLike, hold_ns: ArrayLike, locks: int = 1, threads: int = 2, name: str = "sections"
) -> Script:
    """Threads that compute, then hold one of a kernel's locks for a moment, in turn.

    `compute_ns` and `hold_ns` have a value for each pair, and are dealt to the threads in turn; pair k takes lock
    k modulo `locks`. Whether who finds the lock held spins or sleeps is the workload's `guest_spin`.
    """
    compute, hold = np.broadcast_arrays(np.asarray(compute_ns), np.asarray(hold_ns))
    script = Script(name, f"{threads} threads and {locks} locks")
    for number in range(threads):
        mine = slice(number, None, threads)
        lock = np.arange(len(compute))[mine] // threads % locks
        script.thread(
            in_turn(
                rows("compute", user_ns=compute[mine]),
                rows("lock", peer=lock),
                rows("compute", kernel_ns=hold[mine]),
                rows("unlock", peer=lock),
            )
        )
    return script


# disks ---------------------------------------------------------------------------------------------------------


def synchronous_writer(
    compute_ns: ArrayLike, pages: int = 1, span_pages: int = 262_144, seed: int = 0, name: str = "writer"
) -> Script:
    """One thread: computes, writes `pages` somewhere in `span_pages` of its disk, waits until they are there.

    Each pair is a request of its own (marks), as a transaction of a database is.
    """
    compute = np.atleast_1d(np.asarray(compute_ns))
    count = len(compute)
    place = np.random.default_rng(seed).integers(0, max(1, span_pages - pages), count)
    script = Script(name, f"{count} transactions of a write of {pages} pages")
    script.thread(
        in_turn(
            rows("mark_begin", count),
            rows("compute", user_ns=compute),
            rows("blk_write", page=place * SECTORS_PER_PAGE, pages=np.full(count, pages * SECTORS_PER_PAGE)),
            rows("mark_end", count),
        )
    )
    return script


def file_clients(
    clients: int,
    operations: int,
    pages: int,
    chunk_pages: int = 16,
    *,
    compute_ns: int = 100_000,
    write_share: float = 0.2,
    exponent: float = 0.9,
    seed: int = 0,
    name: str = "file-clients",
) -> Script:
    """Threads that compute and read or write chunks of one file of the VM's disk, through the guest's page cache.

    `operations` in all; chunk k of a random order is chosen with a probability in proportion to k to the power of
    -`exponent`.
    """
    random = np.random.default_rng(seed)
    chunks = pages // chunk_pages
    weights = np.arange(1, chunks + 1) ** -exponent
    place = random.permutation(chunks)[random.choice(chunks, operations, p=weights / weights.sum())]
    writes = random.random(operations) < write_share
    script = Script(name, f"{clients} clients, {operations} operations on {pages} pages")
    file = script.file(pages, "files")
    for number in range(clients):
        mine = slice(number, None, clients)
        where = place[mine] * chunk_pages
        access = rows("fread", object=file, page=where, pages=np.full(len(where), chunk_pages))
        access["op"] = np.where(writes[mine], OPS["fwrite"], OPS["fread"])
        access["flags"] = np.where(writes[mine], FLAG_WRITE, 0)
        script.thread(in_turn(rows("compute", len(where), user_ns=compute_ns), access))
    return script


# open arrivals -------------------------------------------------------------------------------------------------


def poisson_times(rate_per_s: float, count: int, seed: int) -> NDArray[np.int64]:
    """Times, ns, of the first `count` arrivals of a Poisson process."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_per_s, count)
    return np.cumsum(gaps).round().astype(np.int64)


def exponential(mean: float, count: int, seed: int, least: int = 1) -> NDArray[np.int64]:
    """Exponentially distributed whole numbers of a mean, none below `least`."""
    drawn = np.random.default_rng(seed).exponential(mean, count)
    return np.maximum(least, drawn.round()).astype(np.int64)


def jobs(arrival_ns: ArrayLike, compute_ns: ArrayLike, name: str = "jobs") -> Script:
    """One thread that computes for each arrival, from its time on or when it gets to it: for open-loop replay."""
    script = Script(name, "computes at given times; replay it open-loop")
    times, work = np.broadcast_arrays(np.asarray(arrival_ns), np.asarray(compute_ns))
    script.thread(rows("compute", time_ns=times, user_ns=work))
    return script


def disk_requests(arrival_ns: ArrayLike, pages: ArrayLike, name: str = "requests") -> Script:
    """One thread that reads from its disk at each arrival, from the start of the disk: for open-loop replay."""
    script = Script(name, "reads at given times; replay it open-loop")
    times, sizes = np.broadcast_arrays(np.asarray(arrival_ns), np.asarray(pages))
    script.thread(rows("blk_read", time_ns=times, pages=sizes * SECTORS_PER_PAGE))
    return script


# memory --------------------------------------------------------------------------------------------------------


def memory_image(contents: ArrayLike, common: ArrayLike = True, name: str = "pages") -> Script:
    """A base image: pages with these content identities (0 is a page of zeroes), in memory from the start.

    A `common` page has the same content in every VM that starts from the image; the others differ between VMs.
    """
    identities = np.asarray(contents, dtype=np.uint64)
    script = Script(name, f"{len(identities)} pages with given contents", base_image=True)
    region = script.region(len(identities))
    flags = np.where(np.broadcast_to(np.asarray(common), identities.shape), FLAG_COMMON, 0)
    script.thread(
        rows("content", object=region, page=np.arange(len(identities)), pages=1, content=identities, flags=flags)
    )
    return script


def working_sets(
    phases: Sequence[tuple[int, int, int]], pages: int, write: bool = True, name: str = "working-set"
) -> Script:
    """One thread that touches parts of a region of `pages` pages: phases of (first page, pages, pause ns)."""
    script = Script(name, f"touches {pages} pages in {len(phases)} steps")
    region = script.region(pages)
    first, count, pause = (np.array(column) for column in zip(*phases, strict=True))
    script.thread(
        rows("alloc", object=region, page=0, pages=pages),
        in_turn(
            rows("touch", object=region, page=first, pages=count, flags=FLAG_WRITE if write else 0),
            rows("sleep", duration_ns=pause),
        ),
    )
    return script
