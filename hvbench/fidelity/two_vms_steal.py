"""TWO-VMS, steal: how long two QEMU vCPUs waited for a CPU, recorded and replayed under EEVDF.

The kernel's own count (`runq_wait_ns` of each vCPU's thread in domstats.csv) is the recorded side. The recorder hashed
all pages of both guests every two seconds and waited for its disk and its own CPU then: those intervals are left out,
and so what is left is windows of 1.5 s. Each window is a cell of its own, begun from what was recorded at its start, so
that nothing drifts from one into the next.

The replay has the scheduling events of vcpu_sched.txt.gz, as `contended_convert` reads them: a thread is a vCPU, a
session a VM. The recorder started both QEMUs, without a session of their own (recipe/vmrec.py): the three are one
group, and replay closed-loop. Everybody else is open-loop load, a process a group. The events are those in which a QEMU
thread takes part, so:

- a switch from another task to a QEMU thread is always there, one from idleness not always: a QEMU thread found
  running where it was not seen to come took an idle CPU when it was woken;
- what others ran is known where a switch from or to a QEMU thread shows it; a stretch that ends in idleness kept no
  QEMU thread waiting, is of unknown length, and left out;
- who woke a thread on another CPU by an interrupt is not known: that wait is kept as long as it was.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, frozen

from hvbench.cell import Cell, CellResult
from hvbench.fidelity.contended_convert import BLOCKED, JOB, RUNNABLE, RUNNING, Reader
from hvbench.fidelity.numbers import Inputs
from hvbench.fidelity.replay import NO_COSTS, task_group
from hvbench.fidelity.stage import Stage, ns
from hvbench.traces.format import FORMAT_VERSION, OPS, PAGE_SIZE, write_trace
from hvbench.traces.record.ftrace import ARGUMENTS, Event, parse

EVENTS = "vcpu_sched.txt.gz"
STATISTICS = "domstats.csv"
READERS = {"sched_switch": ARGUMENTS["sched_switch"], "sched_wakeup": ARGUMENTS["sched_waking"]}
HASHING_S = 1.0
"""Readings are half a second apart; those with a hashing between them are more."""
SLACK_NS = 1_000_000_000
"""What is kept behind a window: a replay that waits less gets further than the recording did."""
QEMU = (11466, 11473)
"""Processes of VM 0 and VM 1."""
VCPUS = (11469, 11476)
"""The threads of their vCPUs (meta.json: tids)."""
RECORDER = 11424
"""The process that asked the QEMUs for their statistics, every half second: vmrec.py."""
MODELS = IDLE_MACHINE, NOBODY_ELSE = "idle-machine", "nobody-else"
SEEDS = (1, 2, 3)


@frozen
class Window:
    """A stretch without hashing: ns since the recording began, and what each vCPU waited in it."""

    start: int
    end: int
    wait_ns: tuple[int, ...]


def windows(path: Path) -> list[Window]:
    """The windows of domstats.csv, and the waits that the kernel counted."""
    with path.open(newline="", encoding="ascii") as file:
        readings = list(csv.DictReader(file))
    waits = [{round(1e9 * float(r["t_s"])): int(r["runq_wait_ns"]) for r in readings if r["vm"] == vm} for vm in "01"]
    found: list[tuple[int, int]] = []
    for before, after in pairwise(sorted(waits[1])):
        if after - before >= HASHING_S * 1e9:
            continue
        if found and found[-1][1] == before:
            found[-1] = found[-1][0], after
        else:
            found.append((before, after))
    # VM 0 had gone before the last two
    return [Window(a, b, tuple(w.get(b, 0) - w[a] if a in w and b in w else 0 for w in waits)) for a, b in found]


@define
class PartialReader(Reader):
    """Reads events of which only those with a QEMU thread in them were recorded."""

    def read(self, event: Event) -> None:
        known = self.on_cpu.get(event.cpu, event.tid)
        if known != event.tid:
            self._unseen(known, event)
            self.on_cpu[event.cpu] = event.tid
        if event.name == "sched_wakeup":
            # there are no `sched_waking` events: who wakes is who runs where the wake-up took place
            self.waking(event)
        super().read(event)

    def _unseen(self, known: int, event: Event) -> None:
        """Somebody else runs on a CPU than was seen to come."""
        self.hidden += 1
        came = self.task(event.tid)
        ours = event.tid in self.job
        if known and event.tid and not ours:
            self.leave(known, "S", event.time)
        elif known:
            self._lose(known, event.time)
        if event.tid and came.state != RUNNING:
            self.enter(event.tid, came.since if ours and came.state == RUNNABLE else event.time)

    def _lose(self, tid: int, now: int) -> None:
        """A task went to sleep, and its CPU idle, nobody knows when."""
        task = self.task(tid)
        if tid in self.job:
            self.leave(tid, "S", now)
        else:
            task.flush()
            task.state, task.since, task.left = BLOCKED, now, now

    def begin(self, now: int) -> None:
        """Forget what was before a window."""
        self.start = now
        self.waits.clear()
        for task in self.tasks.values():
            task.run(now)
            task.rows.clear()
            task.compute, task.due, task.woken_by, task.ended = 0, False, "", -1
            task.began = now
            if task.state == BLOCKED:
                task.left = now
            elif task.state == RUNNABLE:
                task.left, task.since = -1, now

    def end(self, now: int) -> None:
        """Count what runs, and let who is blocked stay so."""
        for tid, task in self.tasks.items():
            task.run(now)
            task.flush()
            if tid in self.job and task.state == BLOCKED and task.left >= 0 and now > task.left:
                task.rows.append((OPS["sleep"], task.left, 0, 0, 0, -1, now - task.left))


def read_window(events: Iterable[Event], job: list[int], start: int, end: int) -> PartialReader:
    """What the tasks did between two times; what came before says only how they stood."""
    reader = PartialReader(job, start)
    begun = False
    for event in events:
        if not begun and event.time >= start:
            reader.begin(start)
            begun = True
        if event.time >= end:
            break
        reader.read(event)
    reader.end(end)
    return reader


@lru_cache(maxsize=1)
def recorded_events(path: Path) -> list[Event]:
    """The scheduling events, with times since the first: the recorder switched tracing on, then looked at the clock."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = parse(file, READERS).events
    return [event._replace(time=event.time - found[0].time) for event in found]


def convert(events: list[Event], start: int, end: int, others: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and columns of a window's trace, with `SLACK_NS` behind it; the vCPUs are the job's threads 0 and 1.

    Without `others` only the QEMUs and the recorder are in it.
    """
    process = {event.tid: event.tgid for event in events if event.tgid}
    job = [*VCPUS, *sorted({tid for tid, of in process.items() if of in (*QEMU, RECORDER)} - set(VCPUS))]
    reader = read_window(events, job, start, end + SLACK_NS)
    threads: list[dict[str, Any]] = []
    rows: list[tuple[int, ...]] = []
    numbers = {tid: number for number, tid in enumerate(job)}
    for tid in [*job, *sorted(set(reader.tasks) - set(job) - {0})]:
        task = reader.tasks.get(tid)
        if tid not in numbers and (not others or task is None or not task.rows):
            continue
        number = len(threads)
        tier = JOB if tid in numbers else f"process-{process.get(tid, tid)}"
        thread: dict[str, Any] = {"id": number, "process": number, "tier": tier, "name": f"task-{tid}", "role": "guest"}
        if tier != JOB:
            thread["replay"] = "open"
        threads.append(thread)
        # who did not exist yet sleeps
        asleep = (OPS["sleep"], start, 0, 0, 0, -1, end + SLACK_NS - start)
        mine = task.rows if task is not None and task.rows else [asleep]
        rows += [(number, row[0], row[1] - start, *row[2:]) for row in sorted(mine, key=lambda row: row[1])]
    names = ("thread", "op", "time_ns", "user_ns", "page", "pages", "peer", "duration_ns")
    columns = {name: np.array([row[i] for row in rows], np.int64) for i, name in enumerate(names)}
    columns["peer"][columns["op"] != OPS["wake"]] = -1
    meta = {
        "format": FORMAT_VERSION,
        "name": f"two-vms-{start / 1e9:.1f}",
        "command": "two QEMU guests and all that ran beside them",
        "span_ns": end + SLACK_NS - start,
        "page_size": PAGE_SIZE,
        "threads": threads,
        "tiers": sorted({thread["tier"] for thread in threads}),
        "objects": [],
        "flows": [],
        "wait_shares": {},
        "lost_events": 0,
        "licence": "CC0-1.0",
    }
    return meta, columns


def cells(stage: Stage, folder: Path, inputs: Inputs, model: str) -> dict[str, Cell]:
    """A cell for each window and seed."""
    made = {}
    events = recorded_events(folder / EVENTS)
    scheduler = (
        f"eevdf:base_slice={inputs.whole('base_slice_ns')}ns:tick={inputs.whole('tick_ns')}ns:lazy_preemption=false"
    )
    for number, window in enumerate(windows(folder / STATISTICS)):
        name = f"two-vms-steal-{number}"
        if model == NOBODY_ELSE:
            name += f"-{model}"
        meta, columns = convert(events, window.start, window.end, others=model != NOBODY_ELSE)
        write_trace(stage.folder / f"{name}.parquet", meta, columns)
        sizes = {tier: sum(thread["tier"] == tier for thread in meta["threads"]) for tier in (JOB, *meta["tiers"])}
        vms = [task_group(tier, threads, f"./{name}.parquet") for tier, threads in sizes.items()]
        path = stage.workload(
            name + (f"-{model}" if model == IDLE_MACHINE else ""),
            settings={
                "class": "micro",
                "summary": f"Two QEMU guests and what ran beside them, from {window.start / 1e9:.1f} s",
                "stresses": ["scheduler"],
                "warmup": "0s",
                "horizon": ns(window.end - window.start),
            },
            host={"pcpus": 64 if model == IDLE_MACHINE else inputs.whole("pcpus"), "memory": "4GiB", **NO_COSTS},
            vms=vms,
        )
        for seed in SEEDS:
            made[f"{number}.seed{seed}"] = stage.cell(path, seed, scheduler=scheduler)
    return made


def read(results: Mapping[str, CellResult]) -> dict[str, float]:
    """Waiting of each vCPU over all windows, ms: the mean of the seeds, which draw when run queues are balanced."""
    waits = [
        sum(result.vcpu_ready_ns[0][vm] for result in results.values()) / len(SEEDS) / 1e6 for vm in range(len(VCPUS))
    ]
    return {f"steal.vm{vm}": wait for vm, wait in enumerate(waits)}
