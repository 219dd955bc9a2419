"""The small commands, and that the program starts quickly."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hvbench import cli, plugins
from tests.cli.conftest import POLICIES, Outcome

Run = Callable[..., Outcome]


def test_every_command_has_help_that_says_what_it_does(hvbench: Run) -> None:
    listed = hvbench("--help").out
    for name in cli.COMMANDS:
        if (Path(cli.__file__).parent / f"{name}.py").exists():
            assert f"\n  {name} " in listed
            helped = hvbench(name, "--help")
            assert helped.code == 0 and f"Usage: hvbench {name}" in helped.out


@pytest.mark.parametrize("args", [["--help"], ["plugins"], ["matrix", "--help"], ["--version"]])
def test_starting_imports_neither_numba_nor_what_is_not_asked_for(args: list[str]) -> None:
    code = (
        "import sys\nfrom hvbench import cli\ncli.execute(sys.argv[1:])\n"
        "heavy = {'numba', 'pyarrow', 'hvbench.cli.results', 'hvbench.simulate'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_an_unknown_command_is_bad_input(hvbench: Run) -> None:
    ran = hvbench("matrx")
    assert ran.code == 2 and "no command 'matrx'" in ran.err and ran.err.count("\n") == 1


def test_a_misspelt_command_names_the_nearest(hvbench: Run) -> None:
    ran = hvbench("matrx")
    assert ran.code == 2 and "no command 'matrx'; did you mean matrix" in ran.err
    assert "did you mean" not in hvbench("qqqq").err


def test_output_that_cannot_be_written_is_refused_before_anything_runs(hvbench: Run) -> None:
    for option in ("-o", "--db"):
        ran = hvbench("check", "credit", option, "/nonexist/x.json")
        assert ran.code == 2 and ran.out == ""
        assert ran.err == "hvbench: /nonexist/x.json: the folder /nonexist does not exist\n"


def test_a_slowdown_of_nan_is_no_limit(hvbench: Run) -> None:
    ran = hvbench("density", "build", "--limit-slowdown", "nan")
    assert ran.code == 2 and "nan is not a number" in ran.err


def test_policies_are_listed_by_axis(hvbench: Run) -> None:
    ran = hvbench("plugins")
    assert ran.code == 0
    rows = {tuple(line.split()[:2]) for line in ran.out.splitlines()}
    assert max(map(len, ran.out.splitlines())) <= 120
    assert {(axis, name) for axis, names in POLICIES.items() for name in names} <= rows


def test_a_policy_is_described_with_its_parameters(hvbench: Run) -> None:
    ran = hvbench("plugins", "credit")
    assert ran.code == 0
    for words in ("scheduler credit", "effect", "slowdown in percent", "wall time that the cell takes", "0ns"):
        assert words in ran.out
    assert hvbench("plugins", "scheduler.credit").out == ran.out
    unknown = hvbench("plugins", "credti")
    assert unknown.code == 2 and "did you mean credit" in unknown.err


def test_a_broken_plugin_is_named(hvbench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [*plugins.entry_points(group="hvbench"), EntryPoint("scheduler.broken", "fake_broken", "hvbench")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    ran = hvbench("plugins")
    assert ran.code == 1
    assert "scheduler.broken did not load" in ran.err and "nonsense_module" in ran.err
    assert "round-robin" in ran.out


def test_a_workload_is_described_with_the_sources_of_its_defaults(hvbench: Run) -> None:
    ran = hvbench("workloads", "./fake.toml")
    assert ran.code == 0
    for words in ("disk.bandwidth", "4Gbit/s", "Intel SSD DC S3500", "vm vm:", "weight", "Xen credit scheduler"):
        assert words in ran.out
    assert hvbench("workloads", "./gone.toml").code == 2


def test_the_version_names_what_results_depend_on(hvbench: Run) -> None:
    import hvbench as package

    assert hvbench("version").out == f"hvbench {package.__version__}\n"
    verbose = hvbench("version", "--verbose").out
    for words in ("sources ", "python ", "numba ", "cache ", "mode "):
        assert words in verbose


def test_the_cache_is_cleared(hvbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hvbench import jit

    monkeypatch.setenv("HVBENCH_CACHE_DIR", str(tmp_path / "cache"))
    jit.cache_root.cache_clear()
    try:
        (tmp_path / "cache" / "code-x").mkdir(parents=True)
        (tmp_path / "cache" / "code-x" / "a.nbc").write_bytes(b"x" * 8192)
        ran = hvbench("cache", "clear")
        assert ran.code == 0 and "8KiB freed" in ran.out
        assert not (tmp_path / "cache" / "code-x").exists()
    finally:
        jit.cache_root.cache_clear()


def test_a_reader_that_closes_early_is_no_error() -> None:
    code = "from hvbench import cli; raise SystemExit(cli.execute(['plugins']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1) and b"Traceback" not in error
