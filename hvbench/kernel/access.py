"""The few operations that compiled and interpreted code do differently: rights, hashing, raw memory, calls."""

from __future__ import annotations

from typing import Any

from hvbench.jit import dual

MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


@dual("kernel_view")
def kernel_view(host: Any) -> Any:
    """The same host with the kernel's rights. For the kernel's own services only."""
    return host.kernel


@dual("slot_index_of")
def slot_index(host: Any) -> int:
    """Index of the slot of the policy that looks, -1 for the kernel."""
    return int(host.slot_index)


@dual("arena_get")
def arena_get(host: Any, index: int) -> int:
    """Word `index` of the looking policy's arena; the caller has checked the index."""
    return int(host.memory.slots[host.slot_index].arena[index])


@dual("arena_set")
def arena_set(host: Any, index: int, value: int) -> None:
    """Set word `index` of the looking policy's arena; the caller has checked the index."""
    host.memory.slots[host.slot_index].arena[index] = value


@dual("mix")
def mix(digest: int, value: int) -> int:
    """Fold an int64 into a 64-bit digest: multiply, rotate and multiply as in MurmurHash3's 64-bit body
    (A. Appleby, public domain), wrapping around; the result is an int64."""
    x = (value * 0x87C37B91114253D5) & MASK
    x = ((x << 31) | (x >> 33)) & MASK
    x = (x * 0x4CF5AD432745937F) & MASK
    x = (x ^ digest) & MASK
    x = ((x << 27) | (x >> 37)) & MASK
    return _signed(x * 5 + 0x52DCE729)


@dual("scatter")
def scatter(stream: int, number: int) -> int:
    """Number `number` of a random stream, an int64: SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014; the mixing function with the constants of S. Vigna's splitmix64.c).

    `mix` folds words into a digest, but its result for neighbours differs in few bits: it is no generator.
    """
    z = (stream + number * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return _signed(z ^ (z >> 31))


@dual("machine_code")
def machine_code() -> bool:
    """Whether this runs compiled. Only for what has no effect but on speed."""
    return False


@dual("prefetch")
def prefetch(table: Any, index: int) -> None:
    """Begin to fetch a row of a table into the processor's cache; any index is legal. Interpreted: nothing."""


@dual("bit_length_native")
def bit_length(value: int) -> int:
    """Number of bits of a non-negative int64, 0 for 0."""
    return int(value).bit_length()


@dual("trailing_zeros_native")
def trailing_zeros(value: int) -> int:
    """Index of the lowest set bit of an int64, 64 for 0."""
    value &= MASK
    return (value & -value).bit_length() - 1 if value else 64


@dual("invoke_hook")
def invoke(host: Any, row: int, a: int, b: int, c: int, d: int, e: int) -> int:
    """Call the implementation in row `row` of the hook table."""
    return int(host.memory.python_hooks[row](a, b, c, d, e))


_K = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x27D4EB2F165667C5,
    0x85EBCA77C2B2AE63,
    0x94D049BB133111EB,
    0xBF58476D1CE4E5B9,
)
"""Odd multipliers (golden ratio, xxHash's primes, SplitMix64's): one a position."""


@dual("digest_call")
def digest_call(digest: int, row: int, a: int, b: int, c: int, d: int, e: int, answer: int) -> int:
    """Fold one call of a hook into a digest: a weighted sum of its words, then one round of `mix`."""
    total = 0
    for weight, word in zip(_K, (row, a, b, c, d, e, answer), strict=True):
        total += weight * word
    return mix(digest, _signed(total))
