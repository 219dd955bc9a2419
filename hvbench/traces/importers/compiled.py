"""Compiling the byte scanners and passes of importers, and keeping them in hvbench's cache of compiled code."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvbench import jit

SMALL_BYTES = 1 << 20
"""What is smaller is read by the same functions as plain Python: that takes less time than to compile them."""


@functools.lru_cache(maxsize=1)
def _digest() -> str:
    """Of every importer's source: what is compiled can contain any of it."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


@functools.lru_cache(maxsize=8)
def function(plain: Callable[..., Any], arguments: tuple[str, ...], expected_bytes: int) -> Callable[..., Any]:
    """`plain`, compiled for arguments of these types; itself where HVBENCH_INTERPRET asks, or for little work.

    Types are Numba's: "bytes" (a read-only array of bytes), "table" (int64, two dimensions), "column" (int64), "int64".
    """
    if jit.interpreted() or expected_bytes < SMALL_BYTES:
        return plain
    import numba as nb

    kinds = {
        "bytes": nb.types.Array(nb.uint8, 1, "C", readonly=True),
        "table": nb.int64[:, ::1],
        "column": nb.int64[::1],
        "int64": nb.int64,
    }
    signature = nb.int64(*(kinds[name] for name in arguments))
    made: Callable[..., Any] = jit.compiled(plain, signature, f"import-{plain.__name__}", _digest())
    return made
