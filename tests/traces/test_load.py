"""From the metadata of a trace to what its VMs find: warm pages, by tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from hvbench.costs import HostCosts
from hvbench.plan import make_plan, memory_spec, native_memory
from hvbench.traces.load import convert
from hvbench.workload import load_workload
from tests.traces.trace_builders import SMALL_ROWS, build, small_meta

FILES = Path(__file__).resolve().parents[2] / "workloads" / "files.toml"


def two_tiers() -> dict[str, Any]:
    """Tiers a and b read file 1, only a reads file 2, nobody file 3."""
    files = [{"kind": "image", "pages": 8, "name_hash": name} for name in "pqr"]
    heap = {"kind": "anon", "pages": 4, "process": 0}
    threads = [{"id": i, "process": i, "tier": tier, "role": "guest"} for i, tier in enumerate("ab")]
    return small_meta() | {"threads": threads, "tiers": ["a", "b"], "objects": [heap, *files], "flows": []}


def test_a_trace_of_one_tier_keeps_its_list() -> None:
    warm = [[1, 4, 2], [1, 0, 3]]
    assert convert(build(SMALL_ROWS, small_meta() | {"warm": warm})).warm == ((1, 4, 2), (1, 0, 3))
    assert convert(build(SMALL_ROWS)).warm == ()


def test_a_file_of_two_tiers_is_warm_in_both() -> None:
    rows = [
        (0, "touch", 0, {"object": 0, "page": 0, "pages": 1}),
        (0, "fread", 1, {"object": 1, "page": 0, "pages": 1}),
        (0, "fread", 2, {"object": 2, "page": 0, "pages": 1}),
        (1, "fread", 0, {"object": 1, "page": 0, "pages": 1}),
    ]
    loaded = convert(build(rows, two_tiers() | {"warm": [[2, 5, 1], [1, 0, 2], [3, 0, 8]]}))
    found = [(loaded.objects[n].meta["name_hash"], loaded.objects[n].tier, *rest) for n, *rest in loaded.warm]
    assert found == [("q", "a", 5, 1), ("p", "a", 0, 2), ("p", "b", 0, 2)]


@pytest.fixture(scope="module")
def plan() -> Any:
    return make_plan(load_workload(str(FILES)), 1)


def test_cells_and_alone_runs_begin_with_the_same_warm_pages(plan: Any) -> None:
    spec = memory_spec(plan, plan.groups, HostCosts())
    assert spec.warm == tuple(g.trace.warm for g in plan.groups) and all(spec.warm)
    for group, warm in zip(plan.groups, spec.warm, strict=True):
        assert native_memory(plan, group).warm == (warm,)


def test_a_bundled_trace_finds_its_warm_pages_in_memory(plan: Any) -> None:
    from hvbench.build import build as lay_out
    from hvbench.simulate import alone_spec

    group = next(g for g in plan.groups if g.trace.name == "postgres-pgbench")
    spec = alone_spec(plan, group, (), 2, 1)
    assert spec.memory is not None
    warm, cold = lay_out(spec), lay_out(attrs.evolve(spec, memory=attrs.evolve(spec.memory, warm=())))
    listed = {(n, p) for n, first, pages in group.trace.warm for p in range(first, first + pages)}
    resident = [int(memory.tables["vmem"]["resident"][0]) for memory in (warm, cold)]
    assert 0 < resident[0] - resident[1] <= len(listed)
    object_of, table, mapping = (warm.tables[n] for n in ("object_of", "object", "mapping"))
    assert all(mapping["at"][table["first"][object_of["object"][n]] + p] > 0 for n, p in listed)
