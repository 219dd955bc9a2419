"""How a storage policy states its path, and a switch policy its configuration, as data.

A path is a tuple of steps, from the guest's front end to the medium and back. Which medium, array, filer and
network card there are, and how fast they are, stands in the workload's host section: a path says only which way a
request goes.

Exits and interrupts of a vCPU are the technique's costs and stand there. Costs in cycles were measured at 2.1 GHz
(Xeon E5-2450): C. Dall, S. Li, J. Nieh, "Optimizing the Design and Implementation of the Linux ARM Hypervisor",
USENIX ATC 2017, table 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

USER_EXIT_NS = 3_206
"""I/O of a guest handled in the host's user space: 6,732 cycles (Dall 2017, table 2, KVM x86)."""
BLOCK_LAYER_NS = 7_600
"""A 4 KiB read through the kernel's block layer, interrupt driven: 7.6 us (J. Yang, D. Minturn, F. Hady, FAST 2012)."""
CONTROLLER_NS = 3_448
"""A request at a disk controller: LSI SAS 9211-8i product brief, 290,000 requests a second
(cited from memory)."""
ADAPTER_NS = 6_667
"""A request at a Fibre Channel adapter: QLogic QLE2460 data sheet, 150,000 requests a second a
port (cited from memory)."""
FRAME_NS = 704
"""A frame through the host kernel's network stack: 1.42 million a second on one core (W. Tu et al., SIGCOMM 2021, P2P,
kernel data path, one flow)."""
COPY_KIB_NS = 93
"""Copying a KiB once: 44 Gbit/s over the host's loopback, which copies twice (A. Agache et al., "Firecracker", NSDI
2020)."""

KINDS = {
    "vcpu": "CPU time on the vCPU that submits: exits, the virtual device's front end",
    "thread": "CPU time on the host thread that emulates the VM's disk",
    "net_thread": "CPU time on the host thread that emulates the VM's NIC",
    "interrupt": "CPU time on the vCPU for the completion's interrupt",
    "delay": "a constant time",
    "queue": "a device of its own: `servers` requests at a time, `cost_ns` and `kib_ns` each",
    "fabric_out": "the fabric to the array, one of `ways` equal ways",
    "fabric_in": "the fabric back, on the same way",
    "nic_out": "the host's physical network card, the guests' frames beside it, and the filer's link",
    "nic_in": "the same, back",
    "processor": "the filer's or the array's processor, with its cache; `percent` of the workload's service time",
    "medium": "the disks; `at` says whose",
}
PLACES = ("local", "filer", "array")
MOVES = ("none", "out", "back", "all")


def _one_of(legal: tuple[str, ...]) -> Callable[[Any, Any, str], None]:
    return attrs.validators.in_(legal)


@attrs.frozen
class Step:
    """A step of a storage path. `moves` says which bytes `kib_ns` counts: `out` of writes, `back` of reads."""

    kind: str = attrs.field(validator=_one_of(tuple(KINDS)))
    cost_ns: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    kib_ns: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    moves: str = attrs.field(default="all", validator=_one_of(MOVES))
    at: str = attrs.field(default="local", validator=_one_of(PLACES))
    servers: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    ways: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    percent: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    source: str = ""


@attrs.frozen
class SwitchConfig:
    """What a switch is made of, and what a frame costs on it.

    `kick_ns` and `interrupt_ns` are vCPU time beyond what the technique charges for the exit and the interrupt
    themselves.
    """

    uplinks: bool = True
    port_queue: int = 256
    kick_ns: int = 0
    interrupt_ns: int = 0
    frame_ns: int = FRAME_NS
    kib_ns: int = COPY_KIB_NS
    ack_ns: int = FRAME_NS
    segmentation_offload: bool = True


def virtual_disk(
    *inner: Step,
    exit_ns: int = 0,
    emulate_ns: int = BLOCK_LAYER_NS,
    complete_ns: int = USER_EXIT_NS,
    interrupt_ns: int = 0,
) -> tuple[Step, ...]:
    """A path behind a virtual SCSI adapter and the thread that emulates it."""
    return (
        Step("vcpu", exit_ns, source="the technique's exit is charged on top"),
        Step("thread", emulate_ns, source="Yang et al., FAST 2012"),
        *inner,
        Step("thread", complete_ns, source="Dall et al., ATC 2017, table 2"),
        Step("interrupt", interrupt_ns, source="the technique's interrupt is charged on top"),
    )


def local_disk(controller_ns: int = CONTROLLER_NS) -> tuple[Step, ...]:
    """A controller and the host's own disk."""
    return (
        Step("queue", controller_ns, moves="none", source="LSI SAS 9211-8i product brief"),
        Step("medium", at="local"),
    )


DEFAULT_PATH = virtual_disk(*local_disk())
"""The path of `das`, also of a storage policy that only decides the order of requests."""

DIRECT_PATH = local_disk()
"""The local disk without any emulation: what the native runs use, to which slowdowns relate."""

DEFAULT_SWITCH = SwitchConfig()
"""The switch of `bridged`, also of a switch policy that states none."""

NATIVE_SWITCH = SwitchConfig(kick_ns=0, interrupt_ns=0, frame_ns=0, kib_ns=0, ack_ns=0)
"""No emulation: machines on a wire, which native runs use."""


def on_medium_of(path: tuple[Step, ...]) -> str:
    """Whose disks a path leads to."""
    return next(step.at for step in path if step.kind == "medium")


def without_emulation(path: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same way without what virtualization adds to it: the same medium for a native run."""
    return tuple(step for step in path if step.kind not in ("vcpu", "thread", "net_thread", "interrupt"))
