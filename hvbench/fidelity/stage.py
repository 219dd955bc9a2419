"""Where scenarios are set up: traces and workloads as files in one folder, cells from the installed policies.

A scenario uses what any user has: a trace written by `hvbench.traces.synthetic`, a workload in TOML, policies by name
with parameters. `hvbench fidelity --write DIR` leaves the files in DIR, for `hvbench run DIR/NAME.toml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field

from hvbench.axes import AXES
from hvbench.cell import Cell
from hvbench.choices import parse_choice
from hvbench.errors import UserError
from hvbench.plugins import Registry
from hvbench.traces.synthetic import Script
from hvbench.workload import load_workload

PLAIN: dict[str, str] = {
    "scheduler": "round-robin",
    "memory": "static",
    "storage": "das",
    "switch": "bridged",
    "technique": "native",
    "host": "type1",
}
"""What a scenario takes on an axis that it does not name: no technique's costs."""


class Missing(UserError):
    """A policy that a bar needs is not installed."""


@define
class Stage:
    """A folder for scenarios, and the policies to run them with."""

    folder: Path
    registry: Registry
    _written: set[str] = field(factory=set)

    def trace(self, name: str, script: Script) -> str:
        """Write a trace, once; returns how a workload of this folder names it."""
        if name not in self._written:
            script.save(self.folder / f"{name}.parquet")
            self._written.add(name)
        return f"./{name}.parquet"

    def workload(
        self,
        name: str,
        *,
        settings: dict[str, Any],
        host: dict[str, Any],
        vms: list[dict[str, Any]],
    ) -> Path:
        """Write a workload from its tables; a key with a dot belongs to a table of its own (`disk.channels`)."""
        parts = ["format = 1", "", "[workload]", f'name = "{name}"', *_table(settings), "", "[host]", *_table(host)]
        for vm in vms:
            parts += ["", "[[vm]]", *_table(vm)]
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")
        return path

    def cell(self, workload: Path, seed: int = 1, **choices: str) -> Cell:
        """One cell of a workload, with `PLAIN` choices where none is named."""
        loaded = load_workload(str(workload))
        texts = PLAIN | choices
        for axis, text in texts.items():
            for layer in text.split("+"):
                self._require(axis, layer.partition(":")[0])
        parsed = {axis: parse_choice(axis, texts[axis], self.registry) for axis in AXES}
        return Cell(loaded, parsed, seed, loaded.horizon_ns, loaded.warmup_ns)

    def _require(self, axis: str, name: str) -> None:
        if not name.endswith(".py") and name not in {policy.name for policy in self.registry.axis(axis)}:
            raise Missing(f"no {axis} policy {name} is installed")


def _table(values: dict[str, Any]) -> list[str]:
    """Keys and values as TOML."""
    return [f"{key} = {_value(value)}" for key, value in values.items()]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value)


def ns(value: float) -> str:
    """A time for a TOML table."""
    return f"{round(value)}ns"
