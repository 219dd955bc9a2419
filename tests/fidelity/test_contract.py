"""The model does not know what it is judged by: nothing under the bars imports them or opens their numbers."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "hvbench.fidelity"
ALLOWED = {Path("hvbench/cli/fidelity.py")}
"""The command is above the bars; everything else is under them."""


def sources() -> Iterator[Path]:
    for folder in ("hvbench", "plugins", "workloads"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if (ROOT / "hvbench/fidelity") not in path.parents:
                yield path


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module that a file imports, wherever in it, with relative names made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden(text: str, package: str = "hvbench") -> list[str]:
    """What a source has to do with the bars: imports, and texts that name their package or file."""
    tree = ast.parse(text)
    found = [name for name in imported(tree, package) if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = {ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, holders)}
    names = (PACKAGE, "hvbench/fidelity", "numbers.toml")
    return found + [t for t in texts if t not in documented and any(name in t for name in names)]


def test_nobody_under_the_bars_imports_them() -> None:
    seen = {path.relative_to(ROOT): forbidden(path.read_text(encoding="utf-8")) for path in sources()}
    assert len(seen) > 100 and Path("hvbench/kernel/cpu.py") in seen and Path("plugins/scheduler/credit.py") in seen
    assert {path for path, found in seen.items() if found} == ALLOWED


def test_the_walk_finds_every_way_of_importing() -> None:
    for text in (
        "import hvbench.fidelity",
        "import hvbench.fidelity.numbers as n",
        "from hvbench import fidelity",
        "from hvbench.fidelity import numbers",
        "from .fidelity import numbers",
        "from . import fidelity",
        "def f():\n    from hvbench.fidelity.numbers import load",
        "import importlib\nimportlib.import_module('hvbench.fidelity.numbers')",
        "open('hvbench/fidelity/numbers.toml')",
    ):
        assert forbidden(text), text
    assert not forbidden("from hvbench.kernel import cpu\nx = 'high fidelity'")


WATCH = """
import sys
from pathlib import Path

opened = []

def look(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode(errors="replace")
        if "hvbench/fidelity" in path.replace("\\\\", "/"):
            opened.append(path)

sys.addaudithook(look)
{run}
assert not opened, opened
"""

MODEL_RUN = """
from hvbench.axes import AXES
from hvbench.cell import Cell
from hvbench.choices import DEFAULT, parse_choice
from hvbench.plugins import load_registry
from hvbench.simulate import simulate
from hvbench.workload import load_workload

registry = load_registry()
assert len(registry.policies) > 15 and not registry.failed
workload = load_workload("caches")
choices = {axis: parse_choice(axis, DEFAULT[axis], registry) for axis in AXES}
cell = Cell(workload, choices, 1, workload.horizon_ns, workload.warmup_ns)
assert cell.key
result = simulate(cell)
assert result.status == "ok", result
"""


def watched(run: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", WATCH.replace("{run}", run)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_model_run_opens_no_file_of_the_bars(kernel: object) -> None:
    """All plugins load, a cell gets its key and is computed; what opens a file is seen by an audit hook."""
    done = watched(MODEL_RUN)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_audit_hook_sees_who_does() -> None:
    done = watched("from hvbench.fidelity.numbers import load\nload()")
    assert done.returncode == 1
    assert "numbers.toml" in done.stderr
