"""Where a workload's numbers come from: a seeded generator, or hypothesis. One generator of workloads serves both."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Dice(Protocol):
    """A source of decisions."""

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""


class SeededDice:
    """Decisions from a seed: the same in every process."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def pick(self, items: Sequence[T]) -> T:
        return items[self._random.randrange(len(items))]


class DrawnDice:
    """Decisions that hypothesis makes, and makes simpler when it shrinks; `draw` is that of a composite strategy."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        from hypothesis import strategies

        self._draw = draw
        self._strategies = strategies

    def integer(self, low: int, high: int) -> int:
        return int(self._draw(self._strategies.integers(low, high)))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.integer(0, len(items) - 1)]
