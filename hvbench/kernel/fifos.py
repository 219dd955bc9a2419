"""FIFOs of a policy: doubly linked lists through the nodes of a declaration."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import arena_get, arena_set
from hvbench.kernel.arena import (
    FIFO,
    FIFO_NODE_WORDS,
    HEAD,
    LENGTH,
    TAIL,
    WHERE,
    enter,
    entry_of,
    item_of,
    leave,
    node_of,
    word,
)

_PREVIOUS, _NEXT = 1, 2


@jit
def fifo_push(host: Any, q: int, item: int) -> None:
    """Put `item` behind the last of queue `q`. It must be in no queue of this declaration."""
    entry = entry_of(host, q, FIFO)
    node = node_of(host, entry, item, FIFO_NODE_WORDS)
    enter(host, entry, node, q)
    last = arena_get(host, entry + TAIL)
    arena_set(host, node + _PREVIOUS, last)
    arena_set(host, node + _NEXT, 0)
    arena_set(host, entry + TAIL, node)
    if last == 0:
        arena_set(host, entry + HEAD, node)
    else:
        arena_set(host, last + _NEXT, node)


@jit
def fifo_push_front(host: Any, q: int, item: int) -> None:
    """Put `item` before the first of queue `q`. It must be in no queue of this declaration."""
    entry = entry_of(host, q, FIFO)
    node = node_of(host, entry, item, FIFO_NODE_WORDS)
    enter(host, entry, node, q)
    first = arena_get(host, entry + HEAD)
    arena_set(host, node + _PREVIOUS, 0)
    arena_set(host, node + _NEXT, first)
    arena_set(host, entry + HEAD, node)
    if first == 0:
        arena_set(host, entry + TAIL, node)
    else:
        arena_set(host, first + _PREVIOUS, node)


@jit
def _fifo_unlink(host: Any, entry: int, node: int) -> None:
    before = arena_get(host, node + _PREVIOUS)
    after = arena_get(host, node + _NEXT)
    if before == 0:
        arena_set(host, entry + HEAD, after)
    else:
        arena_set(host, before + _NEXT, after)
    if after == 0:
        arena_set(host, entry + TAIL, before)
    else:
        arena_set(host, after + _PREVIOUS, before)
    leave(host, entry, node)


@jit
def fifo_pop(host: Any, q: int) -> int:
    """Take the first item of queue `q`; -1 if it is empty."""
    entry = entry_of(host, q, FIFO)
    node = arena_get(host, entry + HEAD)
    if node != 0:
        _fifo_unlink(host, entry, node)
    return item_of(host, entry, node, FIFO_NODE_WORDS)


@jit
def fifo_first(host: Any, q: int) -> int:
    """The first item of queue `q`, which stays; -1 if it is empty."""
    entry = entry_of(host, q, FIFO)
    return item_of(host, entry, arena_get(host, entry + HEAD), FIFO_NODE_WORDS)


@jit
def fifo_next(host: Any, q: int, item: int) -> int:
    """The item behind `item`, which must be in queue `q`; -1 behind the last.

    Where a walk removes items, ask for the next one before removing this one.
    """
    entry = entry_of(host, q, FIFO)
    node = node_of(host, entry, item, FIFO_NODE_WORDS)
    if arena_get(host, node + WHERE) != word(q):
        raise IndexError(
            "fifo_next: this item is not in this queue; ask for the next one before removing this one"
        )
    return item_of(host, entry, arena_get(host, node + _NEXT), FIFO_NODE_WORDS)


@jit
def fifo_remove(host: Any, q: int, item: int) -> int:
    """Take `item` out of queue `q`: 1, or 0 if it was not in this queue."""
    entry = entry_of(host, q, FIFO)
    node = node_of(host, entry, item, FIFO_NODE_WORDS)
    if arena_get(host, node + WHERE) != word(q):
        return 0
    _fifo_unlink(host, entry, node)
    return 1


@jit
def fifo_len(host: Any, q: int) -> int:
    """Number of items in queue `q`."""
    return arena_get(host, entry_of(host, q, FIFO) + LENGTH)


@jit
def fifo_where(host: Any, q: int, item: int) -> int:
    """Handle of the queue that `item` is in, of all queues declared together with `q`; -1 if in none."""
    entry = entry_of(host, q, FIFO)
    found = arena_get(host, node_of(host, entry, item, FIFO_NODE_WORDS) + WHERE)
    return found if found != 0 else -1
