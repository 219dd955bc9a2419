"""Histograms of durations: buckets partition the time line, percentiles are right within 1/32."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.kernel.histogram import BUCKETS, SUB, TOP_BITS, bucket_floor, bucket_of, percentile

LIMIT = 1 << TOP_BITS
durations = st.integers(0, 200) | st.integers(0, LIMIT - 1) | st.integers(0, TOP_BITS - 1).map(lambda b: 1 << b)


def test_every_bucket_begins_where_its_predecessor_ends() -> None:
    assert bucket_floor(0) == 0
    for bucket in range(1, BUCKETS):
        floor = bucket_floor(bucket)
        assert bucket_of(floor) == bucket
        assert bucket_of(floor - 1) == bucket - 1
    assert bucket_of(LIMIT - 1) == BUCKETS - 1


@given(durations)
def test_a_duration_lies_in_its_bucket(value: int) -> None:
    bucket = bucket_of(value)
    low = bucket_floor(bucket)
    high = bucket_floor(bucket + 1) if bucket + 1 < BUCKETS else LIMIT
    assert low <= value < high
    assert high - low == 1 or (high - low) * SUB <= low


@given(durations, durations)
def test_longer_durations_never_lie_in_earlier_buckets(one: int, other: int) -> None:
    assert (one <= other) <= (bucket_of(one) <= bucket_of(other))


@pytest.mark.parametrize("value", [LIMIT, LIMIT + 1, 1 << 62, -1, -(1 << 62)])
def test_durations_outside_of_the_range_stay_inside_of_the_table(value: int) -> None:
    assert bucket_of(value) == (0 if value < 0 else BUCKETS - 1)


@settings(max_examples=80)
@given(st.lists(durations, min_size=1, max_size=60), st.sampled_from([0.001, 0.25, 0.5, 0.9, 0.99, 1.0]))
def test_percentiles_within_a_32nd(values: list[int], fraction: float) -> None:
    counts = np.zeros(BUCKETS, np.int64)
    for value in values:
        counts[bucket_of(value)] += 1
    exact = sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]
    assert abs(percentile(counts, fraction) - exact) <= exact / 32


def test_no_samples_no_percentile() -> None:
    assert math.isnan(percentile(np.zeros(BUCKETS, np.int64), 0.99))
