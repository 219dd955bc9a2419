"""Fixed-capacity containers for policies: FIFOs, heaps, ordered indices and hash maps.

A policy declares what it needs at module level,

    CONTAINERS = (Fifo("runq", of="vcpu", per="pcpu"), HashMap("flows", capacity=4096))

and finds each one's *handle*, an int, in `host.box` under its name. With `per="pcpu"` there is one a pCPU,
and that of pCPU p has the handle `host.box.runq + p`. All of them live in the policy's arena, an array of
int64 words that is laid out when a cell is set up: nothing is allocated while a cell runs
(`hvbench.kernel.arena` says what is where).

Fifo, Heap and OrderedIndex are *intrusive*: a declaration has one node for each row of the table in `of`,
shared by all its members, so that an item is in at most one member of a declaration, memory does not grow
with the number of members, and a container cannot be full. Links hold the word of a node, 0 for none, so that
an arena starts as zeros behind its directory. Every operation is deterministic; equal keys stand in order of
insertion.

Misuse raises IndexError, which costs the policy its cell, before anything is read or written: a handle is
checked against the directory and its kind, an item against the rows of its table. Between two declarations,
and at both ends, the directory has an entry of no kind, so that `host.box.runq + p` with p = -1, or one too
large, is caught. All values are int64; a uint64 (a content identity) is taken bit by bit, a float is refused
with TypeError (by Numba, when the policy is compiled).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.kernel.arena import (
    BASE,
    ENTRY,
    FIFO,
    FIFO_NODE_WORDS,
    HEAD,
    HEAP,
    HEAP_NODE_WORDS,
    KIND,
    LIMIT,
    MAP,
    NO_KIND,
    ORDER,
    ORDER_NODE_WORDS,
    SLOT_WORDS,
)
from hvbench.kernel.fifos import (
    fifo_first,
    fifo_len,
    fifo_next,
    fifo_pop,
    fifo_push,
    fifo_push_front,
    fifo_remove,
    fifo_where,
)
from hvbench.kernel.hashmaps import (
    map_del,
    map_get,
    map_len,
    map_put,
)
from hvbench.kernel.heaps import (
    heap_first,
    heap_first_key,
    heap_len,
    heap_pop,
    heap_push,
    heap_remove,
)
from hvbench.kernel.ordered import (
    order_after,
    order_first,
    order_len,
    order_put,
    order_remove,
)

__all__ = [
    "MAX_MAP_CAPACITY",
    "Declaration",
    "Fifo",
    "HashMap",
    "Heap",
    "OrderedIndex",
    "arena_layout",
    "fifo_first",
    "fifo_len",
    "fifo_next",
    "fifo_pop",
    "fifo_push",
    "fifo_push_front",
    "fifo_remove",
    "fifo_where",
    "heap_first",
    "heap_first_key",
    "heap_len",
    "heap_pop",
    "heap_push",
    "heap_remove",
    "map_del",
    "map_get",
    "map_len",
    "map_put",
    "order_after",
    "order_first",
    "order_len",
    "order_put",
    "order_remove",
]

MAX_MAP_CAPACITY = 1 << 24
"""Most entries of a hash map; such a map takes 768 MiB."""


def _check_name(instance: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.isidentifier() or value.startswith("_"):
        raise UserError(
            f"{type(instance).__name__}({value!r}): a container's {attribute.name} is an identifier "
            "that does not begin with an underscore, like 'runq'"
        )


def _check_per(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None:
        _check_name(instance, attribute, value)


def _check_capacity(instance: Any, attribute: Any, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= MAX_MAP_CAPACITY:
        raise UserError(
            f"HashMap({instance.name!r}): capacity is a whole number from 1 to {MAX_MAP_CAPACITY}, "
            f"not {value!r}"
        )


@attrs.frozen
class Fifo:
    """Queues of rows of the table `of`, one for each row of the table `per` if that is given."""

    name: str = attrs.field(validator=_check_name)
    of: str = attrs.field(validator=_check_name, kw_only=True)
    per: str | None = attrs.field(default=None, validator=_check_per, kw_only=True)


@attrs.frozen
class Heap:
    """Priority queues of rows of the table `of`: the item with the smallest key comes first."""

    name: str = attrs.field(validator=_check_name)
    of: str = attrs.field(validator=_check_name, kw_only=True)
    per: str | None = attrs.field(default=None, validator=_check_per, kw_only=True)


@attrs.frozen
class OrderedIndex:
    """Sorted sets of rows of the table `of`, which can be walked from the smallest key up."""

    name: str = attrs.field(validator=_check_name)
    of: str = attrs.field(validator=_check_name, kw_only=True)
    per: str | None = attrs.field(default=None, validator=_check_per, kw_only=True)


@attrs.frozen
class HashMap:
    """Maps from any int64 to any int64 with at most `capacity` entries each."""

    name: str = attrs.field(validator=_check_name)
    capacity: int = attrs.field(validator=_check_capacity, kw_only=True)
    per: str | None = attrs.field(default=None, validator=_check_per, kw_only=True)


Declaration = Fifo | Heap | OrderedIndex | HashMap
_KINDS: dict[type, tuple[int, int]] = {
    Fifo: (FIFO, FIFO_NODE_WORDS),
    Heap: (HEAP, HEAP_NODE_WORDS),
    OrderedIndex: (ORDER, ORDER_NODE_WORDS),
}


def _rows_of(declaration: Declaration, option: str, table: str, rows: dict[str, int]) -> int:
    if table not in rows:
        raise UserError(
            f"{type(declaration).__name__}({declaration.name!r}, {option}={table!r}): there is no table of "
            f"that name; legal: {', '.join(sorted(rows))}"
        )
    return rows[table]


def arena_layout(
    declarations: Sequence[Declaration], rows: dict[str, int]
) -> tuple[np.ndarray[Any, Any], dict[str, int]]:
    """The words that a policy's arena starts with, and the handle of each declaration by name.

    `rows` has the number of rows of every table. Raises UserError for two declarations of one name and
    for a table that does not exist.
    """
    handles: dict[str, int] = {}
    entries: list[list[int]] = [[0] * ENTRY]
    used = 0
    for declaration in declarations:
        if not isinstance(declaration, Declaration):
            raise UserError(
                f"CONTAINERS has {declaration!r}; legal: Fifo(...), Heap(...), OrderedIndex(...), "
                "HashMap(...)"
            )
        if declaration.name in handles:
            raise UserError(f"CONTAINERS has two named {declaration.name!r}; give each a name of its own")
        members = 1 if declaration.per is None else _rows_of(declaration, "per", declaration.per, rows)
        handles[declaration.name] = len(entries) + 1
        for _ in range(members):
            entry = [0] * ENTRY
            entry[BASE] = used
            if isinstance(declaration, HashMap):
                slots = 1 << (2 * declaration.capacity - 1).bit_length()
                entry[KIND], entry[LIMIT], entry[HEAD] = MAP, declaration.capacity, slots - 1
                used += slots * SLOT_WORDS
            else:
                entry[KIND], _ = _KINDS[type(declaration)]
                entry[LIMIT] = _rows_of(declaration, "of", declaration.of, rows)
            entries.append(entry)
        if not isinstance(declaration, HashMap):
            used += _rows_of(declaration, "of", declaration.of, rows) * _KINDS[type(declaration)][1]
        entries.append([0] * ENTRY)
    first = 1 + len(entries) * ENTRY
    words = np.zeros(first + used, np.int64)
    words[0] = len(entries)
    for number, entry in enumerate(entries):
        if entry[KIND] != NO_KIND:
            entry[BASE] += first
        words[1 + number * ENTRY : 1 + (number + 1) * ENTRY] = entry
    return words, handles
