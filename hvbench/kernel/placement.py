"""Which pCPUs idle near another, and how far a vCPU has got: services for schedulers."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import trailing_zeros
from hvbench.kernel.services import may_run
from hvbench.state.records import RUNNING


@jit
def first_idle(host: Any, vcpu: int, first: int, end: int) -> int:
    """The idle pCPU of lowest index in [first, end) on which `vcpu` may run; -1 for none. [scx_bpf_pick_idle_cpu]

    Looks at 32 pCPUs at a time. A pCPU that was asked for a decision and has not answered yet does not idle.
    """
    pcpu = first
    while pcpu < end:
        bits = host.idle[pcpu >> 5].bits >> (pcpu & 31)
        if bits == 0:
            pcpu = (pcpu | 31) + 1
            continue
        pcpu += trailing_zeros(bits)
        if pcpu < end and may_run(host, vcpu, pcpu):
            return pcpu
        pcpu += 1
    return -1


@jit
def idle_on_llc(host: Any, vcpu: int, near: int) -> int:
    """An idle pCPU on the last-level cache of pCPU `near` for `vcpu`: `near` itself, else the next after it; or -1.

    Where cores have several threads, one of a core that idles as a whole comes first.
    [Linux select_idle_sibling: select_idle_core, select_idle_cpu]
    """
    first = host.pcpu[near].llc_first
    end = host.pcpu[near].llc_end
    fallback = -1
    pcpu = first_idle(host, vcpu, near, end)
    wrapped = 0
    while True:
        if pcpu < 0:
            if wrapped == 1:
                return fallback
            wrapped = 1
            pcpu = first_idle(host, vcpu, first, near)
            continue
        if core_idles(host, pcpu) == 1:
            return pcpu
        if fallback < 0:
            fallback = pcpu
        pcpu = first_idle(host, vcpu, pcpu + 1, near if wrapped == 1 else end)


@jit
def core_idles(host: Any, pcpu: int) -> int:
    """1 if all hardware threads of the core of `pcpu` idle."""
    core = host.pcpu[pcpu].core
    other = pcpu
    while other >= 0 and host.pcpu[other].core == core:
        if host.pcpu[other].idle == 0:
            return 0
        other -= 1
    other = pcpu + 1
    while other < host.pcpus and host.pcpu[other].core == core:
        if host.pcpu[other].idle == 0:
            return 0
        other += 1
    return 1


@jit
def progress(host: Any, vcpu: int, now: int) -> int:
    """How long a vCPU has got on so far, ns: doing guest work, or halted. What it waited for a pCPU is missing.

    The difference between two vCPUs of a VM is their skew. [ESX 4: per-vCPU progress]
    """
    e = host.vcpu[vcpu]
    made = e.progress_ns
    if e.halted_since_ns >= 0:
        made += now - e.halted_since_ns
    elif e.state == RUNNING:
        unsettled = now - host.pcpu[e.pcpu].segment_start_ns - e.overhead_left_ns
        thread = e.current_thread
        if thread >= 0 and host.thread[thread].spinning == 0:
            unsettled -= host.thread[thread].overhead_left_ns
        if unsettled > 0:
            made += unsettled
    return made
