"""Every hook: when it is called, with what, what a legal answer is, what happens without it.

Keep this page open while you write a policy. A hook is named after its axis: `sched_*`, `mem_*`, `blk_*`, `net_*`; the coarse
ones are `hvbench_*`. The first line of a docstring ends in brackets: what kind of hook it is, then the callback of a
real system that it corresponds to.

- **decide**: returns a value, and has one implementation in a cell (a memory stack: see "Layers" of the hook).
- **notify**: returns nothing.

An implementation may leave out arguments that it does not need. Answers are int64; an index is -1 for none. `now` is
virtual time in nanoseconds. Whatever else a policy wants done it asks for through a service of
`hvbench.policy` (`kick`, `set_timer`, `migrate` ...): the request lands in a bounded outbox, and the kernel checks
and does it when the hook has returned.

A vCPU's life, as the scheduler sees it:

    sched_vcpu_insert -> [ sched_wake -> sched_select_pcpu -> ( sched_pick_next -> sched_running -> sched_stopping )+ -> sched_sleep ]*
"""

from __future__ import annotations

import inspect
import attrs
import pluggy

hookspec = pluggy.HookspecMarker("hvbench")
notify = hookspec
decide = hookspec(firstresult=True)

# ---------------------------------------------------------------------------------------------------
# scheduler: which entity (vCPU or host thread) runs on which pCPU, for how long


@notify
def sched_init(host, now):
    """The host comes up: set timers and ticks, fill own state. [notify; Xen init; sched_ext init]

    When: once, after all vCPUs were inserted, before time moves.
    """


@notify
def sched_vcpu_insert(host, vcpu, now):
    """An entity came into being. [notify; Xen insert_unit; sched_ext init_task, enable]

    When: once for each entity, in index order, before anything runs. It is blocked until its first sched_wake.
    """


@notify
def sched_vcpu_remove(host, vcpu, now):
    """An entity is gone for good (its VM died). [notify; Xen remove_unit; sched_ext disable, exit_task]

    When: it is no longer runnable; it must not be answered again.
    """


@notify
def sched_wake(host, vcpu, now):
    """An entity became runnable after being blocked. [notify; Xen wake; sched_ext runnable, enqueue]

    When: its state is RUNNABLE, it stands last in the arrival-ordered list; sched_select_pcpu follows.
    """


@notify
def sched_sleep(host, vcpu, now):
    """An entity stopped being runnable. [notify; Xen sleep; sched_ext quiescent, dequeue]

    When: after sched_stopping with runnable=0; or, while it was waiting for a CPU, because it was blocked by
    a policy or its VM died. A policy with queues of its own takes it out of them.
    """


@decide
def sched_select_pcpu(host, vcpu, prev, now):
    """Name the pCPU that should look at a woken entity. [decide; Xen pick_resource; sched_ext select_cpu]

    When: after sched_wake. Arguments: prev is the pCPU it ran on last, -1 for never.
    Returns: a pCPU, which is asked for a decision now if it idles; or -1, and nobody is asked.
    Default: prev if it idles, else the idle pCPU of lowest index, else -1. A pCPU that was asked and has not
    answered yet does not count as idle, so that several entities woken at one instant go to several pCPUs.
    Note: to preempt a busy pCPU, kick(host, pcpu).
    """


@decide
def sched_pick_next(host, pcpu, prev, now):
    """Choose who runs next on a pCPU, and for how long. [decide; Xen do_schedule; sched_ext dispatch]

    When: the pCPU idles and was asked, or the running entity blocked, used up its slice, or the pCPU was kicked.
    Arguments: prev is the entity that ran until now, -1 for none; if it still wants to run it is RUNNABLE
    again, last in the arrival-ordered list, and sched_stopping has been called for it.
    Returns: (entity, slice_ns). The entity is RUNNABLE and runs nowhere else, slice_ns is 1 or more (FOREVER for no
    end). (IDLE, t) idles on purpose: t > 0 asks again after t ns, 0 when somebody wakes or kicks.
    Default: the entity of longest arrival, 1 ms.
    """


@notify
def sched_running(host, vcpu, pcpu, now):
    """An entity was put on a pCPU. [notify; Xen context_switch; sched_ext running]"""


@notify
def sched_stopping(host, vcpu, ran_ns, runnable, now):
    """An entity left its pCPU: burn its credits here. [notify; Xen context_saved; sched_ext stopping]

    Arguments: ran_ns is what it ran since sched_running; runnable is 1 if it still wants to run.
    host.vcpu[vcpu].stopped_why says why: slice end, halt, preempted, pause loop, yield, host fault ...
    """


@notify
def sched_yield(host, vcpu, target, now):
    """A guest gave its CPU away. [notify; Xen yield; sched_ext yield]

    When: a pause-loop exit or a directed yield; target is the entity that should run instead, -1 if unknown.
    The entity stops right after this.
    """


@notify
def sched_tick(host, pcpu, vcpu, now):
    """The scheduler's tick on a busy pCPU. [notify; Xen csched_tick; sched_ext tick]

    When: every period asked for with set_tick(host, pcpu, period_ns), while the pCPU is not idle.
    """


@notify
def sched_timer(host, timer, now):
    """A timer set with set_timer is due. [notify; Xen master_ticker; bpf_timer]"""


@notify
def sched_migrate(host, vcpu, origin, pcpu, now):
    """An entity is put on another pCPU than it ran on last. [notify; Xen migrate; no counterpart in sched_ext]

    When: just before its sched_running there. Arguments: origin is where it ran before.
    """


@notify
def sched_set_weight(host, vm, weight, cap, now):
    """A VM's weight and cap are set. [notify; Xen adjust; sched_ext cgroup_set_weight, cgroup_set_bandwidth]

    When: once for each VM at the start, after its entities were inserted. cap: percent of one pCPU, 0 for none.
    """


@notify
def sched_set_affinity(host, vcpu, hard, soft, now):
    """An entity's affinity is set. [notify; Xen adjust_affinity; sched_ext set_cpumask]

    Arguments: hard and soft are bit masks of pCPUs, 0 for all. When: at the start, where the workload pins.
    """


@notify
def sched_pcpu_online(host, pcpu, now):
    """A pCPU takes part from now on. [notify; Xen alloc_pdata; sched_ext cpu_online] When: once each, at the start."""


@notify
def sched_pcpu_offline(host, pcpu, now):
    """A pCPU leaves. [notify; Xen deinit_pdata; sched_ext cpu_offline]"""


# ---------------------------------------------------------------------------------------------------
# cost axes: tables, read once when a cell is set up (`hvbench.costs`)


@decide
def hvbench_technique_costs(params, cpu_mhz):
    """What privileged work costs over native. [decide, coarse]

    When: once a cell, before anything runs; plain Python. Arguments: params is this policy's parameters, cpu_mhz the
    clock of the workload's host. Returns: hvbench.costs.TechniqueCosts. Default: none, a technique has it.
    """


@decide
def hvbench_host_costs(params, cpu_mhz):
    """What the place of the hypervisor adds. [decide, coarse]

    When: once a cell, before anything runs; plain Python. Arguments: as hvbench_technique_costs.
    Returns: hvbench.costs.HostCosts. Default: none, a host has it.
    """


# ---------------------------------------------------------------------------------------------------
# what the rest of hvbench reads from this page


@attrs.frozen
class Hook:
    """A decision-level hook: its name, axis, arguments after `host`, and whether it answers."""

    name: str
    axis: str
    arguments: tuple[str, ...]
    decides: bool
    doc: str

    @property
    def number(self) -> int:
        """Position in the hook table."""
        return NUMBERS[self.name]


PREFIXES = {"sched": "scheduler", "mem": "memory", "blk": "storage", "net": "switch"}
AXES = ("scheduler", "memory", "storage", "switch", "technique", "host")
DECISION_AXES = AXES[:4]
COST_AXES = AXES[4:]
PAIR_HOOKS = frozenset({"sched_pick_next"})
"""Hooks that answer a pair; the second half reaches the kernel as `host.answer_slice_ns`."""


def _collect() -> dict[str, Hook]:
    found = {}
    for name, value in list(globals().items()):
        prefix = name.split("_")[0]
        if prefix in PREFIXES and inspect.isfunction(value):
            doc = inspect.getdoc(value) or ""
            arguments = tuple(inspect.signature(value).parameters)[1:]
            decides = bool(getattr(value, "hvbench_spec", {}).get("firstresult"))
            found[name] = Hook(name, PREFIXES[prefix], arguments, decides, doc)
    return found


HOOKS: dict[str, Hook] = _collect()
NUMBERS: dict[str, int] = {name: i for i, name in enumerate(HOOKS)}
LAYERS = 8
"""Rows of the hook table for each hook: the layers of a memory stack; other axes use the first."""


def plugin_manager() -> pluggy.PluginManager:
    """A fresh plugin manager that knows all hooks."""
    import hvbench.hookspecs as module

    manager = pluggy.PluginManager("hvbench")
    manager.add_hookspecs(module)
    return manager


def row(name: str, layer: int = 0) -> int:
    """Row of the hook table for a hook and a memory layer."""
    return NUMBERS[name] * LAYERS + layer

