"""docs/fidelity.md shows the bars that there are: names, published values and verdicts; not the simulated digits."""

from __future__ import annotations

import re
from pathlib import Path

from hvbench.fidelity.numbers import of_bar
from hvbench.fidelity.registry import BARS
from hvbench.fidelity.report import HEADERS, number_text

PAGE = Path(__file__).parents[2] / "docs" / "fidelity.md"


def last_run() -> str:
    """What stands between the markers."""
    found = re.search(r"<!-- bars: begin -->\n(.*)<!-- bars: end -->", PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    return found.group(1)


def table() -> dict[tuple[str, str], dict[str, str]]:
    lines = [line for line in last_run().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(rows[0]) == HEADERS
    return {(row[0], row[1]): dict(zip(HEADERS, row, strict=True)) for row in rows[2:]}


def test_the_page_shows_every_target_and_no_other() -> None:
    shown = table()
    targets = {(bar, n.what): n for bar in BARS for n in of_bar(bar, "target").values()}
    assert set(shown) == set(targets)
    for key, number in targets.items():
        assert shown[key]["published"] == f"{number_text(number.value)} {number.unit}".strip(), key
        assert shown[key]["tolerance"] == str(number.tolerance), key
        assert shown[key]["source"] == f"{number.source} [{number.mark}]", key


def test_what_is_red_on_the_page_is_what_has_a_reason() -> None:
    shown = table()
    for bar in BARS.values():
        for name, number in of_bar(bar.name, "target").items():
            verdict = shown[bar.name, number.what]["verdict"]
            assert verdict == ("RED" if name in bar.reasons else "green"), number.id
        for reason in bar.reasons.values():
            assert reason in last_run(), bar.name
        for note in bar.notes:
            assert note in last_run(), bar.name
