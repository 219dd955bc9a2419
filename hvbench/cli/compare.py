"""`hvbench compare`: what changed between two sets of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvbench.cli import options

if TYPE_CHECKING:
    from hvbench.compare import Change, Comparison

MARKDOWN = frozenset({"github", "pipe"})
MOST_ROWS = 50


@click.command("compare")
@click.argument("old")
@click.argument("new")
@click.option(
    "--fail",
    "rules",
    multiple=True,
    metavar="RULE",
    help="Fail on METRIC:+1%, METRIC:-2%, METRIC:=0 ... (repeatable).  [default: slowdown_geomean:+1%]",
)
@click.option("--no-fail", is_flag=True, help="Only show; exit code 0 whatever changed.")
@click.option("--metrics", metavar="METRIC,...", help="Show changes of these metrics too.")
@click.option("--all", "show_all", is_flag=True, help=f"Show all changes, not the {MOST_ROWS} largest.")
@click.option("--vanished-ok", is_flag=True, help="Cells that are gone do not fail.")
@options.format_option
def compare(
    old: str,
    new: str,
    rules: tuple[str, ...],
    no_fail: bool,
    metrics: str | None,
    show_all: bool,
    vanished_ok: bool,
    fmt: str,
) -> int:
    """Compare the results in OLD with those in NEW.

    Each is an hvbench.db (its last run; FILE@3 is run 3), a .json of `hvbench matrix -o`, or one that pytest-benchmark
    stored. --format github gives Markdown for a comment. Exit code 1 where a rule is broken, a cell that was
    measured is broken now, or a cell has vanished.
    """
    from hvbench.compare import DEFAULT_RULES, read_results
    from hvbench.compare import compare as set_beside
    from hvbench.drawing import check_format
    from hvbench.gate import parse_rule

    check_format(fmt)
    before, after = read_results(old), read_results(new)
    stated = [parse_rule(text) for text in rules]
    if not stated and not no_fail:
        have = {name for cell in (*before.values(), *after.values()) for name in cell.metrics}
        stated = [rule for rule in map(parse_rule, DEFAULT_RULES) if rule.metric in have]
    found = set_beside(before, after, stated, options.names(metrics))
    click.echo(_report(found, old, new, fmt, show_all, [rule.text for rule in stated]))
    failed = found.failed or (bool(found.vanished) and not vanished_ok)
    return int(failed and not no_fail)


def _report(found: Comparison, old: str, new: str, fmt: str, show_all: bool, rules: list[str]) -> str:
    from hvbench.compare import where
    from hvbench.drawing import draw

    markdown = fmt in MARKDOWN
    parts = [f"{'### ' if markdown else ''}{_summary(found, rules)}"]
    parts.append(f"{old} → {new}: {found.same} cells are equal in what is compared.")
    order = sorted(found.changes, key=_weight, reverse=True)
    shown = order if show_all else order[:MOST_ROWS]
    if shown:
        rows = [[c.cell.name, c.metric, _text(c.old), _text(c.new), _percent(c), _verdict(c)] for c in shown]
        table = draw(["cell", "metric", "old", "new", "change", ""], rows, fmt)
        parts.append(f"<details><summary>Changes</summary>\n\n{table}\n\n</details>" if markdown else table)
    if len(shown) < len(order):
        parts.append(f"{len(order) - len(shown)} smaller changes are not shown: --all shows them.")
    for metric in dict.fromkeys(c.metric for c in order):
        axes = where(found, metric)
        if axes:
            parts.append(f"{metric} changed only with {'; '.join(axes)}.")
    for title, pairs in (("broken now", found.broken_cells), ("measured again", found.mended_cells)):
        parts += [f"- {title}: {after.name} ({before.status} → {after.status})" for before, after in pairs]
    parts += [f"- vanished: {cell.name}" for cell in found.vanished]
    parts += [f"- new: {cell.name}" for cell in found.new]
    return "\n\n".join(p for p in parts if p)


def _summary(found: Comparison, rules: list[str]) -> str:
    said = []
    if found.failures:
        said.append(f"{len(found.failures)} metrics break a rule")
    if found.broken_cells:
        said.append(f"{len(found.broken_cells)} cells are broken or refused now")
    if found.vanished:
        said.append(f"{len(found.vanished)} cells have vanished")
    if found.new:
        said.append(f"{len(found.new)} cells are new")
    worse = sum(c.verdict == "worse" for c in found.changes)
    better = sum(c.verdict == "better" for c in found.changes)
    said.append(f"of the metrics {worse} {'is' if worse == 1 else 'are'} worse, {better} better")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}. Rules: {', '.join(rules) or 'none'}."


def _weight(change: Change) -> tuple[bool, float]:
    """Broken rules first, then by size."""
    import math

    ratio = change.ratio
    return bool(change.broken), math.inf if not ratio > 0 else abs(math.log(ratio))


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _percent(change: Change) -> str:
    if change.old is None:
        return "new"
    return f"{100 * (change.ratio - 1):+.3g} %" if change.old else "from 0"


def _verdict(change: Change) -> str:
    failed = f" FAIL {', '.join(rule.text for rule in change.broken)}" if change.broken else ""
    return f"{change.verdict}{failed}"
