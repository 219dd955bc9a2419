"""Host threads: work that the hypervisor does on behalf of a guest, placed and paid like any other.

A host thread (iothread, vhost, driver domain, ksmd ...) is a schedulable entity with a FIFO of work items. The
scheduler places it; when the CPU time of its first item is paid, the item is done and the next begins.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.cpu import wake
from hvbench.kernel.guards import E_CAPACITY, fail


@jit
def submit(host: Any, v: int, cost_ns: int, what: int, a: int, b: int) -> None:
    """Queue work of `cost_ns` on host thread `v`; when it is paid, `what` is done to `a` and `b`."""
    item = host.work_free
    if item < 0:
        fail(host, E_CAPACITY, -1, len(host.work), v)
        return
    w = host.work[item]
    host.work_free = w.next
    w.cost_ns = cost_ns
    w.what = what
    w.a = a
    w.b = b
    w.next = -1
    e = host.vcpu[v]
    if e.work_first < 0:
        e.work_first = item
        e.work_last = item
        e.overhead_left_ns += cost_ns
        wake(host, v)
    else:
        host.work[e.work_last].next = item
        e.work_last = item


@jit
def take_done(host: Any, v: int) -> int:
    """The first item of a host thread, which is paid: take it off, begin the next. The caller frees it."""
    e = host.vcpu[v]
    item = e.work_first
    if item < 0:
        return -1
    after = host.work[item].next
    e.work_first = after
    if after < 0:
        e.work_last = -1
    else:
        e.overhead_left_ns += host.work[after].cost_ns
    return item


@jit
def free(host: Any, item: int) -> None:
    """Give an item of table work back."""
    host.work[item].next = host.work_free
    host.work_free = item
