"""How far the anonymous pages of this machine's processes shrink under LZ4: `python -m ...compressibility`, as root.

Prints what `hvbench.kernel.pool.SIZES` was made from: the number of distinct pages, their mean size, and the middle of
each of 32 equally likely parts. Pages of zeros are counted apart; of each mapping at most 4,000 pages are read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

PAGE = 4096
MOST_PAGES = 4000
PRESENT = np.uint64(63)
PARTS = 32


def sizes_of(pid: str, codec: pa.Codec, seen: set[bytes]) -> list[int]:
    """Compressed sizes of a process's writable anonymous pages whose contents are not in `seen`; 0 for zeros."""
    found = []
    root = Path("/proc") / pid
    with (root / "mem").open("rb", 0) as memory, (root / "pagemap").open("rb", 0) as pagemap:
        for line in (root / "maps").read_text().splitlines():
            span, rights, *rest = line.split()
            if "rw" not in rights or (len(rest) > 3 and rest[3].startswith(("/", "[v"))):
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            pagemap.seek(start // PAGE * 8)
            entries = np.frombuffer(pagemap.read((end - start) // PAGE * 8), np.uint64)
            for number in np.flatnonzero(entries >> PRESENT)[:MOST_PAGES]:
                try:
                    memory.seek(start + int(number) * PAGE)
                    page = memory.read(PAGE)
                except OSError:
                    continue
                digest = hashlib.blake2b(page, digest_size=8).digest()
                if len(page) == PAGE and digest not in seen:
                    seen.add(digest)
                    found.append(len(codec.compress(page)) if any(page) else 0)
    return found


def main() -> None:
    """Measure all processes that may be read."""
    codec, seen, sizes = pa.Codec("lz4_raw"), set[bytes](), []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                sizes += sizes_of(process.name, codec, seen)
            except OSError:
                continue
    ordered = np.sort([size for size in sizes if size])
    middles = [int(ordered[int((part + 0.5) / PARTS * len(ordered))]) for part in range(PARTS)]
    print(f"{len(ordered)} distinct pages, {ordered.mean():.0f} bytes on average, of 32 parts: {middles}")


if __name__ == "__main__":
    main()
