"""The memory side's entry points: what the loop, the guest, devices and host threads call.

- `guest_memory`, `guest_reclaim`, `page_cache`, `guest_thread`: the guest's kernel.
- `host_memory`, `reclaim`, `sharing`: the hypervisor.
- `memory_services`, `memory_requests`: what policies ask for.

A cell whose machine has 0 frames does not simulate memory: its operations take no time.
"""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.ask import AXIS_MEMORY, ask
from hvbench.kernel.events import K_MEMORY, arm
from hvbench.kernel.guards import E_RANGE, E_REFUSED, E_TARGET, fail
from hvbench.kernel.guest_memory import exit_process, forget
from hvbench.kernel.guest_reclaim import swap_out_done, wake_kernel_thread, write_done
from hvbench.kernel.guest_thread import kernel_thread
from hvbench.kernel.hook_rows import MEM_ADMIT, MEM_COW_BREAK, MEM_INIT, MEM_TIMER
from hvbench.kernel.host_memory import (
    E_BALANCE,
    E_FIRST_VM,
    E_RECLAIM,
    EV_FLUSH,
    EV_OOM,
    VM_EVENTS,
    account,
    host_read_done,
    set_state,
)
from hvbench.kernel.io_codes import (
    IO_GUEST_READ,
    IO_GUEST_SWAP_OUT,
    IO_GUEST_WRITE,
    IO_HOST_READ,
    IO_HOST_SWAP_OUT,
    IO_POOL_OUT,
)
from hvbench.kernel.memory_io import io_free, wake_vcpus
from hvbench.kernel.oom import out_of_memory
from hvbench.kernel.outcome import DONE
from hvbench.kernel.page_cache import read_done, set_content, sync
from hvbench.kernel.reclaim import (
    WORK_COMPRESS,
    WORK_MERGE,
    WORK_MERGE_ZERO,
    WORK_POOL_OUT,
    WORK_SCAN,
    WORK_SWAP_OUT,
    balance,
    compressed,
    host_write_done,
    pool_write_done,
    reclaim_round,
    write_out,
    write_pool_out,
)
from hvbench.kernel.sharing import merge_paid, merge_zero_paid, scan_paid
from hvbench.kernel.touches import OP_MTOUCH, OP_TOUCH, access, touch_run
from hvbench.state.schema import FIRST_MEMORY_SLOT, MEMORY_LAYERS
from hvbench.traces.format import OPS

OP_ALLOC = OPS["alloc"]
OP_FREE = OPS["free"]
OP_EXIT = OPS["exit"]
OP_FREAD = OPS["fread"]
OP_FWRITE = OPS["fwrite"]
OP_FSYNC = OPS["fsync"]

__all__ = [
    "io_done",
    "kernel_thread",
    "memory_event",
    "memory_finish",
    "memory_init",
    "memory_op",
    "memory_seam",
    "memory_timer",
    "memory_work",
]


@jit
def memory_op(host: Any, t: int, v: int) -> int:
    """Begin, or go on with, a memory or file operation of a thread on vCPU `v`."""
    if host.machine[0].frames == 0 or v < 0:
        return DONE
    th = host.thread[t]
    r = host.op[th.op]
    op = r.op
    if op in (OP_TOUCH, OP_MTOUCH):
        return touch_run(host, t, v)
    if op == OP_EXIT:
        exit_process(host, th.group, th.process)
        return DONE
    o = host.object_of[host.replay[th.group].first + r.x].object
    x = host.object[o]
    page = r.a
    if op == OP_FSYNC:
        return sync(host, t, v, o)
    pages = r.b if op >= OP_ALLOC and op <= OP_FWRITE else 1
    if op == OP_ALLOC:
        x.allocated += pages
        return DONE
    if page < 0 or pages < 0 or page + pages > x.pages:
        fail(host, E_RANGE, -1, page + pages, o)
        return DONE
    if op == OP_FREAD:
        return access(host, t, v, o, page, pages, 0)
    if op == OP_FWRITE:
        return access(host, t, v, o, page, pages, 1)
    if op == OP_FREE:
        forget(host, o, page, page + pages)
        return DONE
    return set_content(host, v, o, page, th.op + 1)


@jit
def memory_init(host: Any) -> None:
    """The policies hear of the host, then every VM asks to be let in, in order; the first refusal ends the cell."""
    mc = host.machine[0]
    if mc.frames == 0:
        return
    for layer in range(MEMORY_LAYERS):
        for hook in range(MEM_INIT, MEM_COW_BREAK + 1, MEMORY_LAYERS):
            if host.hook[hook + layer].address != 0:
                mc.layers = layer + 1
    for layer in range(mc.layers):
        if layer == 0 or host.hook[MEM_INIT + layer].address != 0:
            ask(host, AXIS_MEMORY, MEM_INIT + layer, host.now, 0, 0, 0, 0, 0)
    for m in range(host.vms):
        for layer in range(host.machine[0].layers):
            if layer == 0 or host.hook[MEM_ADMIT + layer].address != 0:
                short = ask(host, AXIS_MEMORY, MEM_ADMIT + layer, m, host.now, 0, 0, 0, 0)
                if short > 0:
                    fail(host, E_REFUSED, MEM_ADMIT + layer, short, m)
                elif short < 0:
                    fail(host, E_TARGET, MEM_ADMIT + layer, short, m)
                if host.error != 0:
                    return
    set_state(host)
    arm(host, K_MEMORY, E_BALANCE, host.now)
    for m in range(host.vms):
        arm(host, K_MEMORY, E_FIRST_VM + VM_EVENTS * m + EV_FLUSH, host.now + mc.flush_ns)


@jit
def memory_event(host: Any, number: int) -> None:
    """Reclaim is due, balloon targets are, a balloon may take its next step, dirty pages have waited long enough, or a
    guest has no memory."""
    if number == E_RECLAIM:
        reclaim_round(host)
    elif number == E_BALANCE:
        balance(host)
    else:
        m = (number - E_FIRST_VM) // VM_EVENTS
        what = (number - E_FIRST_VM) % VM_EVENTS
        if what == EV_OOM:
            out_of_memory(host, m)
            return
        if what == EV_FLUSH:
            arm(host, K_MEMORY, number, host.now + host.machine[0].flush_ns)
            if host.vmem[m].dirty == 0:
                return
            host.vmem[m].flush = 1
        wake_kernel_thread(host, m)


@jit
def memory_timer(host: Any, slot: int, timer: int) -> None:
    """A memory policy's timer is due."""
    ask(host, AXIS_MEMORY, MEM_TIMER + slot - FIRST_MEMORY_SLOT, timer, host.now, 0, 0, 0, 0)


@jit
def memory_work(host: Any, what: int, a: int, b: int) -> None:
    """A memory host thread has paid for a piece of work."""
    if what == WORK_SWAP_OUT:
        write_out(host, a)
    elif what == WORK_COMPRESS:
        compressed(host, a)
    elif what == WORK_POOL_OUT:
        write_pool_out(host, a)
    elif what == WORK_SCAN:
        scan_paid(host, a, b)
    elif what >= WORK_MERGE and what < WORK_MERGE + MEMORY_LAYERS:
        merge_paid(host, a, b, what - WORK_MERGE)
    elif what >= WORK_MERGE_ZERO and what < WORK_MERGE_ZERO + MEMORY_LAYERS:
        merge_zero_paid(host, a, what - WORK_MERGE_ZERO)


@jit
def io_done(host: Any, why: int, who: int) -> None:
    """A disk operation of the memory side is done; `who` is its row of mem_io."""
    if why == IO_GUEST_READ:
        read_done(host, who)
    elif why == IO_GUEST_WRITE:
        write_done(host, who)
    elif why == IO_GUEST_SWAP_OUT:
        swap_out_done(host, who)
    elif why == IO_HOST_READ:
        host_read_done(host, who)
        first = host.mem_io[who].vcpu
        host.mem_io[who].vcpu = 0
        wake_vcpus(host, first)
    elif why == IO_HOST_SWAP_OUT:
        host_write_done(host, who)
    elif why == IO_POOL_OUT:
        pool_write_done(host, who)
    else:
        return
    io_free(host, who)


@jit
def memory_seam(host: Any, group: int) -> None:
    """A trace begins again: its processes have exited, its files and caches stay."""
    if host.machine[0].frames > 0:
        exit_process(host, group, -1)


@jit
def memory_finish(host: Any) -> None:
    """The horizon: bring the integrals over time up to date."""
    if host.machine[0].frames > 0:
        for m in range(host.vms):
            account(host, m)
