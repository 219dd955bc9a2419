"""A policy's arena: its directory, and the checks that stand before every access of a container.

    word 0                      number of directory entries
    words 1 ...                 directory: ENTRY words for each handle, from handle 1 on
    then                        for each declaration its nodes, or its hash tables

`hvbench.kernel.containers` lays it out. Nothing here writes before handle and item are found to be right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hvbench.jit import jit
from hvbench.kernel.access import arena_get, arena_set

# A directory entry. LIMIT is the number of items (rows of the table in `of`), or a map's capacity; HEAD the
# first node of a FIFO, the root of a heap or tree, the mask of a map's table; TAIL a FIFO's last node, or a
# tree's first.
ENTRY = 7
KIND, BASE, LIMIT, LENGTH, HEAD, TAIL, COUNTER = range(ENTRY)
NO_KIND, FIFO, HEAP, ORDER, MAP = range(5)

# A node begins with WHERE: the handle of the container that its item is in, 0 for none. In heaps and ordered
# indices KEY and SEQUENCE, the insertion number, follow.
WHERE, KEY, SEQUENCE = 0, 1, 2
FIFO_NODE_WORDS, HEAP_NODE_WORDS, ORDER_NODE_WORDS, SLOT_WORDS = 3, 6, 7, 3


@jit
def word(value: int) -> int:
    """An integer of any width as int64; the `|` is what refuses a float, compiled and interpreted."""
    return int(np.int64(value | 0))


@jit
def entry_of(host: Any, handle: int, kind: int) -> int:
    """The word at which the directory entry of `handle` begins."""
    number = word(handle)
    if number < 1 or number > arena_get(host, 0):
        raise IndexError(
            "no container has this handle: use host.box.<name>, and host.box.<name> + index of a row of the "
            "table in per="
        )
    entry = 1 + (number - 1) * ENTRY
    found = arena_get(host, entry + KIND)
    if found == NO_KIND:
        raise IndexError(
            "this handle is one before the first or behind the last of a declaration: host.box.<name> + "
            "index takes an index of a row of the table in per=, and no index without per="
        )
    if found != kind:
        raise IndexError(
            "this handle is of a container of another kind: fifo_* take a Fifo, heap_* a Heap, order_* an "
            "OrderedIndex, map_* a HashMap"
        )
    return entry


@jit
def node_of(host: Any, entry: int, item: int, words: int) -> int:
    """The word at which the node of `item` begins; a node has `words` words."""
    index = word(item)
    if index < 0 or index >= arena_get(host, entry + LIMIT):
        raise IndexError(
            "this item is outside of the container's table: an item is an index of a row of the table in of="
        )
    return arena_get(host, entry + BASE) + index * words


@jit
def item_of(host: Any, entry: int, node: int, words: int) -> int:
    """The item whose node begins at word `node`, -1 for no node."""
    if node == 0:
        return -1
    return (node - arena_get(host, entry + BASE)) // words


@jit
def enter(host: Any, entry: int, node: int, handle: int) -> None:
    """Note that the node's item is now in the container `handle`; it must be in none."""
    if arena_get(host, node + WHERE) != 0:
        raise IndexError(
            "this item is already in a container of this declaration: an item is in one of them at a time; "
            "remove it first"
        )
    arena_set(host, node + WHERE, word(handle))
    arena_set(host, entry + LENGTH, arena_get(host, entry + LENGTH) + 1)


@jit
def leave(host: Any, entry: int, node: int) -> None:
    arena_set(host, node + WHERE, 0)
    arena_set(host, entry + LENGTH, arena_get(host, entry + LENGTH) - 1)


@jit
def next_sequence(host: Any, entry: int) -> int:
    """The next insertion number of a container."""
    number = arena_get(host, entry + COUNTER) + 1
    arena_set(host, entry + COUNTER, number)
    return number


@jit
def stands_before(host: Any, a: int, b: int) -> bool:
    """Whether node `a` stands before node `b`: by key, then by insertion."""
    key_a = arena_get(host, a + KEY)
    key_b = arena_get(host, b + KEY)
    if key_a != key_b:
        return key_a < key_b
    return arena_get(host, a + SEQUENCE) < arena_get(host, b + SEQUENCE)
