"""The example files and command lines of the README and of docs/ are run as they stand there.

In a page, a line that begins with four spaces and `hvbench ` is a command line. What the reader of the rendered page
does not see says how the lines are tested:

    <!-- example: NAME -->       the code block that follows is written to the file NAME
    <!-- file: PATH [NAME] -->   the repository's file PATH is copied to the page's folder (as NAME)
    <!-- skip: REASON -->        the command lines of the next block are not run
    <!-- exit: CODE -->          the command lines of the next block end with this exit code
    <!-- add: OPTIONS -->        the command lines of the next block are run with these options too (a smaller case)

The lines of a page run in one folder, in their order.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DIRECTIVE = re.compile(r"^<!-- (example|file|skip|exit|add): (.*?) -->$")
COMMAND = "    hvbench "

README_SHORTER = {
    "hvbench matrix": ["--dry-run"],
    "hvbench matrix build,web --scheduler all": ["--dry-run"],
}
"""The README shows many lines in one block; lines that begin so are run smaller (the first: only the bare line)."""


@attrs.frozen
class Line:
    """A command line of a page, and how it is tested."""

    page: str
    text: str
    add: tuple[str, ...] = ()
    skip: str = ""
    exit_code: int = 0


@attrs.frozen
class Page:
    """What a page asks for: files first, then lines."""

    name: str
    examples: dict[str, str]
    files: dict[str, str]
    lines: tuple[Line, ...]


def read(path: Path) -> Page:
    """Take a page apart."""
    name = path.relative_to(ROOT).as_posix()
    rows = path.read_text().replace("\\\n", " ").splitlines()  # a line that goes on is one line
    files: dict[str, str] = {}
    lines: list[Line] = []
    pending: dict[str, str] = {}
    in_block = False
    for row in rows:
        directive = DIRECTIVE.match(row)
        if directive:
            what, value = directive.groups()
            if what == "file":
                source, _, target = value.partition(" ")
                files[target or Path(source).name] = source
            elif what != "example":
                pending[what] = value
        elif row.startswith(COMMAND):
            in_block = True
            text = re.sub(r"\s+#.*", "", row.strip())
            lines.append(
                Line(
                    name,
                    text,
                    tuple(shlex.split(pending.get("add", ""))),
                    pending.get("skip", ""),
                    int(pending.get("exit", "0")),
                )
            )
        elif in_block and not row.startswith("    "):
            in_block = False
            pending = {}
    examples = dict(re.findall(r"<!-- example: (\S+) -->\n```\w*\n(.*?)```", path.read_text(), re.S))
    return Page(name, examples, files, tuple(lines))


READ = {page.name: page for page in map(read, PAGES)}
LINES = [line for page in READ.values() for line in page.lines]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for name, page in READ.items():
        folder = tmp_path_factory.mktemp(Path(name).stem)
        for target, text in page.examples.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_text(text)
        for target, source in page.files.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / target)
        made[name] = folder
    (made["README.md"] / "study.toml").write_text(
        'format = 1\nworkloads = ["build"]\n[axes]\nscheduler = "round-robin"\nmemory = "static"\n'
        'storage = "das"\nswitch = "bridged"\n'
    )
    return made


def options(line: Line) -> list[str]:
    extra = list(line.add)
    if line.page == "README.md":
        for start, smaller in README_SHORTER.items():
            if line.text == start or (start != "hvbench matrix" and line.text.startswith(start)):
                extra += smaller
    return extra


def test_the_readme_shows_a_policy_and_command_lines() -> None:
    assert READ["README.md"].examples
    assert len(READ["README.md"].lines) >= 9


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page}: {line.text}")
def test_command_line(line: Line, folders: dict[str, Path]) -> None:
    if line.skip:
        pytest.skip(line.skip)
    text = line.text
    if line.page == "README.md" and text.startswith("hvbench record"):
        pytest.skip("recording is tested in tests/traces; it needs root, tracefs and a project to make")
    if text == "hvbench trace check mine.parquet" and line.page == "README.md":
        text = f"hvbench trace check {ROOT / 'workloads' / 'traces' / 'cc-build.parquet'}"
    words = [sys.executable, "-m", "hvbench", *shlex.split(text)[1:], *options(line)]
    done = subprocess.run(
        words,
        cwd=folders[line.page],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = f"{line.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.returncode == line.exit_code, said
    assert "Traceback" not in done.stderr, said
    assert done.stdout.strip(), said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.M):
        assert re.search(rf"^{target}:.*## ", makefile, re.M), target
