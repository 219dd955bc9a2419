"""From what was recorded of guests to rows: each part by the importer of its format, laid into one trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.format import ABSENT, COLUMNS, FLAG_SAMPLED, OPS, OUTSIDE
from hvbench.traces.importers import pcap, qemu
from hvbench.traces.importers.api import Batch, Format, Import, read_options
from hvbench.traces.importers.packets import address_number, headers, records
from hvbench.traces.importers.requests import Requests
from hvbench.traces.importers.run import Files
from hvbench.traces.record.builder import Builder, Built
from hvbench.traces.record.guest import Guest
from hvbench.traces.record.rows import Process
from hvbench.traces.record.timeline import Timeline

LANES: Final = 32
"""Requests of one disk that can be in flight, as in the importers of block traces."""


@define
class Parts:
    """One trace under construction, from `start_ns` of CLOCK_MONOTONIC, `span_ns` long."""

    start_ns: int
    span_ns: int
    real_minus_mono_ns: int
    threads: list[dict[str, Any]] = field(factory=list)
    objects: list[dict[str, Any]] = field(factory=list)
    flows: list[dict[str, Any]] = field(factory=list)
    batches: list[Batch] = field(factory=list)

    def thread(self, name: str, process: int, tier: str) -> int:
        number = len(self.threads)
        role = OUTSIDE if tier == OUTSIDE else "guest"
        self.threads.append({"id": number, "process": process, "tier": tier, "name": name, "role": role})
        return number

    def add(self, batch: Batch) -> None:
        """Rows with times since the start; what was before it is at the start, what came after at the end."""
        self.batches.append({**batch, "time_ns": np.clip(batch["time_ns"], 0, self.span_ns)})

    def take(self, job: Import, batches: Iterable[Batch], process: int, outside: int, tier: str = "") -> None:
        """What an importer made of a part: its threads and flows behind those that are there, in `tier` if given.

        What is outside of the recording's time, as the parts are not switched on and off at once, is left out.
        """
        made = list(batches)
        first, flows = len(self.threads), len(self.flows)
        for item in job.threads:
            of = item["tier"] if item["tier"] == OUTSIDE or not tier else tier
            name = item["name"] if not item["name"].startswith("flow ") else f"flow {flows + int(item['name'][5:])}"
            self.thread(name, outside if of == OUTSIDE else process, of)
        self.flows.extend(job.flows)
        for batch in made:
            moved = {**batch, "thread": batch["thread"] + first}
            if "flow" in batch:
                moved["flow"] = batch["flow"] + flows
            time = batch["time_ns"] - self.start_ns
            inside = (time >= 0) & (time <= self.span_ns)
            self.add({name: values[inside] for name, values in {**moved, "time_ns": time}.items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """All rows, sorted by thread and time, equal times as they came; threads without rows are left out."""
        made: dict[str, NDArray[Any]] = {}
        for name, kind in COLUMNS.items():
            pieces = [
                np.asarray(batch[name]).astype(kind)
                if name in batch
                else np.full(len(batch["time_ns"]), ABSENT.get(name, 0), kind)
                for batch in self.batches
            ]
            made[name] = np.concatenate(pieces) if pieces else np.zeros(0, kind)
        order = np.lexsort((made["time_ns"], made["thread"]))
        made = {name: values[order] for name, values in made.items()}
        used = np.unique(made["thread"])
        number = np.full(len(self.threads) + 1, -1, np.int32)
        number[used] = np.arange(len(used))
        self.threads = [{**self.threads[old], "id": new} for new, old in enumerate(used.tolist())]
        made["thread"] = number[made["thread"]]
        wakes = made["op"] == OPS["wake"]
        made["peer"][wakes] = number[made["peer"][wakes]]
        return made


# CPU ------------------------------------------------------------------------------------------------------------


@define
class Tiers:
    """A `Selection` by process: each QEMU is a guest."""

    of: dict[int, str]
    tier_names: list[str]

    def tier(self, process: Process) -> str:
        return self.of.get(process.pid, "")


def cpu(parts: Parts, timeline: Timeline, tiers: list[str], of: dict[int, str]) -> Built:
    """Rows of the vCPUs; the first threads of the trace."""
    selection: Any = Tiers(of, tiers)
    built = Builder(timeline=timeline, selection=selection).build()
    for item in built.meta["threads"]:
        parts.thread(item["name"], tiers.index(item["tier"]), item["tier"])
    parts.add(built.columns)
    return built


# importers ------------------------------------------------------------------------------------------------------


def _job(format: Format, shifts: dict[Path, int], **options: Any) -> Import:
    """An import of files; `shifts` are ns to add to each one's times."""
    offsets: dict[str, int | None] = {str(path): shift for path, shift in shifts.items()}
    files = Files(tuple(shifts), lambda size: None)
    job = Import(format, read_options(format, options), files.sources, offsets=offsets)
    job.keep_names = True  # of its own making: "requests 0", "flow 3"
    return job


def disk(parts: Parts, guest: Guest, number: int) -> dict[str, Any]:
    """Rows of a guest's block requests; what was measured of them."""
    if guest.count_blocks:
        return _counted(parts, guest, number)
    log = guest.events_log()
    if log is None:
        return {}
    job = _job(qemu.hvbench_import_format(), {log: -parts.real_minus_mono_ns}, layer=guest.layer)
    parts.take(job, qemu.read(job), number, -1, guest.tier)
    devices = {thread["tier"] for thread in job.threads}
    if len(devices) > 1:
        guest.degraded.append(f"requests of its {len(devices)} disks go to one disk")
    guest.degraded.extend(job.notes)
    measured: dict[str, Any] = job.meta.get("recorded", {})
    return measured if guest.stamps else {}


def _counted(parts: Parts, guest: Guest, number: int) -> dict[str, Any]:
    """Requests that were only counted: each interval's, of equal sizes, spread evenly, one place after the other."""
    job = _job(qemu.hvbench_import_format(), {})
    requests = Requests(job, LANES)
    place: dict[tuple[str, int], int] = {}
    batches: list[Batch] = []
    spent = [0, 0]
    for (begin, before), (end, after) in zip(guest.counters, guest.counters[1:], strict=False):
        for device, now in after.items():
            delta = [a - b for a, b in zip(now, before.get(device, now), strict=True)]
            for write, (count, size) in enumerate((delta[0:2], delta[2:4])):
                if count <= 0 or size < 512:
                    continue
                count = min(count, size // 512)
                sectors = np.diff(np.arange(count + 1) * (size // 512) // count)
                at = place.get((device, write), 0)
                where = at + np.cumsum(sectors) - sectors
                place[device, write] = at + int(sectors.sum())
                time = begin + (end - begin) * np.arange(count) // count
                batches.append(requests.batch("", time, np.full(count, bool(write)), where, sectors))
                batches[-1]["flags"] = np.full(count, FLAG_SAMPLED, np.int32)
                spent[0] += count
            spent[1] += max(0, delta[4]) + max(0, delta[5])
    parts.take(job, batches, number, -1, guest.tier)
    return {"block_latency_mean_ns": spent[1] // spent[0]} if spent[0] else {}


def ports(parts: Parts, guest: Guest, number: int, guests: list[Guest]) -> dict[str, Any]:
    """Rows of a guest's port traffic. Between two recorded guests the first one's port counts."""
    shifts = {}
    for path in guest.dumps:
        if path.exists() and path.stat().st_size > 24:
            shifts[path], unsure_ns = dump_offset(path, guest.sizes.get(path, []))
            if unsure_ns > 10_000_000:
                guest.degraded.append(f"port traffic to {unsure_ns / 1e6:.0f} ms: few frames came to set its clock by")
    if not shifts:
        return {}
    job = _job(pcap.hvbench_import_format(), shifts)
    mine, peers = _addresses(job, {address_number(mac) for mac in guest.macs})
    vms = dict.fromkeys(mine, guest.tier)
    for index, other in enumerate(guests):
        near = {address_number(mac) for mac in other.macs} & set(peers)
        for address in {a for mac in near for a in peers[mac]} - mine:
            # what goes to an earlier guest is in that one's dump: here it counts as inner, and is left out
            vms[address] = other.tier if index > number else guest.tier
    capture = pcap.Capture(job, vms, pcap.FLOWS)
    before = len(parts.threads)
    parts.take(job, _packets(job, capture), number, len(guests))
    tiers = {other.tier: index for index, other in enumerate(guests)}
    for thread in parts.threads[before:]:
        thread["process"] = tiers.get(thread["tier"], len(guests))
    if capture.again:
        guest.degraded.append(f"{capture.again} TCP packets hold only bytes that were sent before: left out")
    if capture.folded:
        guest.degraded.append(f"{capture.folded} further connections share {pcap.FLOWS} flows")
    return {}


def dump_offset(path: Path, looks: list[tuple[int, int, int]]) -> tuple[int, int]:
    """(what has to be added to a dump's times, by how much that may be wrong at most), in ns.

    QEMU stamps frames with the guest's own clock, counted from the whole second in which the dump began (7.2,
    net/dump.c). When the file grew is known: a frame that one look did not find and the next one did passed between
    the two. All frames together leave little room.
    """
    job = _job(pcap.hvbench_import_format(), {path: 0})
    stamps, ends, at = [], [], 24
    for source in job.sources():
        for packets in records(job, source):
            stamps.append(packets.time)
            ends.append(at + np.cumsum(packets.captured + 16))
            at = int(ends[-1][-1])
    if not stamps or not looks:
        return 0, 0
    stamp, end = np.concatenate(stamps), np.concatenate(ends)
    size = np.array([look[2] for look in looks])
    first = np.searchsorted(size, end)  # the look that found it
    found = (first > 0) & (first < len(looks))
    if not found.any():
        return looks[-1][1] - int(stamp[-1]), looks[-1][1] - looks[0][0]
    before, after = (np.array([look[i] for look in looks]) for i in (0, 1))
    low = int((before[first[found] - 1] - stamp[found]).max())
    high = int((after[first[found]] - stamp[found]).min())
    return (low + high) // 2, abs(high - low)


def _packets(job: Import, capture: pcap.Capture) -> Iterator[Batch]:
    for source in job.sources():
        clock = job.clock(source)
        for packets in records(job, source):
            yield from capture.batch(headers(packets), clock.fix(packets.time))


def _addresses(job: Import, macs: set[int]) -> tuple[set[int], dict[int, set[int]]]:
    """Addresses that the guest sends from, by its network cards; and those of others by theirs."""
    mine: set[int] = set(macs)
    others: dict[int, set[int]] = {}
    for source in job.sources():
        for packets in records(job, source):
            found = headers(packets)
            raw = np.frombuffer(packets.data, np.uint8)
            sender = np.zeros(len(packets.at), np.int64)
            for offset in range(6, 12):
                sender = sender << 8 | raw[np.minimum(packets.at + offset, len(raw) - 1)]
            for mac, address in set(zip(sender.tolist(), found.source.tolist(), strict=True)):
                if address and mac in macs:
                    mine.add(address)
                elif address:
                    others.setdefault(mac, {mac}).add(address)
    return mine, others


# memory ---------------------------------------------------------------------------------------------------------


def memory(parts: Parts, guests: list[Guest]) -> None:
    """Rows of the guests' memories; a content that several guests have is common."""
    seen = [np.zeros(0, np.uint64)]
    seen += [np.unique(np.concatenate([m.identities() for m in guest.memories])) for guest in guests if guest.memories]
    values, count = np.unique(np.concatenate(seen), return_counts=True)
    common = values[count > 1]
    for number, guest in enumerate(guests):
        if not guest.memories:
            continue
        thread = parts.thread("memory", number, guest.tier)
        pages = sum(len(m.now) for m in guest.memories)
        parts.objects.append({"kind": "anon", "pages": pages, "process": number, "name": "guest memory"})
        first = 0
        for memory_ in guest.memories:
            for batch in memory_.batches(thread, len(parts.objects) - 1, first, common):
                parts.add({**batch, "time_ns": batch["time_ns"] - parts.start_ns})
            first += len(memory_.now)
