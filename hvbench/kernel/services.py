"""What a policy may ask for, and read, beyond its hook's arguments.

Requests are records in the outbox: the kernel checks and does them when the event at hand has been handled, in
the order in which they were asked for. A request that is not legal ends the cell and names the hook.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import kernel_view, scatter, slot_index, trailing_zeros

(O_KICK, O_TIMER, O_CANCEL, O_TICK, O_MIGRATE, O_BLOCK, O_UNBLOCK, O_COSTOP, O_COSTART) = range(9)
O_FIRST_MEMORY = 16
O_FIRST_STORAGE = 32
O_FIRST_SWITCH = 48
"""Kinds of requests; the other axes' begin at these numbers."""

TIMERS_PER_SLOT = 64
MAX_SIGNED = (1 << 62) - 1
AFFINITY_BITS = 62
"""pCPUs that an affinity mask can name: nobody is pinned to one beyond."""


@jit
def request(host: Any, what: int, a: int, b: int, c: int, d: int) -> None:
    """Put a request in the outbox; one that finds it full is counted, and ends the cell."""
    kernel = kernel_view(host)
    at = kernel.outbox_len
    if at >= len(kernel.outbox):
        kernel.outbox_overflow = kernel.outbox_overflow + 1
        return
    kernel.outbox_len = at + 1
    entry = kernel.outbox[at]
    entry.what = what
    entry.slot_index = slot_index(host)
    entry.row = kernel.hook_row
    entry.a = a
    entry.b = b
    entry.c = c
    entry.d = d


@jit
def kick(host: Any, pcpu: int) -> None:
    """Ask pCPU `pcpu` for a new decision now, preempting what runs there. [Xen tickle; scx_bpf_kick_cpu]"""
    request(host, O_KICK, pcpu, 0, 0, 0)


@jit
def set_timer(host: Any, timer: int, at_ns: int) -> None:
    """Have this axis's `*_timer` hook called with `timer` (0 to 63) at virtual time `at_ns`; moves a set timer."""
    request(host, O_TIMER, timer, at_ns, 0, 0)


@jit
def cancel_timer(host: Any, timer: int) -> None:
    """Forget timer `timer` (0 to 63)."""
    request(host, O_CANCEL, timer, 0, 0, 0)


@jit
def set_tick(host: Any, pcpu: int, period_ns: int) -> None:
    """Have sched_tick called every `period_ns` while `pcpu` is busy; 0 ends it."""
    request(host, O_TICK, pcpu, period_ns, 0, 0)


@jit
def migrate(host: Any, vcpu: int, pcpu: int) -> None:
    """Take `vcpu` off its pCPU, if it runs, and ask `pcpu` for a decision. [Xen migrate]"""
    request(host, O_MIGRATE, vcpu, pcpu, 0, 0)


@jit
def block(host: Any, vcpu: int) -> None:
    """Keep `vcpu` from running until `unblock`: caps, throttling, memory above target."""
    request(host, O_BLOCK, vcpu, 0, 0, 0)


@jit
def unblock(host: Any, vcpu: int) -> None:
    """End a `block` of `vcpu`."""
    request(host, O_UNBLOCK, vcpu, 0, 0, 0)


@jit
def costop(host: Any, vcpu: int) -> None:
    """Co-stop `vcpu` until `costart`: it wants to run, and may not for the sake of its siblings. [ESX co-stop]

    Unlike `block` this leaves it in a run state of its own: the time is accounted as co-stopped. It leaves its pCPU
    and the run queue as with `block` (sched_stopping, sched_sleep); one that has nothing to do is co-stopped when it
    wakes, and sched_wake waits for `costart`.
    """
    request(host, O_COSTOP, vcpu, 0, 0, 0)


@jit
def costart(host: Any, vcpu: int) -> None:
    """End a `costop` of `vcpu`: sched_wake follows if it has something to do. [ESX co-start]"""
    request(host, O_COSTART, vcpu, 0, 0, 0)


@jit
def runq_first(host: Any) -> int:
    """The entity that has been runnable longest without running, -1 for none. O(1)."""
    return kernel_view(host).runnable_first


@jit
def runq_next(host: Any, vcpu: int) -> int:
    """The entity that became runnable next after `vcpu`, -1 for none. O(1)."""
    if vcpu < 0 or vcpu >= len(host.vcpu):
        return -1
    return host.vcpu[vcpu].next_runnable


@jit
def may_run(host: Any, vcpu: int, pcpu: int) -> bool:
    """Whether the workload's pinning lets `vcpu` run on `pcpu`, which has not left the host. O(1)."""
    if pcpu < 0 or pcpu >= len(host.pcpu) or host.pcpu[pcpu].offline != 0:
        return False
    mask = host.vcpu[vcpu].affinity
    return mask == 0 or (pcpu < AFFINITY_BITS and (mask >> pcpu) & 1 == 1)


@jit
def allowed_pcpu(host: Any, vcpu: int, first: int) -> int:
    """The first pCPU from `first` on, in a circle, on which `vcpu` may run; `first` itself if there is none."""
    pcpus = len(host.pcpu)
    for step in range(pcpus):
        pcpu = (first + step) % pcpus
        if may_run(host, vcpu, pcpu):
            return pcpu
    return first


@jit
def idle_pcpu(host: Any, vcpu: int, preferred: int) -> int:
    """An idle pCPU on which `vcpu` may run: `preferred`, else that of lowest index; -1 for none. O(pCPUs / 32).

    A pCPU that was asked for a decision and has not answered yet does not count as idle.
    """
    if preferred >= 0 and host.pcpu[preferred].idle != 0 and may_run(host, vcpu, preferred):
        return preferred
    mask = host.vcpu[vcpu].affinity
    kernel = kernel_view(host)
    for word in range(len(kernel.idle)):
        bits = kernel.idle[word].bits
        if mask != 0:
            bits = bits & (mask >> (32 * word)) if 32 * word < AFFINITY_BITS else 0
        if bits != 0:
            return word * 32 + trailing_zeros(bits)
    return -1


@jit
def random_below(host: Any, bound: int) -> int:
    """A number from 0 to bound - 1 (0 if bound < 1), the same in every run with the same seed and questions."""
    kernel = kernel_view(host)
    draws = kernel.random_draws + 1
    kernel.random_draws = draws
    if bound < 1:
        return 0
    return (scatter(scatter(kernel.seed, slot_index(host)), draws) & MAX_SIGNED) % bound
