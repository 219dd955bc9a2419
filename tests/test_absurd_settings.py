"""Settings that nobody should write and somebody will: one clear error that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench import units
from hvbench.errors import UserError
from hvbench.workload import bundled_folder, parse_workload

BUILD = (bundled_folder() / "build.toml").read_text()


@pytest.mark.parametrize("text", ["1e30s", "1e999999999s", "9" * 5000, "1e99"])
def test_a_quantity_beyond_64_bits_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"too large|not a quantity|unknown unit"):
        units.parse_value(text, "ns")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_quantity_is_infinite(value: float) -> None:
    with pytest.raises(UserError, match="is not a quantity"):
        units.parse_value(value, "pages")


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("pcpus = 4", "pcpus = 99999999999", "host.pcpus"),
        ("count = 4", "count = 99999999999", r"vm\[0\].count"),
        ("vcpus = 2", "vcpus = 5000", r"vm\[0\].vcpus"),
        ("vcpus = 2", 'vcpus = 2\nstart = "3000h"', r"vm\[0\].start"),
        ('horizon = "10s"', 'horizon = "1e30s"', "workload.horizon"),
        ('horizon = "10s"', "horizon = 2020-01-01", "workload.horizon"),
        ('memory = "512MiB"', "memory = inf", r"vm\[0\].memory"),
        ('trace = "cc-build"', f'trace = "{"a" * 5000}"', r"vm\[0\].trace"),
        ('trace = "cc-build"', 'trace = "./a\\u0000b"', r"vm\[0\].trace"),
    ],
)
def test_absurd_settings_are_named(old: str, new: str, where: str) -> None:
    assert old in BUILD
    with pytest.raises(UserError, match=where):
        parse_workload(BUILD.replace(old, new), Path("absurd.toml"))


@pytest.mark.parametrize("text", ["a=" + "[" * 5000 + "]" * 5000, "a = " + "9" * 5000])
def test_toml_that_its_parser_cannot_take(text: str) -> None:
    with pytest.raises(UserError, match="not valid TOML"):
        parse_workload(text, Path("deep.toml"))
