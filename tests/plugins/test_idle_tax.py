"""Idle-memory tax: prices and parts by hand, the sampler's estimate, and idle VMs that give up first."""

from __future__ import annotations

import pytest

from hvbench.build_memory import GuestMemory
from hvbench.kernel.allocation import divide_memory, held_at
from hvbench.state.proxies import HostProxy
from hvbench.state.records_memory import ANON
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, compute, policy, sleep, stack, touch

MIB = 256


def divided(*, resident, active, tax, free=0, state=0, shares=None, lend=-1, **vm):
    """What `divide_memory` gives VMs of 1,000 pages."""
    n = len(resident)
    memory, _ = rig.host(
        [[[sleep(SECOND)]]] * n, [GuestMemory(1000)] * n, [[(ANON, 10)]] * n, stack("idle-tax"), frames=8000
    )
    table, machine = memory.tables["vmem"], memory.tables["machine"]
    table["resident"] = resident
    if shares:
        table["shares"] = shares
    for name, values in vm.items():
        table[name] = values
    machine["goal"], machine["free"], machine["state"], machine["swapping"] = 100, free, state, 0
    host = HostProxy(memory, 5 - 5 + rig.schema.FIRST_MEMORY_SLOT, HostProxy(memory, -1))
    for m, pages in enumerate(active):
        host.vmem[m].active_pages = pages
    divide_memory(host, tax, lend, 0)
    return [host.vmem[m].fair_pages for m in range(n)]


def test_what_a_vm_holds_at_a_level_follows_the_taxed_price():
    """rho = S / (P (f + k (1 - f))): at equal prices P2 - P1 = (1 - 1/k) (a2 - a1)."""
    one = 1 << 20
    assert held_at(1, 100, 50 * one, 75) == 50
    assert held_at(1, 100, 100 * one, 75) == 100
    assert held_at(1, 100, 500 * one, 75) == 200
    for pages, active in ((200, 100), (150, 20)):
        level = (active + 4 * (pages - active)) * one
        assert held_at(1, active, level, 75) == pages


def test_two_vms_meet_where_both_pay_the_same():
    """T = 1,400 of two VMs of 1,000: P1 = T/2 + (3/8)(a1 - a2) with a tax of 75 %, half each without."""
    held_back = {"ballooned": [300, 300], "resident": [700, 700], "active": [40, 680]}
    assert divided(tax=75, free=100, **held_back) == pytest.approx([460, 940], abs=2)
    assert divided(tax=0, free=100, **held_back) == pytest.approx([700, 700], abs=2)
    # and stay there
    settled = {"ballooned": [540, 60], "resident": [460, 940], "active": [40, 680]}
    assert divided(tax=75, free=100, **settled) == pytest.approx([460, 940], abs=2)


def test_what_a_vm_leaves_unused_is_lent_to_those_who_use_all_of_theirs():
    # 400 more than its goal is free; the first VM has 400 and uses no more, the second uses all of its part
    host = {"tax": 0, "free": 500, "ballooned": [300, 300], "resident": [400, 700]}
    lent = divided(active=[400, 700], lend=10, **host)
    assert lent == pytest.approx([750, 1000], abs=2)
    # one with idle memory gets nothing that way
    assert divided(active=[400, 100], lend=10, **host) == pytest.approx([750, 750], abs=2)
    assert divided(active=[400, 700], lend=-1, **host) == pytest.approx([750, 750], abs=2)
    # with room for everybody nobody is held back
    assert divided(tax=75, free=1400, ballooned=[300, 300], resident=[400, 300], active=[9, 9]) == [1000, 1000]


def test_shares_reservations_and_limits_bound_the_parts():
    short = {"resident": [800, 800], "free": 0, "state": 2, "tax": 0, "active": [800, 800]}
    assert divided(**short) == pytest.approx([750, 750], abs=1)
    assert divided(shares=[3, 1], **short) == pytest.approx([800, 700], abs=1)
    assert divided(reservation=[0, 790], **short) == pytest.approx([710, 790], abs=1)
    assert divided(limit=[400, 1000], **short) == [400, 800]


def test_a_pinned_vm_keeps_what_it_has():
    parts = divided(resident=[800, 800], active=[0, 800], tax=75, state=2, pinned=[1, 0])
    assert parts == pytest.approx([800, 700], abs=1)


def cells(tau, second_share, horizon=180, seed=1):
    """An idle VM and a busy one, both of 8 MiB, on memory for about 11 MiB of them."""
    fill = [touch(0, p, 100, write=True) for p in range(0, 1900, 100)]
    idle = [*fill, *[x for _ in range(300) for x in (touch(0, 0, 80), sleep(SECOND))]]
    busy = [*fill, *[x for _ in range(300) for x in (touch(0, 0, second_share), compute(MS), sleep(SECOND))]]
    memory, loop = rig.host(
        [[idle], [busy]],
        [GuestMemory(2000), GuestMemory(2000)],
        [[(ANON, 2000)], [(ANON, 2000)]],
        stack(("idle-tax", {"tax_percent": tau, "sample_ns": 5 * SECOND, "period_ns": 3 * SECOND, "least_percent": 10}),
              ("overcommit", {"ratio_percent": 1000})),
        frames=3200,
        host_swap_pages=4000,
        horizon_ns=horizon * SECOND,
        seed=seed,
    )  # fmt: skip
    while loop.run(1000) == 0:
        pass
    assert rig.error(memory)[0] == 0
    rig.conserved(memory)
    return memory


def test_the_tax_takes_from_the_idle_vm_and_without_it_both_hold_the_same():
    taxed = cells(75, 1200).tables["vmem"]
    plain = cells(0, 1200).tables["vmem"]
    sizes = [list(v["pages"] - v["ballooned"]) for v in (taxed, plain)]
    assert abs(sizes[1][0] - sizes[1][1]) < 20
    # as the paper's equation has it, within what sampling 100 of 2,000 pages can tell
    assert sizes[0][0] == pytest.approx(sum(sizes[0]) / 2 - 3 / 8 * (1200 - 80), rel=0.1)


def test_the_sampler_counts_what_is_touched_and_costs_little():
    memory = cells(75, 1000)
    vmem = memory.tables["vmem"]
    own = memory.slots[rig.schema.FIRST_MEMORY_SLOT].own["vmem"]
    for m, share in ((0, 80 / 2000), (1, 1000 / 2000)):
        # 100 of 2,000 pages: a standard deviation of 5 % at a half; the largest of three averages reads high
        assert share - 0.12 < own["slow"][m] < share + 0.15
        assert own["watching"][m] <= 100 and own["periods"][m] >= 30
    watched = (memory.tables["page"]["flags"] & (1 << 16)) != 0
    assert watched.sum() <= 200
    assert vmem["host_faults"].sum() > 0


def test_the_price_falls_with_idle_pages():
    module = policy("idle-tax")
    memory, _ = rig.host([[[sleep(SECOND)]]] * 2, [GuestMemory(1000)] * 2, [[(ANON, 10)]] * 2, stack("idle-tax"))
    host = HostProxy(memory, rig.schema.FIRST_MEMORY_SLOT, HostProxy(memory, -1))
    memory.tables["vmem"]["resident"] = 400
    memory.tables["vmem"]["shares"] = 100
    for m, share in enumerate((0.1, 0.4)):
        own = host.vmem[m]
        own.periods, own.watching, own.touched, own.slow, own.fast = 3, 100, 0, share, 0.0
    # k = 4: 100 + 4 x 300, and 400 all active
    assert module.mem_idle_price(host, 0) == 100 * 10**9 // 1300
    assert module.mem_idle_price(host, 1) == 100 * 10**9 // 400
