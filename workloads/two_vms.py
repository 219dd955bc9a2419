"""Two recorded QEMU guests as one trace, a tier each. Used by convert.py.

- **CPU.** The times that a vCPU's thread ran are compute (user time: under TCG the guest's instructions are all
  there is); the log lacks some of the switches to a vCPU: it then ran since the last switch that is known of its CPU;
  runnable is dropped, as that is what a replay predicts; blocked is a halt, and what ended it was outside the thread.
- **Storage.** Requests of the guests at their recorded times, below their page caches.
- **Memory.** Guest memory is one object. What is not zero at the first snapshot is touched at the start; a page whose
  content changed is touched (written) when that was seen, flag "sampled". Contents stand where sharing could see them:
  zero, or equal to another page's in a snapshot; equal in both guests: flag "common".
- **Network.** The frames of guest 0's port, by `hvbench import pcap`.

Open-loop: there are times, and no dependencies between the guests and their devices.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from hvbench.traces.check import require_valid
from hvbench.traces.format import (
    FLAG_COMMON,
    FLAG_SAMPLED,
    FLAG_WRITE,
    FORMAT_VERSION,
    OPS,
    SALT,
    ZERO_PAGE,
    make_trace,
    name_hash,
    read_trace,
    write_trace,
)
from hvbench.traces.handle.derived import columns_of, joined, row, taken
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings, import_files
from hvbench.traces.record.procfs import runs

PAGES: Final = 65_536
ADDRESSES: Final = "10.9.0.1=vm-0,10.9.0.2=vm-1"
SWITCH: Final = re.compile(
    r"\[(\d+)\] \S+ +(\d+)\.(\d{6}): sched_switch: .* prev_pid=(\d+) .* prev_state=(\S+) ==> .* next_pid=(\d+) "
)
REQUEST: Final = re.compile(r"@(\d+)\.(\d{6}):virtio_blk_handle_(read|write) .* sector (\d+) nsectors (\d+)")
LEAST_NS: Final = 100_000
"""Shorter halts are left out: what the thread ran before and after one is one burst."""

Rows = list[dict[str, int]]


def convert(source: Path, scratch: Path, target: Path) -> None:
    """Read a recording and write its trace. Raises UserError and OSError."""
    about = json.loads((source / "meta.json").read_text())
    vcpus = {int(tid): place[0] for tid, place in about["tids"].items()}
    bursts, start, end = _bursts(source / "vcpu_sched.txt.gz", vcpus)
    shift = round(about["real_minus_mono"] * 10**9) + start
    rows: Rows = []
    for vm in (0, 1):
        for begin, spent, halted in bursts[vm]:
            rows.append(row("compute", 2 * vm, begin, user_ns=spent))
            if halted:
                rows.append(row("outside", 2 * vm, begin + spent, duration_ns=halted))
        rows += _requests(source / f"vm{vm}.qtrace.gz", 2 * vm + 1, shift, end - start)
    rows += _memory(source / "pagehash.txt.gz", end - start)
    threads = [
        {"id": 2 * vm + i, "process": vm, "tier": f"vm-{vm}", "name": name, "role": "guest"}
        for vm in (0, 1)
        for i, name in enumerate(("vcpu 0", "disk"))
    ]
    packets, flows, more = _network(source / "vm0.pcap.gz", scratch, shift, len(threads))
    halted_ns = sum(made["duration_ns"] for made in rows if made["op"] == OPS["outside"])
    meta: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": "two-vms",
        "command": "Two Linux guests: one takes and frees memory, one writes files and sends 6 MB to it.",
        "recorded_at": "2026-11-22T00:00:00+00:00",
        "recorder": {"mode": "qemu", "version": "recipe"},
        "machine": {"where": "tcg", "cpus": 2, "kernel": "6.18"},
        "clock": "mono",
        "page_size": 4096,
        "span_ns": end - start,
        "threads": threads + more,
        "tiers": ["vm-0", "vm-1"],
        "objects": [{"kind": "anon", "pages": PAGES, "process": vm, "name": "guest memory"} for vm in (0, 1)],
        "flows": flows,
        "warm": [],
        "wait_shares": {"thread_edge": 0.0, "timer": 0.0, "disk": 0.0, "network": 0.0, "outside": 1.0, "unknown": 0.0},
        "waited_ns": {"outside": halted_ns},
        "touch_resolution_ns": 5 * 10**9,
        "touch_method": "content deltas between snapshots of guest memory, some seconds apart",
        "salt": SALT.hex(),
        "seed": 0,
        "steal_ns": 0,
        "lost_events": 0,
        "replay": "open",
        "licence": "CC0-1.0",
        "attribution": "the hvbench project",
        "privacy": "identities of pages and sizes only",
        "degraded": [
            "recorded under TCG: compute is about ten times what hardware assist takes",
            "some switches to a vCPU are missing in the log: compute is up to a tenth above what schedstat counted",
        ],
    }
    made = make_trace(meta, joined([columns_of(rows), packets]))
    require_valid(made)
    written = write_trace(target, meta, made.columns)
    print(f"two-vms: {len(written)} operations, {target.stat().st_size / 1000:.0f} kB")


def _bursts(path: Path, vcpus: dict[int, int]) -> tuple[list[list[list[int]]], int, int]:
    """[begin, time on a CPU, halt behind it] of each guest's vCPU; the first and the last time."""
    made: list[list[list[int]]] = [[], []]
    running: dict[int, int] = {}
    halted: dict[int, int] = {}
    last: dict[int, int] = {}
    left: dict[int, int] = {}
    start = now = -1
    with gzip.open(path, "rt", errors="replace") as file:
        for line in file:
            match = SWITCH.search(line)
            if match is None:
                continue
            cpu, before, following = int(match[1]), int(match[4]), int(match[6])
            now = int(match[2]) * 10**9 + int(match[3]) * 1000
            start = now if start < 0 else start
            since_switch = last.get(cpu, now)
            last[cpu] = now
            if before in vcpus:
                bursts = made[vcpus[before]]
                began = running.pop(before, max(since_switch, left.get(before, start)))
                left[before] = now
                if before in halted:  # it ran again, and nobody saw it begin
                    bursts[-1][2] = began - halted.pop(before)
                if bursts and not bursts[-1][2]:
                    bursts[-1][1] += now - began  # preempted in between: one burst
                else:
                    bursts.append([began - start, now - began, 0])
                if not match[5].startswith("R"):
                    halted[before] = now
            if following in vcpus:
                bursts = made[vcpus[following]]
                since = halted.pop(following, now)
                if bursts and now - since >= LEAST_NS:
                    bursts[-1][2] = now - since
                running[following] = now
    return made, start, now


def _requests(path: Path, thread: int, shift: int, span: int) -> Rows:
    made: Rows = []
    with gzip.open(path, "rt") as file:
        for match in filter(None, map(REQUEST.search, file)):
            time = int(match[1]) * 10**9 + int(match[2]) * 1000 - shift
            if 0 <= time < span and int(match[5]):
                op = f"blk_{match[3]}"
                made.append(row(op, thread, time, page=int(match[4]), pages=int(match[5])))
    return made


def _memory(path: Path, span: int) -> Rows:
    """Touches and contents of both guests."""
    snapshots: list[list[tuple[int, dict[int, int]]]] = [[], []]
    names: dict[str, int] = {}
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.startswith("#"):
                words = dict(word.split("=") for word in line[1:].split())
                snapshots[int(words["vm"])].append((min(span, round(float(words["t"]) * 1e9)), {}))
            else:
                vm, page, name = line.split()
                if name not in names:
                    names[name] = int(name_hash(name), 16) or 1
                snapshots[int(vm)][-1][1][int(page, 16)] = names[name]
    zero = Counter(snapshots[0][0][1].values()).most_common(1)[0][0]  # 3 of 4 pages of a guest that has just booted
    ever = [{value for _, changed in of_vm for value in changed.values()} for of_vm in snapshots]
    common = ever[0] & ever[1]
    made: Rows = []
    for vm, of_vm in enumerate(snapshots):
        now: dict[int, int] = {}
        told: dict[int, int] = {}
        touched: set[int] = set()
        for time, changed in of_vm:
            now.update(changed)
            count = Counter(now.values())
            pages = [page for page, value in changed.items() if touched or value != zero]
            for first, length in runs(np.array(pages, np.int64)):
                where = {"object": vm, "page": first, "pages": length}
                made.append(row("touch", 2 * vm, time, flags=FLAG_WRITE | FLAG_SAMPLED, **where))
            touched.update(pages)
            for page in sorted(touched):
                value = now[page]
                seen = ZERO_PAGE if value == zero else value if count[value] > 1 or value in common else -1
                # a page that was written has content of its own again by itself
                if seen >= 0 and (page in changed or told.get(page) != seen):
                    flags = FLAG_COMMON if value in common else 0
                    made.append(row("content", 2 * vm, time, object=vm, page=page, pages=1, content=seen, flags=flags))
                told[page] = seen
    return made


def _network(path: Path, scratch: Path, shift: int, base: int) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Rows, flows and threads of the capture; their times counted from the recording's start."""
    with gzip.open(path, "rb") as file:
        head = file.read(32)
    first = int.from_bytes(head[24:28], "little") * 10**9 + int.from_bytes(head[28:32], "little") * 1000
    made = scratch / "network.parquet"
    import_files(load_formats().by_name["pcap"], (path,), made, Settings(), {"vm": ADDRESSES})
    trace = read_trace(made)
    columns = taken(trace.columns, np.arange(len(trace)))
    columns["thread"] += base
    columns["time_ns"] += first - shift
    threads = [
        {**thread, "id": base + i, "process": {"vm-0": 0, "vm-1": 1}.get(thread["tier"], 2)}
        for i, thread in enumerate(trace.meta["threads"])
    ]
    return columns, trace.meta["flows"], threads
