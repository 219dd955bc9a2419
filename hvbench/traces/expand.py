"""Averaged demand as work: the documented, seeded rule that makes a replayable trace of a demand table.

What an average does not say is borrowed from a *donor*, a recorded trace (`hvbench.traces.donor`), or the axis stays
silent. For each VM and each interval [t, t + T):

- **CPU.** The interval's CPU time D is shared out evenly over its cores, the remainder to the first ones. Each core
  is a thread with a place on the donor's tape, drawn from the seed; it reads its share off the tape, from where it
  was to where it then is, so that bursts, their user and kernel time and their privileged operations are the donor's,
  and a burst that the interval's end cuts goes on in the next one. Idle time is laid between bursts in proportion to
  the donor's waits; without idle time, bursts begin spread over the interval. The compute of an interval sums to D,
  to the nanosecond.
- **Memory.** The VM has one anonymous object. Its memory in use, W pages, is touched (written) as it grows and freed
  as it shrinks; with the bursts come the touches that the donor did at those points of its tape, at the same relative
  place of W.
- **Storage.** The bytes read and written become requests of the donor's sizes, in its order, whole sectors; what is
  left of a sector is carried to the next interval. They are block requests, below the guest's page cache, where such
  averages are measured; evenly spread over the interval with a seeded jitter, at seeded places of a disk of
  `DISK_SECTORS`, in runs of `RUN` requests.
- **Network.** The bytes become messages of the donor's sizes to and from the outside; exact to the byte.

It replays open-loop: what an interval could not do is done late, in the next ones. Touches are marked as sampled, the
metadata has `expanded` with donor and seed, and results say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.check import LONGEST_NS
from hvbench.traces.demand import AXES, SILENT, Demand, read_demand
from hvbench.traces.donor import Donor, load_donor
from hvbench.traces.format import FLAG_SAMPLED, FLAG_WRITE, FORMAT_VERSION, OUTSIDE
from hvbench.traces.importers.api import GUEST, Batch, rows
from hvbench.traces.importers.spool import Spool
from hvbench.units import rounded_duration

DISK_SECTORS: Final = 1 << 25
"""16 GiB; choice of this project."""
RUN: Final = 8
"""Requests that follow each other on the disk; choice of this project."""
DEFAULT_DONOR: Final = "cc-build"
MIN_BURST_NS: Final = 10_000_000
"""Bursts of memory workloads are 10 ms and more (a cell of 20 minutes has about 2 million events)."""
RULE: Final = 1
"""Version of the rule: another rule, another trace."""


@define(frozen=True)
class Choice:
    """What to expand, and with what."""

    donor: str = DEFAULT_DONOR
    seed: int = 1
    vms: tuple[str, ...] = ()
    """Names or numbers; empty for all."""
    from_ns: int = 0
    to_ns: int = 0
    """Window of the table's time; 0 for its end."""
    axes: tuple[str, ...] = tuple(AXES)
    min_burst_ns: int = MIN_BURST_NS

    def check(self) -> None:
        """UserError for a window that ends before it begins."""
        if self.from_ns < 0 or (self.to_ns and self.to_ns <= self.from_ns):
            begin, end = rounded_duration(self.from_ns), rounded_duration(self.to_ns) if self.to_ns else "the end"
            raise UserError(f"--from {begin} to {end}: is no window of time; --from has to lie before --to")


@define
class _Vm:
    """One VM under expansion: where it stands on the tape, and what is left over."""

    donor: Donor
    tier: str
    random: np.random.Generator
    axes: frozenset[str]
    threads: list[int]
    disk: int
    net: tuple[int, int, int]
    """Thread that receives, thread outside that sends to it, and the flow; -1 where there is none."""
    space: int
    places: list[int] = field(factory=list)
    in_use: int = 0
    left_bytes: dict[str, int] = field(factory=dict)
    sizes_at: dict[str, int] = field(factory=dict)
    head: int = 0

    def __attrs_post_init__(self) -> None:
        self.places = [int(self.random.integers(self.donor.length)) for _ in self.threads]

    # cpu ------------------------------------------------------------------------------------------------

    def compute(self, begin: int, span: int, cores: int, cpu_ns: int) -> Iterator[Batch]:
        """Bursts (and the touches that come with them) of one interval."""
        cores = max(1, min(cores, len(self.threads)))
        for core in range(cores):
            demand = cpu_ns // cores + (core < cpu_ns % cores)
            if demand <= 0:
                continue
            at = self.places[core]
            self.places[core] = (at + demand) % self.donor.length
            bounds, burst = self._cuts(at, demand)
            took = np.diff(bounds)
            start = self._starts(begin, span, took, burst)
            kernel = np.diff(self._along(self.donor.kernel, bounds))
            kernel = np.clip(kernel, 0, took)
            columns: dict[str, Any] = {"user_ns": took - kernel, "kernel_ns": kernel}
            for name, counted in self.donor.counts.items():
                columns[name] = np.maximum(0, np.diff(self._along(counted, bounds)))
            yield rows("compute", self.threads[core], start, **columns)
            if "memory" in self.axes and self.in_use:
                yield from self._touches(core, bounds, start)

    def _cuts(self, at: int, demand: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Coordinates (unrolled) where bursts begin and end in [at, at + demand], and the burst behind each."""
        end, length = self.donor.end, self.donor.length
        first = int(np.searchsorted(end, at, side="right"))
        turns = (at + demand) // length
        stop = int(np.searchsorted(end, (at + demand) % length, side="left"))
        numbers = np.arange(first, turns * len(end) + stop + 1)
        burst = numbers % len(end)
        bounds = end[burst] + numbers // len(end) * length
        bounds = np.append(at, np.minimum(bounds, at + demand))
        keep = np.append(True, np.diff(bounds) > 0)
        return bounds[keep], burst[keep[1:]]

    def _along(self, total: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """A running total of the tape at coordinates, between bursts' ends by proportion, rounded down."""
        end, length = self.donor.end, self.donor.length
        turn, rest = bounds // length, bounds % length
        which = np.minimum(np.searchsorted(end, rest, side="left"), len(end) - 1)
        before = np.where(which > 0, end[which - 1], 0)
        base = np.where(which > 0, total[which - 1], 0)
        share = (rest - before) / np.maximum(1, end[which] - before)
        return (turn * int(total[-1]) + base + np.floor((total[which] - base) * share)).astype(np.int64)

    def _starts(self, begin: int, span: int, took: NDArray[np.int64], burst: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each burst begins: idle time between them as the donor waited, or spread out where there is none."""
        busy = int(took.sum())
        done = np.cumsum(took) - took
        idle = span - busy
        if idle <= 0:
            return begin + (done * (span / busy)).astype(np.int64)
        weight = self.donor.gaps[burst].astype(np.float64)
        # half of what follows the last burst lies before the first one: intervals have no common beginning
        total = weight.sum()
        if total <= 0:
            weight, total = np.ones(len(took)), float(len(took))
        before = np.cumsum(weight) - weight / 2
        return begin + done + np.minimum(idle, (idle * (before / total)).astype(np.int64))

    def _touches(self, core: int, bounds: NDArray[np.int64], start: NDArray[np.int64]) -> Iterator[Batch]:
        """The donor's touches between two coordinates, laid on the memory in use."""
        d = self.donor
        if not len(d.touch_at):
            return
        low, high, length = int(bounds[0]), int(bounds[-1]), d.length
        number = np.arange(
            low // length * len(d.touch_at) + np.searchsorted(d.touch_at, low % length, side="right"),
            high // length * len(d.touch_at) + np.searchsorted(d.touch_at, high % length, side="right"),
        )
        if not len(number):
            return
        which = number % len(d.touch_at)
        at = d.touch_at[which] + number // len(d.touch_at) * length
        burst = np.minimum(np.searchsorted(bounds, at, side="left") - 1, len(start) - 1)
        first = np.minimum((d.touch_place[which] * self.in_use).astype(np.int64), self.in_use - 1)
        pages = np.maximum(1, np.minimum(d.touch_pages[which], self.in_use - first))
        flags = np.where(d.touch_write[which], FLAG_WRITE, 0) | FLAG_SAMPLED
        time = start[np.maximum(burst, 0)]
        yield rows("touch", self.threads[core], time, object=self.space, page=first, pages=pages, flags=flags)

    # memory ---------------------------------------------------------------------------------------------

    def memory(self, begin: int, wanted: int) -> Iterator[Batch]:
        """Memory in use grows or shrinks to `wanted` pages as the interval begins."""
        if wanted > self.in_use:
            more = wanted - self.in_use
            yield rows(
                "touch", self.threads[0], begin, object=self.space, page=self.in_use, pages=more,
                flags=FLAG_WRITE | FLAG_SAMPLED,
            )  # fmt: skip
        elif wanted < self.in_use:
            fewer = self.in_use - wanted
            yield rows("free", self.threads[0], begin, object=self.space, page=wanted, pages=fewer)
        self.in_use = wanted

    # storage and network --------------------------------------------------------------------------------

    def amounts(self, what: str, sizes: NDArray[np.int64], amount: int, unit: int) -> NDArray[np.int64]:
        """`amount` bytes as pieces of the donor's sizes (in `unit` bytes), exact but for the rest carried over."""
        amount += self.left_bytes.get(what, 0)
        units, self.left_bytes[what] = divmod(amount, unit)
        if not units:
            return np.zeros(0, np.int64)
        if what not in self.sizes_at:
            self.sizes_at[what] = int(self.random.integers(len(sizes)))
        at = self.sizes_at[what]
        cycle = int(sizes.sum())
        count = (units // cycle + 2) * len(sizes)
        if count > 50_000_000:
            raise UserError(f"{self.tier}: {amount} bytes in one interval are too many requests of the donor's sizes")
        tape = sizes[(at + np.arange(count)) % len(sizes)]
        total = np.cumsum(tape)
        pieces = tape[: int(np.searchsorted(total, units)) + 1].copy()
        pieces[-1] -= int(pieces.sum()) - units
        self.sizes_at[what] = (at + len(pieces)) % len(sizes)
        return pieces

    def spread(self, begin: int, span: int, count: int) -> NDArray[np.int64]:
        """Times of `count` things in an interval: one in each equal part of it, anywhere in that part."""
        part = span / count
        return begin + ((np.arange(count) + self.random.random(count)) * part).astype(np.int64)

    def storage(self, begin: int, span: int, read: int, written: int) -> Iterator[Batch]:
        for what, op, sizes, amount in (
            ("read", "blk_read", self.donor.read_sectors, read),
            ("written", "blk_write", self.donor.write_sectors, written),
        ):
            if amount < 0 or not len(sizes):
                continue
            sectors = self.amounts(what, sizes, amount, 512)
            if not len(sectors):
                continue
            number = np.arange(len(sectors))
            runs = self.random.integers(DISK_SECTORS // 8, size=len(sectors) // RUN + 1) * 8
            before = np.cumsum(sectors) - sectors
            within = before - before[number // RUN * RUN]
            place = (runs[number // RUN] + within) % DISK_SECTORS
            time = self.spread(begin, span, len(sectors))
            yield rows(op, self.disk, time, page=place, pages=sectors)

    def network(self, begin: int, span: int, received: int, sent: int) -> Iterator[Batch]:
        inside, outside, flow = self.net
        for what, sender, receiver, amount in (
            ("received", outside, inside, received),
            ("sent", inside, outside, sent),
        ):
            if amount < 0 or flow < 0:
                continue
            sizes = self.amounts(what, self.donor.message_bytes, amount, 1)
            if len(sizes):
                time = self.spread(begin, span, len(sizes))
                yield rows("send", sender, time, flow=flow, bytes=sizes)
                yield rows("recv", receiver, time, flow=flow, bytes=sizes)


@define
class Expansion:
    """An expansion of a demand table into one trace: each VM a tier."""

    demand: Demand
    donor: Donor
    choice: Choice
    threads: list[dict[str, Any]] = field(factory=list)
    objects: list[dict[str, Any]] = field(factory=list)
    flows: list[dict[str, Any]] = field(factory=list)
    tiers: list[str] = field(factory=list)
    silent: set[str] = field(factory=lambda: set(AXES))
    because: dict[str, str] = field(factory=dict)
    """Silent axis -> why, where it is not the source that says nothing."""
    cpu_ns: int = 0
    last_ns: int = 0

    def batches(self) -> Iterator[Batch]:
        wanted = [self.demand.find(name) for name in self.choice.vms] or range(len(self.demand.meta["vms"]))
        for number in wanted:
            columns = self.demand.of(number)
            to_ns = self.choice.to_ns or (1 << 62)
            inside = (columns["time_ns"] >= self.choice.from_ns) & (
                columns["time_ns"] + columns["duration_ns"] <= to_ns
            )
            columns = {name: values[inside] for name, values in columns.items()}
            if len(columns["vm"]):
                name = str(self.demand.meta["vms"][number]["name"])
                yield from self._vm(name if len(wanted) > 1 else GUEST, columns)

    def _thread(self, name: str, process: int, tier: str) -> int:
        number = len(self.threads)
        role = OUTSIDE if tier == OUTSIDE else "guest"
        self.threads.append({"id": number, "process": process, "tier": tier, "name": name, "role": role})
        return number

    def _vm(self, tier: str, c: dict[str, NDArray[Any]]) -> Iterator[Batch]:
        axes = frozenset(axis for axis in self.choice.axes if self._says(axis, c))
        self.silent -= axes
        process = 2 * len(self.tiers)
        self.tiers.append(tier)
        cores = max(1, int(c["cores"].max()))
        threads = [self._thread(f"core {i}", process, tier) for i in range(cores)]
        disk = self._thread("disk", process, tier) if "storage" in axes else -1
        net = (-1, -1, -1)
        if "network" in axes:
            self.flows.append({"proto": "tcp", "ends": [OUTSIDE, tier]})
            net = (
                self._thread("network", process, tier), self._thread("outside", process + 1, OUTSIDE), len(self.flows)
                - 1
            )  # fmt: skip
        space = -1
        if "memory" in axes:
            space = len(self.objects)
            self.objects.append({"kind": "anon", "pages": int(c["memory_pages"].max()), "process": process})
        entropy = [self.choice.seed, len(self.tiers), *tier.encode()]
        vm = _Vm(self.donor, tier, np.random.Generator(np.random.PCG64(entropy)), axes, threads, disk, net, space)
        if not axes:
            return
        for row in range(len(c["vm"])):
            begin, span = int(c["time_ns"][row]), int(c["duration_ns"][row])
            self.last_ns = max(self.last_ns, begin + span)
            if "memory" in axes and c["memory_pages"][row] >= 0:
                yield from vm.memory(begin, int(c["memory_pages"][row]))
            if "cpu" in axes and c["cpu_ns"][row] > 0:
                self.cpu_ns += int(c["cpu_ns"][row])
                yield from vm.compute(begin, span, int(c["cores"][row]), int(c["cpu_ns"][row]))
            if "storage" in axes:
                yield from vm.storage(begin, span, int(c["read_bytes"][row]), int(c["written_bytes"][row]))
            if "network" in axes:
                yield from vm.network(begin, span, int(c["received_bytes"][row]), int(c["sent_bytes"][row]))

    def _says(self, axis: str, c: dict[str, NDArray[Any]]) -> bool:
        """Whether the table says something about an axis, and the donor has what it takes."""
        if not any((c[name] != SILENT).any() for name in AXES[axis]):
            return False
        d = self.donor
        if axis == "memory":
            return bool((c["memory_pages"] > 0).any())
        lacks = {
            "storage": "no reads and writes" if not (len(d.read_sectors) and len(d.write_sectors)) else "",
            "network": "no messages" if not len(d.message_bytes) else "",
        }.get(axis, "")
        if lacks:
            self.because[axis] = f"the donor {self.choice.donor} has {lacks} to borrow; --donor names another"
        return not lacks

    def reasons(self) -> dict[str, str]:
        """Why axes are silent, where it is not that the source says nothing about them."""
        told = {**self.demand.meta.get("silent_because", {}), **self.because}
        told |= dict.fromkeys(set(AXES) - set(self.choice.axes), "left out by --axes")
        return {axis: told[axis] for axis in AXES if axis in self.silent and axis in told}


def expand_file(
    source: Path, output: Path, choice: Choice, meta: dict[str, Any] | None = None, called: str = ""
) -> Any:
    """Expand a demand table into a trace, atomically; the report of an import. `called`: how messages name it."""
    from hvbench.traces.importers.run import Report

    for axis in choice.axes:
        if axis not in AXES:
            raise UserError(f"--axes: {axis!r} is none; legal: {', '.join(AXES)}")
    choice.check()
    where = called or str(source)
    demand = read_demand(source, called=Path(where))
    donor = load_donor(choice.donor, choice.min_burst_ns)
    expansion = Expansion(demand, donor, choice)
    spool = Spool(output.parent)
    try:
        for batch in expansion.batches():
            spool.add(batch)
        if not spool.rows:
            raise UserError(f"{where}: nothing to expand: no demand in the window and on the axes that were chosen")
        start = choice.from_ns
        span = expansion.last_ns - start
        if span > LONGEST_NS:
            raise UserError(f"{where}: spans {span / 3.156e16:.1f} years, a trace two at most: --from and --to choose")
        silent = [axis for axis in AXES if axis in expansion.silent]
        reasons = expansion.reasons()
        notes = [f"expanded from averaged demand: rhythm of {choice.donor}, seed {choice.seed}; averages are exact"]
        of_the_table = ("kind", "vms", "dirt", "silent_because")
        header = {key: value for key, value in demand.meta.items() if key not in of_the_table}
        header |= {
            "format": FORMAT_VERSION,
            "name": output.stem,
            "span_ns": int(span),
            "threads": expansion.threads,
            "tiers": expansion.tiers,
            "objects": expansion.objects,
            "flows": expansion.flows,
            "warm": [],
            "silent": silent,
            "replay": "open",
            "seed": choice.seed,
            "touch_method": "the donor's touches at the same points of compute, laid on the memory in use",
            "degraded": [*demand.meta.get("degraded", []), *notes],
            "expanded": {
                "donor": choice.donor,
                "donor_digest": donor.digest,
                "seed": choice.seed,
                "min_burst_ns": choice.min_burst_ns,
                "rule": RULE,
                "from_ns": choice.from_ns,
                "cpu_ns": expansion.cpu_ns,
            },
            **({"silent_because": reasons} if reasons else {}),
            **(meta or {}),
        }
        spool.write(output, header, start)
    finally:
        spool.close()
    return Report(
        output, "demand", "trace", spool.rows, int(span), "open", silent, notes, len(expansion.threads),
        source.stat().st_size, reasons,
    )  # fmt: skip
