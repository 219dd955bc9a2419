"""DAS: the host's own disk behind virtual SCSI, an emulator thread and a controller.

Overview: a guest's request leaves through a virtual SCSI adapter (an exit of the vCPU), is handled by the host
thread that emulates the VM's disk, passes the controller and is served by the host's disk; its completion comes back
through the same thread as an interrupt. Requests are served in order of arrival.

Source: virtio-scsi and QEMU's iothreads, ESX's vSCSI, Xen's tapdisk have these stages. The costs' sources stand
with the parameters.

Claims: fifo.

Not modelled: reordering inside the drive (native command queuing), write caches, journals.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import hookimpl, local_disk, param, virtual_disk

AXIS = "storage"
CLAIMS = frozenset({"fifo"})


@frozen
class Params:
    """Costs of the stages before the disk."""

    exit_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time to hand a request to the virtual adapter, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    emulate_ns: int = param(
        7_600,
        unit="ns",
        low=0,
        help="emulator's time to take a request and give it to the host's block layer",
        source="Yang et al., FAST 2012: 7.6 us for an interrupt-driven 4 KiB read",
    )
    complete_ns: int = param(
        3_206,
        unit="ns",
        low=0,
        help="emulator's time to complete a request",
        source="Dall et al., USENIX ATC 2017, table 2: I/O in user space, 6,732 cycles at 2.1 GHz",
    )
    interrupt_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time for the completion's interrupt, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    controller_ns: int = param(
        3_448,
        unit="ns",
        low=0,
        help="the controller's time for a request",
        source="LSI SAS 9211-8i product brief: 290,000 requests a second (cited from memory)",
    )


@hookimpl
def hvbench_storage_path(params):
    return virtual_disk(
        *local_disk(params.controller_ns),
        exit_ns=params.exit_ns,
        emulate_ns=params.emulate_ns,
        complete_ns=params.complete_ns,
        interrupt_ns=params.interrupt_ns,
    )
