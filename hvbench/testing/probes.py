"""Directed workloads: each shows one thing. Times are long enough for the slowest period of the bundled policies."""

from __future__ import annotations

from typing import Any

import attrs

from hvbench.build import CpuSpec
from hvbench.build_io import FlowSpec, IoSpec
from hvbench.machine import Disk
from hvbench.testing.story import MS, US, Action, MemoryStory, S, Story, VmStory

LONG_NS = 6 * S
ENDLESS_NS = 1_000 * S
"""Computing that outlasts every probe: between two passes of its recording a guest is idle for an instant."""


def hogs(count: int, pcpus: int, horizon_ns: int = LONG_NS, **settings: Any) -> Story:
    """VMs of one vCPU that compute all the time."""
    vms = tuple(VmStory(ends_with_ns=ENDLESS_NS, **settings) for _ in range(count))
    return Story(vms, (), horizon_ns, CpuSpec(pcpus=pcpus))


def crowds(horizon_ns: int = 4 * S) -> list[tuple[str, Story]]:
    """Hosts with more to run than there are pCPUs, each with a name."""
    busy = VmStory(ends_with_ns=ENDLESS_NS)
    wakers = [VmStory(ends_with_ns=900 * US) for _ in range(3)]
    naps = tuple(Action("sleep", v, 0, 50 * US) for v in range(3))
    wide = VmStory(vcpus=4, threads=4, ends_with_ns=ENDLESS_NS)
    wide_work = tuple(Action("compute", 0, t, ENDLESS_NS) for t in range(1, 4))
    return [
        ("six VMs that compute on two pCPUs", hogs(6, 2, horizon_ns)),
        ("one VM that computes among three that wake all the time", Story(
            (*wakers, busy), naps, horizon_ns, CpuSpec(pcpus=1)
        )),
        ("a VM of four vCPUs and three small ones on two pCPUs", Story(
            (wide, busy, busy, busy), wide_work, horizon_ns, CpuSpec(pcpus=2)
        )),
    ]  # fmt: skip


def weights(horizon_ns: int = LONG_NS) -> list[Story]:
    """Three weights on one pCPU; and on two pCPUs, with two vCPUs for each VM."""
    one = hogs(3, 1, horizon_ns)
    one = attrs.evolve(
        one, vms=tuple(attrs.evolve(v, weight=w) for v, w in zip(one.vms, (256, 512, 1024), strict=True))
    )
    wide = tuple(attrs.evolve(vm, vcpus=2, threads=2) for vm in one.vms)
    work = tuple(Action("compute", v, 1, ENDLESS_NS) for v in range(3))
    return [one, attrs.evolve(one, vms=wide, actions=work, cpu=CpuSpec(pcpus=2))]


def caps(horizon_ns: int = LONG_NS) -> list[Story]:
    """A capped VM alone, and one beside another that is not."""
    alone = hogs(1, 2, horizon_ns, cap=30)
    pair = hogs(2, 1, horizon_ns)
    return [alone, attrs.evolve(pair, vms=(attrs.evolve(pair.vms[0], cap=50), pair.vms[1]))]


def reservation(horizon_ns: int = LONG_NS) -> Story:
    """A light VM with a reservation among heavy ones."""
    story = hogs(4, 1, horizon_ns, weight=1024)
    return attrs.evolve(story, vms=(attrs.evolve(story.vms[0], weight=64, reservation=50), *story.vms[1:]))


def realtime(horizon_ns: int = LONG_NS) -> Story:
    """A light VM with a budget among heavy ones."""
    story = hogs(8, 1, horizon_ns, weight=1024)
    first = attrs.evolve(story.vms[0], weight=64, rt_period_ns=40 * MS, rt_budget_ns=10 * MS)
    return attrs.evolve(story, vms=(first, *story.vms[1:]))


def interactive() -> Story:
    """One that mostly sleeps beside three that compute."""
    story = hogs(4, 1, 3 * S)
    vms = (VmStory(ends_with_ns=100 * US), *story.vms[1:])
    return attrs.evolve(story, vms=vms, actions=(Action("sleep", 0, 0, 3 * MS),))


def mixture(horizon_ns: int = 400 * MS) -> Story:
    """Weights, caps, reservations, budgets, affinities, naps and wide VMs at once: some parameter must count here."""
    vms = (
        VmStory(ends_with_ns=700 * US, start_ns=777),
        VmStory(vcpus=3, threads=3, weight=512, ends_with_ns=9 * MS),
        VmStory(cap=40, ends_with_ns=11 * MS),
        VmStory(reservation=30, weight=64, ends_with_ns=13 * MS),
        VmStory(rt_period_ns=20 * MS, rt_budget_ns=5 * MS, ends_with_ns=17 * MS),
        VmStory(affinity=1, ends_with_ns=5 * MS),
    )
    actions = (
        Action("sleep", 0, 0, 300 * US),
        *[Action("compute", 1, t, 3 * MS) for t in range(3)],
        Action("barrier", 1),
        Action("wake", 1, 0, 1),
        Action("sleep", 3, 0, 1 * MS),
    )
    cpu = CpuSpec(pcpus=2, cores_per_llc=1, switch_cost_ns=2_000, cache_refill_ns=30_000, cache_refill_other_ns=60_000)
    return Story(vms, actions, horizon_ns, cpu)


def idling() -> Story:
    """Many pCPUs, most of them idle, and short bursts."""
    vms = tuple(VmStory(vcpus=2, threads=2, ends_with_ns=(3 + i) * 100 * US) for i in range(4))
    actions = tuple(Action("sleep", v, t, (5 + 3 * v + t) * 100 * US) for v in range(4) for t in range(2))
    return Story(vms, actions, 100 * MS, CpuSpec(pcpus=8, threads_per_core=2, cores_per_llc=2))


def wide_host() -> Story:
    """320 busy vCPUs on 256 pCPUs."""
    vms = tuple(VmStory(vcpus=16, threads=16, ends_with_ns=40 * US) for _ in range(20))
    work = tuple(Action("compute", v, t, (30 + t) * US) for v in range(20) for t in range(16))
    return Story(vms, work, 150 * US, CpuSpec(pcpus=256, threads_per_core=2, cores_per_llc=8))


# memory -----------------------------------------------------------------------------------------------------------


def memory_host(
    uses: tuple[int, ...],
    *,
    frames: int,
    cached: int = 0,
    same: bool = False,
    pages: int = 1_000,
    frees_after_ns: int = 0,
    horizon_ns: int = 5 * S,
    again: bool = False,
) -> Story:
    """VMs that write `uses[v]` pages of memory and read `cached` pages of a file once, or over and over (`again`).

    `same`: the pages hold equal contents. `frees_after_ns`: the last VM's process exits then.
    """
    actions = []
    for v, count in enumerate(uses):
        if same:
            actions += [Action("content", v, 0, 0, p, p + 1, True) for p in range(count)]
        actions.append(Action("touch", v, 0, 0, 0, count, not same))
        if cached:
            actions.append(Action("fread", v, 0, 2, 0, cached))
    if frees_after_ns:
        last = len(uses) - 1
        actions += [Action("sleep", last, 0, frees_after_ns), Action("exit", last)]
    vms = tuple(VmStory(pages=pages, ends_with_ns=MS) for _ in uses)
    memory = MemoryStory(
        frames, object_pages=max(*uses, cached, 1), host_swap_pages=3 * pages, guest_swap_pages=pages, balance_ns=S
    )
    return Story(vms, tuple(actions), horizon_ns, CpuSpec(pcpus=2), memory=memory, once=not again)


def pressure(horizon_ns: int = 3 * S) -> Story:
    """Two VMs that go through more memory than there is, one of them mostly cache."""
    return memory_host((500, 300), frames=1_100, cached=400, horizon_ns=horizon_ns, again=True)


def image_readers(frames: int, writes: bool = False, horizon_ns: int = 2 * S) -> Story:
    """Two VMs read the same 300 pages of the base image, one after the other; `writes`: the second then changes them
    while memory is short of what both hold."""
    story = memory_host((1, 400), frames=frames, horizon_ns=horizon_ns)
    actions = [Action("fread", 0, 0, 1, 0, 300), Action("sleep", 1, 0, 500 * MS), Action("fread", 1, 0, 1, 0, 300)]
    if writes:
        actions += [Action("touch", 1, 0, 0, 0, 400, True), Action("fwrite", 1, 0, 1, 0, 100)]
    return attrs.evolve(story, actions=tuple(actions))


def idle_and_busy() -> Story:
    """Two VMs that want 900 pages each of a machine of 1,400: one uses them once, the other all the time."""
    story = memory_host((900, 900), frames=1_400, horizon_ns=180 * S, again=True)
    actions = (Action("touch", 0, 0, 0, 0, 900, True), Action("sleep", 0, 0, ENDLESS_NS))
    again = (Action("touch", 1, 0, 0, 0, 900), Action("sleep", 1, 0, 50 * MS))
    return attrs.evolve(story, actions=(*actions, *again))


def giver_and_taker(horizon_ns: int = 300 * S) -> Story:
    """Two VMs on a machine that is too small for both: after a minute the second frees its pages and sleeps, the first
    goes on to want all of its own."""
    story = memory_host((900, 800), frames=1_700, horizon_ns=horizon_ns, again=True)
    taker = (Action("touch", 0, 0, 0, 0, 900, True), Action("sleep", 0, 0, 50 * MS))
    giver = (Action("touch", 1, 0, 0, 0, 800, True), Action("sleep", 1, 0, 60 * S), Action("exit", 1))
    return attrs.evolve(story, actions=(*taker, *giver, Action("sleep", 1, 0, ENDLESS_NS)))


def tides(horizon_ns: int = 300 * S) -> Story:
    """Two VMs on a machine that is too small for both, one of them busy and idle in turns of about a minute."""
    story = memory_host((900, 900), frames=1_400, horizon_ns=horizon_ns, again=True)
    rises = [Action("touch", 0, 0, 0, 0, 900 - 90 * n, True) for n in range(9)]
    turns = [a for touch in rises for a in (touch, Action("sleep", 0, 0, 6 * S))]
    steady = (Action("touch", 1, 0, 0, 0, 700, True), Action("sleep", 1, 0, 2 * S))
    return attrs.evolve(story, actions=(*turns, Action("sleep", 0, 0, 50 * S), *steady))


def rush() -> Story:
    """Two VMs that write all of their memory at once, faster than anybody can take it away again."""
    return memory_host((950, 950), frames=1_340, horizon_ns=2 * S, again=True)


# storage and network ----------------------------------------------------------------------------------------------


def disk_load(rounds: int, *, once: bool = True, horizon_ns: int = 120 * S) -> Story:
    """Three VMs, four threads each, that read and write far and near, all at once."""
    actions = []
    for r in range(rounds):
        for v in range(3):
            for t in range(4):
                page = (r * 37 + t * 1_009 + v * 131) % 50_000
                actions.append(Action("write" if (r + t) % 3 == 0 else "read", v, t, page, 1 + (r + v) % 8))
    vms = tuple(VmStory(vcpus=2, threads=4) for _ in range(3))
    io = IoSpec(disk=Disk(channels=1, seek_ns=4 * MS), requests=256)
    return Story(vms, tuple(actions), horizon_ns, CpuSpec(pcpus=4), io=io, once=once)


def messages(rounds: int, *, once: bool = True, horizon_ns: int = 60 * S, vms: int = 4) -> Story:
    """VM 0 and VM 1, and VM 2 and VM 0, talk; the last VM only computes."""
    flows = (FlowSpec("tcp", 0, 1), FlowSpec("tcp", 2, 0))
    actions = []
    for r in range(rounds):
        size = (700, 1_448, 9_000, 60_000)[r % 4]
        actions += [Action("message", 0, 0, 0, 0, size), Action("message", 1, 0, 0, 1, 1 + size // 7)]
        actions += [Action("message", 2, 0, 1, 0, size // 2 + 1), Action("message", 0, 0, 1, 1, 100)]
    return Story(
        tuple(VmStory() for _ in range(vms)),
        tuple(actions),
        horizon_ns,
        CpuSpec(pcpus=4),
        flows=flows,
        io=IoSpec(),
        once=once,
    )


def for_parameters(axis: str) -> list[Story]:
    """Workloads on which a parameter of this axis may count, the quickest first."""
    if axis == "scheduler":
        return [mixture(), idling(), interactive(), weights()[1], mixture(4 * S)]
    if axis == "memory":
        return [
            pressure(2 * S),
            memory_host((300, 300), frames=1_000, same=True, horizon_ns=3 * S, again=True),
            memory_host((900, 900), frames=1_930, cached=50, horizon_ns=5 * S, frees_after_ns=S),
            # used to the last frame
            rush(),
            # policies that look at averages over minutes
            tides(),
            memory_host((200, 200), frames=1_930, cached=700, horizon_ns=20 * S),
            # blocks of the base image, shared and taken apart
            image_readers(frames=760, writes=True),
        ]
    if axis == "storage":
        return [disk_load(8), disk_load(6, once=False, horizon_ns=2 * S)]
    return [messages(6), messages(20, once=False, horizon_ns=S)]


def short(axis: str) -> list[Story]:
    """Workloads on which policies of an axis are certainly asked, over in a moment."""
    if axis == "memory":
        story = pressure(500 * MS)
        assert story.memory is not None
        return [attrs.evolve(story, memory=attrs.evolve(story.memory, balance_ns=50 * MS))]
    return {"storage": [disk_load(2)], "switch": [messages(4)]}.get(axis, [])
