"""`hvbench record`: record a real program as a trace."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import click

from hvbench.errors import UserError


def _pattern(text: str, option: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"{option} {text}: not a regular expression: {error}") from error


def _within(option: str, value: float, least: float, most: float, legal: str) -> None:
    """UserError for a value that is no number or outside of what is legal."""
    if not (math.isfinite(value) and least <= value <= most):
        raise UserError(f"{option} {value:.15g}: legal: {legal}")


DAY_S = 86_400.0


def _check_ranges(delay: float, max_seconds: float, snapshot: float, resolution: float, buffer: int) -> None:
    _within("--delay", delay, 0, DAY_S, "0 to 86400 s")
    _within("--max-seconds", max_seconds, 0, 365 * DAY_S, "0 (until the command ends) to 31536000 s")
    _within("--snapshot", snapshot, 0, 365 * DAY_S, "0 (at the ends only) to 31536000 s")
    _within("--resolution", resolution, 0.001, 10_000, "0.001 to 10000 ms")
    most = max(1, (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20) // (os.cpu_count() or 1))
    _within("--buffer", buffer, 0, most, f"0 (by memory) to {most} MiB, this machine's memory by its CPUs")


@click.command("record", context_settings={"ignore_unknown_options": False})
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The trace to write (.parquet).")
@click.option("--pid", "pids", multiple=True, type=int, help="Record a running process, with all that it starts.")
@click.option("--cgroup", default="", metavar="PATH", help="Record a control group, such as system.slice/a.service.")
@click.option(
    "--qemu",
    "sockets",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="SOCKET",
    help="Record a running QEMU guest by its QMP socket; several times: several guests, each a tier.",
)
@click.option(
    "--without-root",
    "without_root",
    type=click.Choice(["strace", "perf", "proc"]),
    default=None,
    help="How to record where root's way is not open or not wanted (default: the best that works).",
)
@click.option("--name", default="", help="The trace's name (default: the file's).")
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    metavar="NAME=REGEX",
    help="Processes whose name matches are tier NAME (a VM). Without any, everything is one tier.",
)
@click.option("--outside", multiple=True, metavar="REGEX", help="Processes that are load generators, not guests.")
@click.option("--delay", default=0.0, metavar="S", help="Begin S seconds after the command (servers warm up).")
@click.option("--max-seconds", default=0.0, metavar="S", help="End the command after S seconds of recording.")
@click.option("--runs", default=1, type=click.IntRange(1, 4), help="Run it so often, to tell common contents.")
@click.option("--snapshot", default=0.0, metavar="S", help="Look at memory every S seconds, not only at the ends.")
@click.option("--resolution", default=1.0, metavar="MS", help="Touches are batched to so many ms of compute.")
@click.option("--buffer", default=0, metavar="MIB", help="Ring buffer for each CPU (default: by memory).")
@click.option("--seed", default=1, help="Of the rule that places sampled touches.")
@click.option("--hash-names", is_flag=True, help="Thread names as keyed hashes too (file names always are).")
@click.option("--keep-names", is_flag=True, help="Names of files too; else they are keyed hashes.")
@click.option("--licence", default="", help="Said in the metadata.")
@click.option("--attribution", default="", help="Said in the metadata.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def record(
    output: Path,
    pids: tuple[int, ...],
    cgroup: str,
    sockets: tuple[Path, ...],
    without_root: str | None,
    name: str,
    tiers: tuple[str, ...],
    outside: tuple[str, ...],
    delay: float,
    max_seconds: float,
    runs: int,
    snapshot: float,
    resolution: float,
    buffer: int,
    seed: int,
    hash_names: bool,
    keep_names: bool,
    licence: str,
    attribution: str,
    command: tuple[str, ...],
) -> None:
    """Record COMMAND (after `--`) and everything that it starts; or what runs already: --pid, --cgroup, --qemu.

    Root and tracefs give the whole picture; without them less is recorded, and it is said what is missing.
    Ctrl-C ends the recording and keeps it.
    """
    from hvbench.traces.outputs import check_trace_output
    from hvbench.traces.record.builder import Selection
    from hvbench.traces.record.session import Options
    from hvbench.traces.record.session import record as record_command

    check_trace_output(output)
    _check_ranges(delay, max_seconds, snapshot, resolution, buffer)
    if sockets:
        not_for_guests = {
            "a command": command, "--pid": pids, "--cgroup": cgroup, "--tier": tiers, "--outside": outside,
            "--runs": runs > 1, "--delay": delay, "--keep-names": keep_names, "--without-root": without_root,
        }  # fmt: skip
        for what, given in not_for_guests.items():
            if given:
                raise UserError(f"--qemu records guests as they run; it goes without {what}")
        from hvbench.traces.record.qemu import Options as GuestOptions
        from hvbench.traces.record.qemu import record_qemu

        record_qemu(
            GuestOptions(
                list(sockets), name or output.stem, max_seconds, snapshot, buffer, seed, hash_names, licence,
                attribution,
            ),
            output,
            click.echo,
        )  # fmt: skip
        return
    pairs = []
    for text in tiers:
        tier, equals, pattern = text.partition("=")
        if not (tier and equals and pattern) or tier == "outside":
            raise UserError(f"--tier {text}: has to be NAME=REGEX, such as cache=redis-server")
        pairs.append((tier, _pattern(pattern, "--tier")))
    options = Options(
        command=list(command),
        pids=list(pids),
        cgroup=cgroup,
        name=name or output.stem,
        selection=Selection(pairs, [_pattern(text, "--outside") for text in outside]),
        delay_s=delay,
        max_seconds=max_seconds,
        runs=runs,
        snapshot_s=snapshot,
        touch_resolution_ns=int(resolution * 1e6),
        buffer_mib=buffer,
        seed=seed,
        hide_names=hash_names,
        keep_names=keep_names,
        without_root=without_root or "",
        licence=licence,
        attribution=attribution,
    )
    record_command(options, output, click.echo)
