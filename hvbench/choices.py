"""The grammar in which people choose: `credit,credit:timeslice={1,5,30}ms,./mine.py`, `overcommit+balloon`.

    choices   := choice ("," choice)*           each choice is a column of the matrix
    choice    := "all" | "standard" | layer ("+" layer)*        "+" stacks, on memory only
    layer     := policy (":" parameter "=" value)*
    policy    := name | path of a .py file
    value     := text with at most one sweep "{a,b,c}"; a unit after it goes to each: {1,5,30}ms

`all` is every policy of the axis that is installed and no control; `standard` is what a matrix takes where
the axis is not named. A choice that appears twice counts once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hvbench.axes import AXES, MAX_STACK, STACKING_AXES
from hvbench.cell import Choice, label_of
from hvbench.errors import UserError
from hvbench.plugins import Policy, Registry, bind_params
from hvbench.stacks import is_stack, layers_of

STANDARD: dict[str, str] = {
    "scheduler": "round-robin,credit,credit2,eevdf",
    "memory": ("static,balloon,overcommit,overcommit+balloon,page-sharing,overcommit+balloon+page-sharing,esx"),
    "storage": "das,nas,san",
    "switch": "internal,bridged",
    "technique": "hardware",
    "host": "type1",
}
"""What a matrix takes on an axis that is not named."""

DEFAULT: dict[str, str] = {
    "scheduler": "credit",
    "memory": "static",
    "storage": "das",
    "switch": "bridged",
    "technique": "hardware",
    "host": "type1",
}
"""What a single run takes on an axis that is not named."""


def parse_choices(axis: str, text: str, registry: Registry, base: Path = Path()) -> list[Choice]:
    """The choices that `text` lists for an axis; files are relative to `base`. Raises UserError."""
    if axis not in AXES:
        raise UserError(f"{axis!r} is no axis; legal: {', '.join(AXES)}")
    found: dict[str, Choice] = {}
    for part in _split(text, ",", axis):
        for choice in _parse_choice(axis, part, registry, base):
            found.setdefault(choice.label, choice)
    return list(found.values())


def parse_choice(axis: str, text: str, registry: Registry, base: Path = Path()) -> Choice:
    """Exactly one choice; UserError where `text` lists several."""
    choices = parse_choices(axis, text, registry, base)
    if len(choices) != 1:
        raise UserError(f"{axis}: {text!r} lists {len(choices)} choices; one is needed here")
    return choices[0]


def _parse_choice(axis: str, text: str, registry: Registry, base: Path) -> Iterable[Choice]:
    if text == "all":
        policies = [policy for policy in registry.axis(axis) if policy.control is None and not policy.from_file]
        if not policies:
            raise UserError(f"{axis}: no policy is installed{_failures(registry)}")
        return [_stacked(axis, ((policy, bind_params(policy, {})),), policy.name, registry) for policy in policies]
    if text == "standard":
        return parse_choices(axis, STANDARD[axis], registry, base)
    layers = _split(text, "+", axis)
    if len(layers) > 1 and axis not in STACKING_AXES:
        raise UserError(f"{axis}: {text!r}: only {' and '.join(STACKING_AXES)} policies stack; separate with a comma")
    parsed = [_parse_layer(axis, layer, registry, base) for layer in layers]
    variants = [[(policy, bind_params(policy, settings)) for settings in sweeps] for policy, sweeps in parsed]
    return [_stacked(axis, tuple(layers), text, registry) for layers in itertools.product(*variants)]


def _stacked(axis: str, layers: tuple[tuple[Policy, Any], ...], text: str, registry: Registry) -> Choice:
    """A choice of layers, named stacks replaced by theirs."""
    policies: list[tuple[Policy, Any]] = []
    for policy, params in layers:
        policies += layers_of(policy, params, registry) if is_stack(policy) else [(policy, params)]
    if len(policies) > MAX_STACK:
        raise UserError(f"{axis}: {text!r} has {len(policies)} layers; {MAX_STACK} at most")
    names = [policy.name for policy, _ in policies]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{axis}: {text!r} has {twice} twice")
    written = label_of(layers) if any(is_stack(policy) for policy, _ in layers) else ""
    return Choice(axis, tuple(policies), written)


def _parse_layer(axis: str, text: str, registry: Registry, base: Path) -> tuple[Policy, list[dict[str, str]]]:
    """One policy and every setting of its parameters that the sweeps give."""
    name, *settings = _split(text, ":", axis)
    if name in ("all", "standard"):
        raise UserError(f"{axis}: {text!r}: {name!r} stands alone; it takes no parameters and does not stack")
    policy = _find_policy(axis, name, registry, base)
    swept: list[list[tuple[str, str]]] = []
    for setting in settings:
        parameter, equals, value = setting.partition("=")
        if not equals or not parameter.strip() or not value.strip():
            raise UserError(f"{axis} {name}: {setting!r} is not of the form parameter=value")
        policy.param(parameter.strip())
        swept.append([(parameter.strip(), each) for each in _sweep(value.strip(), f"{axis} {name}: {parameter}")])
    rows = []
    for combination in itertools.product(*swept):
        row: dict[str, str] = {}
        for parameter, value in combination:
            if parameter in row:
                raise UserError(f"{axis} {name}: {parameter} is set twice")
            row[parameter] = value
        rows.append(row)
    return policy, rows


def _find_policy(axis: str, name: str, registry: Registry, base: Path) -> Policy:
    if name.endswith(".py") or "/" in name:
        policy = registry.load_file(_relative(name, base))
        if policy.axis != axis:
            raise UserError(f"{name} is a policy of the axis {policy.axis}, not {axis}")
        return policy
    return registry.get(axis, name)


def _relative(name: str, base: Path) -> Path:
    """A path as given, so that it is shown as given; under `base` where that is another folder."""
    path = Path(name).expanduser()
    return path if path.is_absolute() or base == Path() else base / path


def _sweep(value: str, where: str) -> list[str]:
    """`{1,5,30}ms` as `1ms`, `5ms`, `30ms`; a value without braces as itself."""
    start, end = value.find("{"), value.find("}")
    if start < 0 and end < 0:
        return [value]
    if start < 0 or end < start or value.count("{") != 1 or value.count("}") != 1:
        raise UserError(f"{where}: {value!r}: a sweep is one pair of braces, like {{1,5,30}}ms")
    items = [item.strip() for item in value[start + 1 : end].split(",")]
    if not all(items):
        raise UserError(f"{where}: {value!r}: an empty value in the sweep")
    return [value[:start] + item + value[end + 1 :] for item in items]


def _split(text: str, separator: str, axis: str) -> list[str]:
    """Split outside braces; empty parts are errors."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    if depth != 0:
        raise UserError(f"{axis}: {text!r}: braces do not match")
    stripped = [part.strip() for part in parts]
    if not all(stripped):
        raise UserError(f"{axis}: {text!r}: something is missing beside {separator!r}")
    return stripped


def _failures(registry: Registry) -> str:
    """Why nothing may be there, for the message."""
    if not registry.failed:
        return "; see hvbench plugins"
    origin, error = registry.failed[0]
    return f"; {len(registry.failed)} did not load, the first: {origin}: {error}"
