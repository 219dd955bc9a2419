"""Type 2: the hypervisor is an application on a host operating system.

Overview: each exit that the host must see (a halt, an interrupt, I/O) is two world switches and the
application's own work; each dispatch of a vCPU is a switch of the host's scheduler and a world switch; the host
OS keeps memory for itself and takes its timer tick on every pCPU.

Source: Sugerman, Venkitachalam, Lim, "Virtualizing I/O Devices on VMware Workstation's Hosted Virtual Machine
Monitor", USENIX ATC 2001, figure 5, on a 733 MHz Pentium III: world switch 4.45 us one way; VMApp 1.23 + 2.97
us for a transmission. Host OS memory: 128 of 256 MB were left to the host in that paper's set-up (256 MB PC,
128 MB VM); a fixed 256 MiB here, the minimum of a server Linux. Tick: CONFIG_HZ=250 (Debian's kernels), 1 us a
tick (Li, Ding, Shen, ExpCS 2007, order of an interrupt).

Claims: none.

Not modelled: the host OS's other processes.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.costs import HostCosts, cycles
from hvbench.policy import hookimpl, param

AXIS = "host"
CLAIMS = frozenset({"monotone"})

_S4 = "Sugerman et al. 2001, figure 5"


@frozen
class Params:
    """Costs of being hosted."""

    world_switch: int = param(3262, unit="cycles", low=0, help="one world switch", source=f"{_S4}: 4.45 us x 733 MHz")
    application: int = param(
        3079,
        unit="cycles",
        low=0,
        help="the application's own work for an I/O",
        source=f"{_S4}: (1.23 + 2.97) us x 733 MHz",
    )
    host_os_pages: int = param(65_536, unit="pages", low=0, help="memory of the host OS", source="256 MiB, see Source")
    tick_ns: int = param(4_000_000, unit="ns", low=1, help="period of the host's timer tick", source="CONFIG_HZ=250")
    tick_cost_ns: int = param(1_000, unit="ns", low=0, help="CPU time of a tick", source="order of an interrupt")


@hookimpl
def hvbench_host_costs(params, cpu_mhz):
    return HostCosts(
        hosted=True,
        world_switch_ns=cycles(params.world_switch, cpu_mhz),
        dispatch_ns=cycles(params.world_switch, cpu_mhz),
        io_path_ns=cycles(params.application, cpu_mhz),
        host_os_pages=params.host_os_pages,
        host_tick_ns=params.tick_ns,
        host_tick_cost_ns=params.tick_cost_ns,
    )
