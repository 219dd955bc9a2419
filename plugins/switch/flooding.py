"""Control: a hub. Every frame goes to every port, the uplink included.

Overview: the configuration of `bridged`, but nothing is ever learnt: copies of each frame go to all ports, take the
host threads' time and queues there, and bandwidth on the uplink, and are thrown away by those whom they do not concern.

Source: none; deliberately bad, to show that the switch axis measures something. It costs next to nothing where the
uplink is not saturated.

Claims: none.

Not modelled: nothing.
"""

from __future__ import annotations

from hvbench.policy import Control, hookimpl

AXIS = "switch"
CONTROL = Control(
    worst_on={"web": "slowdown_geomean"}, why="traffic between the host's VMs takes the uplink's bandwidth, too"
)

FLOOD = -2


@hookimpl
def net_forward(host, frame, in_port, now):
    return FLOOD
