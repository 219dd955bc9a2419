"""Ordered indices of a policy: treaps through the nodes of a declaration.

R. Seidel, C. R. Aragon: "Randomized search trees", Algorithmica 16 (1996). The priority is a hash of item
and insertion number, so that the tree is the same in every run. The first node is kept beside the root.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import arena_get, arena_set, mix
from hvbench.kernel.arena import (
    HEAD,
    KEY,
    LENGTH,
    ORDER,
    ORDER_NODE_WORDS,
    SEQUENCE,
    TAIL,
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

_PRIORITY, _LEFT, _RIGHT, _PARENT = 3, 4, 5, 6


@jit
def _order_lift(host: Any, entry: int, node: int) -> None:
    """Rotate `node` into its parent's place."""
    parent = arena_get(host, node + _PARENT)
    above = arena_get(host, parent + _PARENT)
    if arena_get(host, parent + _LEFT) == node:
        inner = arena_get(host, node + _RIGHT)
        arena_set(host, parent + _LEFT, inner)
        arena_set(host, node + _RIGHT, parent)
    else:
        inner = arena_get(host, node + _LEFT)
        arena_set(host, parent + _RIGHT, inner)
        arena_set(host, node + _LEFT, parent)
    if inner != 0:
        arena_set(host, inner + _PARENT, parent)
    arena_set(host, parent + _PARENT, node)
    _order_hang(host, entry, above, parent, node)


@jit
def _order_hang(host: Any, entry: int, above: int, old: int, new: int) -> None:
    """Put `new` (0 for nothing) where `above` (0: the root) has `old`."""
    if above == 0:
        arena_set(host, entry + HEAD, new)
    elif arena_get(host, above + _LEFT) == old:
        arena_set(host, above + _LEFT, new)
    else:
        arena_set(host, above + _RIGHT, new)
    if new != 0:
        arena_set(host, new + _PARENT, above)


@jit
def _order_successor(host: Any, node: int) -> int:
    """The node after `node` in order, 0 after the last."""
    at = arena_get(host, node + _RIGHT)
    if at != 0:
        left = arena_get(host, at + _LEFT)
        while left != 0:
            at = left
            left = arena_get(host, at + _LEFT)
        return at
    below = node
    at = arena_get(host, node + _PARENT)
    while at != 0 and arena_get(host, at + _RIGHT) == below:
        below = at
        at = arena_get(host, at + _PARENT)
    return at


@jit
def _order_unlink(host: Any, entry: int, node: int) -> None:
    if arena_get(host, entry + TAIL) == node:
        arena_set(host, entry + TAIL, _order_successor(host, node))
    left = arena_get(host, node + _LEFT)
    right = arena_get(host, node + _RIGHT)
    while left != 0 and right != 0:
        if arena_get(host, left + _PRIORITY) < arena_get(host, right + _PRIORITY):
            _order_lift(host, entry, left)
        else:
            _order_lift(host, entry, right)
        left = arena_get(host, node + _LEFT)
        right = arena_get(host, node + _RIGHT)
    _order_hang(host, entry, arena_get(host, node + _PARENT), node, left if left != 0 else right)
    leave(host, entry, node)


@jit
def order_put(host: Any, o: int, item: int, key: int) -> None:
    """Put `item` into index `o` under `key`, behind all with an equal key.

    An item that is in an index of this declaration already, this one or another, is moved.
    """
    key_word = word(key)
    entry = entry_of(host, o, ORDER)
    node = node_of(host, entry, item, ORDER_NODE_WORDS)
    old = arena_get(host, node + WHERE)
    if old != 0:
        _order_unlink(host, entry_of(host, old, ORDER), node)
    enter(host, entry, node, o)
    sequence = next_sequence(host, entry)
    arena_set(host, node + KEY, key_word)
    arena_set(host, node + SEQUENCE, sequence)
    priority = mix(mix(0, sequence), word(item))
    arena_set(host, node + _PRIORITY, priority)
    arena_set(host, node + _LEFT, 0)
    arena_set(host, node + _RIGHT, 0)
    parent = 0
    at = arena_get(host, entry + HEAD)
    goes_left = False
    while at != 0:
        parent = at
        goes_left = stands_before(host, node, at)
        at = arena_get(host, at + (_LEFT if goes_left else _RIGHT))
    arena_set(host, node + _PARENT, parent)
    if parent == 0:
        arena_set(host, entry + HEAD, node)
    else:
        arena_set(host, parent + (_LEFT if goes_left else _RIGHT), node)
    first = arena_get(host, entry + TAIL)
    if first == 0 or stands_before(host, node, first):
        arena_set(host, entry + TAIL, node)
    while parent != 0 and priority < arena_get(host, parent + _PRIORITY):
        _order_lift(host, entry, node)
        parent = arena_get(host, node + _PARENT)


@jit
def order_first(host: Any, o: int) -> int:
    """The item with the smallest key, the oldest of equals; -1 if index `o` is empty."""
    entry = entry_of(host, o, ORDER)
    return item_of(host, entry, arena_get(host, entry + TAIL), ORDER_NODE_WORDS)


@jit
def order_after(host: Any, o: int, item: int) -> int:
    """The item after `item`, which must be in index `o`, by key and insertion; -1 after the last.

    Where a walk removes or moves items, ask for the next one before touching this one.
    """
    entry = entry_of(host, o, ORDER)
    node = node_of(host, entry, item, ORDER_NODE_WORDS)
    if arena_get(host, node + WHERE) != word(o):
        raise IndexError(
            "order_after: this item is not in this index; ask for the next one before removing this one"
        )
    return item_of(host, entry, _order_successor(host, node), ORDER_NODE_WORDS)


@jit
def order_remove(host: Any, o: int, item: int) -> int:
    """Take `item` out of index `o`: 1, or 0 if it was not in this index."""
    entry = entry_of(host, o, ORDER)
    node = node_of(host, entry, item, ORDER_NODE_WORDS)
    if arena_get(host, node + WHERE) != word(o):
        return 0
    _order_unlink(host, entry, node)
    return 1


@jit
def order_len(host: Any, o: int) -> int:
    """Number of items in index `o`."""
    return arena_get(host, entry_of(host, o, ORDER) + LENGTH)
