"""`hvbench workloads`: what workloads there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvbench.cli import options

if TYPE_CHECKING:
    from hvbench.workload import Workload


@click.command("workloads")
@click.argument("name", required=False)
@options.format_option
def workloads(name: str | None, fmt: str) -> int:
    """List the bundled workloads; or describe NAME (a name or a file) with every setting and its source.

    Exit code 2 where a bundled workload cannot be read.
    """
    from hvbench.drawing import check_format
    from hvbench.workload import load_workload

    check_format(fmt)
    if name is not None:
        click.echo(_describe(load_workload(name), fmt))
        return 0
    return _list(fmt)


def _list(fmt: str) -> int:
    from hvbench.cli import fail
    from hvbench.drawing import draw
    from hvbench.errors import UserError
    from hvbench.units import format_duration, format_pages
    from hvbench.workload import bundled_names, load_workload

    code = 0
    table = []
    for name in bundled_names():
        try:
            workload = load_workload(name)
        except UserError as error:
            code = fail(str(error))
            continue
        vcpus = sum(vm.spec.vcpus for vm in workload.vms)
        memory = sum(vm.spec.memory_pages for vm in workload.vms)
        table.append(
            [
                workload.name,
                workload.klass,
                str(len(workload.vms)),
                f"{vcpus} / {workload.host.pcpus}",
                f"{format_pages(memory)} / {format_pages(workload.host.memory_pages)}",
                format_duration(workload.horizon_ns),
                ", ".join(workload.settings.stresses),
                workload.settings.summary,
            ]
        )
    headers = [
        "workload",
        "class",
        "VMs",
        "vCPUs / pCPUs",
        "memory of VMs / host",
        "H",
        "stresses",
        "what it is",
    ]
    click.echo(draw(headers, table, fmt))
    return code


def _describe(workload: Workload, fmt: str) -> str:
    from hvbench.drawing import draw
    from hvbench.settings import describe_settings

    parts = [f"{workload.name}  ({workload.path})", workload.settings.summary]
    sections = [("workload", workload.settings), ("host", workload.host)]
    sections += [(f"vm {group.name}", group) for group in workload.groups]
    for title, record in sections:
        table = [
            [info.path, info.value, "default" if info.is_default else "set", info.doc, info.source]
            for info in describe_settings(record)
        ]
        parts.append(f"{title}:\n" + draw(["setting", "value", "", "meaning", "source of the default"], table, fmt))
    return "\n\n".join(part for part in parts if part)
