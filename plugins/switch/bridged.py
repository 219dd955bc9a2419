"""Bridged: an internal switch and an uplink side by side, forwarding by learnt addresses.

Overview: every VM has a port, and so has every physical network card. A frame for a VM on this host is delivered inside
the host; a frame for the outside leaves through an uplink, chosen by the originating port. Queues are FIFO with
tail drop. Each frame costs an exit of the sender's vCPU, time of the host thread that emulates its NIC (with a
copy), the same at the receiver, and an interrupt there.

Source: Linux bridge and vhost-net, ESX standard vSwitch with "route based on originating virtual port", Hyper-V
external switch. The costs' sources stand with the parameters.

Claims: fifo, delivers-inside.

Not modelled: learning and ageing of addresses (all are known), VLANs, broadcast, spanning tree.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import SwitchConfig, hookimpl, param

AXIS = "switch"
CLAIMS = frozenset({"fifo", "delivers-inside"})


@frozen
class Params:
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


@hookimpl
def hvbench_switch_config(params):
    return SwitchConfig(
        uplinks=True,
        port_queue=params.port_queue,
        kick_ns=params.kick_ns,
        interrupt_ns=params.interrupt_ns,
        frame_ns=params.frame_ns,
        kib_ns=params.kib_ns,
        ack_ns=params.frame_ns,
        segmentation_offload=params.segmentation_offload,
    )
