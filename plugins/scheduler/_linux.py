"""What Linux's fair scheduling class does the same way under CFS and EEVDF: loads, placement, balancing, bandwidth.

No policy of its own: `cfs`, `balance` and `eevdf` take it over. Functions are named after those of
kernel/sched/fair.c that they stand for, as of Linux 6.12 where nothing else is said; they are cited from memory.

How VMs become cgroups: each VM is a cgroup whose `cpu.shares` are its weight (256, the default, stands for 1024), and
its vCPUs and host threads (vhost, emulator) are the tasks in it; a host thread that belongs to no VM is a task of the
root group. Linux splits a group's shares over its run queues by their load (calc_group_shares). Here the hierarchy is
flat: the load of a task is the shares of its group divided by how many of the group's tasks are awake, looked up when
it is queued, put back, or ticked while it runs. Linux's load averages (PELT, half-life 32 ms) smooth this; here it is
instantaneous.
"""

from __future__ import annotations

from hvbench.policy import (
    NONE,
    RUNNABLE,
    VCPU,
    WHY_PAUSE_LOOP,
    OrderedIndex,
    allowed_pcpu,
    idle_on_llc,
    idle_pcpu,
    jit,
    kick,
    may_run,
    order_after,
    order_first,
    order_put,
    order_remove,
    random_below,
    state,
)

CONTAINERS = (
    OrderedIndex("queue", of="vcpu", per="pcpu"),
    # the pCPUs on which somebody waits, the most loaded first: one index for each last-level cache
    OrderedIndex("busiest", of="pcpu", per="pcpu"),
)

NICE_0 = 16_384
"""Load of a default VM (weight 256) with one task awake."""
LOAD_OF_WEIGHT = NICE_0 // 256
LEAST_LOAD = 32
"""[MIN_SHARES: 2 of 1024]"""
MOST_MOVED = 32
"""Tasks looked at in a queue when balancing. [sched_nr_migrate_break: 32]"""
IMBALANCE_PERCENT = 117
"""A queue is busier than another from this on. [sd_init: imbalance_pct 117]"""
BUSY_FACTOR = 16
"""A busy pCPU balances so much more seldom than an idle one. [sd_init: busy_factor 16]"""
BALANCE_NS_PER_PCPU = 1_000_000
"""Balancing interval of a domain, for each of its pCPUs. [sd_init: balance_interval = sd_weight, ms]"""
CACHE_NICE_TRIES = 1
"""So many vain attempts, and a cache-hot task is moved as well. [sd_init: cache_nice_tries 1]"""
MIGRATION_COST_NS = 500_000
"""Who ran so recently is cache-hot. [sysctl_sched_migration_cost 500 us]"""


@state("vcpu")
class Task:
    """An entity as a task of the fair class. Virtual times: ns of a default VM's vCPU."""

    vruntime_ns: int = 0
    load: int = NICE_0
    home: int = -1
    queued: int = 0
    placed: int = 0
    ran_until_ns: int = -(1 << 60)
    slice_ran_ns: int = 0
    deadline_ns: int = 0
    protect_ns: int = -1
    lag_ns: int = 0
    delayed: int = 0


@state("vm")
class Group:
    """A VM as a cgroup: tasks awake, what is left of its quota, who was boosted last."""

    awake: int = 0
    runtime_ns: int = 0
    throttled: int = 0
    boosted: int = 0


@state("pcpu")
class Runqueue:
    """A pCPU's run queue: who runs and since when, loads, balancing."""

    runs: int = -1
    since_ns: int = 0
    load: int = 0
    tasks: int = 0
    waiting: int = 0
    balance_ns: int = 0
    failed: int = 0
    pull_hot: int = 0
    buddy: int = -1
    skip: int = -1
    lazy: int = 0
    base_ns: int = 0
    sum_key: int = 0
    sum_load: int = 0


# loads -------------------------------------------------------------------------------------------------------


@jit
def scaled(host, base_ns):
    """A tunable scaled by the number of pCPUs. [get_update_sysctl_factor: 1 + ilog2(min(cpus, 8))]"""
    cpus = min(host.pcpus, 8)
    factor = 1
    while cpus > 1:
        cpus = cpus // 2
        factor += 1
    return base_ns * factor


@jit
def load_of(host, vcpu):
    """Load of a task now: its group's shares over the group's tasks awake. [calc_group_shares]"""
    e = host.vcpu[vcpu]
    if e.vm < 0:
        return max(LEAST_LOAD, e.weight * LOAD_OF_WEIGHT)
    return max(LEAST_LOAD, host.vm[e.vm].weight * LOAD_OF_WEIGHT // max(1, host.vm[e.vm].awake))


@jit
def virtual(delta_ns, load):
    """Time run as virtual time. [calc_delta_fair]"""
    return delta_ns * NICE_0 // load


@jit
def wakes(host, vcpu):
    """One more task of its group is awake."""
    vm = host.vcpu[vcpu].vm
    if vm >= 0:
        host.vm[vm].awake += 1


@jit
def sleeps(host, vcpu):
    """One task of its group less is awake."""
    vm = host.vcpu[vcpu].vm
    if vm >= 0:
        host.vm[vm].awake -= 1


# queues ------------------------------------------------------------------------------------------------------


@jit
def note_waiting(host, pcpu):
    """Keep the index of pCPUs on which somebody waits."""
    p = host.pcpu[pcpu]
    if p.waiting > 0:
        order_put(host, host.box.busiest + p.llc, pcpu, -p.load)
    else:
        order_remove(host, host.box.busiest + p.llc, pcpu)


@jit
def attach(host, vcpu, pcpu):
    """A task belongs to a pCPU's run queue from now on, waiting or running. [account_entity_enqueue]"""
    v = host.vcpu[vcpu]
    p = host.pcpu[pcpu]
    v.home = pcpu
    p.load += v.load
    p.tasks += 1


@jit
def detach(host, vcpu):
    """It does not any more. [account_entity_dequeue]"""
    v = host.vcpu[vcpu]
    p = host.pcpu[v.home]
    p.load -= v.load
    p.tasks -= 1
    if p.buddy == vcpu:
        p.buddy = NONE
    if p.skip == vcpu:
        p.skip = NONE
    note_waiting(host, v.home)


@jit
def stand(host, vcpu, key):
    """A task of its pCPU's run queue waits, at a place in the order. [__enqueue_entity]"""
    v = host.vcpu[vcpu]
    order_put(host, host.box.queue + v.home, vcpu, key)
    v.queued = 1
    host.pcpu[v.home].waiting += 1
    note_waiting(host, v.home)


@jit
def unstand(host, vcpu):
    """It waits no longer. [__dequeue_entity]"""
    v = host.vcpu[vcpu]
    order_remove(host, host.box.queue + v.home, vcpu)
    v.queued = 0
    host.pcpu[v.home].waiting -= 1
    note_waiting(host, v.home)


# placement ---------------------------------------------------------------------------------------------------


@jit
def has_sibling(host, vcpu, pcpu):
    """1 if another vCPU of its VM waits or runs on a pCPU."""
    vm = host.vcpu[vcpu].vm
    if vm < 0 or host.vcpu[vcpu].kind != VCPU:
        return 0
    first = host.vm[vm].first_vcpu
    for other in range(first, first + host.vm[vm].vcpus):
        if other != vcpu:
            o = host.vcpu[other]
            if o.home == pcpu and (o.queued == 1 or host.pcpu[pcpu].runs == other):
                return 1
    return 0


@jit
def fallback(host, vcpu):
    """A pCPU for a task that cannot stay: the next one it may run on; if it is pinned to none that is left, any.

    [select_fallback_rq]
    """
    pcpu = allowed_pcpu(host, vcpu, vcpu % host.pcpus)
    for step in range(host.pcpus):
        # the first one already, unless there is none on which it may run
        if host.pcpu[(pcpu + step) % host.pcpus].offline == 0:
            return (pcpu + step) % host.pcpus
    return pcpu


@jit
def idle_near(host, vcpu, pcpu):
    """An idle pCPU for a task: on the last-level cache of a pCPU if there is one, else any; -1 for none."""
    idle = idle_on_llc(host, vcpu, pcpu)
    return idle_pcpu(host, vcpu, pcpu) if idle < 0 else idle


@jit
def select_rq(host, vcpu):
    """The pCPU whose run queue a woken task joins. [select_task_rq_fair, select_idle_sibling]

    Where it ran last if that idles, else an idle pCPU on the same last-level cache, else where it ran last. A task that
    never ran goes to an idle pCPU anywhere.
    """
    prev = host.vcpu[vcpu].home
    if prev < 0 or not may_run(host, vcpu, prev):
        start = fallback(host, vcpu)
        idle = idle_near(host, vcpu, start)
        return start if idle < 0 else idle
    if host.pcpu[prev].idle == 1:
        return prev
    idle = idle_on_llc(host, vcpu, prev)
    return prev if idle < 0 else idle


# balancing ---------------------------------------------------------------------------------------------------


@jit
def can_migrate(host, vcpu, pcpu, hot, spread, now):
    """1 if a waiting task may be moved to a pCPU. [can_migrate_task, task_hot]"""
    v = host.vcpu[vcpu]
    if v.delayed == 1 or not may_run(host, vcpu, pcpu):
        return 0
    if hot == 0 and now - v.ran_until_ns < MIGRATION_COST_NS:
        return 0
    if spread == 1 and has_sibling(host, vcpu, pcpu) == 1:
        return 0
    return 1


@jit
def pull_from(host, source, pcpu, most_load, shift, hot, spread, now):
    """A task of a run queue to move to `pcpu`, at most that heavy (-1: any); NONE if there is none. [detach_tasks]"""
    vcpu = order_first(host, host.box.queue + source)
    looked = 0
    while vcpu >= 0 and looked < MOST_MOVED:
        if most_load < 0 or host.vcpu[vcpu].load >> shift <= most_load:
            if can_migrate(host, vcpu, pcpu, hot, spread, now) == 1:
                return vcpu
        vcpu = order_after(host, host.box.queue + source, vcpu)
        looked += 1
    return NONE


@jit
def newidle(host, pcpu, spread, now):
    """What a pCPU that would idle pulls: from the busiest queues of its last-level cache, then of the others.

    [sched_balance_newidle; nohz balancing, kicked by the tick of a busy pCPU, takes cache-hot tasks as well]
    """
    hot = host.pcpu[pcpu].pull_hot
    host.pcpu[pcpu].pull_hot = 0
    caches = host.pcpu[host.pcpus - 1].llc + 1
    own = host.pcpu[pcpu].llc
    for step in range(caches):
        index = host.box.busiest + (own + step) % caches
        source = order_first(host, index)
        while source >= 0:
            if source != pcpu:
                vcpu = pull_from(host, source, pcpu, -1, 0, hot, spread, now)
                if vcpu >= 0:
                    return vcpu
            source = order_after(host, index, source)
    return NONE


@jit
def rebalance(host, pcpu, spread, now):
    """What a busy pCPU pulls when its balancing is due: half of the difference to the busiest queue, or less.

    A vain attempt makes the next one less strict, so that three equal tasks take turns on two pCPUs.
    [sched_balance_domains, calculate_imbalance, nr_balance_failed]

    The interval varies at random by half (a choice of this project): on a real host load averages and interrupts see to
    it that balancing and the tasks' turns do not keep step; in step, some would be moved always and others never.
    """
    p = host.pcpu[pcpu]
    if now < p.balance_ns:
        return NONE
    interval = host.pcpus * BALANCE_NS_PER_PCPU * BUSY_FACTOR
    p.balance_ns = now + interval // 2 + random_below(host, interval)
    caches = host.pcpu[host.pcpus - 1].llc + 1
    busiest = NONE
    for cache in range(caches):
        source = order_first(host, host.box.busiest + cache)
        if source >= 0 and (busiest < 0 or host.pcpu[source].load > host.pcpu[busiest].load):
            busiest = source
    if busiest < 0 or busiest == pcpu or host.pcpu[busiest].load * 100 <= p.load * IMBALANCE_PERCENT:
        p.failed = 0
        return NONE
    imbalance = (host.pcpu[busiest].load - p.load) // 2
    hot = 1 if p.failed > CACHE_NICE_TRIES else 0
    vcpu = pull_from(host, busiest, pcpu, imbalance, min(p.failed, 30), hot, spread, now)
    if vcpu >= 0:
        p.failed = 0
    else:
        p.failed += 1
    return vcpu


@jit
def wake_an_idle_pcpu(host, pcpu):
    """Where somebody waits on a busy pCPU and another one idles, that one is told to balance. [nohz_balancer_kick]"""
    if host.pcpu[pcpu].waiting > 0:
        idle = idle_near(host, order_first(host, host.box.queue + pcpu), pcpu)
        if idle >= 0:
            host.pcpu[idle].pull_hot = 1
            kick(host, idle)


# directed yield ----------------------------------------------------------------------------------------------


@jit
def boost_target(host, vcpu):
    """Whom a vCPU that spun too long yields to. [virt/kvm/kvm_main.c, kvm_vcpu_on_spin]

    The hardware does not say who holds the lock. KVM tries the VM's vCPUs in turn, from the one after the last that was
    boosted, and takes the first that was preempted; at first those are left out that spin themselves.
    """
    vm = host.vcpu[vcpu].vm
    if vm < 0:
        return NONE
    m = host.vm[vm]
    for attempt in range(2):
        for step in range(1, m.vcpus + 1):
            number = (m.boosted + step) % m.vcpus
            other = m.first_vcpu + number
            o = host.vcpu[other]
            if other == vcpu or o.state != RUNNABLE or o.queued == 0 or o.delayed == 1:
                continue
            if attempt == 0 and o.stopped_why == WHY_PAUSE_LOOP:
                continue
            m.boosted = number
            return other
    return NONE
