"""Quantities as people write them, as the integers that hvbench counts in.

`"5ms"` is 5,000,000 ns, `"512MiB"` is 536,870,912 bytes or 131,072 pages of 4 KiB, `"10Gbit/s"` is
1,250,000,000 bytes a second, `"6%"` is 0.06. Parsing is exact: a text that is no whole number of the
target unit is an error, never rounded. What `format_value` prints parses back to the same value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from hvbench.errors import UserError

PAGE_BYTES = 4096
"""Bytes of a small page of x86-64, the unit in which guests and hypervisor hand memory around."""

DURATION_NS: Mapping[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
SIZE_BYTES: Mapping[str, int] = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
RATE_BITS_PER_S: Mapping[str, int] = {
    "bit/s": 1,
    "kbit/s": 1000,
    "Mbit/s": 1000**2,
    "Gbit/s": 1000**3,
    "Tbit/s": 1000**4,
    **{f"{unit}/s": 8 * size for unit, size in SIZE_BYTES.items()},
}

GREATEST = 2**62
"""The greatest quantity: the kernel counts in 64 bits, with a sign and room for a sum."""
LONGEST_TEXT = 100
"""Characters of a quantity; no sensible one is longer."""

# What a unit name of a parameter accepts: suffix -> factor to the unit itself.
_SUFFIXES: Mapping[str, Mapping[str, Fraction]] = {
    "ns": {suffix: Fraction(factor) for suffix, factor in DURATION_NS.items()},
    "bytes": {suffix: Fraction(factor) for suffix, factor in SIZE_BYTES.items()},
    "pages": {
        "pages": Fraction(1),
        **{suffix: Fraction(factor, PAGE_BYTES) for suffix, factor in SIZE_BYTES.items()},
    },
    # pages that are counted (looked at, sampled), not memory: shown as a number of pages
    "page_count": {
        "pages": Fraction(1),
        **{suffix: Fraction(factor, PAGE_BYTES) for suffix, factor in SIZE_BYTES.items()},
    },
    "cycles": {"cycles": Fraction(1)},
    "bytes_per_s": {suffix: Fraction(factor, 8) for suffix, factor in RATE_BITS_PER_S.items()},
    "share": {"%": Fraction(1, 100)},
    "percent": {"%": Fraction(1)},
    "ppm": {"ppm": Fraction(1), "%": Fraction(10_000)},
    "mhz": {"MHz": Fraction(1), "GHz": Fraction(1000)},
}
_ALIASES = {"bytes/s": "bytes_per_s", "B/s": "bytes_per_s", "ratio": "share", "%": "percent", "MHz": "mhz"}
_EXAMPLES = {
    "ns": "5ms, 30us, 2s",
    "bytes": "512MiB, 4GiB",
    "pages": "512MiB, 4GiB, 100pages",
    "page_count": "100pages, 100",
    "cycles": "2000cycles, 2000",
    "bytes_per_s": "10Gbit/s, 120MB/s",
    "share": "6%, 0.06",
    "percent": "75%, 75",
    "ppm": "500ppm, 0.05%",
    "mhz": "2400MHz, 2.4GHz",
}
_NEED_UNIT = {
    "ns": ("ms", "us", "ns"),
    "bytes": ("GiB", "MiB", "B"),
    "pages": ("GiB", "MiB", "pages"),
    "bytes_per_s": ("Gbit/s", "MB/s", "B/s"),
}
"""Units in which nobody counts, with those that people write."""
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|[+-]?\.\d+)\s*(.*?)\s*")


def canonical_unit(unit: str) -> str:
    """The one name of a unit: `bytes/s` and `bytes_per_s` are the same."""
    return _ALIASES.get(unit, unit)


def is_known_unit(unit: str) -> bool:
    """Whether values of this unit may be written with a suffix."""
    return canonical_unit(unit) in _SUFFIXES


def split_number(text: str) -> tuple[Fraction, str]:
    """`"1.5ms"` as (3/2, `"ms"`); UserError where there is no number in front."""
    match = _NUMBER.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if match is None:
        raise UserError(f"{text!r} does not start with a number")
    return Fraction(match.group(1).replace("_", "")), match.group(2)


def parse_written(text: str | int | float, unit: str, *, whole: bool = True) -> int | float:
    """`parse_value` of what a person wrote: a time, a size or a rate other than 0 must say its unit.

    Raises UserError: whoever writes `timeslice=5` or `memory = 256` means neither 5 ns nor 256 pages.
    """
    value = parse_value(text, unit, whole=whole)
    written = _NEED_UNIT.get(canonical_unit(unit))
    if written and value and (not isinstance(text, str) or not split_number(text)[1]):
        number = str(text).strip()
        *more, last = (number + suffix for suffix in written)
        raise UserError(f"{number} has no unit; write {', '.join(more)} or {last}")
    return value


def parse_value(text: str | int | float, unit: str, *, whole: bool = True) -> int | float:
    """A quantity in `unit`: a bare number is taken as it is, a suffix converts.

    `whole` demands an integer (times, sizes, counts). Raises UserError naming what is legal.
    """
    unit = canonical_unit(unit)
    suffixes = _SUFFIXES.get(unit, {})
    number_given = isinstance(text, (int, float)) and not isinstance(text, bool) and math.isfinite(text)
    if not number_given and not isinstance(text, str):
        raise UserError(f"{text!r} is not a quantity{_legal(unit)}")
    if isinstance(text, (int, float)):
        number, suffix = Fraction(text), ""
    else:
        try:
            number, suffix = split_number(text)
        except UserError:
            raise UserError(f"{text!r} is not a quantity{_legal(unit)}") from None
    if suffix:
        if suffix not in suffixes:
            raise UserError(f"{text!r} has the unknown unit {suffix!r}{_legal(unit)}")
        number *= suffixes[suffix]
    if abs(number) > GREATEST:
        raise UserError(f"{text!r} is too large; legal: up to {GREATEST} {unit}".rstrip())
    if not whole:
        return float(number)
    if number.denominator != 1:
        raise UserError(f"{text!r} is not a whole number of {unit or 'units'}")
    return int(number)


def _legal(unit: str) -> str:
    return f"; write it like {_EXAMPLES[unit]}" if unit in _EXAMPLES else ""


def parse_duration(text: str | int) -> int:
    """Nanoseconds of `"5ms"`."""
    return int(parse_value(text, "ns"))


def parse_size(text: str | int) -> int:
    """Bytes of `"512MiB"`."""
    return int(parse_value(text, "bytes"))


def parse_pages(text: str | int) -> int:
    """4 KiB pages of `"512MiB"`; an int is pages already."""
    return int(parse_value(text, "pages"))


def parse_rate(text: str | int) -> int:
    """Bytes a second of `"10Gbit/s"` or `"120MB/s"`."""
    return int(parse_value(text, "bytes_per_s"))


def format_value(value: int | float, unit: str) -> str:
    """The shortest text that parses back to `value`: `format_value(5_000_000, "ns") == "5ms"`."""
    unit = canonical_unit(unit)
    if unit == "share":
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    value = int(value)
    preferred = {
        "ns": ("h", "min", "s", "ms", "us", "ns"),
        "bytes": ("GiB", "MiB", "KiB", "B"),
        "pages": ("GiB", "MiB", "KiB"),
        "bytes_per_s": ("Gbit/s", "Mbit/s", "kbit/s", "bit/s"),
        "page_count": ("pages",),
        "percent": ("%",),
        "ppm": ("ppm",),
        "mhz": ("MHz",),
    }.get(unit)
    if preferred is None:
        return str(value)
    if value == 0:
        return f"0{preferred[-1]}"
    for suffix in preferred:
        number = value / _SUFFIXES[unit][suffix]
        # "1.5GiB" and "2500ms" read better than "1536MiB" and "2500000us"; three decimals at most stay exact.
        if abs(number) >= 1 and (number * 1000).denominator == 1:
            whole, thousandths = divmod(int(abs(number) * 1000), 1000)
            text = f"{'-' if number < 0 else ''}{whole}.{thousandths:03d}".rstrip("0").rstrip(".")
            return text + suffix
    return f"{value}{preferred[-1]}"


def format_duration(value_ns: int) -> str:
    """`"5ms"` for 5,000,000 ns."""
    return format_value(value_ns, "ns")


def rounded_duration(value_ns: int) -> str:
    """`"30.1ms"` for 30,146,559 ns: three digits, for people."""
    for unit, ns in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if abs(value_ns) >= ns:
            return f"{value_ns / ns:.3g}{unit}" if abs(value_ns) < 1000 * ns else f"{value_ns / ns:.0f}{unit}"
    return f"{value_ns}ns"


def format_size(value_bytes: int) -> str:
    """`"512MiB"` for 536,870,912 bytes."""
    return format_value(value_bytes, "bytes")


def format_pages(value_pages: int) -> str:
    """`"512MiB"` for 131,072 pages."""
    return format_value(value_pages, "pages")
