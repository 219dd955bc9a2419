"""How long a disk takes after a pause: what the medium of the bar REPLAY needs, measured without the job.

    python -m hvbench.fidelity.pause_probe -o FILE          # as root, tracefs

Single requests of 16 KiB (the size that the job asks for), each after nothing was asked of the device for a time. A
request's latency is taken from its issue to its completion, as the recording's is; its pause is what the events say,
from the last completion of anybody's request. A disk behind a hypervisor is served by a thread that sleeps when there
is nothing to do, on a processor that sleeps deeper the longer it lasts.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hvbench.errors import UserError
from hvbench.fidelity.contended_convert import Reader, quantile
from hvbench.fidelity.contended_record import BUFFER_KIB, EVENTS, capture, device_number
from hvbench.traces.record.ftrace import Event
from hvbench.traces.record.tracefs import Session, find_tracefs

SIZE = 16 << 10
PAUSES_MS = (1, 2, 4, 8, 16, 32)
"""What is asked for; each request counts for the pause that it had, within a factor of the square root of 2."""
ROUNDS = 200
LEAST = 30
"""Requests that a median needs."""


def ask(folder: Path) -> None:
    """Reads and writes in turn, past the page cache, after each pause."""
    path = folder / "probe"
    size = 64 << 20
    path.write_bytes(os.urandom(1 << 20) * (size >> 20))
    os.sync()
    file = os.open(path, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, SIZE)
    page[:] = os.urandom(SIZE)
    place = random.Random(0)
    for pause in PAUSES_MS:
        # the same pause again and again: how warm the path is depends on the pauses before it too
        for number in range(ROUNDS):
            time.sleep(pause / 1e3)
            at = place.randrange(size // SIZE) * SIZE
            if number % 2:
                os.pwrite(file, memoryview(page), at)
            else:
                os.preadv(file, [memoryview(page)], at)
    os.close(file)


def by_pause(events: Iterable[Event], device: str) -> dict[int, list[int]]:
    """Latencies of requests of 16 KiB by the pause before them, ns, but for those that found the device at work."""
    reader = Reader([], 0)
    for event in events:
        if event.name.startswith("block") and event.args[0] == device:
            reader.block(event)
    found: dict[int, list[int]] = {pause: [] for pause in PAUSES_MS}
    last = -1
    for issued, took, _, _, _, sectors in sorted(reader.requests):
        pause_ms = (issued - last) / 1e6
        if last >= 0 and sectors * 512 == SIZE:
            for pause in PAUSES_MS:
                if pause <= pause_ms * 2**0.5 and pause_ms <= pause * 2**0.5:
                    found[pause].append(took)
        last = max(last, issued + took)
    return found


def medians(found: dict[int, list[int]]) -> dict[str, Any]:
    """What is kept. Raises UserError where a pause has too few requests."""
    few = [f"{pause} ms: {len(took)}" for pause, took in found.items() if len(took) < LEAST]
    if few:
        raise UserError(
            f"too few requests after a pause ({', '.join(few)}): others use the disk; repeat when it is idle"
        )
    return {
        "size_bytes": SIZE,
        "kernel": platform.release(),
        "requests": {str(pause): len(took) for pause, took in found.items()},
        "latency_ns": {str(pause): quantile(took, 0.5) for pause, took in found.items()},
    }


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what a pause does to a disk's latency.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file; the disk of its folder is asked")
    given = parser.parse_args(words)
    try:
        root, reason = find_tracefs()
        if root is None:
            raise UserError(reason)
        folder = given.output.resolve().parent
        with (
            tempfile.TemporaryDirectory(dir=folder) as scratch,
            Session(root, BUFFER_KIB, {k: v for k, v in EVENTS.items() if k.startswith("block")}, ()) as session,
        ):
            events = capture(session, partial(ask, Path(scratch)))
        text = json.dumps(medians(by_pause(events, device_number(folder))), indent=1)
        given.output.write_text(text + "\n", encoding="ascii")
        print(text)
    except UserError as error:
        sys.exit(f"pause_probe: {error}")


if __name__ == "__main__":
    main()
