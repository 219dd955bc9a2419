"""Demand tables: what averaged sources say of VMs, interval by interval. `hvbench.traces.expand` makes traces of them.

A demand table is a Parquet file with a JSON object under the metadata key `hvbench`, its `kind` is "demand". A row is
an interval of one VM: `time_ns` (its begin, from the table's zero) and `duration_ns`, and, each -1 where the source
does not say:

- `cpu_ns`: CPU time that was used in it, over all cores; `cores`: how many there were;
- `memory_pages`: memory in use; `provisioned_pages`: what it was given;
- `read_bytes`, `written_bytes`, `reads`, `writes`: of its disks; `received_bytes`, `sent_bytes`: of its network.

Rows are sorted by VM and time and do not overlap; time that no row covers is unknown and has no demand. The
metadata's `vms` lists names, and what was put right (`dirt`). Averages become amounts as exactly as whole numbers
are: the CPU time of an interval is rounded to the nanosecond once, and kept from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.format import METADATA_KEY, canonical_meta
from hvbench.traces.importers.api import Batch, Import, names_of
from hvbench.traces.importers.spool import Spool
from hvbench.words import plural

KIND: Final = "demand"
COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "vm": np.dtype("i4"),
    "time_ns": np.dtype("i8"),
    "duration_ns": np.dtype("i8"),
    "cpu_ns": np.dtype("i8"),
    "cores": np.dtype("i4"),
    "memory_pages": np.dtype("i8"),
    "provisioned_pages": np.dtype("i8"),
    "read_bytes": np.dtype("i8"),
    "written_bytes": np.dtype("i8"),
    "reads": np.dtype("i8"),
    "writes": np.dtype("i8"),
    "received_bytes": np.dtype("i8"),
    "sent_bytes": np.dtype("i8"),
}
SILENT: Final = -1
#: Axis -> the columns that say something about it.
AXES: Final = {
    "cpu": ("cpu_ns",),
    "memory": ("memory_pages",),
    "storage": ("read_bytes", "written_bytes"),
    "network": ("received_bytes", "sent_bytes"),
}
MOST_CORES: Final = 4096


@define(frozen=True)
class Demand:
    """A demand table in memory, of some VMs."""

    meta: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    path: Path

    def of(self, vm: int) -> dict[str, NDArray[Any]]:
        """The rows of one VM."""
        first, end = np.searchsorted(self.columns["vm"], [vm, vm + 1])
        return {name: values[first:end] for name, values in self.columns.items()}

    def find(self, name: str) -> int:
        """A VM by its name, or its number from 0; UserError with some that exist."""
        names = [str(vm["name"]) for vm in self.meta["vms"]]
        if name in names:
            return names.index(name)
        if name.isdigit() and int(name) < len(names):
            return int(name)
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        raise UserError(f"{self.path}: no VM {name!r}; by number 0 to {len(names) - 1}, by name {shown}")


def add_vm(job: Import, name: str, **more: Any) -> int:
    """A VM of the table that is being imported; its number."""
    vms = job.meta.setdefault("vms", [])
    vms.append({"name": job.name(name), **more})
    return len(vms) - 1


def intervals(
    vm: int, time_ns: NDArray[np.int64], grain_ns: int, rates: dict[str, NDArray[Any]], gauges: dict[str, NDArray[Any]]
) -> tuple[Batch, dict[str, int]]:
    """One VM's samples as intervals, and what had to be put right.

    `rates` are amounts per second by column, `gauges` are values. A sample holds from its time to the next one's, but
    not for longer than `grain_ns` (0: the median distance): after a gap it is unknown what was. Of samples of one
    time the last counts; samples out of order are sorted.
    """
    dirt: dict[str, int] = {}
    order = np.argsort(time_ns, kind="stable")
    if (np.diff(time_ns) < 0).any():
        dirt["out_of_order"] = int((np.diff(time_ns) < 0).sum())
    time = time_ns[order]
    last = np.append(time[1:] != time[:-1], True) if len(time) else np.zeros(0, bool)
    if not last.all():
        dirt["duplicate_times"] = int((~last).sum())
    keep = order[last]
    time = time_ns[keep]
    steps = np.diff(time)
    grain = grain_ns or (int(np.median(steps)) if len(steps) else 0)
    if not grain:
        return {}, {**dirt, "single_sample": 1}
    duration = np.append(np.minimum(steps, grain), grain)
    gaps = int((steps > 2 * grain).sum())
    if gaps:
        dirt["gaps"] = gaps
    made: Batch = {
        "vm": np.full(len(time), vm, np.int32),
        "time_ns": time,
        "duration_ns": duration,
    }
    for name, values in rates.items():
        given = values[keep]
        amount = np.rint(np.maximum(given, 0) * (duration / 1e9))
        made[name] = np.where(np.isfinite(given) & (given >= 0), amount, SILENT).astype(np.int64)
    for name, values in gauges.items():
        made[name] = values[keep].astype(np.int64)
    if "memory_pages" in made and "provisioned_pages" in made:
        over = (made["memory_pages"] > made["provisioned_pages"]) & (made["provisioned_pages"] >= 0)
        if over.any():
            dirt["memory_above_provision"] = int(over.sum())
            made["memory_pages"] = np.where(over, made["provisioned_pages"], made["memory_pages"])
    if "cores" in made and (np.diff(made["cores"]) != 0).any():
        dirt["changes_of_cores"] = int((np.diff(made["cores"]) != 0).sum())
    if "cpu_ns" in made and "cores" in made:
        above = made["cpu_ns"] > made["cores"] * duration
        if above.any():
            dirt["cpu_above_cores"] = int(above.sum())
    return made, dirt


DIRT: Final = {
    "out_of_order": "samples out of order: sorted",
    "duplicate_times": "samples of a time that another has: the last one counts",
    "gaps": "gaps of more than two intervals: no demand in them",
    "memory_above_provision": "samples with more memory in use than provisioned: cut to that",
    "changes_of_cores": "changes of the number of cores: kept, each interval has its own",
    "cpu_above_cores": "intervals with more CPU time than the cores have: kept as demand",
    "single_sample": "VMs with a single sample, which says nothing of time: left out",
}


def note_dirt(job: Import, found: dict[str, int]) -> None:
    """Sum up what was put right, as notes and in the metadata."""
    total = job.meta.setdefault("dirt", {})
    for name, count in found.items():
        total[name] = total.get(name, 0) + count


def write_demand(job: Import, output: Path, common: Callable[[], dict[str, Any]]) -> Any:
    """Run a format that makes demand, and write its table atomically."""
    from hvbench.traces.importers.run import Report, check_clocks

    spool = Spool(output.parent, dict(COLUMNS), dict.fromkeys(COLUMNS, SILENT), "vm")
    try:
        said: set[str] = set()
        for batch in job.format.read(job):
            said |= {name for name, values in batch.items() if (values != SILENT).any()}
            if len(batch.get("time_ns", ())):
                job.until(int((batch["time_ns"] + batch["duration_ns"]).max()))
            if batch:
                spool.add(batch)
        check_clocks(job)
        for name, count in job.meta.get("dirt", {}).items():
            job.note(f"{count} {DIRT[name]}")
        if not spool.rows:
            files = names_of(tuple(Path(name) for name in job.clocks))
            because = f" ({job.notes[0]})" if job.notes else ""
            raise UserError(f"{files or 'the files'}: no interval of any VM in it{because}")
        start = spool.first_ns
        silent = [axis for axis, columns in AXES.items() if not said & set(columns)]
        reasons = {axis: job.unsaid[axis] for axis in silent if axis in job.unsaid}
        if reasons:
            job.meta["silent_because"] = reasons
        meta = {**common(), "kind": KIND, "span_ns": int(job.end_ns - start), "silent": silent, **job.meta}
        meta["replay"] = "open"
        _write(output, meta, spool, start)
    finally:
        spool.close()
    return Report(
        output, job.format.name, KIND, spool.rows, meta["span_ns"], "open", silent, job.notes, len(meta["vms"]),
        sum(item["bytes"] for item in meta["import"]["files"]), reasons,
    )  # fmt: skip


def _write(output: Path, meta: dict[str, Any], spool: Spool, start: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field(name, pa.from_numpy_dtype(kind), nullable=False) for name, kind in COLUMNS.items()]
    schema = pa.schema(fields, metadata={METADATA_KEY: canonical_meta(meta)})
    try:
        fd, temporary = tempfile.mkstemp(prefix=output.name + ".", suffix=".tmp", dir=output.parent)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(fd, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for piece in spool.pieces():
                piece["time_ns"] = piece["time_ns"] - start
                count = len(piece["time_ns"])
                arrays = [
                    pa.array(piece[name].astype(kind) if name in piece else np.full(count, SILENT, kind))
                    for name, kind in COLUMNS.items()
                ]
                writer.write_table(pa.table(arrays, schema=schema))
        os.chmod(temporary, 0o644)
        os.replace(temporary, output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_meta(path: Path) -> dict[str, Any] | None:
    """The metadata of a demand table; None for any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                return None
        raw = pq.read_schema(path).metadata or {}
        meta = json.loads(raw.get(METADATA_KEY, b"null"))
    except (OSError, ValueError, pa.ArrowException):
        return None
    return meta if isinstance(meta, dict) and meta.get("kind") == KIND else None


def expand_hint(path: Path, meta: dict[str, Any]) -> str:
    """What a demand table is and what to do, where a trace was wanted."""
    count = len(meta.get("vms", ()))
    return (
        f"a demand table of {plural(count, 'VM')}, no trace; `hvbench import demand {path} --expand -o "
        f"{path.name.split('.')[0]}.trace.parquet` makes a trace of it"
    )


def summary(path: Path) -> dict[str, Any] | None:
    """Figures of a demand table; None for any other file."""
    meta = read_meta(path)
    if meta is None:
        return None
    c = read_demand(path).columns
    known = c["cpu_ns"] != SILENT
    duration = int(c["duration_ns"][known].sum())
    return {
        "file": str(path),
        "kind": KIND,
        "name": str(meta.get("name", "")),
        "vms": len(meta.get("vms", ())),
        "intervals": len(c["vm"]),
        "span_ns": int(meta.get("span_ns", 0)),
        "cores_used_mean": int(c["cpu_ns"][known].sum()) / duration if duration else 0.0,
        "memory_most_pages": int(c["memory_pages"].max(initial=0)),
        "silent": list(meta.get("silent", ())),
        "degraded": list(meta.get("degraded", ())),
        "text": expand_hint(path, meta),
    }


def format_summary(found: dict[str, Any]) -> str:
    """`summary` as lines for a terminal."""
    lines = [
        f"{found['file']}: {found['text']}",
        f"  span          {found['span_ns'] / 1e9:.6g} s, {plural(found['intervals'], 'interval')}",
        f"  compute       {found['cores_used_mean']:.3f} cores of a VM in the mean",
        f"  memory        {found['memory_most_pages'] / 256:.1f} MiB of a VM at most",
    ]
    silent = {"compute": "cpu", "memory": "memory"}
    lines = [line for line in lines if silent.get(line[2:9].strip(), "") not in found["silent"]]
    if found["silent"]:
        lines.append(f"  silent        {', '.join(found['silent'])}")
    return "\n".join(lines + [f"  degraded      {sentence}" for sentence in found["degraded"]])


def _what_it_is(path: Path) -> str:
    """What a file is that is no demand table, and what helps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    make = "`hvbench import FORMAT FILE -o NEW.demand.parquet` makes one of averages"
    try:
        with path.open("rb") as file:
            head, size = file.read(4), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4))
            tail = file.read(4)
        if head != b"PAR1":
            return f"not a demand table, and not Parquet; {make}"
        if tail != b"PAR1" or size < 12:
            return f"truncated: the file ends after {plural(size, 'byte')} without Parquet's footer; copy it again"
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"cannot be read as Parquet, the file is damaged: {reason}"
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        shown = ", ".join(schema.names[:6]) + (" …" if len(schema.names) > 6 else "")
        return f"Parquet of another program (columns {shown}), no demand table; {make}"
    with contextlib.suppress(ValueError):
        meta = json.loads(raw)
        if isinstance(meta, dict) and "threads" in meta:
            return f"a trace already, which needs no import; `hvbench trace info {path}` describes it"
    return "its `hvbench` metadata is damaged: neither a trace nor a demand table"


def read_demand(path: Path, vms: list[int] | None = None, called: Path | None = None) -> Demand:
    """Read a demand table, or some VMs of it; UserError where it is none. `called`: how messages name it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = read_meta(path)
    if meta is None:
        raise UserError(f"{called or path}: {_what_it_is(path)}")
    filters = [("vm", "in", vms)] if vms is not None else None
    try:
        table = pq.read_table(path, columns=list(COLUMNS), filters=filters)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{called or path}: a demand table, but damaged: {reason}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{called or path}: a demand table, but columns are missing: {', '.join(missing)}")
    columns = {name: table.column(name).to_numpy().astype(kind) for name, kind in COLUMNS.items()}
    return Demand(meta, columns, called or path)
