"""`hvbench hooks`: what a policy can implement."""

from __future__ import annotations

import click

from hvbench.axes import AXES
from hvbench.cli import options


@click.command("hooks")
@click.argument("name", required=False)
@click.option("--axis", type=click.Choice(AXES), help="Only the hooks of this axis.")
@click.option("--markdown", is_flag=True, help="Print the whole reference as a page.")
@options.format_option
def hooks(name: str | None, axis: str | None, markdown: bool, fmt: str) -> int:
    """List every hook of each axis; or show NAME: when it is called, with what, and what a legal answer is."""
    import textwrap

    from hvbench import reference
    from hvbench.drawing import check_format, draw

    check_format(fmt)
    if markdown:
        click.echo(reference.page(), nl=False)
        return 0
    if name is None:
        rows = [
            [hook.axis, hook.signature, hook.kind, hook.summary, "; ".join(hook.systems)]
            for hook in reference.described()
            if axis in (None, hook.axis)
        ]
        click.echo(draw(["axis", "hook", "kind", "what", "elsewhere"], rows, fmt))
        return 0
    hook = reference.find(name)
    lines = [hook.signature, "", f"{hook.kind}, {hook.axis}. {hook.summary}"]
    if hook.systems:
        lines.append(f"Elsewhere: {'; '.join(hook.systems)}.")
    for title, text in reference.sections(hook.body):
        start = f"{title}: " if title else ""
        lines += ["", textwrap.fill(start + text, 100, subsequent_indent="  " if title else "")]
    used = reference.implementations().get(hook.name)
    if used:
        lines += ["", f"Used by: {', '.join(used)}"]
    click.echo("\n".join(lines))
    return 0
