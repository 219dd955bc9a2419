"""`hvbench cache`: compiled code."""

from __future__ import annotations

import click


@click.group("cache")
def cache() -> None:
    """Manage compiled code."""


@cache.command("clear")
def clear() -> None:
    """Remove all compiled code, of every version; the next run compiles anew."""
    from hvbench.jit import cache_root, clear_cache
    from hvbench.units import format_size

    freed = clear_cache()
    click.echo(f"{format_size(freed >> 10 << 10)} freed in {cache_root()}")
