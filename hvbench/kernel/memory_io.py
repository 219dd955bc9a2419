"""Disk operations of the memory side: who waits for which, and what they are about."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.guards import E_CAPACITY, fail
from hvbench.kernel.holding import release
from hvbench.kernel.outcome import FAULT, WAITS
from hvbench.kernel.threads import thread_ready
from hvbench.state.records import T_WAITING


@jit
def io_new(host: Any, vm: int, first: int, pages: int) -> int:
    """A row of mem_io; -1 (and the cell ends) when there is none left."""
    mc = host.machine[0]
    if mc.io_free > 0:
        k = mc.io_free - 1
        mc.io_free = host.mem_io[k].next
    else:
        k = mc.io_fresh
        if k >= len(host.mem_io):
            fail(host, E_CAPACITY, -1, len(host.mem_io), vm)
            return -1
        mc.io_fresh = k + 1
    x = host.mem_io[k]
    x.first = first
    x.pages = pages
    x.vm = vm
    x.object = -1
    x.waiter = 0
    x.vcpu = 0
    x.frame = 0
    x.leaving = 0
    x.next = 0
    x.used = 1
    return k


@jit
def io_free(host: Any, k: int) -> None:
    """Give a row back."""
    mc = host.machine[0]
    x = host.mem_io[k]
    x.used = 0
    x.next = mc.io_free
    mc.io_free = k + 1


@jit
def thread_waits(host: Any, t: int, what: int) -> int:
    """The thread waits in the middle of its operation, which is begun again when it is ready."""
    th = host.thread[t]
    th.in_op = 0
    th.state = T_WAITING
    th.waits_for = what
    return WAITS


@jit
def thread_waits_io(host: Any, t: int, k: int, what: int) -> int:
    """The thread waits for a disk operation."""
    x = host.mem_io[k]
    host.thread[t].next_waiter = x.waiter - 1
    x.waiter = t + 1
    return thread_waits(host, t, what)


@jit
def wake_threads(host: Any, first: int) -> None:
    """Make a chain of waiting threads ready; `first` is a thread + 1."""
    t = first - 1
    while t >= 0:
        after = host.thread[t].next_waiter
        host.thread[t].next_waiter = -1
        thread_ready(host, t, -1)
        t = after


@jit
def vcpu_stalls(host: Any, v: int) -> int:
    """The vCPU must not run until `vcpu_goes_on`; it runs now and leaves its pCPU by itself."""
    host.vcpu[v].hold += 1
    host.vcpu_mem[v].stalled_since_ns = host.now
    return FAULT


@jit
def vcpu_goes_on(host: Any, v: int) -> None:
    """A vCPU's host fault is served."""
    host.vcpu_mem[v].stalled_ns += host.now - host.vcpu_mem[v].stalled_since_ns
    if host.now >= host.warmup_ns:
        since = max(host.vcpu_mem[v].stalled_since_ns, host.warmup_ns)
        host.vmem[host.vcpu[v].vm].stalled_ns += host.now - since
    release(host, v)


@jit
def vcpu_waits_io(host: Any, v: int, k: int) -> int:
    """The vCPU waits for a disk operation of the hypervisor."""
    x = host.mem_io[k]
    host.vcpu_mem[v].next = x.vcpu
    x.vcpu = v + 1
    return vcpu_stalls(host, v)


@jit
def wake_vcpus(host: Any, first: int) -> None:
    """End the host faults of a chain of vCPUs; `first` is a vCPU + 1."""
    v = first - 1
    while v >= 0:
        after = host.vcpu_mem[v].next - 1
        host.vcpu_mem[v].next = 0
        vcpu_goes_on(host, v)
        v = after
