"""File pages that were mapped when a recording began are in memory from the start: which, where, how many, and what
is in them."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.build_memory import BaseImage, GuestMemory, MemoryObject
from hvbench.kernel.page_lists import page_identity
from hvbench.state.proxies import HostProxy
from hvbench.state.records_memory import ANON, IMAGE, LISTS, OWN, P_DIRTY, P_FILE, REPLACEMENTS
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import SECOND, op, sleep, stack

IDLE = [[sleep(1000 * SECOND)]]
READ = [[op("fread", 0, 0, 20), sleep(1000 * SECOND)]]


def rows_of(memory, o):
    x = memory.tables["object"][o]
    return memory.tables["mapping"][int(x["first"]) : int(x["first"] + x["pages"])]


def cached(memory, o):
    """Which pages of an object are in guest memory."""
    return [int(p) for p in np.flatnonzero(rows_of(memory, o)["at"] > 0)]


def identities(memory, o):
    proxy = HostProxy(memory, -1)
    return [page_identity(proxy, int(at) - 1) if at > 0 else None for at in rows_of(memory, o)["at"]]


def by_age(memory, m):
    """Rows in table mapping of a VM's file pages, the next one to be given up last."""
    found = []
    for k in range(m * LISTS, (m + 1) * LISTS):
        g = int(memory.tables["page_list"]["first"][k])
        while g:
            found.append(int(memory.tables["page"]["owner"][g - 1]) - 1)
            g = int(memory.tables["page"]["next"][g - 1])
    return found


def kernel_and_file(kernel, file):
    """A base image with so many pages of the kernel, and of a file (identity 1000) of 100 pages."""
    objects = (MemoryObject(ANON, kernel, 0), MemoryObject(IMAGE, 100, 0, identity=1000))
    content = np.arange(1, kernel + file + 1, dtype=np.uint64)
    common = np.r_[np.zeros(kernel, bool), np.ones(file, bool)]
    return BaseImage(objects, np.r_[np.arange(kernel), kernel + np.arange(file)], content, common)


def test_warm_pages_are_never_read_from_disk():
    options = {"horizon_ns": SECOND}
    cold = rig.run([READ], [GuestMemory(400)], [[(OWN, 20)]], **options)
    assert cold.tables["vmem"]["file_miss_pages"][0] == 20
    some = rig.run([READ], [GuestMemory(400)], [[(OWN, 20)]], warm=(((0, 0, 5), (0, 10, 5)),), **options)
    assert some.tables["vmem"]["file_miss_pages"][0] == 10
    warm = rig.run([READ], [GuestMemory(400)], [[(OWN, 20)]], warm=(((0, 0, 20),),), **options)
    assert warm.tables["vmem"]["file_miss_pages"][0] == 0 and warm.tables["vmem"]["file_read_pages"][0] == 20


def test_warm_pages_are_clean_and_in_the_vm_that_has_the_object():
    warm = (((0, 0, 3),), ((1, 2, 4),))
    memory, _ = rig.host([IDLE] * 2, [GuestMemory(400)] * 2, [[(OWN, 8), (IMAGE, 8)]] * 2, warm=warm)
    rig.conserved(memory)
    assert [cached(memory, o) for o in range(4)] == [[0, 1, 2], [], [], [2, 3, 4, 5]]
    flags = memory.tables["page"]["flags"][memory.tables["page"]["owner"] > 0]
    assert (flags & P_FILE != 0).all() and not (flags & P_DIRTY).any()
    assert list(memory.tables["vmem"]["resident"]) == [3, 4]


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_warm_pages_stand_behind_those_of_the_base_image_in_the_list_s_order(replacement):
    vms = [GuestMemory(1000, replacement=replacement, image=kernel_and_file(40, 10))]
    # the first is the image's file, of which pages 0 to 9 are in memory; ranges overlap, and one passes the end
    memory, _ = rig.host([IDLE], vms, [[(IMAGE, 100), (OWN, 30)]], warm=(((1, 20, 30), (0, 5, 10), (1, 18, 4)),))
    rig.conserved(memory)
    image, own = (int(memory.tables["object"]["first"][o]) for o in (1, 2))
    wanted = [*range(own + 20, own + 30), *range(image + 10, image + 15), own + 18, own + 19]
    assert by_age(memory, 0) == [*range(image, image + 10), *wanted]


@pytest.mark.parametrize("with_image", [False, True])
def test_warm_pages_leave_the_guest_its_high_watermark(with_image):
    vms = [GuestMemory(400, image=kernel_and_file(40, 60) if with_image else None)]
    memory, _ = rig.host([IDLE], vms, [[(OWN, 500), (OWN, 500)]], warm=(((1, 100, 200), (0, 0, 500)),))
    rig.conserved(memory)
    vm = memory.tables["vmem"][0]
    assert vm["free"] == vm["high"] + 1
    first = 2 if with_image else 0
    room = 400 - (100 if with_image else 0) - int(vm["high"]) - 1
    assert cached(memory, first + 1) == list(range(100, 300))
    assert cached(memory, first) == list(range(room - 200))


def test_warm_pages_without_a_frame_begin_in_the_host_s_swap():
    vms = [GuestMemory(400)] * 2
    warm = (((0, 0, 100),),) * 2
    memory, _ = rig.host([IDLE] * 2, vms, [[(OWN, 100)]] * 2, warm=warm, frames=150, host_swap_pages=500)
    rig.conserved(memory)
    assert memory.tables["vmem"]["resident"].sum() == 150 - 16 - 8
    assert memory.tables["vmem"]["swapped"].sum() == 200 - 126


@pytest.mark.parametrize("kind", [IMAGE, OWN])
def test_a_warm_page_has_the_identity_that_it_would_have_when_read(kind):
    vms, objects = [GuestMemory(400)] * 2, [[(ANON, 3), (kind, 20)]] * 2
    programs = [[[op("fread", 1, 0, 20), sleep(1000 * SECOND)]]] * 2
    read = rig.run(programs, vms, objects, horizon_ns=SECOND)
    warm, _ = rig.host([IDLE] * 2, vms, objects, warm=(((1, 0, 20),),) * 2)
    for o in (1, 3):
        assert identities(warm, o) == identities(read, o)
        assert len(set(identities(warm, o))) == 20
    common = set(identities(warm, 1)) & set(identities(warm, 3))
    assert len(common) == (20 if kind == IMAGE else 0)


def test_a_warm_page_with_recorded_contents_has_those():
    vms = [GuestMemory(1000, image=kernel_and_file(40, 100))]
    full, _ = rig.host([IDLE], vms, [[(IMAGE, 100)]])
    assert identities(full, 1) == list(range(41, 141))
    # too small for all file pages of the image
    small = [GuestMemory(130, image=kernel_and_file(40, 100))]
    memory, _ = rig.host([IDLE], small, [[(IMAGE, 100)]], warm=(((0, 0, 100),),))
    rig.conserved(memory)
    known = [x for x in identities(memory, 1) if x is not None]
    assert known == list(range(41, 41 + len(known))) and len(known) < 100


@pytest.mark.parametrize(("kind", "saved"), [(IMAGE, 20), (OWN, 0)])
def test_sharing_merges_a_warm_page_with_the_same_page_read_by_another_vm(kind, saved):
    fast = stack(("page-sharing", rig.FAST_SCAN))
    memory = rig.run(
        [IDLE, READ], [GuestMemory(400)] * 2, [[(kind, 20)]] * 2, fast, warm=(((0, 0, 20),), ()), horizon_ns=SECOND
    )
    assert cached(memory, 0) == cached(memory, 1) == list(range(20))
    assert memory.tables["machine"]["saved"][0] == saved
