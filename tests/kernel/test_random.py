"""The random service: the same on every machine, and without a pattern between draws, seeds or axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import numba
import pytest

from hvbench import jit
from hvbench.kernel.access import scatter

DRAWS = 20_000


def chi_squared(found: Iterable[int], cells: int) -> float:
    """Chi squared per degree of freedom of values that should be uniform over `cells`: about 1."""
    counts = Counter(found)
    expected = counts.total() / cells
    return sum((counts[i] - expected) ** 2 for i in range(cells)) / expected / (cells - 1)


def test_it_is_splitmix64() -> None:
    """The first numbers of splitmix64.c (S. Vigna, public domain) from the state 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [scatter(1234567, n) & (1 << 64) - 1 for n in range(1, 5)] == expected


@pytest.mark.parametrize("bound", [2, 3, 16])
@pytest.mark.parametrize(
    "draw",
    [lambda n: scatter(scatter(7, 0), n), lambda n: scatter(scatter(n, 0), 1), lambda n: scatter(scatter(7, n), 1)],
    ids=["draws", "seeds", "slots"],
)
def test_neighbours_have_nothing_in_common(draw: Callable[[int], int], bound: int) -> None:
    """Pairs of neighbouring draws, of first draws of neighbouring seeds and of neighbouring slots are uniform."""
    values = [draw(n) % bound for n in range(DRAWS)]
    cells = bound * bound
    found = chi_squared((a * bound + b for a, b in pairwise(values)), cells)
    # six standard deviations of chi squared per degree of freedom
    assert abs(found - 1) < 6 * (2 / (cells - 1)) ** 0.5


def test_compiled_it_gives_the_same_numbers() -> None:
    jit.activate()
    compiled = numba.njit(lambda a, b: scatter(a, b))
    for stream in (0, 1, -1, (1 << 63) - 1, -(1 << 63), 0x1234_5678_9ABC_DEF):
        for number in (0, 1, -1, 1 << 40, (1 << 63) - 1):
            assert compiled(stream, number) == scatter(stream, number)
