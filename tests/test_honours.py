"""What a workload sets and its scheduler ignores is found, and said where people look."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench import honours, tables
from hvbench.cell import CellResult
from hvbench.errors import UserError
from hvbench.workload import Workload, parse_workload
from tests.test_stats import make_row

ROOT = Path(__file__).resolve().parents[1]
TEXT = """
format = 1
[workload]
name = "two"
class = "micro"
horizon = "2s"
warmup = "1s"
[host]
pcpus = 2
memory = "4GiB"
[[vm]]
name = "a"
memory = "256MiB"
trace = "{trace}"
{settings}
[[vm]]
name = "b"
count = 2
memory = "256MiB"
trace = "{trace}"
"""
SETTINGS = {
    "weight": "weight = 512",
    "cap": "cap = 50",
    "reservation": "cpu_reservation = 25",
    "pinning": "affinity = [1]",
    "realtime": '[vm.realtime]\nperiod = "10ms"\nbudget = "4ms"',
    "warp": '[vm.warp]\nahead = "20ms"',
}
"""How a VM sets each property."""


def workload(settings: str = "") -> Workload:
    trace = ROOT / "workloads" / "traces" / "dbench.parquet"
    return parse_workload(TEXT.format(trace=trace, settings=settings), ROOT / "two.toml")


def test_every_property_can_be_set() -> None:
    assert list(SETTINGS) == list(honours.PROPERTIES)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_set_and_not_honoured_is_named_with_its_vms(name: str) -> None:
    made = workload(SETTINGS[name])
    others = set(honours.PROPERTIES) - {name}
    assert honours.unhonoured(made, others) == {name: ["a"]}
    assert honours.unhonoured(made, {name}) == {}
    assert honours.sentence(made, "fair:slice=1ms", others) == [
        f"two: scheduler fair:slice=1ms does not honour what the workload sets: {name} of a."
    ]
    assert honours.sentence(made, "fair", {name}) == []


def test_defaults_are_not_settings() -> None:
    assert honours.unhonoured(workload(), ()) == {}
    assert honours.unhonoured(workload("weight = 256\ncap = 0"), ()) == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("cpu_reservation = 101", "vm[0].cpu_reservation: 101 % is above what 1 vCPUs can use"),
        ("cpu_reservation = 60\ncap = 50", "vm[0].cpu_reservation: above its cap of 50 %"),
        ('[vm.realtime]\nperiod = "1ms"\nbudget = "2ms"', "vm[0].realtime.budget: above the period"),
        ('[vm.realtime]\nperiod = "1ms"', "vm[0].realtime.budget: missing"),
    ],
)
def test_settings_that_nobody_could_honour_are_refused(settings: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        workload(settings)
    assert words in str(refused.value)


def test_a_table_marks_rows_that_ignore_a_setting() -> None:
    rows = [make_row(1.0, scheduler="x"), make_row(2.0, scheduler="y")]
    rows[1].result.ignored.extend(["weight", "cap"])
    text = tables.report(rows)
    assert "y (ignores weight, cap)" in text and "x (ignores" not in text


def test_a_result_from_before_there_was_such_a_mark_reads_as_one_without() -> None:
    assert CellResult.from_json('{"status": "ok"}').ignored == []
