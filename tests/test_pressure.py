"""A workload under more or less pressure: the ratios are what they say, and at 1.0 a static partition just fits."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.axes import AXES
from hvbench.cell import Cell
from hvbench.choices import DEFAULT, parse_choice
from hvbench.errors import UserError
from hvbench.plugins import load_registry
from hvbench.pressure import at_pressure, cpu_overcommit, memory_overcommit, tenants, with_tenants
from hvbench.simulate import simulate
from hvbench.workload import Workload, load_workload


@pytest.fixture(scope="module")
def mixed() -> Workload:
    return load_workload("mixed")


@given(st.floats(0.25, 12), st.floats(0.2, 4))
@settings(max_examples=60, deadline=None)
def test_ratios_are_reached_as_far_as_whole_pcpus_and_pages_allow(cpu: float, memory: float) -> None:
    made = at_pressure(load_workload("mixed"), cpu, memory)
    vcpus = sum(vm.spec.vcpus for vm in made.vms)
    assert abs(made.host.pcpus - vcpus / cpu) <= 0.5 or made.host.pcpus == 1
    assert cpu_overcommit(made) == vcpus / made.host.pcpus
    assert memory_overcommit(made) <= memory
    less = attrs.evolve(made, host=attrs.evolve(made.host, memory_pages=made.host.memory_pages - 2))
    assert memory_overcommit(less) > memory * (1 - 1e-12)


@pytest.mark.parametrize(("memory", "status"), [(1.0, "ok"), (1.001, "refused")])
def test_a_static_partition_just_fits_at_one(memory: float, status: str) -> None:
    short = load_workload("build")
    short = attrs.evolve(short, settings=attrs.evolve(short.settings, horizon_ns=30_000_000, warmup_ns=0))
    made = at_pressure(short, 1.0, memory)
    registry = load_registry()
    choices = {axis: parse_choice(axis, DEFAULT[axis], registry) for axis in AXES}
    choices["memory"] = parse_choice("memory", "static", registry)
    result = simulate(Cell(made, choices, 1, made.horizon_ns, made.warmup_ns))
    assert result.status == status, result.reason


def test_the_rest_of_a_workload_stays_as_it_is(mixed: Workload) -> None:
    made = at_pressure(mixed, 2, 1.3)
    assert made.name == "mixed@cpu2-mem1.3"
    assert made.vms == mixed.vms and made.faults == mixed.faults
    assert attrs.evolve(made.host, pcpus=4, memory_pages=mixed.host.memory_pages) == mixed.host


@pytest.mark.parametrize(("cpu", "memory"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("inf"))])
def test_ratios_are_above_zero(mixed: Workload, cpu: float, memory: float) -> None:
    with pytest.raises(UserError, match="ratios are above 0"):
        at_pressure(mixed, cpu, memory)


def test_hosts_that_cannot_be_made_are_named(mixed: Workload) -> None:
    with pytest.raises(UserError, match="need 1200 pCPUs; at most 512"):
        at_pressure(mixed, 0.01, 1)
    pinned = attrs.evolve(mixed.vms[0], spec=attrs.evolve(mixed.vms[0].spec, affinity=(3,)))
    with pytest.raises(UserError, match="VM build is pinned to pCPU 3, and the host would have 3"):
        at_pressure(attrs.evolve(mixed, vms=(pinned, *mixed.vms[1:])), 4, 1)


def test_tenants_are_added_in_order_and_over_again(mixed: Workload) -> None:
    assert tenants(mixed) == 6
    assert [vm.name for vm in with_tenants(mixed, 2).vms] == ["build", "batch"]
    more = with_tenants(mixed, 8)
    assert [vm.name for vm in more.vms][-3:] == ["idle-1", "build-r2", "batch-r2"]
    assert [vm.index for vm in more.vms] == list(range(8))
    assert len({vm.instance for vm in more.vms}) == 8
    assert more.name == "mixed@8"


def test_vms_of_one_recording_are_one_tenant(mixed: Workload) -> None:
    together = tuple(attrs.evolve(vm, instance="pair" if vm.index < 2 else vm.name) for vm in mixed.vms)
    pairs = attrs.evolve(mixed, vms=together)
    assert tenants(pairs) == 5
    made = with_tenants(pairs, 6)
    assert [vm.name for vm in made.vms][-2:] == ["build-r2", "batch-r2"]
    assert {vm.instance for vm in made.vms[-2:]} == {"pair-r2"}


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_counts_of_tenants_are_bounded(mixed: Workload, count: int) -> None:
    with pytest.raises(UserError, match="from 1 to 1024 are legal"):
        with_tenants(mixed, count)
