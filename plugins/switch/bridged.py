"""Bridged: an internal switch and an uplink side by side, forwarding by address.

Overview: every VM has a port, and so has every physical network card. A frame for a VM on this host is delivered inside
the host; a frame for the outside leaves through an uplink, chosen by the originating port. Queues are FIFO with
tail drop. Each frame costs an exit of the sender's vCPU, time of the host thread that emulates its NIC (with a
copy), the same at the receiver, and an interrupt there.

Source: Linux bridge and vhost-net, ESX standard vSwitch with "route based on originating virtual port", Hyper-V
external switch. The costs' sources stand with the parameters.

Claims: fifo, delivers-inside, lossless.

Not modelled: learning and ageing of addresses (all are known), VLANs, broadcast, spanning tree.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import hookimpl
from hvbench.ports import PortParams

AXIS = "switch"
CLAIMS = frozenset({"delivers-inside", "fifo", "lossless"})


@frozen
class Params(PortParams):
    """Costs of a frame, queue length, offload: those of any software switch."""


@hookimpl
def hvbench_switch_config(params):
    return params.config(uplinks=True)
