"""The recorder on this machine: whole where there is root and tracefs, less where there is not."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from replay_oracle import replay

from hvbench.cli.record import record as record_command
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, Trace, read_trace
from hvbench.traces.info import trace_info
from hvbench.traces.record import session, tracefs
from hvbench.traces.record.session import Options

_ROOT, _WHY = tracefs.find_tracefs()
privileged = pytest.mark.skipif(_ROOT is None, reason=f"live recording: {_WHY}")

JOB = """
echo hello > {0}/a; sync {0}/a; cat {0}/a | wc -c > {0}/n; sleep 0.1
x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done
"""


def record(path: Path, job: str, **options: object) -> tuple[Trace, list[str]]:
    said: list[str] = []
    options.setdefault("buffer_mib", 32)
    made = Options(command=["sh", "-c", job], **options)  # type: ignore[arg-type]
    session.record(made, path / "t.parquet", said.append)
    return read_trace(path / "t.parquet"), said


@privileged
def test_a_shell_script(tmp_path: Path) -> None:
    trace, said = record(tmp_path, JOB.format(tmp_path))
    assert check_trace(trace) == [] and replay(trace, loops=2).stuck == []
    info = trace_info(trace)
    for op in ("compute", "wait", "wake", "touch", "mtouch", "fread", "fwrite", "sleep", "mark_end"):
        assert info.operations.get(op), (op, info.operations)
    sleeps = trace.columns["duration_ns"][trace.columns["op"] == OPS["sleep"]]
    assert 0.099e9 <= sleeps.max() < 0.2e9  # it is armed a little before the thread blocks
    assert trace.meta["wait_shares"]["unknown"] <= 0.05
    assert trace.meta["recorder"]["mode"] == "tracefs" and trace.meta["lost_events"] == 0
    (summary,) = [line for line in said if "of a CPU meanwhile" in line]
    assert "events lost" in summary
    assert not list(Path(_ROOT or ".").glob(f"instances/hvbench-{os.getpid()}"))


@privileged
def test_two_runs_tell_common_contents(tmp_path: Path) -> None:
    job = (
        f"{os.path.realpath(sys.executable)} -I -S -c \"import os,time; a=b'same'*500000; b=os.urandom(400000); "
        'time.sleep(3)"'
    )
    trace, _ = record(tmp_path, job, runs=2, delay_s=0.5, max_seconds=0.4)
    c = trace.columns
    common = (c["op"] == OPS["content"]) & ((c["flags"] & 4) != 0) & (c["content"] != 0)
    # 2 MB of "same" are 488 pages, common to both runs; the random bytes are not
    assert len(c["content"][common]) > 450
    assert not any("recorded once" in text for text in trace.meta["degraded"])
    unseen = set(c["page"][c["op"] == OPS["touch"]].tolist()) - set(c["page"][c["op"] == OPS["content"]].tolist())
    assert unseen


@privileged
def test_a_full_buffer_ends_the_recording_and_says_so(tmp_path: Path) -> None:
    job = "x=0; while :; do read y < /proc/self/stat; done"
    before = time.monotonic()
    trace, _ = record(tmp_path, job, buffer_mib=1, max_seconds=20)
    assert time.monotonic() - before < 15
    assert check_trace(trace) == []


@privileged
def test_interrupted_keeps_what_there_is(tmp_path: Path) -> None:
    # the job presses Ctrl-C for us, once it runs
    trace, _ = record(tmp_path, f"sleep 0.3; kill -INT {os.getpid()}; while :; do sleep 0.05; done", max_seconds=20)
    assert any("interrupted" in text for text in trace.meta["degraded"])
    assert len(trace) > 10 and check_trace(trace) == []


def test_without_privileges_less_is_recorded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "find_tracefs", lambda: (None, "not root: run as root"))
    monkeypatch.setattr(session, "without_root", lambda options, why: ("proc", [why]))
    job = (
        f'{os.path.realpath(sys.executable)} -I -S -c "x=bytearray(20000000)\nfor i in range(3000000): pass"; sleep 0.2'
    )
    trace, said = record(tmp_path, job)
    assert check_trace(trace) == [] and replay(trace).stuck == []
    assert trace.meta["recorder"]["mode"] == "proc"
    assert any("not root: run as root" in text for text in trace.meta["degraded"])
    assert sum("missing: " in text for text in said) >= 4
    c = trace.columns
    assert (c["user_ns"] + c["kernel_ns"]).sum() > 20e6
    assert c["pages"][c["op"] == OPS["touch"]].sum() > 4000
    assert c["duration_ns"].max() > 50e6
    assert set(np.unique(c["op"]).tolist()) <= {
        OPS[o] for o in ("compute", "touch", "sleep", "unknown", "free", "alloc", "exit", "mark_begin", "mark_end")
    }


def test_find_tracefs_says_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "run as root" in tracefs.find_tracefs()[1]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tracefs, "ROOTS", (tmp_path / "none",))
    root, why = tracefs.find_tracefs(mount=False)
    assert root is None and "mount -t tracefs" in why


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tier", "nonsense", "--", "true"], "has to be NAME=REGEX"),
        (["--tier", "outside=x", "--", "true"], "has to be NAME=REGEX"),
        (["--tier", "a=(", "--", "true"], "not a regular expression"),
        (["--", "no-such-program-here"], "no such program"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(record_command, ["-o", str(tmp_path / "t.parquet"), *arguments])
    assert isinstance(result.exception, UserError) and expected in str(result.exception)
    assert "\n" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_no_folder_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        session.record(Options(command=["true"]), tmp_path / "no" / "t.parquet")
