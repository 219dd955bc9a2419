"""The bundled memory policies do what they claim, each on the smallest host that shows it."""

from __future__ import annotations

import pytest

from hvbench.build_memory import GuestMemory
from hvbench.kernel.guards import E_REFUSED
from hvbench.state.records_memory import ANON, OWN
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, compute, op, sleep, stack, touch

IDLE = [[sleep(1000 * SECOND)]]


def uses(pages: int, cached: int = 0):
    """A VM that touches memory once, and reads a file."""
    return [[touch(0, 0, pages, write=True), op("fread", 1, 0, max(1, cached)), sleep(1000 * SECOND)]]


def admitted(name, sizes, **options):
    memory = rig.run(
        [IDLE] * len(sizes), [GuestMemory(n) for n in sizes], [[(ANON, 10)]] * len(sizes), stack(name), check=False,
        horizon_ns=MS, **options,
    )  # fmt: skip
    return int(memory.header["error"][0]) != E_REFUSED


def test_static_admits_up_to_the_last_page_and_no_further():
    # 16 pages of hypervisor, 4 of fixed overhead a VM, 1,953 ppm of 1,000 pages rounded up: 2 of tables
    assert admitted("static", [1000, 1000], frames=16 + 2 * 1006)
    assert not admitted("static", [1000, 1000], frames=16 + 2 * 1006 - 1)
    assert not admitted("static", [1000, 1000], frames=16 + 2 * 1006, reserve_pages=1)


def test_static_never_reclaims():
    memory = rig.run(
        [uses(900, 50)] * 2,
        [GuestMemory(1000)] * 2,
        [[(ANON, 900), (OWN, 50)]] * 2,
        stack("static"),
        frames=2030,
        host_swap_pages=500,
    )
    vmem = memory.tables["vmem"]
    assert vmem["host_swap_out_pages"].sum() == vmem["ballooned"].sum() == vmem["shared"].sum() == 0


@pytest.mark.parametrize(("ratio", "admits"), [(200, True), (199, False)])
def test_overcommit_admits_up_to_its_ratio(ratio, admits):
    assert admitted(("overcommit", {"ratio_percent": ratio}), [1000, 1000], frames=1000) is admits


def test_overcommit_takes_from_who_holds_most():
    memory = rig.run(
        [uses(600), uses(200)],
        [GuestMemory(1000)] * 2,
        [[(ANON, 600), (OWN, 5)]] * 2,
        stack(("overcommit", {"ratio_percent": 1000})),
        frames=700,
        host_swap_pages=2000,
        horizon_ns=3 * SECOND,
    )
    large, small = memory.tables["vmem"]
    assert large["host_swap_out_pages"] > 100 and small["host_swap_out_pages"] == 0


def test_balloon_frees_what_guests_do_not_need_without_host_swap():
    """Two guests that hold much cache; they leave the host in the state soft, where balloons are fast enough."""
    memory = rig.run(
        [uses(200, 700)] * 2,
        [GuestMemory(1000)] * 2,
        [[(ANON, 200), (OWN, 700)]] * 2,
        stack("balloon", ("overcommit", {"ratio_percent": 1000})),
        frames=1880,
        host_swap_pages=2000,
        horizon_ns=20 * SECOND,
    )
    vmem, machine = memory.tables["vmem"], memory.tables["machine"][0]
    # the guests gave up cache; what they did not touch again stayed with the host when the balloons deflated
    assert vmem["ballooned_page_ns"].sum() > 0 and vmem["host_reclaimed_pages"].sum() > 0
    assert memory.tables["object"]["resident"][1] + memory.tables["object"]["resident"][3] < 1400
    assert machine["free"] >= machine["high"]
    assert vmem["host_swap_out_pages"].sum() == 0


def test_balloon_gives_back_when_memory_is_free_again():
    """The second VM exits after two seconds; the first one's balloon then deflates."""
    second = [[touch(0, 0, 800, write=True), sleep(2 * SECOND), op("exit"), sleep(1000 * SECOND)]]
    memory, loop = rig.host(
        [uses(300, 500), second],
        [GuestMemory(1000)] * 2,
        [[(ANON, 800), (OWN, 500)]] * 2,
        stack("balloon", ("overcommit", {"ratio_percent": 1000})),
        frames=1680,
        host_swap_pages=2000,
        horizon_ns=60 * SECOND,
    )
    most = 0
    while loop.run(20) == 0:
        most = max(most, int(memory.tables["vmem"]["ballooned"].sum()))
    assert most > 0
    rig.conserved(memory)
    machine = memory.tables["machine"][0]
    vmem = memory.tables["vmem"]
    # all that is free beyond the host's goal is given out as room to grow, but for steps too small to take
    sizes = (vmem["pages"] - vmem["ballooned"]).sum()
    room = vmem["resident"].sum() + machine["free"] - machine["goal"]
    assert abs(sizes - room) <= 2 * 1000 // 400 + 2


def test_balloon_leaves_a_vm_its_reservation():
    memory = rig.run(
        [uses(400, 400)] * 2,
        [GuestMemory(1000, reservation_pages=900), GuestMemory(1000)],
        [[(ANON, 400), (OWN, 400)]] * 2,
        stack("balloon", ("overcommit", {"ratio_percent": 1000})),
        frames=1500,
        host_swap_pages=2000,
        horizon_ns=10 * SECOND,
    )
    reserved, other = memory.tables["vmem"]
    assert reserved["ballooned"] <= 100 < other["ballooned"]


def loops_done(name):
    """Passes over a working set that does not quite fit."""
    half = [touch(0, 0, 250, write=True), compute(MS)]
    memory = rig.run(
        [[[*half, *half, touch(0, 250, 150, write=True), compute(MS)]]],
        [GuestMemory(600)],
        [[(ANON, 400)]],
        stack(name),
        frames=420,
        host_swap_pages=2000,
        horizon_ns=SECOND // 2,
    )
    return int(memory.tables["group"]["loops"][0]), int(memory.tables["vmem"]["host_swap_in_pages"][0])


def test_mru_swap_reads_more_back_than_random_victims():
    slow, fast = loops_done("mru-swap"), loops_done(("overcommit", {"ratio_percent": 1000}))
    assert slow[1] / max(1, slow[0]) > fast[1] / max(1, fast[0])


def test_page_sharing_makes_room_that_overcommit_need_not_swap_for():
    same = [[touch(0, 0, 600), sleep(1000 * SECOND)]]

    def swapped(*layers):
        memory = rig.run(
            [same, [[sleep(500 * MS), touch(0, 0, 600, write=True), sleep(1000 * SECOND)]]],
            [GuestMemory(1000)] * 2,
            [[(ANON, 600)]] * 2,
            stack(*layers, ("overcommit", {"ratio_percent": 1000})),
            frames=900,
            host_swap_pages=2000,
            horizon_ns=2 * SECOND,
        )
        return int(memory.tables["vmem"]["host_swap_out_pages"].sum())

    assert swapped(("page-sharing", {**rig.FAST_SCAN, "scan_time_ns": 200 * MS, "period_ns": 20 * MS})) < swapped()
