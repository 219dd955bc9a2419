"""As a new author would: an empty environment, the built wheel, the tutorial followed to the letter, on every axis.

Slow (an installation and the first compilation of the kernel): `pytest -m slow tests/test_new_author.py`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from hvbench.axes import AXES
from hvbench.scaffold import AXIS
from tests.builders import ROOT
from tests.test_docs import READ

pytestmark = pytest.mark.slow


@attrs.frozen
class Place:
    """An environment with the wheel and nothing of the repository."""

    folder: Path
    bin: Path

    def run(self, line: str, where: Path | None = None, code: int = 0) -> str:
        """Run a command line as the author types it; returns what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HVBENCH", "PYTEST"))}
        environment["PATH"] = f"{self.bin}{os.pathsep}{environment['PATH']}"
        environment["HVBENCH_CACHE_DIR"] = str(self.folder / "cache")
        done = subprocess.run(
            shlex.split(line),
            cwd=where or self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == code, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("author")
    # Of a copy: what an earlier build left in the repository would be packed, too.
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "wheel"), str(folder / "source")],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no wheel could be built here: {made.stderr.strip().splitlines()[-1]}")
    (wheel,) = (folder / "wheel").glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    found = Place(folder, folder / "venv" / "bin")
    installed = subprocess.run(
        [str(found.bin / "python"), "-m", "pip", "install", "-q", f"{wheel}[test]", "setuptools>=77"],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"no package index here: {installed.stderr.strip().splitlines()[-1]}")
    yield found


def test_nothing_of_the_repository_is_seen(place: Place) -> None:
    where = place.run("python -c 'import hvbench, hvbench_plugins; print(hvbench.__file__, hvbench_plugins.__path__)'")
    assert str(ROOT) not in where and str(place.folder) in where


@pytest.mark.parametrize("axis", AXES)
def test_the_way_from_an_idea_to_a_policy_in_ci(place: Place, axis: str) -> None:
    name = f"my-{axis}"
    place.run(f"hvbench new {axis} {name}")
    project = place.folder / name
    place.run("pip install -q --no-deps --no-build-isolation -e .", project)
    assert f"\n{axis}" in place.run("hvbench plugins") and name in place.run("hvbench plugins")
    assert "FAIL" not in place.run(f"hvbench check {axis}.{name} --quick")
    about = AXIS[axis]
    table = place.run(
        f"hvbench matrix {about.workload} --scheduler credit --memory static --storage das --switch bridged "
        f"--technique hardware --host type1 --{axis} {about.reference},{name}"
    )
    assert name in table
    place.run("pytest -q --benchmark-json=base.json", project)
    place.run("pytest -q tests/test_tracked.py --benchmark-json=new.json", project)
    assert "Of the metrics 0 are worse" in place.run("hvbench compare base.json new.json --vanished-ok", project)


def test_the_tutorial_line_by_line(place: Place) -> None:
    page = READ["docs/writing-a-policy.md"]
    folder = place.folder / "tutorial"
    folder.mkdir()
    for name, text in page.examples.items():
        (folder / name).write_text(text)
    for line in page.lines:
        if not line.skip:
            place.run(line.text, folder, line.exit_code)
