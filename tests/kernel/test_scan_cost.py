"""What a scanner of memory costs grows with the pages that it looks at, and with nothing else; counted, not timed."""

from __future__ import annotations

import attrs
import pytest

from hvbench.build_memory import NO_COSTS, GuestMemory
from hvbench.state.records_memory import ANON
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, sleep, stack, touch

PERIODS = 40


def scanning(pages, scan_pages):
    """CPU time of the scan thread, and events: PERIODS periods over one VM with `pages` in memory."""
    ops = [touch(0, 0, pages, write=True), sleep(1000 * SECOND)]
    memory = rig.run(
        [[ops]],
        [GuestMemory(pages + 200)],
        [[(ANON, pages)]],
        # scan_pages a millisecond: only the VM's largest rate bounds it
        stack(("page-sharing", {**rig.FAST_SCAN, "scan_time_ns": MS, "vm_pages_per_s": 1000 * scan_pages})),
        frames=8192,
        horizon_ns=PERIODS * MS + MS // 2,
        pcpus=2,
        costs=attrs.evolve(NO_COSTS, scan_ns=1000),
    )
    thread = int(memory.tables["machine"]["scan_thread"][0])
    return int(memory.tables["vcpu"]["ran_ns"][thread]), int(memory.header["events"][0])


@pytest.mark.parametrize("scan_pages", [10, 20, 80])
def test_the_scan_thread_pays_for_each_page_it_looks_at(scan_pages):
    # every page has contents of its own, so that nothing is merged: only looking costs
    ran_ns, _ = scanning(600, scan_pages)
    assert ran_ns == PERIODS * scan_pages * 1000


def test_it_pays_the_same_however_much_memory_there_is():
    small, large = scanning(300, 40), scanning(2400, 40)
    assert small[0] == large[0]
    # and the simulation serves as many events: a period's scan is one timer and one piece of work
    assert abs(small[1] - large[1]) <= 4


def test_events_of_a_scan_do_not_grow_with_its_pages():
    few, many = scanning(600, 10), scanning(600, 80)
    assert abs(few[1] - many[1]) <= 4
