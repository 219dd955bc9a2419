"""The records of the CPU side of the host, and what every axis shares: events, outbox, slots, hooks.

Every time is virtual time in int64 nanoseconds, every index is int64 with -1 for "none". The memory
side's records are in `records_memory`, storage's and network's in `records_io`.
"""

from __future__ import annotations

from hvbench.state.layout import col, record

# run states of a schedulable entity
BLOCKED, RUNNABLE, RUNNING, COSTOPPED = 0, 1, 2, 3
RUN_STATES = ("blocked", "runnable", "running", "co-stopped")

# why an entity gave up its CPU
(
    WHY_NONE,
    WHY_HALT,
    WHY_SLICE,
    WHY_PREEMPTED,
    WHY_PAUSE_LOOP,
    WHY_KICK,
    WHY_YIELD,
    WHY_HOST_FAULT,
    WHY_FORCED,
    WHY_COSTOP,
) = range(10)
STOP_REASONS = (
    "none",
    "halt",
    "slice end",
    "preempted",
    "pause loop",
    "pv kick",
    "yield",
    "host fault",
    "blocked by a policy",
    "co-stopped",
)

# kinds of entities
VCPU, HOST_THREAD = 0, 1

# states of a guest thread
T_NEW, T_READY, T_ON_VCPU, T_WAITING, T_DONE, T_DEAD, T_KILLED = 0, 1, 2, 3, 4, 5, 6

# what a guest thread waits for
(W_NONE, W_WAKE, W_TIMER, W_DISK, W_RECV, W_LOCK, W_BARRIER, W_OUTSIDE, W_SEAM, W_MEMORY, W_SEND) = range(11)

# privileged operation classes, in the order of a trace's columns
PRIVILEGED = ("syscalls", "page_faults", "pt_updates", "context_switches", "timer_programs", "ipis", "port_ios")
N_PRIVILEGED = len(PRIVILEGED)


@record("host")
class Host:
    """The header's scalars: clock, horizon, counters, error report."""

    now: int = col("virtual time, ns")
    warmup_ns: int = col("end of the warm-up: measurements begin here, ns")
    horizon_ns: int = col("end of the cell, ns")
    seed: int = col("seed of the cell")
    random_draws: int = col("numbers drawn from the policies' random generator")
    pcpus: int = col("number of pCPUs")
    vcpus: int = col("number of schedulable entities: vCPUs first, then host threads")
    guest_vcpus: int = col("number of vCPUs (the first entities)")
    vms: int = col("number of VMs")
    threads: int = col("number of guest threads")
    runnable_first: int = col("head of the arrival-ordered list of runnable entities", default=-1)
    runnable_last: int = col("tail of that list", default=-1)
    runnable_count: int = col("entities that are runnable and not running")
    heap_len: int = col("events in the heap")
    sequence: int = col("events pushed so far: the last tie-break")
    events: int = col("events popped so far")
    decisions: int = col("calls of sched_pick_next so far")
    decisions_here: int = col("decisions since virtual time last moved: a guard")
    progress_ns: int = col("virtual time at which a guest last completed work")
    running: int = col("entities running now")
    hook_row: int = col("row of the hook table being called, -1 outside: names the culprit of an exception", default=-1)
    error: int = col("error code, 0 for none (see hvbench.kernel.guards)")
    error_hook: int = col("row of the hook table whose answer was illegal", default=-1)
    error_answer: int = col("the illegal answer")
    error_extra: int = col("what the answer was about: a pCPU, a VM, a page")
    answer_slice_ns: int = col("second half of a scheduler's answer: the slice, ns")
    answer_extra: int = col("second half of another hook's answer")
    outbox_len: int = col("records in the outbox, to be drained after the hook")
    outbox_overflow: int = col("records that found the outbox full: an error of the policy")
    switch_cost_ns: int = col("direct cost of a switch between two entities, ns")
    cache_refill_tau_ns: int = col("time of others that evicts half of a working set, ns")
    cache_refill_other_ns: int = col("refill of a whole hot set after a move to another last-level cache, ns")
    cache_refill_ns: int = col("refill of a whole hot set on the same last-level cache, ns")
    guest_slice_ns: int = col("time slice of the guests' own scheduler, ns")
    guest_spin_ns: int = col("how long a guest's thread spins at a held lock before it waits, ns")
    ple_window_ns: int = col("pause-loop exit: spinning for so long makes a vCPU exit, 0 for never, ns")
    guest_switch_ns: int = col("cost of a switch between two threads by the guest's own scheduler, ns")
    work_free: int = col("first free entry of table work, -1 for none", default=-1)
    wake_cost_ns: int = col("cost, to a halted vCPU, of the interrupt of another one that wakes it, ns")
    halt_cost_ns: int = col("hypervisor cost when a vCPU halts, ns")
    ipi_cost_ns: int = col("cost, to the sender, of an interrupt to another vCPU, ns")
    timer_fire_cost_ns: int = col("hypervisor cost of delivering a guest timer, ns")
    groups: int = col("number of trace groups")
    hosted: int = col("1: type 2, there is a host operating system")
    host_tick_ns: int = col("period of a host operating system's timer tick, 0 for none")
    host_tick_cost_ns: int = col("CPU time of that tick, ns")
    user_factor_ppm: int = col("extra user time for page walks and the like, parts per million")
    kernel_factor_ppm: int = col("extra kernel time, parts per million")
    nested_walk: int = col("1: the two factors above are nested page walks, which 2 MiB backing shortens")
    resched_first: int = col("first pCPU that waits for a decision, -1 for none", default=-1)
    resched_last: int = col("last pCPU that waits for a decision", default=-1)
    requests_here: int = col("requests of policies since virtual time last moved: a guard")
    zero_time_ops: int = col("operations begun since virtual time last moved: a guard")
    timers: int = col("policy timers that exist")
    stop_at_done: int = col("1: end when every trace was passed once (--to-completion)")
    groups_left: int = col("trace groups that have not passed their trace once")


@record("pcpu")
class Pcpu:
    """A physical CPU: one hardware thread."""

    core: int = col("index of its core", "i4")
    llc: int = col("index of its last-level cache", "i4")
    llc_first: int = col("first pCPU on that cache", "i4")
    llc_end: int = col("one past the last pCPU on that cache", "i4")
    node: int = col("index of its memory node", "i4")
    idle: int = col("1 while nothing runs here and no decision is due", "i4", default=1)
    offline: int = col("1: it has left; nothing runs here", "i4")
    current: int = col("entity that runs here, -1 for none", default=-1)
    last: int = col("entity that ran here last, -1 for none", default=-1)
    segment_start_ns: int = col("when the running segment began: time up to here is accounted")
    dispatched_ns: int = col("when `current` was put here")
    slice_end_ns: int = col("when its slice ends")
    resched: int = col("1: a new decision is due")
    why: int = col("why a decision is due (STOP_REASONS)")
    busy_ns: int = col("time run here since the beginning, the clock of cache eviction")
    guest_ns: int = col("time spent on guests' work, since the end of the warm-up")
    refill_ns: int = col("time spent refilling caches, since the end of the warm-up")
    hypervisor_ns: int = col("time spent in the hypervisor or a host thread, since the end of the warm-up")
    idle_ns: int = col("time idle, since the end of the warm-up")
    next_resched: int = col("next pCPU that waits for a decision", default=-1)
    idle_on_purpose: int = col("1: the scheduler answered IDLE although something was runnable")
    tick_ns: int = col("period of the scheduler's tick on this pCPU, 0 for none")
    dispatches: int = col("entities put here, since the end of the warm-up")


@record("vcpu")
class Vcpu:
    """A schedulable entity: a vCPU, or a host thread that works on behalf of a VM."""

    vm: int = col("owner VM, -1 for the host itself", "i4")
    kind: int = col("0 vCPU, 1 host thread", "i4")
    number: int = col("number within its VM", "i4")
    state: int = col("0 blocked, 1 runnable, 2 running, 3 co-stopped", "i4")
    pcpu: int = col("pCPU where it runs, or ran last; -1 before its first run", default=-1)
    weight: int = col("weight of its VM", default=256)
    cap: int = col("cap of its VM in percent of one pCPU, 0 for none")
    runnable_since_ns: int = col("when it became runnable")
    woken_ns: int = col("when it was woken, -1 once it has run since", default=-1)
    ran_ns: int = col("time run since the beginning, ns")
    ready_ns: int = col("time runnable but not running, since the end of the warm-up")
    waited_ns: int = col("time runnable but not running, since the beginning; brought up to date when it runs")
    run_measured_ns: int = col("time run since the end of the warm-up")
    stopped_why: int = col("why it last gave up its CPU (STOP_REASONS)")
    next_runnable: int = col("next in the arrival-ordered list", default=-1)
    previous_runnable: int = col("previous in that list", default=-1)
    current_thread: int = col("guest thread that this vCPU executes, -1 for none", default=-1)
    queue_first: int = col("guest threads ready on this vCPU: first", default=-1)
    queue_last: int = col("guest threads ready on this vCPU: last", default=-1)
    queue_len: int = col("guest threads ready on this vCPU")
    guest_slice_left_ns: int = col("what is left of the current thread's slice in the guest")
    overhead_left_ns: int = col("hypervisor work that must be paid before guest work goes on")
    debt_ns: int = col("cache refill that is owed")
    refill_ahead: int = col("1: one ns more of refill than of work was paid; the next one goes to work")
    busy_mark_ns: int = col("busy_ns of its pCPU when it last stopped there")
    dispatches: int = col("times it was put on a pCPU, since the end of the warm-up")
    migrations: int = col("times it was put on another pCPU than before, since the end of the warm-up")
    overhead_ns: int = col("hypervisor time on its behalf, since the end of the warm-up")
    policy_hold: int = col("which policies block it: bit n for the one in slot n")
    hold: int = col("reasons for which it must not be run (host fault, blocked by a policy, co-stopped): a count")
    costop: int = col("1: co-stopped by the scheduler for the sake of its siblings")
    costopped_ns: int = col("time runnable but co-stopped, since the end of the warm-up")
    progress_ns: int = col("time that it got on: guest work done, or halted, up to the last settling")
    halted_since_ns: int = col("when it halted, -1 while it has something to do")
    allowed: int = col("affinity: bit mask of pCPUs (the first 63), 0 for all")
    affinity: int = col("same mask as the workload states it, 0 for none")
    wake_pending: int = col("1: became ready while held; woken when the hold ends")
    tick_work_ns: int = col("guest work since its last timer tick")
    work_first: int = col("host thread: first work item queued", default=-1)
    work_last: int = col("host thread: last work item queued", default=-1)


@record("vm")
class Vm:
    """A virtual machine."""

    first_vcpu: int = col("its first entity")
    vcpus: int = col("number of its vCPUs")
    weight: int = col("weight", default=256)
    cap: int = col("cap in percent of one pCPU, 0 for none")
    reservation: int = col("CPU reservation in percent of one pCPU")
    group: int = col("index of its trace group (VMs recorded together)")
    first_thread: int = col("its first guest thread")
    threads: int = col("number of its guest threads")
    marks: int = col("requests completed, since the end of the warm-up")
    work_done_ns: int = col("recorded compute completed, since the end of the warm-up")
    overhead_ns: int = col("hypervisor and technique time on its vCPUs, since the end of the warm-up")
    wakeups: int = col("wake-ups of its vCPUs measured")
    outside_marks: int = col("1: requests are counted on outside threads")
    spin_limit_ns: int = col("how long its threads spin at a held lock before they wait, ns")
    guest_tick_ns: int = col("period of its timer tick while a vCPU works, 0 for none, ns")
    spin_ns: int = col("time its threads spun at held locks, since the end of the warm-up")
    refill_ns: int = col("time its vCPUs spent refilling caches, since the end of the warm-up")
    backlog_warm_ns: int = col("open-loop replay: lateness of its threads when the warm-up ended, in sum")
    backlog_ns: int = col("open-loop replay: lateness of its threads at the horizon, in sum")
    crashed: int = col("1: the VM died")
    memory_pages: int = col("configured memory, 4 KiB pages")
    rt_period_ns: int = col("period of each vCPU under real-time schedulers, 0 for the scheduler's default")
    rt_budget_ns: int = col("CPU time that each vCPU is promised in a period")
    rt_extratime: int = col("1: it may also run on time that was promised to nobody", default=1)
    rt_latency_ns: int = col("period that it is scaled to after a long block, 0 for none")
    warp_ahead_ns: int = col("how far it is put ahead when woken, in CPU time at weight 256; 0 for never")
    warp_limit_ns: int = col("longest time that it stays ahead")
    warp_rest_ns: int = col("least time between two warps")


@record("group")
class Group:
    """An instance of one recorded trace: its threads pass the seam together."""

    first_thread: int = col("first guest thread")
    threads: int = col("number of threads")
    done: int = col("threads that reached the seam")
    loops: int = col("times the whole trace was passed")
    start_ns: int = col("start offset drawn by the seed")
    first_loop_ns: int = col("when the first pass ended, 0 before")
    loop_start_ns: int = col("when the current pass began")
    seam_ns: int = col("when it last passed its seam, -1 before", default=-1)
    first_flow: int = col("first flow")
    flows: int = col("number of flows")
    first_lock: int = col("first lock")
    locks: int = col("number of locks and barriers")
    killed: int = col("1: a process of it was killed; it begins again soon")


@record("thread")
class Thread:
    """A guest thread that replays one recorded thread, or an outside thread (a load generator)."""

    vm: int = col("its VM; an outside thread: the VM whose requests it makes", "i4")
    group: int = col("its trace group", "i4")
    outside: int = col("1: runs outside the host, its compute is think time", "i4")
    state: int = col("0 new, 1 ready, 2 on a vCPU, 3 waiting, 4 done, 5 dead, 6 killed: begins again", "i4")
    vcpu: int = col("vCPU that it is on or was on last", default=-1)
    next_ready: int = col("next ready thread on the same vCPU", default=-1)
    op_first: int = col("its first operation in table op")
    op_end: int = col("one past its last operation")
    op: int = col("its next operation")
    in_op: int = col("1: the operation at `op` has begun")
    waits_for: int = col("what it waits for", "i4")
    wakes: int = col("wake-ups that came before they were waited for", "i4")
    overhead_left_ns: int = col("technique's extra of the current compute, still to run (may not be negative)")
    work_left_ns: int = col("guest work of the current compute, still to run")
    recorded_left_ns: int = col("recorded compute credited when the current compute ends")
    spinning: int = col("what it spins for before it waits (W_LOCK, W_BARRIER), 0 for nothing")
    spin_left_ns: int = col("how long it will still spin beyond the current stretch, ns")
    due_ns: int = col("open-loop replay: when what it does now was due, -1 for nothing", default=-1)
    mark_ns: int = col("when the open request began, -1 for none", default=-1)
    op_progress: int = col("pages or bytes of the current operation that are done")
    seen_waits: int = col("waits so far: tells a late timer from a current one")
    need_bytes: int = col("recv, send: bytes still missing")
    next_waiter: int = col("next thread that waits for the same lock", default=-1)
    trace: int = col("which trace it replays", "i4")
    process: int = col("process number within the trace", "i4")
    process_last: int = col("1: last thread of its process", "i4")


@record("op")
class Op:
    """A recorded operation as the kernel replays it. Shared between cells: never written."""

    op: int = col("operation code (hvbench.traces.format.OPS)", "i2")
    flags: int = col("flags of the trace row", "i2")
    x: int = col("object, flow, peer, or row of table privileged (-1 for none)", "i4")
    a: int = col("user_ns | page | bytes | duration_ns")
    b: int = col("kernel_ns | pages | content")


@record("privileged")
class Privileged:
    """Counts of privileged operations in one compute. Shared between cells: never written."""

    syscalls: int = col("system calls", "i4")
    page_faults: int = col("page faults", "i4")
    pt_updates: int = col("page-table updates", "i4")
    context_switches: int = col("address-space switches", "i4")
    timer_programs: int = col("timer programmings", "i4")
    ipis: int = col("inter-processor interrupts", "i4")
    port_ios: int = col("port or MMIO accesses", "i4")


@record("cost")
class Cost:
    """The technique's extra over native of one privileged operation; one row a class, then a few more."""

    extra_ns: int = col("extra over native, ns; may be negative")


@record("fault")
class Fault:
    """A fault that the workload states."""

    kind: int = col("what fails (hvbench.kernel.faults.FAULTS)")
    target: int = col("VM or pCPU")
    at_ns: int = col("when it happens")
    until_ns: int = col("when it is over, 0 for never")


@record("event")
class Event:
    """An entry of the heap."""

    time_ns: int = col("when it is due")
    order: int = col("kind << 48 | sequence: the tie-break")
    slot: int = col("event slot: what it is about")


@record("position")
class Position:
    """Where an event slot's entry lies in the heap."""

    at: int = col("index in the heap, -1 when the slot is not armed", default=-1)


@record("hook")
class Hook:
    """One entry of the hook table: row = hook * 8 + memory layer."""

    address: int = col("native address, 0 for none")
    c_address: int = col("C address of a plain-Python implementation, 0 for none")
    slot: int = col("address of the policy's slot")
    slot_index: int = col("number of that slot")


@record("outbox")
class Outbox:
    """What a policy asked for, to be checked and done after its hook."""

    what: int = col("kind of the request (hvbench.kernel.outbox)")
    slot_index: int = col("who asked")
    row: int = col("row of the hook table that asked")
    a: int = col("first argument")
    b: int = col("second argument")
    c: int = col("third argument")
    d: int = col("fourth argument")


@record("idle")
class Idle:
    """A word of the set of idle pCPUs."""

    bits: int = col("32 pCPUs a word, bit set: idle")


@record("kind")
class Kind:
    """A kind of event: where its event slots begin."""

    base: int = col("first event slot of this kind")
    slots: int = col("number of event slots")


@record("work")
class Work:
    """A piece of work queued on a host thread."""

    cost_ns: int = col("CPU time it takes")
    what: int = col("what is to be done when it is paid (hvbench.kernel.work)")
    a: int = col("its subject: a request, a frame, a VM")
    b: int = col("a second subject")
    next: int = col("next work of the same host thread, or next free entry", default=-1)


@record("timer")
class Timer:
    """A policy's timer."""

    slot_index: int = col("whose", default=-1)
    number: int = col("the policy's number for it")


@record("axis")
class Axis:
    """What was asked of one slot: the trace of decisions as a digest."""

    asks: int = col("calls of its hooks")
    digest: int = col("hash over (hook, arguments, answer)")


@record("bucket")
class Bucket:
    """One bucket of a log-linear histogram (see hvbench.kernel.histogram)."""

    count: int = col("samples")


@record("lock")
class Lock:
    """A user-level lock or barrier of a trace group."""

    owner: int = col("thread that holds it, -1 for none", default=-1)
    first: int = col("first thread that waits", default=-1)
    last: int = col("last thread that waits", default=-1)
    count: int = col("barrier: threads that arrived")


@record("cell64")
class Word:
    """A word of a policy's arena, where its containers live."""

    value: int = col("contents")
