"""`hvbench new`: projects that work as they are, on every axis; the policy itself is short."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hvbench.axes import AXES, DECISION_AXES
from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.plugins import Registry
from hvbench.scaffold import AXIS, create, files_of
from tests.builders import ROOT


@pytest.mark.parametrize("axis", AXES)
def test_the_policy_is_one_of_its_axis(axis: str, tmp_path: Path) -> None:
    made = create(axis, "my-policy", tmp_path / "my-policy")
    assert {path.relative_to(tmp_path / "my-policy").as_posix() for path in made} == set(files_of(axis, "my-policy"))
    policy = Registry().load_file(tmp_path / "my-policy" / "hvbench_my_policy.py")
    assert (policy.axis, policy.name) == (axis, "my-policy")
    assert policy.summary.startswith("My policy: ")


@pytest.mark.parametrize("axis", DECISION_AXES)
def test_a_working_policy_in_fifteen_lines(axis: str) -> None:
    text = next(iter(files_of(axis, "my-policy").values()))
    assert len(text.splitlines()) <= 15


@pytest.mark.parametrize("axis", AXES)
def test_the_package_names_it_for_hvbench(axis: str) -> None:
    made = files_of(axis, "my-policy")
    project = tomllib.loads(made["pyproject.toml"])
    assert project["project"]["entry-points"]["hvbench"] == {f"{axis}.my-policy": "hvbench_my_policy"}
    assert project["tool"]["setuptools"]["py-modules"] == ["hvbench_my_policy"]
    for text in made.values():
        assert "$name" not in text and "$module" not in text and "$axis" not in text


@pytest.mark.parametrize("axis", AXES)
def test_what_it_is_compared_with_is_bundled(axis: str) -> None:
    from hvbench.plugins import load_registry
    from hvbench.workload import bundled_names

    assert AXIS[axis].workload in bundled_names()
    assert load_registry().get(axis, AXIS[axis].reference)


def test_the_workflow_is_yaml_that_names_what_exists() -> None:
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(files_of("scheduler", "my-policy")[".github/workflows/hvbench.yml"])
    steps = workflow["jobs"]["compare"]["steps"]
    runs = " ".join(step.get("run", "") for step in steps)
    assert "hvbench compare old.json new.json --format github" in runs
    assert "exit $code" in runs, "a regression fails the job"
    assert workflow["env"]["NUMBA_CPU_NAME"] == "generic"


def test_the_page_shows_the_workflow_that_is_written() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    workflow = files_of("scheduler", "my-policy")[".github/workflows/hvbench.yml"]
    assert f"```yaml\n{workflow}```" in page


@pytest.mark.parametrize(
    ("axis", "name", "said"),
    [
        ("schedular", "x", "no axis 'schedular'; did you mean scheduler"),
        ("scheduler", "My Policy", "small letters and digits"),
        ("scheduler", "../evil", "small letters and digits"),
        ("scheduler", "", "small letters and digits"),
        ("scheduler", "import", "a word of Python"),
        ("scheduler", "credit", "'credit' is a scheduler policy of hvbench itself; choose another name, such as my-"),
    ],
)
def test_bad_names(axis: str, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        create(axis, name, tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"^/proc/x: cannot be written: "):
        create("scheduler", "my-p", Path("/proc/x"))


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["new", "scheduler", "mine"]) == 0
    assert execute(["new", "scheduler", "mine"]) == 2
    assert execute(["new", "memory", "mine", "--to", "there/is/none"]) == 2
    assert execute(["new", "scheduler", "mine", "--file-only"]) == 0
    assert execute(["new", "scheduler", "mine", "--file-only"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine.py"]


@pytest.mark.parametrize("axis", AXES)
def test_the_template_passes_the_kit(axis: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(next(iter(files_of(axis, "mine").values())))
    command = [sys.executable, "-m", "hvbench", "check", "./mine.py", "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
