"""The records of the memory side: pages, frames, objects, guests' lists.

Two levels. A *guest page* is a page of a VM's guest-physical memory (table `page`, one VM after the other); the guest's
kernel gives it to a page of an object (table `mapping`, one object after the other). A *frame* is a page of machine
memory; the hypervisor puts one under a guest page. A row of zeros is a page, mapping or frame that was never
used, so that what a cell never touches takes no memory: links and indices are therefore stored plus one, 0 for none.

Bytes: 24 a guest page and 8 its mapping, 8 a frame, 4 a page in a swap area; docs/memory-model.md has the sum.
Contents are not copied: a mapping says which recorded row they are those of, and all VMs of a recording share it.
"""

from __future__ import annotations

from hvbench.state.layout import col, record

# flags of a guest page; the number of its VM (up to 1,024) stands above them
P_REF = 1 << 0
P_DIRTY = 1 << 1
P_ACTIVE = 1 << 2
P_FILE = 1 << 3
P_ABSENT = 1 << 4
P_READING = 1 << 5
P_WRITEBACK = 1 << 6
P_RECLAIM = 1 << 7
P_BALLOON = 1 << 8
P_KERNEL = 1 << 9
P_SHARED = 1 << 10
P_SWAPPING = 1 << 11
P_FREE = 1 << 12
P_LISTED = 1 << 13
P_NEW_SHIFT = 14
P_NEW = 1 << P_NEW_SHIFT
P_HOSTIN = 1 << 15
P_WATCHED = 1 << 16
P_VM_SHIFT = 20

PAGE_FLAGS = {
    P_REF: "the guest saw it used since it last looked",
    P_DIRTY: "file page: changed since it was read or written back",
    P_ACTIVE: "on the guest's active list",
    P_FILE: "belongs to a file (page cache), else to anonymous memory",
    P_ABSENT: "mapped, but its contents are not there yet",
    P_READING: "the guest's disk fills it now",
    P_WRITEBACK: "the guest writes it to its disk now",
    P_RECLAIM: "to be given up when that write is done",
    P_BALLOON: "held by the balloon",
    P_KERNEL: "the guest kernel's own: never given up",
    P_SHARED: "write-protected because its frame is or was shared",
    P_SWAPPING: "the hypervisor writes it to its swap now",
    P_FREE: "on the guest's free list",
    P_LISTED: "on one of the guest's replacement lists",
    P_NEW: "read in, not used yet",
    P_HOSTIN: "the hypervisor reads it from its swap now",
    P_WATCHED: "a policy wants to know of the next touch: its mapping was taken away",
}

# kinds of objects
ANON, IMAGE, OWN = 0, 1, 2

# guest page replacement
LINUX, LRU, CLOCK, FIFO = 0, 1, 2, 3
REPLACEMENTS = ("linux", "lru", "clock", "fifo")

# the guest's lists, four a VM; the exact replacements keep everything on INACTIVE_ANON
ACTIVE_ANON, INACTIVE_ANON, ACTIVE_FILE, INACTIVE_FILE = 0, 1, 2, 3
LISTS = 4

# owners of a frame that belongs to no guest page (frame.refs)
FRAME_FREE, FRAME_HYPERVISOR, FRAME_OVERHEAD, FRAME_POOL = 0, -1, -2, -3

# states of the host's free memory
HIGH, CLEAR, SOFT, HARD, LOW = 0, 1, 2, 3, 4
FREE_STATES = ("high", "clear", "soft", "hard", "low")

STAMP_SHIFT = 20
EXTENT_PAGES = 512

IMAGE_CONTENT = 1 << 30
"""From here on a mapping's content is a row of image_content."""
VERSION_MASK = (1 << 31) - 1
"""Versions of written pages begin again after so many."""


@record("page")
class Page:
    """A page of guest-physical memory, as the hypervisor and the guest's kernel see it."""

    frame: int = col("frame + 1; 0: no frame; -(host swap slot + 1): swapped out by the hypervisor", "i4")
    owner: int = col("mapping row + 1 of the object page that it holds, 0 for none", "i4")
    next: int = col("next page + 1 on its list; while it is read: I/O + 1", "i4")
    prev: int = col("previous page + 1 on its list; while it is read or swapped by the guest: guest slot + 1", "i4")
    flags: int = col("PAGE_FLAGS, and from bit 20 the VM", "i4")
    stamp: int = col("when it was last touched, in units of 2^20 ns (1.05 ms)", "i4")


@record("mapping")
class Mapping:
    """A page of an object: where it is and what is in it."""

    at: int = col("guest page + 1; 0: nowhere (a file page: on disk); -(guest swap slot + 1)", "i4")
    content: int = col(
        "0: zeros, or what the file has by itself; row of op + 1 or IMAGE_CONTENT + row of image_content: as recorded "
        "there; -version: as last written",
        "i4",
    )


@record("image_content")
class ImageContent:
    """The contents of a page of a base image; held once for all VMs that start from it."""

    identity: int = col("content identity")
    common: int = col("1: the same in every VM, 0: mixed with the VM's number", "i4")


@record("page_frame")
class PageFrame:
    """A page of machine memory. It has one owner: nobody, guest pages, a VM's overhead, the hypervisor."""

    refs: int = col("guest pages that map it; 0 free, -1 the hypervisor's, -2 a VM's overhead, -3 the pool's", "i4")
    owner: int = col("a guest page + 1 that maps it; free: next free frame + 1; overhead: VM + 1", "i4")


@record("guest_slot")
class GuestSlot:
    """A page of a guest's swap area on its virtual disk."""

    owner: int = col("mapping row + 1, 0 for a free slot", "i4")


@record("host_slot")
class HostSlot:
    """A page of the hypervisor's swap area."""

    page: int = col("guest page + 1, 0 for a free slot; -(I/O + 1) while the hypervisor reads it", "i4")


@record("pool_entry")
class PoolEntry:
    """The compressed page of a slot of the hypervisor's swap area, in order of arrival."""

    held: int = col("1 + how many such entries a frame holds (class), 0: the slot's page is not in the pool", "i4")
    newer: int = col("slot + 1 of the entry that came after it", "i4")
    older: int = col("slot + 1 of the entry that came before it", "i4")
    writing: int = col("1: it is being written to the swap area", "i4")


@record("pool_class")
class PoolClass:
    """Entries of the pool of which a frame holds so many as the row's number says."""

    entries: int = col("entries of this class")


@record("pool_size")
class PoolSize:
    """Compressed sizes of pages, equally likely: a page's is drawn by the identity of its contents."""

    bytes: int = col("bytes")


@record("extent")
class Extent:
    """512 guest pages of a VM, aligned: what one 2 MiB mapping of the hypervisor can cover."""

    large: int = col("1: backed by one 2 MiB mapping", "i4")


@record("page_list")
class PageList:
    """One of a guest's replacement lists."""

    first: int = col("most recent page + 1")
    last: int = col("next page to look at + 1")
    count: int = col("pages on it")


@record("object")
class Object:
    """An object of one VM: an anonymous region, a file of the base image, a file of the VM's own disk."""

    vm: int = col("its VM", "i4")
    kind: int = col("0 anonymous, 1 file of the base image, 2 file of the VM's own disk", "i4")
    process: int = col("anonymous: process number within its trace group", "i4", default=-1)
    group: int = col("anonymous: trace group, -1 for the base image", "i4", default=-1)
    first: int = col("its first row in mapping")
    pages: int = col("rows it has")
    sector: int = col("file: first 4 KiB sector on the virtual disk")
    identity: int = col("what its unrecorded contents are derived from")
    allocated: int = col("pages that `alloc` gave it so far")
    resident: int = col("its pages in guest memory")
    dirty: int = col("its dirty pages")
    dirty_first: int = col("no dirty page before this one")
    dirty_end: int = col("no dirty page from this one on")
    writing: int = col("writes of its pages that are under way")
    next_read: int = col("page after the last one read: tells sequential reading", default=-1)
    waiter: int = col("first thread + 1 that waits for its writes")


@record("object_of")
class ObjectOf:
    """Which object a trace group means by a number."""

    object: int = col("row of table object", default=-1)


@record("replay")
class Replay:
    """The memory side of a trace group."""

    first: int = col("its first row in object_of")
    objects: int = col("number of objects of the trace")


@record("mem_io")
class MemIo:
    """A disk operation of the memory side."""

    first: int = col("guest read, write: first mapping row; swap: first slot; host read: guest page")
    pages: int = col("number of pages", "i4")
    vm: int = col("VM", "i4")
    object: int = col("object, -1 for none", "i4")
    waiter: int = col("first thread + 1 that waits for it", "i4")
    vcpu: int = col("first vCPU + 1 that waits for it", "i4")
    frame: int = col("host read: the frame + 1 that it fills, else 0", "i4")
    next: int = col("next free row + 1", "i4")
    used: int = col("1: under way", "i4")
    leaving: int = col("guest write: pages that are given up when it is done", "i4")


@record("vcpu_mem")
class VcpuMem:
    """The memory side of a vCPU."""

    next: int = col("next vCPU + 1 that waits for the same thing")
    stalled_since_ns: int = col("when its host fault began")
    stalled_ns: int = col("time it waited for host faults, since the beginning")


@record("vmem")
class Vmem:
    """The memory side of a VM: its guest's kernel, what the hypervisor knows of it, and what is measured."""

    first: int = col("its first row in page")
    pages: int = col("configured memory, pages")
    fresh: int = col("pages of it that were ever used: the next one to use")
    free_first: int = col("first page + 1 on the guest's free list")
    free: int = col("pages free in the guest, unused ones included")
    min: int = col("watermark: below it a thread reclaims itself")
    low: int = col("watermark: below it the guest's kernel thread starts reclaiming")
    high: int = col("watermark: up to here it does")
    replacement: int = col("0 linux (two lists), 1 lru, 2 clock, 3 fifo")
    swappiness: int = col("share of anonymous pages in what is scanned, of 200", default=60)
    scan_turn: int = col("turns between anonymous and file pages")
    writes: int = col("pages written so far: the version of the last written one")
    readahead: int = col("pages read beyond what was asked, of a file read in sequence", default=32)
    first_slot: int = col("its first row in guest_slot")
    slots: int = col("pages of its swap area")
    slots_used: int = col("pages swapped out by the guest")
    slot_hand: int = col("where the search for a free slot goes on")
    swap_sector: int = col("first sector of its swap area on the virtual disk")
    dirty: int = col("dirty file pages")
    dirty_background: int = col("dirty pages from which on they are written back")
    dirty_limit: int = col("dirty pages from which on writers wait")
    writing: int = col("guest writes of memory pages that are under way")
    leaving: int = col("pages that are given up when they are written")
    thread: int = col("its kernel thread (reclaim, write-back, balloon)", default=-1)
    reclaiming: int = col("1: the kernel thread reclaims")
    flush: int = col("1: the kernel thread writes dirty pages back")
    waiter_first: int = col("first thread + 1 that waits for memory")
    waiter_last: int = col("last thread + 1 that waits for memory")
    balloon: int = col("1: a balloon driver is installed", default=1)
    balloon_target: int = col("pages that the balloon should hold")
    balloon_asked: int = col("target that policies asked for last; the driver acts when it changes")
    ballooned: int = col("pages that it holds")
    balloon_first: int = col("first page + 1 in the balloon")
    balloon_next_ns: int = col("when the balloon may take its next step")
    balloon_waits: int = col("1: the balloon waits for the guest's writes")
    first_object: int = col("its first object")
    objects: int = col("number of its objects")
    pinned: int = col("1: its memory may not be taken (direct device assignment)")
    reservation: int = col("machine memory that it is guaranteed, pages")
    limit: int = col("machine memory that it may have at most, pages")
    shares: int = col("its claim to machine memory beside those of the others")
    resident: int = col("guest pages with a frame")
    swapped: int = col("guest pages in the hypervisor's swap")
    swapping: int = col("guest pages on their way there")
    shared: int = col("guest pages that are write-protected for sharing")
    overhead: int = col("frames of its overhead: monitor, nested or shadow tables")
    overhead_fixed: int = col("overhead that it has from the start, frames")
    first_extent: int = col("its first row in extent")
    large: int = col("2 MiB mappings that it has")
    host_swap_in_pages: int = col("pages the hypervisor read back for it, since the end of the warm-up")
    host_swap_out_pages: int = col("pages the hypervisor swapped out, since the end of the warm-up")
    guest_swap_in_pages: int = col("pages the guest read back from its swap, since the end of the warm-up")
    guest_swap_out_pages: int = col("pages the guest swapped out, since the end of the warm-up")
    double_paging_pages: int = col("guest swap-outs that first had to be read from the host's swap, measured")
    guest_reclaimed_pages: int = col("pages that the guest gave up, since the end of the warm-up")
    host_reclaimed_pages: int = col("frames taken from it (balloon, swap, sharing), since the end of the warm-up")
    file_read_pages: int = col("pages read from files through the guest's cache, since the end of the warm-up")
    file_miss_pages: int = col("those that had to come from disk, since the end of the warm-up")
    disk_reads_avoided: int = col("page reads that another VM's memory answered, since the end of the warm-up")
    cow_breaks: int = col("writes that took a shared page apart, since the end of the warm-up")
    merges: int = col("pages merged, since the end of the warm-up")
    stale_swap_in_pages: int = col("host swap-ins of pages that the guest overwrote at once, measured")
    oom_due: int = col("1: a process is to be killed")
    oom_kills: int = col("processes killed by the guest, since the end of the warm-up")
    oom_deflated_pages: int = col("pages that balloons gave back instead of a kill, since the end of the warm-up")
    guest_faults: int = col("accesses to a page that was not in guest memory, since the end of the warm-up")
    host_faults: int = col("host faults: first touches and swap-ins, since the end of the warm-up")
    compressed_pages: int = col("pages compressed into the pool, since the end of the warm-up")
    decompressed_pages: int = col("pages that came back from the pool for the guest, since the end of the warm-up")
    stalled_ns: int = col("time its vCPUs waited for a host fault, since the end of the warm-up")
    large_backing: int = col("1: an extent of it is backed by 2 MiB at once while free memory is high")
    extents_split_balloon: int = col("2 MiB mappings split because of a page for the balloon, measured")
    extents_split_share: int = col("2 MiB mappings split because a page is shared, measured")
    extents_split_swap: int = col("2 MiB mappings split because a page is swapped out, measured")
    large_extent_ns: int = col("integral of 2 MiB mappings over time, since the end of the warm-up")
    integral_ns: int = col("when the integrals below were last brought up to date")
    ballooned_page_ns: int = col("integral of ballooned pages over time, since the end of the warm-up")
    shared_page_ns: int = col("integral of shared pages over time, since the end of the warm-up")
    swapped_page_ns: int = col("integral of host-swapped pages over time, since the end of the warm-up")
    resident_page_ns: int = col("integral of resident pages over time, since the end of the warm-up")


@record("machine")
class Machine:
    """Machine memory: one row."""

    frames: int = col("frames of the machine; 0: memory is not simulated")
    layers: int = col("layers of the memory stack: hooks are asked of these", default=1)
    fresh: int = col("frames that were ever used: the next one to use")
    free_first: int = col("first frame + 1 on the free list")
    free: int = col("free frames, unused ones included")
    floor: int = col("free frames that only the hypervisor may use")
    reserve: int = col("frames that admission must leave free")
    hypervisor: int = col("frames of the hypervisor itself")
    saved: int = col("frames saved by sharing: guest pages on shared frames less those frames")
    state: int = col("free memory: 0 high, 1 clear, 2 soft, 3 hard, 4 low")
    high: int = col("free frames from which on, and some more, the state is high again")
    clear: int = col("below it the state is clear; not above `soft` where there is no such state")
    soft: int = col("below it the state is soft")
    hard: int = col("below it the state is hard")
    low: int = col("below it the state is low")
    goal: int = col("free frames that reclaim works towards: the threshold above soft, and some more")
    hysteresis: int = col("frames above a threshold before the state improves")
    worse_below: int = col("the state gets worse below this many free frames")
    better_from: int = col("the state improves from this many free frames on", default=1 << 60)
    slots: int = col("pages of the hypervisor's swap area")
    slots_used: int = col("of them in use")
    slot_hand: int = col("where the search for a free slot goes on")
    io_free: int = col("first free row + 1 of mem_io")
    io_fresh: int = col("rows of mem_io ever used")
    waiter_first: int = col("first vCPU + 1 that waits for a frame")
    waiter_last: int = col("last vCPU + 1 that waits for a frame")
    waiters: int = col("vCPUs that wait for a frame")
    freed: int = col("frames freed so far: tells whether reclaim gets on")
    freed_seen: int = col("frames freed when reclaim last looked")
    swapping: int = col("pages on their way out to the hypervisor's swap")
    reclaim_thread: int = col("host thread that pays for swapping, -1: the faulting vCPU", default=-1)
    scan_thread: int = col("host thread that pays for scanning and merging, -1: nobody", default=-1)
    scan_run: int = col("1: scanners for equal pages run (a tunable, as /sys/kernel/mm/ksm/run)", default=1)
    scan_pages: int = col("tunable pages_to_scan of scanners, 0: as their own parameters say")
    scan_sleep_ns: int = col("tunable sleep between scans, 0: as their own parameters say")
    cpu_mhz: int = col("clock of the pCPUs", default=2400)
    pool_frames: int = col("frames of the pool of compressed pages")
    pool_first: int = col("first of them + 1")
    pool_entries: int = col("pages in the pool")
    pool_oldest: int = col("slot + 1 of the entry that came first")
    pool_newest: int = col("slot + 1 of the entry that came last")
    pool_out_pages: int = col("entries written from the pool to the swap area, since the end of the warm-up")
    pool_writing: int = col("slots that the pool is writing to the swap area")
    pool_left: int = col("of them, those whose pages have left the pool meanwhile")
    compress_ns: int = col("CPU time of compressing a page")
    decompress_ns: int = col("CPU time of decompressing a page")
    zero_frame: int = col("frame + 1 of the hypervisor's page of zeros, once a guest page maps it")
    deflate_on_oom: int = col("1: a guest without memory takes pages out of its balloon before it kills a process")
    balance_ns: int = col("period at which balloon targets are asked", default=1_000_000_000)
    flush_ns: int = col("period of a guest's write-back", default=5_000_000_000)
    balloon_chunk: int = col("pages a balloon moves in one step", default=256)
    balloon_rate: int = col("pages a second that a balloon moves", default=12_800)
    overhead_ppm: int = col("overhead that grows with what is mapped, parts per million of pages", default=1953)
    fault_ns: int = col("host fault: exit, allocation, zeroing, mapping")
    cow_break_ns: int = col("taking a shared page apart: exit, copy, mapping")
    share_ns: int = col("comparing and merging two pages")
    scan_ns: int = col("looking at one page while scanning")
    swap_out_ns: int = col("CPU time of swapping a page out")
    swap_in_ns: int = col("CPU time of reading a page back, without the disk")
    invalidate_ns: int = col("invalidation on a vCPU when a mapping of its VM is taken away")
    split_ns: int = col("splitting a 2 MiB mapping")
    balloon_ns: int = col("a page into or out of the balloon")
    guest_scan_ns: int = col("the guest's kernel looks at one page while reclaiming")
