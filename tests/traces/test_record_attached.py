"""Recording what runs already: processes by number, a control group; names kept or not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from replay_oracle import replay

from hvbench.cli.record import record as record_command
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import Trace, name_hash, read_trace
from hvbench.traces.info import trace_info
from hvbench.traces.record import session, tracefs
from hvbench.traces.record.session import Options
from hvbench.traces.record.target import Group, attached, group
from hvbench.traces.record.unprivileged import record_unprivileged

_ROOT, _WHY = tracefs.find_tracefs()
privileged = pytest.mark.skipif(_ROOT is None, reason=f"live recording: {_WHY}")
LOOP = 'while :; do x=0; while [ $x -lt 3000 ]; do x=$((x+1)); done; cat "$0" > /dev/null; sleep 0.02; done'


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that computes, reads a file and sleeps, for as long as the test lasts."""
    (tmp_path / "secret-name").write_text("x" * 9000)
    child = subprocess.Popen(["sh", "-c", LOOP, str(tmp_path / "secret-name")])
    time.sleep(0.2)
    yield child
    child.kill()
    child.wait()


def record(path: Path, **options: object) -> tuple[Trace, list[str]]:
    said: list[str] = []
    options = {"command": [], "max_seconds": 0.5, "buffer_mib": 16, **options}
    session.record(Options(**options), path / "t.parquet", said.append)  # type: ignore[arg-type]
    return read_trace(path / "t.parquet"), said


@privileged
def test_a_running_process_goes_on(tmp_path: Path, loop: subprocess.Popen[bytes]) -> None:
    trace, said = record(tmp_path, pids=[loop.pid])
    assert loop.poll() is None
    assert check_trace(trace) == [] and replay(trace, loops=2).stuck == []
    info = trace_info(trace)
    assert info.operations["compute"] > 5 and info.operations["fread"] > 2 and info.operations["sleep"] > 2
    assert "sh" in {thread["name"] for thread in trace.meta["threads"]}
    assert trace.meta["command"] == "1 running processes" and "events lost" in " ".join(said)
    assert any("attached to running processes" in sentence for sentence in trace.meta["degraded"])
    hashes = {item.get("name_hash") for item in trace.meta["objects"]}
    assert name_hash(str(tmp_path / "secret-name")) in hashes and "secret-name" not in str(trace.meta)


@privileged
def test_names_are_kept_where_it_is_asked_for(tmp_path: Path, loop: subprocess.Popen[bytes]) -> None:
    trace, _ = record(tmp_path, pids=[loop.pid], keep_names=True)
    assert str(tmp_path / "secret-name") in {item.get("name") for item in trace.meta["objects"]}
    assert "file names kept" in trace.meta["privacy"]


@privileged
def test_a_control_group(tmp_path: Path, loop: subprocess.Popen[bytes]) -> None:
    base = next(
        (p for p in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/pids")) if (p / "cgroup.procs").is_file()), None
    )
    if base is None:
        pytest.skip("no control groups are mounted")
    folder = base / f"hvbench-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(loop.pid))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    try:
        trace, _ = record(tmp_path, cgroup=folder.name)
        assert check_trace(trace) == [] and trace_info(trace).operations["compute"] > 5
        assert trace.meta["command"] == f"control group {folder.name}"
        assert loop.poll() is None
    finally:
        (base / "cgroup.procs").write_text(str(loop.pid))
        for child in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (base / "cgroup.procs").write_text(child)
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            folder.rmdir()


def test_without_root(tmp_path: Path, loop: subprocess.Popen[bytes]) -> None:
    said: list[str] = []
    options = Options(command=[], pids=[loop.pid], max_seconds=0.4)
    trace = record_unprivileged(options, tmp_path / "t.parquet", "not root", said.append)
    assert loop.poll() is None and check_trace(trace) == []
    assert trace_info(trace).operations["compute"] >= 1
    assert any("missing: no messages" in line for line in said)


def test_a_group_has_the_groups_below_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "cgroup.procs").write_text("11\n0\n")
    (tmp_path / "below" / "cgroup.procs").write_text(f"12\n{os.getpid()}\n")
    assert Group(tmp_path).pids() == [11, 12]


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--pid 4194999: no such process"):
        attached([4194999])
    with pytest.raises(UserError, match="that is the recorder itself"):
        attached([os.getpid()])
    with pytest.raises(UserError, match="--cgroup no/such: no such control group below"):
        group("no/such")
    for words, said in (
        ([], "nothing to record: give a command after `--`, or --pid, or --cgroup"),
        (["--pid", "1", "--", "true"], "--pid and a command to record"),
        (["--pid", "1", "--runs", "2"], "--runs 2: --pid cannot be run again"),
    ):
        done = CliRunner().invoke(record_command, ["-o", str(tmp_path / "t.parquet"), *words])
        assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert not list(tmp_path.iterdir())
