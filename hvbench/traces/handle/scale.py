"""A trace made longer, heavier or larger by stated factors.

- `time` multiplies what passes by itself: sleeps, waits that are kept as durations, time-outs of receives, and the
  recorded times (which only open-loop replay looks at).
- `compute` multiplies the time on the CPU, user and kernel; counts of privileged operations stay.
- `memory` multiplies anonymous memory: page p becomes the pages from floor(p × factor) up to floor((p + 1) × factor),
  so that what was next to each other stays so. A content of a page that becomes several goes to each of them, to the
  first as it is, to the k-th mixed with k: pages that were equal have equal copies, zero pages stay zero, and the
  shares of both stay.
- `files` does the same to the files of the VM's own disk; those of the base image belong to the image and stay.

Whole numbers are made by rounding down; an operation that touches keeps at least one page, a time-out at least 1 ns.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.check import INT32_MOST, LONGEST_NS
from hvbench.traces.format import SALT, ZERO_PAGE, Trace, make_trace
from hvbench.traces.handle.derived import Columns, derivation, is_op, needs_operations, taken

_TOUCHES = ("touch", "mtouch", "fread", "fwrite")
_RANGES = ("alloc", "free", *_TOUCHES)
FINEST = 1_000_000
"""Largest denominator of a factor, so that pages times numerators stay within 64 bits."""
LEAST, MOST = Fraction(1, 10_000), Fraction(10_000)


def scale(
    trace: Trace,
    time: Fraction = Fraction(1),
    compute: Fraction = Fraction(1),
    memory: Fraction = Fraction(1),
    files: Fraction = Fraction(1),
) -> Trace:
    """A valid trace with its times, its compute and its memory multiplied. Raises UserError."""
    needs_operations(trace, "scale")
    time, compute, memory, files = (f.limit_denominator(FINEST) for f in (time, compute, memory, files))
    factors = {"time": time, "compute": compute, "memory": memory, "files": files}
    where = trace.path or trace.name
    for name, factor in factors.items():
        if not LEAST <= factor <= MOST:
            raise UserError(f"--{name} {float(factor):g}: a factor from {float(LEAST):g} to {float(MOST):g} is legal")
    if all(factor == 1 for factor in factors.values()):
        raise UserError(f"{where}: nothing to scale; give --time, --compute, --memory or --files with a factor")
    c = {name: values.copy() for name, values in trace.columns.items()}
    meta = dict(trace.meta)
    for name in ("time_ns", "duration_ns"):
        had = c[name] > 0
        c[name] = _multiplied(c[name], time, f"{where}: --time")
        if name == "duration_ns":
            c[name][had] = np.maximum(c[name][had], 1)
    for name in ("user_ns", "kernel_ns"):
        c[name] = _multiplied(c[name], compute, f"{where}: --compute")
    meta["span_ns"] = int(_multiplied(np.array([meta["span_ns"]]), time, f"{where}: --time")[0])
    factor_of = [
        memory if item["kind"] == "anon" else files if item["kind"] == "own" else Fraction(1)
        for item in meta["objects"]
    ]
    meta["objects"] = [
        {**item, "pages": max(1, _pages(item["pages"], factor, where)) if item["pages"] else 0}
        for item, factor in zip(meta["objects"], factor_of, strict=True)
    ]
    meta["warm"] = [
        [index, first, end - first]
        for index, page, count in meta.get("warm", [])
        for first, end in [(_floor(page, factor_of[index]), _floor(page + count, factor_of[index]))]
        if end > first
    ]
    c = _scaled_pages(c, factor_of, [item["pages"] for item in meta["objects"]])
    how = {name: float(factor) for name, factor in factors.items() if factor != 1}
    meta["derived"] = [*meta.get("derived", []), derivation("scale", [trace], how)]
    return make_trace(meta, c)


def _floor(value: int, factor: Fraction) -> int:
    return value * factor.numerator // factor.denominator


def _pages(pages: int, factor: Fraction, where: object) -> int:
    scaled = _floor(pages, factor)
    if scaled > INT32_MOST:
        raise UserError(f"{where}: an object of {pages} pages times {float(factor):g} is above {INT32_MOST} pages")
    return scaled


def _multiplied(values: NDArray[Any], factor: Fraction, what: str) -> NDArray[Any]:
    """Exactly, rounded down; UserError where a time would leave what a trace can hold."""
    if factor == 1 or not len(values):
        return values
    if _floor(int(values.max()), factor) > LONGEST_NS:
        raise UserError(f"{what} {float(factor):g}: a time of {int(values.max())} ns would be above {LONGEST_NS} ns")
    return _floors(values, factor)


def _floors(values: NDArray[Any], factor: Fraction) -> NDArray[np.int64]:
    """Each value times the factor, exactly, rounded down."""
    whole, rest = np.divmod(values.astype(np.int64), factor.denominator)
    made: NDArray[np.int64] = whole * factor.numerator + rest * factor.numerator // factor.denominator
    return made


def _scaled_pages(c: Columns, factor_of: list[Fraction], sizes: list[int]) -> Columns:
    """Ranges of pages and contents moved to where they are in the scaled objects."""
    whole = np.ones(len(c["op"]), bool)
    touches, ranges, content = is_op(c, *_TOUCHES), is_op(c, *_RANGES), is_op(c, "content")
    repeats = np.ones(len(whole), np.int64)
    for index, factor in enumerate(factor_of):
        if factor == 1:
            continue
        mine = c["object"] == index
        first, end = c["page"][mine], c["page"][mine] + c["pages"][mine]
        first, end = _floors(first, factor), _floors(end, factor)
        at_least = (touches[mine]).astype(np.int64)
        count = np.maximum(end - first, at_least)
        most = np.maximum(1, sizes[index]) - 1
        c["page"][mine] = np.where(touches[mine], np.minimum(first, most), first)
        c["pages"][mine] = np.where(ranges[mine] | content[mine], count, c["pages"][mine])
        gone = mine & (ranges | content) & (c["pages"] == 0)
        whole &= ~gone
        repeats[mine & content] = c["pages"][mine & content]
    kept = np.repeat(np.flatnonzero(whole), repeats[whole])
    made = taken(c, kept)
    fresh = np.ones(len(kept), bool)
    fresh[1:] = kept[1:] != kept[:-1]
    copy = np.arange(len(kept)) - np.maximum.accumulate(np.where(fresh, np.arange(len(kept)), 0))
    multiplied = is_op(made, "content") & (repeats[kept] > 1)
    made["page"][multiplied] += copy[multiplied]
    made["pages"][multiplied] = 1
    for at in np.flatnonzero(multiplied & (copy > 0)).tolist():
        made["content"][at] = mixed(int(made["content"][at]), int(copy[at]))
    return made


def mixed(content: int, copy: int) -> int:
    """The identity of the k-th copy of a content: equal contents have equal copies, a zero page stays one."""
    if content == ZERO_PAGE or copy == 0:
        return content
    text = content.to_bytes(8, "little") + copy.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=SALT).digest(), "little") or 1
