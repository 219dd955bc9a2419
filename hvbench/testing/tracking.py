"""The pytest plugin that tracks policies with pytest-benchmark: simulated results, exact on every machine.

    @pytest.mark.hvbench(workload="build", scheduler=["credit", "./my_policy.py"], track=["slowdown_geomean"])
    def test_build(hvbench_benchmark):
        assert hvbench_benchmark().status == "ok"

    @pytest.mark.hvbench_decision("./my_policy.py")
    def test_decision_cost(hvbench_decision):
        hvbench_decision()

Lists in the marker make a matrix: one test a combination, workload, seed and tracked metric. `hvbench_benchmark` puts
the tracked metric on pytest-benchmark's clock: virtual time, the same on every machine to the last nanosecond, so that
`--benchmark-compare-fail=mean:1%` catches a policy that became 1 % worse. Only times of which less is better stand
there, in seconds: latencies as they are, slowdowns as the virtual time that one second of work takes which it would
take alone. Everything else, and all metrics of a cell, are in `extra_info["metrics"]` and guarded by
`--metric-fail RULE` (see `hvbench.gate`), which compares with what --benchmark-compare loads or --metric-baseline
names.

`hvbench_decision` is on the real clock: CPU time of the event loop a decision of the policy.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

if TYPE_CHECKING:
    from hvbench.cell import Cell
    from hvbench.store import Row

DEFAULT_TRACKED = ("slowdown_geomean",)
NS_PER_S = 1_000_000_000

MARKER = (
    "hvbench(workload=..., scheduler=..., memory=..., storage=..., switch=..., technique=..., host=..., seed=1, "
    "track=('slowdown_geomean',)): cells whose simulated results are tracked; lists make a matrix"
)
DECISION_MARKER = "hvbench_decision(policy, axis=None): the policy whose decisions are timed on the real clock"


@attrs.frozen
class Wanted:
    """A test's cell, as text: labels of the axes, and the metric that its benchmark shows."""

    workload: str
    choices: tuple[tuple[str, str], ...]
    seed: int
    metric: str
    base: Path

    @property
    def id(self) -> str:
        """What the test is called in brackets: without what is the same by default."""
        parts = [self.workload, *(label for _, label in self.choices)]
        parts += [f"seed{self.seed}"] if self.seed != 1 else []
        return "-".join([*parts, self.metric]).replace("/", "_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the gate, and where cells are kept."""
    group = parser.getgroup("hvbench", "hvbench: simulated results")
    group.addoption(
        "--metric-fail", action="append", default=[], metavar="RULE",
        help="Fail on METRIC:+1%%, METRIC:-2%%, METRIC:=0 ... against the baseline (repeatable).",
    )  # fmt: skip
    group.addoption(
        "--metric-baseline", metavar="FILE",
        help="What --metric-fail compares with: a stored benchmark file or an hvbench.db. "
        "Default: what --benchmark-compare loads.",
    )  # fmt: skip
    group.addoption(
        "--metric-vanished-ok", action="store_true", help="Cells that are in the baseline and were not run do not fail."
    )
    group.addoption("--hvbench-db", metavar="FILE", help="Keep cells in this results file, and take them from it.")
    group.addoption("--hvbench-jobs", type=int, metavar="N", help="Cells computed at once. Default: one a CPU.")


def pytest_configure(config: pytest.Config) -> None:
    """Markers, and the gate where rules are given."""
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", DECISION_MARKER)
    config.pluginmanager.register(Session(config), "hvbench-session")


# cells ------------------------------------------------------------------------------------------------------------


def wanted_of(marker: pytest.Mark, base: Path) -> list[Wanted]:
    """Every cell and metric that a marker asks for; a usage error says what is wrong with it."""
    from hvbench.axes import AXES
    from hvbench.metrics import CELL_METRICS
    from hvbench.nearest import did_you_mean

    legal = ("workload", *AXES, "seed", "track")
    if marker.args:
        raise pytest.UsageError("@pytest.mark.hvbench takes keywords only: workload=..., scheduler=...")
    for name in marker.kwargs:
        if name not in legal:
            raise pytest.UsageError(f"@pytest.mark.hvbench: no {name!r}{did_you_mean(name, legal, always=True)}")
    if "workload" not in marker.kwargs:
        raise pytest.UsageError("@pytest.mark.hvbench: workload= is missing; hvbench workloads lists the bundled ones")
    listed = {name: _listed(value) for name, value in marker.kwargs.items()}
    metrics = listed.pop("track", list(DEFAULT_TRACKED))
    for metric in metrics:
        if metric not in CELL_METRICS:
            raise pytest.UsageError(
                f"track: no metric {metric!r}{did_you_mean(metric, list(CELL_METRICS), always=True)}"
            )
        if not _is_time(metric):
            raise pytest.UsageError(
                f"track: {metric} is no time of which less is better, and would stand in the table as seconds; "
                f"guard it with --metric-fail {metric}:..."
            )
    seeds = listed.pop("seed", [1])
    workloads = listed.pop("workload")
    axes = [axis for axis in AXES if axis in listed]
    return [
        Wanted(str(workload), tuple(zip(axes, map(str, labels), strict=True)), int(seed), str(metric), base)
        for workload in workloads
        for labels in itertools.product(*(listed[axis] for axis in axes))
        for seed in seeds
        for metric in metrics
    ]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _is_time(metric: str) -> bool:
    """Whether a metric is a time, or a ratio of times, of which less is better."""
    from hvbench.metrics import CELL_METRICS

    known = CELL_METRICS[metric]
    return known.direction == "lower" and (known.unit == "ns" or metric.startswith("slowdown_"))


def clock_s(metric: str, value: float) -> float:
    """A tracked metric as virtual seconds: a latency as it is, a slowdown as the time of one second's work alone."""
    return value if metric.startswith("slowdown_") else value / NS_PER_S


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a cell and tracked metric."""
    if "hvbench_wanted" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("hvbench")
    if marker is None:
        raise pytest.UsageError(f"{metafunc.definition.nodeid} uses hvbench's fixtures without @pytest.mark.hvbench")
    wanted = wanted_of(marker, Path(str(metafunc.definition.path)).parent)
    metafunc.parametrize("hvbench_wanted", wanted, ids=[one.id for one in wanted], indirect=True)


class Session:
    """What one run of pytest knows: its cells, computed together at the first use, and the gate."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._wanted: list[Wanted] = []
        self._rows: dict[str, Row] = {}
        self._registry: Any = None
        self._problems: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember every cell that will be asked for, so that they can be computed side by side."""
        for item in session.items:
            callspec = getattr(item, "callspec", None)
            one = None if callspec is None else callspec.params.get("hvbench_wanted")
            if isinstance(one, Wanted):
                self._wanted.append(one)

    def row(self, one: Wanted) -> Row:
        """The result of a test's cell."""
        cell = self.cell(one)
        if cell.key not in self._rows:
            self._compute([cell, *(self.cell(other) for other in self._others())])
        return self._rows[cell.key]

    def _others(self) -> list[Wanted]:
        others, self._wanted = self._wanted, []
        return others

    def cell(self, one: Wanted) -> Cell:
        """A cell from its texts; policies and workloads in files are relative to the test's folder."""
        from hvbench.axes import AXES
        from hvbench.cell import Cell
        from hvbench.choices import DEFAULT, parse_choice
        from hvbench.matrix import load_workloads
        from hvbench.plugins import load_registry

        if self._registry is None:
            self._registry = load_registry()
        (workload,) = load_workloads([one.workload], one.base)
        texts = {**DEFAULT, **dict(one.choices)}
        choices = {axis: parse_choice(axis, texts[axis], self._registry, one.base) for axis in AXES}
        return Cell(workload, choices, one.seed, workload.horizon_ns, workload.warmup_ns)

    def _compute(self, cells: list[Cell]) -> None:
        from hvbench.executor import run_cells
        from hvbench.store import Store

        kept = self.config.getoption("hvbench_db")
        with (
            tempfile.TemporaryDirectory(prefix="hvbench-") as folder,
            Store(Path(kept) if kept else Path(folder) / "cells.db") as store,
        ):
            store.begin_run("pytest", {cell.key: None for cell in cells})
            summary = run_cells(cells, store, jobs=self.config.getoption("hvbench_jobs"))
        self._rows |= summary.rows
        if summary.interrupted:
            raise KeyboardInterrupt

    # the gate -------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare with the baseline; a broken rule makes the run fail."""
        from hvbench.errors import UserError

        if not self.config.getoption("metric_fail"):
            return
        try:
            self._problems = self._gate()
        except UserError as error:
            self._problems = [str(error)]
        failed = [line for line in self._problems if not line.startswith("new: ")]
        if failed and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _gate(self) -> list[str]:
        from hvbench.compare import compare
        from hvbench.errors import UserError
        from hvbench.gate import parse_rule

        rules = [parse_rule(text) for text in self.config.getoption("metric_fail")]
        benchmarks = getattr(self.config, "_benchmarksession", None)
        if benchmarks is None:
            raise UserError("--metric-fail needs pytest-benchmark: it was switched off with -p no:benchmark")
        now = self._now(benchmarks)
        if not now:
            raise UserError("--metric-fail: no benchmark with metrics was run, so that nothing was guarded")
        before = self._baseline(benchmarks)
        found = compare(before, now, rules)
        lines = [
            f"{change.cell.name}: {change.metric} {change.old} → {change.new} breaks "
            f"{', '.join(rule.text for rule in change.broken)}"
            for change in found.failures
        ]
        lines += [f"{b.name}: {a.status} → {b.status}" for a, b in found.broken_cells]
        if not self.config.getoption("metric_vanished_ok"):
            lines += [f"vanished: {cell.name}" for cell in found.vanished if cell.labels]
        return lines + [f"new: {cell.name}" for cell in found.new]

    def _now(self, benchmarks: Any) -> dict[str, Any]:
        from hvbench.compare import benchmark_of

        made = (
            benchmark_of({"fullname": bench.fullname, "extra_info": bench.extra_info})
            for bench in benchmarks.benchmarks
            if bench and bench.extra_info.get("metrics")
        )
        return {cell.name: cell for cell in made}

    def _baseline(self, benchmarks: Any) -> dict[str, Any]:
        from hvbench.compare import benchmark_of, read_results
        from hvbench.errors import UserError

        named = self.config.getoption("metric_baseline")
        if named:
            return read_results(named)
        compared = benchmarks.compared_mapping or {}
        if not compared:
            raise UserError(
                "--metric-fail has nothing to compare with: name --metric-baseline FILE, or --benchmark-compare with "
                "a stored run (--benchmark-autosave stores one)"
            )
        newest = list(compared.values())[-1]
        made = (benchmark_of(json.loads(json.dumps(entry))) for entry in newest.values())
        return {cell.name: cell for cell in made if cell.metrics}

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what the gate found."""
        rules = self.config.getoption("metric_fail")
        if not rules:
            return
        terminalreporter.section(f"metrics: {', '.join(rules)}")
        for line in self._problems:
            terminalreporter.write_line(line, red=not line.startswith("new: "))
        if not self._problems:
            terminalreporter.write_line("no rule is broken")


# fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hvbench_wanted(request: pytest.FixtureRequest) -> Wanted:
    """What the marker asks of this test."""
    wanted: Wanted = request.param
    return wanted


@pytest.fixture
def hvbench_row(request: pytest.FixtureRequest, hvbench_wanted: Wanted) -> Row:
    """The result of this test's cell; a policy at fault fails the test with the reason."""
    from hvbench.cell import BROKEN
    from hvbench.errors import UserError

    session: Session = request.config.pluginmanager.get_plugin("hvbench-session")  # type: ignore[assignment]
    try:
        row = session.row(hvbench_wanted)
    except UserError as error:
        pytest.fail(str(error), pytrace=False)
    if row.status in BROKEN:
        pytest.fail(f"{row.status}: {row.result.reason}", pytrace=False)
    return row


@pytest.fixture
def hvbench_benchmark(benchmark: Any, hvbench_wanted: Wanted, hvbench_row: Row) -> Callable[[], Row]:
    """Call it once: the tracked metric becomes this test's benchmark, all metrics its extra_info; gives the row."""
    metric = hvbench_wanted.metric
    value = hvbench_row.result.metrics.get(metric)

    def record() -> Row:
        if value is None or value != value:
            why = hvbench_row.result.reason or "not measured"
            pytest.fail(f"{hvbench_wanted.workload} has no {metric} ({hvbench_row.status}: {why})", pytrace=False)
        marks = itertools.chain([0.0], itertools.repeat(clock_s(metric, float(value))))

        def virtual_clock() -> float:
            return next(marks)

        # Not the marker's timer: other tools that replace the fixture refuse that one. One round, no calibration: the
        # clock moves once.
        benchmark._timer = virtual_clock
        benchmark.extra_info.update(
            workload=hvbench_row.workload,
            **hvbench_row.labels,
            seed=hvbench_row.seed,
            status=hvbench_row.status,
            tracked=metric,
            clock="virtual",
            metrics={name: v for name, v in hvbench_row.result.metrics.items() if v == v},
        )
        benchmark.pedantic(lambda: None, rounds=1)
        return hvbench_row

    return record


@pytest.fixture
def hvbench_decision(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[], float]:
    """Call it once: CPU time of the event loop for each decision of the marker's policy, on the real clock, ns."""
    marker = request.node.get_closest_marker("hvbench_decision")
    if marker is None or not marker.args:
        raise pytest.UsageError('hvbench_decision needs @pytest.mark.hvbench_decision("./my_policy.py")')
    from hvbench.testing.check_cost import ns_per_decision, workload
    from hvbench.testing.kit import find_policies
    from hvbench.testing.subject import subject_of

    text = str(marker.args[0])
    base = Path(str(request.node.path)).parent
    name = str(base / text) if text.endswith(".py") else text
    policy = find_policies(name, marker.kwargs.get("axis"))[0]
    subject, story = subject_of(policy), workload(policy.axis)
    taken_ns: list[float] = []

    def target() -> None:
        taken_ns.append(ns_per_decision(subject, story))

    def measure() -> float:
        # The clock shows the time of one decision, not of the whole run.
        state = {"start": True, "now": 0.0}

        def decision_clock() -> float:
            if not state["start"]:
                state["now"] += taken_ns[-1] / NS_PER_S
            state["start"] = not state["start"]
            return float(state["now"])

        benchmark._timer = decision_clock
        benchmark.extra_info.update(policy=policy.name, axis=policy.axis, clock="real", per="decision")
        benchmark.pedantic(target, rounds=5, warmup_rounds=1)
        return min(taken_ns)

    return measure
