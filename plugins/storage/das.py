"""DAS: the host's own disk behind virtual SCSI, an emulator thread and a controller.

Overview: a guest's request leaves through a virtual SCSI adapter (an exit of the vCPU), is handled by the host
thread that emulates the VM's disk, passes the controller and is served by the host's disk; its completion comes back
through the same thread as an interrupt. Requests are served in order of arrival.

Source: virtio-scsi and QEMU's iothreads, ESX's vSCSI, Xen's tapdisk have these stages. The costs' sources stand
with the parameters.

Claims: fifo, work-conserving, starvation-free.

Not modelled: reordering inside the drive (native command queuing), write caches, journals.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import hookimpl, local_disk, param
from hvbench.virtual_disks import VirtualDiskParams

AXIS = "storage"
CLAIMS = frozenset({"fifo", "starvation-free", "work-conserving"})


@frozen
class Params(VirtualDiskParams):
    """Costs of the stages before the disk."""

    controller_ns: int = param(
        3_448,
        unit="ns",
        low=0,
        help="the controller's time for a request",
        source="LSI SAS 9211-8i product brief: 290,000 requests a second (cited from memory)",
    )


@hookimpl
def hvbench_storage_path(params):
    return params.path(*local_disk(params.controller_ns))
