"""Several traces as what one guest does: its programs run side by side, on one page cache.

Threads, processes, anonymous memory, locks and flows are numbered one trace behind the other. A file that two traces
use (the same hashed name) is one file. All threads of guests become one tier. A trace that is given twice stands for
two instances of its program: what was private in it differs between the two, as do the files of its own disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hvbench.errors import UserError
from hvbench.traces.format import COLUMNS, FLAG_COMMON, OUTSIDE, PAGE_SIZE, SALT, Trace, make_trace, name_hash
from hvbench.traces.handle.derived import derivation, is_op, joined, needs_operations
from hvbench.traces.handle.scale import mixed

TIER = "guest"


def merge(traces: list[Trace], name: str = "") -> Trace:
    """Valid traces as one, beginning together. Raises UserError for traces that cannot be."""
    if len(traces) < 2:
        raise UserError("one trace is nothing to merge; name two or more")
    for trace in traces:
        _check(trace, traces[0])
    meta: dict[str, Any] = {"threads": [], "objects": [], "flows": [], "warm": []}
    files: dict[tuple[str, str], int] = {}
    parts = []
    locks = processes = 0
    seen: dict[str, int] = {}
    for trace in traces:
        copy = seen[trace.digest] = seen.get(trace.digest, -1) + 1
        c = {column: values.copy() for column, values in trace.columns.items()}
        mine = trace.meta
        thread_base, flow_base = len(meta["threads"]), len(meta["flows"])
        place = np.array([_place(meta["objects"], files, item, processes, copy) for item in mine["objects"]] or [-1])
        used = c["object"] >= 0
        c["object"][used] = place[c["object"][used]]
        c["thread"] += thread_base
        c["flow"][c["flow"] >= 0] += flow_base
        c["peer"][is_op(c, "wake")] += thread_base
        locked = is_op(c, "lock", "unlock", "barrier")
        c["peer"][locked] += locks
        locks = max([locks, *(c["peer"][locked] + 1).tolist()])
        if copy:
            private = is_op(c, "content") & ((c["flags"] & FLAG_COMMON) == 0)
            for at in np.flatnonzero(private).tolist():
                c["content"][at] = mixed(int(c["content"][at]), copy)
        meta["threads"] += [
            {
                **thread,
                "id": thread_base + i,
                "process": thread["process"] + processes,
                "tier": thread["tier"] if thread["tier"] == OUTSIDE else TIER,
            }
            for i, thread in enumerate(mine["threads"])
        ]
        meta["flows"] += [
            {**flow, "ends": [end if end == OUTSIDE else TIER for end in flow["ends"]]} for flow in mine["flows"]
        ]
        meta["warm"] += [[int(place[index]), first, count] for index, first, count in mine.get("warm", [])]
        processes += 1 + max([thread["process"] for thread in mine["threads"]], default=0)
        parts.append(c)
    return make_trace({**_about(traces, name), **meta}, joined([{key: part[key] for key in COLUMNS} for part in parts]))


def _check(trace: Trace, first: Trace) -> None:
    """Raise UserError where a trace cannot be part of one guest with the first."""
    needs_operations(trace, "merge")
    where, other = trace.path or trace.name, first.path or first.name
    for key, ours, why in (
        ("salt", SALT.hex(), "identities of contents under different salts never compare equal"),
        ("page_size", PAGE_SIZE, "their pages are not the same"),
    ):
        mine, theirs = trace.meta.get(key, ours), first.meta.get(key, ours)
        if mine != theirs:
            raise UserError(f"{where}: its {key} is {mine}, that of {other} is {theirs}: {why}; record them again")
    if len(trace.meta["tiers"]) > 1:
        raise UserError(
            f"{where}: has {len(trace.meta['tiers'])} tiers ({', '.join(trace.meta['tiers'])}) that were recorded as "
            "guests of their own; only traces of one guest can be merged"
        )
    replay = trace.meta.get("replay", "closed"), first.meta.get("replay", "closed")
    if replay[0] != replay[1]:
        raise UserError(f"{where}: replays {replay[0]}-loop, {other} {replay[1]}-loop; only equal ones can be merged")


def _place(
    objects: list[dict[str, Any]], files: dict[tuple[str, str], int], item: dict[str, Any], processes: int, copy: int
) -> int:
    """The number of an object in the merged trace; made where it is not there yet."""
    item = dict(item)
    if item["kind"] == "anon":
        if item.get("process", -1) >= 0:
            item["process"] += processes
        objects.append(item)
        return len(objects) - 1
    hashed = str(item.get("name_hash") or item.get("name") or "")
    if hashed and copy and item["kind"] == "own":
        hashed = item["name_hash"] = name_hash(f"{hashed} of instance {copy}")
    number = files.get((item["kind"], hashed)) if hashed else None
    if number is None:
        objects.append(item)
        number = files[item["kind"], hashed] = len(objects) - 1
    objects[number]["pages"] = max(objects[number]["pages"], item["pages"])
    return number


def _about(traces: list[Trace], name: str) -> dict[str, Any]:
    """The metadata of the whole: what is equal stays, what adds up is added, the rest is said for each."""
    first = traces[0].meta
    same = {key: first[key] for key in first if all(trace.meta.get(key) == first[key] for trace in traces)}
    made: dict[str, Any] = {**same, "name": name or "+".join(trace.name for trace in traces)}
    made["command"] = "; ".join(str(trace.meta.get("command", "")) for trace in traces)
    made["span_ns"] = max(int(trace.meta["span_ns"]) for trace in traces)
    made["tiers"] = [TIER]
    made["touch_resolution_ns"] = max(int(trace.meta.get("touch_resolution_ns", 0)) for trace in traces)
    for key in ("lost_events", "steal_ns"):
        made[key] = sum(int(trace.meta.get(key, 0)) for trace in traces)
    for key in ("waited_ns", "kept_waits"):
        summed: dict[str, int] = {}
        for trace in traces:
            for what, amount in (trace.meta.get(key) or {}).items():
                summed[what] = summed.get(what, 0) + amount
        made[key] = summed
    waited = sum(made["waited_ns"].values())
    made["wait_shares"] = (
        {what: round(ns / waited, 6) for what, ns in made["waited_ns"].items()}
        if waited
        else dict(made.get("wait_shares", {}))
    )
    if "machine" not in same:
        places = {str(trace.meta.get("machine", {}).get("where", "?")) for trace in traces}
        made["machine"] = {"where": "+".join(sorted(places))}
    for key in ("licence", "attribution"):
        made[key] = "; ".join(dict.fromkeys(str(trace.meta[key]) for trace in traces if trace.meta.get(key)))
    made["degraded"] = [f"{trace.name}: {sentence}" for trace in traces for sentence in trace.meta.get("degraded", [])]
    made["derived"] = [
        *[step for trace in traces for step in trace.meta.get("derived", [])],
        derivation("merge", traces, {"tier": TIER}),
    ]
    return made
