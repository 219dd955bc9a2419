"""What people read: a table a workload, what choices do, what explains the variance, what nobody can say.

Every table can be drawn in any format that tabulate knows. Rows are means over seeds, best first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define

from hvbench import stats, units
from hvbench.axes import AXES
from hvbench.cell import BROKEN, MEASURED
from hvbench.drawing import DEFAULT_FORMAT, draw
from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS, TABLE_COLUMNS, VM_METRICS, Metric, cell_metric
from hvbench.nearest import did_you_mean
from hvbench.store import Row
from hvbench.words import plural

ROWS = 5
"""Best and worst rows shown where neither --rows nor --all is given."""


@define(frozen=True)
class Combination:
    """One row of a table: a combination of choices with the means of its metrics over seeds."""

    labels: dict[str, str]
    control: bool
    status: str
    metrics: dict[str, float]
    rows: tuple[Row, ...]

    def metric(self, name: str) -> float:
        return self.metrics.get(name, math.nan)


def combine(rows: Iterable[Row]) -> list[Combination]:
    """Rows of one workload as combinations. The worst status of a combination's seeds is its own."""
    grouped: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault(tuple(row.labels[axis] for axis in AXES), []).append(row)
    found = []
    for same in grouped.values():
        bad = [row.status for row in same if row.status not in MEASURED]
        measured = [row for row in same if row.status in MEASURED]
        metrics: dict[str, float] = {}
        for name, metric in CELL_METRICS.items():
            values = [float(row.result.metrics[name]) for row in measured if name in row.result.metrics]
            if values and not bad:
                metrics[name] = stats.mean_over_seeds(values, metric.unit)
        status = bad[0] if bad else same[0].status
        found.append(Combination(same[0].labels, same[0].control, status, metrics, tuple(same)))
    return found


def ranked(combinations: Iterable[Combination], sort: Metric | None = None) -> list[Combination]:
    """Best first by a metric; what was not measured last."""
    combinations = list(combinations)
    if sort is None:
        name = next((n for n in stats.RESPONSES if any(n in c.metrics for c in combinations)), stats.RESPONSES[0])
        sort = CELL_METRICS[name]
    name, sign = sort.name, -1.0 if sort.direction == "higher" else 1.0

    def key(combination: Combination) -> tuple[int, float]:
        value = combination.metric(name)
        return (1, 0.0) if math.isnan(value) else (0, sign * value)

    return sorted(combinations, key=key)


# --- numbers -------------------------------------------------------------------------------------------


def _scale(metric: Metric, largest: float) -> tuple[str, float]:
    """The unit that a column is shown in, and its factor, so that its largest value reads well."""
    if metric.unit == "ns":
        return next(((u, f) for u, f in (("s", 1e9), ("ms", 1e6), ("us", 1e3)) if largest >= f), ("ns", 1.0))
    if metric.unit == "pages":
        return "MiB", (1 << 20) / units.PAGE_BYTES
    if metric.unit == "bytes":
        return "MiB", float(1 << 20)
    if metric.unit == "bytes/s":
        return "MB/s", 1e6
    if metric.unit == "share":
        return "%", 0.01
    return "", 1.0


def _number(value: float) -> str:
    """Four significant digits, or all of a whole number."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf"
    if value == int(value) and abs(value) < 1e7:
        return str(int(value))
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}" if abs(value) < 1e7 else f"{value:.3e}"


def _columns(metrics: Sequence[Metric], values: Sequence[Callable[[str], float]]) -> tuple[list[str], list[list[str]]]:
    """Headers with units and the cells of a table, a getter of metrics for each row."""
    headers, columns = [], []
    for metric in metrics:
        column = [get(metric.name) for get in values]
        finite = [abs(value) for value in column if math.isfinite(value)]
        unit, factor = _scale(metric, max(finite, default=0.0))
        headers.append(f"{metric.title} [{unit}]" if unit else metric.title)
        columns.append([_number(value / factor) for value in column])
    return headers, [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in values]


# --- one workload --------------------------------------------------------------------------------------


def report(
    rows: Sequence[Row],
    *,
    fmt: str = DEFAULT_FORMAT,
    show: int | None = ROWS,
    metrics: Sequence[str] = (),
    sort: str | None = None,
    baseline: str | None = None,
    about: str = "",
    analysis: bool = True,
) -> str:
    """All that is said about one workload's rows. `show` best and worst combinations, None for all.

    `baseline` names a choice (`credit`, or `scheduler=credit`); metrics are then differences to the
    combination that has it and is equal otherwise.
    """
    combinations = combine(rows)
    parts = [_heading(rows, combinations, about)]
    sort_by = cell_metric(sort) if sort else None
    if baseline is not None:
        parts.append(_difference_table(combinations, baseline, fmt, show, metrics, sort_by))
    else:
        parts.append(_main_table(combinations, fmt, show, metrics, sort_by))
    if analysis and baseline is None:
        design = stats.build_design(rows)
        if design is not None:
            parts.extend(_choice_tables(design, rows, fmt))
            parts.extend(_variance_tables(design, stats.response_name(rows) or stats.RESPONSES[0], fmt))
        parts.append(_limits(rows, combinations, design))
    return "\n\n".join(part for part in parts if part)


def _heading(rows: Sequence[Row], combinations: Sequence[Combination], about: str) -> str:
    first = rows[0]
    seeds = len({row.seed for row in rows})
    horizons = sorted({(row.horizon_ns, row.warmup_ns) for row in rows})
    times = ", ".join(f"H {units.format_duration(h)}, W {units.format_duration(w)}" for h, w in horizons)
    fixed = [f"{axis} {first.labels[axis]}" for axis in AXES if not _varies(combinations, axis)]
    counts = f"{plural(len(combinations), 'combination')}, {plural(seeds, 'seed')}"
    line = f"{first.workload}: {counts}, {times}"
    line += f", {about}" if about else ""
    return line + (f"\nthe same in all: {', '.join(fixed)}" if fixed else "")


def _varies(combinations: Sequence[Combination], axis: str) -> bool:
    return len({combination.labels[axis] for combination in combinations}) > 1


def _shown_metrics(combinations: Sequence[Combination], wanted: Sequence[str]) -> tuple[list[Metric], list[Metric]]:
    """The metrics of a table, and those of the default ones that are 0 or absent everywhere."""
    if wanted:
        return [cell_metric(name) for name in wanted], []
    shown, silent = [], []
    for name in TABLE_COLUMNS:
        values = [combination.metrics[name] for combination in combinations if name in combination.metrics]
        values = [value for value in values if not math.isnan(value)]
        if any(values):
            shown.append(CELL_METRICS[name])
        elif values:
            silent.append(CELL_METRICS[name])
    # An open-loop workload has no slowdown: its response times stand in.
    if not any("slowdown_geomean" in combination.metrics for combination in combinations):
        latencies = ("request_latency_p50_ns", "request_latency_p99_ns")
        shown[:0] = [CELL_METRICS[n] for n in latencies if any(n in c.metrics for c in combinations)]
    return shown, silent


def _main_table(
    combinations: Sequence[Combination],
    fmt: str,
    show: int | None,
    wanted: Sequence[str],
    sort: Metric | None,
) -> str:
    order = ranked(combinations, sort)
    metrics, silent = _shown_metrics(order, wanted)
    picked, left_out = _pick(order, show)
    notes = []
    if left_out:
        notes.append(f"{_not_shown(left_out)}: --all shows all, --rows N more.")
    if silent:
        notes.append(f"0 in all of them: {', '.join(metric.title for metric in silent)}.")
    table = _draw_combinations(picked, left_out, show, order, metrics, [c.metric for c in picked], fmt)
    return "\n".join([table, *notes])


def _pick(order: Sequence[Combination], show: int | None) -> tuple[list[Combination], int]:
    """The best and worst `show` of them, and how many are between."""
    if show is None or len(order) <= 2 * show + 1:
        return list(order), 0
    return [*order[:show], *order[len(order) - show :]], len(order) - 2 * show


def _not_shown(number: int) -> str:
    return f"{plural(number, 'combination')} between them {'is' if number == 1 else 'are'} not shown"


def _draw_combinations(
    picked: Sequence[Combination],
    left_out: int,
    show: int | None,
    order: Sequence[Combination],
    metrics: Sequence[Metric],
    values: Sequence[Callable[[str], float]],
    fmt: str,
) -> str:
    axes = [axis for axis in AXES if _varies(order, axis)]
    headers, cells = _columns(metrics, values)
    bad = any(combination.status != "ok" for combination in order)
    rows = []
    for combination, numbers in zip(picked, cells, strict=True):
        labels = [combination.labels[axis] for axis in axes]
        if combination.control and labels:
            labels[0] += " (control)"
        result = combination.rows[0].result
        for axis, ignored in (("scheduler", result.ignored), ("memory", result.ignored_memory)):
            if ignored and axis in axes:
                labels[axes.index(axis)] += f" (ignores {', '.join(ignored)})"
        rows.append([*labels, *([combination.status] if bad else []), *numbers])
    all_headers = [*axes, *(["status"] if bad else []), *headers]
    if left_out and show is not None:
        rows.insert(show, ["…"] * len(all_headers))
    return draw(all_headers, rows, fmt)


def _difference_table(
    combinations: Sequence[Combination],
    baseline: str,
    fmt: str,
    show: int | None,
    wanted: Sequence[str],
    sort: Metric | None,
) -> str:
    """Differences to the combination that has the baseline and is equal on all other axes, in percent."""
    axis, choice = find_choice(combinations, baseline)
    bases = {_others(c, axis): c for c in combinations if c.labels[axis] == choice}
    compared = [c for c in ranked(combinations, sort) if c.labels[axis] != choice and _others(c, axis) in bases]
    metrics, _ = _shown_metrics(combinations, wanted)
    picked, left_out = _pick(compared, show)
    axes = [a for a in AXES if _varies(combinations, a)]
    rows = []
    for combination in picked:
        base = bases[_others(combination, axis)]
        numbers = [_difference(combination.metric(m.name), base.metric(m.name)) for m in metrics]
        rows.append([*(combination.labels[a] for a in axes), *numbers])
    headers = [*axes, *(metric.title for metric in metrics)]
    if left_out and show is not None:
        rows.insert(show, ["…"] * len(headers))
    note = f"Differences in percent to {axis} {choice}, all other choices equal."
    if left_out:
        note += f" {_not_shown(left_out)}: --all shows all, --rows N more."
    return f"{draw(headers, rows, fmt)}\n{note}"


def _others(combination: Combination, axis: str) -> tuple[str, ...]:
    return tuple(label for other, label in combination.labels.items() if other != axis)


def _difference(value: float, base: float) -> str:
    if math.isnan(value) or math.isnan(base):
        return ""
    if value == base:
        return "0 %"
    if base == 0:
        return f"{_number(value)} (from 0)"
    return f"{100 * (value - base) / abs(base):+.1f} %"


def find_choice(combinations: Sequence[Combination], text: str) -> tuple[str, str]:
    """The axis and label that `credit` or `scheduler=credit` names; UserError where none or several do."""
    stated, equals, label = text.partition("=")
    candidates = [(axis, text) for axis in AXES]
    if equals and stated in AXES:
        candidates = [(stated, label)]
    known = [(axis, name) for axis, name in candidates if any(c.labels[axis] == name for c in combinations)]
    if len(known) == 1:
        return known[0]
    if known:
        axes = " and ".join(axis for axis, _ in known)
        raise UserError(f"{text!r} is on {axes}; write {known[0][0]}={text}")
    labels = sorted({label for combination in combinations for label in combination.labels.values()})
    raise UserError(f"no choice {text!r} in these results{did_you_mean(text, labels, always=True)}")


def _choice_tables(design: stats.Design, rows: Sequence[Row], fmt: str) -> list[str]:
    """For each axis, what each choice does with the others averaged."""
    response = stats.response_name(rows)
    metric = CELL_METRICS[response or stats.RESPONSES[0]]
    many_seeds = len(design.seeds) > 1
    tables = []
    for axis in design.axes:
        if len(design.levels[axis]) < 2:
            continue
        means = stats.choice_means(design, axis)
        unit, factor = _scale(metric, means[-1].mean)
        headers = [axis, f"{metric.title} [{unit}]" if unit else metric.title, "to the best"]
        headers += ["over seeds"] if many_seeds else []
        table = [
            [
                mean.choice,
                _number(mean.mean / factor),
                f"×{mean.ratio:.3f}",
                *([f"×{mean.spread:.4f}"] if many_seeds else []),
            ]
            for mean in means
        ]
        tables.append(f"{axis}, the others averaged:\n{draw(headers, table, fmt)}")
    return tables


def _variance_tables(design: stats.Design, response: str, fmt: str) -> list[str]:
    """The share of the variance that each axis explains, policies and equipment apart."""
    tables = []
    least = stats.MATERIAL[response]
    for name, part in stats.analyses(design).items():
        shares = stats.shares_with_ranges(part)
        if not shares:
            tables.append(f"What explains the variance, {name}: nothing differs.")
            continue
        means = [stats.choice_means(design, axis) for axis, levels in part.levels.items() if len(levels) > 1]
        if max((same[-1].ratio for same in means if same), default=1.0) < least:
            # Shares of next to nothing would look like a finding: ×1.001 explains 100 % of it.
            tables.append(
                f"What explains the variance, {name}: no choice makes {100 * (least - 1):.0f} %, so that shares of it "
                "would say nothing."
            )
            continue
        ranged = any(len(levels) > 2 for levels in part.levels.values())
        headers = ["effect", "share of variance"] + (["leaving one choice out"] if ranged else [])
        table = []
        for share in shares:
            row = [" with ".join(share.effect), f"{100 * share.share:.1f} %"]
            if ranged:
                row.append(f"{100 * share.low:.1f} to {100 * share.high:.1f} %")
            table.append(row)
        size = " × ".join(f"{len(levels)} {axis}" for axis, levels in part.levels.items() if len(levels) > 1)
        tables.append(f"What explains the variance of log slowdown, {name} ({size}):\n{draw(headers, table, fmt)}")
    return tables


def _limits(rows: Sequence[Row], combinations: Sequence[Combination], design: stats.Design | None) -> str:
    """What the numbers cannot say, as a list of sentences."""
    said: list[str] = []
    varying = [axis for axis in AXES if _varies(combinations, axis)]
    for axis in varying:
        silent = stats.never_asked(rows, axis)
        if silent and len(silent) == len({row.labels[axis] for row in rows if row.status in MEASURED}):
            said.append(f"The {axis} was never asked anything on this workload: its choices cannot differ.")
        elif silent:
            said.append(f"Never asked anything: {axis} {', '.join(silent)}.")
        said.extend(
            f"Made identical decisions throughout: {axis} {', '.join(group)}."
            for group in stats.identical_groups(rows, axis)
        )
    if design is not None:
        said.extend(_seed_sentences(design, varying))
        if design.dropped:
            left = "; ".join(f"{axis} {', '.join(names)}" for axis, names in design.dropped.items())
            competing = sum(not combination.control for combination in combinations)
            said.append(
                "Choice means and variance shares are over the largest complete part, "
                f"{plural(design.cells, 'cell')} of {competing * len(design.seeds)}, without {left}."
            )
    shared = sum(row.shared_from is not None for row in rows)
    if shared:
        said.append(
            f"{shared} of {plural(len(rows), 'cell')} {'was' if shared == 1 else 'were'} not computed: "
            "they differ from a computed one only on axes "
            "that were never asked, and have its result."
        )
    said.extend(_trouble(rows))
    said.extend(dict.fromkeys(note for row in rows for note in row.result.notes))
    if not said:
        return ""
    return "What these numbers cannot say:\n" + "\n".join(f"- {sentence}" for sentence in said)


def _seed_sentences(design: stats.Design, varying: Sequence[str]) -> list[str]:
    if len(design.seeds) < 2:
        return ["The spread over seeds is unknown: one seed was run; --seeds 3 shows which differences are real."]
    found = []
    for axis in varying:
        pairs = stats.within_seed_spread(design, axis)
        if pairs:
            texts = [f"{a} and {b} (×{ratio:.4f}, spread ×{spread:.4f})" for a, b, ratio, spread in pairs[:6]]
            more = f", and {len(pairs) - 6} more pairs" if len(pairs) > 6 else ""
            found.append(f"Smaller than the spread over seeds: {axis} {', '.join(texts)}{more}.")
    return found


def _trouble(rows: Sequence[Row]) -> list[str]:
    """Cells that were refused, stalled, hung, failed or overloaded, grouped by reason."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.status != "ok":
            grouped.setdefault((row.status, row.result.reason), []).append(row)
    found = []
    for (status, reason), same in grouped.items():
        cells = plural(len(same), "cell")
        shared_by_all = [
            f"{axis} {same[0].labels[axis]}"
            for axis in AXES
            if len({row.labels[axis] for row in same}) == 1 and len({row.labels[axis] for row in rows}) > 1
        ]
        which = f" with {', '.join(shared_by_all)}" if shared_by_all else ""
        found.append(f"{status}, {cells}{which}: {reason or 'no reason given'}")
    return found


def exit_code(rows: Iterable[Row]) -> int:
    """1 where a policy was illegal, stalled, hung or failed; refused cells are answers."""
    return int(any(row.status in BROKEN for row in rows))


# --- one cell ------------------------------------------------------------------------------------------


def cell_report(row: Row, fmt: str = DEFAULT_FORMAT) -> str:
    """Every metric of one cell, per VM too."""
    parts = [f"{row.workload}, seed {row.seed}: {', '.join(f'{axis} {row.labels[axis]}' for axis in AXES)}"]
    if row.status != "ok":
        parts.append(f"{row.status}: {row.result.reason}")
    if row.result.metrics:
        lines = []
        for name, value in row.result.metrics.items():
            metric = CELL_METRICS.get(name)
            lines.append([name, _with_unit(float(value), metric), metric.doc if metric else ""])
        parts.append(draw(["metric", "value", "meaning"], lines, fmt))
    if row.result.vms:
        parts.append(_vm_table(row.result.vms, fmt))
    parts.extend(row.result.notes)
    return "\n\n".join(parts)


MOST_VM_COLUMNS = 5
"""VMs that stand beside each other; more are rows, with as many metrics as fit and the rest in further tables."""


def _vm_table(vms: Sequence[Mapping[str, float | int | str]], fmt: str) -> str:
    """Every metric of every VM, but those that are 0 or absent in all, which are named under it."""
    getters = [lambda name, vm=vm: float(vm.get(name, math.nan)) for vm in vms]
    measured: list[Metric] = []
    silent: list[Metric] = []
    for name, metric in VM_METRICS.items():
        values = [value for get in getters if not math.isnan(value := get(name))]
        if values:
            (measured if any(values) else silent).append(metric)
    headers, cells = _columns(measured, getters)
    names = [str(vm.get("name", i)) for i, vm in enumerate(vms)]
    parts = []
    if len(vms) <= MOST_VM_COLUMNS:
        table = [[header, *column] for header, column in zip(headers, zip(*cells, strict=True), strict=True)]
        parts.append(draw(["each VM", *names], table, fmt))
    else:
        for start in range(0, len(headers), MOST_VM_COLUMNS):
            part = slice(start, start + MOST_VM_COLUMNS)
            table = [[name, *numbers[part]] for name, numbers in zip(names, cells, strict=True)]
            parts.append(draw(["VM", *headers[part]], table, fmt))
    if silent:
        parts.append(f"0 in all VMs: {', '.join(metric.title for metric in silent)}.")
    return "\n\n".join(parts)


def _with_unit(value: float, metric: Metric | None) -> str:
    if metric is None:
        return _number(value)
    if math.isnan(value):
        return "-"
    unit, factor = _scale(metric, abs(value))
    return f"{_number(value / factor)} {unit}".strip()
