"""Overcommit: VMs may be promised more than there is; what does not fit goes to the hypervisor's swap.

Overview: a VM is admitted while the sum of configured memory stays within `ratio_percent` of machine memory,
and the sum of reservations within
machine memory. When free memory falls below `hard`, or a vCPU waits for a frame, pages of the VM that pays
least for them (most pages per
share) are written to the hypervisor's swap, chosen at random. A page that is touched again is read back, and
its vCPU waits.

Source: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002: sections 3.3 (demand paging
is the mechanism of last
resort; a random page, since any better policy may collide with the guest's own), 6.2 (admission:
reservations), 6.3 (states). The ratio: OpenStack's
ram_allocation_ratio, 1.5.

Claims: admits VMs whose sum is larger than the machine.

Not modelled: swapping a whole VM out; a swap file per VM with its own place.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import BY_SWAP, FREE_HARD, hookimpl, param, reclaim

AXIS = "memory"
CLAIMS = frozenset({"overcommits"})


@frozen
class Params:
    """Parameters of overcommit."""

    ratio_percent: int = param(
        150,
        unit="percent",
        low=1,
        help="configured memory of all VMs, at most so much of machine memory",
        source="OpenStack Nova: ram_allocation_ratio 1.5",
    )
    batch_pages: int = param(
        1024, unit="pages", low=1, help="pages swapped out at once, at most", source="choice of this project: 4 MiB"
    )


@hookimpl
def mem_admit(host, vm):
    machine = host.machine[0]
    room = machine.frames * host.params.ratio_percent // 100
    sure = machine.frames - machine.hypervisor - machine.reserve
    for m in range(vm + 1):
        x = host.vmem[m]
        room -= x.pages
        sure -= x.reservation + x.overhead_fixed
    return max(0, -room, -sure)


@hookimpl
def mem_reclaim(host, pages, state):
    if state < FREE_HARD:
        return 0
    wanted = min(pages, host.params.batch_pages)
    reclaim(host, -1, BY_SWAP, wanted)
    return wanted
