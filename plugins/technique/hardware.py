"""Hardware assist: the guest's kernel runs as it is, and exits to the hypervisor where it must.

Overview: system calls and, with nested paging, page faults and page-table updates do not exit. Timers, interrupts,
halts and I/O do. Nested page walks lengthen user and kernel time; with shadow paging they are native, and each
fault, update and address-space switch exits instead.

Source: exits on a Xeon E5-2450 under KVM: Dall et al., ATC 2017, table 2 (hypercall 1437 cycles, I/O in the
host kernel 2565, virtual IPI 3102) and Dall et al., ISCA 2016, table II (completing a virtual interrupt 1556).
Walks: Bhargava et al., ASPLOS 2008: with a page-walk cache and a nested TLB native remains 5 to 28 % faster; 5
% is taken, for today's larger TLBs. A walk takes up to 24 references, 19 where the hypervisor backs with 2 MiB
(4 x 3 + 4 + 3). Shadow paging: Adams and Agesen, ASPLOS 2006, figure 4, hardware VMM minus native: pgfault
11242 - 1093, ptemod 12733 - 1; an address-space switch is one exit there.

Claims: system calls at native speed.

Not modelled: posted interrupts, APIC virtualization, pause-loop exits (see the scheduler axis), nested virtualization.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.costs import TechniqueCosts, cycles
from hvbench.policy import hookimpl, param

AXIS = "technique"
CLAIMS = frozenset({"monotone"})

_D17 = "Dall et al. 2017, table 2, KVM x86"
_S3 = "Adams and Agesen 2006, figure 4, hardware VMM minus native"


@frozen
class Params:
    """Extra cycles over native."""

    nested_paging: bool = param(True, help="nested page tables; false: shadow page tables", source="EPT, NPT")
    exit: int = param(1437, unit="cycles", help="exit and entry around nothing", source=_D17)
    kernel_io: int = param(
        2565, unit="cycles", help="exit handled in the host's kernel: timer, port, doorbell", source=_D17
    )
    ipi: int = param(3102, unit="cycles", help="interrupt to another vCPU", source=_D17)
    interrupt: int = param(
        1556, unit="cycles", help="completing a virtual interrupt", source="Dall et al. 2016, table II"
    )
    walk_ppm: int = param(
        50_000,
        unit="ppm",
        low=0,
        help="user and kernel time added by nested walks over 4 KiB backing",
        source="Bhargava et al. 2008: native 5 to 28 % faster with walk cache and nested TLB",
    )
    shadow_page_fault: int = param(10149, unit="cycles", help="page fault under shadow paging", source=_S3)
    shadow_pt_update: int = param(12732, unit="cycles", help="page-table update under shadow paging", source=_S3)


@hookimpl
def hvbench_technique_costs(params, cpu_mhz):
    def ns(count):
        return cycles(count, cpu_mhz)

    shadow = not params.nested_paging
    walk = 0 if shadow else params.walk_ppm
    return TechniqueCosts(
        page_faults_ns=ns(params.shadow_page_fault) if shadow else 0,
        pt_updates_ns=ns(params.shadow_pt_update) if shadow else 0,
        context_switches_ns=ns(params.exit) if shadow else 0,
        timer_programs_ns=ns(params.kernel_io),
        ipis_ns=ns(params.ipi),
        port_ios_ns=ns(params.kernel_io),
        halt_ns=ns(params.exit),
        interrupt_ns=ns(params.interrupt),
        io_submit_ns=ns(params.kernel_io),
        user_factor_ppm=walk,
        kernel_factor_ppm=walk,
        nested_walk=not shadow,
    )
