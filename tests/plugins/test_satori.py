"""Satori: image reads that another VM's memory answers, sharing from the start, repayment, entitlements."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench import jit
from hvbench.build_memory import GuestMemory
from hvbench.kernel.guards import E_PAGE_STATE
from hvbench.policy import hookimpl
from hvbench.state.records_memory import ANON, IMAGE, OWN
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, compute, op, sleep, stack, touch

END = sleep(1000 * SECOND)


def reads(after_ns: int, *more: Any, pages: int = 50) -> list[Any]:
    return [[sleep(after_ns), op("fread", 0, 0, pages), *more, END]]


def run(programs: list[Any], layers: list[Any], kind: int = IMAGE, **more: Any) -> Any:
    count = len(programs)
    options = {"horizon_ns": 2 * SECOND, **more}
    return rig.run(programs, [GuestMemory(300)] * count, [[(kind, 60), (ANON, 200)]] * count, layers, **options)


def test_what_another_vm_has_in_memory_is_not_read():
    programs = [reads(1), reads(500 * MS), reads(900 * MS)]
    alone, shared = run(programs, stack("static")), run(programs, stack("satori"))
    assert list(alone.tables["vm_io"]["disk_read_requests"][:3]) == [1, 1, 1]
    assert list(shared.tables["vm_io"]["disk_read_requests"][:3]) == [1, 0, 0]
    assert list(shared.tables["vmem"]["disk_reads_avoided"]) == [0, 50, 50]
    assert list(shared.tables["vmem"]["file_miss_pages"]) == [50, 0, 0]
    # 50 frames, of which three VMs' pages are born shared; the first reader's are, too
    assert shared.tables["machine"]["saved"][0] == 100 and list(shared.tables["vmem"]["shared"]) == [50, 50, 50]


def test_reads_that_cross_share_when_they_are_done():
    memory = run([reads(1), reads(1)], stack("satori"))
    assert memory.tables["vmem"]["disk_reads_avoided"].sum() == 0
    assert memory.tables["machine"]["saved"][0] == 50
    assert memory.slots[3].own["own"]["late_shared_pages"][0] == 50


@pytest.mark.parametrize("kind", [OWN])
def test_own_files_are_read_by_each_vm(kind):
    memory = run([reads(1), reads(500 * MS)], stack("satori"), kind)
    assert memory.tables["vmem"]["disk_reads_avoided"].sum() == memory.tables["machine"]["saved"][0] == 0


def test_a_block_that_a_vm_wrote_is_its_own():
    """The first VM overwrites ten pages and drops nothing; the second finds only the other forty."""
    first = reads(1, op("fwrite", 0, 0, 10))
    memory = run([first, reads(500 * MS)], stack("satori"))
    assert memory.tables["vmem"]["disk_reads_avoided"][1] == 40


def test_half_of_a_read_can_come_from_memory_and_the_run_is_split():
    memory = run([reads(1, pages=20), reads(500 * MS)], stack("satori"))
    have = int(memory.tables["vmem"]["file_miss_pages"][0])
    avoided, missed = (int(memory.tables["vmem"][n][1]) for n in ("disk_reads_avoided", "file_miss_pages"))
    assert avoided == have and avoided + missed >= 50


def test_a_write_copies_and_other_readers_keep_the_block():
    late = [[sleep(SECOND), op("fread", 0, 0, 50), END]]
    memory = run([reads(1, sleep(600 * MS), op("fwrite", 0, 0, 50)), reads(500 * MS), late], stack("satori"))
    assert memory.tables["vmem"]["cow_breaks"][0] == 50
    # the second VM's pages answer the third one's reads, though the first one read them in
    assert list(memory.tables["vmem"]["disk_reads_avoided"]) == [0, 50, 50]


def test_who_breaks_sharing_while_memory_is_short_repays_with_clean_cache():
    breaker = [
        [op("fread", 0, 0, 50), op("fread", 2, 0, 60), sleep(600 * MS), touch(1, 0, 100, write=True),
         op("fwrite", 0, 0, 20), END]
    ]  # fmt: skip
    other = [[sleep(100 * MS), op("fread", 0, 0, 50), END]]
    memory = rig.run(
        [breaker, other], [GuestMemory(300)] * 2, [[(IMAGE, 60), (ANON, 200), (OWN, 60)]] * 2,
        stack("satori"), frames=320, horizon_ns=SECOND, free_states_ppm=(900_000, 300_000, 20_000, 10_000),
    )  # fmt: skip
    repaid = int(memory.slots[3].own["own"]["repaid_pages"][0])
    assert repaid == int(memory.tables["vmem"]["cow_breaks"][0]) == 20
    # the file that was read once, and never written, paid; nothing of it was written to a disk
    assert memory.tables["object"]["resident"][2] <= 60 - 20
    assert memory.tables["vmem"]["guest_swap_out_pages"][0] == 0


def test_the_sharer_is_taken_from_last():
    """Equal sizes; two VMs share 150 pages each, the third has 150 of its own: it pays least for a page."""
    image, own = (
        [[op("fread", 0, 0, 150), touch(1, 0, 50, write=True), END]],
        [[op("fread", 2, 0, 150), touch(1, 0, 50, write=True), END]],
    )
    memory = rig.run(
        [image, image, own], [GuestMemory(300)] * 3, [[(IMAGE, 150), (ANON, 60), (OWN, 150)]] * 3,
        stack(("satori", {"entitlement_period_ns": 100 * MS})), horizon_ns=SECOND,
    )  # fmt: skip
    from hvbench.state.proxies import HostProxy

    proxy = HostProxy(memory, 3, HostProxy(memory, -1))
    prices = [rig.policy("satori").mem_idle_price(proxy, m) for m in range(3)]
    assert prices[0] == prices[1] > prices[2]
    assert list(memory.slots[3].own["vmem"]["entitled_ppm"]) == [75_000_000, 75_000_000, 0]


def test_an_answer_that_has_not_the_block_ends_the_cell():
    module = types.ModuleType("liar")

    def mem_image_read(host: Any, vm: int, page: int) -> int:
        return 0 if page != 0 else -1

    mem_image_read.__module__ = module.__name__
    module.mem_image_read = hookimpl(mem_image_read)  # type: ignore[attr-defined]
    memory = rig.run([reads(1), reads(1)], [GuestMemory(300)] * 2, [[(IMAGE, 60)]] * 2, stack(module), check=False)
    assert rig.error(memory)[0] == E_PAGE_STATE


OPERATIONS = st.one_of(
    st.builds(lambda a, n: op("fread", 0, a, n), st.integers(0, 30), st.integers(1, 30)),
    st.builds(lambda a, n: op("fwrite", 0, a, n), st.integers(0, 50), st.integers(1, 10)),
    st.builds(lambda a, n, w: touch(1, a, n, write=w), st.integers(0, 40), st.integers(1, 40), st.booleans()),
    st.builds(lambda n: sleep(n * MS), st.integers(1, 20)),
    st.builds(lambda p: op("content", 1, p, 7, COMMON), st.integers(0, 60)),
)


@settings(max_examples=12)
@given(st.lists(st.lists(OPERATIONS, min_size=1, max_size=12), min_size=2, max_size=3), st.integers(90, 400))
def test_memory_is_conserved_whatever_guests_do(programs, frames):
    swap = ("overcommit", {"ratio_percent": 100_000})
    memory, loop = rig.host(
        [[[*ops, compute(MS)]] for ops in programs],
        [GuestMemory(90)] * len(programs), [[(IMAGE, 60), (ANON, 80)]] * len(programs),
        stack("satori", "compression", swap), frames=frames, host_swap_pages=400, horizon_ns=60 * MS, balance_ns=5 * MS,
    )  # fmt: skip
    while loop.run(150) == 0:
        rig.conserved(memory)
    assert int(memory.header["error"][0]) == 0, rig.error(memory)
    rig.conserved(memory)


def test_both_modes_agree(kernel):
    if jit.interpreted():
        pytest.skip("this process runs interpreted")
    found = [run([reads(1), reads(1), reads(500 * MS)], stack("satori"), interpreted=mode) for mode in (True, False)]
    assert len({m.tables["page"].tobytes() for m in found}) == len({int(m.header["events"][0]) for m in found}) == 1
    assert found[0].tables["axis"]["digest"].tolist() == found[1].tables["axis"]["digest"].tolist()


def test_blocks_that_are_in_memory_at_the_start_are_shared():
    """More of them than a hook may ask for at once."""
    import numpy as np

    from hvbench.build_memory import BaseImage, MemoryObject

    count = 2600
    image = BaseImage(
        (MemoryObject(IMAGE, count, 0, identity=5),),
        np.arange(count), np.arange(1, count + 1, dtype=np.uint64), np.ones(count, np.int64),
    )  # fmt: skip
    memory = rig.run(
        [[[END]]] * 3, [GuestMemory(count + 500, image=image)] * 3, [[]] * 3, stack("satori"),
        frames=3 * count + 2000, horizon_ns=200 * MS,
    )  # fmt: skip
    assert memory.tables["machine"]["saved"][0] == 2 * count
