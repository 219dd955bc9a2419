"""The numbers that fidelity is judged by: each with its one role, its source, how it was read, and its tolerance."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import define, field

from hvbench.errors import HvbenchError

FILE = Path(__file__).with_name("numbers.toml")

ROLES = ("input", "calibration", "target")

MARKS = {
    "F": "printed in the source",
    "F2": "quoted from the source in a text that was read",
    "V": "recovered from the vector drawing of a figure, within 1 to 2 %",
    "D": "derived from printed numbers",
    "M": "measured by this project; the recording is part of it",
    "P": "a choice of this project: the source leaves it open",
}
"""How a number was obtained."""

KINDS = ("absolute", "relative", "factor", "between", "at_least", "at_most", "exact")


@define(frozen=True)
class Tolerance:
    """When a simulated value meets a target, fixed before the first run.

    `absolute` and `relative` are distances from the published value, `factor` bounds the ratio of the two either way,
    `between`, `at_least` and `at_most` bound the simulated value itself, `exact` asks for equality.
    """

    kind: str
    bounds: tuple[float, ...] = ()

    def meets(self, published: float, simulated: float) -> bool:
        """Whether the simulated value is good enough."""
        if self.kind == "exact":
            return simulated == published
        if self.kind == "between":
            return self.bounds[0] <= simulated <= self.bounds[1]
        if self.kind == "at_least":
            return simulated >= self.bounds[0]
        if self.kind == "at_most":
            return simulated <= self.bounds[0]
        if self.kind == "factor":
            return published <= simulated * self.bounds[0] and simulated <= published * self.bounds[0]
        allowed = self.bounds[0] * (abs(published) if self.kind == "relative" else 1)
        # a value on the edge is inside, whatever its last bit is
        return abs(simulated - published) <= allowed * (1 + 1e-12)

    def __str__(self) -> str:
        if self.kind == "exact":
            return "exact"
        if self.kind == "between":
            return f"{self.bounds[0]:g} to {self.bounds[1]:g}"
        if self.kind == "relative":
            return f"±{100 * self.bounds[0]:g} %"
        sign = {"absolute": "±", "factor": "×/÷ ", "at_least": "≥ ", "at_most": "≤ "}[self.kind]
        return f"{sign}{self.bounds[0]:g}"


@define(frozen=True)
class Number:
    """One number. `held_by` names the parameter of the model that has this value as its default, if one does."""

    id: str
    bar: str
    role: str
    what: str
    value: float
    source: str
    mark: str
    unit: str = ""
    tolerance: Tolerance | None = None
    held_by: str = ""
    note: str = ""


@define(frozen=True)
class Inputs:
    """The inputs and calibrations of a bar by their ids without the bar: all that a scenario may see."""

    bar: str
    _values: Mapping[str, float] = field(repr=False)

    def __getitem__(self, name: str) -> float:
        try:
            return self._values[name]
        except KeyError:
            raise HvbenchError(f"{self.bar}: no input {name!r}; a scenario sees no targets") from None

    def whole(self, name: str) -> int:
        """An input that is a whole number."""
        value = self[name]
        if value != int(value):
            raise HvbenchError(f"{self.bar}: input {name} is {value}, and not a whole number")
        return int(value)

    def group(self, prefix: str) -> dict[str, float]:
        """The inputs whose names begin so, without that."""
        return {name.removeprefix(prefix): value for name, value in self._values.items() if name.startswith(prefix)}


@lru_cache(maxsize=1)
def load() -> dict[str, Number]:
    """Every number by its id (`fb1.5ms.n8`)."""
    return parse(tomllib.loads(FILE.read_text(encoding="utf-8")))


def sources() -> dict[str, str]:
    """The works that the numbers come from."""
    found: dict[str, str] = tomllib.loads(FILE.read_text(encoding="utf-8"))["source"]
    return found


def parse(raw: Mapping[str, Any]) -> dict[str, Number]:
    """The numbers of a read file; HvbenchError where one has no single role, no source, or no tolerance."""
    found: dict[str, Number] = {}
    for role in ROLES:
        for entry in raw.get(role, []):
            number = _number(role, dict(entry))
            if number.id in found:
                raise HvbenchError(f"{number.id} is {found[number.id].role} and {role}; a number has one role")
            if not any(number.source.startswith(name) for name in raw["source"]):
                raise HvbenchError(f"{number.id}: no source {number.source!r}")
            found[number.id] = number
    return found


def _number(role: str, entry: dict[str, Any]) -> Number:
    name = entry.get("id", "?")
    stated = entry.pop("tolerance", None)
    if (stated is not None) != (role == "target"):
        raise HvbenchError(f"{name}: a target has a tolerance, an input or calibration has none")
    if entry.get("mark") not in MARKS:
        raise HvbenchError(f"{name}: mark {entry.get('mark')!r}; legal: {', '.join(MARKS)}")
    tolerance = None
    if stated is not None:
        if len(stated) != 1 or next(iter(stated)) not in KINDS:
            raise HvbenchError(f"{name}: tolerance {stated!r}; legal: one of {', '.join(KINDS)}")
        kind, bounds = next(iter(stated.items()))
        listed = bounds if isinstance(bounds, list) else [] if kind == "exact" else [bounds]
        tolerance = Tolerance(kind, tuple(float(b) for b in listed))
    number = Number(role=role, tolerance=tolerance, **{**entry, "value": float(entry["value"])})
    if tolerance is not None and not tolerance.meets(number.value, number.value):
        raise HvbenchError(f"{name}: the published value {number.value:g} does not meet its own tolerance {tolerance}")
    return number


def of_bar(bar: str, role: str) -> dict[str, Number]:
    """The numbers of a bar with a role, by their ids without the bar."""
    start = f"{bar.lower()}."
    return {n.id.removeprefix(start): n for n in load().values() if n.bar == bar and n.role == role}


def inputs(bar: str) -> Inputs:
    """What a scenario of a bar may see."""
    return Inputs(bar, {name: n.value for role in ROLES if role != "target" for name, n in of_bar(bar, role).items()})
