"""Tables in any format that tabulate knows."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate, tabulate_formats

from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

DEFAULT_FORMAT = "simple"


def check_format(name: str) -> str:
    """A format that tabulate knows; UserError with the nearest names."""
    if name not in tabulate_formats:
        raise UserError(f"no table format {name!r}{did_you_mean(name, tabulate_formats, always=True)}")
    return name


def draw(headers: Sequence[str], rows: Sequence[Sequence[str]], fmt: str) -> str:
    """A table; numbers to the right."""
    align = tuple(
        "right" if any(row[i] for row in rows) and all(_is_number(row[i]) for row in rows if row[i]) else "left"
        for i in range(len(headers))
    )
    return tabulate(rows, headers=headers, tablefmt=fmt, disable_numparse=True, colalign=align if rows else None)


def _is_number(text: str) -> bool:
    if text == "…":
        return True
    try:
        float(text.removesuffix(" %").removeprefix("×"))
    except ValueError:
        return False
    return True
