"""How long a medium takes for a request, and what a filer's or an array's cache holds.

Moving parts: the seek grows with the square root of the distance (C. Ruemmler, J. Wilkes, "An introduction to disk
drive modeling", IEEE Computer 27(3), 1994), scaled so that its mean over random pairs of places is the data sheet's
average (the mean of the square root of a random distance is 8/15). The rotation that a request waits for follows
from where the platter stands when the heads arrive. A request that begins where the one before it ended is served
from the drive's read-ahead buffer: no positioning.
"""

from __future__ import annotations

import math
from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import mix
from hvbench.state.records_io import MOVES_ALL, MOVES_BACK, MOVES_NONE, MOVES_OUT, ST_MEDIUM

PAGE_BYTES = 4096
WAYS = 8
_POSITIVE = (1 << 62) - 1


@jit
def moved_bytes(moves: int, write: int, pages: int) -> int:
    """Bytes of a request that a step or station moves."""
    if moves == MOVES_NONE:
        return 0
    if moves == MOVES_ALL or (moves == MOVES_OUT and write) or (moves == MOVES_BACK and not write):
        return pages * PAGE_BYTES
    return 0


@jit
def positioning_ns(host: Any, st: int, page: int, start_ns: int) -> int:
    """Seek and rotation before a request at `page`, from where the heads stand at `start_ns`."""
    s = host.station[st]
    if s.seek_ns == 0 and s.rotation_ns == 0:
        return 0
    if s.head_page == page:
        return 0
    distance = page - s.head_page
    if distance < 0:
        distance = -distance
    seek = s.track_seek_ns + int((s.seek_ns - s.track_seek_ns) * 1.875 * math.sqrt(distance / s.pages))
    if s.rotation_ns == 0:
        return seek
    angle_ns = (page * PAGE_BYTES * s.ps_per_byte // 1000) % s.rotation_ns
    return seek + (angle_ns - start_ns - seek) % s.rotation_ns


@jit
def service_ns(host: Any, st: int, r: int) -> int:
    """Time that a station takes for a request, from now; a medium's heads move."""
    s = host.station[st]
    q = host.request[r]
    time = s.write_ns if q.write else s.read_ns
    if s.kind == ST_MEDIUM:
        time += positioning_ns(host, st, q.page, host.now)
        s.head_page = q.page + q.span
    time += moved_bytes(s.moves, q.write, q.span) * s.ps_per_byte // 1000
    return max(1, time)


@jit
def cache_line(host: Any, st: int, page: int) -> int:
    """The line that holds `page`; else the least recently used line of its set, as -1 - line."""
    s = host.station[st]
    first = s.cache_first + ((mix(0, page) & _POSITIVE) % s.cache_sets) * WAYS
    oldest = first
    for line in range(first, first + WAYS):
        x = host.cacheline[line]
        if x.page == page:
            return line
        if x.used < host.cacheline[oldest].used:
            oldest = line
    return -1 - oldest


@jit
def cache_access(host: Any, st: int, r: int) -> bool:
    """A request passes a cache: True if it is a read and all of its pages are there. What passes is kept.

    Writes go through to the medium: whether an array may answer a write from battery-backed memory is its vendor's
    promise, and no part of the path.
    """
    s = host.station[st]
    if s.cache_sets == 0:
        return False
    q = host.request[r]
    hits = 0
    for page in range(q.page, q.page + q.span):
        line = cache_line(host, st, page)
        if line >= 0:
            hits += 1
        else:
            line = -1 - line
            host.cacheline[line].page = page
        host.cacheline[line].used = host.sequence * 1024 + hits
    if q.write:
        return False
    s.cache_hits += hits
    return hits == q.span
