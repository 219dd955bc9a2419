"""Results in one SQLite file: a cell is committed as it finishes, and never computed again.

The write-ahead log keeps the file whole wherever a run is killed: at worst the cells in flight are lost.
A run of `matrix` or `run` is remembered with the keys of its cells, so that `hvbench results` shows it again.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import define

from hvbench.axes import AXES
from hvbench.cell import Cell, CellResult
from hvbench.errors import UserError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x48564221
"""Marks the file as ours (`HVB!`), so that another program's database is never written to."""

_SCHEMA = f"""
CREATE TABLE cells (
    key TEXT PRIMARY KEY,
    workload TEXT NOT NULL,
    {" ".join(f"{axis} TEXT NOT NULL," for axis in AXES)}
    control INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    horizon_ns INTEGER NOT NULL,
    warmup_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    result TEXT NOT NULL,
    wall_s REAL NOT NULL,
    shared_from TEXT,
    finished_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    command TEXT NOT NULL
);
CREATE TABLE run_cells (
    run INTEGER NOT NULL REFERENCES runs (id),
    position INTEGER NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (run, position)
) WITHOUT ROWID;
"""


@define(frozen=True)
class Row:
    """A stored result and what it is of. `shared_from` is the key of the cell computed in its place."""

    key: str
    workload: str
    labels: dict[str, str]
    control: bool
    seed: int
    horizon_ns: int
    warmup_ns: int
    result: CellResult
    shared_from: str | None = None
    finished_at: float = 0.0

    @property
    def status(self) -> str:
        return self.result.status


def row_of(cell: Cell, result: CellResult, shared_from: str | None = None) -> Row:
    """A result as it is stored for `cell`."""
    return Row(
        cell.key,
        cell.workload.name,
        {axis: cell.labels.get(axis, "") for axis in AXES},
        cell.is_control,
        cell.seed,
        cell.horizon_ns,
        cell.warmup_ns,
        result,
        shared_from,
        time.time(),
    )


class Store:
    """One results file. Used by one thread; other processes may read and write it meanwhile."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        if not create and not path.exists():
            raise UserError(f"{path}: no results file; hvbench matrix makes one, --db names another")
        if not path.parent.is_dir():
            raise UserError(f"{path}: its folder does not exist")
        try:
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise UserError(f"{path}: cannot be opened: {error}") from error
        with self._readable():
            self._prepare()

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        if version == 0 and application == 0 and not self._has_tables():
            self._db.execute("PRAGMA journal_mode=WAL")
            # Two processes may start on a new file at once: the second finds the tables made.
            self._db.execute("BEGIN IMMEDIATE")
            if not self._has_tables():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        elif application != APPLICATION_ID:
            raise UserError(f"{self.path}: an SQLite file of another program; name another with --db")
        elif version != SCHEMA_VERSION:
            raise UserError(
                f"{self.path}: results of schema version {version}, this hvbench writes {SCHEMA_VERSION}; "
                "name another file with --db"
            )
        self._db.execute("PRAGMA synchronous=NORMAL")

    def _has_tables(self) -> bool:
        return self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what SQLite says of a damaged or locked file into one clear line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self.path}: damaged, or no results file ({error}); move it away, or name another with --db"
            ) from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing ---------------------------------------------------------------------------------------

    def put(self, row: Row) -> None:
        """Store one result; it is safe when this returns."""
        self.put_many([row])

    def put_many(self, rows: Iterable[Row]) -> None:
        """Store results in one transaction."""
        values = [
            (
                row.key,
                row.workload,
                *(row.labels[axis] for axis in AXES),
                int(row.control),
                row.seed,
                row.horizon_ns,
                row.warmup_ns,
                row.result.status,
                row.result.to_json(),
                row.result.wall_s,
                row.shared_from,
                row.finished_at,
            )
            for row in rows
        ]
        if not values:
            return
        marks = ",".join("?" * len(values[0]))
        with self._readable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(f"INSERT OR REPLACE INTO cells VALUES ({marks})", values)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def begin_run(self, command: str, keys: Iterable[str]) -> int:
        """Remember a run and the keys of its cells; returns its number."""
        with self._readable():
            self._db.execute("BEGIN IMMEDIATE")
            run = self._db.execute(
                "INSERT INTO runs (started_at, command) VALUES (?, ?)", (time.time(), command)
            ).lastrowid
            self._db.executemany(
                "INSERT INTO run_cells VALUES (?, ?, ?)", ((run, i, key) for i, key in enumerate(keys))
            )
            self._db.execute("COMMIT")
        assert run is not None
        return run

    # --- reading ---------------------------------------------------------------------------------------

    def get(self, keys: Iterable[str]) -> dict[str, Row]:
        """The stored results among `keys`."""
        wanted = list(keys)
        found: dict[str, Row] = {}
        with self._readable():
            for start in range(0, len(wanted), 500):
                part = wanted[start : start + 500]
                marks = ",".join("?" * len(part))
                for values in self._db.execute(f"SELECT * FROM cells WHERE key IN ({marks})", part):
                    row = self._row(values)
                    found[row.key] = row
        return found

    def runs(self) -> list[tuple[int, float, str, int, int]]:
        """Every run: number, start (seconds since the epoch), command, cells, finished cells."""
        with self._readable():
            return self._db.execute(
                "SELECT id, started_at, command, (SELECT count(*) FROM run_cells WHERE run = id), "
                "(SELECT count(*) FROM run_cells JOIN cells USING (key) WHERE run = id) FROM runs ORDER BY id"
            ).fetchall()

    def run_rows(self, run: int | None = None) -> list[Row]:
        """The finished cells of a run, in its order; of the last one that has any where none is named."""
        with self._readable():
            if run is None:
                run = self._db.execute("SELECT max(run) FROM run_cells JOIN cells USING (key)").fetchone()[0]
            elif not self._db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone():
                raise UserError(f"{self.path}: no run {run}; see hvbench results --runs")
            return [
                self._row(values)
                for values in self._db.execute(
                    "SELECT cells.* FROM run_cells JOIN cells USING (key) WHERE run = ? ORDER BY position",
                    (run,),
                )
            ]

    def all_rows(self) -> list[Row]:
        """The newest result of every workload, combination, seed and horizon."""
        newest: dict[tuple[object, ...], Row] = {}
        with self._readable():
            for values in self._db.execute("SELECT * FROM cells ORDER BY finished_at"):
                row = self._row(values)
                newest[row.workload, *row.labels.values(), row.seed, row.horizon_ns, row.warmup_ns] = row
        return list(newest.values())

    def mean_wall_s(self) -> dict[str, float]:
        """Mean computing time of a cell of each workload, of cells computed so far."""
        with self._readable():
            return dict(
                self._db.execute(
                    "SELECT workload, avg(wall_s) FROM cells "
                    "WHERE shared_from IS NULL AND status != 'refused' GROUP BY workload"
                )
            )

    @staticmethod
    def _row(values: tuple[object, ...]) -> Row:
        key, workload = str(values[0]), str(values[1])
        labels = {axis: str(value) for axis, value in zip(AXES, values[2 : 2 + len(AXES)], strict=True)}
        control, seed, horizon_ns, warmup_ns, _, text, _, shared_from, finished_at = values[2 + len(AXES) :]
        try:
            result = CellResult.from_json(str(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise sqlite3.DatabaseError(f"the result of {key} cannot be read: {error}") from error
        return Row(
            key,
            workload,
            labels,
            bool(control),
            int(str(seed)),
            int(str(horizon_ns)),
            int(str(warmup_ns)),
            result,
            None if shared_from is None else str(shared_from),
            float(str(finished_at)),
        )
