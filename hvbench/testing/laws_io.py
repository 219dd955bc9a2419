"""Laws of storage and network: requests, frames and bytes are all somewhere, and in one place."""

from __future__ import annotations

import numpy as np

from hvbench.state.memory import HostMemory
from hvbench.state.records_io import FRAME_ACK, FRAME_IN_NETWORK, PROTO_TCP


def row(memory: HostMemory, table: str, index: int = 0) -> dict[str, int]:
    """A row of a table as a dictionary."""
    return {name: int(memory.tables[table][index][name]) for name in memory.tables[table].dtype.names}


def conserved(memory: HostMemory) -> None:
    """Requests, frames and bytes are all somewhere, and in one place."""
    io = row(memory, "io")
    request = memory.tables["request"]
    live = request[request["state"] != 0]
    assert io["submitted"] == io["completed"] + len(live)
    assert io["pages_submitted"] == io["pages_completed"] + int(live["pages"].sum())
    assert int(memory.tables["vm_io"]["in_flight"].sum()) == len(live)
    queued = sum(int(s["queue_len"]) + int(s["busy"]) for s in memory.tables["station"])
    assert queued == int(np.isin(live["state"], (3, 4)).sum())

    frame = memory.tables["frame"]
    used = frame[frame["state"] != 0]
    moving = used[np.isin(used["state"], FRAME_IN_NETWORK) & (used["kind"] != FRAME_ACK)]
    ends = ("delivered", "dropped", "filtered", "discarded")
    assert io["frames_sent"] == sum(io[f"frames_{e}"] for e in ends) + len(moving)
    assert io["bytes_sent"] == sum(io[f"bytes_{e}"] for e in ends) + int(moving["payload"].sum())
    for number in range(io["halves"]):
        h = row(memory, "half", number)
        if h["local"]:
            assert h["accepted"] == h["consumed"] + h["available"]
        elif h["proto"] == PROTO_TCP:
            mine = moving[(moving["half"] == number) & (moving["generation"] == h["generation"])]
            way = int(mine["payload"].sum())
            there = h["consumed"] + h["available"] + h["held_bytes"]
            assert h["accepted"] == there + way + h["lost_bytes"] + h["unsent"]
            assert h["flight"] >= way and h["consumed"] + h["available"] == h["expected"]


def free_lists_are_whole(memory: HostMemory) -> None:
    """Every free row is on its free list exactly once."""
    for table, head in (("request", "request_free"), ("frame", "frame_free")):
        rows = memory.tables[table]
        seen = 0
        at = int(memory.tables["io"][head][0])
        while at >= 0:
            assert rows["state"][at] == 0
            seen += 1
            at = int(rows["next"][at])
        assert seen == int((rows["state"] == 0).sum())
