"""Every hook: when it is called, with what, what a legal answer is, what happens without it.

Keep this page open while you write a policy. A hook is named after its axis: `sched_*`, `mem_*`, `blk_*`,
`net_*`; the coarse ones are `hvbench_*`. The first line of a docstring ends in brackets: what kind of hook it
is, then the callback of a real system that it corresponds to.

- **decide**: returns a value, and has one implementation in a cell (a memory stack: see "Layers" of the hook).
- **notify**: returns nothing.

An implementation may leave out arguments that it does not need. Answers are int64; an index is -1 for none. `now` is
virtual time in nanoseconds. Whatever else a policy wants done it asks for through a service of
`hvbench.policy` (`kick`, `set_timer`, `migrate` ...): the request lands in a bounded outbox, and the kernel checks
and does it when the hook has returned.

A vCPU's life, as the scheduler sees it:

    sched_vcpu_insert -> [ sched_wake -> sched_select_pcpu -> ( sched_pick_next -> sched_running ->
    sched_stopping )+ -> sched_sleep ]*

A scheduler may co-stop a vCPU for the sake of its siblings (`costop`): it is then in a run state of its own, COSTOPPED,
leaves as if it slept (sched_stopping, sched_sleep), and comes back with sched_wake after `costart`.
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
    host.vcpu[vcpu].stopped_why says why: slice end, halt, preempted, pause loop, yield, host fault,
    co-stopped ...
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
# memory: who gets machine memory, and how it is taken back
#
# A cell has a stack of up to eight memory policies, in an order that the user gives; "Layers" says how their answers
# compose. Sizes are 4 KiB pages. What a policy reads: host.machine[0] (free frames, state of free memory),
# host.vmem[vm] (sizes, balloon, resident, swapped, shared, overhead), host.page[g] (guest pages: one VM after the
# other, from vmem.first on), and the services content, backed, swappable, sharers, page_vm,
# random_page, write_protected, watched, in_large, image_block, compressed_bytes. What it asks for: reclaim, merge,
# merge_zero, scan, tune_scan, pool_out, set_free_states, set_clear_state, balance, watch, set_balloon_driver,
# set_timer, block.


@notify
def mem_init(host, now):
    """The host comes up: set timers and thresholds, fill own state. [notify; KSM and balloon module init]

    When: once, before any VM is admitted. Layers: all.
    """


@notify
def mem_timer(host, timer, now):
    """A timer set with set_timer is due. [notify; ksmd's sleep, ESX's sampling period] Layers: the one that set it."""


@decide
def mem_admit(host, vm, now):
    """Whether a VM may be started. [decide; ESX admission control, xl's memory check, KVM: none]

    When: once for each VM, in index order, before anything runs. host.vmem[vm].pages, .overhead_fixed,
    .reservation and .limit are what it wants, host.machine[0].frames, .hypervisor and .reserve what there is.
    Returns: 0 admits; n > 0 refuses: so many pages are missing. The cell is then *refused*, and the reason
    names the policy.
    Default: 0. Layers: all must agree.
    """


@decide
def mem_balloon_target(host, vm, now):
    """The size that a VM should have. [decide; ESX vmmemctl target, Xen memory/target, virtio_balloon num_pages]

    When: every balance period (1 s; see balance) and when the state of free memory changes.
    Returns: pages, 0 to host.vmem[vm].pages; the balloon moves to the rest at the driver's rate, in the guest's
    own CPU time. -1: no opinion. Default: -1, that is no balloon. Layers: the smallest answer wins; no VM goes
    below its reservation.
    """


@decide
def mem_reclaim(host, pages, state, now):
    """Machine memory is short: say how much of it you see to. [decide; ESX reclamation states, Linux shrinkers]

    When: the state of free memory is soft or worse, or a vCPU waits for a frame (then state is low); again while it
    lasts.
    Arguments: pages is what is missing to host.machine[0].goal after the layers above; state is FREE_SOFT, FREE_HARD or
    FREE_LOW.
    Returns: how many of them this layer sees to, 0 to pages; it asks for them with reclaim, or has its balloon
    targets do it.
    Default: 0. Layers: in order, each sees the remainder. What is left when a vCPU waits the kernel swaps out
    by itself.
    """


@decide
def mem_pick_victim(host, vm, now):
    """The next guest page of a VM to swap out. [decide; ESX: random; Linux: the inactive list's tail]

    When: a page of that VM is to go to the hypervisor's swap. Returns: a page for which swappable() is true, or -1.
    Default: a random page. Layers: the first that has one.
    """


@decide
def mem_idle_price(host, vm, now):
    """What a VM pays for a page: memory is taken from whoever pays least. [decide; ESX shares-per-page with idle tax]

    When: reclaim(-1, ...) or the kernel looks for a VM to take from. Returns: a price, 0 or more; -1: no opinion.
    Default: shares of memory x 10^9 / resident pages. Layers: the first that has one.
    """


@notify
def mem_fault(host, vm, page, kind, now):
    """A guest touched a page that has no frame, or is watched. [notify; KVM tdp_page_fault; ESX working-set sampling]

    Arguments: kind is TOUCH_FIRST (0) for a first touch (the page has its frame already), TOUCH_SWAPPED (1) for one
    that comes back from the hypervisor's swap, TOUCH_WATCHED (2) for a touch of a page that was watched (see watch),
    which follows one of the others if the page had no frame.
    Layers: all.
    """


@decide
def mem_swap_out(host, vm, page, now):
    """How a page that is to leave machine memory does. [decide; zswap_store; ESX: share, else compress, else swap]

    When: the page was picked as a victim, or named by reclaim(vm, BY_PAGE, page); it has a frame of its own.
    Returns: TO_SWAP (0), to the hypervisor's swap area; TO_POOL (1), compressed into the pool of host memory, whose
    size is this policy's to watch (compressed_bytes, pool_out); KEEP (2), not at all now, because this layer
    asked for something else, as a merge.
    Default: TO_SWAP. Layers: the first that does not say TO_SWAP.
    """


@decide
def mem_image_read(host, vm, page, block, read, now):
    """Whether some memory has the block of the base image that a guest reads. [decide; Satori: sharing-aware disk]

    When: for each page of a read of a base-image file that the VM has not written: with read 0 before the disk is
    asked, and with read 1 when the block has come from it. Arguments: page is the guest page that the block is for, and
    block the identity of its contents (that of content(host, page)).
    Returns: a guest page other than this one for which shareable() is true and content() is block: the two share its
    frame from now on, and with read 0 nothing is read. -1: none.
    Default: -1. Layers: the first that has one.
    """


@notify
def mem_share_scan(host, pages, now):
    """The scan thread has paid for looking at some pages: look at them. [notify; KSM scan_get_next_rmap_item]

    When: after scan(host, pages), as soon as the scan thread got the CPU time. Reads contents with
    content(host, page), and asks for merge(host, page, other). Layers: the one that asked.
    """


@decide
def mem_share_merge(host, page, other, now):
    """Whether two equal pages may be merged. [decide; KSM max_page_sharing, MADV_UNMERGEABLE; ESX: large pages]

    When: the hypervisor has compared them, and they are equal. Arguments: `other` is to map the frame of `page`; -1
    is the hypervisor's own page of zeros. Returns: 1 or 0. Default: 1. Layers: all must agree.
    """


@notify
def mem_share_merged(host, page, other, merged, now):
    """What came of a merge that this layer asked for. [notify; KSM: stable_tree_append after try_to_merge_one_page]

    When: the scan thread has paid for comparing the two. Arguments: merged is 1 if `other` now maps the frame of
    `page` (after merge_zero: page is -1, the hypervisor's page of zeros); 0 if they were not equal any more, one
    of them went away or had something done to it, they stood on one frame already, or a layer forbade it.
    Layers: the one that asked.
    """


@notify
def mem_cow_break(host, vm, page, frame, now):
    """A guest wrote to a shared page, which now has a frame of its own. [notify; KVM/KSM write fault] Layers: all.

    Arguments: frame is the one that it shared until now.
    """


@decide
def hvbench_memory_stack(params):
    """Name other memory policies that take this one's place, in order. [decide, coarse; ESX's fixed order]

    When: a choice is read, before any cell is made; plain Python. A policy with this hook has no other, and its layers'
    parameters are functions of its own. Arguments: params is the policy's Params instance (None without one).
    Returns: a tuple of `hvbench.policy.Layer`, the top one first. Default: the policy stands for itself.
    """


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
# storage: the way of a block request to its medium and back, and the order in which media serve


@decide
def hvbench_storage_path(params):
    """State the way of a block request as data. [decide, once a cell; no counterpart: drivers hard-code it]

    Arguments: params is the policy's Params instance (None without one).
    Returns: a tuple of `hvbench.policy.Step`, from the guest's front end to the medium and back.
    Default: the path of the `das` policy, so that an elevator alone is a storage policy.
    """


@notify
def blk_init(host, now):
    """The host comes up: set timers, fill own state. [notify; elevator init_sched; tapdisk td_open]"""


@decide
def blk_dispatch(host, dev, now):
    """Choose the request that a medium serves next. [decide; blk-mq elevator dispatch_request; vSCSI queue]

    When: a medium (a station of kind 2) has a free server and requests wait, of which at least one is of a VM below its
    depth. Iterate with blk_first(host, dev) and blk_next(host, request).
    Returns: a request that waits at dev; or -1 to leave it idle until the next arrival, completion or
    serve_device(host, dev).
    Default: the first in order of arrival whose VM is below its depth.
    """


@decide
def blk_limit_depth(host, vm, dev, now):
    """Say how many requests of a VM a medium serves at once. [decide; elevator limit_depth; ESX SIOC, DSNRO]

    When: before each dispatch, for the VM (-1: the host's swap area) of each request looked at in order of arrival.
    Returns: 1 or more. Default: the medium's queue depth.
    """


@decide
def blk_select_path(host, request, paths, now):
    """Choose one of several equal ways through the fabric. [decide; VMware PSP fixed, MRU, RR; dm-multipath selector]

    When: a request enters the fabric and the path has more than one way; it comes back by the same one.
    Returns: 0 to paths - 1. Default: 0 (VMware's PSP_FIXED).
    """


@decide
def blk_allow_merge(host, request, other, now):
    """Allow two adjacent requests to be served as one. [decide; elevator allow_merge; tapdisk: none]

    When: `other` arrives at a medium and continues the request that arrived last there, of the same VM and direction.
    Returns: 1 or 0. Default: 1.
    """


@decide
def blk_service(host, request, dev, now):
    """Add to the service time of a request at a medium. [decide; tapdisk td_queue_read, td_queue_write]

    When: the request has been dispatched. Returns: extra ns, 0 or more, to the medium's own time. Default: 0.
    """


@notify
def blk_insert(host, request, dev, now):
    """A request arrived at a medium's queue. [notify; elevator insert_requests; virtio-blk queue_rq]"""


@notify
def blk_complete(host, request, dev, now):
    """A medium has served a request. [notify; elevator completed_request; tapdisk td_complete]"""


@notify
def blk_timer(host, timer, now):
    """A timer set with set_timer is due. [notify; elevator's own timers; BFQ idle_slice_timer]"""


# ---------------------------------------------------------------------------------------------------
# switch: the way of a frame between VMs and to the outside


@decide
def hvbench_switch_config(params):
    """State the switch as data: uplinks or none, queue lengths, costs. [decide, once a cell; Open vSwitch ovsdb]

    Arguments: params is the policy's Params instance (None without one).
    Returns: an `hvbench.policy.SwitchConfig`. Default: that of `bridged`.
    """


@notify
def net_init(host, now):
    """The host comes up: set timers, fill own state. [notify; Open vSwitch ofproto construct]"""


@notify
def net_port_add(host, port, now):
    """A port came into being. [notify; Open vSwitch dpif port_add; Xen vif-bridge online]

    When: once for each port, in index order (VMs first, then attached uplinks), before net_init.
    host.port[port].kind is 0 for a VM's port and 1 for an uplink.
    """


@notify
def net_port_del(host, port, now):
    """A port is gone (its VM died). [notify; Open vSwitch dpif port_del; Xen vif-bridge offline]"""


@decide
def net_forward(host, frame, in_port, now):
    """Choose the port that a frame leaves by. [decide; Open vSwitch upcall and flow actions; Linux bridge FDB lookup]

    When: the frame came in at in_port (a VM's or an uplink). host.frame[frame].target_port is where its receiver is.
    Returns: a port; -1 drops it; -2 floods it to every port but in_port, the one copy that matters among them.
    Default: target_port, as a bridge that has learnt all addresses. A frame that only reaches a wrong port counts as
    dropped.
    """


@decide
def net_select_uplink(host, in_port, half, uplinks, now):
    """Choose the uplink for a frame to the outside. [decide; vSphere teaming: srcid, ip, srcmac, loadbased, failover]

    When: before net_forward, where the receiver is outside; in_port and half are -1 for NAS traffic.
    Returns: 0 to uplinks - 1. Default: in_port % uplinks (vSphere's "originating virtual port"), 0 for NAS traffic.
    """


@decide
def net_enqueue(host, frame, port, now):
    """Let a frame into a port's queue. [decide; qdisc enqueue; Open vSwitch policing]

    Returns: 1 takes it, 0 drops it; a full queue drops it whatever the answer is, but for NAS traffic, whose sender is
    held back instead. Default: 1 unless the queue is full.
    """


@decide
def net_dequeue(host, port, now):
    """Choose the frame that leaves a port next. [decide; qdisc dequeue]

    When: the port's device (link or host thread) is free and frames wait. Iterate with net_first(host, port) and
    net_next(host, frame).
    Returns: a frame that waits at the port; or -1 to leave it idle until the next arrival or serve_port(host, port).
    Default: the first in order of arrival.
    """


@notify
def net_timer(host, timer, now):
    """A timer set with set_timer is due. [notify; qdisc watchdog; Open vSwitch revalidator]"""


# ---------------------------------------------------------------------------------------------------
# traces: formats that `hvbench import` reads


@decide
def hvbench_import_format():
    """State a format of recordings that can be imported as a trace. [decide, coarse]

    When: `hvbench import` looks for formats; plain Python, of modules whose entry point's name begins with `import.`,
    and of files given as `./mine.py`. Importing the module should be quick: heavy libraries are imported in `read`.
    Returns: a hvbench.traces.importers.api.Format, or a tuple of them: name, extensions, `sniff` (first bytes -> how
    sure, 0 to 1), options with units and help, and `read` (a generator of batches of rows).
    Default: none, an importer has it.
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

