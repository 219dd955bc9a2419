"""Tables: best first, what is left out is said, and what the numbers cannot say is said too."""

from __future__ import annotations

import attrs
import pytest

from hvbench import drawing, tables
from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS, DIRECTIONS, METRICS, SCOPES, TABLE_COLUMNS, UNITS, VM_METRICS, cell_metric
from hvbench.store import Row
from tests.test_stats import factorial, make_row


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_the_best_comes_first_and_the_worst_last() -> None:
    rows = factorial({"scheduler": [3, 1, 2], "memory": [1, 10]})
    text = tables.report(rows, show=None)
    table = [line.split() for line in lines(text) if line.split()[0] in ("sc0", "sc1", "sc2") and "me" in line]
    assert [(row[0], row[1], float(row[2])) for row in table] == [
        ("sc1", "me0", 1),
        ("sc2", "me0", 2),
        ("sc0", "me0", 3),
        ("sc1", "me1", 10),
        ("sc2", "me1", 20),
        ("sc0", "me1", 30),
    ]


def test_the_rows_between_are_left_out_and_it_says_how_to_see_them() -> None:
    rows = factorial({"scheduler": [float(i + 1) for i in range(20)]})
    text = tables.report(rows, show=2, analysis=False)
    assert "16 combinations between them are not shown: --all shows all" in text
    assert [line.split()[0] for line in lines(text) if line.startswith("sc") and "eduler" not in line] == [
        "sc0",
        "sc1",
        "sc18",
        "sc19",
    ]
    assert "not shown" not in tables.report(rows, show=None, analysis=False)


def test_what_is_the_same_in_all_rows_is_said_once() -> None:
    text = tables.report(factorial({"scheduler": [1, 2]}), analysis=False)
    assert "the same in all: memory x, storage x, switch x, technique x, host x" in text
    assert "1 seed" in text and "H 10ns, W 5ns" in text


def test_seeds_are_averaged_geometrically_for_ratios() -> None:
    rows = [make_row(1.0, seed=1), make_row(4.0, seed=2)]
    assert tables.combine(rows)[0].metrics["slowdown_geomean"] == pytest.approx(2)


def test_a_broken_seed_breaks_its_combination_and_is_never_dropped() -> None:
    rows = [make_row(1.0, seed=1), make_row(None, "stalled", seed=2), make_row(5.0, scheduler="y")]
    found = tables.ranked(tables.combine(rows))
    assert [(c.labels["scheduler"], c.status) for c in found] == [("y", "ok"), ("x", "stalled")]
    assert found[1].metrics == {}
    assert tables.exit_code(rows) == 1


def test_refused_cells_are_answers() -> None:
    rows = [make_row(1.0), make_row(None, "refused", memory="static")]
    rows[1].result.reason = "static: 24 GiB of VMs on a host of 16 GiB"
    assert tables.exit_code(rows) == 0
    assert "refused, 1 cell with memory static: static: 24 GiB of VMs on a host of 16 GiB" in tables.report(rows)


def test_what_the_numbers_cannot_say() -> None:
    rows = factorial({"scheduler": [1, 2, 3], "switch": [1, 1]})
    for row in rows:
        row.result.axis_asks["switch"] = 0
        row.result.axis_digest["scheduler"] = "a" if row.labels["scheduler"] != "sc2" else "b"
        row.result.notes.append("Touches are sampled.")
    rows[1] = attrs.evolve(rows[1], shared_from=rows[0].key)
    text = tables.report(rows)
    assert "The switch was never asked anything on this workload" in text
    assert "Made identical decisions throughout: scheduler sc0, sc1." in text
    assert "The spread over seeds is unknown" in text
    assert "1 of 6 cells was not computed" in text
    assert text.count("Touches are sampled.") == 1


def test_refused_levels_shrink_the_analysis_and_its_size_is_printed() -> None:
    rows = factorial({"scheduler": [1, 2], "memory": [1, 2, 3]})
    rows = [make_row(None, "refused", **r.labels) if r.labels["memory"] == "me0" else r for r in rows]
    assert "largest complete part, 4 cells of 6, without memory me0" in tables.report(rows)


def test_shares_of_less_than_one_percent_are_not_shown() -> None:
    text = tables.report(factorial({"scheduler": [1, 4], "memory": [1, 2], "storage": [1, 1.001]}))
    assert "log slowdown, policies (2 scheduler" in text and "log slowdown, equipment" not in text
    assert "What explains the variance, equipment: no choice makes 1 %, so that shares of it would say nothing." in text


def test_variance_and_choice_means_are_shown() -> None:
    text = tables.report(factorial({"scheduler": [1, 4], "memory": [1, 2], "storage": [1, 3]}))
    assert "scheduler, the others averaged:" in text
    assert "What explains the variance of log slowdown, policies (2 scheduler × 2 memory):" in text
    assert "What explains the variance of log slowdown, equipment (2 storage):" in text
    share = {line.rsplit("  ", 1)[0].strip(): line for line in lines(text) if line.endswith(" %")}
    assert "80.0 %" in share["scheduler"] and "20.0 %" in share["memory"] and "100.0 %" in share["storage"]


def test_seeds_show_differences_that_are_noise() -> None:
    values = {("a", 1): 1.0, ("a", 2): 1.2, ("b", 1): 1.1, ("b", 2): 1.15}
    rows = [make_row(value, seed=seed, scheduler=name) for (name, seed), value in values.items()]
    assert "Smaller than the spread over seeds: scheduler a and b" in tables.report(rows)


def test_controls_are_marked() -> None:
    rows = [make_row(1.0), make_row(9.0, control=True, scheduler="bad")]
    assert "bad (control)" in tables.report(rows)


def test_a_baseline_gives_differences() -> None:
    rows = factorial({"scheduler": [1, 2, 3], "memory": [1, 10]})
    text = tables.report(rows, baseline="sc1", show=None)
    table = {
        tuple(line.split()[:2]): line.split()[2:] for line in lines(text) if line.startswith("sc") and "me" in line
    }
    assert table["sc0", "me0"] == table["sc0", "me1"] == ["-50.0", "%"]
    assert table["sc2", "me0"] == table["sc2", "me1"] == ["+50.0", "%"]
    assert ("sc1", "me0") not in table
    assert "Differences in percent to scheduler sc1" in text


def test_an_unclear_baseline_is_a_user_error() -> None:
    rows = factorial({"scheduler": [1, 2], "memory": [1, 2]})
    with pytest.raises(UserError, match="no choice 'sc9' in these results; did you mean sc"):
        tables.report(rows, baseline="sc9")
    with pytest.raises(UserError, match="write storage=x"):
        tables.report(rows, baseline="x")


@pytest.mark.parametrize("fmt", ["github", "latex_booktabs", "html", "tsv", "rounded_grid", "simple"])
def test_any_format_of_tabulate_works(fmt: str) -> None:
    assert "sc0" in tables.report(factorial({"scheduler": [1, 2]}), fmt=drawing.check_format(fmt))


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean github"):
        drawing.check_format("githb")


def test_columns_carry_units_and_silent_ones_are_named_once() -> None:
    row = make_row(1.5)
    row.result.metrics.update(wakeup_latency_p99_ns=2_500_000, ballooned_pages_avg=256, cpu_ready_share=0.25)
    row.result.metrics.update(network_frames_dropped=0)
    text = tables.report([row], analysis=False)
    for words in (
        "wake-up p99 [ms]",
        "2.500",
        "ballooned [MiB]",
        "CPU ready [%]",
        "25",
        "0 in all of them: drops.",
    ):
        assert words in text


def test_a_percentile_of_nothing_has_no_column() -> None:
    row = make_row(1.5)
    row.result.metrics.update(io_latency_p99_ns=float("nan"))
    assert "I/O" not in tables.report([row], analysis=False)


def test_one_cell_shows_every_metric_and_vm() -> None:
    row = make_row(1.5)
    row.result.metrics.update(wakeup_latency_p99_ns=2_500_000)
    row.result.vms[:] = [{"name": "web-0", "slowdown": 1.25, "ready_ns": 1000}]
    text = tables.cell_report(row)
    assert "wakeup_latency_p99_ns" in text and "2.500 ms" in text and "web-0" in text and "1.250" in text


@pytest.mark.parametrize("count", [2, 9])
def test_the_vms_of_a_cell_fit_a_terminal_and_nothing_is_left_unsaid(count: int) -> None:
    vms = [
        {"name": f"guest-{i}", **{name: (0.0 if name == "oom_kills" else 123_456.0 + i) for name in VM_METRICS}}
        for i in range(count)
    ]
    row = make_row(2.0)
    text = tables.cell_report(attrs.evolve(row, result=attrs.evolve(row.result, vms=vms)))
    table = text[text.index("guest-0") - 20 :]
    assert max(len(line) for line in table.splitlines() if not line.startswith("0 in all")) <= 130
    assert "0 in all VMs: OOM kills." in table
    assert all(metric.title in text for metric in VM_METRICS.values())


def test_what_was_not_measured_is_a_dash() -> None:
    row = make_row(2.0)
    metrics = {"io_latency_p99_ns": float("nan"), "host_faults": 3, "network_retransmissions": 2}
    text = tables.cell_report(attrs.evolve(row, result=attrs.evolve(row.result, metrics=metrics)))
    said = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith(tuple(metrics))}
    assert said == {"io_latency_p99_ns": "-", "host_faults": "3", "network_retransmissions": "2"}
    assert "Frames that senders sent again" in text


def test_the_metrics_registry_is_well_formed() -> None:
    assert len({(m.name, m.scope) for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.unit in UNITS and metric.direction in DIRECTIONS and metric.scope in SCOPES
        assert metric.doc.endswith(".") and metric.title
        assert metric.name.endswith("_ns") == (metric.unit == "ns"), metric.name
        assert ("_pages" in metric.name) == (metric.unit == "pages"), metric.name
        assert ("_bytes_per_s" in metric.name) == (metric.unit == "bytes/s"), metric.name
    assert set(TABLE_COLUMNS) <= set(CELL_METRICS)
    with pytest.raises(UserError, match="did you mean slowdown_worst"):
        cell_metric("slowdown_wrst")


def test_rows_of_an_unmeasured_workload_still_make_a_table() -> None:
    rows: list[Row] = [make_row(None, "failed", scheduler=name) for name in ("a", "b")]
    text = tables.report(rows)
    assert "failed" in text and "2 cells" in text
    assert all(axis in AXES for axis in rows[0].labels)
