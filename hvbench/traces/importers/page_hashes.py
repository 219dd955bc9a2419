"""Hashes of a guest's pages, snapshot by snapshot, each with only what changed.

    # t=5.928 vm=0 changed=7335
    0 1a2f e218cb050e9903ac

A snapshot of a VM begins with `# t=SECONDS vm=NUMBER changed=PAGES`; under it a line a page whose content changed since
the last one: VM, page frame (hexadecimal), hash of 4096 bytes (16 hexadecimal digits). The first snapshot of a VM holds
all of its pages. Such files are made by hashing a guest's memory backend (a file) now and then.

Each VM becomes a tier with one thread and one object: in the first snapshot, every page that is not the zero page is
touched and given its content; later, a page whose content changed was written at some time in the interval before: a
touch, `sampled`, spread evenly over the interval in the order of the pages, and its content at the interval's end.
The hash of the zero page is known if it is blake2b of 8 bytes (the recipe's), else `--zero` names it; without either
there is none. A hash that several VMs have is *common*, others are private to a VM.

The identities are the file's own hashes: they are told from those of recordings by the metadata's `salt`, and never
compare equal to them. Silent: CPU, storage, network; and reads of memory, which change nothing. All changes are held
in memory, 21 bytes each. Source: the format of this project's recording of two virtual machines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.format import FLAG_COMMON, FLAG_SAMPLED, FLAG_WRITE, PAGE_SIZE, ZERO_PAGE
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.patterns import Pattern, seconds

LINE: Final = Pattern(
    r"(?:# t=(?P<s>\d{1,9})(?:\.(?P<fraction>\d{1,9}))? vm=(?P<of>\d{1,4}) changed=(?P<changed>\d{1,10})|"
    r"(?P<vm>\d{1,4}) (?P<page>[0-9a-f]{1,12}) (?P<hash>[0-9a-f]{16}))",
    {
        "s": "int", "fraction": "fraction", "of": "int", "changed": "int", "vm": "int", "page": "hex", "hash": "hex64"
    },
    "`# t=SECONDS vm=NUMBER changed=PAGES`, or a VM, a page (hex) and a hash of 16 digits",
    skip=r" *",
)  # fmt: skip
ZERO_HASH: Final = int(hashlib.blake2b(bytes(PAGE_SIZE), digest_size=8).hexdigest(), 16)
MOST_PAGES: Final = 1 << 31
SALT: Final = "unkeyed hashes of the file"


@attrs.frozen
class Options:
    zero: str = option("", help="hash of the page of zeroes (default: of blake2b, 8 bytes)", metavar="HEX")


@define
class _Snapshot:
    """One VM at one time: what changed."""

    line: int
    time: int
    expected: int
    pages: list[NDArray[np.int64]] = field(factory=list)
    hashes: list[NDArray[np.uint64]] = field(factory=list)

    def together(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        if not self.pages:
            return np.zeros(0, np.int64), np.zeros(0, np.uint64)
        page, value = np.concatenate(self.pages), np.concatenate(self.hashes)
        order = np.argsort(page, kind="stable")
        return page[order], value[order]


def _zero(text: str) -> int:
    if text and not re.fullmatch(r"(?:0x)?[0-9a-fA-F]{1,16}", text):
        raise UserError(f"--zero {text}: has to be a hash in hexadecimal, up to 16 digits")
    return int(text, 16) if text else ZERO_HASH


def read(job: Import) -> Iterator[Batch]:
    zero = _zero(job.options.zero)
    vms: dict[int, list[_Snapshot]] = {}
    for source in job.sources():
        clock = job.clock(source)
        current: _Snapshot | None = None
        owner = -1
        for lines in source.blocks():
            m = LINE.parse(job, source, lines)
            heads = np.flatnonzero(m["of"] >= 0)
            time = clock.fix(seconds(m["s"][heads], m["fraction"][heads]))
            edges = [0, *heads.tolist(), len(m)]
            for i, (begin, end) in enumerate(pairwise(edges)):
                if i:
                    _check(job, source.name, current)
                    owner = int(m["of"][begin])
                    current = _Snapshot(int(m.numbers[begin]), int(time[i - 1]), int(m["changed"][begin]))
                    vms.setdefault(owner, []).append(current)
                    begin += 1
                if begin == end:
                    continue
                wrong = (m["vm"][begin:end] != owner) | (m["page"][begin:end] >= MOST_PAGES)
                for row in (begin + np.flatnonzero(wrong)).tolist():
                    expected = f"a page of VM {owner}, as the line `# …` before says" if current else "a line `# t=…`"
                    job.bad_line(source, lines, int(m.numbers[row]), expected)
                if current is not None:
                    good = begin + np.flatnonzero(~wrong)
                    current.pages.append(m["page"][good])
                    current.hashes.append(m["hash"][good])
        _check(job, source.name, current)
    yield from _batches(job, vms, zero)


def _check(job: Import, name: str, snapshot: _Snapshot | None) -> None:
    if snapshot is None:
        return
    found = sum(len(pages) for pages in snapshot.pages)
    if found != snapshot.expected:
        job.note(f"{name}:{snapshot.line}: {snapshot.expected} pages changed, {found} are listed: the rest is unknown")


def _batches(job: Import, vms: dict[int, list[_Snapshot]], zero: int) -> Iterator[Batch]:
    seen = [np.unique(np.concatenate([s.together()[1] for s in snapshots])) for snapshots in vms.values()]
    every, count = np.unique(np.concatenate(seen), return_counts=True) if seen else (np.zeros(0), np.zeros(0))
    common = every[count > 1]
    for number, snapshots in sorted(vms.items()):
        thread = job.thread(f"vm {number}", number, f"vm{number}")
        size = max(int(s.together()[0].max(initial=-1)) for s in snapshots) + 1
        memory = job.object("anon", size, number)
        used = np.zeros(size, bool)
        before = snapshots[0].time
        for snapshot in snapshots:
            page, value = snapshot.together()
            is_zero = value == np.uint64(zero)
            # a page of zeroes that was never anything else has no frame
            page, value, is_zero = (column[~is_zero | used[page]] for column in (page, value, is_zero))
            used[page] = True
            job.until(snapshot.time)
            if not len(page):
                before = snapshot.time
                continue
            spread = before + (snapshot.time - before) * np.arange(len(page)) // len(page)
            yield rows(
                "touch", thread, spread, object=memory, page=page, pages=1,
                flags=FLAG_WRITE | FLAG_SAMPLED,
            )  # fmt: skip
            shared = is_zero | np.isin(value, common)
            yield rows(
                "content", thread, np.full(len(page), snapshot.time), object=memory, page=page, pages=1,
                content=np.where(is_zero, np.uint64(ZERO_PAGE), value), flags=np.where(shared, FLAG_COMMON, 0),
            )  # fmt: skip
            before = snapshot.time
    job.meta["salt"] = SALT
    resolution = [b.time - a.time for s in vms.values() for a, b in pairwise(s)]
    job.meta["touch_resolution_ns"] = int(np.median(resolution)) if resolution else 0
    job.meta["touch_method"] = "pages whose content changed between snapshots, spread evenly over the interval"
    job.note("touches are writes that changed a page, once an interval; reads, and writes of the same, are silent")


def sniff(head: Head) -> float:
    return 0.95 if re.match(rb"# t=\d+(\.\d+)? vm=\d+ changed=\d+\n", head.data) else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="page-hashes",
        summary="hashes of guest pages, snapshots of what changed",
        read=read,
        sniff=sniff,
        extensions=(".pagehash", ".txt"),
        options=Options,
        replay="open",
    )
