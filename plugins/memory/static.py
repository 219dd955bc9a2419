"""Static partition: every VM gets all of its memory when it starts, or does not start.

Overview: a VM is admitted if its configured memory and its overhead fit into what is left of the machine,
beside the hypervisor and its
reserve. Nothing is ever taken back.

Source: Barham et al., "Xen and the Art of Virtualization", SOSP 2003, section 3.3: memory is statically
partitioned between domains at the
time of their creation.

Claims: no VM ever waits for another one's memory.

Not modelled: Xen's balloon, which a domain may use to go below its partition: stack `balloon` on it.
"""

from __future__ import annotations

from hvbench.policy import hookimpl

AXIS = "memory"
CLAIMS = frozenset({"never-reclaims"})


@hookimpl
def mem_admit(host, vm):
    machine = host.machine[0]
    room = machine.frames - machine.hypervisor - machine.reserve - machine.floor
    for m in range(vm + 1):
        x = host.vmem[m]
        # tables for a VM that maps all of its memory
        room -= x.pages + x.overhead_fixed + (x.pages * machine.overhead_ppm + 999_999) // 1_000_000
    return max(0, -room)
