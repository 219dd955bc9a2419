"""`hvbench workload new`: write a workload from a few words."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.errors import UserError
from hvbench.words import plural


@click.group("workload")
def workload() -> None:
    """Write workloads."""


@workload.command("new")
@click.argument("name")
@click.option("--host", default="", metavar="KEY=VALUE,…", help="The host, such as pcpus=4,memory=4GiB.")
@click.option(
    "--vm",
    "vms",
    multiple=True,
    metavar="TRACE[:KEY=VALUE,…]",
    help="A VM: a bundled trace or a file, and settings of [[vm]] such as vcpus=2,memory=2GiB,weight=512,count=3.",
)
@click.option("--from-bitbrains", "folder", type=click.Path(path_type=Path), help="VMs from a folder of such files.")
@click.option("--vms", "count", default=20, show_default=True, type=click.IntRange(1, 1024), help="How many of them.")
@click.option("--window", default="2h", show_default=True, metavar="TIME", help="How much of their time.")
@click.option("--from", "begin", default="0s", show_default=True, metavar="TIME", help="Where in the files it begins.")
@click.option("--seed", default=1, show_default=True, help="Draws the VMs, and what an average does not say.")
@click.option("--donor", default="", metavar="TRACE", help="Whose rhythm averages take on [default: cc-build].")
@click.option("--most-memory", default="512MiB", show_default=True, metavar="SIZE", help="Of the largest of them.")
@click.option("--set", "settings", default="", metavar="KEY=VALUE,…", help="Of [workload], such as horizon=5s.")
@click.option("--attribution", default="", help="Whose data it is; said in the file and in the traces.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write [default: NAME.toml].")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def new(
    name: str,
    host: str,
    vms: tuple[str, ...],
    folder: Path | None,
    count: int,
    window: str,
    begin: str,
    seed: int,
    donor: str,
    most_memory: str,
    settings: str,
    attribution: str,
    output: Path | None,
    force: bool,
) -> None:
    """Write the workload NAME; what is not said is chosen so that it runs at once."""
    from hvbench import units
    from hvbench.authoring import Draft, overcommit, settings_of, vm_of, write
    from hvbench.workload import load_workload

    draft = Draft(name, output or Path(f"{name}.toml"), settings_of(settings, "--set"), settings_of(host, "--host"))
    if not vms and folder is None:
        raise UserError("a workload without VMs: give --vm TRACE, or --from-bitbrains FOLDER")
    if draft.path.exists() and not force:
        raise UserError(f"{draft.path}: is there already; give --force, or another name")
    draft.vms = [vm_of(text) for text in vms]
    draft.about = [f"Data: {attribution}"] if attribution else []
    if folder is not None:
        from hvbench.bitbrains import DEFAULT_DONOR, Wanted, draw

        wanted = Wanted(
            folder=folder,
            vms=count,
            window_ns=_quantity("--window", window, "ns"),
            from_ns=_quantity("--from", begin, "ns"),
            seed=seed,
            donor=donor or DEFAULT_DONOR,
            most_bytes=_quantity("--most-memory", most_memory, "bytes"),
            attribution=attribution,
        )
        drawn, about = draw(wanted, draft.path.parent / f"{draft.path.stem}-traces", lambda text: None)
        draft.vms += drawn
        draft.about += about
    write(draft, force)
    made = load_workload(str(draft.path) if "/" in str(draft.path) else f"./{draft.path}")
    click.echo(
        f"{draft.path}: {plural(len(made.vms), 'VM')} of {plural(sum(vm.spec.vcpus for vm in made.vms), 'vCPU')} on "
        f"{plural(made.host.pcpus, 'pCPU')}, {units.format_pages(sum(vm.spec.memory_pages for vm in made.vms))} on "
        f"{units.format_pages(made.host.memory_pages)}, {units.format_duration(made.horizon_ns)}; try: "
        f"hvbench run {'' if '/' in str(draft.path) else './'}{draft.path}"
    )
    if said := overcommit(made):
        click.echo(f"  note          {said}")


def _quantity(option: str, text: str, unit: str) -> int:
    from hvbench import units

    try:
        return int(units.parse_value(text, unit))
    except UserError as error:
        raise UserError(f"{option} {text}: {error}") from error
