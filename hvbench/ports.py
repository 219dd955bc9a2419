"""The virtual ports that software switches share: what a frame costs there, and how many may wait."""

from __future__ import annotations

from attrs import frozen

from hvbench.paths import SwitchConfig
from hvbench.policy import param


@frozen
class PortParams:
    """Costs of a frame, queue length, offload."""

    kick_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time to hand a frame to the virtual NIC, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    interrupt_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time for a received frame's interrupt, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    frame_ns: int = param(
        704,
        unit="ns",
        low=0,
        help="host thread's time for a frame",
        source="Tu et al., SIGCOMM 2021: 1.42 million frames a second through the host's kernel on one core",
    )
    kib_ns: int = param(
        93,
        unit="ns",
        low=0,
        help="host thread's time for each KiB copied",
        source="Agache et al., NSDI 2020: 44 Gbit/s over the host's loopback, which copies twice",
    )
    port_queue: int = param(
        256, low=1, high=65_536, help="frames that wait at a VM's port", source="QEMU virtio-net: rx_queue_size 256"
    )
    segmentation_offload: bool = param(
        True,
        help="frames of up to 64 KiB on virtual ports, cut by the network card",
        source="virtio-net's default: VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4",
    )

    def config(self, *, uplinks: bool) -> SwitchConfig:
        """A switch of such ports, with or without a way out."""
        return SwitchConfig(
            uplinks=uplinks,
            port_queue=self.port_queue,
            kick_ns=self.kick_ns,
            interrupt_ns=self.interrupt_ns,
            frame_ns=self.frame_ns,
            kib_ns=self.kib_ns,
            ack_ns=self.frame_ns,
            segmentation_offload=self.segmentation_offload,
        )
