"""What a result says about itself: a warm-up shorter than a pass of a trace, a scanner that is too slow for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest

from hvbench.axes import AXES
from hvbench.cell import Cell, CellResult, Choice
from hvbench.plugins import Registry, bind_params
from hvbench.simulate import note_ignored, short_measurement, short_scan, short_warmup, simulate
from hvbench.workload import Workload, parse_workload

ROOT = Path(__file__).resolve().parents[1]
S = 1_000_000_000
CHOICES = {
    "scheduler": "credit",
    "memory": "static",
    "storage": "das",
    "switch": "bridged",
    "technique": "native",
    "host": "type1",
}
WORKLOAD = """
format = 1
[workload]
name = "four"
class = "{klass}"
horizon = "10s"
warmup = "{warmup}"
[host]
pcpus = 4
memory = "4GiB"
[[vm]]
name = "vm"
count = 4
memory = "{memory}"
trace = "{trace}"
"""


def workload(tmp_path: Path, klass: str = "memory", warmup: str = "5s", memory: str = "256MiB") -> Workload:
    trace = ROOT / "workloads" / "traces" / "dbench.parquet"
    text = WORKLOAD.format(klass=klass, warmup=warmup, memory=memory, trace=trace)
    return parse_workload(text, tmp_path / "four.toml")


def choice(axis: str, *layers: tuple[str, dict[str, str]]) -> Choice:
    policies = [(Registry().load_file(ROOT / "plugins" / axis / f"{name}.py"), values) for name, values in layers]
    return Choice(axis, tuple((policy, bind_params(policy, values)) for policy, values in policies))


def cell(made: Workload, *memory: tuple[str, dict[str, str]]) -> Cell:
    choices = {axis: choice(axis, (CHOICES[axis], {})) for axis in AXES}
    if memory:
        choices["memory"] = choice("memory", *memory)
    return Cell(made, choices, 1, made.horizon_ns, made.warmup_ns)


def passed(*first_loop_ns: int) -> list[str]:
    """What is said of groups of VMs (a; b and c; d) whose first passes ended then, with a warm-up of 5 s."""
    vms = [SimpleNamespace(name=name) for name in "abcd"]
    groups = [SimpleNamespace(vms=vms) for vms in ((0,), (2, 1), (3,))]
    plan: Any = SimpleNamespace(workload=SimpleNamespace(name="w", vms=vms), groups=groups)
    table = {"first_loop_ns": np.array(first_loop_ns)}
    memory: Any = SimpleNamespace(tables={"group": table})
    return short_warmup(plan, memory, 5 * S)


def test_a_warm_up_of_one_pass_needs_no_sentence() -> None:
    assert passed(S, 5 * S, 2 * S) == []


@pytest.mark.parametrize(
    ("first_loop_ns", "names"),
    [((S, 5 * S + 1, S), "b, c"), ((0, S, S), "a"), ((0, 9 * S, 0), "a, b, c, d")],
)
def test_a_shorter_one_names_the_vms(first_loop_ns: tuple[int, ...], names: str) -> None:
    (said,) = passed(*first_loop_ns)
    assert said.startswith(f"w: the warm-up of 5s is shorter than one pass of the trace of {names}: ")


@pytest.mark.parametrize(("open_loop", "names"), [(False, "b, c, d"), (True, "")])
def test_less_than_a_pass_measured_is_said_where_rates_count(open_loop: bool, names: str) -> None:
    vms = [SimpleNamespace(name=name) for name in "abcd"]
    groups = [SimpleNamespace(vms=vms) for vms in ((0,), (2, 1), (3,))]
    plan: Any = SimpleNamespace(workload=SimpleNamespace(name="w", vms=vms), groups=groups, open_loop=open_loop)
    memory: Any = SimpleNamespace(tables={"group": {"first_loop_ns": np.array([S, 5 * S + 1, 0])}})
    said = short_measurement(plan, memory, 5 * S)
    assert len(said) == bool(names)
    assert all(text.startswith(f"w: less than one pass of the trace of {names} is measured") for text in said)


def test_a_slow_scanner_is_named_in_memory_workloads(tmp_path: Path) -> None:
    # 100 pages every 20 ms: 25,000 in 5 s, of four times 65,536
    sharing = ("ksm", {})
    (note,) = short_scan(cell(workload(tmp_path), ("balloon", {}), sharing))
    assert note.startswith("four: ksm makes 0.09 passes over the VMs' 1GiB within the warm-up of 5s")
    assert short_scan(cell(workload(tmp_path, klass="micro"), sharing)) == []
    assert short_scan(cell(workload(tmp_path), ("balloon", {}))) == []


def test_two_full_passes_are_enough(tmp_path: Path) -> None:
    made = workload(tmp_path, memory="64MiB")  # 65,536 pages in all
    for scan_pages, said in (("524", ["1.99"]), ("525", [])):
        notes = short_scan(cell(made, ("ksm", {"pages_to_scan": scan_pages})))
        assert [note.split(" makes ")[1].split()[0] for note in notes] == said


@pytest.mark.usefixtures("kernel")
def test_results_carry_their_notes(tmp_path: Path) -> None:
    short = simulate(cell(workload(tmp_path, warmup="1s"), ("ksm", {})))
    assert short.status == "ok", short.reason
    assert len(short.notes) == 2
    assert "of vm-0, vm-1, vm-2, vm-3: " in short.notes[0] and "ksm" in short.notes[1]
    assert simulate(cell(workload(tmp_path))).notes == []


@pytest.mark.parametrize(
    ("stack", "ignored"),
    [((("static", {}),), ["limit"]), ((("ksm", {}), ("overcommit", {})), []), ((("idle_tax", {}),), [])],
)
def test_a_memory_limit_that_no_layer_holds_is_said(
    tmp_path: Path, stack: tuple[tuple[str, dict[str, str]], ...], ignored: list[str]
) -> None:
    made = workload(tmp_path)
    vms = tuple(attrs.evolve(vm, spec=attrs.evolve(vm.spec, memory_limit_pages=1000)) for vm in made.vms)
    result = CellResult("ok")
    note_ignored(result, cell(attrs.evolve(made, vms=vms), *stack))
    assert result.ignored_memory == ignored and result.ignored == []
    named = [note for note in result.notes if "does not honour what the workload sets: limit of vm-0" in note]
    assert len(named) == len(ignored)
