"""The kit's own account, its documentation, and what `hvbench check` does with policies that hang or die."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from hvbench.axes import AXES
from hvbench.cli import execute
from hvbench.plugins import Registry
from hvbench.testing.checks import Check, NotApplicable, Outcome, Status, Violated, perform
from hvbench.testing.claims import CLAIMS
from hvbench.testing.document import generated
from hvbench.testing.kit import Report, check_policy, known_checks
from hvbench.testing.lab import Lab
from hvbench.testing.subject import subject_of

ROOT = Path(__file__).resolve().parent.parent.parent
RR = ROOT / "plugins" / "scheduler" / "round_robin.py"


def test_the_page_lists_every_claim_and_every_check() -> None:
    assert generated() in (ROOT / "docs" / "check.md").read_text()


@pytest.mark.parametrize("axis", AXES)
def test_every_claim_has_a_check_and_every_check_a_claim_that_exists(axis: str) -> None:
    assert {c.claim for c in known_checks(axis) if c.claim} == set(CLAIMS[axis])


def outcome(function: object, claim: str = "", expected: str | None = None) -> Outcome:
    made = Check("made", ("scheduler",), "a title", "how", function, claim)  # type: ignore[arg-type]
    return perform(made, Lab(subject_of(Registry().load_file(RR))), expected)


def fails(lab: Lab) -> str:
    raise Violated("it is wrong", ["a story"])


def passes(lab: Lab) -> str:
    return "fine"


def breaks(lab: Lab) -> str:
    return str(1 // 0)


def has_nothing(lab: Lab) -> str:
    raise NotApplicable("nothing there")


@pytest.mark.parametrize(
    ("function", "claim", "expected", "status"),
    [
        (passes, "", None, Status.PASS),
        (fails, "", None, Status.FAIL),
        (breaks, "", None, Status.ERROR),
        (breaks, "", "known", Status.ERROR),
        (has_nothing, "", None, Status.NOT_APPLICABLE),
        (fails, "caps", None, Status.NOT_CLAIMED),
        (passes, "caps", None, Status.NOT_CLAIMED),
        (breaks, "caps", None, Status.ERROR),
        (fails, "work-conserving", None, Status.FAIL),
        (fails, "", "known", Status.EXPECTED_FAILURE),
        (passes, "", "known", Status.UNEXPECTED_PASS),
    ],
)
def test_statuses(function: object, claim: str, expected: str | None, status: Status) -> None:
    assert outcome(function, claim, expected).status is status


def test_a_lost_check_is_noticed(kernel: object) -> None:
    report: Report = check_policy(Registry().load_file(RR), effort="quick", only=["claims-known", "no-vms"])
    assert report.good and report.known == 2 and report.ran == 2
    lost = attrs.evolve(report, outcomes=report.outcomes[:1])
    assert not lost.whole and not lost.good and "1 checks are UNACCOUNTED FOR" in lost.summary()
    twice = attrs.evolve(report, outcomes=(report.outcomes[0],) * 2)
    assert not twice.whole


HANGS = '''"""Hangs."""
from hvbench.policy import hookimpl, runq_first


@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    while now > 10:
        pass
    return runq_first(host), 1_000_000
'''


def test_a_hook_that_hangs_costs_one_check_and_is_named(
    tmp_path: Path, kernel: object, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    policy, report = str(tmp_path / "hangs.py"), tmp_path / "report.json"
    only = "claims-known,legal"
    assert execute(["check", policy, "--quick", "--limit", "1", "--only", only, "-o", str(report)]) == 1
    assert "a hook did not return within 1 s (at hangs.py:7 in sched_pick_next)" in capfd.readouterr().out
    found = json.loads(report.read_text())["reports"][0]
    assert (found["known"], found["ran"], found["passed"]) == (2, 2, 1)


def test_a_file_that_ends_the_process_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ends.py").write_text('"""Ends."""\nimport os\nos._exit(4)\n')
    assert execute(["check", str(tmp_path / "ends.py"), "--quick"]) == 2
    said = capfd.readouterr().err
    assert said.endswith("it ends the process, with os._exit(4); a policy file only defines things (line 3)\n")


def test_a_file_that_does_not_come_to_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hvbench import guarded_import
    from hvbench.errors import UserError

    monkeypatch.setattr(guarded_import, "LIMIT_S", 0.3)
    (tmp_path / "loops.py").write_text('"""Loops."""\nwhile True:\n    pass\n')
    with pytest.raises(UserError, match=r"did not come to an end within 0.3 s.*\(line [23]\)"):
        Registry().load_file(tmp_path / "loops.py")


@pytest.mark.parametrize("effort", ["--quick", "--thorough"])
def test_a_report_is_printed_written_and_kept(
    tmp_path: Path, kernel: object, capfd: pytest.CaptureFixture[str], effort: str
) -> None:
    import sqlite3

    out, db = tmp_path / "report.json", tmp_path / "kept.db"
    command = [
        "check",
        "round-robin",
        effort,
        "--only",
        "claims-known,no-vms",
        "--json",
        "-o",
        str(out),
        "--db",
        str(db),
    ]
    assert execute(command) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == json.loads(out.read_text())
    report = printed["reports"][0]
    assert (report["policy"], report["effort"], report["known"]) == ("round-robin", effort[2:], 2)
    with sqlite3.connect(db) as kept:
        row = kept.execute("SELECT axis, policy, effort, known, passed, good FROM conformance").fetchall()
    assert row == [("scheduler", "round-robin", effort[2:], 2, 2, 1)]


def test_hypothesis_invents_hosts_where_it_is_thorough(monkeypatch: pytest.MonkeyPatch, kernel: object) -> None:
    from hvbench.testing import lab as labs

    few = attrs.evolve(labs.THOROUGH, stories=3, shorten_s=0.5)
    monkeypatch.setattr(labs, "THOROUGH", few)
    policy = Registry().load_file(RR)
    tried: list[object] = []

    def fails_on_invented(story: object) -> str:
        tried.append(story)
        return "" if len(tried) <= 3 else "it fails"

    with pytest.raises(Violated, match="it fails"):
        Lab(subject_of(policy), few).explore(fails_on_invented, 3)
