"""Importing in tests: files in, a checked trace out; and does it replay?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hvbench.traces.check import check_trace
from hvbench.traces.format import OP_NAMES, Trace, read_trace
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Report, Settings, import_files

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = "HVBENCH_SHARED_TRACES"


def shared(name: str) -> Path:
    """A real file of the collection that HVBENCH_SHARED_TRACES names; the test is skipped where it is missing."""
    folder = os.environ.get(SHARED)
    if not folder:
        pytest.skip(f"{SHARED} is not set: it names a folder with recordings that are not part of the repository")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path


def convert(
    format: str, paths: Path | list[Path], output: Path, settings: Settings | None = None, **options: Any
) -> tuple[Report, Trace]:
    """Import, check, read."""
    files = tuple(paths) if isinstance(paths, list) else (paths,)
    report = import_files(load_formats().get(format), files, output, settings, options)
    trace = read_trace(output)
    assert check_trace(trace) == []
    assert len(trace) == report.rows
    return report, trace


def counts(trace: Trace) -> dict[str, int]:
    """Operations by name."""
    found: dict[str, int] = {}
    for code in trace.columns["op"].tolist():
        found[OP_NAMES[code]] = found.get(OP_NAMES[code], 0) + 1
    return found


def replay(trace: Trace, folder: Path, horizon: str = "200ms", vms: int = 1) -> dict[str, Any]:
    """Run a workload of the trace, in the loop that it says, and give the cell's metrics; it has to end well."""
    from hvbench.cli import execute

    assert trace.path is not None
    tiers = trace.meta["tiers"]
    tables = "".join(
        f'\n[[vm]]\nname = "vm{i}"\ncount = {vms}\nmemory = "256MiB"\nvcpus = 2\ntrace = "{trace.path}"\n'
        f'tier = "{tier if len(tiers) > 1 else ""}"\ninstance = "{"i" if len(tiers) > 1 else ""}"\n'
        'image = ""\nstart = "0ns"\n'
        for i, tier in enumerate(tiers)
    )
    workload = folder / "w.toml"
    workload.write_text(
        f'format = 1\n[workload]\nname = "w"\nclass = "micro"\nhorizon = "{horizon}"\nwarmup = "0ns"\n'
        f'replay = "{trace.meta["replay"]}"\n[host]\npcpus = 4\nmemory = "4GiB"\n{tables}'
    )
    out = folder / "row.json"
    words = ["run", str(workload), "--db", str(folder / "w.db"), "--fresh", "-o", str(out)]
    assert execute(words) == 0
    (row,) = json.loads(out.read_text())
    assert row["status"] == "ok", row
    return dict(row)
