"""Words of messages."""

from __future__ import annotations


def plural(count: int, one: str, many: str = "") -> str:
    """`"1 VM"`, `"2 VMs"`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
