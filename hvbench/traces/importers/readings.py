"""Readings of many VMs, line after line, as intervals of a demand table: what formats of that kind share.

Public data sets are sorted by time, with all VMs at each: no VM is ever complete in memory. Each reading is an
interval of its own; of readings of one VM whose intervals overlap, the first is kept and the others are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.demand import SILENT, add_vm, note_dirt
from hvbench.traces.importers.api import Batch, Import

PAGE = 4096
SECOND = 1_000_000_000


@define
class Readings:
    """Takes readings in the order of the file. `most` VMs at most are read (0: all)."""

    job: Import
    most: int = 0
    numbers: dict[str, int] = field(factory=dict)
    """Name of a VM -> its number; -1 for one that is not read."""
    until: NDArray[np.int64] = field(factory=lambda: np.full(64, -(1 << 62), np.int64))
    """When the last interval of each VM ended."""

    def __attrs_post_init__(self) -> None:
        if self.most < 0:
            raise UserError(f"--first-vms {self.most}: has to be 0 (all) or more")

    def vm(self, name: str, **more: Any) -> int:
        """The number of a VM, -1 for one that is not read."""
        number = self.numbers.get(name)
        if number is None:
            full = bool(self.most) and len(self.job.meta.get("vms", ())) >= self.most
            number = -1 if full else add_vm(self.job, name, **more)
            self.numbers[name] = number
            while number >= len(self.until):
                self.until = np.concatenate([self.until, np.full_like(self.until, -(1 << 62))])
        return number

    def batch(self, vm: NDArray[Any], time: NDArray[np.int64], duration: NDArray[Any], **columns: Any) -> Batch:
        """Rows of some readings. Values that are not finite or below 0 are silent."""
        order = np.lexsort((time, vm))
        order = order[vm[order] >= 0]
        number, begin = vm[order], time[order]
        end = begin + duration[order]
        first = np.append(True, number[1:] != number[:-1])[: len(number)]
        before = np.empty_like(end)
        before[1:] = end[:-1]
        before[first] = self.until[number[first]]
        over = begin < before
        if over.any():
            note_dirt(self.job, {"duplicate_times": int(over.sum())})
            # one that is left out does not cover what follows
            order = order[~over]
            number, end = vm[order], time[order] + duration[order]
        np.maximum.at(self.until, number, end)
        made: Batch = {"vm": number.astype(np.int32), "time_ns": time[order], "duration_ns": duration[order]}
        for name, values in columns.items():
            made[name] = _whole(np.asarray(values, np.float64)[order])
        return made


def whole_series(vm: int, start: int, grain_ns: int, **columns: NDArray[Any]) -> Batch:
    """A VM's values at equal distances, from `start` on; what is not finite or below 0 is silent."""
    count = len(next(iter(columns.values())))
    made: Batch = {
        "vm": np.full(count, vm, np.int32),
        "time_ns": start + np.arange(count, dtype=np.int64) * grain_ns,
        "duration_ns": np.full(count, grain_ns, np.int64),
    }
    for name, values in columns.items():
        made[name] = _whole(np.asarray(values, np.float64))
    return made


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    known = np.isfinite(values) & (values >= 0)
    return np.where(known, np.rint(np.where(known, values, 0)), SILENT).astype(np.int64)
