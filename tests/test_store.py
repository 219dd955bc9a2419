"""The results file: what is put is got, and bad files are one clear line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import attrs
import pytest

from hvbench.axes import AXES
from hvbench.cell import CellResult
from hvbench.errors import UserError
from hvbench.store import Row, Store


def make_row(key: str = "k1", status: str = "ok", **changes: object) -> Row:
    labels = dict.fromkeys(AXES, "x")
    row = Row(key, "build", labels, False, 1, 10, 5, CellResult(status, metrics={"a": 1.5}), None, 100.0)
    return attrs.evolve(row, **changes)


def test_what_is_put_is_got_by_another_process_too(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with Store(path) as store:
        store.put(make_row())
        store.put(make_row("k2", "refused", shared_from="k1", control=True))
        with Store(path) as other:
            assert other.get(["k1", "k2", "k3"]) == {
                "k1": make_row(),
                "k2": make_row("k2", "refused", shared_from="k1", control=True),
            }


def test_a_result_replaces_the_one_before(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db") as store:
        store.put(make_row())
        store.put(make_row(status="failed"))
        assert store.get(["k1"])["k1"].status == "failed"


def test_many_keys_are_got_in_parts(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db") as store:
        store.put_many(make_row(f"k{i}") for i in range(1203))
        assert len(store.get(f"k{i}" for i in range(2000))) == 1203


def test_runs_are_remembered_in_order(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db") as store:
        store.put_many([make_row("a"), make_row("b"), make_row("c")])
        first = store.begin_run("matrix one", ["c", "a"])
        store.begin_run("matrix two", ["b", "missing"])
        assert [row.key for row in store.run_rows()] == ["b"]
        assert [row.key for row in store.run_rows(first)] == ["c", "a"]
        assert [run[2:] for run in store.runs()] == [("matrix one", 2, 2), ("matrix two", 2, 1)]
        with pytest.raises(UserError, match="no run 99"):
            store.run_rows(99)


def test_a_run_that_finished_nothing_hides_no_results(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db") as store:
        assert store.run_rows() == []
        store.put(make_row("a"))
        store.begin_run("matrix", ["a"])
        refused = store.begin_run("run with bad input", ["missing"])
        assert [row.key for row in store.run_rows()] == ["a"]
        assert store.run_rows(refused) == []
        assert [run[3:] for run in store.runs()] == [(1, 1), (1, 0)]


def test_the_newest_result_of_a_combination_counts(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db") as store:
        store.put(make_row("new", finished_at=200.0))
        store.put(make_row("old", finished_at=100.0))
        assert [row.key for row in store.all_rows()] == ["new"]


def test_an_unfinished_transaction_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> object:
        yield make_row("a")
        raise RuntimeError("in the middle")

    with Store(tmp_path / "r.db") as store:
        with pytest.raises(RuntimeError):
            store.put_many(rows())  # type: ignore[arg-type]
        assert store.get(["a"]) == {}
        store.put(make_row("b"))


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough" * 50, b"SQLite format 3\0" + b"\7" * 5000]
)
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged, or no results file") as caught:
        Store(path)
    assert "--db" in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(UserError, match="schema version 99"):
        Store(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results file"):
        Store(tmp_path / "r.db", create=False)
    with pytest.raises(UserError, match="folder does not exist"):
        Store(tmp_path / "no" / "r.db")
