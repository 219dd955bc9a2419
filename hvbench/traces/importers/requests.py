"""Recorded block requests as rows: what the block formats share.

A block trace has times and places, and nobody who waits: it is replayed open-loop, each request begun when it was
recorded, or late. A thread of a trace waits for its request, so that requests that were in flight together need several
threads: `lanes` of them take turns (the depth of the queue that the trace can fill). Each device is a tier of its
own, that is, a VM's disk.

Addresses and sizes are sectors of 512 bytes in the columns `page` and `pages`. Requests without data (flushes, trims)
have no place in a trace; they are left out and counted. Latencies that were recorded are kept in the metadata
(`recorded`), to set beside those of a replay.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.format import OPS
from hvbench.traces.importers.api import GUEST, Batch, Import

SECTOR_BYTES: Final = 512
LANES: Final = 32
"""Choice of this project, the queue depth that virtual SCSI adapters give a disk by default."""
_STEPS: Final = 16  # of the histogram, to a factor of two


@define
class Histogram:
    """Durations in ns in bins of 1/16 octave: percentiles to within 4.5 %, whatever their number."""

    counts: NDArray[np.int64] = field(factory=lambda: np.zeros(64 * _STEPS, np.int64))

    def add(self, values: NDArray[Any]) -> None:
        """Count durations; those of 0 or less count as 1 ns."""
        bins = (np.log2(np.maximum(values, 1).astype(np.float64)) * _STEPS).astype(np.int64)
        self.counts += np.bincount(bins, minlength=len(self.counts))

    def percentile(self, share: float) -> int:
        """The duration below which `share` of them lie; 0 without any."""
        total = int(self.counts.sum())
        if not total:
            return 0
        at = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return round(2 ** ((at + 0.5) / _STEPS))

    def summary(self, name: str) -> dict[str, int]:
        """`name`_p50_ns and so on, for the metadata."""
        if not self.counts.any():
            return {}
        return {f"{name}_p{int(100 * p)}_ns": self.percentile(p) for p in (0.5, 0.9, 0.99)}


@define
class Requests:
    """Turns requests into rows, over all files of an import."""

    job: Import
    lanes: int = LANES
    first: dict[str, int] = field(factory=dict)
    """Device -> its first thread."""
    turn: dict[str, int] = field(factory=dict)
    latency: Histogram = field(factory=Histogram)
    empty: int = 0

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.lanes <= 4096:
            raise UserError(f"--lanes {self.lanes}: has to be 1 to 4096")

    def _threads(self, device: str) -> int:
        first = self.first.get(device)
        if first is None:
            tier = f"disk-{device}" if device else GUEST
            process = len(self.first)
            numbers = [self.job.thread(f"requests {i}", process, tier) for i in range(self.lanes)]
            first = self.first[device] = numbers[0]
        return first

    def batch(
        self,
        device: str,
        time_ns: NDArray[np.int64],
        write: NDArray[Any],
        sector: NDArray[np.int64],
        sectors: NDArray[np.int64],
        response_ns: NDArray[np.int64] | None = None,
    ) -> Batch:
        """Rows of one device's requests, in the order of the file."""
        full = sectors > 0
        if not full.all():
            self.empty += int((~full).sum())
            time_ns, write, sector, sectors = time_ns[full], write[full], sector[full], sectors[full]
            response_ns = response_ns[full] if response_ns is not None else None
        count = len(time_ns)
        turn = self.turn.get(device, 0)
        self.turn[device] = (turn + count) % self.lanes
        first = self._threads(device)
        if response_ns is not None and count:
            known = response_ns[response_ns > 0]
            self.latency.add(known)
            self.job.waited("disk", int(known.sum()))
            self.job.until(int((time_ns + response_ns).max()))
        return {
            "thread": (first + (turn + np.arange(count)) % self.lanes).astype(np.int32),
            "op": np.where(write, OPS["blk_write"], OPS["blk_read"]).astype(np.int8),
            "time_ns": time_ns,
            "page": sector,
            "pages": sectors.astype(np.int32),
        }

    def finish(self) -> None:
        """Say what was left out and what is known."""
        if self.empty:
            self.job.note(f"{self.empty} requests without data (flushes, trims, other commands) are left out")
        self.job.meta.setdefault("recorded", {}).update(self.latency.summary("block_latency"))
