"""The README's example policy and command lines are run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

# what a command line of the README is run with: everything, but smaller
SHORTER = {
    "hvbench matrix": ["--dry-run"],
    "hvbench matrix build,web --scheduler all": ["--dry-run"],
}
NEEDS_ROOT = "hvbench record"


def examples() -> dict[str, str]:
    """The README's files: name -> text, from the blocks marked `<!-- example: NAME -->`."""
    found = re.findall(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", README, re.S)
    assert found, "the README shows no example policy"
    return dict(found)


def command_lines() -> list[str]:
    """The README's indented command lines that begin with hvbench, without comments."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    hvbench ")]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "hvbench", *shlex.split(line)[1:]]
    for start, extra in SHORTER.items():
        if line == start or (start != "hvbench matrix" and line.startswith(start)):
            words += extra
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("readme")
    for name, text in examples().items():
        (made / name).write_text(text)
    (made / "study.toml").write_text(
        'format = 1\nworkloads = ["build"]\n[axes]\nscheduler = "round-robin"\nmemory = "static"\n'
        'storage = "das"\nswitch = "bridged"\n'
    )
    return made


def test_the_readme_has_command_lines() -> None:
    assert len(command_lines()) >= 9


@pytest.mark.parametrize("line", command_lines())
def test_command_line(line: str, folder: Path) -> None:
    if line.startswith(NEEDS_ROOT) and "--" in line:
        pytest.skip("recording is tested in tests/traces; it needs root, tracefs and a project to make")
    if line.startswith("hvbench trace check mine.parquet"):
        line = f"hvbench trace check {ROOT / 'workloads' / 'traces' / 'cc-build.parquet'}"
    done = run(line, folder)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.strip(), line


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target
