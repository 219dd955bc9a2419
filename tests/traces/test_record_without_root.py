"""Recording without root: by perf, by strace, by /proc; what each lacks; Ctrl-C and lost events in all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from click.testing import CliRunner
from replay_oracle import replay

from hvbench.cli.record import record as record_command
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import OPS, Trace, read_trace
from hvbench.traces.info import format_info, trace_info
from hvbench.traces.record import perf, session, stracing, tracefs, unprivileged
from hvbench.traces.record.ftrace import parse
from hvbench.traces.record.session import Options
from hvbench.traces.record.timeline import Timeline

_PLAIN = Options(command=["true"])
WHY = {"perf": perf.why_not(), "strace": stracing.why_not(_PLAIN), "proc": ""}
JOB = "i=0; while [ $i -lt 20 ]; do cat /etc/passwd > /dev/null; i=$((i+1)); done; sleep 0.1"
LOOP = "while :; do x=0; while [ $x -lt 2000 ]; do x=$((x+1)); done; sleep 0.02; done"


def needs(mode: str) -> None:
    if WHY[mode]:
        pytest.skip(f"recording by {mode}: {WHY[mode]}")


def record(tmp_path: Path, mode: str, **options: object) -> tuple[Trace, list[str]]:
    needs(mode)
    said: list[str] = []
    given = {"command": [], "without_root": mode, "buffer_mib": 16, "max_seconds": 10, **options}
    with mock.patch.object(perf, "why_not", lambda: ""):  # it was asked once
        session.record(Options(**given), tmp_path / "t.parquet", said.append)  # type: ignore[arg-type]
    return read_trace(tmp_path / "t.parquet"), said


@pytest.mark.parametrize("mode", ["perf", "strace", "proc"])
def test_a_command(tmp_path: Path, mode: str) -> None:
    trace, said = record(tmp_path, mode, command=["sh", "-c", JOB])
    assert check_trace(trace) == [] and replay(trace).stuck == []
    assert trace.meta["recorder"]["mode"] == mode
    assert any(f"--without-root {mode}" in text for text in trace.meta["degraded"])
    found = trace_info(trace).operations
    assert found["compute"] >= 1
    if mode == "proc":
        assert "fread" not in found and "syscalls" not in trace.meta
    elif mode == "perf" and trace.meta["lost_events"]:  # on a busy machine: said, and no more can be asked of it
        assert any("events were lost" in text for text in trace.meta["degraded"])
    else:
        assert found["fread"] >= 20 and found["wait"] >= 10 and found["wake"] == found["wait"]
        assert trace.meta["syscalls"]["files"] > 20 and "system calls: " in format_info(trace_info(trace))
        slept = trace.columns["duration_ns"][trace.columns["op"] == OPS["sleep"]]
        assert 95e6 < slept.max() < 300e6
    assert "passwd" not in str(trace.meta["objects"])
    assert "events lost" in said[-1] or any("events lost" in line for line in said)


@pytest.mark.parametrize("mode", ["perf", "strace", "proc"])
def test_interrupted_it_is_kept(tmp_path: Path, mode: str) -> None:
    needs(mode)
    out = tmp_path / "started"
    waited = threading.Thread(target=_press, args=(out,), daemon=True)
    waited.start()
    trace, _ = record(tmp_path, mode, command=["sh", "-c", f"touch {out}; {LOOP}"])
    assert check_trace(trace) == [] and len(trace) > 3
    assert any("interrupted from the keyboard" in text for text in trace.meta["degraded"])


def _press(out: Path) -> None:
    """Ctrl-C, a little after the command has begun."""
    deadline = time.monotonic() + 15
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("mode", ["perf", "strace", "proc"])
def test_what_runs_goes_on(tmp_path: Path, mode: str) -> None:
    needs(mode)
    child = subprocess.Popen(["sh", "-c", LOOP])
    try:
        trace, _ = record(tmp_path, mode, pids=[child.pid], max_seconds=0.6)
        assert check_trace(trace) == [] and trace_info(trace).operations["compute"] >= 5
        assert child.poll() is None
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert "TracerPid:\t0" in status and "State:\tT" not in status
    finally:
        child.kill()
        child.wait()


def test_a_call_that_lasts_longer_than_the_recording(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "30"])
    try:
        trace, _ = record(tmp_path, "strace", pids=[child.pid], max_seconds=0.3)
        assert check_trace(trace) == []
        assert 0.2e9 < trace.columns["duration_ns"].max() < 1e9
    finally:
        child.kill()
        child.wait()


def test_a_log_that_strace_left_is_completed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"7 100.000000 read(3, <detached ...>\n7 99.000000 close(3) = 0 <0.000010>\n")
    stracing.complete(log, 101_500_000_000)
    assert log.read_bytes() == (
        b"7 100.000000 read(3,) = -1 EINTR (Interrupted) <1.500000>\n7 99.000000 close(3) = 0 <0.000010>\n"
    )


def test_memory_is_sampled_beside_strace(tmp_path: Path) -> None:
    job = [os.path.realpath(sys.executable), "-I", "-S", "-c", "x=bytearray(20000000); import time; time.sleep(0.1)"]
    trace, _ = record(tmp_path, "strace", command=job)
    assert check_trace(trace) == []
    c = trace.columns
    assert c["pages"][c["op"] == OPS["touch"]].sum() > 4000 and (c["op"] == OPS["alloc"]).sum() >= 1


# samples and events that are lost ---------------------------------------------------------------------------------


def test_samples_that_came_late_are_counted() -> None:
    sampler = unprivileged.Sampler(Timeline(0, 1))
    for now_ms in (0, 10, 20, 95, 105):
        sampler.read([], now_ms * 1_000_000)
    assert sampler.late == 6


@pytest.mark.parametrize("mode", ["strace", "proc"])
def test_lost_samples_are_in_the_trace(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(mode)
    read = unprivileged.Sampler.read

    def slow(self: unprivileged.Sampler, pids: list[int], now: int) -> None:
        time.sleep(0.05)
        read(self, pids, now)

    monkeypatch.setattr(unprivileged.Sampler, "read", slow)
    trace, said = record(tmp_path, mode, command=["sh", "-c", "sleep 0.5"])
    assert trace.meta["lost_events"] >= 5 and f"{trace.meta['lost_events']} events lost" in " ".join(said)
    assert any("are missing: the recorder was not run in time" in text for text in trace.meta["degraded"])


def test_lost_events_are_in_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both tracing instances: the job's, and that of block requests."""
    if tracefs.find_tracefs()[0] is None:
        pytest.skip(tracefs.find_tracefs()[1])
    monkeypatch.setattr(tracefs.Session, "lost", lambda self: 7)
    said: list[str] = []
    session.record(Options(command=["sh", "-c", JOB], buffer_mib=8), tmp_path / "t.parquet", said.append)
    trace = read_trace(tmp_path / "t.parquet")
    assert trace.meta["lost_events"] == 14 and any("14 events lost" in line for line in said)
    assert any(text.startswith("14 events were lost") for text in trace.meta["degraded"])


SCRIPT = """\
            bash   500/500   [001] 10.000001000:  raw_syscalls:sys_enter: NR 0 (1, 2, 3, 4, 5, 6)
            bash   500/500   [001] 10.000002000: sched:sched_process_fork: comm=bash pid=500 child_comm=sh child_pid=501
       my prog 2   501/501   [000] 10.000003000:  raw_syscalls:sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
           other   900/901   [000] 10.000004000:  raw_syscalls:sys_enter: NR 1 (1, 2, 3, 4, 5, 6)
           other   900/901   [000] 10.000005000:  sched:sched_waking: comm=my prog 2 pid=501 prio=120 target_cpu=000
         swapper     0/0     [000] 10.000006000:  sched:sched_waking: comm=bash pid=500 prio=120 target_cpu=000
           other   900/901   [000] 10.000007000:  block:block_rq_issue: 8,0 R 4096 () 100 + 8 none,0,0 [other]
            perf    -1/-1    [000] 10.000008000: PERF_RECORD_LOST lost 42
            perf    -1/-1    [000] 10.000009000: PERF_RECORD_LOST_SAMPLES lost 3
"""


def test_the_jobs_events_of_perf_script(monkeypatch: pytest.MonkeyPatch) -> None:
    made = perf.PerfSession(1024)
    made.threads = {500}
    made.file = Path("x")
    printed = SimpleNamespace(stdout=_Lines(SCRIPT), wait=lambda: 0)
    monkeypatch.setattr(perf.subprocess, "Popen", lambda *a, **k: printed)
    lines = list(made.lines())
    capture = parse(lines)
    assert capture.unparsed == 0
    assert [(e.tid, e.name, e.context) for e in capture.events] == [
        (500, "sys_enter", ""), (500, "sched_process_fork", ""), (501, "sys_enter", ""), (901, "sched_waking", ""),
        (0, "sched_waking", "h"),
    ]  # fmt: skip
    assert capture.events[2].comm == "my prog 2" and capture.events[2].time == 10_000_003_000
    assert made.lost() == 45
    assert [line.split()[-4] for line in made.block_lines()] == ["+"]
    assert made.lost() == 45


class _Lines(list[str]):
    """A process's output."""

    def __init__(self, text: str) -> None:
        super().__init__(text.splitlines(keepends=True))

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *what: object) -> None:
        pass


# which one --------------------------------------------------------------------------------------------------------


def test_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf, "why_not", lambda: "")
    monkeypatch.setattr(stracing, "why_not", lambda options: "")
    assert session.without_root(_PLAIN, "not root") == ("perf", ["not root"])
    monkeypatch.setattr(perf, "why_not", lambda: "no perf")
    assert session.without_root(_PLAIN, "not root") == ("strace", ["not root", "no perf"])
    monkeypatch.setattr(stracing, "why_not", lambda options: "no strace")
    assert session.without_root(_PLAIN, "not root") == ("proc", ["not root", "no perf", "no strace"])
    with pytest.raises(UserError, match="--without-root perf: no perf"):
        session.without_root(Options(command=["true"], without_root="perf"), "not root")


def test_what_keeps_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert perf.why_not() == "perf is not installed"
    assert stracing.why_not(_PLAIN) == "strace is not installed"
    for name in ("strace", "perf"):
        (tmp_path / name).write_text("#!/bin/sh\necho \"$0: PTRACE_TRACEME: No permissions\" >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    assert "strace may not trace here" in stracing.why_not(_PLAIN) and "No permissions" in stracing.why_not(_PLAIN)
    assert "kernel.perf_event_paranoid=-1" in perf.why_not() and "No permissions" in perf.why_not()
    done = CliRunner().invoke(
        record_command, ["--without-root", "strace", "-o", str(tmp_path / "x.parquet"), "--", "/bin/true"]
    )
    assert isinstance(done.exception, UserError)
    assert "--without-root strace: strace may not trace here" in str(done.exception)
    done = CliRunner().invoke(
        record_command,
        ["--without-root", "strace", "--tier", "a=b", "-o", str(tmp_path / "x.parquet"), "--", "/bin/true"],
    )
    assert isinstance(done.exception, UserError)
    assert "--tier and --outside need the names of processes" in str(done.exception)


def test_as_another_user(tmp_path: Path) -> None:
    """All of it as somebody who is not root: the best there is, and what is missing."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to become nobody")
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    home = Path("/tmp") / f"hvbench-nobody-{os.getpid()}"  # tmp_path is closed to others
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    try:
        if subprocess.run([*nobody, sys.executable, "-c", "import hvbench"], capture_output=True).returncode:
            pytest.skip("nobody cannot read this Python environment")
        done = subprocess.run(
            [*nobody, sys.executable, "-m", "hvbench", "record", "-o", "t.parquet", "--", "sh", "-c", JOB],
            cwd=home, capture_output=True, text=True,
            env={**os.environ, "TMPDIR": str(home), "HVBENCH_CACHE_DIR": str(home)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        trace = read_trace(home / "t.parquet")
        assert check_trace(trace) == [] and trace_info(trace).operations["compute"] >= 1
        assert trace.meta["recorder"]["mode"] in ("perf", "strace", "proc")
        assert "not root: run as root" in done.stdout
        missing = [line for line in done.stdout.splitlines() if "missing: " in line or "recorded by perf" in line]
        assert len(missing) >= (2 if trace.meta["recorder"]["mode"] == "perf" else 4)
        assert any("not root" in text for text in trace.meta["degraded"])
    finally:
        shutil.rmtree(home)
