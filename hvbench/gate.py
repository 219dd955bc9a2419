"""Rules on metrics that fail a comparison: `slowdown_geomean:+1%`, `progress_per_s:-2%`, `network_frames_dropped:=0`.

    RULE   := METRIC ":" LIMIT
    LIMIT  := "+" AMOUNT     it may not rise by more        (metrics of which less is better)
            | "-" AMOUNT     it may not fall by more        (metrics of which more is better)
            | "=" NUMBER     it has to be exactly this, whatever it was
            | "="            it has to be exactly what it was
    AMOUNT := NUMBER "%"     of the old value               (not of an old value of 0: then any rise or fall fails)
            | NUMBER         in the metric's own unit; a unit may stand after it: 5ms, 1MiB

Unlike pytest-benchmark's --benchmark-compare-fail these take fractions of a percent, metrics that are 0 and metrics
of which more is better.
"""

from __future__ import annotations

import re
from decimal import Decimal

from attrs import define

from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS
from hvbench.nearest import did_you_mean
from hvbench.units import parse_value

_RULE = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*:\s*([+=-])\s*(.*?)\s*")


@define(frozen=True)
class Rule:
    """One rule. `amount` is a share of the old value if `relative`, else in the metric's unit; None for `=` alone."""

    metric: str
    sign: str
    amount: float | None
    relative: bool
    text: str

    def breaks(self, old: float | None, new: float) -> bool:
        """Whether going from `old` (None: the cell is new) to `new` breaks the rule."""
        if self.sign == "=":
            wanted = old if self.amount is None else self.amount
            return wanted is not None and new != wanted
        if old is None or self.amount is None:
            return False
        # In decimals, as people write them: from 1.0 to 1.01 is one percent, which binary floats deny.
        before, after, amount = (Decimal(repr(float(x))) for x in (old, new, self.amount))
        change = after - before if self.sign == "+" else before - after
        return change > (amount * abs(before) if self.relative else amount)


def parse_rule(text: str) -> Rule:
    """A rule; UserError says what is legal. A metric that hvbench does not know is taken as a plain number's name."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise UserError(f"rule {text!r}: write METRIC:+AMOUNT, METRIC:-AMOUNT or METRIC:=NUMBER, like throughput:-2%")
    metric, sign, value = found.groups()
    if not value:
        if sign != "=":
            raise UserError(f"rule {text!r}: an amount is missing after {sign}")
        return Rule(metric, sign, None, False, text.strip())
    relative = value.endswith("%")
    if relative and sign == "=":
        raise UserError(f"rule {text!r}: = takes a number, not a percentage")
    amount = _number(value.removesuffix("%"), text, "count" if relative else _unit(metric))
    if amount < 0 and sign != "=":
        raise UserError(f"rule {text!r}: the amount may not be negative")
    return Rule(metric, sign, amount / 100 if relative else amount, relative, text.strip())


def _unit(metric: str) -> str:
    return CELL_METRICS[metric].unit if metric in CELL_METRICS else "count"


def _number(value: str, text: str, unit: str) -> float:
    try:
        number = float(value)
    except ValueError:
        try:
            number = float(parse_value(value, unit, whole=False))
        except UserError as error:
            raise UserError(f"rule {text!r}: {error}") from error
    if number != number or number in (float("inf"), float("-inf")):
        raise UserError(f"rule {text!r}: {value!r} is no finite number")
    return number


def check_known(rules: list[Rule], names: set[str]) -> None:
    """Refuse rules on metrics that no compared result has: a gate that guards nothing."""
    for rule in rules:
        if rule.metric not in names:
            raise UserError(
                f"rule {rule.text!r}: no compared result has the metric {rule.metric!r}"
                f"{did_you_mean(rule.metric, sorted(names), always=True)}"
            )
