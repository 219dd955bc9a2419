"""`hvbench.evaluate`: a score, the same bits each time, and everything that can be wrong with a candidate as data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench import Evaluator, Limits, evaluate
from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.evaluation import KINDS
from tests.builders import ROOT

HEAD = "from hvbench.policy import hookimpl, runq_first, runq_next\n\n\n@hookimpl\n"
GOOD = HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    return runq_first(host), 2_000_000\n"


@pytest.fixture(scope="module")
def judge() -> Iterator[Evaluator]:
    with Evaluator() as made:
        yield made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("evaluate") / "tiny.toml"
    trace = ROOT / "workloads" / "traces" / "zstd-compress.parquet"
    path.write_text(
        'format = 1\n[workload]\nname = "tiny"\nclass = "micro"\nhorizon = "60ms"\nwarmup = "2ms"\n'
        f'[host]\npcpus = 1\nmemory = "1GiB"\n[[vm]]\nname = "a"\ncount = 2\nmemory = "64MiB"\ntrace = "{trace}"\n'
        'image = ""\n'
    )
    return str(path)


def test_the_score_is_the_mean_slowdown_to_the_last_bit(judge: Evaluator, tiny: str) -> None:
    first = judge.evaluate(GOOD, [tiny], seeds=(1, 2))
    second = judge.evaluate(GOOD, [tiny], seeds=(1, 2))
    assert first.ok and first.axis == "scheduler" and len(first.cells) == 2
    slowdowns = [cell.metrics["slowdown_geomean"] for cell in first.cells]
    assert first.score == pytest.approx((slowdowns[0] * slowdowns[1]) ** 0.5)
    assert (first.score, first.cells) == (second.score, second.cells)


def test_files_names_and_parameters_are_candidates_too(judge: Evaluator, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    from_file = judge.evaluate(tmp_path / "mine.py", [tiny])
    assert from_file.score == judge.evaluate(GOOD, [tiny]).score
    short = judge.evaluate("round-robin:timeslice=1ms", [tiny])
    long = judge.evaluate("round-robin:timeslice=30ms", [tiny])
    assert short.ok and long.ok and short.score != long.score
    stacked = judge.evaluate("balloon", [tiny], stack="{}+overcommit")
    assert stacked.ok and stacked.candidate == "balloon+overcommit"


BAD = {
    "load-syntax": ("load", "def f(:\n    pass\n", 1, ""),
    "load-import": ("load", "import nonsense_module\n\n", 1, ""),
    "load-hook": ("load", GOOD.replace("sched_pick_next", "sched_pick_nxt"), 0, ""),
    "load-exits": ("load", "import os\nos._exit(3)\n", 2, ""),
    "load-crashes": ("died", "import os\nos.kill(os.getpid(), 9)\n", 0, ""),
    "load-loops": ("hung", "while True:\n    pass\n", 0, ""),
    "steps": (
        "steps",
        HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    while True:\n        pass\n    return 0, 1\n",
        6,
        "sched_pick_next",
    ),
    "exception": (
        "exception",
        HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    x = now - now\n    return runq_first(host), 5 // x\n",
        7,
        "sched_pick_next",
    ),
    "late-exception": (
        "exception",
        HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    if now > 40_000_000:\n"
        "        return runq_first(host), 5 // (now - now)\n    return runq_first(host), 10_000\n",
        7,
        "sched_pick_next",
    ),
    "illegal": (
        "illegal",
        HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    return 99, 1_000\n",
        5,
        "sched_pick_next",
    ),
    "compile": (
        "compile",
        HEAD + "def sched_pick_next(host, pcpu, prev, now):\n    if now > 3600_000_000_000:\n"
        "        host.vcpu[0].ran_ns = 5\n    return runq_first(host), 1_000_000\n",
        7,
        "sched_pick_next",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_comes_back_as_data(judge: Evaluator, tiny: str, name: str) -> None:
    kind, source, line, hook = BAD[name]
    limits = Limits(load_s=2, hook_s=5, hook_steps=10_000, probe_events=200)
    result = judge.evaluate(source, [tiny], limits=limits)
    assert not result.ok and result.score is None
    (problem,) = result.problems
    assert (problem.kind, problem.hook) == (kind, hook), problem
    assert not line or problem.line in (line - 1, line), problem
    assert problem.message and "/tmp" not in problem.message
    json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert problem.kind in KINDS


def test_what_numba_cannot_compile_runs_as_plain_python_and_says_so(judge: Evaluator, tiny: str) -> None:
    source = HEAD + (
        "def sched_pick_next(host, pcpu, prev, now):\n    turns = sum(n for n in range(3))\n"
        "    return runq_first(host), turns * 1_000_000\n"
    )
    result = judge.evaluate(source, [tiny])
    assert result.ok and result.score is not None
    (note,) = [note for note in result.cells[0].notes if "cannot be compiled" in note]
    assert "sched_pick_next" in note and "plain Python" in note and "line 6" in note.replace(":6", "line 6"), note
    assert "/tmp" not in note


def test_a_hook_that_hangs_beyond_the_probe_is_hung(judge: Evaluator, tiny: str) -> None:
    source = HEAD + (
        "def sched_pick_next(host, pcpu, prev, now):\n    n = 0\n    while now > 30_000_000:\n"
        "        n += now & 1\n    return runq_first(host), 2_000_000 + n\n"
    )
    result = judge.evaluate(source, [tiny], limits=Limits(hook_s=2, probe_events=0))
    (problem,) = result.problems
    assert problem.kind == "hung" and "a hook did not return within 2 s" in problem.message
    assert problem.workload == "tiny" and problem.seed == 1
    assert judge.evaluate(GOOD, [tiny]).ok, "the next candidate has a process again"


def test_a_parameter_out_of_its_range(judge: Evaluator, tiny: str) -> None:
    for text in ("credit:timeslice=-1ms", "credit:timeslize=1ms", "credit:timeslice"):
        (problem,) = judge.evaluate(text, [tiny]).problems
        assert problem.kind == "parameter", problem


def test_a_wrong_question_is_the_callers_error(judge: Evaluator, tiny: str) -> None:
    with pytest.raises(UserError, match="no bundled workload"):
        judge.evaluate(GOOD, ["nosuch"])
    with pytest.raises(UserError, match="is no axis"):
        judge.evaluate(GOOD, [tiny], choices={"cpu": "x"})
    with pytest.raises(UserError, match="at least one of each"):
        judge.evaluate(GOOD, [])
    with pytest.raises(UserError, match=r"must have one \{\}"):
        judge.evaluate("balloon", [tiny], stack="overcommit")
    with pytest.raises(UserError, match="the candidate credit is a scheduler policy itself: leave out"):
        judge.evaluate("credit", [tiny], choices={"scheduler": "null"})
    with pytest.raises(ValueError, match="hook_s"):
        Limits(hook_s=0)


def test_the_command_gives_the_same_as_json(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    assert execute(["evaluate", str(tmp_path / "mine.py"), "--workloads", tiny, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["score"] == evaluate(tmp_path / "mine.py", [tiny]).score
    (tmp_path / "bad.py").write_text(BAD["illegal"][1])
    assert execute(["evaluate", str(tmp_path / "bad.py"), "--workloads", tiny]) == 1
    assert "illegal, line" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ("./nosuch.py", "nosuch.py: no such policy file"),
        ("credit:timeslice=5", "timeslice: 5 has no unit"),
        ("credti", "no policy 'credti'; did you mean credit"),
    ],
)
def test_a_candidate_that_is_none_is_bad_input(
    candidate: str, said: str, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["evaluate", candidate, "--workloads", tiny]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and said in shown.err
