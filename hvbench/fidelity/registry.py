"""All bars, by name."""

from __future__ import annotations

from collections.abc import Iterable

from hvbench.errors import UserError
from hvbench.fidelity import fb1, fb5, fb6, fb7, r1, r3, replay, two_vms
from hvbench.fidelity.bars import Bar
from hvbench.nearest import did_you_mean

BARS: dict[str, Bar] = {module.BAR.name: module.BAR for module in (fb1, fb5, fb6, fb7, r1, r3, replay, two_vms)}
"""In the order in which they are shown."""


def chosen(names: Iterable[str]) -> list[Bar]:
    """The bars of these names, in any case; all of them where none is named. Raises UserError."""
    wanted = [name.upper() for name in names]
    for name in wanted:
        if name not in BARS:
            raise UserError(f"no bar {name!r}{did_you_mean(name, list(BARS), always=True)}")
    return [bar for bar in BARS.values() if not wanted or bar.name in wanted]
