"""NAS: files of a filer, over the guest's virtual NIC and the host's network card.

Overview: the guest itself is the filer's client. A request costs the client's protocol on the vCPU and an exit of the
virtual NIC, then the host thread that emulates the NIC (with a copy), the *physical network card that the guests'
frames use too*, the filer's link, its processor and cache, its disks, and the way back.

Source: P. Radkov et al., "A Performance Comparison of NFS and iSCSI for IP-Networked Storage", FAST 2004: the server's
processing path per request is about twice as long as for block storage. Card, filer and disks stand in the
workload's host section.

Claims: fifo, work-conserving, starvation-free.

Not modelled: the filer's name space (metadata operations), client-side caching beyond the guest's own page
cache, loss on the way back (the filer's transport finds room). The frames pass the host's card, but not the virtual
switch.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Step, hookimpl, param

AXIS = "storage"
CLAIMS = frozenset({"fifo", "starvation-free", "work-conserving"})


@frozen
class Params:
    """Costs of the stages before the network card, and of the filer against an array."""

    client_ns: int = param(
        7_600,
        unit="ns",
        low=0,
        help="vCPU time of the client's protocol for a request",
        source="as the block layer it stands for: Yang et al., FAST 2012, 7.6 us",
    )
    exit_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time to hand a frame to the virtual NIC, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    frame_ns: int = param(
        704,
        unit="ns",
        low=0,
        help="NIC emulator's time for a request or an answer",
        source="Tu et al., SIGCOMM 2021: 1.42 million frames a second through the host's kernel on one core",
    )
    kib_ns: int = param(
        93,
        unit="ns",
        low=0,
        help="NIC emulator's time for each KiB copied",
        source="Agache et al., NSDI 2020: 44 Gbit/s over the host's loopback, which copies twice",
    )
    interrupt_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time for the answer's interrupt, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    filer_percent: int = param(
        200,
        unit="percent",
        low=0,
        help="the filer's processor time for a request, in percent of the workload's service time",
        source="Radkov et al., FAST 2004: the server's path per request is twice that of block storage",
    )


@hookimpl
def hvbench_storage_path(params):
    return (
        Step("vcpu", params.client_ns + params.exit_ns, source="Yang et al., FAST 2012"),
        Step("net_thread", params.frame_ns, params.kib_ns, moves="out", source="Tu et al., SIGCOMM 2021"),
        Step("nic_out", source="workload's host section"),
        Step("processor", at="filer", moves="none", percent=params.filer_percent, source="Radkov et al., FAST 2004"),
        Step("medium", at="filer"),
        Step("nic_in", source="workload's host section"),
        Step("net_thread", params.frame_ns, params.kib_ns, moves="back", source="Tu et al., SIGCOMM 2021"),
        Step("interrupt", params.interrupt_ns),
    )
