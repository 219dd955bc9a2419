"""The memory side of a host: from sizes, objects and a base image to tables.

Every VM starts with the pages of its base image in memory, as a guest has them that has just booted: the
kernel's own pages are never given
up, its file pages are page cache. Behind them come the file pages that were mapped when a trace's recording
began: on the recorded machine nobody read them from disk. What the machine has no frame for at the start is in the
hypervisor's swap.

Sources of the default costs. Difference Engine (Gupta et al., OSDI 2008, table 2; 2.33 GHz Xeon): share_page
6.2 us, cow_break 25.1 us, compress 29.7 us, uncompress 10.4 us,
swap_out 48.9 us. A host fault: Adams and Agesen, ASPLOS 2006, figure 4, hardware VMM's page fault 11,242
cycles of which 1,093 native, at
3.8 GHz: 2.7 us. An invalidation: Dall et al., ATC 2017, table 2, virtual IPI on x86 3,102 cycles at 2.1 GHz:
1.5 us. One page of a
scan: 4 KiB at 4 GB/s. Splitting a 2 MiB mapping: a page for the table, as for a host fault, and its 512 entries
written, 4 KiB at 4 GB/s; the invalidation is charged on top. Overhead of nested tables: 8 bytes a 4 KiB page, in
pages: 1 / 512. Fixed overhead of a VM: Waldspurger 2002, section 5.1:
32 MB, of which 4 to 8 MB frame buffer; a quarter of it is taken, for a server without one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.kernel.guards import E_REFUSED
from hvbench.kernel.host_memory import E_FIRST_VM, VM_EVENTS
from hvbench.kernel.pool import CLASSES, SIZES
from hvbench.state.records import T_WAITING, W_MEMORY
from hvbench.state.records_memory import (
    ANON,
    EXTENT_PAGES,
    FRAME_HYPERVISOR,
    FRAME_OVERHEAD,
    IMAGE,
    IMAGE_CONTENT,
    INACTIVE_ANON,
    INACTIVE_FILE,
    LINUX,
    LISTS,
    OWN,
    P_FILE,
    P_KERNEL,
    P_LISTED,
    P_VM_SHIFT,
    REPLACEMENTS,
)

if TYPE_CHECKING:
    from hvbench.state.memory import HostMemory

KINDS = {"anon": ANON, "image": IMAGE, "own": OWN}
HOST_THREADS = 2
"""Host threads of the memory side: one pays for swapping, one for scanning and merging."""
MEM_IO_ROWS = 1 << 14
SHARES_PER_MIB = 10
"""[ESX: "normal" shares are 10 a MB of configured memory.]"""
MAX_ROWS = (1 << 31) - 2


@attrs.frozen
class MemoryObject:
    """An object of a trace group: kind (ANON, IMAGE, OWN), size, whose it is.

    `identity` names a file: the same file of the base image has the same one in every VM and every trace.
    """

    kind: int
    pages: int
    vm: int
    process: int = -1
    identity: int = 0


@attrs.frozen(eq=False)
class BaseImage:
    """The memory of an idle guest: its objects, and the pages of them that are in memory.

    `row` is the page's number over all objects, one object after the other; `content` its identity; `common`
    whether that is the same
    in every VM.
    """

    objects: tuple[MemoryObject, ...]
    row: np.ndarray[Any, Any]
    content: np.ndarray[Any, Any]
    common: np.ndarray[Any, Any]


@attrs.frozen
class GuestMemory:
    """A VM's memory and what its guest's kernel does with it.

    `limit_pages` 0: as much as it is configured with; `shares` 0: SHARES_PER_MIB.
    """

    pages: int
    replacement: str = "linux"
    swap_pages: int = 65_536
    balloon: bool = True
    pinned: bool = False
    reservation_pages: int = 0
    limit_pages: int = 0
    shares: int = 0
    readahead_pages: int = 32
    swappiness: int = 60
    image: BaseImage | None = None
    large_backing: bool | None = None
    """Whether the hypervisor backs it by 2 MiB; None: as the host says."""


@attrs.frozen
class MemoryCosts:
    """CPU time of the memory side's mechanisms, ns; see the module's docstring for the sources."""

    fault_ns: int = 2_700
    cow_break_ns: int = 25_100
    share_ns: int = 6_200
    scan_ns: int = 1_000
    swap_out_ns: int = 48_900
    swap_in_ns: int = 10_000
    invalidate_ns: int = 1_500
    split_ns: int = 3_700
    balloon_ns: int = 2_000
    guest_scan_ns: int = 200
    compress_ns: int = 29_700
    decompress_ns: int = 10_400


NO_COSTS = MemoryCosts(*[0] * len(attrs.fields(MemoryCosts)))
"""Without a hypervisor."""


@attrs.frozen
class MemorySpec:
    """Machine memory and the VMs on it, in the order of the host's VMs; `objects` of each trace group, in order.

    `warm` are the file pages that each group finds in its guests' page caches: (number in `objects`, first, pages).
    """

    frames: int
    vms: tuple[GuestMemory, ...]
    objects: tuple[tuple[MemoryObject, ...], ...]
    warm: tuple[tuple[tuple[int, int, int], ...], ...] = ()
    hypervisor_pages: int = 32_768
    reserve_pages: int = 0
    floor_pages: int = 0
    host_swap_pages: int = 0
    vm_overhead_pages: int = 2_048
    overhead_ppm: int = 1_953
    large_backing: bool = False
    free_states_ppm: tuple[int, int, int, int] = (60_000, 40_000, 20_000, 10_000)
    balance_ns: int = 1_000_000_000
    flush_ns: int = 30_000_000_000
    balloon_pages_per_s: int = 12_800
    cpu_mhz: int = 2400
    costs: MemoryCosts = MemoryCosts()


# what the tables need ------------------------------------------------------------------------------------------


@attrs.define
class _Vm:
    """The objects of one VM, base image first, with their places."""

    objects: list[MemoryObject] = attrs.field(factory=list)
    groups: list[int] = attrs.field(factory=list)
    first_object: int = 0
    first_row: int = 0


def _lay_out(spec: MemorySpec) -> tuple[list[_Vm], list[list[tuple[int, int]]]]:
    """Objects by VM, and for each group which VM's object (VM, number) each of its objects is."""
    vms = [_Vm() for _ in spec.vms]
    for m, guest in enumerate(spec.vms):
        if guest.image is not None:
            vms[m].objects += [attrs.evolve(x, vm=m) for x in guest.image.objects]
            vms[m].groups += [-1] * len(guest.image.objects)
    where: list[list[tuple[int, int]]] = []
    for g, objects in enumerate(spec.objects):
        here = []
        for x in objects:
            vm = vms[x.vm]
            found = -1
            if x.kind != ANON:
                for i, other in enumerate(vm.objects):
                    if other.kind == x.kind and other.identity == x.identity and x.identity != 0:
                        found = i
                        vm.objects[i] = attrs.evolve(other, pages=max(other.pages, x.pages))
            if found < 0:
                found = len(vm.objects)
                vm.objects.append(x)
                vm.groups.append(g if x.kind == ANON else -1)
            here.append((x.vm, found))
        where.append(here)
    first_object = first_row = 0
    for vm in vms:
        vm.first_object, vm.first_row = first_object, first_row
        first_object += len(vm.objects)
        first_row += sum(x.pages for x in vm.objects)
    return vms, where


def table_rows(spec: MemorySpec) -> dict[str, int]:
    """Rows of the memory side's tables."""
    vms, where = _lay_out(spec)
    rows = {
        "page": sum(x.pages for x in spec.vms),
        "mapping": sum(x.pages for vm in vms for x in vm.objects),
        "page_frame": spec.frames,
        "image_content": sum(len(x.row) for x in _images(spec)),
        "guest_slot": sum(x.swap_pages for x in spec.vms),
        "host_slot": spec.host_swap_pages,
        "pool_entry": spec.host_swap_pages,
        "pool_class": CLASSES,
        "pool_size": len(SIZES),
        "extent": sum(-(-x.pages // EXTENT_PAGES) for x in spec.vms),
        "page_list": LISTS * len(spec.vms),
        "object": sum(len(vm.objects) for vm in vms),
        "object_of": sum(len(x) for x in where),
        "replay": len(where),
        "mem_io": MEM_IO_ROWS,
        "vmem": len(spec.vms),
        "machine": 1,
    }
    for name, count in rows.items():
        if count > MAX_ROWS:
            raise UserError(f"memory: {count} rows of {name} are too many; legal: up to {MAX_ROWS}; use less memory")
    return {name: max(1, count) for name, count in rows.items()}


def memory_events(spec: MemorySpec) -> int:
    """Events of the memory side: reclaim, balance, and VM_EVENTS a VM."""
    return E_FIRST_VM + VM_EVENTS * len(spec.vms)


# filling them -----------------------------------------------------------------------------------------------------


def fill(memory: HostMemory, spec: MemorySpec, first_thread: int, first_host_thread: int) -> None:
    """Fill the memory side's tables.

    `first_thread` is the row in table thread of the first guest kernel thread (one a VM), `first_host_thread`
    the row in table vcpu of
    the reclaim thread, which the scan thread follows.
    """
    if len(memory.tables["op"]) >= IMAGE_CONTENT:
        raise UserError(
            f"memory: {len(memory.tables['op'])} recorded operations are too many; legal: below {IMAGE_CONTENT}; "
            "use fewer or shorter traces"
        )
    vms, where = _lay_out(spec)
    _fill_machine(memory, spec, first_host_thread)
    _fill_objects(memory, vms, where)
    page = slot = extent = 0
    for m, guest in enumerate(spec.vms):
        _fill_vm(memory, spec, vms[m], m, page, slot, extent, first_thread + m)
        page += guest.pages
        slot += guest.swap_pages
        extent += -(-guest.pages // EXTENT_PAGES)
    for m in range(len(spec.vms)):
        _fill_overhead(memory, spec, m)
    contents = _fill_contents(memory, spec)
    for m, guest in enumerate(spec.vms):
        if guest.image is not None:
            _fill_image(memory, vms[m], m, guest, contents[id(guest.image)])
    for m in range(len(spec.vms)):
        _fill_warm(memory, m, _warm_rows(memory, spec, vms, where, m))
    for m in range(len(spec.vms)):
        _back_extents(memory, m)
    machine = memory.tables["machine"][0]
    machine["free"] = spec.frames - machine["fresh"]


def _fill_machine(memory: HostMemory, spec: MemorySpec, first_host_thread: int) -> None:
    machine = memory.tables["machine"][0]
    hypervisor = min(spec.hypervisor_pages, spec.frames)
    high, soft, hard, low = (spec.frames * x // 1_000_000 for x in spec.free_states_ppm)
    values = {
        "frames": spec.frames,
        "fresh": hypervisor,
        "floor": spec.floor_pages,
        "reserve": spec.reserve_pages,
        "hypervisor": hypervisor,
        "high": high,
        "soft": soft,
        "hard": hard,
        "low": low,
        "goal": high + max(1, (high - soft) // 4),
        "hysteresis": max(1, (high - soft) // 4),
        "slots": spec.host_swap_pages,
        "reclaim_thread": first_host_thread,
        "scan_thread": first_host_thread + 1,
        "cpu_mhz": spec.cpu_mhz,
        "balance_ns": spec.balance_ns,
        "flush_ns": spec.flush_ns,
        "balloon_rate": spec.balloon_pages_per_s,
        "overhead_ppm": spec.overhead_ppm,
        **attrs.asdict(spec.costs),
    }
    for name, value in values.items():
        machine[name] = value
    memory.tables["page_frame"]["refs"][:hypervisor] = FRAME_HYPERVISOR
    memory.tables["pool_size"]["bytes"] = SIZES


def _fill_objects(memory: HostMemory, vms: list[_Vm], where: list[list[tuple[int, int]]]) -> None:
    table, index, replay = (memory.tables[n] for n in ("object", "object_of", "replay"))
    for m, vm in enumerate(vms):
        row = vm.first_row
        sector = 0
        for i, x in enumerate(vm.objects):
            o = table[vm.first_object + i]
            o["vm"], o["kind"], o["process"], o["group"] = m, x.kind, x.process, vm.groups[i]
            o["first"], o["pages"], o["identity"], o["next_read"] = row, x.pages, x.identity, 0
            row += x.pages
            if x.kind != ANON:
                o["sector"] = sector
                sector += x.pages
        memory.tables["vmem"][m]["swap_sector"] = sector
    at = 0
    for g, here in enumerate(where):
        replay[g]["first"], replay[g]["objects"] = at, len(here)
        for m, local in here:
            index[at]["object"] = vms[m].first_object + local
            at += 1


def default_shares(pages: int) -> int:
    """Shares of memory of a VM that nobody gave any: in proportion to its size."""
    return max(1, pages * SHARES_PER_MIB // 256)


def watermarks(pages: int) -> tuple[int, int, int]:
    """The guest's min, low and high watermarks in pages [Linux: min_free_kbytes = 4 sqrt(kilobytes), 5/4 and
    3/2 of it]."""
    least = min(max(4 * math.isqrt(pages * 4), 128), 65_536) // 4
    least = min(least, pages // 16)
    return least, least * 5 // 4, least * 3 // 2


def _fill_vm(
    memory: HostMemory, spec: MemorySpec, vm: _Vm, m: int, page: int, slot: int, extent: int, thread: int
) -> None:
    guest = spec.vms[m]
    if guest.replacement not in REPLACEMENTS:
        raise UserError(f"guest replacement {guest.replacement!r} is unknown; legal: {', '.join(REPLACEMENTS)}")
    x = memory.tables["vmem"][m]
    mode = REPLACEMENTS.index(guest.replacement)
    least, low, high = watermarks(guest.pages) if mode == LINUX else (0, 0, 0)
    values = {
        "first": page,
        "pages": guest.pages,
        "free": guest.pages,
        "min": least,
        "low": low,
        "high": high,
        "replacement": mode,
        "swappiness": guest.swappiness,
        "readahead": guest.readahead_pages,
        "first_slot": slot,
        "slots": guest.swap_pages,
        "dirty_background": max(1, guest.pages // 10),
        "dirty_limit": max(2, guest.pages // 5),
        "thread": thread,
        "balloon": guest.balloon,
        "first_object": vm.first_object,
        "objects": len(vm.objects),
        "pinned": guest.pinned,
        "reservation": guest.pages if guest.pinned else guest.reservation_pages,
        "limit": guest.limit_pages or guest.pages,
        "shares": guest.shares or default_shares(guest.pages),
        "overhead_fixed": spec.vm_overhead_pages,
        "first_extent": extent,
        "large_backing": spec.large_backing if guest.large_backing is None else guest.large_backing,
    }
    for name, value in values.items():
        x[name] = value
    t = memory.tables["thread"][thread]
    t["vm"], t["group"], t["state"], t["waits_for"] = m, -1, T_WAITING, W_MEMORY
    t["vcpu"] = memory.tables["vm"][m]["first_vcpu"]


def _fill_overhead(memory: HostMemory, spec: MemorySpec, m: int) -> None:
    machine = memory.tables["machine"][0]
    first = int(machine["fresh"])
    count = min(spec.vm_overhead_pages, spec.frames - first)
    frames = memory.tables["page_frame"][first : first + count]
    frames["refs"], frames["owner"] = FRAME_OVERHEAD, m + 1
    machine["fresh"] = first + count
    memory.tables["vmem"][m]["overhead"] = count


def _images(spec: MemorySpec) -> list[BaseImage]:
    """The distinct base images of a host's VMs, in the order in which they are first used."""
    return list({id(x.image): x.image for x in spec.vms if x.image is not None}.values())


def _fill_contents(memory: HostMemory, spec: MemorySpec) -> dict[int, int]:
    """The contents of every base image, once; returns where each image's begin, by its `id`."""
    table = memory.tables["image_content"]
    first: dict[int, int] = {}
    at = 0
    for image in _images(spec):
        first[id(image)] = at
        end = at + len(image.row)
        table["identity"][at:end] = image.content.astype(np.uint64).view(np.int64)
        table["common"][at:end] = image.common
        at = end
    return first


def _fill_image(memory: HostMemory, vm: _Vm, m: int, guest: GuestMemory, first_content: int) -> None:
    """The pages that the base image has in memory: the kernel's first, then page cache, as much as the VM has
    room for."""
    image = guest.image
    assert image is not None
    x = memory.tables["vmem"][m]
    kinds = np.concatenate([np.full(o.pages, o.kind) for o in image.objects])
    starts = np.concatenate([np.arange(o.pages) for o in image.objects])
    firsts = np.concatenate(
        [np.full(o.pages, memory.tables["object"][vm.first_object + i]["first"]) for i, o in enumerate(image.objects)]
    )
    order = np.argsort(kinds[image.row] != ANON, kind="stable")
    rows = (firsts + starts)[image.row][order].astype(np.int64)
    kind = kinds[image.row][order]
    memory.tables["mapping"]["content"][rows] = IMAGE_CONTENT + first_content + order
    keep = max(int((kind == ANON).sum()), min(len(rows), guest.pages - int(x["high"]) - 1))
    if int((kind == ANON).sum()) > guest.pages:
        raise UserError(
            f"VM {m}: its base image needs {int((kind == ANON).sum())} pages for the kernel alone; it has {guest.pages}"
        )
    _place(memory, m, rows[:keep], kind[:keep])


def _warm_rows(
    memory: HostMemory, spec: MemorySpec, vms: list[_Vm], where: list[list[tuple[int, int]]], m: int
) -> NDArray[np.int64]:
    """The rows in table mapping of a VM's warm pages that its base image does not have in memory, in their order."""
    table = memory.tables["object"]
    parts = [np.empty(0, np.int64)]
    for here, listed in zip(where, spec.warm, strict=False):
        for number, first, pages in listed:
            vm, local = here[number]
            x = table[vms[vm].first_object + local]
            if vm == m and x["kind"] != ANON:
                end = min(first + pages, int(x["pages"]))
                parts.append(int(x["first"]) + np.arange(first, end, dtype=np.int64))
    rows = np.concatenate(parts)
    _, once = np.unique(rows, return_index=True)
    rows = rows[np.sort(once)]
    return rows[memory.tables["mapping"]["at"][rows] == 0]


def _fill_warm(memory: HostMemory, m: int, rows: NDArray[np.int64]) -> None:
    """Clean file pages behind those of the base image, as many as fit above the guest's high watermark."""
    x = memory.tables["vmem"][m]
    rows = rows[: max(0, int(x["free"] - x["high"]) - 1)]
    if not len(rows):
        return
    table = memory.tables["object"]
    owner = table[np.searchsorted(table["first"], rows, side="right") - 1]
    _place(memory, m, rows, owner["kind"])


def _place(memory: HostMemory, m: int, rows: NDArray[np.int64], kind: NDArray[Any]) -> None:
    """Give rows of table mapping a VM's next unused pages; file pages go to the end of the inactive list."""
    x = memory.tables["vmem"][m]
    page, mapping, table = (memory.tables[n] for n in ("page", "mapping", "object"))
    first, count = int(x["first"] + x["fresh"]), len(rows)
    g = first + np.arange(count)
    mapping["at"][rows] = g + 1
    span = page[first : first + count]
    span["owner"] = rows + 1
    span["flags"] = np.where(kind == ANON, P_KERNEL, P_FILE | P_LISTED) | (m << P_VM_SHIFT)
    files = g[kind != ANON]
    if len(files):
        which = INACTIVE_FILE if x["replacement"] == LINUX else INACTIVE_ANON
        pages = memory.tables["page_list"][m * LISTS + which]
        last = int(pages["last"])
        span["next"][kind != ANON] = np.append(files[1:] + 1, 0)
        span["prev"][kind != ANON] = np.append(last, files[:-1] + 1)
        if last:
            page["next"][last - 1] = files[0] + 1
        else:
            pages["first"] = files[0] + 1
        pages["last"] = files[-1] + 1
        pages["count"] += len(files)
    x["fresh"] += count
    x["free"] -= count
    owners = np.searchsorted(table["first"], rows, side="right") - 1
    for o, resident in zip(*np.unique(owners, return_counts=True), strict=True):
        table["resident"][o] += resident
    _put_frames(memory, m, g, span)


def _put_frames(memory: HostMemory, m: int, g: Any, span: Any) -> None:
    """Frames for a VM's pages at the start; what there is no frame for is in the hypervisor's swap."""
    machine, x = memory.tables["machine"][0], memory.tables["vmem"][m]
    fresh = int(machine["fresh"])
    count = max(0, min(len(g), int(machine["frames"] - machine["floor"]) - fresh))
    frames = memory.tables["page_frame"][fresh : fresh + count]
    frames["refs"], frames["owner"] = 1, g[:count] + 1
    span["frame"][:count] = np.arange(fresh, fresh + count) + 1
    machine["fresh"] = fresh + count
    x["resident"] += count
    used = int(machine["slots_used"])
    out = min(len(g) - count, int(machine["slots"]) - used)
    if out > 0:
        span["frame"][count : count + out] = -(np.arange(used, used + out) + 1)
        memory.tables["host_slot"]["page"][used : used + out] = g[count : count + out] + 1
        machine["slots_used"] = machine["slot_hand"] = used + out
        if machine["slot_hand"] >= machine["slots"]:
            machine["slot_hand"] = 0
        x["swapped"] += out


def _back_extents(memory: HostMemory, m: int) -> None:
    """The hypervisor backed a VM by 2 MiB while its guest booted: whole extents, as far as free memory stays high."""
    machine, x = memory.tables["machine"][0], memory.tables["vmem"][m]
    page, frame = memory.tables["page"], memory.tables["page_frame"]
    if not x["large_backing"]:
        return
    used = -(-int(x["fresh"]) // EXTENT_PAGES)
    for number in range(min(used, int(x["pages"]) // EXTENT_PAGES)):
        first = int(x["first"]) + number * EXTENT_PAGES
        span = page[first : first + EXTENT_PAGES]
        bare = np.flatnonzero(span["frame"] == 0)
        fresh = int(machine["fresh"])
        if (span["frame"] < 0).any() or int(machine["frames"]) - fresh - len(bare) < machine["high"]:
            continue
        given = fresh + np.arange(len(bare))
        span["frame"][bare] = given + 1
        span["flags"][bare] = m << P_VM_SHIFT
        frame["refs"][given], frame["owner"][given] = 1, first + bare + 1
        machine["fresh"] = fresh + len(bare)
        memory.tables["extent"]["large"][int(x["first_extent"]) + number] = 1
        x["resident"] += len(bare)
        x["large"] += 1


# from traces -----------------------------------------------------------------------------------------------------


def file_identity(name: str) -> int:
    """A number for a file's hashed name, never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "little") or 1


def trace_objects(objects: Sequence[dict[str, Any]], vm_of_object: Sequence[int]) -> tuple[MemoryObject, ...]:
    """The objects of a trace's metadata; `vm_of_object` says which VM each belongs to."""
    made = []
    for number, (x, vm) in enumerate(zip(objects, vm_of_object, strict=True)):
        kind = KINDS[x["kind"]]
        name = str(x.get("name_hash") or x.get("name") or f"#{number}")
        process = int(x.get("process", -1))
        made.append(
            MemoryObject(kind, max(1, int(x["pages"])), vm, process, 0 if kind == ANON else file_identity(name))
        )
    return tuple(made)


def base_image(meta: dict[str, Any], columns: dict[str, Any]) -> BaseImage:
    """The base image of a trace whose rows are `content` rows."""
    from hvbench.traces.format import FLAG_COMMON

    objects = trace_objects(meta["objects"], [0] * len(meta["objects"]))
    start = np.concatenate([[0], np.cumsum([x.pages for x in objects])])
    row = start[columns["object"]] + columns["page"]
    _, last = np.unique(row[::-1], return_index=True)
    pick = np.sort(len(row) - 1 - last)
    common = (columns["flags"] & FLAG_COMMON) != 0
    return BaseImage(objects, row[pick], columns["content"][pick], common[pick])


# what is said about it -------------------------------------------------------------------------------------------


def refusal(memory: HostMemory, names: Sequence[str]) -> str:
    """Why a host was refused, in one line: which policy, which VM, what it needs, what is missing."""
    header = memory.header[0]
    assert int(header["error"]) == E_REFUSED
    m, short, row = int(header["error_extra"]), int(header["error_answer"]), int(header["error_hook"])
    slot = int(memory.tables["hook"][row]["slot_index"])
    policy = memory.policies[slot].name if slot in memory.policies else "memory"
    x, machine = memory.tables["vmem"][m], memory.tables["machine"][0]
    configured, needs = mib(x["pages"]), mib(x["pages"] + x["overhead_fixed"])
    return (
        f"{policy} refuses VM {names[m]}: it needs {needs} MiB (configured {configured} MiB and overhead), "
        f"{mib(short) + 1} MiB more than is left of the host's {mib(machine['frames'])} MiB"
    )


def mib(pages: int) -> int:
    """Whole mebibytes of a number of pages."""
    return int(pages) * 4 // 1024
