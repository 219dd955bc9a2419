"""Verdicts as a table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hvbench.drawing import draw
from hvbench.fidelity.bars import Bar, Verdict
from hvbench.fidelity.numbers import of_bar, sources
from hvbench.fidelity.run import Outcome, Task, refused

HEADERS = ("bar", "what", "published", "simulated", "tolerance", "verdict", "source")


def number_text(value: float | None) -> str:
    """A number with the digits that matter."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def table(verdicts: Sequence[Verdict], fmt: str) -> str:
    """One row a target."""
    rows = [
        [
            v.bar,
            v.number.what,
            f"{number_text(v.number.value)} {v.number.unit}".strip(),
            f"{number_text(v.simulated)} {v.number.unit}".strip() if v.simulated is not None else "",
            str(v.number.tolerance),
            v.word,
            f"{v.number.source} [{v.number.mark}]",
        ]
        for v in verdicts
    ]
    return draw(HEADERS, rows, fmt)


def reasons(verdicts: Sequence[Verdict]) -> list[str]:
    """Why a target is red or was not run, equal reasons together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for v in verdicts:
        if not v.green:
            grouped.setdefault((f"{v.bar} {v.word}", v.reason), []).append(v.number.what)
    return [f"{who}: {reason}. It concerns: {'; '.join(what)}." for (who, reason), what in grouped.items()]


def bars_report(bars: Sequence[Bar], outcome: Outcome, fmt: str) -> str:
    """What the command prints."""
    verdicts = [v for bar in bars for v in outcome.verdicts.get(Task(bar), [])]
    parts = [table(verdicts, fmt)]
    red = reasons(verdicts)
    if red:
        parts.append("Not met:\n" + "\n".join(f"- {line}" for line in red))
    notes = [f"- {bar.name}: {note}" for bar in bars if Task(bar) in outcome.verdicts for note in bar.notes]
    if notes:
        parts.append("Notes:\n" + "\n".join(notes))
    used = sorted({v.number.source.split()[0] for v in verdicts} & set(sources()))
    parts.append("Sources:\n" + "\n".join(f"- {name}: {sources()[name]}" for name in used))
    green = sum(v.green for v in verdicts)
    parts.append(f"{green} of {len(verdicts)} targets met.")
    return "\n\n".join(parts)


def controls_report(bars: Sequence[Bar], outcome: Outcome, fmt: str) -> str:
    """What the command prints of wrong models: each has to miss its targets."""
    rows, said = [], []
    for bar in bars:
        for name, control in bar.controls.items():
            task = Task(bar, name)
            verdicts = outcome.verdicts.get(task, [])
            passed = refused(task, verdicts)
            missed = sum(not v.green for v in verdicts)
            word = "refused" if not passed else "PASSES"
            rows.append([bar.name, name, control.why, f"{missed} of {len(verdicts)}", word])
            for v in verdicts:
                if v.number.id[len(bar.name) + 1 :] in passed:
                    what = "could not be run" if v.simulated is None else f"gives {number_text(v.simulated)}"
                    said.append(f"- {bar.name} {name} {what} for {v.number.what}{': ' if v.reason else ''}{v.reason}")
    headers = ("bar", "wrong model", "what is wrong with it", "targets missed", "verdict")
    text = draw(headers, rows, fmt)
    return f"{text}\n\nA bar that a wrong model passes measures nothing:\n" + "\n".join(said) if said else text


def as_json(bars: Sequence[Bar], outcome: Outcome) -> str:
    """Every verdict, of bars and controls, with its number."""
    found: list[dict[str, Any]] = []
    for task, verdicts in outcome.verdicts.items():
        for v in verdicts:
            found.append(
                {
                    "bar": v.bar,
                    "model": task.model or "as it is",
                    "target": v.number.id,
                    "what": v.number.what,
                    "published": v.number.value,
                    "simulated": v.simulated,
                    "unit": v.number.unit,
                    "tolerance": str(v.number.tolerance),
                    "verdict": v.word,
                    "source": v.number.source,
                    "mark": v.number.mark,
                    "reason": v.reason,
                }
            )
    return json.dumps(found, indent=1, ensure_ascii=False)


def bar_list(bars: Sequence[Bar], fmt: str) -> str:
    """The bars, their scenarios and how many targets they have."""
    rows = [
        [bar.name, bar.grade, bar.title, bar.scenario, str(len(of_bar(bar.name, "target"))), ", ".join(bar.controls)]
        for bar in bars
    ]
    return draw(("bar", "grade", "title", "scenario", "targets", "controls"), rows, fmt)
