"""Averages: what they become as a table, with their dirt, and as work that a scheduler can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import FIXTURES, counts, replay, shared

from hvbench.cli import execute
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.demand import COLUMNS, SILENT, Demand, intervals, read_demand
from hvbench.traces.donor import Donor, load_donor, make_donor
from hvbench.traces.expand import Choice, Expansion, expand_file
from hvbench.traces.format import OPS, Trace, make_trace, read_trace
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Report, Settings, import_files

S = 10**9
HEADER = (FIXTURES / "vm.csv").read_text().splitlines()[0]


def table(
    format: str, paths: Path | list[Path], output: Path, settings: Settings | None = None, **options: Any
) -> tuple[Report, Demand]:
    files = tuple(paths) if isinstance(paths, list) else (paths,)
    report = import_files(load_formats().get(format), files, output, settings, options)
    return report, read_demand(output)


def rows(*values: tuple[Any, ...]) -> str:
    """Bitbrains lines: time, cores, percent, provisioned KB, used KB, read, written, received, sent KB/s."""
    return (
        HEADER
        + "\n"
        + "".join(
            f"{t};\t{n};\t1;\t1;\t{p};\t{cap};\t{used};\t{r};\t{w};\t{i};\t{o}\n"
            for t, n, p, cap, used, r, w, i, o in values
        )
    )


# tables -----------------------------------------------------------------------------------------------------


def test_a_bitbrains_file_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "7.csv"
    path.write_text(
        rows(
            (1376314846, 2, 25.0, 8192, 4096, 1.5, 0, 0, 2),
            (1376315146, 2, 100 / 3, 8192, 9000, 0, 0, 1, 0),  # more memory than provisioned
            (1376315146, 2, 50.0, 8192, 4096, 0, 4, 1, 0),  # the same time again: this one counts
            (1376315446, 4, 0.0, 8192, 0, 0, 0, 0, 0),  # two more cores, then a gap of an hour
            (1376319046, 4, 182.0, 8192, 0, 0, 0, 0, 0),
        )
    )
    assert load_formats().guess(path).name == "bitbrains"
    report, demand = table("bitbrains", path, tmp_path / "d.parquet")
    c = demand.columns
    assert c["time_ns"].tolist() == [0, 300 * S, 600 * S, 4200 * S]
    assert c["duration_ns"].tolist() == [300 * S] * 4
    assert c["cpu_ns"].tolist() == [150 * S, 300 * S, 0, 4 * 300 * S * 182 // 100]
    assert c["cores"].tolist() == [2, 2, 4, 4]
    assert c["memory_pages"].tolist() == [1024, 1024, 0, 0] and c["provisioned_pages"].tolist() == [2048] * 4
    assert c["read_bytes"].tolist() == [450 * 1024, 0, 0, 0] and c["written_bytes"].tolist() == [0, 1200 * 1024, 0, 0]
    assert c["sent_bytes"].tolist() == [600 * 1024, 0, 0, 0] and c["received_bytes"].tolist() == [0, 300 * 1024, 0, 0]
    assert demand.meta["dirt"] == {"duplicate_times": 1, "gaps": 1, "changes_of_cores": 1, "cpu_above_cores": 1}
    said = " ".join(report.notes)
    for words in (
        "times titled [ms] are seconds",
        "1 samples of a time that another has",
        "1 gaps",
        "1 changes of the number",
    ):
        assert words in said


def test_milliseconds_that_are_such_and_memory_above_provision(tmp_path: Path) -> None:
    path = tmp_path / "7.csv"
    path.write_text(rows((1376314846000, 1, 1, 8192, 9000, 0, 0, 0, 0), (1376315146000, 1, 1, 8192, 1, 0, 0, 0, 0)))
    report, demand = table("bitbrains", path, tmp_path / "d.parquet")
    assert demand.columns["duration_ns"].tolist() == [300 * S] * 2
    assert demand.columns["memory_pages"].tolist() == [2048, 0]
    assert not any("seconds" in note for note in report.notes)


def test_bad_headers_and_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "7.csv"
    path.write_text("Timestamp [ms];CPU\n1;2\n")
    with pytest.raises(UserError, match=r"7\.csv:1: expected a header with Timestamp, CPU cores and CPU usage"):
        table("bitbrains", path, tmp_path / "d.parquet")
    path.write_text(rows((1376314846, 1, "x", 1, 1, 0, 0, 0, 0), (1376315146, 1, 1, 8192, 1, 0, 0, 0, 0)))
    with pytest.raises(UserError, match=r"7\.csv:2: expected cpu usage \[%\] \(a number\), found "):
        table("bitbrains", path, tmp_path / "d.parquet")


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 800)), min_size=2, max_size=30))
def test_intervals_never_overlap_and_round_once(samples: list[tuple[int, float]]) -> None:
    time = np.array([t * S for t, _ in samples], np.int64)
    made, dirt = intervals(0, time, 0, {"cpu_ns": np.array([p * S / 100 for _, p in samples])}, {})
    if not made:
        assert len(set(time.tolist())) == 1
        return
    end = made["time_ns"] + made["duration_ns"]
    assert (made["time_ns"][1:] >= end[:-1]).all()
    assert len(made["time_ns"]) == len(set(time.tolist())) == len(samples) - dirt.get("duplicate_times", 0)
    last = {t * S: p for t, p in samples}
    for at, span, got in zip(made["time_ns"], made["duration_ns"], made["cpu_ns"], strict=True):
        assert got == pytest.approx(last[int(at)] / 100 * int(span), abs=1)


def test_domstats_are_differences_of_counters(tmp_path: Path) -> None:
    report, demand = table("domstats", FIXTURES / "series.txt", tmp_path / "d.parquet", Settings(keep_names=True))
    assert [vm["name"] for vm in demand.meta["vms"]] == ["web", "db"] and report.threads == 2
    c = demand.columns
    assert c["time_ns"][:5].tolist() == [5 * S * i + i for i in range(5)]
    assert c["duration_ns"].tolist() == [5 * S + 1] * 10
    text = (FIXTURES / "series.txt").read_text()
    times = [int(line.split("=")[1]) for line in text.splitlines() if line.startswith("  cpu.time")]
    assert c["cpu_ns"].tolist() == np.diff(times[::2]).tolist() + np.diff(times[1::2]).tolist()
    assert (c["cores"] == 2).all() and (c["memory_pages"] == 65536).all() and (c["provisioned_pages"] == 131072).all()


def test_snapshots_without_times_need_an_interval(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    lines = [line for line in (FIXTURES / "series.txt").read_text().splitlines() if not line[:1].isdigit()]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"snapshots without times: --interval 5s says how far they are apart"):
        table("domstats", path, tmp_path / "d.parquet")
    _, demand = table("domstats", path, tmp_path / "d.parquet", interval_ns=5 * S)
    assert demand.columns["time_ns"][:5].tolist() == [0, 5 * S, 10 * S, 15 * S, 20 * S]


def test_a_restarted_domain_makes_its_interval_silent(tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    snapshot = "{t}\nDomain: 'a'\n  cpu.time={c}\n  block.0.rd.bytes=5\n"
    path.write_text("".join(snapshot.format(t=t, c=c) for t, c in ((1, 100), (2, 350), (3, 40), (4, 50))))
    report, demand = table("domstats", path, tmp_path / "d.parquet")
    assert demand.columns["cpu_ns"].tolist() == [250, SILENT, 10]
    assert demand.columns["written_bytes"].tolist() == [SILENT] * 3
    assert "network" in demand.meta["silent"] and any("1 times a counter fell" in note for note in report.notes)
    path.write_text(path.read_text() + "  what is this\n")
    with pytest.raises(UserError, match=r"s\.txt:17: expected Domain: 'NAME', key=value or a time in seconds, found"):
        table("domstats", path, tmp_path / "d.parquet")


# expansion --------------------------------------------------------------------------------------------------


def donor(bursts: list[tuple[int, int, int]], min_burst_ns: int = 1) -> Donor:
    """A donor of (user, kernel, sleep) with a touch, a read, a write and a message in each burst."""
    made: list[tuple[str, dict[str, int]]] = []
    for i, (user, kernel, sleep) in enumerate(bursts):
        made += [
            ("compute", {"user_ns": user, "kernel_ns": kernel, "syscalls": 3}),
            ("touch", {"object": 0, "page": i % 16, "pages": 1, "flags": i % 2}),
            ("fread", {"object": 1, "page": 0, "pages": 1 + i % 3}),
            ("fwrite", {"object": 1, "page": 0, "pages": 2}),
            ("send", {"flow": 0, "bytes": 100 + i}),
            ("sleep", {"duration_ns": sleep}),
        ]
    columns: dict[str, Any] = {
        "op": [OPS[op] for op, _ in made],
        "thread": [0] * len(made),
        "time_ns": range(len(made)),
    }
    for name in ("user_ns", "kernel_ns", "syscalls", "page", "pages", "flags", "bytes", "duration_ns"):
        columns[name] = [values.get(name, 0) for _, values in made]
    for name in ("object", "flow"):
        columns[name] = [values.get(name, -1) for _, values in made]
    meta = {
        "threads": [{"id": 0, "process": 0, "tier": "guest", "name": "t", "role": "guest"}],
        "objects": [{"kind": "anon", "pages": 16, "process": 0}, {"kind": "own", "pages": 8, "process": -1}],
        "flows": [{"proto": "tcp", "ends": ["outside", "guest"]}], "tiers": ["guest"], "span_ns": len(made),
    }  # fmt: skip
    return make_donor(make_trace(meta, {k: np.array(list(v)) for k, v in columns.items()}), "hand", min_burst_ns)


def expanded(demand: Demand, borrowed: Donor, **choice: Any) -> Trace | None:
    """The trace of an expansion; None where nothing is demanded."""
    expansion = Expansion(demand, borrowed, Choice(**choice))
    batches = list(expansion.batches())
    if not batches:
        return None
    names = sorted({name for batch in batches for name in batch})

    def column(name: str, batch: dict[str, Any]) -> Any:
        absent = -1 if name in ("object", "flow", "peer") else 0
        return batch[name] if name in batch else np.full(len(batch["op"]), absent)

    columns = {name: np.concatenate([column(name, batch) for batch in batches]) for name in names}
    order = np.lexsort((columns["time_ns"], columns["thread"]))
    meta = {
        "threads": expansion.threads, "objects": expansion.objects, "flows": expansion.flows, "tiers": expansion.tiers,
        "span_ns": expansion.last_ns,
    }  # fmt: skip
    return make_trace(meta, {name: values[order] for name, values in columns.items()})


def demand_of(rows_: list[dict[str, int]]) -> Demand:
    columns = {
        name: np.array([row.get(name, 0 if name in ("vm", "time_ns") else SILENT) for row in rows_], kind)
        for name, kind in COLUMNS.items()
    }
    return Demand({"vms": [{"name": "a"}]}, columns, Path("d"))


bursts = st.lists(st.tuples(st.integers(1, 900), st.integers(0, 90), st.integers(0, 5000)), min_size=1, max_size=12)
interval = st.tuples(
    st.integers(0, 9000), st.integers(1, 3), st.integers(0, 40), st.integers(0, 30_000), st.integers(0, 3000)
)  # fmt: skip


@settings(max_examples=150)
@given(bursts, st.lists(interval, min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 500))
def test_averages_are_exact_in_every_interval(
    shape: list[tuple[int, int, int]], wanted: list[tuple[int, int, int, int, int]], seed: int, least: int
) -> None:
    span = 10_000
    made = [
        {"time_ns": i * span, "duration_ns": span, "cpu_ns": cpu, "cores": cores, "memory_pages": pages,
         "read_bytes": read, "written_bytes": 5, "received_bytes": net, "sent_bytes": 2 * net}
        for i, (cpu, cores, pages, read, net) in enumerate(wanted)
    ]  # fmt: skip
    trace = expanded(demand_of(made), donor(shape, least), seed=seed)
    if trace is None:
        return
    assert check_trace(trace) == []
    c, op = trace.columns, trace.columns["op"]
    which = np.minimum(c["time_ns"] // span, len(made) - 1)
    for i, row in enumerate(made):
        here = which == i
        assert int((c["user_ns"] + c["kernel_ns"])[here].sum()) == row["cpu_ns"]
        assert int(c["bytes"][here & (op == OPS["send"])].sum()) == row["received_bytes"] + row["sent_bytes"]
    sectors = np.array([int(c["pages"][(op == OPS["blk_read"]) & (which <= i)].sum()) for i in range(len(made))])
    assert sectors.tolist() == [int(x) // 512 for x in np.cumsum([row["read_bytes"] for row in made])]
    # the memory in use at the end is what was touched and not freed
    last = made[-1]["memory_pages"]
    in_use: set[int] = set()
    for row in np.flatnonzero(np.isin(op, [OPS["touch"], OPS["free"]]) & (c["thread"] == 0)).tolist():
        pages = set(range(int(c["page"][row]), int(c["page"][row] + c["pages"][row])))
        in_use = in_use - pages if op[row] == OPS["free"] else in_use | pages
    assert in_use == set(range(last))


def test_rhythm_and_kernel_time_are_the_donors() -> None:
    borrowed = donor([(700, 300, 5000), (1500, 500, 1000)])
    trace = expanded(demand_of([{"duration_ns": 10**6, "cpu_ns": 30_000, "cores": 1}]), borrowed)
    assert trace is not None
    c = trace.columns
    whole = (c["user_ns"] + c["kernel_ns"])[1:-1]
    assert set(whole.tolist()) == {1000, 2000} and len(whole) >= 18
    assert int(c["kernel_ns"].sum()) == pytest.approx(8000, abs=200)
    assert int(c["syscalls"].sum()) == pytest.approx(60, abs=3)
    gap = c["time_ns"][1:] - c["time_ns"][:-1] - (c["user_ns"] + c["kernel_ns"])[:-1]
    after_short, after_long = gap[1:-1][whole[: len(gap) - 2] == 1000], gap[1:-1][whole[: len(gap) - 2] == 2000]
    # half of a wait lies on each side of a burst: 5:1 becomes equal sums, in the same alternation each time
    assert len(set(after_short.tolist())) <= 2 and len(set(after_long.tolist())) <= 2


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    table("bitbrains", FIXTURES / "vm.csv", tmp_path / "d.parquet")
    digests = []
    for seed in (1, 1, 2):
        expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(seed=seed, to_ns=600 * S))
        digests.append(read_trace(tmp_path / "x.parquet").digest)
    assert digests[0] == digests[1] != digests[2]


def test_axes_stay_silent_where_nothing_is_known(tmp_path: Path) -> None:
    table("bitbrains", FIXTURES / "vm.csv", tmp_path / "d.parquet")
    # the donor has no messages: no network is made up
    report = expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(donor="cc-build", to_ns=600 * S))
    assert report.silent == ["network"]
    report = expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(axes=("cpu",), to_ns=600 * S))
    assert report.silent == ["memory", "storage", "network"]
    assert set(counts(read_trace(tmp_path / "x.parquet"))) == {"compute"}
    for choice, said in (
        (Choice(axes=("gpu",)), "--axes: 'gpu' is none; legal: cpu, memory"),
        (Choice(donor="nobody"), "no bundled trace 'nobody'"),
        (Choice(vms=("9",)), "no VM '9'; by number 0 to 0"),
        (Choice(from_ns=10**18), "nothing to expand"),
    ):
        with pytest.raises(UserError, match=said):
            expand_file(tmp_path / "d.parquet", tmp_path / "y.parquet", choice)
    expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(to_ns=600 * S))
    with pytest.raises(UserError, match="is an expansion itself"):
        load_donor(str(tmp_path / "x.parquet"), 1)
    assert not list(tmp_path.glob("*.tmp"))


def test_an_expansion_replays_open_loop_and_the_tables_say_so(
    tmp_path: Path, kernel: object, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.parquet"
    words = ["import", str(FIXTURES / "vm.csv"), "--expand", "--to", "20min", "--seed", "3", "-o", str(out)]
    assert execute(words) == 0
    trace = read_trace(out)
    assert trace.meta["expanded"]["seed"] == 3 and trace.meta["replay"] == "open"
    row = replay(trace, tmp_path, horizon="620s")
    said = capsys.readouterr().out
    assert "expanded from averaged demand (rhythm of cc-build, seed 3)" in said
    assert "not asked about network" in said
    # two cores' demand of the first two intervals, on four pCPUs
    demand = int((trace.columns["user_ns"] + trace.columns["kernel_ns"])[trace.columns["time_ns"] < 600 * S].sum())
    assert row["cpu_utilization"] * 4 * 620e9 == pytest.approx(demand, rel=0.25)


# real files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "vms", "least"),
    [
        ("bitbrains-opendc/bitbrains.csv", 1, 8_600), ("bitbrains-rnd/csv-head/2013-8_vm1.head.csv", 1, 280),
        ("bitbrains-rnd/csv-head/2013-8_vm2.head.csv", 1, 280), ("bitbrains-rnd/csv-head/2013-8_vm3.head.csv", 1, 280),
        ("bitbrains-rnd/bitbrains-rnd-2013-8_vm001-100.tar.xz", 100, 870_000), ("recorded-two-vms/domstats.csv", 2, 50),
    ],
)  # fmt: skip
def test_real_averages(name: str, vms: int, least: int, tmp_path: Path) -> None:
    path = shared(name)
    report, demand = table(load_formats().guess(path).name, path, tmp_path / "d.parquet")
    assert report.threads == vms and report.rows >= least
    c = demand.columns
    assert (np.diff(c["vm"]) >= 0).all()
    same = c["vm"][1:] == c["vm"][:-1]
    assert ((c["time_ns"] + c["duration_ns"])[:-1][same] <= c["time_ns"][1:][same]).all()
    hour = 3600 * S
    expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(vms=("0",), to_ns=hour))
    trace = read_trace(tmp_path / "x.parquet")
    assert check_trace(trace) == []
    mine = demand.of(0)
    inside = mine["time_ns"] + mine["duration_ns"] <= hour
    busy = int(trace.columns["user_ns"].sum() + trace.columns["kernel_ns"].sum())
    assert busy == int(np.maximum(mine["cpu_ns"][inside], 0).sum())


@pytest.mark.parametrize("name", ["kerub_two_domains", "openstack_kolla_16vcpu"])
def test_real_domstats_are_single_snapshots(name: str, tmp_path: Path) -> None:
    path = shared(f"domstats-samples/{name}.txt")
    with pytest.raises(UserError, match="one snapshot only"):
        table("domstats", path, tmp_path / "d.parquet")
    series = tmp_path / "series.txt"
    series.write_text("".join(f"{t}.5\n{path.read_text()}" for t in (100, 105)))
    _, demand = table("domstats", series, tmp_path / "d.parquet")
    # a domain that is shut off has no CPU time
    assert {0} <= set(demand.columns["cpu_ns"].tolist()) <= {0, SILENT} and (
        demand.columns["duration_ns"] == 5 * S
    ).all()
