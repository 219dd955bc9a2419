"""Command lines, pipes and disks that get in the way: one clear line each, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hvbench.cli import execute
from hvbench.workload import bundled_folder


@pytest.mark.parametrize(
    "args",
    [
        ["matrix", ""],
        ["matrix", ","],
        ["matrix", "build", "--seeds", "99999999999"],
        ["matrix", "build", "--limit", "nan"],
        ["matrix", "build", "--limit", "inf"],
        ["matrix", "./a\0b.toml"],
    ],
)
def test_bad_arguments_are_one_line(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*args, "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _run(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hvbench", *args], stderr=subprocess.PIPE, text=True, **more)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    ran = _run("plugins", stdout=write)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        ran = _run("plugins", stdout=full)
    assert (ran.returncode, ran.stderr) == (2, "hvbench: cannot write: No space left on device\n")


def test_an_error_in_a_cell_names_the_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = (bundled_folder() / "build.toml").read_text().replace('memory = "512MiB"', 'memory = "1pages"')
    (tmp_path / "small.toml").write_text(small)
    axes = ["--scheduler", "null", "--memory", "static", "--storage", "das", "--switch", "bridged"]
    assert execute(["matrix", str(tmp_path / "small.toml"), *axes, "--db", str(tmp_path / "r.db")]) == 2
    assert capsys.readouterr().err.startswith(f"hvbench: {tmp_path / 'small.toml'}: VM 0: its base image needs")
