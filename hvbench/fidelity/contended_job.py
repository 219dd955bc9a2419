"""The job of the validation recording: compressors that are fed through pipes, and their disk.

    python -m hvbench.fidelity.contended_job FOLDER

Six processes: one makes chunks of data and hands out their numbers, four compress them and now and then read from and
write to a file of their own past the page cache, one collects. A window of eight chunks keeps them together. It says
`ready`, begins when it reads a line, and runs until it is killed. Standard library only; it is in a session of its own.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import struct
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

COMPRESSORS = 4
WINDOW = 8
FILE_BYTES = 16 << 20
READ_EVERY, WRITE_EVERY, SYNC_EVERY = 2, 4, 16
NUMBER = struct.Struct("<q")


def chunk(number: int) -> bytes:
    """A chunk of 32 to 224 KiB of random digits, which take zlib some milliseconds."""
    size = (32 + number * 37 % 193) << 10
    return random.Random(number).randbytes(size // 2).hex().encode()


def feed(tasks: int, credits: int) -> None:
    """Hand out numbers as long as there is room in the window."""
    number = 0
    while os.read(credits, 1):
        hashlib.sha256(number.to_bytes(8, "little") * 40_000).digest()
        os.write(tasks, NUMBER.pack(number))
        number += 1


def compress(tasks: int, results: int, path: Path) -> None:
    """Make and compress chunks; every so often read, write, and write through."""
    file = os.open(path, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 64 << 10)
    place = random.Random(str(path))
    while len(word := os.read(tasks, NUMBER.size)) == NUMBER.size:
        (number,) = NUMBER.unpack(word)
        packed = zlib.compress(chunk(number), 6)
        page[: min(len(packed), 4096)] = packed[:4096]
        if number % READ_EVERY == 0:
            os.preadv(file, [memoryview(page)[: 16 << 10]], place.randrange(FILE_BYTES >> 16) << 16)
        if number % WRITE_EVERY == 1:
            os.pwrite(file, memoryview(page)[: 16 << 10], place.randrange(FILE_BYTES >> 16) << 16)
        if number % SYNC_EVERY == 1:
            os.fdatasync(file)
        os.write(results, NUMBER.pack(zlib.crc32(packed)))


def collect(results: int, credits: int) -> None:
    """Take results and make room."""
    os.write(credits, b"." * WINDOW)
    total = hashlib.sha256()
    while word := os.read(results, NUMBER.size):
        total.update(word * 1000)
        os.write(credits, b".")


def main(folder: Path) -> None:
    """Set everything up, say so, wait for a line, run."""
    paths = [folder / f"chunk-{k}" for k in range(COMPRESSORS)]
    for path in paths:
        # written once, so that later writes change no metadata
        path.write_bytes(os.urandom(1 << 20) * (FILE_BYTES >> 20))
    os.sync()
    tasks, results, credits = os.pipe(), os.pipe(), os.pipe()
    go = os.pipe()
    roles: list[Callable[[], None]] = [partial(compress, tasks[0], results[1], path) for path in paths]
    roles.append(partial(feed, tasks[1], credits[0]))
    for role in roles:
        if os.fork() == 0:
            os.read(go[0], 1)
            role()
            os._exit(0)
    print("ready", flush=True)
    sys.stdin.readline()
    os.write(go[1], b"." * len(roles))
    collect(results[0], credits[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
