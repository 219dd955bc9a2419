"""The guest's kernel: lazily given memory, page cache, write-back, swap, replacement, out of memory."""

from __future__ import annotations

from collections import OrderedDict, deque

import numpy as np
import pytest

from hvbench.build_memory import GuestMemory
from hvbench.state.records_memory import ANON, OWN
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, compute, op, sleep, touch


def one(ops, guest, objects, **options):
    """One VM with one thread; its recording ends in a sleep beyond the horizon."""
    memory = rig.run([[[*ops, sleep(1000 * SECOND)]]], [guest], [objects], **options)
    return memory, memory.tables["vmem"][0]


def test_memory_is_given_at_the_first_touch():
    memory, vm = one([op("alloc", 0, 0, 100), touch(0, 10, 5, write=True)], GuestMemory(200), [(ANON, 100)])
    assert vm["resident"] == 5 and vm["host_faults"] == 5
    assert (memory.tables["mapping"]["at"][:100] != 0).sum() == 5


def test_free_keeps_the_frame_and_the_next_user_finds_it():
    ops = [touch(0, 0, 20, write=True), op("free", 0, 0, 20), touch(0, 50, 20, write=True)]
    _, vm = one(ops, GuestMemory(200), [(ANON, 100)])
    assert vm["resident"] == 20 and vm["free"] == 180


def test_exit_frees_only_its_own_process():
    objects = [(ANON, 50)]
    memory = rig.run([[[touch(0, 0, 30, write=True), op("exit"), sleep(1000 * SECOND)]]], [GuestMemory(200)], [objects])
    assert memory.tables["vmem"][0]["free"] == 200
    assert memory.tables["object"]["resident"][0] == 0


def test_a_second_read_of_a_file_does_not_reach_the_disk():
    _, vm = one([op("fread", 0, 0, 50), op("fread", 0, 0, 50)], GuestMemory(300), [(OWN, 50)])
    assert vm["file_read_pages"] == 100 and vm["file_miss_pages"] == 50


def test_reading_in_sequence_reads_ahead():
    ops = [op("fread", 0, p, 1) for p in range(40)]
    ahead = one(ops, GuestMemory(400), [(OWN, 200)])[0]
    alone = one(ops, GuestMemory(400, readahead_pages=0), [(OWN, 200)])[0]
    # with read-ahead the fortieth page was in memory long before; without it each page is a request of its own
    assert ahead.tables["vmem"][0]["file_miss_pages"] > 40 == alone.tables["vmem"][0]["file_miss_pages"]
    assert ahead.header["events"][0] < alone.header["events"][0]


def test_fsync_waits_for_its_file_to_be_clean():
    memory, vm = one([op("fwrite", 0, 0, 40), op("fsync", 0), op("mark_begin")], GuestMemory(400), [(OWN, 50)])
    assert vm["dirty"] == 0 and vm["writing"] == 0
    assert memory.tables["thread"]["mark_ns"][0] > 100_000


def test_dirty_pages_are_written_back_in_time():
    _, vm = one([op("fwrite", 0, 0, 10)], GuestMemory(400), [(OWN, 50)], horizon_ns=2 * SECOND, flush_ns=SECOND)
    assert vm["dirty"] == 0
    _, vm = one([op("fwrite", 0, 0, 10)], GuestMemory(400), [(OWN, 50)], horizon_ns=SECOND // 2, flush_ns=SECOND)
    assert vm["dirty"] == 10


def test_a_writer_of_much_is_held_back():
    memory, vm = one([op("fwrite", 0, 0, 2000), op("mark_begin")], GuestMemory(1000), [(OWN, 2000)])
    assert memory.tables["thread"]["mark_ns"][0] > 0
    assert vm["dirty"] <= vm["dirty_limit"]


@pytest.mark.parametrize("replacement", ["linux", "lru", "clock", "fifo"])
def test_more_than_the_guest_has_goes_to_its_swap_and_comes_back(replacement):
    guest = GuestMemory(100, replacement=replacement, swap_pages=500)
    ops = [touch(0, 0, 200, write=True), touch(0, 0, 200)]
    memory, vm = one(ops, guest, [(ANON, 200)])
    assert memory.tables["thread"]["op"][0] == 2
    assert vm["guest_swap_out_pages"] >= 100 and vm["guest_swap_in_pages"] >= 100
    assert vm["double_paging_pages"] == 0 and vm["oom_kills"] == 0


def test_without_swap_the_guest_kills():
    memory, vm = one([touch(0, 0, 200, write=True)], GuestMemory(100, swap_pages=0), [(ANON, 200)])
    # killed whenever it has filled the guest, and started again 100 ms later, it never gets to its end
    assert 90 <= vm["oom_kills"] <= 100
    assert memory.tables["group"]["loops"][0] == 0


def test_clean_cache_is_given_up_before_anything_is_swapped_or_killed():
    ops = [op("fread", 1, 0, 80), touch(0, 0, 90, write=True)]
    _, vm = one(ops, GuestMemory(120, swap_pages=0), [(ANON, 90), (OWN, 80)])
    assert vm["oom_kills"] == 0 and vm["guest_reclaimed_pages"] >= 50


def test_at_the_seam_processes_exit_and_caches_stay():
    memory = rig.run(
        [[[touch(0, 0, 30, write=True), op("fread", 1, 0, 20), compute(10 * MS)]]],
        [GuestMemory(200)],
        [[(ANON, 50), (OWN, 20)]],
        horizon_ns=55 * MS,
    )
    vm = memory.tables["vmem"][0]
    assert memory.tables["group"]["loops"][0] >= 3
    assert vm["file_miss_pages"] == 20
    # a page written in a later pass has another identity than in an earlier one
    assert -memory.tables["mapping"]["content"][0] > 30 * (memory.tables["group"]["loops"][0] - 1)


# exactly the textbook ----------------------------------------------------------------------------------------


def misses(name: str, pages: list[int], room: int) -> int:
    """Misses of the textbook algorithm on a sequence of single page reads."""
    count = 0
    if name == "lru":
        order: OrderedDict[int, None] = OrderedDict()
        for p in pages:
            if p in order:
                order.move_to_end(p)
                continue
            count += 1
            if len(order) == room:
                order.popitem(last=False)
            order[p] = None
        return count
    queue: deque[int] = deque()
    used: dict[int, bool] = {}
    for p in pages:
        if p in used:
            used[p] = name == "clock"
            continue
        count += 1
        if len(queue) == room:
            while used[queue[0]]:
                used[queue[0]] = False
                queue.rotate(-1)
            del used[queue.popleft()]
        queue.append(p)
        used[p] = False
    return count


@pytest.mark.parametrize("replacement", ["lru", "clock", "fifo"])
def test_replacement_is_the_textbook_s(replacement):
    rng = np.random.default_rng(7)
    pages = [int(p) for p in np.minimum(rng.zipf(1.3, 1500) - 1, 199)]
    guest = GuestMemory(40, replacement=replacement, readahead_pages=0)
    _, vm = one([op("fread", 0, p, 1) for p in pages], guest, [(OWN, 200)])
    assert vm["file_miss_pages"] == misses(replacement, pages, 40)
