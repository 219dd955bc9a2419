"""The host's memory map: the header's scalars, where each table's address stands, a policy's slot.

The header is one block: the scalars of `Host`, then for each table its address and its number of rows.
A slot is one block a policy: its index, then the addresses of its params, its own host-wide state, its
containers' handles, its arena, and of its own rows beside each table.
"""

from __future__ import annotations

import hashlib

import attrs

from hvbench.state import records, records_io, records_memory
from hvbench.state.layout import Layout, layout


@attrs.frozen
class Table:
    """A table of the host: where its address stands in the header, and the layout of its rows."""

    name: str
    offset: int
    layout: Layout


def _collect() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in (records, records_memory, records_io):
        for value in vars(module).values():
            name = getattr(value, "__record__", None)
            if isinstance(value, type) and name:
                found[name] = value
    return found


RECORDS = _collect()
HOST_LAYOUT = layout(RECORDS["host"], "host")
SCALARS: dict[str, tuple[int, str]] = {f.name: (f.offset, f.code) for f in HOST_LAYOUT.fields}
TABLES: dict[str, Table] = {}
for _name, _cls in RECORDS.items():
    if _name != "host":
        TABLES[_name] = Table(_name, HOST_LAYOUT.stride + 16 * len(TABLES), layout(_cls, _name))
HEADER_BYTES = HOST_LAYOUT.stride + 16 * len(TABLES)

SLOT_ROWS = ("params", "own", "box")
"""Rows that exist once a policy: its parameters, its host-wide state (`@state("host")`), its containers."""

SLOT_INDEX_OFFSET = 0
SLOT_ARENA_OFFSET = 8
SLOT_OFFSETS: dict[str, int] = {n: 16 + 8 * i for i, n in enumerate((*SLOT_ROWS, *TABLES))}
SLOT_BYTES = 16 + 8 * len(SLOT_OFFSETS)

MEMORY_LAYERS = 8
SCHEDULER_SLOT, STORAGE_SLOT, SWITCH_SLOT, FIRST_MEMORY_SLOT = 0, 1, 2, 3
SLOTS = FIRST_MEMORY_SLOT + MEMORY_LAYERS
"""One slot each for scheduler, storage and switch, eight for the layers of a memory stack."""

DIGEST = hashlib.blake2b(
    repr([(n, t.offset, t.layout.key, t.layout.stride) for n, t in TABLES.items()] + [HOST_LAYOUT.key]).encode(),
    digest_size=8,
).hexdigest()
"""Changes whenever the memory map changes."""
