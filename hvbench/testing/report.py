"""What the kit found, for people and for programs: a table, JSON, a results file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from hvbench.drawing import draw
from hvbench.errors import UserError
from hvbench.testing.checks import BAD, NOT_TRIED, Outcome, Status
from hvbench.testing.kit import Report
from hvbench.whole import written_whole

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conformance (
    id INTEGER PRIMARY KEY,
    finished_at REAL NOT NULL,
    axis TEXT NOT NULL,
    policy TEXT NOT NULL,
    digest TEXT NOT NULL,
    effort TEXT NOT NULL,
    known INTEGER NOT NULL,
    ran INTEGER NOT NULL,
    passed INTEGER NOT NULL,
    not_claimed INTEGER NOT NULL,
    not_applicable INTEGER NOT NULL,
    good INTEGER NOT NULL,
    report TEXT NOT NULL
)
"""


def text_of(report: Report, fmt: str = "simple", width: int = 110) -> str:
    """The table of checks, the stories of those that failed, and the account."""
    rows = [[o.check, o.status.value, o.claim, _cut(o.detail, width)] for o in report.outcomes]
    parts = [draw(["check", "status", "claim", "what was found"], rows, fmt)]
    shown = [o for o in report.outcomes if o.status in BAD or o.status is Status.EXPECTED_FAILURE]
    parts += [told(o) for o in shown if not o.detail.startswith(NOT_TRIED)]
    return "\n\n".join([*parts, report.summary()])


def told(outcome: Outcome) -> str:
    """A failed check: what it demands, what happened, and the story that shows it."""
    head = f"{outcome.check}: {outcome.status.value}: {outcome.title}"
    return "\n".join([head, f"  {outcome.detail}", *[f"    {line}" for line in outcome.story]])


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def json_of(reports: Sequence[Report]) -> str:
    """All reports as one JSON document."""
    return json.dumps({"reports": [report.record() for report in reports]}, indent=2)


def write_json(reports: Sequence[Report], path: Path) -> None:
    """Write the JSON document; a reader never sees half a file."""
    with written_whole(path) as temporary:
        temporary.write_text(json_of(reports) + "\n", encoding="utf-8")


def store(reports: Sequence[Report], path: Path) -> None:
    """Keep reports in a results file, beside the cells."""
    from hvbench.store import Store

    with Store(path):
        pass  # made if it is not there; refused if it is somebody else's
    try:
        db = sqlite3.connect(path, timeout=30)
        with db:
            db.execute(_SCHEMA)
            for report in reports:
                record = report.record()
                db.execute(
                    "INSERT INTO conformance (finished_at, axis, policy, digest, effort, known, ran, passed,"
                    " not_claimed, not_applicable, good, report) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        time.time(),
                        *[record[n] for n in ("axis", "policy", "digest", "effort", "known", "ran", "passed")],
                        *[record[n] for n in ("not_claimed", "not_applicable", "good")],
                        json.dumps(record),
                    ),
                )
        db.close()
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be written: {error}") from error
