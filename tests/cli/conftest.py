"""A command line on fake policies and a fake simulator, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from attrs import define

from hvbench import choices, cli, executor, plugins
from hvbench.axes import AXES
from tests import fakes
from tests.policies import write

Installed = dict[str, tuple[str, ...]]

POLICIES: Installed = {
    "scheduler": ("credit", "null", "round-robin"),
    "memory": ("static", "balloon", "overcommit", "page-sharing"),
    "storage": ("das", "nas", "san"),
    "switch": ("internal", "bridged"),
    "technique": ("native", "full", "hardware"),
    "host": ("type1", "type2"),
}

HOOKS = {
    "scheduler": "sched_pick_next(host, pcpu, prev, now)",
    "memory": "mem_idle_price(host, vm, now)",
    "storage": "blk_service(host, request, dev, now)",
    "switch": "net_dequeue(host, port, now)",
    "technique": "hvbench_technique_costs(params, cpu_mhz)",
    "host": "hvbench_host_costs(params, cpu_mhz)",
}
"""A hook of each axis: never called, since the simulator is a fake."""

MEMORY = (
    "static,balloon,overcommit,overcommit+balloon,page-sharing,overcommit+page-sharing,overcommit+balloon+page-sharing"
)
"""The memory choices of a matrix that names none."""


@define
class Outcome:
    """What a command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with one workload, `./fake.toml`, and installed fake policies of every axis."""
    installed = tmp_path / "installed"
    installed.mkdir()
    points = []
    for axis in AXES:
        for number, name in enumerate(POLICIES[axis]):
            module = f"fake_{axis}_{name}".replace("-", "_")
            text = fakes.BEHAVIOUR.replace("effect: int = param(0,", f"effect: int = param({10 * number},")
            text = text.replace("sched_pick_next(host, pcpu, prev, now)", HOOKS[axis])
            write(installed, module, f'{text}\n\nAXIS = "{axis}"\nNAME = "{name}"\n')
            points.append(EntryPoint(f"{axis}.{name}", module, "hvbench"))
    write(installed, "fake_broken", "import nonsense_module\n")
    work = tmp_path / "work"
    work.mkdir()
    fakes.make_workload(work)
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.delenv("HVBENCH_LOAD_PLUGINS", raising=False)
    monkeypatch.setattr(executor, "SIMULATE", "tests.fakes:simulate")
    monkeypatch.setitem(choices.STANDARD, "scheduler", "all")
    monkeypatch.setitem(choices.STANDARD, "memory", MEMORY)
    monkeypatch.chdir(work)
    fakes.CALLS.clear()
    fakes.SILENT.clear()
    yield work
    fakes.SILENT.clear()
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]


@pytest.fixture
def hvbench(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line: `hvbench("matrix", "./fake.toml")`."""

    def call(*args: str) -> Outcome:
        code = cli.execute(list(args))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
