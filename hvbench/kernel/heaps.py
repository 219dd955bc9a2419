"""Heaps of a policy: pairing heaps through the nodes of a declaration.

M. L. Fredman, R. Sedgewick, D. D. Sleator, R. E. Tarjan: "The pairing heap: a new form of self-adjusting
heap", Algorithmica 1 (1986), in its two-pass form. Links instead of an array, so that all heaps of a
declaration share their nodes. BACK is the node to the left among siblings, or the parent for the leftmost
child.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import arena_get, arena_set
from hvbench.kernel.arena import (
    HEAD,
    HEAP,
    HEAP_NODE_WORDS,
    KEY,
    LENGTH,
    SEQUENCE,
    WHERE,
    enter,
    entry_of,
    item_of,
    leave,
    next_sequence,
    node_of,
    stands_before,
    word,
)

_CHILD, _SIBLING, _BACK = 3, 4, 5


@jit
def _heap_meld(host: Any, a: int, b: int) -> int:
    """Make one heap of the two with roots `a` and `b`; gives its root."""
    if stands_before(host, b, a):
        a, b = b, a
    child = arena_get(host, a + _CHILD)
    arena_set(host, b + _SIBLING, child)
    if child != 0:
        arena_set(host, child + _BACK, b)
    arena_set(host, b + _BACK, a)
    arena_set(host, a + _CHILD, b)
    arena_set(host, a + _SIBLING, 0)
    return a


@jit
def _heap_gather(host: Any, node: int) -> int:
    """Make one heap of the children of `node`, pair by pair and then from the right; gives its root or 0."""
    pairs = 0
    left = arena_get(host, node + _CHILD)
    while left != 0:
        right = arena_get(host, left + _SIBLING)
        rest = 0
        if right != 0:
            rest = arena_get(host, right + _SIBLING)
            left = _heap_meld(host, left, right)
        arena_set(host, left + _SIBLING, pairs)
        pairs = left
        left = rest
    root = 0
    while pairs != 0:
        rest = arena_get(host, pairs + _SIBLING)
        arena_set(host, pairs + _SIBLING, 0)
        root = pairs if root == 0 else _heap_meld(host, root, pairs)
        pairs = rest
    if root != 0:
        arena_set(host, root + _BACK, 0)
    return root


@jit
def _heap_unlink(host: Any, entry: int, node: int) -> None:
    rest = _heap_gather(host, node)
    root = arena_get(host, entry + HEAD)
    if node == root:
        root = rest
    else:
        back = arena_get(host, node + _BACK)
        sibling = arena_get(host, node + _SIBLING)
        if arena_get(host, back + _CHILD) == node:
            arena_set(host, back + _CHILD, sibling)
        else:
            arena_set(host, back + _SIBLING, sibling)
        if sibling != 0:
            arena_set(host, sibling + _BACK, back)
        if rest != 0:
            root = _heap_meld(host, root, rest)
    arena_set(host, entry + HEAD, root)
    leave(host, entry, node)


@jit
def heap_push(host: Any, h: int, item: int, key: int) -> None:
    """Put `item` into heap `h`. It must be in no heap of this declaration."""
    key_word = word(key)
    entry = entry_of(host, h, HEAP)
    node = node_of(host, entry, item, HEAP_NODE_WORDS)
    enter(host, entry, node, h)
    arena_set(host, node + KEY, key_word)
    arena_set(host, node + SEQUENCE, next_sequence(host, entry))
    arena_set(host, node + _CHILD, 0)
    arena_set(host, node + _SIBLING, 0)
    arena_set(host, node + _BACK, 0)
    root = arena_get(host, entry + HEAD)
    arena_set(host, entry + HEAD, node if root == 0 else _heap_meld(host, root, node))


@jit
def heap_pop(host: Any, h: int) -> int:
    """Take the item with the smallest key, the oldest of equals; -1 if heap `h` is empty."""
    entry = entry_of(host, h, HEAP)
    node = arena_get(host, entry + HEAD)
    if node != 0:
        _heap_unlink(host, entry, node)
    return item_of(host, entry, node, HEAP_NODE_WORDS)


@jit
def heap_first(host: Any, h: int) -> int:
    """The item that heap_pop would take, which stays; -1 if heap `h` is empty."""
    entry = entry_of(host, h, HEAP)
    return item_of(host, entry, arena_get(host, entry + HEAD), HEAP_NODE_WORDS)


@jit
def heap_first_key(host: Any, h: int) -> int:
    """The key of heap_first. Heap `h` must not be empty."""
    node = arena_get(host, entry_of(host, h, HEAP) + HEAD)
    if node == 0:
        raise IndexError("heap_first_key: this heap is empty; ask heap_len or heap_first first")
    return arena_get(host, node + KEY)


@jit
def heap_remove(host: Any, h: int, item: int) -> int:
    """Take `item` out of heap `h`: 1, or 0 if it was not in this heap."""
    entry = entry_of(host, h, HEAP)
    node = node_of(host, entry, item, HEAP_NODE_WORDS)
    if arena_get(host, node + WHERE) != word(h):
        return 0
    _heap_unlink(host, entry, node)
    return 1


@jit
def heap_len(host: Any, h: int) -> int:
    """Number of items in heap `h`."""
    return arena_get(host, entry_of(host, h, HEAP) + LENGTH)
