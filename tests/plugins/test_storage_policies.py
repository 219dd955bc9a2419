"""The bundled storage policies: what tells their paths apart."""

from __future__ import annotations

import attrs
import pytest

from hvbench.build_io import IoSpec, storage_path
from hvbench.machine import Array, Disk, Filer
from hvbench.paths import KINDS, on_medium_of, without_emulation
from hvbench.state.schema import STORAGE_SLOT
from tests.io_hosts import MS, T, chosen, forever, plugin, read, row, run, spec_of, write

PATHS = ("das", "nas", "san")
FAST = Disk(read_latency_ns=10_000, write_latency_ns=10_000)


def io_of(name: str, **params: int) -> IoSpec:
    module = plugin("storage", name)
    return IoSpec(
        path=storage_path(module, module.Params(**params)),
        disk=FAST,
        filer=Filer(disk=FAST),
        array=Array(disk=FAST),
    )


def mean_latency(io: IoSpec, ops: tuple, policies=()) -> float:
    memory = run(spec_of([[T(0, (*ops, forever()))]], io, horizon_ns=10_000 * MS), policies)
    assert row(memory, "io")["completed"] == len(ops)
    return row(memory, "vm_io")["disk_wait_ns"] / len(ops)


@pytest.mark.parametrize("name", PATHS)
def test_every_stage_says_where_its_costs_come_from(name):
    for step in io_of(name).path:
        assert step.kind in KINDS
        if step.cost_ns or step.kib_ns:
            assert step.source, step


@pytest.mark.parametrize(("name", "where"), [("das", "local"), ("nas", "filer"), ("san", "array")])
def test_a_path_leads_to_its_own_medium(name, where):
    path = io_of(name).path
    assert on_medium_of(path) == where
    assert on_medium_of(without_emulation(path)) == where
    assert {s.kind for s in without_emulation(path)}.isdisjoint({"vcpu", "thread", "net_thread", "interrupt"})


def test_small_reads_are_nearest_on_das_and_farthest_on_nas():
    das, san, nas = (mean_latency(io_of(n), tuple(read(k * 9) for k in range(20))) for n in ("das", "san", "nas"))
    assert das < san < nas


@pytest.mark.parametrize("operation", [read, write])
@pytest.mark.parametrize("slower", [1, 2])
def test_large_transfers_on_nas_take_what_the_slowest_link_takes(operation, slower):
    """The links work at the same time: 1 MiB takes 8 ns a byte at 1 Gbit/s, and the disk's time."""
    io = io_of("nas")
    io = attrs.evolve(io, filer=attrs.evolve(io.filer, bandwidth_bytes_per_s=125_000_000 // slower))
    mean = mean_latency(io, tuple(operation(k * 600, 256) for k in range(4)))
    size = 256 * 4096
    assert size * (8 * slower + 2) < mean < 1.15 * size * (8 * slower + 2)


def test_many_transfers_at_once_do_not_exceed_a_slow_filers_link():
    io = io_of("nas")
    io = attrs.evolve(io, filer=attrs.evolve(io.filer, bandwidth_bytes_per_s=125_000_000 // 4))
    for operation in (read, write):
        threads = [T(v, (operation(v * 999, 32), forever())) for v in range(8)]
        memory = run(spec_of([threads], io, pcpus=8))
        slowest = max(int(n) for n in memory.tables["vm_io"]["disk_wait_ns"])
        assert slowest >= 8 * 32 * 4096 * 32


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("operation", [read, write])
def test_every_cost_of_a_path_costs(name, operation):
    ops = tuple(operation(k * 9, 2) for k in range(4))
    base = mean_latency(io_of(name), ops)
    cpu = _cpu(io_of(name), ops)
    for field in attrs.fields(type(plugin("storage", name).Params())):
        if field.name in ("paths", "filer_percent"):
            continue
        dearer = io_of(name, **{field.name: field.default + 5_000})
        assert mean_latency(dearer, ops) > base or _cpu(dearer, ops) > cpu, field.name


def _cpu(io: IoSpec, ops: tuple) -> int:
    memory = run(spec_of([[T(0, (*ops, forever()))]], io), check=False)
    return int(memory.tables["vcpu"]["ran_ns"].sum())


def test_a_faster_filer_is_faster():
    ops = tuple(read(k * 9) for k in range(4))
    assert mean_latency(io_of("nas", filer_percent=100), ops) < mean_latency(io_of("nas"), ops)


def test_the_control_idles_ten_milliseconds_before_each_request_on_the_path_of_das():
    module = plugin("storage", "idle_before_request")
    io = attrs.evolve(io_of("das"), path=storage_path(module, module.Params()))
    assert io.path == io_of("das").path
    ops = tuple(read(k * 9) for k in range(5))
    control = mean_latency(io, ops, [chosen(STORAGE_SLOT, "idle", module)])
    assert control - mean_latency(io_of("das"), ops) == 10 * MS
    assert set(module.CONTROL.worst_on) == {"files"}
