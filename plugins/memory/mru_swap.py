"""Most recently used victims: a control, deliberately bad.

Overview: admits and reclaims like overcommit, but swaps out the page that was touched last of `sample` random
ones: on a working set that is used in a loop that is what will be needed again soonest, and what the guest
itself would never give up.

Source: the opposite of LRU; where data do not fit, MRU is right for one pass over a file (Chou and DeWitt, VLDB
1985), and wrong for a working set.

Claims: none.

Not modelled: the guest's own lists, which a hypervisor cannot see.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import BY_SWAP, Control, hookimpl, param, random_page, reclaim, swappable

AXIS = "memory"
CONTROL = Control(
    worst_on={"tight-batch": "slowdown_worst", "tight-caches": "request_latency_p99_ns"},
    why="it swaps out what is being used, so that the same pages come back at once",
)


@frozen
class Params:
    """Parameters of mru-swap."""

    sample: int = param(
        64, low=1, high=4096, help="random pages among which the one touched last goes", source="a control"
    )
    batch_pages: int = param(
        1024, unit="pages", low=1, help="pages swapped out at once, at most", source="as overcommit"
    )


@hookimpl
def mem_reclaim(host, pages, state):
    wanted = min(pages, host.params.batch_pages)
    reclaim(host, -1, BY_SWAP, wanted)
    return wanted


@hookimpl
def mem_pick_victim(host, vm):
    best = -1
    latest = -1
    for _ in range(host.params.sample):
        g = random_page(host, vm)
        if g >= 0 and swappable(host, g) and host.page[g].stamp > latest:
            latest = host.page[g].stamp
            best = g
    return best
