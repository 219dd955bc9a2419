"""What a trace does over its span: figures in equal steps of recorded time, and a small plot of them."""

from __future__ import annotations

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import OPS, PAGE_SIZE, ZERO_PAGE, Trace

STEPS = 60
BLOCKS = "▁▂▃▄▅▆▇█"
SECTOR = 512
"""Block requests count sectors in the columns of pages."""
_MIB = PAGE_SIZE / 2**20


@define
class Series:
    """One figure over time: a value a step; `blank` steps say nothing."""

    name: str
    unit: str
    values: list[float]
    places: int = 1


@define
class _Steps:
    """The trace's rows in steps of recorded time."""

    trace: Trace
    count: int
    step_ns: int = 0
    at: NDArray[np.int64] = field(factory=lambda: np.zeros(0, np.int64))
    guest: NDArray[np.bool_] = field(factory=lambda: np.zeros(0, bool))

    def __attrs_post_init__(self) -> None:
        c, meta = self.trace.columns, self.trace.meta
        self.step_ns = max(1, -(-int(meta["span_ns"]) // self.count))
        self.at = np.minimum(c["time_ns"] // self.step_ns, self.count - 1)
        roles = np.array([thread["role"] == "guest" for thread in meta["threads"]])
        self.guest = roles[c["thread"]]

    def rows(self, *names: str) -> NDArray[np.bool_]:
        """The guests' rows of these operations."""
        found: NDArray[np.bool_] = np.isin(self.trace.columns["op"], [OPS[name] for name in names]) & self.guest
        return found

    def sums(self, rows: NDArray[np.bool_], values: NDArray[np.int64]) -> NDArray[np.float64]:
        made: NDArray[np.float64] = np.bincount(
            self.at[rows], weights=values[rows].astype(np.float64), minlength=self.count
        ).astype(np.float64)
        return made


def series(trace: Trace, steps: int = STEPS) -> list[Series]:
    """vCPUs in use, memory held, working set, sharing potential, I/O and messages; what never occurs is left out.

    The working set of a step are the distinct pages, of memory and files, that are used in it. Sharing potential is the
    share of known contents that are zero or equal to another's, as contents were last recorded.
    """
    if trace.is_base_image or not len(trace):
        return []
    s = _Steps(trace, steps)
    c = trace.columns
    seconds = s.step_ns / 1e9
    pages = c["pages"].astype(np.int64)
    found = [Series("compute", "vCPUs", _computed(s).tolist(), 2)] if s.rows("compute").any() else []
    memory = s.rows("touch", "mtouch", "fread", "fwrite")
    if memory.any():
        held, used = _memory(s)
        found += [
            Series("memory held", "MiB", (held * _MIB).tolist()),
            Series("working set", "MiB", (used * _MIB).tolist()),
        ]
    if s.rows("content").any():
        found.append(Series("sharable", "%", (100 * _sharable(s)).tolist()))
    size = pages * PAGE_SIZE
    for name, ops, values in (
        ("file reads", ("fread",), size),
        ("file writes", ("fwrite",), size),
        ("block reads", ("blk_read",), pages * SECTOR),
        ("block writes", ("blk_write",), pages * SECTOR),
        ("sent", ("send",), c["bytes"]),
    ):
        rows = s.rows(*ops)
        if rows.any():
            found.append(Series(name, "MB/s", (s.sums(rows, values) / 1e6 / seconds).tolist(), 2))
    ends = c["op"] == OPS["mark_end"]
    if ends.any():
        found.append(Series("requests", "/s", (s.sums(ends, np.ones(len(ends), np.int64)) / seconds).tolist(), 0))
    return found


def _computed(s: _Steps) -> NDArray[np.float64]:
    """CPU time of each step in vCPUs; a burst is spread over the steps from its begin on."""
    c = s.trace.columns
    rows = np.flatnonzero(s.rows("compute"))
    spent = (c["user_ns"][rows] + c["kernel_ns"][rows]).astype(np.int64)
    made = np.zeros(s.count)
    begin = c["time_ns"][rows] - s.at[rows] * s.step_ns
    at = s.at[rows].copy()
    while len(at):
        here = np.minimum(spent, np.maximum(0, s.step_ns - begin))
        last = at >= s.count - 1
        here = np.where(last, spent, here)  # what reaches over the end is counted there
        np.add.at(made, at, here)
        spent = spent - here
        going = spent > 0
        at, spent, begin = at[going] + 1, spent[going], np.zeros(int(going.sum()), np.int64)
    share: NDArray[np.float64] = made / s.step_ns
    return share


def _memory(s: _Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Anonymous pages held at the end of each step, and distinct pages used in it."""
    c, meta = s.trace.columns, s.trace.meta
    rows = np.flatnonzero(s.rows("touch", "mtouch", "fread", "fwrite", "free", "exit"))
    rows = rows[np.argsort(c["time_ns"][rows], kind="stable")]
    objects, threads = meta["objects"], meta["threads"]
    held = {i: np.zeros(item["pages"], bool) for i, item in enumerate(objects)}
    last_used = {i: np.full(item["pages"], -1, np.int32) for i, item in enumerate(objects)}
    anon = [item["kind"] == "anon" for item in objects]
    of_process: dict[int, list[int]] = {}
    for i, item in enumerate(objects):
        if anon[i]:
            of_process.setdefault(int(item.get("process", -1)), []).append(i)
    holding, using = np.full(s.count, -1.0), np.zeros(s.count)
    now = 0
    for at in rows.tolist():
        step, op = int(s.at[at]), int(c["op"][at])
        if op == OPS["exit"]:
            for index in of_process.get(int(threads[c["thread"][at]]["process"]), ()):
                now -= int(held[index].sum())
                held[index][:] = False
        else:
            index = int(c["object"][at])
            where = slice(int(c["page"][at]), int(c["page"][at]) + int(c["pages"][at]))
            if anon[index]:
                before = int(held[index][where].sum())
                held[index][where] = op != OPS["free"]
                now += int(held[index][where].sum()) - before
            if op != OPS["free"]:
                using[step] += int((last_used[index][where] != step).sum())
                last_used[index][where] = step
        holding[step] = now
    for step in range(s.count):
        if holding[step] < 0:
            holding[step] = holding[step - 1] if step else 0
    return holding, using


def _sharable(s: _Steps) -> NDArray[np.float64]:
    """Of the contents known at the end of each step: the share that sharing could save."""
    c = s.trace.columns
    rows = np.flatnonzero(s.rows("content"))
    rows = rows[np.argsort(c["time_ns"][rows], kind="stable")]
    known: dict[tuple[int, int], int] = {}
    counts: dict[int, int] = {}
    made = np.zeros(s.count)
    upto = -1
    saved = 0

    def gained(content: int, by: int) -> int:
        """By how much the pages that sharing could save change."""
        had = counts.get(content, 0)
        counts[content] = had + by
        if content == ZERO_PAGE:
            return by
        return max(0, had + by - 1) - max(0, had - 1)

    for at in rows.tolist():
        step = int(s.at[at])
        if step > upto:
            made[max(0, upto) : step] = saved / len(known) if known else 0.0
            upto = step
        key = int(c["object"][at]), int(c["page"][at])
        if key in known:
            saved += gained(known[key], -1)
        known[key] = int(c["content"][at])
        saved += gained(known[key], 1)
    made[max(0, upto) :] = saved / len(known)
    return made


def plot(found: list[Series], span: str) -> list[str]:
    """A line of blocks for each series, scaled to its own most, with least, mean and most in numbers."""
    lines = []
    for item in found:
        most = max(item.values)
        levels = [min(len(BLOCKS) - 1, int(value / most * len(BLOCKS))) if most > 0 else 0 for value in item.values]
        bar = "".join(" " if value <= 0 else BLOCKS[level] for value, level in zip(item.values, levels, strict=True))
        mean = sum(item.values) / len(item.values)
        p = item.places
        lines.append(f"  {item.name:<13} {bar}  mean {mean:.{p}f}, most {most:.{p}f} {item.unit}")
    if lines:
        lines.append(f"  {'':<13} 0{span:>{len(found[0].values) - 1}}")
    return lines
