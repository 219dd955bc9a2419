"""What `hvbench record` refuses before it records, and what it says of a command that failed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.traces.format import read_trace
from hvbench.traces.record.tracefs import Session, find_tracefs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--buffer", "-5"], "--buffer -5: legal: 0 (by memory) to "),
        (["--buffer", "99999999999"], "--buffer 99999999999: legal: 0 (by memory) to "),
        (["--delay", "nan"], "--delay nan: legal: 0 to 86400 s"),
        (["--delay", "-1"], "--delay -1: legal: 0 to 86400 s"),
        (["--max-seconds", "-1"], "--max-seconds -1: legal: 0 (until the command ends)"),
        (["--max-seconds", "nan"], "--max-seconds nan: legal: 0"),
        (["--max-seconds", "inf"], "--max-seconds inf: legal: 0"),
        (["--snapshot", "-1"], "--snapshot -1: legal: 0 (at the ends only)"),
        (["--resolution", "0"], "--resolution 0: legal: 0.001 to 10000 ms"),
    ],
)
def test_ranges(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.parquet"
    assert execute(["record", *words, "-o", str(output), "--", "true"]) == 2
    assert f"hvbench: {said}" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_only_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "r.csv"
    assert execute(["record", "-o", str(output), "--", "true"]) == 2
    said = f"hvbench: {output}: what is written is Parquet; -o names a file that ends in .parquet\n"
    assert capsys.readouterr().err == said and not output.exists()


def test_a_session_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tracing session with a buffer of 64 KiB .*No such file.*smaller --buffer"):
        Session(tmp_path, 64).__enter__()


@pytest.mark.parametrize("mode", ["", "strace", "perf", "proc"])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec 2>&-; sleep 0.05; exit 3", "the command ended with exit code 3"),
        ("sleep 0.05; kill -9 $$", "the command was ended by SIGKILL"),
        ("sleep 0.05; exit 0", ""),
    ],
)
def test_a_command_that_fails(
    mode: str, script: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if mode in ("strace", "perf") and shutil.which(mode) is None:
        pytest.skip(f"{mode} is not installed")
    if mode == "perf" and os.geteuid():
        pytest.skip("perf needs root, or a kernel that lets everybody")
    if mode == "" and find_tracefs()[0] is None:
        pytest.skip("needs root and tracefs")
    output = tmp_path / "x.parquet"
    how = ["--without-root", mode] if mode else ["--buffer", "4"]
    code = execute(["record", *how, "-o", str(output), "--", "sh", "-c", script])
    shown = capsys.readouterr()
    if code and "may not" in shown.err:
        pytest.skip(shown.err)
    assert code == 0, shown.err
    told = [text for text in read_trace(output).meta["degraded"] if text.startswith("the command ")]
    assert told == ([said] if said else [])
    assert (f"  note: {said}" in shown.out) if said else ("the command " not in shown.out)
