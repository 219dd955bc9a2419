"""SAN: block storage behind a fabric; the same virtual front as DAS, then adapter, fabric and an array with a cache.

Overview: virtual SCSI and the emulator thread as with `das`, a Fibre Channel adapter, the fabric (two equal ways,
of which the first is used, as VMware's fixed policy does), the array's processor with its cache, the array's disks,
and the way back.

Source: the division into fabric, array controller and disks is that of P. Radkov et al., "A Performance Comparison
of NFS and iSCSI for IP-Networked Storage", FAST 2004, with a fabric of its own in the place of IP. Fabric and array
stand in the workload's host section.

Claims: fifo, work-conserving, starvation-free.

Not modelled: RAID, write-back caches, zoning, failover of a broken way.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Step, hookimpl, param
from hvbench.virtual_disks import VirtualDiskParams

AXIS = "storage"
CLAIMS = frozenset({"fifo", "starvation-free", "work-conserving"})


@frozen
class Params(VirtualDiskParams):
    """Costs of the stages before the fabric, and the number of ways through it."""

    adapter_ns: int = param(
        6_667,
        unit="ns",
        low=0,
        help="the host bus adapter's time for a request",
        source="QLogic QLE2460 data sheet: 150,000 requests a second a port (cited from memory)",
    )
    paths: int = param(
        2,
        low=1,
        high=8,
        help="equal ways through the fabric",
        source="two fabrics are common practice; VMware PSP_FIXED uses one of them at a time",
    )


@hookimpl
def hvbench_storage_path(params):
    return params.path(
        Step("queue", params.adapter_ns, moves="none", source="QLogic QLE2460 data sheet"),
        Step("fabric_out", ways=params.paths, source="workload's host section"),
        Step("processor", at="array", moves="none", source="workload's host section"),
        Step("medium", at="array"),
        Step("fabric_in", ways=params.paths, source="workload's host section"),
    )
