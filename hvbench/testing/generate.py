"""Random stories for each axis. Small on purpose: what breaks a policy is an order of events, not their number."""

from __future__ import annotations

import attrs

from hvbench.build import CpuSpec, FaultSpec
from hvbench.build_io import FlowSpec, IoSpec
from hvbench.machine import Disk, Nic
from hvbench.testing.dice import Dice
from hvbench.testing.story import MS, Action, MemoryStory, Story, VmStory

COSTS_NS = (0, 0, 1, 7, 300, 2_500)
MESSAGES = (1, 700, 1448, 9_000, 60_000)


def story_for(axis: str, dice: Dice) -> Story:
    """A story that asks the policies of an axis much."""
    if axis == "scheduler":
        what = dice.integer(0, 7)
        if what == 0:
            return io_story(dice, messages=True, disk=True)
        return memory_story(dice) if what == 1 else cpu_story(dice)
    if axis == "memory":
        return memory_story(dice)
    return io_story(dice, messages=axis == "switch", disk=axis == "storage")


def span(dice: Dice) -> int:
    """A length of time from nanoseconds to a tenth of a millisecond."""
    return dice.integer(1, dice.pick((20, 2_000, 60_000)))


def cpu_story(dice: Dice) -> Story:
    """Threads that compute, sleep, wake each other, lock, meet; pCPUs and guests that go."""
    vms = []
    actions: list[Action] = []
    for v in range(dice.integer(1, 4)):
        threads = dice.integer(1, 4)
        vms.append(
            VmStory(
                vcpus=dice.integer(1, 3),
                threads=threads,
                weight=dice.pick((256, 1, 512)),
                cap=dice.pick((0, 0, 0, 30, 150)),
                affinity=dice.pick((0, 0, 0, 1)),
                start_ns=dice.pick((0, 0, 1, 777, 20_000)),
                ends_with_ns=dice.integer(2_000, 20_000),
            )
        )
        for _ in range(dice.integer(1, 8)):
            kind = dice.pick(("compute", "compute", "sleep", "outside", "wake", "lock", "barrier", "mark"))
            b = dice.integer(0, 1) if kind == "lock" else dice.integer(0, 500) if kind == "compute" else 0
            a = dice.integer(0, threads - 1) if kind == "wake" else span(dice)
            actions.append(Action(kind, v, dice.integer(0, threads - 1), a, b))
    horizon_ns = dice.integer(20_000, 300_000)
    pcpus = dice.integer(1, 4)
    cpu = CpuSpec(
        pcpus=pcpus,
        threads_per_core=dice.integer(1, 2),
        cores_per_llc=dice.integer(1, 2),
        switch_cost_ns=dice.pick(COSTS_NS),
        cache_refill_ns=dice.pick(COSTS_NS),
        cache_refill_other_ns=dice.pick(COSTS_NS),
        cache_refill_tau_ns=dice.pick((1, 1_000, 50_000)),
        guest_slice_ns=dice.pick((3_000_000, 300, 2_000, 20_000)),
        wake_cost_ns=dice.pick(COSTS_NS),
        halt_cost_ns=dice.pick(COSTS_NS),
        ipi_cost_ns=dice.pick(COSTS_NS),
        ple_window_ns=dice.pick((0, 0, 500)),
        guest_spin_ns=dice.pick((0, 0, 1_000)),
        host_tick_ns=dice.pick((0, 0, 20_000)),
        host_tick_cost_ns=dice.pick(COSTS_NS),
    )
    faults = tuple(fault(dice, len(vms), pcpus, horizon_ns) for _ in range(dice.pick((0, 0, 0, 1, 2))))
    return Story(
        tuple(vms),
        tuple(actions),
        horizon_ns,
        cpu,
        warmup_ns=dice.pick((0, horizon_ns // 3)),
        seed=dice.integer(0, 1 << 30),
        faults=faults,
    )


def fault(dice: Dice, vms: int, pcpus: int, horizon_ns: int) -> FaultSpec:
    """A guest that dies, or a pCPU (any but the first) that goes, for good or for a while."""
    kind = dice.pick(("guest", "pcpu")) if pcpus > 1 else "guest"
    target = dice.integer(0, vms - 1) if kind == "guest" else dice.integer(1, pcpus - 1)
    at_ns = dice.integer(1, horizon_ns)
    return FaultSpec(kind, target, at_ns, dice.pick((0, at_ns + 1, at_ns + 5_000)))


def io_story(dice: Dice, *, messages: bool, disk: bool) -> Story:
    """VMs that talk to each other and read and write; passed once, or over and over."""
    count = dice.integer(1, 3)
    flows = []
    if messages:
        for _ in range(dice.integer(1, 3)):
            a = dice.integer(0, count - 1)
            b = dice.integer(0, count - 1)
            flows.append(FlowSpec("unix" if a == b else dice.pick(("tcp", "tcp", "udp")), a, b))
    actions = []
    for _ in range(dice.integer(1, 12)):
        what = dice.pick(("message",) * (3 * messages) + ("disk",) * (3 * disk) + ("compute", "sleep"))
        vm = dice.integer(0, count - 1)
        if what == "message":
            f = dice.integer(0, len(flows) - 1)
            end = dice.integer(0, 1)
            actions.append(Action("message", (flows[f].a, flows[f].b)[end], 0, f, end, dice.pick(MESSAGES)))
        elif what == "disk":
            kind = dice.pick(("read", "write"))
            actions.append(Action(kind, vm, dice.integer(0, 2), dice.integer(0, 200), dice.integer(1, 40)))
        else:
            actions.append(Action(what, vm, 0, dice.integer(1, 2 * MS)))
    io = IoSpec(
        disk=Disk(channels=dice.integer(1, 3), seek_ns=dice.pick((0, 4 * MS))),
        nic=Nic(count=dice.integer(1, 2), latency_ns=dice.pick((0, 30_000)), queue_frames=dice.integer(1, 300)),
        requests=64,
    )
    return Story(
        tuple(VmStory(threads=1 if messages else 3, vcpus=dice.integer(1, 2)) for _ in range(count)),
        tuple(actions),
        dice.integer(1, 60) * MS,
        CpuSpec(pcpus=dice.integer(1, 3)),
        seed=dice.integer(0, 1 << 30),
        flows=tuple(flows),
        io=io,
        once=dice.pick((False, True)),
    )


def memory_story(dice: Dice) -> Story:
    """VMs that touch, read, write, free and share pages on a machine that is a little too small."""
    pages = 40
    count = dice.integer(1, 3)
    actions = []
    for _ in range(dice.integer(2, 20)):
        vm, thread = dice.integer(0, count - 1), dice.integer(0, 1)
        first = dice.integer(0, pages - 1)
        length = dice.integer(1, pages - first)
        write = dice.pick((True, False))
        kind = dice.pick(("touch", "touch", "fread", "fwrite", "fsync", "free", "content", "sleep", "compute", "exit"))
        if kind in ("sleep", "compute"):
            actions.append(Action(kind, vm, thread, dice.integer(1, MS)))
        elif kind == "content":
            actions.append(Action(kind, vm, thread, dice.integer(0, 2), first, dice.integer(0, 3), write))
        elif kind == "exit":
            actions.append(Action(kind, vm, thread))
        else:
            x = {"free": 0, "touch": dice.integer(0, 2)}.get(kind, dice.integer(1, 2))
            actions.append(Action(kind, vm, thread, x, first, length, write))
    guest = VmStory(
        threads=2,
        pages=dice.integer(70, 160),
        replacement=dice.pick(("linux", "lru", "clock", "fifo")),
        ends_with_ns=dice.integer(10_000, MS),
    )
    memory = MemoryStory(
        frames=dice.integer(90, 140) + 60 * count,
        object_pages=pages,
        host_swap_pages=dice.pick((600, 40)),
        guest_swap_pages=dice.pick((30, 0, 500)),
        large_backing=dice.pick((False, True)),
    )
    return Story(
        tuple(attrs.evolve(guest, weight=dice.pick((256, 512))) for _ in range(count)),
        tuple(actions),
        30 * MS,
        CpuSpec(pcpus=2),
        seed=dice.integer(0, 1 << 30),
        memory=memory,
    )
