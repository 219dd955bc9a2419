"""What a cell's memory side takes: at most 24 bytes a touched guest page and 24 bytes a frame in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvbench.build_memory import GuestMemory
from hvbench.jit import interpreted
from hvbench.readout import memory_metrics, memory_state_bytes, policy_state_bytes, rows_in_use
from hvbench.state import schema
from hvbench.state.records_memory import ANON, OWN
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import COMMON, MS, SECOND, op, sleep, stack, touch

FOREVER = sleep(1000 * SECOND)
SWAP = ("overcommit", {"ratio_percent": 10_000})


def bytes_held(memory):
    """Bytes of the used rows, guest pages that were used, frames in use; not by the readout, to check it."""
    held = 0
    for name in ("page", "mapping", "page_frame", "guest_slot", "host_slot", "extent"):
        table = memory.tables[name]
        held += sum(row.tobytes().strip(b"\0") != b"" for row in table) * table.dtype.itemsize
    pages = int(np.count_nonzero(memory.tables["page"]["flags"] | memory.tables["page"]["owner"]))
    return held, pages, int((memory.tables["page_frame"]["refs"] != 0).sum())


def test_the_strides_that_the_documentation_states():
    size = {name: schema.TABLES[name].layout.stride for name in ("page", "mapping", "page_frame")}
    assert size == {"page": 24, "mapping": 8, "page_frame": 8}
    assert schema.TABLES["guest_slot"].layout.stride == schema.TABLES["host_slot"].layout.stride == 4


@pytest.mark.parametrize(("vms", "frames"), [(1, 8192), (3, 2600), (3, 2050)])
def test_bytes_of_a_cell_by_its_pages_and_frames(vms, frames):
    """One VM with room, and three under memory overcommit 1.2 and 1.6, with pages in the hypervisor's swap."""
    ops = [touch(0, 0, 900, write=True), op("fread", 1, 0, 100), sleep(5 * MS), touch(0, 0, 900), FOREVER]
    memory = rig.run(
        [[ops]] * vms,
        [GuestMemory(1200, swap_pages=500)] * vms,
        [[(ANON, 900), (OWN, 4000)]] * vms,
        stack(SWAP),
        frames=frames,
        host_swap_pages=4000,
        horizon_ns=20 * SECOND,
        interpreted=interpreted(),
    )
    held, pages, in_use = bytes_held(memory)
    if vms > 1:
        assert memory.tables["vmem"]["swapped"].sum() > 100
    assert vms * 1000 <= pages
    assert held <= 24 * pages + 24 * in_use
    assert memory_state_bytes(memory) == held == memory_metrics(memory)["memory_state_bytes"]


def test_bytes_of_a_cell_whose_pages_are_shared():
    contents = [op("content", 0, p, 1 + p % 600, COMMON) for p in range(600)]
    ops = [touch(0, 0, 600, write=True), *contents, FOREVER]
    memory = rig.run(
        [[ops]] * 2,
        [GuestMemory(1000)] * 2,
        [[(ANON, 600)]] * 2,
        stack(("page-sharing", rig.FAST_SCAN)),
        frames=4096,
        horizon_ns=100 * MS,
    )
    held, pages, in_use = bytes_held(memory)
    assert pages - in_use >= 500
    # rows of frames that sharing freed again are kept: what counts is the most frames that were in use at once
    assert held <= 24 * pages + 24 * int(memory.tables["machine"]["fresh"][0])
    # the policy declared five words a guest page, and three for itself
    assert policy_state_bytes(memory) >= 5 * 8 * 2000


def test_rows_in_use_counts_rows_that_are_not_zeros():
    for name in ("page", "mapping", "guest_slot"):
        table = schema.TABLES[name].layout.zeros(10)
        field = table.dtype.names[-1]
        table[field][[2, 7]] = 1
        assert rows_in_use(table) == 2


def test_pages_that_are_never_touched_take_next_to_nothing():
    """A VM of 64 GiB that uses ten pages: its tables would take 670 MB."""
    program = """
import numpy as np
from hvbench.build_memory import GuestMemory
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import touch, sleep

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

pages = 1 << 24
rig.run([[[touch(0, 0, 5, write=True)]]], [GuestMemory(100)], [[(0, 10)]], horizon_ns=10**6, check=False)
before = resident()
memory, loop = rig.host([[[touch(0, 0, 10, write=True), sleep(10**12)]]], [GuestMemory(pages)], [[(0, pages)]],
                        frames=pages + 4096, horizon_ns=10**6)
while loop.run(1000) == 0:
    pass
assert memory.tables["vmem"]["resident"][0] == 10
print(resident() - before, sum(memory.tables[x].nbytes for x in ("page", "mapping", "page_frame")))
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs Linux's /proc")
    env = {**os.environ, "HVBENCH_INTERPRET": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=env, capture_output=True, text=True, check=True, timeout=120
    )
    grown, tables = map(int, done.stdout.split())
    assert tables > 600_000_000
    # a huge page of 2 MiB for each end of each table, at most, where the system gives them unasked
    assert grown < 40_000_000
