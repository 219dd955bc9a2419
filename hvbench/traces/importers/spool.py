"""Rows of any length into a sorted Parquet file in bounded memory.

Batches are gathered up to `RUN_BYTES`, sorted by thread and time and, if more come, written to a temporary file as a
*run*: a column behind the other, in the narrowest type, those that hold nothing left out. At the end the runs are
merged thread by thread, in pieces, into row groups. What fits into one run never touches the disk before the trace
itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import ABSENT, COLUMNS, OP_NAMES, TraceWriter
from hvbench.traces.importers.api import Batch

RUN_BYTES: Final = 16 << 20
PIECE_ROWS: Final = 1 << 17
"""Rows handed to the writer at a time, and merged at a time."""


@define
class _Column:
    """Where a run's column lies in the file; an absent one is the same everywhere."""

    kind: np.dtype[Any]
    at: int


@define
class _Run:
    rows: int
    columns: dict[str, _Column]
    first: dict[int, int]  # thread -> first row
    end: dict[int, int]


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """The same values in the narrowest integer type."""
    if values.dtype == np.uint64 or not len(values):
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.int8, np.int16, np.int32):
        info = np.iinfo(kind)
        if info.min <= low and high <= info.max:
            return values.astype(kind)
    return values


@define
class Spool:
    """Takes batches, gives sorted pieces."""

    folder: Path
    kinds: dict[str, np.dtype[Any]] = field(factory=lambda: dict(COLUMNS))
    """The columns there may be; "time_ns" among them."""
    absent: dict[str, int] = field(factory=lambda: dict(ABSENT))
    """What a column holds where a batch leaves it out, if not 0."""
    key: str = "thread"
    """The column that is sorted by first."""
    rows: int = 0
    first_ns: int = 1 << 62
    last_ns: int = -(1 << 62)
    ops: NDArray[np.int64] = field(factory=lambda: np.zeros(len(OP_NAMES), np.int64))
    _batches: list[Batch] = field(factory=list)
    _held: int = 0
    _runs: list[_Run] = field(factory=list)
    _file: Any = None
    _written: int = 0

    def add(self, batch: Batch) -> None:
        """Take a batch; its columns are checked for their lengths and names."""
        count = len(batch["time_ns"])
        if not count:
            return
        for name, values in batch.items():
            if name not in self.kinds or len(values) != count:
                raise ValueError(f"a batch has {len(values)} rows in column {name}, {count} in time_ns")
        self.rows += count
        time = batch["time_ns"]
        self.first_ns = min(self.first_ns, int(time.min()))
        self.last_ns = max(self.last_ns, int(time.max()))
        if "op" in batch:
            self.ops += np.bincount(batch["op"], minlength=len(OP_NAMES))
        self._batches.append(batch)
        self._held += sum(values.nbytes if values.strides[0] else 8 * count for values in batch.values())
        if self._held >= RUN_BYTES:
            self._spill()

    def _sorted(self) -> Batch:
        """All batches held as one, sorted by thread, then time, then as they came."""
        batches, self._batches, self._held = self._batches, [], 0
        names = sorted({name for batch in batches for name in batch})
        whole: Batch = {}
        for name in names:
            parts = [
                batch[name]
                if name in batch
                else np.full(len(batch["time_ns"]), self.absent.get(name, 0), self.kinds[name])
                for batch in batches
            ]
            whole[name] = np.concatenate(parts) if len(parts) > 1 else np.asarray(parts[0])
        order = np.lexsort((whole["time_ns"], whole[self.key]))
        return {name: values[order] for name, values in whole.items()}

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="hvbench-import-", dir=self.folder)  # noqa: SIM115
        whole = self._sorted()
        columns: dict[str, _Column] = {}
        for name, values in whole.items():
            absent = self.absent.get(name, 0)
            if name != self.key and (values == absent).all():
                continue
            kept = _narrow(values)
            columns[name] = _Column(kept.dtype, self._written)
            self._file.write(np.ascontiguousarray(kept).data)
            self._written += kept.nbytes
        threads = whole[self.key]
        distinct, first = np.unique(threads, return_index=True)
        end = np.append(first[1:], len(threads))
        self._runs.append(
            _Run(
                len(threads),
                columns,
                dict(zip(distinct.tolist(), first.tolist(), strict=True)),
                dict(zip(distinct.tolist(), end.tolist(), strict=True)),
            )
        )

    def _read(self, run: _Run, name: str, first: int, end: int) -> NDArray[Any]:
        column = run.columns.get(name)
        if column is None:
            return np.full(end - first, self.absent.get(name, 0), self.kinds[name])
        self._file.seek(column.at + first * column.kind.itemsize)
        data = self._file.read((end - first) * column.kind.itemsize)
        return np.frombuffer(data, column.kind).astype(self.kinds[name])

    def pieces(self) -> Iterator[Batch]:
        """All rows in order, in pieces; every piece has every column that any row uses."""
        if not self._runs:
            if self._batches:
                whole = self._sorted()
                for at in range(0, len(whole["time_ns"]), PIECE_ROWS):
                    yield {name: values[at : at + PIECE_ROWS] for name, values in whole.items()}
            return
        if self._batches:
            self._spill()
        for thread in sorted({thread for run in self._runs for thread in run.first}):
            yield from self._merged(thread)
        self._file.close()
        self._file = None

    def write(self, output: Path, meta: dict[str, Any], start_ns: int) -> None:
        """Write all rows as a trace; what was at `start_ns` is at its zero."""
        with TraceWriter(output, meta) as writer:
            for piece in self.pieces():
                piece["time_ns"] = piece["time_ns"] - start_ns
                writer.add(piece)

    def close(self) -> None:
        """Drop everything."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _merged(self, thread: int) -> Iterator[Batch]:
        """One thread's rows from all runs, by time; among equal times earlier runs come first."""
        left = [(run, run.first[thread], run.end[thread]) for run in self._runs if thread in run.first]
        while left:
            share = max(1024, PIECE_ROWS // len(left))
            heads = [self._read(run, "time_ns", at, min(end, at + share)) for run, at, end in left]
            # up to here nothing earlier can follow: the least of the last times of runs that go on
            bounds = [int(head[-1]) for head, (_, at, end) in zip(heads, left, strict=True) if at + len(head) < end]
            bound = min(bounds, default=1 << 62)
            taken = [
                len(head) if int(head[-1]) < bound else int(np.searchsorted(head, bound, side="left")) for head in heads
            ]
            if not any(taken):
                # nothing lies before the bound: the earliest run that begins there gives what it has of that time
                number = next(i for i, head in enumerate(heads) if int(head[0]) == bound)
                taken[number] = int(np.searchsorted(heads[number], bound, side="right"))
            order = np.argsort(
                np.concatenate([head[:count] for head, count in zip(heads, taken, strict=True)]), kind="stable"
            )
            parts = [(run, at, at + count) for (run, at, _), count in zip(left, taken, strict=True) if count]
            used = sorted(
                {name for run, _, _ in parts for name in run.columns}
                | {self.key, "time_ns"}
                | ({"op"} & set(self.kinds))
            )
            yield {name: np.concatenate([self._read(run, name, a, b) for run, a, b in parts])[order] for name in used}
            left = [(run, at + n, end) for (run, at, end), n in zip(left, taken, strict=True) if at + n < end]
