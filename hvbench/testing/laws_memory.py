"""Laws of the memory side: pages, frames and slots are all somewhere, and in one place."""

from __future__ import annotations

import numpy as np

from hvbench.state.memory import HostMemory
from hvbench.state.records_memory import (
    EXTENT_PAGES,
    FRAME_HYPERVISOR,
    FRAME_OVERHEAD,
    FRAME_POOL,
    LISTS,
    P_ABSENT,
    P_BALLOON,
    P_FREE,
    P_KERNEL,
    P_LISTED,
    P_READING,
    P_SHARED,
    P_SWAPPING,
    P_VM_SHIFT,
    P_WRITEBACK,
)


def conserved(memory: HostMemory) -> None:
    """Every frame has exactly one owner, every guest page exactly one state, every counter agrees with what it
    counts."""
    t = memory.tables
    page, frame, vmem, machine, mapping = t["page"], t["page_frame"], t["vmem"], t["machine"][0], t["mapping"]
    frames = int(machine["frames"])
    refs = np.zeros(frames, np.int64)
    backed = page["frame"] > 0
    np.add.at(refs, page["frame"][backed] - 1, 1)
    reading = t["mem_io"][(t["mem_io"]["used"] == 1)]
    hostin = [int(x["frame"]) - 1 for x in reading if x["frame"] > 0]
    for f in hostin:
        refs[f] += 1
    stored = frame["refs"].astype(np.int64)
    zero = int(machine["zero_frame"])
    if zero:
        # the hypervisor's page of zeros keeps one reference of its own
        refs[zero - 1] += 1
    guest_owned = stored > 0
    assert (refs[guest_owned] == stored[guest_owned]).all()
    assert (refs[~guest_owned] == 0).all()
    assert (stored == FRAME_HYPERVISOR).sum() + (zero > 0) == machine["hypervisor"]
    pool_conserved(memory)
    assert (stored == FRAME_OVERHEAD).sum() == vmem["overhead"].sum()
    assert (stored == 0).sum() == machine["free"]
    # the free list and what was never used are the free frames
    seen = frames - int(machine["fresh"])
    f = int(machine["free_first"])
    while f:
        assert stored[f - 1] == 0
        seen += 1
        f = int(frame["owner"][f - 1])
    assert seen == machine["free"]
    assert machine["saved"] == (refs[guest_owned] - 1).sum()
    swapped = page["frame"] < 0
    slots = -page["frame"][swapped] - 1
    assert len(np.unique(slots)) == len(slots)
    slot_page = t["host_slot"]["page"][slots].astype(np.int64)
    read = slot_page < 0
    slot_page[read] = t["mem_io"]["first"][-slot_page[read] - 1] + 1
    assert (slot_page == np.flatnonzero(swapped) + 1).all()
    moving = int(machine["swapping"])
    assert vmem["swapping"].sum() == moving
    assert (t["host_slot"]["page"] != 0).sum() == machine["slots_used"] == len(slots) + moving + machine["pool_left"]
    at = mapping["at"]
    owners = np.flatnonzero(at > 0)
    assert (page["owner"][at[owners] - 1] == owners + 1).all()
    assert (page["owner"] != 0).sum() == len(owners)
    for m, x in enumerate(vmem):
        first, count = int(x["first"]), int(x["pages"])
        mine = page[first : first + count]
        flags = mine["flags"]
        assert (flags[mine["owner"] != 0] >> P_VM_SHIFT == m).all()
        used = np.arange(count) < x["fresh"]
        free = (flags & P_FREE) != 0
        ballooned = (flags & P_BALLOON) != 0
        held = mine["owner"] != 0
        assert (free.astype(int) + ballooned + held + ~used == 1).all()
        assert free.sum() + (~used).sum() == x["free"]
        assert ballooned.sum() == x["ballooned"]
        assert not (mine["frame"][ballooned] != 0).any()
        assert x["resident"] == (mine["frame"] > 0).sum()
        assert x["swapped"] == (mine["frame"] < 0).sum()
        assert x["shared"] == ((flags & P_SHARED) != 0).sum()
        listed = (flags & P_LISTED) != 0
        assert listed.sum() == t["page_list"]["count"][m * LISTS : (m + 1) * LISTS].sum()
        for k in range(LISTS):
            g, before, n = int(t["page_list"]["first"][m * LISTS + k]), 0, 0
            while g:
                assert page["prev"][g - 1] == before and page["flags"][g - 1] & P_LISTED
                before, g, n = g, int(page["next"][g - 1]), n + 1
            assert n == t["page_list"]["count"][m * LISTS + k] and before == t["page_list"]["last"][m * LISTS + k]
        # a held page is on a list, or the kernel's, or on its way
        way = (flags & (P_ABSENT | P_READING | P_WRITEBACK | P_KERNEL)) != 0
        assert (listed | way)[held].all()
        slots_here = t["guest_slot"]["owner"][int(x["first_slot"]) : int(x["first_slot"] + x["slots"])]
        assert (slots_here != 0).sum() == x["slots_used"]
        extents = t["extent"]["large"][int(x["first_extent"]) : int(x["first_extent"]) + -(-count // EXTENT_PAGES)]
        assert extents.sum() == x["large"]
        for number in np.flatnonzero(extents):
            # what a 2 MiB mapping covers is in memory as a whole, and nobody else's
            span = mine[number * EXTENT_PAGES : (number + 1) * EXTENT_PAGES]
            assert len(span) == EXTENT_PAGES and (span["frame"] > 0).all()
            assert not (span["flags"] & (P_SHARED | P_BALLOON | P_SWAPPING)).any()
            assert (frame["refs"][span["frame"] - 1] == 1).all()
    for o in t["object"]:
        rows = at[int(o["first"]) : int(o["first"] + o["pages"])]
        assert o["resident"] == (rows > 0).sum()


def pool_conserved(memory: HostMemory) -> None:
    """The pool of compressed pages: its entries, their classes, their order, and the frames that they take."""
    entry, classes, machine = memory.tables["pool_entry"], memory.tables["pool_class"], memory.tables["machine"][0]
    held = entry["held"] > 0
    per_class = np.bincount(entry["held"][held] - 1, minlength=len(classes))
    assert held.sum() == machine["pool_entries"]
    assert (per_class == classes["entries"]).all()
    frames = sum(-(-int(n) // k) for k, n in enumerate(per_class) if k)
    assert (memory.tables["page_frame"]["refs"] == FRAME_POOL).sum() == machine["pool_frames"] == frames
    waiting, s = 0, int(machine["pool_oldest"])
    while s:
        assert held[s - 1] and not entry["writing"][s - 1]
        waiting, s = waiting + 1, int(entry["newer"][s - 1])
    writing = entry["writing"] != 0
    assert waiting + (writing & held).sum() == held.sum()
    assert writing.sum() == machine["pool_writing"]
