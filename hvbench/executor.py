"""Running cells: worker threads, worker processes, Ctrl-C, and sharing what provably is the same.

Cells of installed policies run in threads (the compiled kernel holds no lock of the interpreter). Cells with
a policy from a file run in worker *processes*: a hook that does not return costs its process, the cell is
`hung`, and the rest go on. The main thread stores each result as it arrives and waits for Ctrl-C, which
stops everything within two seconds and keeps what was done.

Sharing: a result whose kernel never reached a hook of a decision axis (`axis_asks` is 0) is the result of
every cell that differs on such axes only; those are marked `shared_from`, not computed. Cost axes are never
shared.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import attrs
from attrs import define, field

from hvbench.axes import AXES, DECISION_AXES
from hvbench.cell import MEASURED, Cell, CellResult, StopFlag, Stopped, ThreadStop
from hvbench.errors import PolicyError, UserError
from hvbench.store import Row, Store, row_of
from hvbench.traces.format import TraceError
from hvbench.worker import Limits, WorkerProcess

SIMULATE = "hvbench.simulate:simulate"
"""What computes a cell, as module:function, so that worker processes can import it too."""

SHARED = MEASURED | {"stalled"}
"""Statuses that the simulation itself arrived at, deterministically, and not a policy's name or a clock."""

STOP_S = 1.5
"""How long running cells get to notice Ctrl-C before they are left behind."""

Simulate = Callable[[Cell, StopFlag | None], CellResult]


@define(frozen=True)
class _Done:
    """A computed cell on its way to the store, with the cells whose result it is too."""

    cell: Cell
    result: CellResult
    twins: list[Cell]


@define
class Summary:
    """What a run did. `rows` holds every finished cell by key, stored ones included."""

    rows: dict[str, Row] = field(factory=dict)
    computed: int = 0
    stored: int = 0
    shared: int = 0
    interrupted: bool = False
    wall_s: float = 0.0
    leftover_threads: int = 0


def default_jobs() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def load_simulate(name: str) -> Simulate:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    loaded: Simulate = getattr(import_module(module), function)
    return loaded


def run_cells(
    cells: Iterable[Cell],
    store: Store,
    *,
    jobs: int | None = None,
    fresh: bool = False,
    share: bool = True,
    limits: Limits | None = None,
    simulate: str | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Summary:
    """Compute the cells that `store` does not hold, and store each as it finishes.

    `fresh` computes all of them again. `on_row` is called in the calling thread for every cell, stored ones
    first. `simulate` is what computes a cell, as module:function. Ctrl-C ends it early with `interrupted`
    set. Raises UserError where input is bad (a corrupt trace); what had finished is kept.
    """
    started = time.monotonic()
    summary = Summary()
    unique = {cell.key: cell for cell in cells}
    plan = _Plan(unique.values(), share)

    def finish(row: Row) -> None:
        summary.rows[row.key] = row
        on_row(row)

    def finish_shared(source: Row, twins: list[Cell]) -> None:
        result = attrs.evolve(source.result, wall_s=0.0)
        rows = [row_of(cell, result, source.shared_from or source.key) for cell in twins]
        store.put_many(rows)
        summary.shared += len(rows)
        for row in rows:
            finish(row)

    known = {} if fresh else store.get(unique)
    for key, row in known.items():
        plan.drop(unique[key])
        summary.stored += 1
        finish(row)
    for key, row in known.items():
        finish_shared(row, plan.settle(unique[key], row.result))

    threads = min(jobs or default_jobs(), max(1, plan.left))
    workers = _Workers(plan, threads, limits or Limits(), simulate or SIMULATE)

    def take_in(done: Iterable[_Done]) -> None:
        for each in done:
            row = row_of(each.cell, each.result)
            store.put(row)
            summary.computed += 1
            finish(row)
            finish_shared(row, each.twins)
            plan.stored()

    with _CtrlC() as interrupted:
        try:
            workers.start()
            while not plan.finished and not interrupted.is_set():
                take_in(workers.results())
        finally:
            take_in(workers.stop(STOP_S))
        summary.interrupted = interrupted.is_set()
    summary.leftover_threads = workers.alive
    summary.wall_s = time.monotonic() - started
    return summary


class _CtrlC:
    """Ctrl-C as a flag: raised as an exception it could fall between a result and its place in the store."""

    def __enter__(self) -> threading.Event:
        self._flag = threading.Event()
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self._flag

    def _handle(self, *_: object) -> None:
        if self._flag.is_set():
            raise KeyboardInterrupt  # the second one does not wait
        self._flag.set()

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


# --- what is left, and in which order ------------------------------------------------------------------


class _Plan:
    """The cells that are left. Thread-safe.

    A workload's first result tells which axes it leaves silent; from then on cells that differ on those only
    wait for the one among them that runs, because its result will probably be theirs.
    """

    def __init__(self, cells: Iterable[Cell], share: bool) -> None:
        self._share = share
        self._changed = threading.Condition()
        self._pending: dict[str, dict[str, Cell]] = {}
        self._running: dict[str, Cell] = {}
        self._silent: dict[str, frozenset[str]] = {}
        self._unstored = 0
        self._stopped = False
        for cell in cells:
            self._pending.setdefault(cell.workload.name, {})[cell.key] = cell

    @property
    def left(self) -> int:
        with self._changed:
            return sum(map(len, self._pending.values()))

    @property
    def finished(self) -> bool:
        with self._changed:
            return not self._running and not self._unstored and not any(self._pending.values())

    def drop(self, cell: Cell) -> None:
        """The cell needs no computing."""
        with self._changed:
            self._pending[cell.workload.name].pop(cell.key, None)

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> Cell | None:
        """The next cell to compute; waits while all that are left hang on running ones; None at the end."""
        with self._changed:
            while not self._stopped and any(self._pending.values()):
                cell = self._choose()
                if cell is not None:
                    del self._pending[cell.workload.name][cell.key]
                    self._running[cell.key] = cell
                    return cell
                self._changed.wait(0.5)
            return None

    def stored(self) -> None:
        """A computed cell has reached the store."""
        with self._changed:
            self._unstored -= 1

    def settle(self, cell: Cell, result: CellResult) -> list[Cell]:
        """A cell has a result: returns the pending ones whose result it is too, and drops them."""
        with self._changed:
            if self._running.pop(cell.key, None) is not None:
                self._unstored += 1
            silent = silent_axes(result) if self._share else frozenset()
            twins: list[Cell] = []
            if result.status in SHARED:
                self._silent[cell.workload.name] = silent
            if silent:
                pending = self._pending[cell.workload.name]
                group = _group(cell, silent)
                twins = [other for other in pending.values() if _group(other, silent) == group]
                for other in twins:
                    del pending[other.key]
            self._changed.notify_all()
            return twins

    def _choose(self) -> Cell | None:
        """The first pending cell that no running one is likely to answer."""
        fallback = None
        for name, pending in self._pending.items():
            if not pending:
                continue
            silent = self._silent.get(name)
            running = [cell for cell in self._running.values() if cell.workload.name == name]
            if silent is None:
                first = next(iter(pending.values()))
                if not running or not self._share:
                    return first
                fallback = fallback or first
                continue
            busy = {_group(cell, silent) for cell in running} if silent else set()
            for cell in pending.values():
                if not silent or _group(cell, silent) not in busy:
                    return cell
        return fallback


def silent_axes(result: CellResult) -> frozenset[str]:
    """Decision axes on which no other choice could have changed this result."""
    if result.status not in SHARED:
        return frozenset()
    return frozenset(axis for axis in DECISION_AXES if result.axis_asks.get(axis) == 0)


def _group(cell: Cell, silent: frozenset[str]) -> tuple[object, ...]:
    """What two cells must agree on to have one result where `silent` axes do not matter."""
    choices = tuple(_choice_id(cell, axis) for axis in AXES if axis not in silent)
    return (id(cell.workload), cell.seed, cell.horizon_ns, cell.warmup_ns, *choices)


def _choice_id(cell: Cell, axis: str) -> object:
    choice = cell.choices.get(axis)
    return None if choice is None else (choice.label, *(policy.digest for policy, _ in choice.policies))


# --- who computes them ---------------------------------------------------------------------------------


class _Workers:
    """Threads that take cells from a plan; each has a worker process of its own where a cell needs one."""

    def __init__(self, plan: _Plan, jobs: int, limits: Limits, simulate: str) -> None:
        self._plan = plan
        self._limits = limits
        self._simulate_name = simulate
        self._stop = ThreadStop()
        self._queue: queue.SimpleQueue[_Done | BaseException] = queue.SimpleQueue()
        # Daemons: a thread that hangs in a compiled hook must not keep the interpreter alive.
        self._threads = [
            threading.Thread(target=self._work, name=f"hvbench-cell-{i}", daemon=True) for i in range(jobs)
        ]
        self._processes: dict[int, WorkerProcess] = {}
        self._lock = threading.Lock()

    @property
    def alive(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterable[_Done]:
        """What has finished, waiting a moment for the first; raises what is wrong with the input."""
        try:
            done = self._queue.get(timeout=0.1)
            while True:
                if isinstance(done, BaseException):
                    raise done
                yield done
                done = self._queue.get_nowait()
        except queue.Empty:
            return

    def stop(self, within_s: float) -> list[_Done]:
        """Stop all workers; returns what had finished. Threads that do not stop in time are left behind."""
        self._stop.set()
        self._plan.stop()
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            process.kill()
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        left = []
        while not self._queue.empty():
            done = self._queue.get_nowait()
            if isinstance(done, _Done):
                left.append(done)
        return left

    def _work(self) -> None:
        simulate: Simulate | None = None
        me = threading.get_ident()
        while (cell := self._plan.take()) is not None:
            try:
                if cell.needs_process:
                    result = self._process(me).run(cell)
                else:
                    simulate = simulate or load_simulate(self._simulate_name)
                    result = run_one(simulate, cell, self._stop)
            except Stopped:
                return
            except BaseException as error:
                self._queue.put(error)
                return
            # Settled here and not by the main thread: the next cell taken must know what this one answered.
            self._queue.put(_Done(cell, result, self._plan.settle(cell, result)))
        with self._lock:
            process = self._processes.pop(me, None)
        if process is not None:
            process.close()

    def _process(self, me: int) -> WorkerProcess:
        with self._lock:
            if me not in self._processes:
                self._processes[me] = WorkerProcess(self._simulate_name, self._limits, self._stop)
            return self._processes[me]


def run_one(simulate: Simulate, cell: Cell, stop: StopFlag) -> CellResult:
    """A cell's result; a policy's fault or an error inside the simulator becomes a `failed` one.

    Lets through `Stopped`, and UserError: bad input (a corrupt trace) is nobody's result.
    """
    started = time.perf_counter()
    try:
        return simulate(cell, stop)
    except PolicyError as error:
        reason = str(error)
    except UserError as error:
        path = str(cell.workload.path)
        if str(error).startswith(path) or isinstance(error, TraceError):
            raise
        raise UserError(f"{path}: {error}") from error
    except Stopped:
        raise
    except Exception as error:
        reason = f"error inside hvbench: {_where(error)}"
    return CellResult("failed", reason, wall_s=time.perf_counter() - started)


def _where(error: BaseException) -> str:
    """An exception as one line with the place that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f" ({os.path.basename(code.co_filename)}:{trace.tb_lineno} in {code.co_name})"
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def expected_s(cells: Iterable[Cell], mean_wall_s: Mapping[str, float], jobs: int) -> float | None:
    """Expected computing time from what cells of the same workloads took; None where one was never run."""
    total = 0.0
    for cell in cells:
        mean = mean_wall_s.get(cell.workload.name)
        if mean is None:
            return None
        total += mean
    return total / max(1, jobs)


def leave(code: int, leftover_threads: int) -> Any:
    """End the process: at once where a thread hangs in compiled code and would hold the interpreter back."""
    sys.stdout.flush()
    sys.stderr.flush()
    if leftover_threads:
        os._exit(code)
    sys.exit(code)
