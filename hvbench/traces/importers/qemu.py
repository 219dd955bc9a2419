"""QEMU's trace log: block requests of a guest, as its virtio disks saw them.

    qemu-system-x86_64 … -msg timestamp=on -D log.txt -trace enable=virtio_blk_handle_read \\
        -trace enable=virtio_blk_handle_write -trace enable=virtio_blk_req_complete
    hvbench import qemu log.txt -o trace.parquet

A line is `TID@SECONDS.USEC:EVENT ARGUMENTS`. Read are `virtio_blk_handle_read` and `virtio_blk_handle_write` (vdev,
req, sector, nsectors) and `virtio_blk_req_complete` (vdev, req, status); a request ends at the completion with its
`req`, that is its recorded latency. With `--layer block` it is `blk_co_preadv` and `blk_co_pwritev` instead (blk, bs,
offset, bytes): what left the device towards the image file, without ends. Other events are not read.

Every device of every file is a tier of its own: the first is `guest`, the others `disk-1`, `disk-2` … in the order
in which they appear. Traps: sectors are 512 bytes; times are CLOCK_REALTIME; a request that was merged in the block
layer appears once there and several times at the device; without `-msg timestamp=on` lines have no time. Silent: CPU,
memory, network. Source: QEMU 7.2, hw/block/trace-events, block/trace-events, scripts/tracetool/backend/log.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np

from hvbench.policy import hookimpl
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.latency import Joined, place_key
from hvbench.traces.importers.patterns import Pattern, seconds
from hvbench.traces.importers.requests import LANES, SECTOR_BYTES, Requests

LINE: Final = Pattern(
    r"\d{1,8}@(?P<s>\d{1,10})\.(?P<us>\d{1,9}):(?:virtio_blk_(?P<what>handle_read|handle_write|req_complete)"
    r" vdev (?P<vdev>0x[0-9a-f]{1,16}) req 0x(?P<req>[0-9a-f]{1,15})"
    r"(?: sector (?P<sector>\d{1,15}) nsectors (?P<sectors>\d{1,9})| status \d+)"
    r"|blk_co_(?P<co>preadv|pwritev) blk (?P<blk>0x[0-9a-f]{1,16}) bs \S+ offset (?P<offset>\d{1,17})"
    r" bytes (?P<bytes>\d{1,12}).*"
    r"|(?P<other>[a-z_0-9]+)(?: .*)?)",
    {
        "s": "int", "us": "fraction", "what": "code", "vdev": "code", "req": "hex", "sector": "int", "sectors": "int",
        "co": "code", "blk": "code", "offset": "int", "bytes": "int", "other": "code",
    },
    "TID@SECONDS.USEC:EVENT ARGUMENTS (-msg timestamp=on), a block event with all of its arguments",
    skip=r" *",
)  # fmt: skip
BLOCK_EVENTS: Final = ("virtio_blk_handle_read", "virtio_blk_handle_write", "virtio_blk_req_complete",
                       "blk_co_preadv", "blk_co_pwritev")  # fmt: skip


@attrs.frozen
class Options:
    layer: str = option("device", legal=("device", "block"), help="the guest's device, or towards the image")
    lanes: int = option(LANES, help="requests in flight at most, per device", metavar="N")


def read(job: Import) -> Iterator[Batch]:
    requests = Requests(job, job.options.lanes)
    devices: dict[tuple[str, str], int] = {}
    at_device = job.options.layer == "device"
    for source in job.sources():
        clock = job.clock(source)
        joined = Joined(requests)
        for lines in source.blocks():
            m = LINE.parse(job, source, lines)
            if not len(m):
                continue
            time = clock.fix(seconds(m["s"], m["us"]))
            cut = np.isin(m["other"], [i for i, word in enumerate(m.words["other"]) if word in BLOCK_EVENTS])
            for row in np.flatnonzero(cut).tolist():
                job.bad_line(source, lines, int(m.numbers[row]), LINE.expected)
            if at_device:
                what = np.array(m.words["what"])[m["what"]]
                begins, write = np.isin(what, ("handle_read", "handle_write")), what == "handle_write"
                name, sector, sectors = "vdev", m["sector"], m["sectors"]
                both = np.flatnonzero(begins | (what == "req_complete"))
                joined.add(place_key(m["vdev"][both] * 0, m["req"][both]), time[both], begins[both])
            else:
                what = np.array(m.words["co"])[m["co"]]
                begins, write, name = what != "", what == "pwritev", "blk"
                sector = m["offset"] // SECTOR_BYTES
                sectors = -(-(m["offset"] + m["bytes"]) // SECTOR_BYTES) - sector
            for code in dict.fromkeys(m[name][begins].tolist()):
                mine = np.flatnonzero(begins & (m[name] == code))
                number = devices.setdefault((source.name, m.words[name][code]), len(devices))
                yield requests.batch(
                    str(number) if number else "", time[mine], write[mine], sector[mine], sectors[mine]
                )
    requests.finish()


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    match, wrong = LINE.fits([line for line in head.lines(20) if line])
    return 0.9 if match and not wrong else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="qemu",
        summary="QEMU's trace log: block requests of a guest",
        read=read,
        sniff=sniff,
        extensions=(".qtrace", ".log", ".txt"),
        options=Options,
        clock="realtime",
        replay="open",
    )
