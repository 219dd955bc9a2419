"""What interpreted code sees of the host's memory: slotted proxies over the same bytes.

A structured NumPy row has no attribute access and gives NumPy scalars; these classes, made from
the same declarations as the compiled types, give Python numbers and refuse what compiled code refuses:
an index outside of a table, a write to a kernel field by a policy.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from hvbench.state import schema
from hvbench.state.layout import Layout


def _own_property(name: str) -> property:
    def get(row: Any) -> Any:
        return row._table.own[name].item(row._index)

    def put(row: Any, value: Any) -> None:
        row._table.own[name][row._index] = value

    return property(get, put)


def _kernel_property(table: str, name: str, code: str, writable: bool) -> property:
    if code == "u8":

        def get(row: Any) -> Any:
            return np.uint64(row._table.columns[name][row._index])

    else:

        def get(row: Any) -> Any:
            return row._table.columns[name].item(row._index)

    def put(row: Any, value: Any) -> None:
        row._table.columns[name][row._index] = value

    def refuse(row: Any, value: Any) -> None:
        raise AttributeError(
            f"{table}.{name} belongs to the kernel and is read-only for a policy; "
            f"keep your own value in a @state({table!r}) class"
        )

    return property(get, put if writable else refuse)


@functools.cache
def _row_class(table: str, fields: tuple[tuple[str, str], ...], own: tuple[str, ...], writable: bool) -> type:
    namespace: dict[str, Any] = {"__slots__": ("_index", "_table")}
    for name, code in fields:
        namespace[name] = _kernel_property(table, name, code, writable)
    for name in own:
        namespace[name] = _own_property(name)

    def init(self: Any, proxy: Any, index: int) -> None:
        self._table = proxy
        self._index = index

    def show(self: Any) -> str:
        values = ", ".join(f"{n}={getattr(self, n)}" for n in (*own, *(f for f, _ in fields)))
        return f"{table}[{self._index}]({values})"

    namespace["__init__"] = init
    namespace["__repr__"] = show
    return type(f"{table.title()}Row", (), namespace)


class TableProxy:
    """A table as interpreted code sees it: `table[i].field`, `len(table)`."""

    __slots__ = ("checked", "columns", "name", "own", "row", "rows")

    def __init__(self, name: str, fields: Layout | None, array: Any, own: Any, writable: bool):
        self.name = name
        self.rows = len(array) if array is not None else 1
        self.checked = True
        pairs = tuple((f.name, f.code) for f in fields.fields) if fields else ()
        self.columns = {n: array[n] for n, _ in pairs}
        own_names = tuple(own.dtype.names) if own is not None and own.dtype.names else ()
        self.own = {n: own[n] for n in own_names}
        self.row = _row_class(name, pairs, own_names, writable)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.rows:
            raise IndexError(f"index {index} of {self.name} is outside of its rows 0..{self.rows - 1}")
        return self.row(self, index)

    def __len__(self) -> int:
        return self.rows


class HostProxy:
    """The host as interpreted code sees it; `kernel` is the same host with the kernel's rights.

    `memory` is the `hvbench.state.memory.HostMemory` behind it, `slot` the index of the policy that looks
    (-1 for the kernel itself).
    """

    def __init__(self, memory: Any, slot: int = -1, kernel: Any = None):
        self.__dict__["memory"] = memory
        self.__dict__["slot_index"] = slot
        self.__dict__["kernel"] = kernel or self
        writable = kernel is None
        space = memory.slots[slot] if slot >= 0 else None
        for name, table in schema.TABLES.items():
            own = space.own.get(name) if space else None
            self.__dict__[name] = TableProxy(name, table.layout, memory.tables[name], own, writable)
        if space:
            for name in schema.SLOT_ROWS:
                own = space.own.get(name)
                if own is not None and own.dtype.names:
                    self.__dict__[name] = TableProxy(name, None, None, own, writable=False)[0]

    def __getattr__(self, name: str) -> Any:
        if name in schema.SCALARS:
            value = self.__dict__["memory"].header[name]
            return np.uint64(value[0]) if schema.SCALARS[name][1] == "u8" else value.item(0)
        legal = ", ".join([*schema.SLOT_ROWS, *schema.TABLES, *schema.SCALARS])
        raise AttributeError(f"host has no {name!r}; it has: {legal}")

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__["kernel"] is not self or name not in schema.SCALARS:
            raise AttributeError(f"host.{name} is read-only for a policy; keep your own value in @state('host')")
        self.__dict__["memory"].header[name][0] = value
