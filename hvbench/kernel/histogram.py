"""Log-linear histograms of durations: 32 buckets for each power of two, so a relative error of at most 1/32.

The layout is HdrHistogram's (G. Tene): exact below 32 ns, then five significant bits.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import bit_length

SUB_BITS = 5
SUB = 1 << SUB_BITS
TOP_BITS = 45
"""Durations of 2^45 ns (about 10 hours) and more fall into the last bucket."""
BUCKETS = (TOP_BITS - SUB_BITS + 1) * SUB

H_WAKEUP, H_REQUEST, H_IO, H_WAIT = 0, 1, 2, 3
HISTOGRAMS = 4
"""Histograms kept for each VM: wake-up latency, request latency, I/O latency, wait for a pCPU."""


@jit
def bucket_of(value_ns: int) -> int:
    """Bucket of a duration."""
    if value_ns < SUB:
        return max(value_ns, 0)
    bits = bit_length(value_ns)
    if bits > TOP_BITS:
        return BUCKETS - 1
    return (bits - SUB_BITS) * SUB + ((value_ns >> (bits - SUB_BITS - 1)) & (SUB - 1))


@jit
def observe(host: Any, vm: int, kind: int, value_ns: int) -> None:
    """Count one duration of a VM."""
    b = host.bucket[(vm * HISTOGRAMS + kind) * BUCKETS + bucket_of(value_ns)]
    b.count += 1


def bucket_floor(bucket: int) -> int:
    """Smallest duration of a bucket, ns."""
    if bucket < SUB:
        return bucket
    bits = bucket // SUB + SUB_BITS
    return (SUB + bucket % SUB) << (bits - SUB_BITS - 1)


def percentile(counts: Any, fraction: float) -> float:
    """The duration below which `fraction` of the samples lie: the middle of its bucket, NaN without samples."""
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    rank = max(1, min(total, -int(-fraction * total // 1)))
    seen = 0
    for bucket in range(len(counts)):
        seen += int(counts[bucket])
        if seen >= rank:
            low = bucket_floor(bucket)
            high = bucket_floor(bucket + 1) if bucket + 1 < BUCKETS else low
            return (low + max(low, high - 1)) / 2
    raise AssertionError("unreachable: the counts add up to their sum")
