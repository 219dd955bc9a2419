"""What is in a trace, in numbers: the figures that tell which axes a workload can put to work."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import asdict, define, field
from numpy.typing import NDArray

from hvbench.traces.format import (
    FLAG_COMMON,
    FLAG_SAMPLED,
    OP_NAMES,
    OPS,
    PAGE_SIZE,
    PRIVILEGED,
    Trace,
)
from hvbench.traces.handle.measured import measured
from hvbench.traces.handle.series import SECTOR, Series, plot, series
from hvbench.words import plural


@define
class TraceInfo:
    """Figures of one trace; times in ns, sizes in 4 KiB pages unless the name says otherwise."""

    name: str
    command: str
    recorded_at: str
    where: str
    digest: str
    rows: int
    span_ns: int
    threads: dict[str, int]
    tiers: list[str]
    operations: dict[str, int]
    user_ns: int
    kernel_ns: int
    compute_share: float  # of one vCPU, over the span; guest threads
    bursts: int
    mean_burst_ns: float
    privileged_per_compute_s: dict[str, float]
    wait_shares: dict[str, float]
    anon_pages_allocated: int
    anon_pages_touched: int
    anon_peak_pages: int  # most pages touched and not yet freed, over the recording
    file_pages_touched: int
    page_touches: int
    sampled_touch_share: float
    file_read_pages: int
    file_written_pages: int
    fsyncs: int
    content_rows: int
    content_common_share: float
    sharing_common_pages: int  # distinct common contents seen more than once or across runs
    sharing_zero_share: float
    sharing_duplicate_share: float
    flows: int
    bytes_sent: dict[str, int]  # by "from -> to" tier
    messages: int
    marks: int
    mark_p50_ns: int
    mark_p99_ns: int
    steal_ns: int
    lost_events: int
    touch_resolution_ns: int
    degraded: list[str] = field(factory=list)
    derived: list[str] = field(factory=list)
    block_requests: int = 0
    block_bytes: int = 0
    sharable_pages: int = 0  # of the last contents: zero pages, and copies of others
    measured: list[str] = field(factory=list)  # while recording, to be set beside a replay
    series: list[Series] = field(factory=list)
    replay: str = "closed"
    silent: list[str] = field(factory=list)  # axes that the source says nothing about
    steal_known: bool = False  # an import knows nothing of steal
    lost_known: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def trace_info(trace: Trace) -> TraceInfo:
    """Count what a (valid) trace holds; see `TraceInfo` for each figure."""
    c, meta = trace.columns, trace.meta
    op = c["op"]
    threads = meta["threads"]
    guest = np.array([t["role"] == "guest" for t in threads] or [False])
    of_guest = guest[np.clip(c["thread"], 0, max(0, len(threads) - 1))] if len(threads) else np.zeros(len(op), bool)
    compute = (op == OPS["compute"]) & of_guest
    user, kernel = int(c["user_ns"][compute].sum()), int(c["kernel_ns"][compute].sum())
    busy = user + kernel
    bursts = int(compute.sum())
    seconds = busy / 1e9
    roles: dict[str, int] = {}
    for thread in threads:
        roles[thread["tier"]] = roles.get(thread["tier"], 0) + 1
    counted = np.bincount(op, minlength=len(OP_NAMES))
    touches = (op == OPS["touch"]) | (op == OPS["mtouch"])
    touched_pages = c["pages"][touches].astype(np.int64)
    all_touches = int(touched_pages.sum())
    sampled = int(touched_pages[(c["flags"][touches] & FLAG_SAMPLED) != 0].sum())
    content = op == OPS["content"]
    block = (op == OPS["blk_read"]) | (op == OPS["blk_write"])
    common = content & ((c["flags"] & FLAG_COMMON) != 0)
    last = _last_contents(trace)
    values, repeats = np.unique(last, return_counts=True) if len(last) else (np.zeros(0, np.uint64), np.zeros(0, int))
    zero = int(repeats[values == 0].sum())
    duplicates = int((repeats[values != 0] - 1).sum())
    durations = _mark_durations(trace)
    anon_touched, anon_peak = _anon_pages(trace)
    return TraceInfo(
        name=trace.name,
        command=str(meta.get("command", "")),
        recorded_at=str(meta.get("recorded_at", "")),
        where=str(meta.get("machine", {}).get("where", "")),
        digest=trace.digest,
        rows=len(op),
        span_ns=int(meta["span_ns"]),
        threads=roles,
        tiers=list(meta["tiers"]),
        operations={name: int(counted[code]) for name, code in OPS.items() if counted[code]},
        user_ns=user,
        kernel_ns=kernel,
        compute_share=busy / meta["span_ns"] if meta["span_ns"] else 0.0,
        bursts=bursts,
        mean_burst_ns=busy / bursts if bursts else 0.0,
        privileged_per_compute_s={
            name: float(c[name][compute].sum()) / seconds if seconds else 0.0 for name in PRIVILEGED
        },
        wait_shares=dict(meta.get("wait_shares", {})),
        anon_pages_allocated=int(c["pages"][op == OPS["alloc"]].astype(np.int64).sum()),
        anon_pages_touched=anon_touched,
        anon_peak_pages=anon_peak,
        file_pages_touched=_distinct_file_pages(trace),
        page_touches=all_touches,
        sampled_touch_share=sampled / all_touches if all_touches else 0.0,
        file_read_pages=int(c["pages"][op == OPS["fread"]].astype(np.int64).sum()),
        file_written_pages=int(c["pages"][op == OPS["fwrite"]].astype(np.int64).sum()),
        fsyncs=int(counted[OPS["fsync"]]),
        content_rows=int(content.sum()),
        content_common_share=float(common.sum() / content.sum()) if content.any() else 0.0,
        sharing_common_pages=len(np.unique(c["content"][common])),
        sharing_zero_share=zero / len(last) if len(last) else 0.0,
        sharing_duplicate_share=duplicates / len(last) if len(last) else 0.0,
        flows=len(meta["flows"]),
        bytes_sent=_bytes_sent(trace),
        messages=int(counted[OPS["send"]]),
        marks=int(counted[OPS["mark_end"]]),
        mark_p50_ns=int(np.percentile(durations, 50)) if len(durations) else 0,
        mark_p99_ns=int(np.percentile(durations, 99)) if len(durations) else 0,
        steal_ns=int(meta.get("steal_ns", 0)),
        lost_events=int(meta.get("lost_events", 0)),
        touch_resolution_ns=int(meta.get("touch_resolution_ns", 0)),
        degraded=list(meta.get("degraded", [])),
        derived=[_step(step) for step in meta.get("derived", [])],
        block_requests=int(block.sum()),
        block_bytes=int(c["pages"][block].astype(np.int64).sum()) * SECTOR,
        sharable_pages=zero + duplicates,
        measured=measured(meta),
        series=series(trace),
        replay=str(meta.get("replay", "closed")),
        silent=[str(axis) for axis in meta.get("silent", [])],
        steal_known="steal_ns" in meta and "import" not in meta,
        lost_known="lost_events" in meta and ("import" not in meta or bool(meta["lost_events"])),
    )


def _step(step: dict[str, Any]) -> str:
    """A derivation as a person reads it."""
    how = ", ".join(f"{key} {value}" for key, value in step.get("how", {}).items())
    sources = ", ".join(f"{source['name']} {source['digest'][:12]}" for source in step.get("from", []))
    return f"{step.get('by', '?')} of {sources}" + (f": {how}" if how else "")


def _last_contents(trace: Trace) -> NDArray[Any]:
    """The last recorded identity of each page that has one."""
    c = trace.columns
    rows = np.flatnonzero(c["op"] == OPS["content"])
    rows = rows[np.argsort(c["time_ns"][rows], kind="stable")]
    last = {(int(c["object"][r]), int(c["page"][r])): int(c["content"][r]) for r in rows.tolist()}
    return np.array(list(last.values()), dtype=np.uint64)


def _mark_durations(trace: Trace) -> NDArray[Any]:
    """Recorded ns from each mark_begin to the mark_end that closes it, all threads."""
    c = trace.columns
    op, thread, time = c["op"], c["thread"], c["time_ns"]
    flow = c["flow"]
    open_marks: dict[tuple[int, int], list[int]] = {}
    found: list[int] = []
    for row in np.flatnonzero((op == OPS["mark_begin"]) | (op == OPS["mark_end"])).tolist():
        stack = open_marks.setdefault((int(thread[row]), int(flow[row])), [])
        if op[row] == OPS["mark_begin"]:
            stack.append(int(time[row]))
        elif stack:
            found.append(int(time[row]) - stack.pop())
    return np.array(found, dtype=np.int64)


def _ranges(trace: Trace, mask: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(object, first page, end page) of the rows of `mask`, in time order."""
    c = trace.columns
    rows = np.flatnonzero(mask)
    rows = rows[np.argsort(c["time_ns"][rows], kind="stable")]
    return [(int(c["object"][r]), int(c["page"][r]), int(c["page"][r]) + int(c["pages"][r])) for r in rows.tolist()]


def _anon_pages(trace: Trace) -> tuple[int, int]:
    """Distinct anonymous pages ever touched, and the most that were held at one time."""
    c, op = trace.columns, trace.columns["op"]
    objects = trace.meta["objects"]
    if not objects:
        return 0, 0
    relevant = (op == OPS["touch"]) | (op == OPS["free"]) | (op == OPS["exit"])
    rows = np.flatnonzero(relevant)
    rows = rows[np.argsort(c["time_ns"][rows], kind="stable")]
    held: dict[int, NDArray[np.bool_]] = {}
    ever: dict[int, NDArray[np.bool_]] = {}
    of_process: dict[int, list[int]] = {}
    for index, item in enumerate(objects):
        if item["kind"] == "anon":
            of_process.setdefault(int(item.get("process", -1)), []).append(index)
    now = peak = 0
    for row in rows.tolist():
        if op[row] == OPS["exit"]:
            for index in of_process.get(int(trace.meta["threads"][int(c["thread"][row])]["process"]), ()):
                if index in held:
                    now -= int(held[index].sum())
                    held[index][:] = False
            continue
        index = int(c["object"][row])
        size = int(objects[index]["pages"])
        mine = held.setdefault(index, np.zeros(size, dtype=bool))
        where = slice(int(c["page"][row]), int(c["page"][row]) + int(c["pages"][row]))
        before = int(mine[where].sum())
        mine[where] = op[row] == OPS["touch"]
        now += int(mine[where].sum()) - before
        if op[row] == OPS["touch"]:
            ever.setdefault(index, np.zeros(size, dtype=bool))[where] = True
        peak = max(peak, now)
    return sum(int(pages.sum()) for pages in ever.values()), peak


def _distinct_file_pages(trace: Trace) -> int:
    op = trace.columns["op"]
    mask = (op == OPS["mtouch"]) | (op == OPS["fread"]) | (op == OPS["fwrite"])
    seen: dict[int, NDArray[np.bool_]] = {}
    for index, first, end in _ranges(trace, mask):
        pages = seen.setdefault(index, np.zeros(int(trace.meta["objects"][index]["pages"]), dtype=bool))
        pages[first:end] = True
    return sum(int(pages.sum()) for pages in seen.values())


def _bytes_sent(trace: Trace) -> dict[str, int]:
    c = trace.columns
    total: dict[str, int] = {}
    for row in np.flatnonzero(c["op"] == OPS["send"]).tolist():
        ends = trace.meta["flows"][int(c["flow"][row])]["ends"]
        tier = trace.meta["threads"][int(c["thread"][row])]["tier"]
        other = ends[1] if tier == ends[0] else ends[0]
        key = f"{tier} -> {other}"
        total[key] = total.get(key, 0) + int(c["bytes"][row])
    return total


def _ns(value: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 999.5 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} ns"


def _span(value: int) -> str:
    """A span, with digits enough to cut by."""
    return f"{value / 1e9:.2f} s" if value >= 100e9 else _ns(value)


def _recorded(info: TraceInfo) -> list[str]:
    """When and where, and what was lost, as far as the metadata says."""
    said = [" on ".join(filter(None, [info.recorded_at, info.where]))] if info.recorded_at else []
    if info.steal_known:
        said.append(f"steal {_ns(info.steal_ns)}")
    if info.lost_known:
        said.append(f"{plural(info.lost_events, 'event')} lost")
    return [f"  recorded      {', '.join(said)}"] if said else []


def _mib(pages: int) -> str:
    return f"{pages * PAGE_SIZE / 2**20:.1f} MiB"


def format_info(info: TraceInfo) -> str:
    """`TraceInfo` as lines for a terminal."""
    span_s = info.span_ns / 1e9 or 1.0
    lines = [
        f"{info.name}: {info.command}",
        *_recorded(info),
        f"  digest        {info.digest}",
        f"  span          {_span(info.span_ns)}, {plural(info.rows, 'operation')} ({info.rows / span_s:.0f}/s)",
        f"  replay        {info.replay} loop",
        "  threads       " + ", ".join(f"{count} {tier}" for tier, count in info.threads.items()),
        "  operations    " + ", ".join(f"{name} {count}" for name, count in info.operations.items()),
    ]
    if info.bursts:
        lines += [
            f"  compute       {_ns(info.user_ns)} user + {_ns(info.kernel_ns)} kernel = "
            f"{info.compute_share:.2f} vCPU, {info.bursts} bursts of {_ns(info.mean_burst_ns)} in the mean",
            "  privileged/s  "
            + ", ".join(f"{name} {rate:.0f}" for name, rate in info.privileged_per_compute_s.items() if rate)
            + " (per second of compute)",
        ]
    if info.wait_shares:
        lines.append("  waits         " + ", ".join(f"{k} {v:.1%}" for k, v in info.wait_shares.items() if v))
    if info.page_touches or info.anon_pages_allocated:
        lines += [
            f"  memory        {_mib(info.anon_pages_touched)} anonymous touched (at most "
            f"{_mib(info.anon_peak_pages)} at a time), {_mib(info.file_pages_touched)} of files",
            f"  touches       {info.page_touches} pages, {info.sampled_touch_share:.0%} sampled, resolution "
            f"{_ns(info.touch_resolution_ns)}",
        ]
    if info.file_read_pages or info.file_written_pages or info.fsyncs:
        lines.append(
            f"  files         {_mib(info.file_read_pages)} read, {_mib(info.file_written_pages)} written, "
            f"{info.fsyncs} fsyncs"
        )
    if info.content_rows:
        lines.append(
            f"  sharing       {info.content_rows} contents, {info.content_common_share:.0%} common; of the last "
            f"ones {info.sharing_zero_share:.0%} zero, {info.sharing_duplicate_share:.0%} duplicates: "
            f"{_mib(info.sharable_pages)} could be saved"
        )
    if info.flows:
        lines.append(
            f"  flows         {info.flows} flows, {info.messages} messages: "
            + ", ".join(f"{key} {value / 1e6:.2f} MB" for key, value in info.bytes_sent.items())
        )
    if info.marks:
        lines.append(
            f"  requests      {info.marks}, p50 {_ns(info.mark_p50_ns)}, p99 {_ns(info.mark_p99_ns)} as recorded"
        )
    if info.block_requests:
        lines.append(
            f"  block         {info.block_requests} requests ({info.block_requests / span_s:.0f}/s), "
            f"{info.block_bytes / 2**20:.1f} MiB"
        )
    if info.silent:
        lines.append(f"  silent        {', '.join(info.silent)}")
    lines += [f"  measured      {sentence}" for sentence in info.measured]
    lines += [f"  derived       {sentence}" for sentence in info.derived]
    lines += [f"  degraded      {sentence}" for sentence in info.degraded]
    lines += plot(info.series, _span(info.span_ns))
    return "\n".join(lines)
