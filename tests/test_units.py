"""Quantities: what people write parses exactly, and what hvbench prints parses back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.errors import UserError
from hvbench.units import (
    format_value,
    parse_duration,
    parse_pages,
    parse_rate,
    parse_size,
    parse_value,
    parse_written,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5ms", 5_000_000),
        ("30us", 30_000),
        ("30µs", 30_000),
        ("1.5s", 1_500_000_000),
        ("20min", 1_200_000_000_000),
        (7, 7),
    ],
)
def test_durations_are_nanoseconds(text: str | int, expected: int) -> None:
    assert parse_duration(text) == expected


def test_sizes_are_binary_and_decimal_as_written() -> None:
    assert parse_size("512MiB") == 512 * 1024**2
    assert parse_size("512MB") == 512 * 1000**2
    assert parse_pages("512MiB") == 131_072
    assert parse_pages("3pages") == 3


def test_rates_are_bytes_a_second() -> None:
    assert parse_rate("10Gbit/s") == 1_250_000_000
    assert parse_rate("120MB/s") == 120_000_000


def test_shares_may_be_percentages() -> None:
    assert parse_value("6%", "share", whole=False) == 0.06
    assert parse_value(0.5, "share", whole=False) == 0.5


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("5parsecs", "ns", "unknown unit 'parsecs'"),
        ("fast", "ns", "write it like 5ms"),
        ("1.5ns", "ns", "whole number of ns"),
        ("5KB", "pages", "whole number of pages"),
        ("", "bytes", "not a quantity"),
        (True, "ns", "not a quantity"),
    ],
)
def test_bad_quantities_say_what_is_legal(text: str, unit: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_value(text, unit)


@given(
    st.integers(min_value=0, max_value=2**62),
    st.sampled_from(["ns", "bytes", "pages", "bytes_per_s", "percent", "ppm", "mhz", "count"]),
)
def test_whole_values_round_trip(value: int, unit: str) -> None:
    assert parse_value(format_value(value, unit), unit) == value


@given(st.floats(min_value=0, max_value=1e6, allow_nan=False))
def test_shares_round_trip(value: float) -> None:
    assert parse_value(format_value(value, "share"), "share", whole=False) == value


@given(st.integers(min_value=0, max_value=10**6), st.sampled_from(["ns", "us", "ms", "s", "min", "h"]))
def test_a_written_duration_survives(number: int, suffix: str) -> None:
    value_ns = parse_duration(f"{number}{suffix}")
    assert parse_duration(format_value(value_ns, "ns")) == value_ns


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("5", "ns", "5 has no unit; write 5ms, 5us or 5ns"),
        (" 1.5e3 ", "ns", "1.5e3 has no unit; write 1.5e3ms, 1.5e3us or 1.5e3ns"),
        (256, "pages", "256 has no unit; write 256GiB, 256MiB or 256pages"),
        ("4096", "bytes", "4096 has no unit; write 4096GiB, 4096MiB or 4096B"),
        (10, "bytes/s", "10 has no unit; write 10Gbit/s, 10MB/s or 10B/s"),
    ],
)
def test_what_a_person_writes_has_a_unit(text: str | int, unit: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_written(text, unit)
    assert str(caught.value) == said


def test_zero_and_what_is_counted_need_no_unit() -> None:
    assert parse_written("0", "ns") == parse_written(0, "pages") == 0
    assert parse_written("75", "percent") == 75
    assert parse_written("100", "page_count") == parse_written("100pages", "page_count") == 100


@given(st.integers(-(2**50), 2**50), st.sampled_from(["ns", "bytes", "pages", "bytes_per_s", "page_count", "cycles"]))
def test_what_is_shown_may_be_written(value: int, unit: str) -> None:
    assert parse_written(format_value(value, unit), unit) == value


def test_pages_that_are_counted_are_shown_as_a_number_of_pages() -> None:
    assert format_value(100, "page_count") == "100pages"
    assert format_value(100, "pages") == "400KiB"
