"""Every scheduler: what it honours is kept, and what it does not honour is said; on one pCPU, and with host threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from hvbench import honours
from hvbench.axes import AXES
from hvbench.build import FaultSpec
from hvbench.build_io import IoSpec
from hvbench.cell import Cell, CellResult, Choice
from hvbench.plugins import Policy, Registry, bind_params
from hvbench.simulate import note_ignored
from hvbench.state import schema
from tests import io_hosts
from tests.builders import MS, ROOT, US, Done, compute, host, load_file, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, busy_mix
from tests.test_honours import SETTINGS, workload

FILES = sorted(path for path in (ROOT / "plugins" / "scheduler").glob("*.py") if not path.stem.startswith("_"))
HONOURED = {path.stem: Registry().load_file(path).honours for path in FILES}
KEPT = [(path, name) for path in FILES for name in honours.PROPERTIES if name in HONOURED[path.stem]]
IGNORED = [(path, name) for path in FILES for name in honours.PROPERTIES if name not in HONOURED[path.stem]]
SHORT = {"stride": {"quantum_ns": MS}, "lottery": {"quantum_ns": MS}, "bvt": {"ctx_allow_ns": MS}}
"""Turns of 100 ms are too long for cells of a second."""


def ran(path: Path, tenants: list[Any], pcpus: int = 1, horizon_ns: int = 1000 * MS) -> Done:
    done = run(
        host(tenants, pcpus=pcpus, horizon_ns=horizon_ns), load_file(path), "interpreted", **SHORT.get(path.stem, {})
    )
    assert done.error is None, done.reason
    return done


def keeps_weight(path: Path) -> None:
    """Three times the weight is about three times the time."""
    time_ns = numbers(ran(path, [vm([[FOREVER]], weight=768), vm([[FOREVER]])]).vcpu["ran_ns"])
    assert time_ns[0] / time_ns[1] == pytest.approx(3, rel=0.25)


def keeps_cap(path: Path) -> None:
    """Half of a pCPU, though the other half idles."""
    done = ran(path, [vm([[FOREVER]], cap=50)], pcpus=2)
    assert done.vcpu["ran_ns"][0] == pytest.approx(500 * MS, rel=0.1)


def keeps_reservation(path: Path) -> None:
    """60 % of the pCPU against five others that want it all."""
    others = [vm([[FOREVER]]) for _ in range(5)]
    done = ran(path, [vm([[FOREVER]], reservation=60), *others])
    assert done.vcpu["ran_ns"][0] >= 0.95 * 600 * MS


def keeps_pinning(path: Path) -> None:
    """The last of two pCPUs and no other, however full it is."""
    done = ran(path, [vm([[FOREVER]], affinity=0b10) for _ in range(3)], pcpus=2)
    assert done.pcpu["busy_ns"][0] == 0
    assert numbers(done.vcpu["pcpu"][:3]) == [1, 1, 1]
    assert min(numbers(done.vcpu["ran_ns"][:3])) > 0


def keeps_realtime(path: Path) -> None:
    """3 of every 10 ms, against five others, and nothing more without extratime."""
    others = [vm([[FOREVER]]) for _ in range(5)]
    promised = vm([[FOREVER]], rt_period_ns=10 * MS, rt_budget_ns=3 * MS, rt_extratime=0)
    assert ran(path, [promised, *others]).vcpu["ran_ns"][0] == pytest.approx(300 * MS, rel=0.03)


def keeps_warp(path: Path) -> None:
    """A VM that wakes often is served sooner with a warp than without."""

    def waits_ns(**warp: int) -> int:
        busy = vm([[compute(500 * US), sleep(500 * US)] * 50], **warp)
        done = ran(path, [busy, vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=60 * MS)
        return int(done.vcpu["ready_ns"][0] / done.vcpu["dispatches"][0])

    assert waits_ns(warp_ahead_ns=20 * MS, warp_limit_ns=5 * MS) < waits_ns()


def test_every_property_has_its_cell_and_every_scheduler_says_what_it_honours() -> None:
    assert all(f"keeps_{name}" in globals() for name in honours.PROPERTIES)
    for path in FILES:
        assert hasattr(load_file(path), "HONOURS"), path


@pytest.mark.parametrize(("path", "name"), KEPT, ids=[f"{p.stem}-{n}" for p, n in KEPT])
def test_what_a_scheduler_honours_is_kept(path: Path, name: str) -> None:
    globals()[f"keeps_{name}"](path)


def choose(path: Path) -> Cell:
    """A cell of the two-VM workload without settings, with this scheduler; the other axes at their plainest."""
    names = {"memory": "static", "storage": "das", "switch": "bridged", "technique": "native", "host": "type1"}
    files = {axis: ROOT / "plugins" / axis / f"{name}.py" for axis, name in names.items()} | {"scheduler": path}
    policies: dict[str, Policy] = {axis: Registry().load_file(files[axis]) for axis in AXES}
    choices = {axis: Choice(axis, ((policy, bind_params(policy, {})),)) for axis, policy in policies.items()}
    made = workload()
    return Cell(made, choices, 1, made.horizon_ns, made.warmup_ns)


@pytest.mark.parametrize(("path", "name"), IGNORED, ids=[f"{p.stem}-{n}" for p, n in IGNORED])
def test_what_a_scheduler_does_not_honour_is_noted(path: Path, name: str) -> None:
    result = CellResult("ok")
    cell = choose(path)
    note_ignored(result, cell)
    assert result.ignored == [] and result.notes == []
    note_ignored(result, Cell(workload(SETTINGS[name]), cell.choices, 1, cell.horizon_ns, cell.warmup_ns))
    assert result.ignored == [name]
    label = cell.choices["scheduler"].label
    assert result.notes == [f"two: scheduler {label} does not honour what the workload sets: {name} of a."]


@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_host_threads_are_scheduled_beside_vcpus(path: Path, pcpus: int) -> None:
    """Two VMs that read from a disk, whose emulator and interrupts are host threads, beside one that only computes."""
    reader = (io_hosts.compute(50 * US), io_hosts.read(0), io_hosts.compute(50 * US), io_hosts.read(512))
    groups = [[io_hosts.T(0, reader)], [io_hosts.T(1, reader)], [io_hosts.T(2, (FOREVER,))]]
    spec = io_hosts.spec_of(groups, IoSpec(uniform_threads=True), pcpus=pcpus, horizon_ns=100 * MS)
    module = load_file(path)
    parameters = SHORT.get(path.stem, {})
    memory = io_hosts.run(spec, [io_hosts.chosen(schema.SCHEDULER_SLOT, path.stem, module, **parameters)], check=False)
    vcpu = memory.tables["vcpu"]
    threads = vcpu[vcpu["kind"] == 1]
    assert len(threads) > 0 and int(threads["ran_ns"].sum()) > 0
    assert int(memory.tables["io"]["completed"][0]) >= 4, "the readers are served"
    assert min(numbers(vcpu["ran_ns"][:3])) > 0, "and nobody starves"


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_pcpus_leave_and_come_back_and_vms_die(path: Path) -> None:
    """Whoever ran or waited on a pCPU that leaves runs elsewhere; who dies is not answered again."""
    faults = (FaultSpec("pcpu", 0, 10 * MS, 30 * MS), FaultSpec("pcpu", 2, 15 * MS), FaultSpec("guest", 1, 40 * MS))
    spec = attrs.evolve(busy_mix(3, horizon_ns=60 * MS, cap=60), faults=faults)
    done = run(spec, load_file(path), "interpreted", **SHORT.get(path.stem, {}))
    assert done.error is None, done.reason
    assert min(numbers(done.vcpu["ran_ns"])) > 0
    assert done.pcpu["busy_ns"][0] <= 40 * MS and done.pcpu["busy_ns"][2] <= 15 * MS
