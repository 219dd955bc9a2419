"""Conditions on stored results: `scheduler=credit`, `slowdown_worst<1.5`, `status!=ok`, joined by commas."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence

from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.metrics import CELL_METRICS
from hvbench.nearest import did_you_mean
from hvbench.store import Row
from hvbench.units import parse_value

Condition = Callable[[Row], bool]

_FORM = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_TEXTS: dict[str, Callable[[Row], str]] = {
    "workload": lambda row: row.workload,
    "status": lambda row: row.status,
    **{axis: (lambda row, axis=axis: row.labels[axis]) for axis in AXES},  # type: ignore[misc]
}


def parse_where(texts: Sequence[str]) -> Condition:
    """All of the conditions together; UserError says what is legal."""
    conditions = [_parse(part) for text in texts for part in text.split(",")]
    return lambda row: all(condition(row) for condition in conditions)


def _parse(text: str) -> Condition:
    match = _FORM.fullmatch(text)
    if match is None:
        raise UserError(f"--where {text!r}: write NAME=VALUE or METRIC<NUMBER, like scheduler=credit")
    name, sign, value = match.groups()
    if name in _TEXTS:
        if sign not in ("=", "!="):
            raise UserError(f"--where {text!r}: {name} is a text; compare it with = or !=")
        get_text = _TEXTS[name]
        return lambda row: (get_text(row) == value) == (sign == "=")
    if name == "seed":
        return _numeric(lambda row: row.seed, sign, float(_read(text, value, "count")))
    if name in CELL_METRICS:
        wanted = _read(text, value, CELL_METRICS[name].unit)
        return _numeric(lambda row: row.result.metrics.get(name), sign, wanted)
    known = [*_TEXTS, "seed", *CELL_METRICS]
    raise UserError(f"--where {text!r}: no {name!r}{did_you_mean(name, known, always=True)}")


def _read(text: str, value: str, unit: str) -> float:
    try:
        return float(parse_value(value, unit, whole=False))
    except UserError as error:
        raise UserError(f"--where {text!r}: {error}") from error


def _numeric(get: Callable[[Row], float | int | None], sign: str, wanted: float) -> Condition:
    compare = _COMPARE[sign]

    def holds(row: Row) -> bool:
        value = get(row)
        return value is not None and compare(float(value), wanted)

    return holds
