"""Latencies of the block requests that a job caused, for the metadata.

They are not rows of the trace: its file operations stand above the page cache, and in a replay the modelled caches
decide what of them reaches the disk. What the disk took in the recording is what a replay's latencies are set beside.

A request ends in an interrupt, in whatever thread that interrupts: so these events are recorded for the whole
machine, in a tracing instance of their own, and the job's are picked out afterwards. A request is the job's if one of
its threads issued it, or queued the I/O that it begins with. What the kernel writes back later is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field

from hvbench.traces.importers.requests import SECTOR_BYTES, Histogram
from hvbench.traces.record.ftrace import ARGUMENTS, Event, bio, block_request

EVENTS: Final = {
    "block:block_rq_issue": "latencies of block requests",
    "block:block_rq_complete": "latencies of block requests",
    "block:block_bio_queue": "whose block requests they are",
}
READERS: Final = {
    "block_rq_issue": block_request,
    "block_rq_complete": block_request,
    "block_bio_queue": bio,
    "tracing_mark_write": ARGUMENTS["tracing_mark_write"],
}


@define
class Requests:
    """Block requests of some threads; feed it all events, in time order."""

    threads: frozenset[int]
    queued: dict[tuple[str, int], None] = field(factory=dict)
    issued: dict[tuple[str, int], tuple[int, int, bool]] = field(factory=dict)  # time, sectors, write
    latency: Histogram = field(factory=Histogram)
    reads: int = 0
    writes: int = 0
    sectors: int = 0
    of_others: int = 0
    _disks: dict[str, str] = field(factory=dict)

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.name not in READERS or event.name == "tracing_mark_write":
                continue
            device, what, sector, sectors = event.args
            if not sectors or what[0] not in "RW":
                continue  # flushes and trims have no place in a trace
            key = (self._disk(device), sector)
            if event.name == "block_bio_queue":
                if event.tid in self.threads and not event.context:
                    self.queued[key] = None
            elif event.name == "block_rq_issue":
                mine = key in self.queued or (event.tid in self.threads and not event.context)
                self.queued.pop(key, None)
                if mine:
                    self.issued[key] = (event.time, sectors, what[0] == "W")
                else:
                    self.of_others += 1
            elif key in self.issued:
                begun, size, write = self.issued.pop(key)
                self.latency.add(np.array([event.time - begun]))
                self.reads += not write
                self.writes += write
                self.sectors += size

    def _disk(self, device: str) -> str:
        """The disk of a device that may be a partition (I/O is queued to that, and requests go to the disk)."""
        if device not in self._disks:
            folder = Path(f"/sys/dev/block/{device}")
            try:
                whole = (folder / "partition").exists() and (folder.resolve().parent / "dev").read_text().strip()
            except OSError:
                whole = ""
            self._disks[device] = whole or device
        return self._disks[device]

    def summary(self) -> dict[str, Any]:
        """For the metadata's `recorded`; empty where the job had no request."""
        if not self.reads + self.writes:
            return {}
        return {
            "block_requests": self.reads + self.writes,
            "block_reads": self.reads,
            "block_writes": self.writes,
            "block_bytes": self.sectors * SECTOR_BYTES,
            "block_unfinished": len(self.issued),
            "block_requests_of_others": self.of_others,
            **self.latency.summary("block_latency"),
        }
