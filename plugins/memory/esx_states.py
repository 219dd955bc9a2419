"""ESX's states of free memory: thresholds of ESX 3 or ESX 6, and no sharing of large pages while memory is free.

Overview: sets the thresholds of the free-memory states, for a stack whose other layers act on them. ESX 3: high,
soft, hard and low at shares of machine memory. With `minfree`, ESX 6: a fifth state, clear, between high and soft,
and thresholds in percent of minFree, which is a sliding scale of machine memory. A page inside a 2 MiB mapping is
merged only from the state clear on (from soft on where there is no clear), since that splits the mapping. The last
layer that sets thresholds counts: it belongs at the end of a stack.

Source: Waldspurger, OSDI 2002, section 6.3 (6/4/2/1 %). ESX 6: D. Epping, "What happens at which vSphere memory
state?", yellow-bricks.com, 2015 (high 400, clear 100, soft 64, hard 32, low 16 % of minFree; clear breaks large
pages and has them shared). The sliding scale: ESXi 5 and later, Mem.MinFreePct (6 % of the first 4 GiB, 4 % up to
12 GiB, 2 % up to 28 GiB, 1 % of the rest).

Claims: none.

Not modelled: breaking large pages ahead of sharing, between 400 and 100 % of minFree; the sharing scanner that runs
faster in the state clear.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import FREE_CLEAR, hookimpl, in_large, param, set_clear_state, set_free_states

AXIS = "memory"
MILLION = 1_000_000
GIB_PAGES = 1 << 18


@frozen
class Params:
    """Parameters of esx-states."""

    minfree: bool = param(False, help="thresholds in percent of minFree, with a state clear (ESX 6)", source="ESX 3")
    high_ppm: int = param(
        60_000, unit="ppm", low=0, high=MILLION, help="ESX 3: threshold of high", source="Waldspurger 2002, 6.3: 6 %"
    )
    soft_ppm: int = param(
        40_000, unit="ppm", low=0, high=MILLION, help="ESX 3: threshold of soft", source="Waldspurger 2002, 6.3: 4 %"
    )
    hard_ppm: int = param(
        20_000, unit="ppm", low=0, high=MILLION, help="ESX 3: threshold of hard", source="Waldspurger 2002, 6.3: 2 %"
    )
    low_ppm: int = param(
        10_000, unit="ppm", low=0, high=MILLION, help="ESX 3: threshold of low", source="Waldspurger 2002, 6.3: 1 %"
    )
    high_percent: int = param(
        400, unit="percent", low=0, high=1600, help="ESX 6: threshold of high, of minFree", source="Epping 2015: 400 %"
    )
    clear_percent: int = param(
        100, unit="percent", low=0, high=1600, help="ESX 6: threshold of clear, of minFree", source="Epping 2015: 100 %"
    )
    soft_percent: int = param(
        64, unit="percent", low=0, high=1600, help="ESX 6: threshold of soft, of minFree", source="Epping 2015: 64 %"
    )
    hard_percent: int = param(
        32, unit="percent", low=0, high=1600, help="ESX 6: threshold of hard, of minFree", source="Epping 2015: 32 %"
    )
    low_percent: int = param(
        16, unit="percent", low=0, high=1600, help="ESX 6: threshold of low, of minFree", source="Epping 2015: 16 %"
    )

    def __attrs_post_init__(self) -> None:
        if not self.high_ppm >= self.soft_ppm >= self.hard_ppm >= self.low_ppm:
            raise ValueError("high, soft, hard and low must not rise in this order")


def minfree_ppm(frames):
    """minFree of a machine, parts per million of it."""
    free = min(frames, 4 * GIB_PAGES) * 6
    free += max(0, min(frames, 12 * GIB_PAGES) - 4 * GIB_PAGES) * 4
    free += max(0, min(frames, 28 * GIB_PAGES) - 12 * GIB_PAGES) * 2
    free += max(0, frames - 28 * GIB_PAGES)
    return free * (MILLION // 100) // frames


@hookimpl
def mem_init(host):
    p = host.params
    if p.minfree:
        least = minfree_ppm(host.machine[0].frames)
        set_free_states(
            host,
            least * p.high_percent // 100,
            least * p.soft_percent // 100,
            least * p.hard_percent // 100,
            least * p.low_percent // 100,
        )
        set_clear_state(host, least * p.clear_percent // 100)
    else:
        set_free_states(host, p.high_ppm, p.soft_ppm, p.hard_ppm, p.low_ppm)


@hookimpl
def mem_share_merge(host, page, other):
    if host.machine[0].state >= FREE_CLEAR:
        return 1
    # -1 is the hypervisor's own page of zeros
    if (page >= 0 and in_large(host, page)) or (other >= 0 and in_large(host, other)):
        return 0
    return 1
