"""Convert public data into bundled traces: `python workloads/convert.py NAME FOLDER`.

Every trace in `workloads/converted/` was made by this script. FOLDER holds what each one is made of:

- azure: `azure_v1_avg_100.csv.gz`, CPU % of 100 VMs of AzurePublicDataset V1, a column a VM, a line for 5 minutes;
- two-vms: a recording of two QEMU guests as `hvbench`'s recipe makes it: `vcpu_sched.txt.gz` (sched events of the vCPU
  threads), `vm?.qtrace.gz` (block requests), `vm0.pcap.gz`, `pagehash.txt.gz` and `meta.json`;
- bitbrains: `bitbrains.csv` and `bitbrains-small.{meta,trace}.parquet` of the OpenDC project.

What the sources do not say is not made up: Azure's VMs have no core counts (each gets one vCPU) and no memory, of
Bitbrains' only the first says anything but CPU. Averages are expanded by `hvbench.traces.expand`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

from hvbench.errors import UserError
from hvbench.traces.expand import Choice, expand_file
from hvbench.traces.format import read_trace, write_trace
from hvbench.traces.handle.scale import scale
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings, import_files

TARGET: Final = Path(__file__).resolve().parent / "converted"
SEED: Final = 1
MINUTE_NS: Final = 60 * 10**9
WINDOW_NS: Final = 20 * MINUTE_NS
MIN_BURST_NS: Final = 15_000_000
"""Keeps 20 minutes of several VMs below 300 kB."""
DONOR: Final = "cc-build"
SHORT: Final = "Timestamp [ms];CPU cores;CPU usage [%]\n"

AZURE: Final = (
    "Microsoft, AzurePublicDataset V1 (E. Cortez et al., Resource Central, SOSP 2017), CC-BY 4.0, by way of "
    "carlonlv/DataCenterSim; changed: CPU averages of some VMs expanded to bursts"
)
BITBRAINS: Final = (
    "Bitbrains GWA-T-12 (S. Shen, V. van Beek, A. Iosup, CCGrid 2015), as published by atlarge-research/opendc (MIT); "
    "changed: averages of some VMs expanded to bursts, memory scaled"
)


def order(names: list[str]) -> list[str]:
    """The seeded order in which VMs are taken."""
    return sorted(names, key=lambda name: hashlib.blake2b(f"{SEED}:{name}".encode(), digest_size=8).digest())


def expand(
    files: list[Path], name: str, about: str, from_ns: int, licence: str, attribution: str, memory: Fraction
) -> None:
    """One trace of all files (each a VM and a tier) from some time on."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "demand.parquet"
        settings = Settings(name=name, keep_names=True, licence=licence, attribution=attribution)
        import_files(load_formats().by_name["bitbrains"], tuple(files), table, settings)
        made = Path(scratch) / f"{name}.parquet"
        choice = Choice(DONOR, SEED, (), from_ns, from_ns + WINDOW_NS, min_burst_ns=MIN_BURST_NS)
        expand_file(table, made, choice, {"name": name, "command": about})
        trace = read_trace(made)
        if memory != 1:
            trace = scale(trace, memory=memory)
        written = write_trace(TARGET / f"{name}.parquet", trace.meta, trace.columns)
    size = (TARGET / f"{name}.parquet").stat().st_size
    print(f"{name}: {len(written)} operations, tiers {', '.join(written.meta['tiers'])}, {size / 1000:.0f} kB")


def azure(source: Path, scratch: Path) -> None:
    """Six VMs drawn among those that are busy at least 2 % of the time, of the second day's morning."""
    with gzip.open(source / "azure_v1_avg_100.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    first = 12 * 24 + 12 * 9
    last = first + WINDOW_NS // (5 * MINUTE_NS)
    busy = [name for name in rows[0] if name != "interval" and all(float(row[name]) >= 2 for row in rows[first:last])]
    files = []
    for name in order(busy)[:6]:
        path = scratch / f"vm-{name}.csv"
        path.write_text(SHORT + "".join(f"{1_500_000_000 + 300 * i};1;{row[name]}\n" for i, row in enumerate(rows)))
        files.append(path)
    about = "Averages of 6 Azure VMs over 5 minutes, expanded to bursts."
    expand(files, "azure", about, first * 5 * MINUTE_NS, "CC-BY-4.0", AZURE, Fraction(1))


def bitbrains(source: Path, scratch: Path) -> None:
    """The VM of which everything is known, and five drawn of those with CPU only; ten hours after they begin."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    meta = {row["id"]: row for row in pq.read_table(source / "bitbrains-small.meta.parquet").to_pylist()}
    trace = pq.read_table(source / "bitbrains-small.trace.parquet")
    whole = scratch / "vm-full.csv"
    whole.write_bytes((source / "bitbrains.csv").read_bytes())
    files = [whole]
    for name in order(list(meta)):
        about = meta[name]
        samples = trace.filter(pc.equal(trace["id"], name)).to_pylist()
        capacity = about["cpu_count"] * about["cpu_capacity"]
        used = [100 * sample["cpu_usage"] / capacity for sample in samples]
        if not 1 <= sum(used[120:124]) / 4 <= 100:
            continue
        path = scratch / f"vm-{name}.csv"
        path.write_text(SHORT + "".join(_lines(samples, used)))
        files.append(path)
        if len(files) == 6:
            break
    about = "Averages of 6 VMs of Bitbrains over 5 minutes, expanded to bursts."
    expand(files, "bitbrains", about, 600 * MINUTE_NS, "MIT", BITBRAINS, Fraction(1, 4))


def _lines(samples: list[dict[str, object]], used: list[float]) -> Iterator[str]:
    """A sample of OpenDC is named by its end."""
    for sample, percent in zip(samples, used, strict=True):
        end = sample["timestamp"].timestamp()
        yield f"{int(end) - 300};{sample['cpu_count']};{percent:.6f}\n"


def two_vms(source: Path, scratch: Path) -> None:
    """See workloads/two_vms.py."""
    from two_vms import convert

    TARGET.mkdir(exist_ok=True)
    convert(source, scratch, TARGET / "two-vms.parquet")


CONVERSIONS: Final[dict[str, Callable[[Path, Path], None]]] = {
    "azure": azure,
    "bitbrains": bitbrains,
    "two-vms": two_vms,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(CONVERSIONS))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            CONVERSIONS[given.name](given.folder, Path(scratch))
    except (UserError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
