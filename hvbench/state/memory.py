"""The memory of one simulated host: NumPy arrays, and the header and slots that point at them."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from hvbench.state import schema
from hvbench.state.layout import Layout, own_lines


@attrs.define
class Slot:
    """A policy's place on the host: its own rows beside each table, its params, its arena."""

    index: int
    own: dict[str, np.ndarray[Any, Any]] = attrs.field(factory=dict)
    arena: np.ndarray[Any, Any] = attrs.field(factory=lambda: np.zeros(1, np.int64))
    block: np.ndarray[Any, Any] = attrs.field(factory=lambda: own_lines(schema.SLOT_BYTES).view(np.int64))

    @property
    def address(self) -> int:
        """Address of the slot's block."""
        return int(self.block.ctypes.data)


class HostMemory:
    """All tables of one host. `tables[name]` are structured arrays, `header` the scalars, one row."""

    def __init__(self, rows: dict[str, int], shared: dict[str, np.ndarray[Any, Any]] | None = None):
        """Make tables with `rows[name]` rows each (1 where unnamed); `shared` tables are used as they are."""
        self.block = own_lines(schema.HEADER_BYTES).view(np.int64)
        self.header = self.block[: schema.HOST_LAYOUT.stride // 8].view(schema.HOST_LAYOUT.dtype())
        for field in schema.HOST_LAYOUT.fields:
            if field.default:
                self.header[field.name] = field.default
        self.tables: dict[str, np.ndarray[Any, Any]] = {}
        self.slots: dict[int, Slot] = {}
        self.python_hooks: dict[int, Any] = {}
        self.exceptions: list[tuple[int, BaseException]] = []
        self.callbacks: list[Any] = []
        self.policies: dict[int, Any] = {}
        self.notes: list[str] = []
        for name in schema.TABLES:
            given = (shared or {}).get(name)
            self.set_table(name, given if given is not None else schema.TABLES[name].layout.zeros(rows.get(name, 1)))

    def set_table(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Put `array` in the place of table `name`."""
        table = schema.TABLES[name]
        if array.dtype != table.layout.dtype() or not array.flags.c_contiguous:
            raise TypeError(f"table {name}: expected a contiguous array of {table.layout.dtype()}")
        self.tables[name] = array
        word = table.offset // 8
        self.block[word] = array.ctypes.data
        self.block[word + 1] = len(array)

    @property
    def address(self) -> int:
        """Address of the header."""
        return int(self.block.ctypes.data)

    def add_slot(self, index: int, layouts: dict[str, Layout], arena_words: int) -> Slot:
        """Give a policy its slot: `layouts` by table name, or by `params`, `own`, `box`."""
        slot = Slot(index)
        slot.arena = own_lines(8 * max(1, arena_words)).view(np.int64)
        slot.block[schema.SLOT_INDEX_OFFSET // 8] = index
        slot.block[schema.SLOT_ARENA_OFFSET // 8] = slot.arena.ctypes.data
        for name, own in layouts.items():
            rows = len(self.tables[name]) if name in self.tables else 1
            array = own.zeros(rows)
            slot.own[name] = array
            slot.block[schema.SLOT_OFFSETS[name] // 8] = array.ctypes.data
        self.slots[index] = slot
        return slot
