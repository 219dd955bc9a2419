"""Full virtualization by binary translation: the guest's kernel is translated, page tables are shadowed.

Overview: user code runs directly; system calls enter translated kernel code, page-table writes and faults reach
the monitor through the translator, port accesses are turned into calls (cheaper than a real port).

Source: Adams and Agesen, "A Comparison of Software and Hardware Techniques for x86 Virtualization", ASPLOS
2006, figure 4 (software VMM minus native, cycles): syscall 2296 - 243, pgfault 3927 - 1093, ptemod 391 - 1, in
217 - 3209. Address-space switch: Barham et al., "Xen and the Art of Virtualization", SOSP 2003, table 4, 2p/0K:
VMware Workstation 18.1 us, Linux 0.77 us on a 2.4 GHz Xeon. Interrupts: Sugerman et al., USENIX ATC 2001, table
1: an I/O instruction handled in the monitor takes 1.36 us at 733 MHz.

Claims: no extra on user code.

Not modelled: translation of code seen for the first time (2300 cycles an instruction), the slow-down of
indirect branches in translated kernel code (call/ret 51 against 11 cycles: recordings do not count branches).
"""

from __future__ import annotations

from attrs import frozen

from hvbench.costs import TechniqueCosts, cycles
from hvbench.policy import hookimpl, param

AXIS = "technique"
CLAIMS = frozenset({"monotone"})

_S3 = "Adams and Agesen 2006, figure 4"
_S1 = "Barham et al. 2003, table 4, 2p/0K: (18.1 - 0.77) us x 2400 MHz"
_S4 = "Sugerman et al. 2001, table 1: 1.36 us x 733 MHz"


@frozen
class Params:
    """Extra cycles over native."""

    syscall: int = param(2053, unit="cycles", help="system call", source=_S3)
    page_fault: int = param(2834, unit="cycles", help="page fault", source=_S3)
    pt_update: int = param(390, unit="cycles", help="page-table update", source=_S3)
    port_io: int = param(-2992, unit="cycles", help="port access (cheaper than a real port)", source=_S3)
    context_switch: int = param(41592, unit="cycles", help="address-space switch", source=_S1)
    interrupt: int = param(997, unit="cycles", help="interrupt, timer or halt handled in the monitor", source=_S4)


@hookimpl
def hvbench_technique_costs(params, cpu_mhz):
    def ns(count):
        return cycles(count, cpu_mhz)

    return TechniqueCosts(
        syscalls_ns=ns(params.syscall),
        page_faults_ns=ns(params.page_fault),
        pt_updates_ns=ns(params.pt_update),
        context_switches_ns=ns(params.context_switch),
        timer_programs_ns=ns(params.interrupt),
        ipis_ns=ns(params.interrupt),
        port_ios_ns=ns(params.port_io),
        halt_ns=ns(params.interrupt),
        interrupt_ns=ns(params.interrupt),
        io_submit_ns=ns(params.interrupt),
    )
