"""libCacheSim's oracleGeneral: the binary form in which public cache traces are kept.

    hvbench import oracle-general trace.oracleGeneral.zst -o trace.parquet

A record, 24 bytes little endian: u32 time (s), u64 object, u32 size (bytes), i64 position of the next request for the
same object (-1: none). The last is not needed.

The format has no operations: all are replayed as reads of a disk, open-loop. An object is an identity; where on the
disk it lies is known only if `--object` says what the numbers count: `sector` (512 bytes), `page` (4096 bytes) or
`byte`. With `name`, the default, each distinct object gets the next free place, in the order of first requests, of
its size then; sizes that change keep the place and are read in the size requested.

Traps: times are whole seconds (requests of a second begin together, in their order); some sets hold hashes of keys
(`name` only). Distinct objects are held in memory, 24 bytes each, for `name`. Source: libCacheSim,
traceReader/customizedReader/oracle/oracleGeneralBin.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests

RECORD: Final = np.dtype([("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")])
UNITS: Final = {"sector": 512, "page": 4096, "byte": 1}
LAST_SECTOR: Final = 1 << 48
MOST_SECTORS: Final = 1 << 31
MOST_OBJECTS: Final = 8_000_000
"""What 24 bytes each keep below the memory that an import may take."""
_LOOKED_AT: Final = 256


@attrs.frozen
class Options:
    object: str = option("name", legal=("name", *UNITS), help="what the number of an object is: a name, or an address")
    lanes: int = option(LANES, help="requests in flight at most", metavar="N")


@define
class Places:
    """Where objects that are only names lie: sorted names, and the first sector of each."""

    names: NDArray[np.uint64] = field(factory=lambda: np.zeros(0, np.uint64))
    first: NDArray[np.int64] = field(factory=lambda: np.zeros(0, np.int64))
    free: int = 0

    def of(self, names: NDArray[np.uint64], sectors: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first sector of each; new ones are given theirs in order."""
        distinct, at, inverse = np.unique(names, return_index=True, return_inverse=True)
        where = np.minimum(np.searchsorted(self.names, distinct), max(len(self.names) - 1, 0))
        known = self.names[where] == distinct if len(self.names) else np.zeros(len(distinct), bool)
        first = np.empty(len(distinct), np.int64)
        first[known] = self.first[where[known]]
        fresh = np.flatnonzero(~known)
        if len(fresh):
            by_time = fresh[np.argsort(at[fresh], kind="stable")]
            sizes = sectors[at[by_time]]
            first[by_time] = self.free + np.cumsum(sizes) - sizes
            self.free += int(sizes.sum())
            place = np.searchsorted(self.names, distinct[fresh])
            self.names = np.insert(self.names, place, distinct[fresh])
            self.first = np.insert(self.first, place, first[fresh])
        return first[inverse.reshape(-1)]


def sniff(head: Head) -> float:
    """Times that do not run back, sizes below 2^28, positions after the record's own or -1."""
    count = min(_LOOKED_AT, len(head.data) // RECORD.itemsize)
    if count < 2 or head.is_text:
        return 0.0
    records = np.frombuffer(head.data, RECORD, count)
    later = (records["next"] > np.arange(count)) | (records["next"] == -1)
    plain = (np.diff(records["time"].astype(np.int64)) >= 0).all() and (records["size"] < 1 << 28).all()
    return 0.8 if plain and later.all() else 0.0


def read(job: Import) -> Iterator[Batch]:
    requests = Requests(job, job.options.lanes)
    places = Places()
    unit = UNITS.get(job.options.object, 0)
    for source in job.sources():
        clock = job.clock(source)
        at = 0
        for records in source.records(RECORD):
            time = clock.fix(records["time"].astype(np.int64) * 1_000_000_000)
            size = records["size"].astype(np.int64)
            bad = size >= MOST_SECTORS * SECTOR_BYTES
            if unit:
                bad |= records["object"] >= LAST_SECTOR * SECTOR_BYTES // unit
            for index in np.flatnonzero(bad).tolist():
                job.bad_record(
                    f"{source.name} at byte {(at + index) * RECORD.itemsize}",
                    f"an object that is a {job.options.object} of a disk (--object name takes any)",
                    f"object {int(records['object'][index])}",
                )
            at += len(records)
            if bad.any():
                records, time, size = records[~bad], time[~bad], size[~bad]
            if unit:
                begin = records["object"].astype(np.int64) * unit
                first = begin // SECTOR_BYTES
                sectors = np.where(size > 0, -(-(begin + size) // SECTOR_BYTES) - first, 0)
            else:
                sectors = -(-size // SECTOR_BYTES)
                first = places.of(records["object"], sectors)
                if len(places.names) > MOST_OBJECTS:
                    raise UserError(
                        f"{source.name}: more than {MOST_OBJECTS} distinct objects: say what their numbers count "
                        f"(--object {', '.join(UNITS)})"
                    )
            yield requests.batch("", time, np.zeros(len(time), bool), first, sectors)
    job.note("the format has no operations: all are replayed as reads; times are whole seconds")
    if not unit:
        job.note("objects are names: they lie on the disk in the order of their first requests (--object)")
    requests.finish()


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="oracle-general",
        summary="libCacheSim's oracleGeneral cache traces",
        read=read,
        sniff=sniff,
        extensions=(".oracleGeneral", ".bin"),
        options=Options,
        replay="open",
    )
