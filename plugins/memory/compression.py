"""Compression before swap: a page that shrinks enough goes to a pool in host memory instead of the disk.

Overview: when a page is about to be swapped out, and is at most `max_bytes` when compressed, it goes to the pool, whose
frames hold several such pages each. The pool takes at most `max_pool_percent` of machine memory. When it is full,
its oldest pages are written to the swap area until it is below `accept_threshold_percent` of that, and pages go to
the swap area meanwhile. A page in the pool that its guest uses comes back without the disk.

Source: Linux mm/zswap.c, v6.1 (zswap_frontswap_store, shrink_worker; max_pool_percent 20, accept_threshold_percent 90,
same-filled pages). That a page must shrink to half or less: VMware, "Understanding Memory Resource Management in
VMware ESX Server", memory compression (cited from memory). Costs: Difference Engine (see hvbench.build_memory);
sizes: hvbench.kernel.pool.

Claims: compresses what would have been swapped; never more frames in the pool than its maximum.

Not modelled: a choice of compressors; a shrinker that weighs the pool against other caches.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import TO_POOL, TO_SWAP, compressed_bytes, hookimpl, param, pool_out, state

AXIS = "memory"
CLAIMS = frozenset({"compresses"})
ZSWAP = "Linux v6.1 mm/zswap.c"
COUNTERS = ("reject_compress_poor", "pool_limit_hit")


@frozen
class Params:
    """Parameters of compression."""

    max_pool_percent: int = param(
        20, unit="percent", low=1, high=100, help="machine memory that the pool takes at most", source=f"{ZSWAP}: 20"
    )
    accept_threshold_percent: int = param(
        90, unit="percent", low=1, high=100, help="of that, below which a full pool takes pages again",
        source=f"{ZSWAP}: 90",
    )  # fmt: skip
    max_bytes: int = param(
        2048, unit="bytes", low=0, high=4096, help="a page that is larger when compressed goes to the swap area",
        source="ESX: half a page (cited from memory); zswap: 4096",
    )  # fmt: skip
    writeback_pages: int = param(
        32, unit="pages", low=1, help="pages written out at once while the pool is full",
        source="Linux: SWAP_CLUSTER_MAX 32",
    )  # fmt: skip


@state("host")
@define
class Pool:
    """Whether the pool is being emptied, and what it refused."""

    full: int = 0
    reject_compress_poor: int = 0
    pool_limit_hit: int = 0


@hookimpl
def mem_swap_out(host, vm, page):
    own = host.own
    p = host.params
    mc = host.machine[0]
    limit = mc.frames * p.max_pool_percent // 100
    # pages that are on their way into the pool may need a frame each
    if own.full == 0 and mc.pool_frames + mc.swapping >= limit:
        own.full = 1
        own.pool_limit_hit += 1
    if own.full == 1:
        if mc.pool_frames <= limit * p.accept_threshold_percent // 100 and mc.pool_frames + mc.swapping < limit:
            own.full = 0
        else:
            if mc.pool_writing < p.writeback_pages and mc.pool_entries > mc.pool_writing:
                pool_out(host, p.writeback_pages)
            return TO_SWAP
    if compressed_bytes(host, page) > p.max_bytes:
        own.reject_compress_poor += 1
        return TO_SWAP
    return TO_POOL
