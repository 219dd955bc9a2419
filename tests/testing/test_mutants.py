"""Broken copies of the bundled policies: the kit catches each by the name of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.axes import AXES, DECISION_AXES
from hvbench.plugins import Registry
from hvbench.testing import subject
from hvbench.testing.checks import Outcome, Status
from hvbench.testing.kit import check_policy, known_checks
from tests.testing.mutants import MUTANTS, RR, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
NEVER_FAILS = {"cost"}
"""Checks that report a figure and judge nothing."""
NO_POLICY_CAN = {"conservation": "the kernel's guards keep every policy from it; shown with a broken kernel below"}


def axis_of(mutant: Mutant) -> str:
    return mutant.file.split("/")[0]


def test_every_check_has_a_mutant() -> None:
    for axis in AXES:
        for check in known_checks(axis):
            caught = any(m.check == check.id and axis_of(m) in check.axes for m in MUTANTS.values())
            assert caught or check.id in NEVER_FAILS or check.id in NO_POLICY_CAN, f"{axis}: {check.id}"


def outcome_of(folder: Path, mutant: Mutant) -> Outcome:
    """The named check of a mutant, mostly in plain Python: it is used once."""
    source = (ROOT / "plugins" / f"{mutant.file}.py").read_text()
    for old, new in mutant.changes:
        assert old in source, f"{mutant.file} has no {old!r} any more"
        source = source.replace(old, new)
    if "runq_next" in source and "import" in source and mutant.file == RR:
        source = source.replace("import hookimpl", "import hookimpl, runq_next", 1)
    path = folder / f"{Path(mutant.file).name}_mutant.py"
    path.write_text(source + "\n\n" + mutant.more)
    policy = Registry().load_file(path)
    report = check_policy(policy, effort="quick", only=[mutant.check], compiles=mutant.compiles)
    return report.outcomes[0]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_name(tmp_path: Path, kernel: object, name: str) -> None:
    mutant = MUTANTS[name]
    outcome = outcome_of(tmp_path, mutant)
    assert outcome.status is Status.FAIL, outcome
    assert mutant.says in outcome.detail
    if axis_of(mutant) in DECISION_AXES and not mutant.check.startswith(("claims", "parameters")):
        assert outcome.story, "a failure shows the host on which it happened"


@pytest.mark.parametrize(
    ("file", "table", "column"),
    [
        (RR, "pcpu", "guest_ns"),
        ("memory/static", "machine", "free"),
        ("storage/das", "io", "completed"),
        ("switch/bridged", "io", "frames_sent"),
    ],
)
def test_a_kernel_that_counts_wrongly_is_caught(
    kernel: object, monkeypatch: pytest.MonkeyPatch, file: str, table: str, column: str
) -> None:
    """What no policy can do: the guards and the rights of hooks are in its way."""

    class Broken(subject.Loop):
        def run(self, limit: int) -> int:
            self.memory.tables[table][column][0] += 1
            return super().run(limit)

    monkeypatch.setattr(subject, "Loop", Broken)
    policy = Registry().load_file(ROOT / "plugins" / f"{file}.py")
    outcome = check_policy(policy, effort="quick", only=["conservation"], compiles=False).outcomes[0]
    assert outcome.status is Status.FAIL
    assert outcome.detail.startswith("a law of conservation is broken: AssertionError: ")


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS.values()}))
def test_what_is_not_mutated_passes_the_same_checks(tmp_path: Path, kernel: object, file: str) -> None:
    for mutant in MUTANTS.values():
        # what is not claimed is not judged: it holds, or the mutant only claims it
        whole = Mutant(file, (), mutant.check, compiles=mutant.compiles)
        if mutant.file == file:
            assert outcome_of(tmp_path, whole).status in (Status.PASS, Status.NOT_CLAIMED), mutant.check
