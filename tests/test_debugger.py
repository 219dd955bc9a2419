"""`hvbench run --pdb`: stops at each hook, shows the arguments, goes on to the same result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import ROOT

POLICY = '''"""Arrival order."""

from hvbench.policy import hookimpl, runq_first


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    first = runq_first(host)
    return first, 2_000_000
'''
WORKLOAD = f"""
format = 1
[workload]
name = "tiny"
class = "micro"
horizon = "12ms"
warmup = "2ms"
[host]
pcpus = 1
memory = "512MiB"
[[vm]]
name = "a"
count = 2
memory = "64MiB"
trace = "{ROOT / "workloads" / "traces" / "zstd-compress.parquet"}"
image = ""
"""


def run(folder: Path, typed: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "mine.py").write_text(POLICY)
    (folder / "tiny.toml").write_text(WORKLOAD)
    command = [sys.executable, "-m", "hvbench", "run", "./tiny.toml", "--scheduler", "./mine.py", *options]
    return subprocess.run(command, cwd=folder, input=typed, capture_output=True, text=True, timeout=300)


def test_each_decision_stops_and_goes_on(tmp_path: Path) -> None:
    ran = run(tmp_path, "p pcpu, now\nn\np first\nc\np host.vcpu[0].state\nclear\ny\nc\n", "--pdb")
    assert ran.returncode == 0, ran.stderr
    assert "mine.py(8)sched_pick_next()" in ran.stdout
    assert "(0, 0)" in ran.stdout
    assert "slowdown_geomean" in ran.stdout
    assert not (tmp_path / "hvbench.db").exists(), "a run under the debugger is not stored"


def test_leaving_the_debugger_is_no_traceback(tmp_path: Path) -> None:
    ran = run(tmp_path, "q\n", "--pdb")
    assert ran.returncode == 2
    assert "the debugger was left before the cell had ended" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("options", [("--interpret",), ()])
def test_interpreted_is_the_same_to_the_last_digit(tmp_path: Path, options: tuple[str, ...]) -> None:
    ran = run(tmp_path, "", *options, "-o", "out.csv")
    assert ran.returncode == 0, ran.stderr
    rows = (tmp_path / "out.csv").read_text()
    other = run(tmp_path, "", *({"--interpret"} - set(options)), "--fresh", "-o", "other.csv")
    assert other.returncode == 0, other.stderr
    header, *values = [line.split(",") for line in rows.splitlines()]
    _, *others = [line.split(",") for line in (tmp_path / "other.csv").read_text().splitlines()]
    same = [i for i, name in enumerate(header) if "wall" not in name and "finished" not in name]
    assert [[row[i] for i in same] for row in values] == [[row[i] for i in same] for row in others]
