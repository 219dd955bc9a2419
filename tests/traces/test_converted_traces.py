"""The traces in workloads/converted: public data and recordings of VMs, converted by workloads/convert.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from replay_oracle import replay

from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, read_trace
from hvbench.workload import load_workload

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "workloads" / "converted"
FILES = sorted(FOLDER.glob("*.parquet"))
SOURCES = {"azure": ("Microsoft", "CC-BY-4.0"), "bitbrains": ("Bitbrains", "MIT"), "two-vms": ("hvbench", "CC0-1.0")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_valid_small_and_attributed(path: Path) -> None:
    trace = read_trace(path)
    assert check_trace(trace) == [] and replay(trace, loops=2).stuck == []
    assert path.stat().st_size <= 300_000
    whose, licence = SOURCES[path.stem]
    assert whose in trace.meta["attribution"] and trace.meta["licence"] == licence
    assert whose in (REPOSITORY / "workloads" / f"{path.stem}.toml").read_text()


@pytest.mark.parametrize("name", ["azure", "bitbrains"])
def test_averages_are_kept(name: str) -> None:
    """Compute of each VM is what its averages say, which the expansion wrote down before it made a single burst."""
    trace = read_trace(FOLDER / f"{name}.parquet")
    c = trace.columns
    assert int(c["user_ns"].sum() + c["kernel_ns"].sum()) == trace.meta["expanded"]["cpu_ns"]
    assert trace.meta["expanded"]["donor"] == "cc-build" and trace.meta["replay"] == "open"
    workload = load_workload(name)
    assert [vm.spec.tier for vm in workload.vms] == trace.meta["tiers"]
    for vm in workload.vms:
        cores = [t for t in trace.meta["threads"] if t["tier"] == vm.spec.tier and t["name"].startswith("core")]
        assert vm.spec.vcpus == len(cores)
        rows = np.isin(c["thread"], [t["id"] for t in cores]) & (c["op"] == OPS["compute"])
        assert rows.any()


@pytest.mark.parametrize(("vm", "until_s", "cpu_s"), [(0, 23.826, 6.33), (1, 27.918, 9.73)])
def test_the_recorded_guests_compute_as_long_as_their_threads_ran(vm: int, until_s: float, cpu_s: float) -> None:
    """schedstat of the vCPU's thread, from the recording's first sample to the given one (domstats.csv)."""
    c = read_trace(FOLDER / "two-vms.parquet").columns
    rows = (c["thread"] == 2 * vm) & (c["op"] == OPS["compute"]) & (c["time_ns"] < until_s * 1e9)
    assert c["user_ns"][rows].sum() / 1e9 == pytest.approx(cpu_s, rel=0.1)


def test_the_recorded_guests_share_what_they_had_in_common() -> None:
    """One sent 6 MB to the other; both booted one image: most of what is known of their pages is common or zero."""
    trace = read_trace(FOLDER / "two-vms.parquet")
    c = trace.columns
    assert 6e6 < c["bytes"][c["op"] == OPS["send"]].sum() < 6.3e6
    known = [set(c["content"][(c["op"] == OPS["content"]) & (c["object"] == vm)].tolist()) for vm in (0, 1)]
    assert len(known[0] & known[1]) > 7000  # meta.json of the recording: 7,048 to 8,836 in both at one time
    for op in ("blk_read", "blk_write"):
        assert (c["op"] == OPS[op]).sum() > 10


def test_the_script_says_what_it_lacks(tmp_path: Path) -> None:
    script = REPOSITORY / "workloads" / "convert.py"
    done = subprocess.run([sys.executable, str(script), "azure", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2 and "azure_v1_avg_100.csv.gz" in done.stderr and "Traceback" not in done.stderr
