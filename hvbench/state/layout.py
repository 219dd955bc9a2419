"""Records of the simulated host: declared once as attrs classes, laid out here.

A record class says what one row of a table holds. From that one declaration come the NumPy dtype that
owns the memory, the Numba types that compiled code sees (`hvbench.state.native`) and the slotted proxies
that interpreted code sees (`hvbench.state.proxies`): all three read and write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

SIZES = {"i1": 1, "u1": 1, "i2": 2, "u2": 2, "i4": 4, "u4": 4, "i8": 8, "u8": 8, "f8": 8}
"""Storage codes and their sizes in bytes. Every integer widens to int64 when it is read, but for `u8`,
which stays uint64 and is meant for hashes only; `f8` is float64."""


LINE = 128
"""Bytes that processors fetch together: two cache lines of 64 (adjacent-line prefetch)."""


def own_lines(size: int) -> np.ndarray[Any, Any]:
    """`size` zero bytes that share no cache line with anything else.

    Hosts that run in two threads are laid out one after the other: small tables of both would otherwise lie on the same
    lines, and each write of one thread would take the line away from the other.
    """
    raw = np.zeros(size + 2 * LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]


@attrs.frozen
class Field:
    """One field of a record: its name, its offset in bytes, its storage code and what it means."""

    name: str
    offset: int
    code: str
    doc: str
    default: int | float = 0


@attrs.frozen
class Layout:
    """The byte layout of a record class. `stride` is the distance of two rows, a multiple of its widest field."""

    name: str
    fields: tuple[Field, ...]
    stride: int

    @property
    def key(self) -> tuple[tuple[str, int, str], ...]:
        """What distinguishes two layouts for compiled code: names, offsets, codes."""
        return tuple((f.name, f.offset, f.code) for f in self.fields)

    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype with exactly these offsets."""
        return np.dtype(
            {
                "names": [f.name for f in self.fields],
                "formats": [f.code for f in self.fields],
                "offsets": [f.offset for f in self.fields],
                "itemsize": max(self.stride, 1),
            }
        )

    def zeros(self, rows: int) -> np.ndarray[Any, Any]:
        """`rows` rows with the declared defaults, on cache lines of their own."""
        dtype = self.dtype()
        table = own_lines(rows * dtype.itemsize).view(dtype)
        for field in self.fields:
            if field.default:
                table[field.name] = field.default
        return table


def col(doc: str, code: str = "i8", default: int | float = 0) -> Any:
    """Declare a field of a record class: what it means, its storage code, its default."""
    if code not in SIZES:
        raise ValueError(f"unknown storage code {code!r}; legal: {', '.join(SIZES)}")
    return attrs.field(default=default, metadata={"code": code, "doc": doc})


def layout(cls: type, name: str | None = None) -> Layout:
    """Lay out an attrs class: fields in declared order, each aligned to its own size.

    A field declared without `col` (a policy's own state, `credit: int = 0`) is an int64 or, where its
    annotation or default is a float, a float64.
    """
    fields: list[Field] = []
    offset = 0
    widest = 1
    for a in attrs.fields(cls):
        default = 0 if a.default is attrs.NOTHING else a.default
        code = a.metadata.get("code") or ("f8" if a.type in (float, "float") else "i8")
        if not isinstance(default, (int, float)):
            raise TypeError(f"{cls.__name__}.{a.name}: a record holds numbers, not {type(default).__name__}")
        size = SIZES[code]
        offset = -(-offset // size) * size
        widest = max(widest, size)
        fields.append(Field(a.name, offset, code, a.metadata.get("doc", ""), default))
        offset += size
    return Layout(name or cls.__name__, tuple(fields), -(-offset // widest) * widest)


def record(name: str) -> Callable[[type], type]:
    """Class decorator: an attrs class that is the row of table `name`."""

    def wrap(cls: type) -> type:
        made = attrs.define(cls, slots=True)
        made.__record__ = name  # type: ignore[attr-defined]
        return made

    return wrap
