"""Running cells: each once, broken ones apart, sharing equal to brute force, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.axes import AXES
from hvbench.cell import Cell, CellResult
from hvbench.errors import UserError
from hvbench.executor import Summary, expected_s, run_cells, silent_axes
from hvbench.matrix import make_cells
from hvbench.plugins import Policy
from hvbench.store import Row, Store
from hvbench.worker import Limits, cell_of, spec_of
from tests import fakes

FAKE = "tests.fakes:simulate"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return fakes.make_policy(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "r.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    fakes.CALLS.clear()
    fakes.SILENT.clear()
    yield
    fakes.SILENT.clear()


def small_matrix(policy: Policy, folder: Path, seeds: int = 1, workloads: int = 1) -> list[Cell]:
    choices = fakes.make_choices(
        policy,
        scheduler=[fakes.choice(policy, "scheduler", f"s{i}", effect=10 * i) for i in range(3)],
        memory=[fakes.choice(policy, "memory", f"m{i}", effect=30 * i) for i in range(2)],
        storage=[fakes.choice(policy, "storage", f"d{i}", effect=5 * i) for i in range(3)],
        switch=[fakes.choice(policy, "switch", f"w{i}", effect=2 * i) for i in range(2)],
    )
    loaded = [fakes.make_workload(folder, f"fake-{i}") for i in range(workloads)]
    return make_cells(loaded, choices, range(1, seeds + 1))


def run(cells: list[Cell], store: Store, **options: object) -> Summary:
    return run_cells(cells, store, simulate=FAKE, jobs=2, **options)  # type: ignore[arg-type]


def test_every_cell_is_computed_once_and_then_never_again(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = small_matrix(policy, tmp_path, seeds=2)
    seen: list[Row] = []
    first = run(cells, store, on_row=seen.append)
    assert (first.computed, first.stored, first.shared) == (72, 0, 0)
    assert sorted(fakes.CALLS) == sorted(cell.key for cell in cells) == sorted(row.key for row in seen)
    second = run(cells, store)
    assert (second.computed, second.stored) == (0, 72)
    assert {k: r.result for k, r in second.rows.items()} == {k: r.result for k, r in first.rows.items()}
    third = run(cells[:5], store, fresh=True)
    assert (third.computed, third.stored) == (5, 0)


def test_a_new_choice_computes_only_what_is_new(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = small_matrix(policy, tmp_path)
    run(cells[:20], store)
    assert run(cells, store).computed == len(cells) - 20


@pytest.mark.parametrize("silent", [set(), {"switch"}, {"storage", "switch"}, {"memory", "switch"}])
def test_sharing_gives_what_brute_force_gives(policy: Policy, tmp_path: Path, store: Store, silent: set[str]) -> None:
    cells = small_matrix(policy, tmp_path, workloads=2)
    fakes.SILENT |= silent
    shared = run(cells, store)
    with Store(tmp_path / "brute.db") as other:
        brute = run(cells, other, share=False)
    assert brute.shared == 0 and brute.computed == len(cells)
    sizes = {"scheduler": 3, "memory": 2, "storage": 3, "switch": 2}
    classes = 2
    for axis, size in sizes.items():
        classes *= 1 if axis in silent else size
    assert shared.computed >= classes and shared.computed + shared.shared == len(cells)
    if silent:
        # Two threads may start before a workload's first result says what is silent.
        assert shared.computed <= classes + 2
        sources = {row.shared_from for row in shared.rows.values()} - {None}
        assert all(shared.rows[key].shared_from is None for key in sources if key)
    for key, row in brute.rows.items():
        assert shared.rows[key].result.metrics == row.result.metrics
        assert shared.rows[key].result.vms == row.result.vms


def test_stored_results_are_shared_with_new_choices(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = small_matrix(policy, tmp_path)
    fakes.SILENT |= {"switch"}
    run([cell for cell in cells if cell.labels["switch"].startswith("w0")], store)
    fakes.CALLS.clear()
    summary = run(cells, store)
    assert (summary.computed, summary.stored, summary.shared) == (0, 18, 18)
    assert fakes.CALLS == []


def test_cost_axes_and_unmeasured_results_are_never_shared() -> None:
    asks = dict.fromkeys(AXES, 0)
    assert silent_axes(CellResult("ok", axis_asks=asks)) == {"scheduler", "memory", "storage", "switch"}
    assert silent_axes(CellResult("ok", axis_asks={"memory": 0})) == {"memory"}
    assert silent_axes(CellResult("failed", axis_asks=asks)) == frozenset()
    assert silent_axes(CellResult("stalled", axis_asks={"switch": 0})) == {"switch"}
    assert silent_axes(CellResult("refused", axis_asks=asks)) == frozenset()


def one_each(policy: Policy, folder: Path, *, file: bool, **modes: int) -> list[Cell]:
    schedulers = [fakes.choice(policy, "scheduler", name, file=file, mode=mode) for name, mode in modes.items()]
    return make_cells([fakes.make_workload(folder)], fakes.make_choices(policy, file=file, scheduler=schedulers))


def statuses(summary: Summary) -> dict[str, tuple[str, str]]:
    return {row.labels["scheduler"].split(":")[0]: (row.status, row.result.reason) for row in summary.rows.values()}


def test_a_broken_policy_costs_its_own_cells_only(policy: Policy, tmp_path: Path, store: Store) -> None:
    found = statuses(run(one_each(policy, tmp_path, file=False, good=0, no=1, bad=2, still=5, bug=6), store))
    assert {name: status for name, (status, _) in found.items()} == {
        "good": "ok", "no": "refused", "bad": "failed", "still": "stalled", "bug": "failed",
    }  # fmt: skip
    assert "ZeroDivisionError: bug divided (fakes.py:" in found["bug"][1]


def test_a_worker_process_gives_the_same_results_and_survives_its_policies(
    policy: Policy, tmp_path: Path, store: Store
) -> None:
    cells = one_each(policy, tmp_path, file=True, good=0, deaf=3, no=1, dies=4, bug=6, also=0)
    summary = run_cells(cells, store, simulate=FAKE, jobs=2, limits=Limits(start_s=60, hook_s=0.5))
    found = statuses(summary)
    assert {name: status for name, (status, _) in found.items()} == {
        "good": "ok", "deaf": "hung", "no": "refused", "dies": "failed", "bug": "failed", "also": "ok",
    }  # fmt: skip
    assert "scheduler deaf" in found["deaf"][1] and "did not return within 0.5 s" in found["deaf"][1]
    assert "exit code 7" in found["dies"][1]
    assert fakes.CALLS == [], "cells with policies from files must not run in this process"
    good = next(cell for cell in cells if cell.labels["scheduler"] == "good")
    assert summary.rows[good.key].result.metrics == fakes.simulate(good, None).metrics
    assert all(row.key in {cell.key for cell in cells} for row in summary.rows.values())


def test_a_long_cell_that_gives_signs_of_life_is_not_hung(policy: Policy, tmp_path: Path, store: Store) -> None:
    long = fakes.choice(policy, "scheduler", "long", file=True, sleep_ns=1_500_000_000)
    cells = make_cells([fakes.make_workload(tmp_path)], fakes.make_choices(policy, file=True, scheduler=[long]))
    summary = run_cells(cells, store, simulate=FAKE, jobs=1, limits=Limits(start_s=60, hook_s=0.5))
    assert [row.status for row in summary.rows.values()] == ["ok"]


def test_a_worker_that_never_begins_is_hung(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = one_each(policy, tmp_path, file=True, good=0)
    summary = run_cells(cells, store, simulate=FAKE, jobs=1, limits=Limits(start_s=0.01, hook_s=60))
    assert [(r.status, "did not begin" in r.result.reason) for r in summary.rows.values()] == [("hung", True)]


def test_cells_cross_to_another_process_unchanged(policy: Policy, tmp_path: Path) -> None:
    import pickle

    from hvbench.plugins import Registry

    scheduler = fakes.choice(policy, "scheduler", "behaviour", file=True, effect=7)
    cell = Cell(fakes.make_workload(tmp_path), {"scheduler": scheduler}, 3, 2 * 10**9, 10**9)
    again = cell_of(pickle.loads(pickle.dumps(spec_of(cell))), Registry())
    assert (again.key, again.labels) == (cell.key, cell.labels)


def test_a_policy_that_changed_meanwhile_is_bad_input(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = one_each(policy, tmp_path, file=True, good=0)
    assert policy.path is not None
    policy.path.write_text(policy.path.read_text() + "\n")
    with pytest.raises(UserError, match="changed while the matrix was running"):
        run(cells, store)


def test_bad_input_stops_the_run_and_keeps_what_was_done(
    policy: Policy, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = small_matrix(policy, tmp_path)

    def corrupt(cell: Cell, stop: object) -> CellResult:
        if cell.key == cells[10].key:
            raise UserError("t.parquet: truncated")
        return fakes_simulate(cell, None)

    fakes_simulate = fakes.simulate
    monkeypatch.setattr(fakes, "simulate", corrupt)
    with pytest.raises(UserError, match="truncated"):
        run_cells(cells, store, simulate=FAKE, jobs=1)
    assert len(store.all_rows()) >= 9


def test_expected_time_comes_from_cells_of_the_same_workload(policy: Policy, tmp_path: Path, store: Store) -> None:
    cells = small_matrix(policy, tmp_path)
    assert expected_s(cells, store.mean_wall_s(), 2) is None
    run(cells[:3], store)
    expected = expected_s(cells, {"fake-0": 0.5}, 2)
    assert expected == pytest.approx(len(cells) * 0.25)


# --- whole processes: killed, interrupted ---------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from tests import fakes
from hvbench.executor import run_cells, leave
from hvbench.matrix import make_cells
from hvbench.store import Store

def main():
    folder, file = Path(sys.argv[1]), sys.argv[2] == "file"
    mode, sleep_ms = map(int, sys.argv[3:])
    policy = fakes.make_policy(folder)
    schedulers = [
        fakes.choice(
            policy, "scheduler", f"s{i}", file=file, effect=i, mode=mode, sleep_ns=sleep_ms * 10**6, note=1
        )
        for i in range(40)
    ]
    choices = fakes.make_choices(policy, file=file, scheduler=schedulers)
    cells = make_cells([fakes.make_workload(folder)], choices)
    with Store(folder / "r.db") as store:
        report = lambda row: print("row", flush=True)
        summary = run_cells(cells, store, simulate="tests.fakes:simulate", jobs=2, on_row=report)
    print("done", summary.computed, summary.stored, summary.interrupted, flush=True)
    leave(0, summary.leftover_threads)

if __name__ == "__main__":
    main()
"""
ROOT = Path(__file__).parent.parent


def start(folder: Path, kind: str, mode: int = 0, sleep_ms: int = 100) -> subprocess.Popen[str]:
    script = folder / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), kind, str(mode), str(sleep_ms)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HVBENCH_LOAD_PLUGINS": ""},
        start_new_session=True,
    )


def wait_for_rows(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline() == "row\n"


def wait_for_pids(folder: Path) -> list[int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pids = [int(path.suffixes[0][1:]) for path in folder.glob("*.pid")]
        if len(pids) >= 2:
            return pids
        time.sleep(0.05)
    raise AssertionError("no worker began")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def ends_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_running, pids))


def stored(folder: Path) -> int:
    with Store(folder / "r.db") as store:
        return len(store.all_rows())


def test_killed_at_any_moment_it_loses_no_finished_cell(tmp_path: Path) -> None:
    process = start(tmp_path, "installed", sleep_ms=50)
    wait_for_rows(process, 6)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = stored(tmp_path)
    assert 6 <= kept < 40
    again = start(tmp_path, "installed", sleep_ms=1)
    out, _ = again.communicate(timeout=60)
    # The sleep is a parameter and so part of the key: run the same matrix to see what was kept.
    assert out.splitlines()[-1] == "done 40 0 False"
    same = start(tmp_path, "installed", sleep_ms=50)
    out, _ = same.communicate(timeout=60)
    assert out.splitlines()[-1] == f"done {40 - kept} {kept} False"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("mode", [0, 3], ids=["computing", "hanging in a hook"])
def test_killed_it_leaves_no_process_behind(tmp_path: Path, mode: int) -> None:
    process = start(tmp_path, "file", mode=mode, sleep_ms=20_000 if mode == 0 else 0)
    pids = wait_for_pids(tmp_path)
    assert all(map(is_running, pids)) and process.pid not in pids
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ends_within(pids, 5)


@pytest.mark.parametrize(("kind", "mode"), [("installed", 0), ("file", 0), ("file", 3), ("installed", 3)])
def test_ctrl_c_stops_within_two_seconds_and_keeps_what_was_done(tmp_path: Path, kind: str, mode: int) -> None:
    process = start(tmp_path, kind, mode=mode, sleep_ms=100 if mode == 0 else 0)
    if mode == 0:
        wait_for_rows(process, 3)
        pids = []
    else:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("*.pid")) and time.monotonic() < deadline and kind == "file":
            time.sleep(0.05)
        time.sleep(0.5 if kind == "file" else 3.0)
        pids = [int(path.suffixes[0][1:]) for path in tmp_path.glob("*.pid")]
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert time.monotonic() - started < 2.5
    assert process.returncode == 0
    last = out.splitlines()[-1].split()
    assert last[0] == "done" and last[3] == "True"
    assert stored(tmp_path) == int(last[1]) and (mode == 3 or int(last[1]) >= 3)
    assert ends_within(pids, 2)
