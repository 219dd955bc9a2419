"""`hvbench new`: a project for a policy of one's own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new")
@click.argument("axis")
@click.argument("name")
@click.option("--to", "folder", type=click.Path(path_type=Path), help="The folder to make.  [default: ./NAME]")
@click.option("--file-only", is_flag=True, help="Only the policy: one file, ./NAME.py.")
def new(axis: str, name: str, folder: Path | None, file_only: bool) -> None:
    """Make a small, installable package for a new policy NAME (my-policy) of AXIS.

    AXIS is scheduler, memory, storage, switch, technique or host. The package has the policy, its tests and tracked
    benchmarks, an entry point, a README and a workflow for GitHub Actions. It works as it is: change it.
    """
    from hvbench.errors import UserError
    from hvbench.scaffold import create, files_of

    if file_only:
        path = folder or Path(f"{name.replace('-', '_')}.py")
        text = next(iter(files_of(axis, name).values()))
        if path.exists():
            raise UserError(f"{path}: exists already; choose another name, or --to another file")
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        click.echo(f"{path}\n\nnext:\n  hvbench check ./{path}\n  hvbench hooks --axis {axis}")
        return
    folder = folder or Path(name)
    for made in create(axis, name, folder):
        click.echo(str(made))
    click.echo(f"\nnext:\n  pip install -e '{folder}[test]'\n  hvbench check {name}\n  hvbench hooks --axis {axis}")
