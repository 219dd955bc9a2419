"""docs/schedulers.md says of every bundled scheduler what the modules say themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvbench.honours import PROPERTIES
from hvbench.plugins import Registry

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in (ROOT / "plugins" / "scheduler").glob("*.py") if not path.stem.startswith("_"))
PAGE = (ROOT / "docs" / "schedulers.md").read_text(encoding="utf-8")


def tables() -> list[dict[str, list[str]]]:
    """The page's tables of a line a scheduler: its name -> the other cells, in the order of the page."""
    found: list[dict[str, list[str]]] = []
    ours = False
    for line in PAGE.splitlines():
        if line.startswith("| scheduler |") and line.count("scheduler") > 1:
            ours = False  # figures, two schedulers a line
        elif line.startswith("| scheduler |"):
            ours = True
            found.append({"": [cell.strip() for cell in line.strip("|").split("|")][1:]})
        elif ours and (row := re.match(r"\| `([a-z0-9-]+)` \|(.*)\|$", line)):
            found[-1][row[1]] = [cell.strip() for cell in row[2].split("|")]
    return found


def test_every_scheduler_stands_in_every_table() -> None:
    names = {Registry().load_file(path).name.removesuffix(".py") for path in FILES}
    assert len(tables()) == 3
    for table in tables():
        assert set(table) - {""} == names
        assert all(len(cells) == len(table[""]) for cells in table.values())


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_table_of_what_is_honoured_is_what_the_modules_say(path: Path) -> None:
    policy = Registry().load_file(path)
    table = tables()[2]
    assert table[""] == list(PROPERTIES)
    assert table[policy.name] == ["yes" if name in policy.honours else "" for name in PROPERTIES]
