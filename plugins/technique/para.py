"""Para-virtualization: the guest's kernel knows, and asks by hypercall.

Overview: system calls stay direct; page faults and page-table updates enter the hypervisor, which validates updates; a
switch of address space is a hypercall.

Source: Barham et al., "Xen and the Art of Virtualization", SOSP 2003, on a 2.4 GHz Xeon, Xen minus L-UP. Null
call 0.46 - 0.45 us (table 3); context switch 2p/0K 1.97 - 0.77 us (table 4); page fault 2.73 - 1.42 us (table
5), which the text explains by two entries into Xen: one for the fault and one for the page-table update, so
each is half of 1.31 us here.

Claims: no extra on user code; page tables are the guest's own, walks are native.

Not modelled: batches of page-table updates (up to 2048 in one hypercall): each update is charged as if alone.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.costs import TechniqueCosts, cycles
from hvbench.policy import hookimpl, param

AXIS = "technique"
CLAIMS = frozenset({"monotone"})

_ENTRY = "Barham et al. 2003, table 5: (2.73 - 1.42) us x 2400 MHz / 2 entries"


@frozen
class Params:
    """Extra cycles over native."""

    syscall: int = param(
        24, unit="cycles", help="system call", source="Barham et al. 2003, table 3: 0.01 us x 2400 MHz"
    )
    entry: int = param(
        1572, unit="cycles", help="one entry into the hypervisor: a fault, an update, an event", source=_ENTRY
    )
    context_switch: int = param(
        2880,
        unit="cycles",
        help="address-space switch",
        source="Barham et al. 2003, table 4, 2p/0K: 1.20 us x 2400 MHz",
    )


@hookimpl
def hvbench_technique_costs(params, cpu_mhz):
    entry = cycles(params.entry, cpu_mhz)
    return TechniqueCosts(
        syscalls_ns=cycles(params.syscall, cpu_mhz),
        page_faults_ns=entry,
        pt_updates_ns=entry,
        context_switches_ns=cycles(params.context_switch, cpu_mhz),
        timer_programs_ns=entry,
        ipis_ns=entry,
        port_ios_ns=entry,
        halt_ns=entry,
        interrupt_ns=entry,
        io_submit_ns=entry,
    )
