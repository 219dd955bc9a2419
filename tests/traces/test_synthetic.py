"""Synthetic traces: what the generators write, hand-worked, and that a replay takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvbench.errors import UserError
from hvbench.traces import synthetic
from hvbench.traces.check import check_trace
from hvbench.traces.format import OP_NAMES, Trace, read_trace
from hvbench.traces.load import load_image, load_trace
from hvbench.traces.synthetic import Script, in_turn, repeated, rows


def listed(trace: Trace, *columns: str) -> list[tuple[object, ...]]:
    c = trace.columns
    return [(OP_NAMES[c["op"][i]], *(int(c[name][i]) for name in columns)) for i in range(len(c["op"]))]


def test_rows_take_turns_and_repeat() -> None:
    script = Script("small")
    pair = in_turn(rows("compute", user_ns=[5, 7]), rows("sleep", 2, duration_ns=100))
    script.thread(repeated(pair, 2))
    c = script.columns()
    assert c["user_ns"].tolist() == [5, 0, 7, 0] * 2
    assert c["duration_ns"].tolist() == [0, 100] * 4
    assert c["time_ns"].tolist() == [0, 5, 105, 112, 212, 217, 317, 324]


def test_every_generator_writes_a_trace_that_can_be_replayed(tmp_path: Path) -> None:
    made = [
        synthetic.compute_bound(bursts=3),
        synthetic.idle_guest(),
        synthetic.file_clients(3, 30, 64, 4),
        synthetic.critical_sections([10, 20, 30, 40], 5, locks=2),
        synthetic.synchronous_writer([100, 200], pages=2, span_pages=100),
        synthetic.jobs([10, 30], [5, 5]),
        synthetic.disk_requests([10, 30], [1, 2]),
        synthetic.working_sets([(0, 4, 100), (2, 6, 100)], 8),
    ]
    for script in made:
        trace = script.save(tmp_path / f"{script.name}.parquet")
        assert check_trace(trace) == [], script.name
        assert trace.meta["synthetic"] is True
        assert load_trace(tmp_path / f"{script.name}.parquet").name == script.name


def test_critical_sections_are_dealt_to_threads_and_locks(tmp_path: Path) -> None:
    trace = synthetic.critical_sections([1, 2, 3, 4], [10, 20, 30, 40], locks=2).save(tmp_path / "t.parquet")
    assert listed(trace, "thread", "user_ns", "kernel_ns", "peer")[:8] == [
        ("compute", 0, 1, 0, -1),
        ("lock", 0, 0, 0, 0),
        ("compute", 0, 0, 10, -1),
        ("unlock", 0, 0, 0, 0),
        ("compute", 0, 3, 0, -1),
        ("lock", 0, 0, 0, 1),
        ("compute", 0, 0, 30, -1),
        ("unlock", 0, 0, 0, 1),
    ]


def test_a_writer_writes_whole_pages_within_its_span(tmp_path: Path) -> None:
    trace = synthetic.synchronous_writer(np.full(50, 9), pages=4, span_pages=10).save(tmp_path / "t.parquet")
    writes = trace.columns["op"] == OP_NAMES.index("blk_write")
    assert set(trace.columns["pages"][writes]) == {32}
    first = trace.columns["page"][writes]
    assert (first % 8 == 0).all() and first.min() >= 0 and first.max() <= 6 * 8
    assert listed(trace)[:4] == [("mark_begin",), ("compute",), ("blk_write",), ("mark_end",)]


def test_an_image_has_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "image.parquet"
    synthetic.memory_image([0, 7, 7, 2**64 - 1], [True, True, True, False]).save(path)
    assert read_trace(path).is_base_image
    image = load_image(path)
    assert image.content.tolist() == [0, 7, 7, 2**64 - 1]
    assert image.common.tolist() == [True, True, True, False]


def test_variates_are_the_same_every_time() -> None:
    times = synthetic.poisson_times(1000, 20_000, seed=3)
    assert (times == synthetic.poisson_times(1000, 20_000, seed=3)).all()
    assert (np.diff(times) >= 0).all()
    assert np.diff(times).mean() == pytest.approx(1e6, rel=0.02)
    drawn = synthetic.exponential(500.0, 20_000, seed=4)
    assert drawn.min() >= 1 and drawn.mean() == pytest.approx(500, rel=0.02)
    assert drawn.std() == pytest.approx(500, rel=0.03)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="no operation 'dance'"):
        rows("dance")
    with pytest.raises(UserError, match="no column 'colour'"):
        rows("compute", colour=1)
    with pytest.raises(UserError, match="compute: 2 values of user_ns for 3 rows"):
        rows("compute", 3, user_ns=[1, 2])
    with pytest.raises(UserError, match="chunks of 1, 2 rows cannot take turns"):
        in_turn(rows("sleep"), rows("sleep", 2))
