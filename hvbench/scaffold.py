"""A new policy's project: a small, installable package with its tests, its tracked benchmarks and a workflow."""

from __future__ import annotations

import importlib.resources
import keyword
import os
import re
import shutil
import tempfile
from pathlib import Path
from string import Template

from attrs import define

from hvbench.axes import AXES, DECISION_AXES
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean
from hvbench.plugins import PROJECT, wanted_entry_points

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

DECISION_TEST = """

@pytest.mark.hvbench_decision("../$module.py")
def test_decision_cost(hvbench_decision):
    hvbench_decision()
"""


@define(frozen=True)
class _Axis:
    """What the templates of an axis compare with, and on what."""

    workload: str
    reference: str
    others: str = ""
    """More arguments of the marker: what the comparison needs on other axes."""


AXIS: dict[str, _Axis] = {
    "scheduler": _Axis("build", "credit"),
    "memory": _Axis("caches", "static"),
    "storage": _Axis("files", "das"),
    "switch": _Axis("web", "bridged"),
    "technique": _Axis("build", "hardware"),
    "host": _Axis("build", "type1"),
}


def template(name: str) -> str:
    """A template's text: `$name` and so on stand for what is filled in."""
    return importlib.resources.files("hvbench").joinpath("templates", f"{name}.txt").read_text(encoding="utf-8")


def files_of(axis: str, name: str) -> dict[str, str]:
    """Path -> text of a new project. UserError where the axis or the name is none."""
    if axis not in AXES:
        raise UserError(f"no axis {axis!r}{did_you_mean(axis, AXES, always=True)}; legal: {', '.join(AXES)}")
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r}: a policy's name is of small letters and digits, with - between words: my-policy")
    if keyword.iskeyword(name):
        raise UserError(f"{name!r} is a word of Python; choose another name")
    taken = next((point for point in wanted_entry_points() if point.name == f"{axis}.{name}"), None)
    if taken is not None and taken.dist is not None and taken.dist.name == PROJECT:
        raise UserError(f"{name!r} is a {axis} policy of hvbench itself; choose another name, such as my-{name}")
    module = f"hvbench_{name.replace('-', '_')}"
    about = AXIS[axis]
    words = {
        "axis": axis,
        "name": name,
        "module": module,
        "title": name.replace("-", " ").capitalize(),
        "workload": about.workload,
        "reference": about.reference,
        "others": about.others,
    }
    words["decision"] = Template(DECISION_TEST).substitute(words) if axis in DECISION_AXES else ""
    found = {
        f"{module}.py": f"{axis}.py",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "tests/test_conforms.py": "test_conforms.py",
        "tests/test_tracked.py": "test_tracked.py",
        ".github/workflows/hvbench.yml": "workflow.yml",
        ".gitignore": "gitignore",
    }
    made = {path: Template(template(source)).substitute(words) for path, source in found.items()}
    return {path: text.rstrip("\n") + "\n" for path, text in made.items()}


def create(axis: str, name: str, folder: Path) -> list[Path]:
    """Write a new project into `folder`, whole or not at all; returns its files."""
    made = files_of(axis, name)
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another name, or --to another folder")
    if not folder.parent.is_dir():
        raise UserError(f"{folder}: the folder {folder.parent} does not exist")
    part = None
    try:
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        for path, text in made.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_text(text, encoding="utf-8")
        part.chmod(0o755)
        os.rename(part, folder)
    except OSError as error:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    return [folder / path for path in made]
