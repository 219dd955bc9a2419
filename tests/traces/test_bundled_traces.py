"""The traces in workloads/traces: whole, replayable to their end, small enough, ours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from replay_oracle import replay

from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, SALT, Trace, read_trace
from hvbench.traces.info import trace_info

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "workloads" / "traces"
FILES = sorted(FOLDER.glob("*.parquet"))
PROGRAMS = [path for path in FILES if path.stem != "base-idle"]
MEMORY = ("memdb", "memjob")
IDLE = ("idle-daemons",)


@cache
def load(path: Path) -> Trace:
    return read_trace(path)


def ids(path: Path) -> str:
    return path.stem


def test_all_are_there_and_small() -> None:
    wanted = {"cc-build", "postgres-pgbench", "redis-bench", "nginx-wrk", "web-cache", "dbench", "zstd-compress"}
    assert {path.stem for path in FILES} >= wanted | set(MEMORY) | {"base-idle"}
    assert sum(path.stat().st_size for path in FILES) <= 11_500_000


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_valid(path: Path) -> None:
    trace = load(path)
    assert [str(problem) for problem in check_trace(trace)] == []
    meta = trace.meta
    assert meta["licence"] == "CC0-1.0" and meta["attribution"]
    assert meta["salt"] == SALT.hex() and meta["name"] == path.stem
    assert meta["lost_events"] == 0


@pytest.mark.parametrize("path", PROGRAMS, ids=ids)
@pytest.mark.parametrize("seed", [None, 1, 2], ids=str)
def test_no_replay_deadlocks(path: Path, seed: int | None) -> None:
    trace = load(path)
    outcome = replay(trace, loops=2, seed=seed)
    assert outcome.stuck == []
    assert outcome.done == 2 * len(trace)


@pytest.mark.parametrize("path", PROGRAMS, ids=ids)
def test_waits_are_explained(path: Path) -> None:
    shares = load(path).meta["wait_shares"]
    assert shares["unknown"] <= 0.05
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("path", PROGRAMS, ids=ids)
def test_size_of_the_class(path: Path) -> None:
    trace = load(path)
    if path.stem in MEMORY:
        assert 60e9 <= trace.meta["span_ns"] <= 120e9 and len(trace) <= 30_000
    elif path.stem in IDLE:
        assert 1e9 <= trace.meta["span_ns"] <= 5e9 and 100 <= len(trace) <= 1_000
    else:
        assert 1e9 <= trace.meta["span_ns"] <= 5e9 and 10_000 <= len(trace) <= 70_000


@pytest.mark.parametrize("path", PROGRAMS, ids=ids)
def test_guests_do_something(path: Path) -> None:
    trace = load(path)
    info = trace_info(trace)
    least = 0.05 if path.stem in MEMORY else 0.005 if path.stem in IDLE else 0.1
    assert info.user_ns + info.kernel_ns > least * info.span_ns
    assert info.user_ns + info.kernel_ns < trace.meta["machine"]["cpus"] * info.span_ns
    assert info.page_touches > 0 and info.anon_pages_allocated > 0
    if "outside" in info.threads:
        assert info.marks > 50 and info.flows > 0


def test_each_axis_has_something_to_decide() -> None:
    figures = {path.stem: trace_info(load(path)) for path in PROGRAMS}
    assert sum(info.fsyncs > 100 for info in figures.values()) >= 2  # storage
    assert any("web -> cache" in info.bytes_sent for info in figures.values())  # switch, between VMs
    assert sum(info.flows > 0 for info in figures.values()) >= 5
    assert sum(info.anon_peak_pages > 15_000 for info in figures.values()) >= 2  # memory
    assert all(figures[name].operations["content"] > 50 for name in MEMORY)


def test_base_image() -> None:
    trace = load(FOLDER / "base-idle.parquet")
    assert trace.is_base_image and np.all(trace.columns["op"] == OPS["content"])
    keys = trace.columns["object"].astype(np.int64) << 32 | trace.columns["page"]
    assert len(np.unique(keys)) == len(keys)
    assert trace.meta["objects"][0]["name"] == "kernel"
    # a trace that maps the C library finds it in the base image
    library = next(item["name_hash"] for item in trace.meta["objects"][1:] if item["pages"] > 450)
    assert library
    image = {item["name_hash"] for item in trace.meta["objects"] if item["kind"] == "image"}
    for path in PROGRAMS:
        mine = {item["name_hash"] for item in load(path).meta["objects"] if item["kind"] == "image"}
        assert len(image & mine) >= 2, path.stem


def test_the_script_knows_every_trace() -> None:
    sys.path.insert(0, str(REPOSITORY / "workloads"))
    try:
        found = importlib.util.spec_from_file_location("workloads_record", REPOSITORY / "workloads" / "record.py")
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(REPOSITORY / "workloads"))
    assert {*module.RECIPES, module.BASE} == {path.stem for path in FILES}
    assert module.missing(("sh", "no-such-program-here")) == ["no-such-program-here"]


def test_the_script_refuses_what_it_does_not_know() -> None:
    script = REPOSITORY / "workloads" / "record.py"
    done = subprocess.run(
        [sys.executable, str(script), "nonsense"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 2
    assert "no such trace: nonsense; there are: cc-build" in done.stderr
