"""Type 1: the hypervisor stands on the metal.

Overview: nothing is added: the technique's exits end in the hypervisor itself.

Source: by definition; the counterfactual of Sugerman et al., USENIX ATC 2001, section 3 ("if the VMM talked directly to
the host NIC").

Claims: a driver domain's or guest's fault stays its own.

Not modelled: the driver domain's own memory.
"""

from __future__ import annotations

from hvbench.costs import HostCosts
from hvbench.policy import hookimpl

AXIS = "host"


@hookimpl
def hvbench_host_costs(params, cpu_mhz):
    return HostCosts()
