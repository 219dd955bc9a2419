"""`hvbench version`."""

from __future__ import annotations

import click

import hvbench

PACKAGES = ("numba", "llvmlite", "numpy", "pluggy", "attrs", "cattrs", "click", "pyarrow", "tabulate", "tqdm")


@click.command("version")
@click.option("--verbose", is_flag=True, help="Also of everything that results depend on.")
def version(verbose: bool) -> None:
    """Show the version; --verbose for bug reports."""
    click.echo(f"hvbench {hvbench.__version__}")
    if not verbose:
        return
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of
    from pathlib import Path

    from hvbench.cell import source_digest
    from hvbench.cli.options import installed
    from hvbench.jit import cache_root, interpreted

    click.echo(f"sources   {source_digest()}  ({Path(hvbench.__file__).parent})")
    click.echo(f"python    {platform.python_version()}  {platform.platform()}")
    for name in PACKAGES:
        try:
            found = version_of(name)
        except PackageNotFoundError:
            found = "not installed"
        click.echo(f"{name:<9} {found}")
    click.echo(f"cache     {cache_root()}")
    click.echo(f"mode      {'interpreted' if interpreted() else 'compiled'}")
    registry = installed()
    click.echo(f"policies  {len(registry.policies)}, {len(registry.failed)} plugins did not load")
