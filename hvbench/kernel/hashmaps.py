"""Hash maps of a policy: open addressing with linear probing.

The table has a power of two of slots, at least twice the capacity, so that a probe always ends at a free
one. Deletion moves later entries back (D. E. Knuth, The Art of Computer Programming 3, 6.4, Algorithm R).
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import arena_get, arena_set, mix
from hvbench.kernel.arena import (
    BASE,
    HEAD,
    LENGTH,
    LIMIT,
    MAP,
    SLOT_WORDS,
    entry_of,
    word,
)

_USED, _SLOT_KEY, _SLOT_VALUE = 0, 1, 2


@jit
def _map_find(host: Any, entry: int, key: int) -> int:
    """Number of the slot that holds `key`, or of the free one where it belongs."""
    base = arena_get(host, entry + BASE)
    mask = arena_get(host, entry + HEAD)
    at = mix(0, key) & mask
    slot = base + at * SLOT_WORDS
    while arena_get(host, slot + _USED) != 0 and arena_get(host, slot + _SLOT_KEY) != key:
        at = (at + 1) & mask
        slot = base + at * SLOT_WORDS
    return at


@jit
def map_put(host: Any, m: int, key: int, value: int) -> int:
    """Set the value of `key`: 1, or 0 and no change where `key` is new and map `m` is full."""
    key_word = word(key)
    value_word = word(value)
    entry = entry_of(host, m, MAP)
    slot = arena_get(host, entry + BASE) + _map_find(host, entry, key_word) * SLOT_WORDS
    if arena_get(host, slot + _USED) == 0:
        length = arena_get(host, entry + LENGTH)
        if length >= arena_get(host, entry + LIMIT):
            return 0
        arena_set(host, entry + LENGTH, length + 1)
        arena_set(host, slot + _USED, 1)
        arena_set(host, slot + _SLOT_KEY, key_word)
    arena_set(host, slot + _SLOT_VALUE, value_word)
    return 1


@jit
def map_get(host: Any, m: int, key: int, default: int) -> int:
    """The value of `key` in map `m`, or `default`."""
    key_word = word(key)
    default_word = word(default)
    entry = entry_of(host, m, MAP)
    slot = arena_get(host, entry + BASE) + _map_find(host, entry, key_word) * SLOT_WORDS
    if arena_get(host, slot + _USED) == 0:
        return default_word
    return arena_get(host, slot + _SLOT_VALUE)


@jit
def map_del(host: Any, m: int, key: int) -> int:
    """Forget `key`: 1, or 0 if map `m` did not have it."""
    key_word = word(key)
    entry = entry_of(host, m, MAP)
    base = arena_get(host, entry + BASE)
    mask = arena_get(host, entry + HEAD)
    hole = _map_find(host, entry, key_word)
    if arena_get(host, base + hole * SLOT_WORDS + _USED) == 0:
        return 0
    at = (hole + 1) & mask
    while arena_get(host, base + at * SLOT_WORDS + _USED) != 0:
        slot = base + at * SLOT_WORDS
        moved = arena_get(host, slot + _SLOT_KEY)
        # an entry may move back to the hole unless that lies before its home slot
        if ((at - mix(0, moved)) & mask) >= ((at - hole) & mask):
            arena_set(host, base + hole * SLOT_WORDS + _SLOT_KEY, moved)
            arena_set(host, base + hole * SLOT_WORDS + _SLOT_VALUE, arena_get(host, slot + _SLOT_VALUE))
            hole = at
        at = (at + 1) & mask
    arena_set(host, base + hole * SLOT_WORDS + _USED, 0)
    arena_set(host, base + hole * SLOT_WORDS + _SLOT_KEY, 0)
    arena_set(host, base + hole * SLOT_WORDS + _SLOT_VALUE, 0)
    arena_set(host, entry + LENGTH, arena_get(host, entry + LENGTH) - 1)
    return 1


@jit
def map_len(host: Any, m: int) -> int:
    """Number of entries in map `m`."""
    return arena_get(host, entry_of(host, m, MAP) + LENGTH)
