"""The cost axes: what a technique and a place of the hypervisor cost. Their plugins are tables, not decisions.

A technique's module has a coarse hook

    @hookimpl
    def hvbench_technique_costs(params, cpu_mhz): return TechniqueCosts(...)

and a host's module `hvbench_host_costs(params, cpu_mhz) -> HostCosts`. Costs are the *extra over native*; sources
give them in cycles or microseconds of their machine, `cycles` turns them into ns on the workload's clock.
"""

from __future__ import annotations

import attrs


def cycles(count: float, cpu_mhz: int) -> int:
    """Nanoseconds that `count` cycles take at `cpu_mhz`, rounded to the nearest."""
    return round(count * 1000 / cpu_mhz)


@attrs.frozen
class TechniqueCosts:
    """Extra over native, ns for each operation; a negative one is cheaper than native.

    `user_factor_ppm` and `kernel_factor_ppm` lengthen recorded user and kernel time (page walks, translated
    code). `nested_walk`: they are the cost of nested page walks over 4 KiB backing; it is smaller, the more of
    a VM is backed by 2 MiB.
    """

    syscalls_ns: int = 0
    page_faults_ns: int = 0
    pt_updates_ns: int = 0
    context_switches_ns: int = 0
    timer_programs_ns: int = 0
    ipis_ns: int = 0
    port_ios_ns: int = 0
    halt_ns: int = 0
    interrupt_ns: int = 0
    io_submit_ns: int = 0
    vcpu_switch_ns: int = 0
    user_factor_ppm: int = 0
    kernel_factor_ppm: int = 0
    nested_walk: bool = False

    @property
    def privileged_ns(self) -> tuple[int, ...]:
        """In the order of a trace's columns of privileged operations."""
        return (
            self.syscalls_ns,
            self.page_faults_ns,
            self.pt_updates_ns,
            self.context_switches_ns,
            self.timer_programs_ns,
            self.ipis_ns,
            self.port_ios_ns,
        )


@attrs.frozen
class HostCosts:
    """Where the hypervisor stands: extra over a hypervisor on the metal.

    `world_switch_ns` is one way; it is paid twice for each exit that the host must see (halts, interrupts,
    I/O). `host_os_pages` is memory that the host OS keeps; `host_tick_ns` and `host_tick_cost_ns` are its timer
    tick on each pCPU.
    """

    hosted: bool = False
    world_switch_ns: int = 0
    dispatch_ns: int = 0
    io_path_ns: int = 0
    host_os_pages: int = 0
    host_cache_pages: int = 0
    host_tick_ns: int = 0
    host_tick_cost_ns: int = 0
