"""ESX: share, balloon with an idle-memory tax, compress, then swap, driven by the states of free memory.

Overview: a stack in the order in which ESX reclaims: pages are shared all the time; in the state soft balloons
inflate, sized by shares and the idle-memory tax; from hard on pages of whoever pays least are taken, at random: those
that shrink to half go to a pool of compressed pages, the others to the hypervisor's swap; in low VMs above their
targets stand still. `minfree` sets the thresholds of ESX 6 (high 400, clear 100, soft 64, hard 32, low 16 % of
minFree) instead of ESX 3's (6/4/2/1 % of memory).

Source: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002; VMware, "Understanding Memory
Resource Management in VMware ESX 4.1"; D. Epping, "What happens at which vSphere memory state?", yellow-bricks.com,
2015.

Claims: reclaims without host swap where guests have something to give; admits VMs whose sum is larger than the
machine.

Not modelled: memory schedulers' resource pools; see the layers.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Layer, hookimpl, param

AXIS = "memory"
CLAIMS = frozenset({"shares", "balloons", "gives-back", "taxes-idle-memory", "overcommits"})


@frozen
class Params:
    """Parameters of esx; those of its layers otherwise as by default."""

    minfree: bool = param(
        False, help="thresholds of ESX 6, in percent of minFree and with a state clear", source="choice of this project"
    )
    tax_percent: int = param(
        75, unit="percent", low=0, high=99, help="tax rate on idle memory", source="ESX: Mem.IdleTax 75"
    )
    zip_percent: int = param(
        10,
        unit="percent",
        low=1,
        high=100,
        help="machine memory that the pool of compressed pages takes at most",
        source="ESX: Mem.MemZipMaxPct 10, there of each VM's memory",
    )
    ratio_percent: int = param(
        10_000,
        unit="percent",
        low=1,
        help="configured memory of all VMs, at most so much of machine memory",
        source="Waldspurger 2002, 6.2: ESX admits by reservations and overhead alone; more than any host is promised",
    )
    deflate_on_oom: bool = param(
        False,
        help="whether a guest without memory takes pages out of its balloon before it kills a process",
        source="ESX's vmmemctl has none",
    )


@hookimpl
def hvbench_memory_stack(params):
    return (
        Layer("page-sharing"),
        Layer("idle-tax", {"tax_percent": params.tax_percent, "deflate_on_oom": params.deflate_on_oom}),
        Layer("compression", {"max_pool_percent": params.zip_percent}),
        Layer("overcommit", {"ratio_percent": params.ratio_percent}),
        Layer("esx-states", {"minfree": params.minfree}),
    )
