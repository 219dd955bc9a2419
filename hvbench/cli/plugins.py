"""`hvbench plugins`: what policies there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvbench.cli import options

if TYPE_CHECKING:
    from hvbench.plugins import Policy, Registry


SUMMARY_WIDTH = 72
"""Characters of a line of what a policy is, in the list."""


@click.command("plugins")
@click.argument("name", required=False)
@options.format_option
def plugins(name: str | None, fmt: str) -> int:
    """List the policies of each axis; or describe NAME (`credit`, `memory.balloon`, `./mine.py`).

    Exit code 1 where a plugin did not load.
    """
    from hvbench.drawing import check_format

    check_format(fmt)
    registry = options.installed()
    if name is None:
        _list(registry, fmt)
        return 1 if registry.failed else 0
    click.echo("\n\n\n".join(_describe(policy, fmt, registry) for policy in _find(registry, name)))
    return 0


def _list(registry: Registry, fmt: str) -> None:
    import textwrap

    from hvbench.axes import AXES
    from hvbench.drawing import DEFAULT_FORMAT, draw

    table = []
    for axis in AXES:
        for policy in registry.axis(axis):
            summary = policy.summary + (" (control: not part of all)" if policy.control is not None else "")
            if fmt == DEFAULT_FORMAT:
                summary = textwrap.fill(summary, SUMMARY_WIDTH)
            table.append([axis, policy.name, str(len(policy.params) or ""), summary])
    click.echo(draw(["axis", "policy", "parameters", "what it is"], table, fmt))
    click.echo("\nhvbench plugins NAME describes one: its parameters, what of a VM it honours, its source.")


def _honours(policy: Policy) -> str:
    """What of a VM's settings a scheduler acts upon, in the order in which they are always named."""
    from hvbench.honours import PROPERTIES

    return ", ".join(name for name in PROPERTIES if name in policy.honours) or "nothing"


def _find(registry: Registry, name: str) -> list[Policy]:
    """Every policy of that name, on whatever axis; UserError with the nearest names."""
    from hvbench.axes import AXES
    from hvbench.errors import UserError
    from hvbench.nearest import did_you_mean

    if name.endswith(".py") or "/" in name:
        return [registry.load_file(Path(name))]
    axis, dot, rest = name.partition(".")
    if dot and axis in AXES:
        return [registry.get(axis, rest)]
    found = [policy for policy in registry.policies.values() if policy.name == name]
    if not found:
        known = sorted({policy.name for policy in registry.policies.values()})
        raise UserError(f"no policy {name!r}{did_you_mean(name, known, always=True)}; a file is written ./{name}.py")
    return found


def _describe(policy: Policy, fmt: str, registry: Registry) -> str:
    from hvbench.cell import label_of
    from hvbench.drawing import draw
    from hvbench.honours import PROPERTIES
    from hvbench.plugins import bind_params
    from hvbench.stacks import is_stack, layers_of

    lines = [f"{policy.axis} {policy.name}  ({policy.origin})", "", policy.doc]
    # the documentation says what it claims, with the reservations
    if policy.claims and not all(claim in policy.doc.partition("\nClaims:")[2] for claim in policy.claims):
        lines += ["", f"Claims: {', '.join(sorted(policy.claims))}"]
    if policy.control is not None:
        worst = ", ".join(f"{metric} on {workload}" for workload, metric in policy.control.worst_on.items())
        lines += ["", f"Control: {policy.control.why} Worst by {policy.control.margin:.0%} at: {worst}."]
    if policy.axis == "scheduler":
        lines += ["", f"Honours: {_honours(policy)}"]
        ignored = [name for name in PROPERTIES if name not in policy.honours]
        if ignored:
            lines.append(f"Does not honour: {', '.join(ignored)}; a workload that sets one of them is marked in tables")
    if is_stack(policy):
        lines += ["", f"Layers: {label_of(layers_of(policy, bind_params(policy, {}), registry))}"]
    lines += ["", f"Hooks: {', '.join(policy.hooks)}"]
    if policy.params:
        table = [
            [
                info.alias,
                info.unit or info.kind.__name__,
                info.format(info.default),
                _range(info),
                info.help,
                info.source,
            ]
            for info in policy.params
        ]
        lines += ["", draw(["parameter", "unit", "default", "legal", "meaning", "source"], table, fmt)]
    return "\n".join(lines)


def _range(info: object) -> str:
    from hvbench.plugins import ParamInfo

    assert isinstance(info, ParamInfo)
    low = "" if info.low is None else info.format(info.low)
    high = "" if info.high is None else info.format(info.high)
    return f"{low} to {high}" if low and high else f"{low} and up" if low else f"up to {high}" if high else ""
