"""Policies tracked by pytest-benchmark: what a user of the plugin writes, runs and sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.testing.tracking import clock_s
from tests.builders import ROOT

pytest_plugins = ["pytester"]

WORKLOAD = f"""
format = 1
[workload]
name = "tiny"
class = "micro"
horizon = "60ms"
warmup = "2ms"
[host]
pcpus = 1
memory = "1GiB"
[[vm]]
name = "a"
count = 2
memory = "64MiB"
trace = "{ROOT / "workloads" / "traces" / "zstd-compress.parquet"}"
image = ""
"""
POLICY = '''"""Arrival order."""

from hvbench.policy import hookimpl, runq_first


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    return runq_first(host), SLICE_NS
'''
TEST = """
import pytest


@pytest.mark.hvbench(workload="./tiny.toml", scheduler=["round-robin", "./mine.py"], track=TRACK)
def test_tiny(hvbench_benchmark):
    assert hvbench_benchmark().status == "ok"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, kernel: object) -> pytest.Pytester:
    """A project of an author. Its tests run in this process: what they import is forgotten after each run, which Numba
    cannot bear, so that all of it is imported before."""
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()
    (pytester.path / "tiny.toml").write_text(WORKLOAD)
    write_policy(pytester, 2_000_000)
    write_test(pytester, '["slowdown_geomean", "wakeup_latency_p99_ns"]')
    return pytester


def write_policy(pytester: pytest.Pytester, slice_ns: int) -> None:
    (pytester.path / "mine.py").write_text(POLICY.replace("SLICE_NS", str(slice_ns)))


def write_test(pytester: pytest.Pytester, track: str = '["slowdown_geomean"]') -> None:
    (pytester.path / "test_mine.py").write_text(TEST.replace("TRACK", track))


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def stored(pytester: pytest.Pytester, name: str = "out.json") -> dict[str, dict]:
    content = json.loads((pytester.path / name).read_text())
    return {entry["name"]: entry for entry in content["benchmarks"]}


def test_a_matrix_of_cells_on_the_virtual_clock(project: pytest.Pytester) -> None:
    ran = run(project, "--benchmark-json=out.json")
    ran.assert_outcomes(passed=4)
    found = stored(project)
    assert set(found) == {
        f"test_tiny[._tiny.toml-{policy}-{metric}]"
        for policy in ("round-robin", "._mine.py")
        for metric in ("slowdown_geomean", "wakeup_latency_p99_ns")
    }
    for entry in found.values():
        extra = entry["extra_info"]
        value = extra["metrics"][extra["tracked"]]
        assert entry["stats"]["mean"] == entry["stats"]["min"] == clock_s(extra["tracked"], value)
        assert entry["stats"]["rounds"] == 1 and extra["clock"] == "virtual"
        assert extra["workload"] == "tiny" and extra["memory"] == "static" and extra["status"] == "ok"
        assert "memory address" not in str(entry["options"]) and " at 0x" not in str(entry["options"])
    again = run(project, "--benchmark-json=again.json")
    again.assert_outcomes(passed=4)
    assert {n: e["stats"]["mean"] for n, e in found.items()} == {
        n: e["stats"]["mean"] for n, e in stored(project, "again.json").items()
    }


def test_a_policy_that_becomes_worse_fails_the_comparison(project: pytest.Pytester) -> None:
    write_test(project)
    run(project, "--benchmark-json=base.json").assert_outcomes(passed=2)
    same = run(project, "--benchmark-compare=base.json", "--benchmark-compare-fail=mean:1%")
    assert same.ret == 0
    write_policy(project, 20_000)
    worse = run(project, "--benchmark-compare=base.json", "--benchmark-compare-fail=mean:1%")
    assert worse.ret != 0
    assert "Performance has regressed" in worse.stdout.str() + worse.stderr.str()


def test_the_gate_guards_any_metric(project: pytest.Pytester) -> None:
    write_test(project)
    run(project, "--benchmark-json=base.json").assert_outcomes(passed=2)
    rules = ("--metric-baseline=base.json", "--metric-fail=context_switches:+5%", "--metric-fail=migrations:=0")
    fine = run(project, *rules)
    assert fine.ret == 0
    fine.stdout.fnmatch_lines(["*metrics: context_switches:+5%, migrations:=0*", "no rule is broken"])
    write_policy(project, 200_000)
    broken = run(project, *rules)
    assert broken.ret == 1
    broken.stdout.fnmatch_lines(["*mine.py*context_switches*breaks context_switches:+5%"])
    assert not [line for line in broken.stdout.lines if "round-robin" in line and "breaks" in line]


def test_vanished_and_new_cells_are_reported(project: pytest.Pytester) -> None:
    write_test(project)
    run(project, "--benchmark-json=base.json").assert_outcomes(passed=2)
    gate = ("--metric-baseline=base.json", "--metric-fail=context_switches:+5%")
    fewer = run(project, *gate, "-k", "not robin")
    assert fewer.ret == 1
    fewer.stdout.fnmatch_lines(["vanished: *round-robin*"])
    assert run(project, *gate, "-k", "not robin", "--metric-vanished-ok").ret == 0
    text = (project.path / "test_mine.py").read_text()
    (project.path / "test_mine.py").write_text(text.replace('"round-robin"', '"round-robin", "credit"'))
    more = run(project, *gate)
    assert more.ret == 0
    more.stdout.fnmatch_lines(["new: *credit*"])


def test_a_gate_without_a_baseline_fails(project: pytest.Pytester) -> None:
    write_test(project)
    ran = run(project, "--metric-fail=context_switches:+5%")
    assert ran.ret == 1
    ran.stdout.fnmatch_lines(["*nothing to compare with*"])


def test_an_illegal_policy_fails_its_own_tests_only(project: pytest.Pytester) -> None:
    write_test(project)
    (project.path / "mine.py").write_text(POLICY.replace("runq_first(host), SLICE_NS", "99, 1"))
    ran = run(project)
    ran.assert_outcomes(passed=1, errors=1)
    ran.stdout.fnmatch_lines(["*failed: mine: sched_pick_next at 0 ns answered 99*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('workload="tiny", scheduller="credit"', "no 'scheduller'; did you mean scheduler"),
        ('scheduler="credit"', "workload= is missing"),
        ('workload="build", track="fairness_jain"', "fairness_jain is no time of which less is better"),
        ('workload="build", track="slowdown"', "no metric 'slowdown'"),
    ],
)
def test_markers_that_are_wrong(project: pytest.Pytester, marker: str, said: str) -> None:
    (project.path / "test_mine.py").write_text(
        f"import pytest\n\n@pytest.mark.hvbench({marker})\ndef test_x(hvbench_benchmark):\n    hvbench_benchmark()\n"
    )
    ran = run(project)
    assert ran.ret != 0
    assert said in ran.stdout.str() + ran.stderr.str()


def test_without_benchmarks_each_cell_runs_as_a_test(project: pytest.Pytester) -> None:
    write_test(project)
    run(project, "--benchmark-disable").assert_outcomes(passed=2)


def test_cells_are_kept_in_a_results_file(project: pytest.Pytester) -> None:
    write_test(project)
    run(project, "--hvbench-db=kept.db").assert_outcomes(passed=2)
    assert Path(project.path / "kept.db").exists()
    from hvbench.store import Store

    with Store(project.path / "kept.db") as store:
        assert len(store.run_rows()) == 2
