"""Internal: VMs talk to each other inside the host, and to nobody else.

Overview: every VM has a port; the physical network cards do not belong to the switch. A frame is delivered inside
the host. A workload whose VMs talk to the outside is refused. Queues are FIFO with tail drop.
Each frame costs an exit of the sender's vCPU, time of the host thread that emulates its NIC (with a copy), the same
at the receiver, and an interrupt there.

Source: Linux bridge without a physical port and vhost-net, ESX standard vSwitch without an uplink, Hyper-V internal
switch. The costs' sources stand with the parameters.

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
    return params.config(uplinks=False)
