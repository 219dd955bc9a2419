"""Results as files: CSV, JSON or Parquet by the name's ending, written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS
from hvbench.store import Row
from hvbench.whole import written_whole


def check_output(path: Path) -> Path:
    """A path that can be written to in a known format; UserError before anything is computed."""
    if path.suffix not in _WRITERS:
        raise UserError(f"{path}: the name must end in {', '.join(_WRITERS)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist")
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    return path


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write one record a cell; a reader never sees half a file."""
    check_output(path)
    with written_whole(path) as temporary:
        _WRITERS[path.suffix](rows, temporary)


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Flat records with the same keys in each: what the cell was, how it ended, every metric."""
    names = [name for name in CELL_METRICS if any(name in row.result.metrics for row in rows)]
    others = sorted({name for row in rows for name in row.result.metrics} - set(names))
    return [
        {
            "workload": row.workload,
            **{axis: row.labels[axis] for axis in AXES},
            "control": row.control,
            "seed": row.seed,
            "horizon_ns": row.horizon_ns,
            "warmup_ns": row.warmup_ns,
            "status": row.status,
            "reason": row.result.reason,
            "key": row.key,
            "shared_from": row.shared_from,
            "wall_s": row.result.wall_s,
            **{name: row.result.metrics.get(name) for name in (*names, *others)},
        }
        for row in rows
    ]


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    flat = records(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat[0]) if flat else ["workload", *AXES])
        writer.writeheader()
        writer.writerows(flat)


def _write_json(rows: Sequence[Row], path: Path) -> None:
    full = [
        {
            **flat,
            "vms": row.result.vms,
            "vcpu_ready_ns": row.result.vcpu_ready_ns,
            "axis_asks": row.result.axis_asks,
            "notes": row.result.notes,
        }
        for flat, row in zip(records(rows), rows, strict=True)
    ]
    path.write_text(json.dumps(_finite(full), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON has no infinity and no nan: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    flat = records(rows)
    columns: dict[str, list[Any]] = {name: [record[name] for record in flat] for name in flat[0]} if flat else {}
    for name, values in columns.items():
        # One metric may be whole in one cell and not in the next.
        if any(isinstance(value, float) for value in values):
            columns[name] = [None if value is None else float(value) for value in values]
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")


_WRITERS: dict[str, Callable[[Sequence[Row], Path], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
