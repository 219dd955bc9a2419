"""The cache of compiled code: never stale, never an error, never a change to other people's Numba."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ROOT

PROBE = """
import json, os, sys
import numba
before = {k: repr(v) for k, v in vars(numba.config).items() if k.isupper()}
environment = dict(os.environ)
from numba import types
from hvbench import jit
from hvbench.kernel.histogram import bucket_of

def entry(value):
    return bucket_of(value)

probe = jit.compiled(entry, types.int64(types.int64), "probe")
after = {k: repr(v) for k, v in vars(numba.config).items() if k.isupper()}
print(json.dumps({
    "answer": int(probe(1000)),
    "plain": int(bucket_of(1000)),
    "digest": jit.kernel_digest(),
    "root": str(jit.cache_root()),
    "hits": sum(probe.stats.cache_hits.values()),
    "config": {k: (before.get(k), after[k]) for k in after if before.get(k) != after[k]},
    "environment": environment == dict(os.environ),
}))
"""
"""A small entry point with a helper in another file: what the event loop is, in small."""


def probe(package_root: Path, **environment: str) -> tuple[dict[str, Any], str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HVBENCH_", "NUMBA_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=package_root,
        env={**kept, "PYTHONPATH": str(package_root), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package that may be edited."""
    shutil.copytree(ROOT / "hvbench", tmp_path / "copy" / "hvbench", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def edit(package: Path, name: str, old: str, new: str) -> None:
    path = package / "hvbench" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edited_helper_never_gives_a_stale_answer(package: Path, tmp_path: Path) -> None:
    cache = {"HVBENCH_CACHE_DIR": str(tmp_path / "cache")}
    first, _ = probe(package, **cache)
    second, _ = probe(package, **cache)
    assert first["answer"] == second["answer"] == first["plain"]
    assert (first["hits"], second["hits"]) == (0, 1), "the second process loads what the first one compiled"
    edit(package, "kernel/histogram.py", "return max(value_ns, 0)", "return max(value_ns, 0) + 5")
    edit(package, "kernel/histogram.py", "& (SUB - 1))", "& (SUB - 1)) + 7")
    third, _ = probe(package, **cache)
    assert third["hits"] == 0
    assert third["answer"] == third["plain"] == first["answer"] + 7
    assert third["digest"] != first["digest"]
    edit(package, "kernel/histogram.py", "& (SUB - 1)) + 7", "& (SUB - 1))")
    edit(package, "kernel/histogram.py", "return max(value_ns, 0) + 5", "return max(value_ns, 0)")
    fourth, _ = probe(package, **cache)
    assert (fourth["answer"], fourth["digest"], fourth["hits"]) == (first["answer"], first["digest"], 1)


DIGESTS = """
import sys
from pathlib import Path
from hvbench import jit

root = Path(jit.__file__).parent
print(jit.kernel_digest())
for name in sys.argv[1:]:
    path = root / name
    path.write_text((path.read_text() if path.exists() else "") + "\\n# changed\\n")
    jit.kernel_digest.cache_clear()
    print(jit.kernel_digest())
"""


def test_the_digest_sees_every_source_that_is_compiled(package: Path) -> None:
    sources = ["kernel/memory.py", "kernel/loop.py", "state/records.py", "state/native.py", "jit.py", "policy.py",
               "hookspecs.py", "binding.py", "traces/format.py", "kernel/quite_new.py"]  # fmt: skip
    printed = subprocess.run(
        [sys.executable, "-B", "-c", DIGESTS, *sources],
        check=True,
        capture_output=True,
        text=True,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
    ).stdout.split()
    assert len(set(printed)) == len(sources) + 1


def test_the_digest_covers_whatever_the_kernel_imports() -> None:
    """No compiled function comes from a module of hvbench that the digest does not read; importers have their own."""
    from hvbench import jit
    from hvbench.binding import COMPILED  # noqa: F401  (imports the kernel)

    covered = jit._KERNEL_SOURCES
    for function in [*jit._MARKED, *(f for f, _ in jit._DUALS)]:
        file = Path(function.__code__.co_filename)
        if file.is_relative_to(ROOT / "hvbench"):
            name = file.relative_to(ROOT / "hvbench").as_posix()
            if file.parent == ROOT / "hvbench" / "traces" / "importers":
                continue  # hvbench.traces.importers.compiled reads all of that folder
            if file.parent == ROOT / "hvbench" / "fidelity" / "policies":
                continue  # policies are told apart by their own digests
            assert any(name == c or name.startswith(c + "/") for c in covered), name


def test_nothing_writable_falls_back_to_a_temporary_folder_with_a_note(package: Path, tmp_path: Path) -> None:
    """A file stands where the folders should be, so that not even root can make them."""
    wall = tmp_path / "wall"
    wall.write_text("")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    places = {"HVBENCH_CACHE_DIR": str(wall / "cache"), "HOME": str(wall / "home"), "TMPDIR": str(scratch)}
    first, note = probe(package, **places)
    assert Path(first["root"]).is_relative_to(scratch)
    assert first["answer"] == first["plain"]
    assert note.count("\n") == 1, note
    assert str(wall / "cache") in note and first["root"] in note and "HVBENCH_CACHE_DIR" in note
    second, _ = probe(package, **places)
    assert second["hits"] == 1


def test_the_users_cache_folder_is_the_default(package: Path, tmp_path: Path) -> None:
    home, _ = probe(package, HOME=str(tmp_path / "home"))
    assert home["root"] == str(tmp_path / "home" / ".cache" / "hvbench")
    xdg, _ = probe(package, HOME=str(tmp_path / "home"), XDG_CACHE_HOME=str(tmp_path / "xdg"))
    assert xdg["root"] == str(tmp_path / "xdg" / "hvbench")


def test_other_peoples_numba_is_left_alone(package: Path, tmp_path: Path) -> None:
    found, _ = probe(package, HVBENCH_CACHE_DIR=str(tmp_path / "cache"))
    assert found["config"] == {}
    assert found["environment"]
    assert not list(package.rglob("*.nbi")) and not list(package.rglob("__pycache__"))
