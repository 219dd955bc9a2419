"""Time in files that people bring: clocks that run backwards, that differ, that are counted in something else.

The rule for time that runs backwards, the same for every format: a record at most `LATE_NS` before the latest one seen
is *late* (buffers of several CPUs are written one after the other) and is sorted in where its time says. A larger
step back means that the clock was *set back*: it and all that follows is shifted by one constant, so that it
continues at the latest time. Both are counted and reported. `--longest-gap` shortens gaps the same way.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.units import DURATION_NS

LATE_NS: Final = 1_000_000_000
"""Choice of this project: a second is longer than any buffer is kept back, and shorter than clocks are set."""

#: Clocks that a source may have: those of one name tell the same time.
CLOCKS: Final = {
    "mono": "CLOCK_MONOTONIC of one machine, or a boot clock: counts from its start",
    "realtime": "CLOCK_REALTIME: counts from 1970",
    "relative": "counts from the start of the recording",
}


@define
class Clock:
    """The clock of one source: every time goes through `fix`, in the order of the file."""

    offset_ns: int = 0
    longest_gap_ns: int = 0
    latest_ns: int = -(1 << 62)
    late: int = 0
    set_back: int = 0
    set_back_ns: int = 0
    gaps: int = 0
    gaps_ns: int = 0
    start_ns: int | None = None
    """Where the first record is put, whatever its time says."""
    first_ns: int | None = None
    """The first record's time, put right."""
    _shift: int = 0

    def fix(self, times: NDArray[Any]) -> NDArray[np.int64]:
        """Times of the next records in the trace's clock."""
        fixed = np.asarray(times, np.int64)
        if self.first_ns is None and len(fixed):
            if self.start_ns is not None:
                self.offset_ns = self.start_ns - int(fixed[0])
            self.first_ns = int(fixed[0]) + self.offset_ns
        fixed = fixed + (self.offset_ns + self._shift)
        at = 0
        while at < len(fixed):
            latest = np.maximum.accumulate(np.concatenate([[self.latest_ns], fixed[at:]]))
            wrong = fixed[at:] < latest[:-1] - LATE_NS
            if self.longest_gap_ns:
                wrong |= (fixed[at:] > latest[:-1] + self.longest_gap_ns) & (latest[:-1] > -(1 << 61))
            steps = np.flatnonzero(wrong)
            end = at + (int(steps[0]) if len(steps) else len(fixed) - at)
            if end > at:
                self.late += int((fixed[at:end] < latest[: end - at]).sum())
                self.latest_ns = int(latest[end - at])
            if end < len(fixed):
                self._step(fixed, end)
            at = end
        return fixed

    def _step(self, fixed: NDArray[np.int64], at: int) -> None:
        step = int(fixed[at]) - self.latest_ns
        if step < 0:
            self.set_back += 1
            self.set_back_ns = max(self.set_back_ns, -step)
        else:
            self.gaps += 1
            self.gaps_ns += step - self.longest_gap_ns
            step -= self.longest_gap_ns
        fixed[at:] -= step
        self._shift -= step

    def notes(self, name: str) -> list[str]:
        """What was put right, as sentences."""
        said = []
        if self.late:
            said.append(f"{name}: {self.late} records were out of order by up to 1 s: sorted by their times")
        if self.set_back:
            said.append(
                f"{name}: the clock was set back {self.set_back} times, by up to {self.set_back_ns / 1e9:.6g} s: "
                "what follows was shifted to continue"
            )
        if self.gaps:
            what = "1 gap was" if self.gaps == 1 else f"{self.gaps} gaps were"
            said.append(f"{name}: {what} shortened, by {self.gaps_ns / 1e9:.6g} s in all")
        return said


TIME_UNITS: Final = {**{name: ns for name, ns in DURATION_NS.items() if name.isascii()}, "100ns": 100}


def unit_ns(text: str, what: str = "--time-unit") -> int:
    """Nanoseconds of a unit of time by its name."""
    if text not in TIME_UNITS:
        raise UserError(f"{what} {text}: no unit of time; legal: {', '.join(TIME_UNITS)}")
    return TIME_UNITS[text]
