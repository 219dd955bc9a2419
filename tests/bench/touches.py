"""Page touches a second of one core through the kernel, and libCacheSim's Python package on the same streams.

    python -m tests.bench.touches

A stream is the touch rows of a trace: a guest's thread replays them from table op. Zipf (exponent 0.9) over 2^20 pages
stands in two orders: `scattered`, hot pages anywhere, and `ranked`, page i the i-th hottest, as libCacheSim's own
generator numbers them. The recorded stream is that of a bundled trace, its ranges as they were recorded. `resident`:
everything in memory before the clock starts. `half`: memory for half of the pages, from empty; file pages are dropped
and read again over the local disk, anonymous ones are written to the guest's swap and read back. Time is CPU time of
the thread; bars are printed as met or missed and never asserted.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.binding import Loop, bind
from hvbench.build import CpuSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, build, no_privileged
from hvbench.build_io import IoSpec
from hvbench.build_memory import NO_COSTS, GuestMemory, MemoryObject, MemorySpec
from hvbench.paths import DIRECT_PATH
from hvbench.state import schema
from hvbench.state.memory import HostMemory
from hvbench.state.records_memory import ANON, OWN
from hvbench.traces.format import OPS
from hvbench.traces.load import load_trace
from hvbench.workload import find_trace

PAGES = 1 << 20
ZIPF_ALPHA = 0.9
RESIDENT_BAR, RECLAIM_BAR = 30e6, 10e6
RECORDED = "memdb"
KINDS = {"file": OWN, "swap": ANON}


@attrs.frozen(eq=False)
class Stream:
    """Touch rows: first page and number of pages of each, over an object of `pages` pages."""

    name: str
    pages: int
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    @property
    def touches(self) -> int:
        return int(self.count.sum())

    def requests(self) -> NDArray[np.int64]:
        """The stream page by page."""
        within = np.arange(self.touches) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        return np.repeat(self.first, self.count) + within


def zipf(length: int, scattered: bool, pages: int = PAGES) -> Stream:
    """Independent draws with exponent ZIPF_ALPHA."""
    rng = np.random.default_rng(1)
    weight = np.cumsum(np.arange(1, pages + 1) ** -ZIPF_ALPHA)
    rank = np.minimum(np.searchsorted(weight / weight[-1], rng.random(length)), pages - 1)
    first = rng.permutation(pages)[rank] if scattered else rank
    name = f"zipf, {'scattered' if scattered else 'ranked'}"
    return Stream(name, pages, first.astype(np.int64), np.ones(length, np.int64))


def recorded(least: int, name: str = RECORDED) -> Stream:
    """The touch rows of a bundled trace, objects one behind the other, passed again until there are `least` touches."""
    trace = load_trace(find_trace(name, Path()))
    size = np.array([max(1, int(x.meta["pages"])) for x in trace.objects], np.int64)
    start = np.cumsum(size) - size
    rows = trace.ops[np.isin(trace.ops["op"], [OPS["touch"], OPS["mtouch"]])]
    rows = rows[rows["b"] > 0]
    # pages that no row touches are left out, so that half of the pages is half of those that are
    ranges = Stream(name, 0, start[rows["x"]] + rows["a"], rows["b"].astype(np.int64))
    used, index = np.unique(ranges.requests(), return_inverse=True)
    first = index.reshape(-1)[np.cumsum(ranges.count) - ranges.count]
    passes = -(-least // ranges.touches)
    return Stream(f"recorded, {name}", len(used), np.tile(first, passes), np.tile(ranges.count, passes))


def host(stream: Stream, memory_pages: int, replacement: str, kind: int, fill: bool) -> tuple[HostMemory, Loop]:
    """One VM that touches all pages (`fill`), computes 1 us, replays the stream, and sleeps."""
    op = OPS["touch"] if kind == ANON else OPS["mtouch"]
    rows = schema.TABLES["op"].layout.zeros(len(stream.first) + 3)
    rows["op"], rows["b"] = op, 1
    rows["a"][2:-1], rows["b"][2:-1] = stream.first, stream.count
    rows["b"][0] = stream.pages if fill else 1
    rows["x"][[1, -1]], rows["b"][[1, -1]] = -1, 0
    rows["op"][1], rows["a"][1] = OPS["compute"], 1000
    # the thread then sleeps: it must not begin anew while the clock runs
    rows["op"][-1], rows["a"][-1] = OPS["sleep"], 1 << 59
    guest = GuestMemory(memory_pages, replacement=replacement, swap_pages=2 * stream.pages, readahead_pages=0)
    spec = MemorySpec(
        frames=2 * memory_pages + 8192,
        vms=(guest,),
        objects=((MemoryObject(kind, stream.pages, 0, 0, 1000),),),
        hypervisor_pages=16,
        vm_overhead_pages=4,
        overhead_ppm=0,
        costs=NO_COSTS,
    )
    made = build(
        HostSpec(
            cpu=CpuSpec(pcpus=1),
            vms=(VmSpec(vcpus=1, group=0, memory_pages=memory_pages),),
            groups=(GroupSpec((ThreadSpec(0, 0, len(rows)),)),),
            ops=rows,
            privileged=no_privileged(),
            horizon_ns=1 << 60,
            io=IoSpec(path=DIRECT_PATH),
            memory=spec,
        )
    )
    bind(made, [])
    loop = Loop(made, False)
    loop.boot()
    while made.tables["thread"]["op"][0] < 1:
        loop.run(1)
    return made, loop


def replay(made: HostMemory, loop: Loop, events: int) -> None:
    """To the sleep behind the stream."""
    thread = made.tables["thread"]
    last = int(thread["op_end"][0]) - 1
    while thread["op"][0] < last:
        assert loop.run(events) == 0, made.header["error"][0]


def kernel_rate(stream: Stream, replacement: str, share: float, kind: int) -> tuple[float, float]:
    """Touches a CPU second with memory for `share` of the pages (above 1: all resident), and misses a touch."""
    resident = share > 1
    room = stream.pages + 4096 if resident else int(stream.pages * share)
    if resident and replacement == "linux":
        room += stream.pages // 8
    made, loop = host(stream, room, replacement, kind, resident)
    before = int(made.tables["vmem"]["guest_faults"][0])
    started = time.thread_time()
    replay(made, loop, 1 if resident else 100)
    taken = time.thread_time() - started
    return stream.touches / taken, (int(made.tables["vmem"]["guest_faults"][0]) - before) / stream.touches


def simulator_rate(stream: Stream, replacement: str, share: float) -> tuple[float, float]:
    """The same of libCacheSim's Python package, which reads the stream from a file and replays it natively."""
    import libcachesim as lcs

    record = np.zeros(stream.touches, np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]))
    record["id"], record["size"], record["next"] = stream.requests(), 1, -2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.oracleGeneral"
        record.tofile(path)
        init = lcs.ReaderInitParam(ignore_obj_size=True)
        reader = lcs.TraceReader(
            trace=str(path), trace_type=lcs.TraceType.ORACLE_GENERAL_TRACE, reader_init_params=init
        )
        room = stream.pages + 4096 if share > 1 else int(stream.pages * share)
        cache: Any = {"lru": lcs.LRU, "clock": lcs.Clock, "fifo": lcs.FIFO}[replacement](room)
        started = time.thread_time()
        misses, _ = cache.process_trace(reader)
        return stream.touches / (time.thread_time() - started), float(misses)


def lines(length: int = 12_000_000) -> Iterator[str]:
    """The report: resident, then memory for half of the pages, each beside libCacheSim on the same stream."""
    yield f"page touches a CPU second on one core, in millions ({os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f})"
    yield (
        f"{'stream':22}{'memory':10}{'replacement':14}{'hvbench':>8}{'misses':>9}{'libCacheSim':>13}{'misses':>9}"
        f"{'ratio':>7}  bar"
    )
    for stream in (zipf(length, True), zipf(length, False), recorded(length)):
        for name in ("linux", "lru", "clock"):
            ours, missed = kernel_rate(stream, name, 2, ANON)
            theirs, _ = simulator_rate(stream, "clock" if name == "linux" else name, 2)
            yield _line(stream.name, "resident", name, ours, missed, theirs, 0.0, RESIDENT_BAR)
        for kind, code in KINDS.items():
            for name in ("lru", "clock"):
                ours, missed = kernel_rate(stream, name, 0.5, code)
                theirs, their_misses = simulator_rate(stream, name, 0.5)
                where = f"half,{kind}"
                yield _line(stream.name, where, name, ours, missed, theirs, their_misses, RECLAIM_BAR)


def _line(
    stream: str, memory: str, name: str, ours: float, missed: float, theirs: float, their_misses: float, bar: float
) -> str:
    verdict = "met" if ours >= bar else "missed"
    return (
        f"{stream:22}{memory:10}{name:14}{ours / 1e6:8.1f}{missed:9.4f}{theirs / 1e6:13.1f}{their_misses:9.4f}"
        f"{ours / theirs:7.1f}  {bar / 1e6:.0f}: {verdict}"
    )


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
