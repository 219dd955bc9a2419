"""vscsiStats binary traces of VMware ESX: a record of fixed size for each SCSI command of a virtual disk.

    vscsiStats -s -t -w WORLD  ... -o trace.vscsi      (`vscsiStats -e` prints the same as text)

Version 1, 32 bytes little endian: u32 serial, u32 length (bytes), u32 scatter-gather entries, u16 SCSI command, u16
version (0x0100), u64 logical block (512 bytes), u64 time (us). Version 2, 40 bytes: u16 command, u16 version
(0x0200), u32 serial, u32 length, u32 scatter-gather entries, u64 logical block, u64 time (us), u64 response time
(us). The version is the upper byte of its field; it stands at different places, and is looked for in both.

Traps: the time is the host's uptime. Version 1 has no latency. Commands other than READ and WRITE (6, 10, 12 and 16
bytes) have no data and are left out. Source: the layouts as libCacheSim reads them
(traceReader/customizedReader/vscsi.h).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests
from hvbench.traces.importers.sources import Source

V1: Final = np.dtype(
    [("serial", "<u4"), ("length", "<u4"), ("sg", "<u4"), ("cmd", "<u2"), ("ver", "<u2"), ("lbn", "<u8"), ("us", "<u8")]
)
V2: Final = np.dtype(
    [("cmd", "<u2"), ("ver", "<u2"), ("serial", "<u4"), ("length", "<u4"), ("sg", "<u4"), ("lbn", "<u8"),
     ("us", "<u8"), ("response_us", "<u8")]
)  # fmt: skip
READS: Final = (0x08, 0x28, 0xA8, 0x88)
WRITES: Final = (0x0A, 0x2A, 0xAA, 0x8A)
#: Every SCSI command that has no address of data in these records, but is legal.
_KNOWN: Final = 0xFF
_LOOKED_AT: Final = 64


@attrs.frozen
class Options:
    lanes: int = option(LANES, help="requests in flight at most", metavar="N")


def _version(data: bytes) -> int:
    """1 or 2 by the first records; 0 where they are neither."""
    for number, kind in ((1, V1), (2, V2)):
        count = min(_LOOKED_AT, len(data) // kind.itemsize)
        if not count:
            continue
        records = np.frombuffer(data, kind, count)
        plain = (records["ver"] >> 8 == number) & (records["cmd"] <= _KNOWN) & (records["length"] < 1 << 30)
        if plain.all():
            return number
    return 0


def sniff(head: Head) -> float:
    return 0.9 if _version(head.data) else 0.0


def read(job: Import) -> Iterator[Batch]:
    requests = Requests(job, job.options.lanes)
    for source in job.sources():
        yield from _read_one(job, source, requests)
    requests.finish()


def _read_one(job: Import, source: Source, requests: Requests) -> Iterator[Batch]:
    version = _version(source.head())
    if not version:
        raise UserError(f"{source.name}: expected vscsiStats records of version 1 or 2, found neither; is it the text?")
    kind = V1 if version == 1 else V2
    clock = job.clock(source)
    at = 0
    for records in source.records(kind):
        bad = records["ver"] >> 8 != version
        for index in np.flatnonzero(bad).tolist():
            job.bad_record(
                f"{source.name} at byte {(at + index) * kind.itemsize}",
                f"a record of version {version}",
                f"version 0x{int(records['ver'][index]):04x}",
            )
        at += len(records)
        if bad.any():
            records = records[~bad]
        write = np.isin(records["cmd"], WRITES)
        data = write | np.isin(records["cmd"], READS)
        length = np.where(data, records["length"], 0).astype(np.int64)
        response = records["response_us"].astype(np.int64) * 1000 if version == 2 else None
        yield requests.batch(
            "",
            clock.fix(records["us"].astype(np.int64) * 1000),
            write,
            records["lbn"].astype(np.int64),
            (length + SECTOR_BYTES - 1) // SECTOR_BYTES,
            response,
        )


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="vscsi",
        summary="vscsiStats binary records, version 1 and 2 (VMware ESX)",
        read=read,
        sniff=sniff,
        extensions=(".vscsi", ".vscsitrace"),
        options=Options,
        clock="mono",
        replay="open",
    )
