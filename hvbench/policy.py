"""What a policy imports. Nothing else of hvbench is meant for policies.

A policy is a module: a docstring, an optional `Params`, optional `@state` classes, and `@hookimpl` functions whose
contracts stand in `hvbench.hookspecs`. The smallest scheduler:

    from hvbench.policy import hookimpl, runq_first

    @hookimpl
    def sched_pick_next(host, pcpu, prev, now):
        return runq_first(host), 1_000_000

`host` shows the tables of the simulated host (`host.vcpu[v].state`, `host.pcpu[p].idle`, `host.vm[m].weight`: see
hvbench/state/records*.py for every field), this policy's parameters (`host.params.timeslice_ns`), its own
host-wide state (`host.own`), and its containers (`host.box`). Kernel fields are read-only; own fields, declared with
`@state("vcpu")` and so on, stand beside them in the same row. Plain helper functions of the module may be called from
hooks; they are compiled along.

A memory policy's `COUNTERS`, a tuple of names of its own host-wide fields, are reported as metrics of the cell, with
the policy's name in front (`ksm_pages_shared`), as they stand at the end. One that scans memory may say how long a pass
takes, `def scan_pass_ns(params, vm_pages)`, so that a warm-up that is too short for two is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pluggy

from hvbench.jit import jit
from hvbench.kernel.allocation import MemoryShare, balloon_size, divide_memory, pending_balloon
from hvbench.kernel.containers import (
    Fifo,
    HashMap,
    Heap,
    OrderedIndex,
    fifo_first,
    fifo_len,
    fifo_next,
    fifo_pop,
    fifo_push,
    fifo_push_front,
    fifo_remove,
    fifo_where,
    heap_first,
    heap_first_key,
    heap_len,
    heap_pop,
    heap_push,
    heap_remove,
    map_del,
    map_get,
    map_len,
    map_put,
    order_after,
    order_first,
    order_len,
    order_put,
    order_remove,
)
from hvbench.kernel.io_services import (
    blk_first,
    blk_next,
    emit_frame,
    net_first,
    net_next,
    serve_device,
    serve_port,
)
from hvbench.kernel.memory_services import (
    BY_BALLOON,
    BY_DISCARD,
    BY_PAGE,
    BY_SWAP,
    FREE_CLEAR,
    FREE_HARD,
    FREE_HIGH,
    FREE_LOW,
    FREE_SOFT,
    KEEP,
    TO_POOL,
    TO_SWAP,
    TOUCH_FIRST,
    TOUCH_SWAPPED,
    TOUCH_WATCHED,
    backed,
    balance,
    compressed_bytes,
    content,
    image_block,
    in_large,
    merge,
    merge_zero,
    page_vm,
    pool_out,
    random_page,
    reclaim,
    scan,
    set_balloon_driver,
    set_clear_state,
    set_free_states,
    shareable,
    sharers,
    swappable,
    tune_scan,
    watch,
    watched,
    write_protected,
)
from hvbench.kernel.placement import core_idles, first_idle, idle_on_llc, progress
from hvbench.kernel.services import (
    allowed_pcpu,
    block,
    cancel_timer,
    costart,
    costop,
    idle_pcpu,
    kick,
    may_run,
    migrate,
    random_below,
    runq_first,
    runq_next,
    set_tick,
    set_timer,
    unblock,
)
from hvbench.paths import Step, SwitchConfig, local_disk, virtual_disk
from hvbench.stacks import Layer
from hvbench.state.records import (
    BLOCKED,
    COSTOPPED,
    HOST_THREAD,
    RUNNABLE,
    RUNNING,
    VCPU,
    WHY_COSTOP,
    WHY_FORCED,
    WHY_HALT,
    WHY_HOST_FAULT,
    WHY_PAUSE_LOOP,
    WHY_PREEMPTED,
    WHY_SLICE,
)

__all__ = [
    "BLOCKED",
    "BY_BALLOON",
    "BY_DISCARD",
    "BY_PAGE",
    "BY_SWAP",
    "COSTOPPED",
    "FOREVER",
    "FREE_CLEAR",
    "FREE_HARD",
    "FREE_HIGH",
    "FREE_LOW",
    "FREE_SOFT",
    "HOST_THREAD",
    "IDLE",
    "KEEP",
    "NONE",
    "RUNNABLE",
    "RUNNING",
    "TOUCH_FIRST",
    "TOUCH_SWAPPED",
    "TOUCH_WATCHED",
    "TO_POOL",
    "TO_SWAP",
    "VCPU",
    "WHY_COSTOP",
    "WHY_FORCED",
    "WHY_HALT",
    "WHY_HOST_FAULT",
    "WHY_PAUSE_LOOP",
    "WHY_PREEMPTED",
    "WHY_SLICE",
    "Control",
    "Fifo",
    "HashMap",
    "Heap",
    "Layer",
    "MemoryShare",
    "OrderedIndex",
    "Step",
    "SwitchConfig",
    "allowed_pcpu",
    "backed",
    "balance",
    "balloon_size",
    "blk_first",
    "blk_next",
    "block",
    "cancel_timer",
    "compressed_bytes",
    "content",
    "core_idles",
    "costart",
    "costop",
    "divide_memory",
    "emit_frame",
    "fifo_first",
    "fifo_len",
    "fifo_next",
    "fifo_pop",
    "fifo_push",
    "fifo_push_front",
    "fifo_remove",
    "fifo_where",
    "first_idle",
    "heap_first",
    "heap_first_key",
    "heap_len",
    "heap_pop",
    "heap_push",
    "heap_remove",
    "hookimpl",
    "idle_on_llc",
    "idle_pcpu",
    "image_block",
    "in_large",
    "jit",
    "kick",
    "local_disk",
    "map_del",
    "map_get",
    "map_len",
    "map_put",
    "may_run",
    "merge",
    "merge_zero",
    "migrate",
    "net_first",
    "net_next",
    "order_after",
    "order_first",
    "order_len",
    "order_put",
    "order_remove",
    "page_vm",
    "param",
    "pending_balloon",
    "pool_out",
    "progress",
    "random_below",
    "random_page",
    "reclaim",
    "runq_first",
    "runq_next",
    "scan",
    "serve_device",
    "serve_port",
    "set_balloon_driver",
    "set_clear_state",
    "set_free_states",
    "set_tick",
    "set_timer",
    "shareable",
    "sharers",
    "state",
    "swappable",
    "tune_scan",
    "unblock",
    "virtual_disk",
    "watch",
    "watched",
    "write_protected",
]

hookimpl = pluggy.HookimplMarker("hvbench")

NONE = -1
"""No vCPU, no pCPU, no page."""

IDLE = -1
"""A scheduler's answer "nothing": the pCPU idles, on purpose if something is runnable."""

FOREVER = 1 << 60
"""A slice without end, ns."""


@attrs.frozen
class Control:
    """Marks a policy as deliberately bad: not part of `all`, and held to being worst.

    `worst_on` maps a bundled workload's name to the metric on which this policy must be worse than every other
    bundled policy of its axis by at least `margin` (0.2 is 20 %). Ending as `stalled` counts as worst.
    """

    worst_on: dict[str, str]
    why: str
    margin: float = 0.2


def param(
    default: int | float | bool,
    *,
    help: str,
    unit: str = "",
    source: str = "",
    low: int | float | None = None,
    high: int | float | None = None,
) -> Any:
    """A parameter of a policy, a field of its `Params` attrs class.

    `unit` is `ns`, `pages`, `bytes`, `ppm`, `percent` or empty for a plain number, and the field's name ends in it
    (`timeslice_ns`); `low` and `high` bound what is legal, both included; `source` names where the default comes from.
    """
    return attrs.field(
        default=default,
        metadata={"help": help, "unit": unit, "source": source, "low": low, "high": high},
    )


def state(table: str) -> Callable[[type], type]:
    """Declare a policy's own fields beside each row of `table` (`vcpu`, `vm`, `pcpu`, `page` ...), or of the `host`.

    Each field is an int64 (a float64 where it is annotated `float`) and starts at its default. Own fields
    must not have the name of a kernel field of that table.
    """

    def wrap(cls: type) -> type:
        made = cls if attrs.has(cls) else attrs.define(cls)
        made.__hvbench_state__ = table  # type: ignore[attr-defined]
        return made

    return wrap
