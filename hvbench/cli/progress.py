"""A progress bar over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvbench.store import Row


class Progress:
    """A bar with cells done, rate and time left; nothing where standard error is no terminal."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="cell", disable=None, smoothing=0.1, leave=False)

    def __enter__(self) -> Progress:
        return self

    def more(self, cells: int) -> None:
        """There is more to do than was known."""
        self._bar.total = (self._bar.total or 0) + cells
        self._bar.refresh()

    def step(self, row: Row) -> None:
        self._bar.set_postfix_str(row.workload, refresh=False)
        self._bar.update()

    def __exit__(self, *_: object) -> None:
        self._bar.close()
