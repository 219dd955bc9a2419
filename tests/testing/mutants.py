"""Broken copies of the bundled policies, each with the check of the kit that finds it by name."""

from __future__ import annotations

from attrs import frozen


@frozen
class Mutant:
    """A bundled file, what is changed in it (old, new), the check that finds it, and what it says."""

    file: str
    changes: tuple[tuple[str, str], ...]
    check: str
    says: str = ""
    more: str = ""
    compiles: bool = False
    """Whether its run is so long that compiling it pays."""


RR = "scheduler/round_robin"
PICK = "def sched_pick_next(host, pcpu, prev, now):\n"
MUTANTS = {
    "an answer that is illegal one time in many": Mutant(
        RR, ((PICK, PICK + "    if now % 97 == 13:\n        return host.vcpus, 1000\n"),), "legal", "answered"
    ),
    "an exception now and then": Mutant(
        RR, ((PICK, PICK + "    if now % 97 == 13:\n        raise ValueError('odd')\n"),), "legal", "ValueError: odd"
    ),
    "a counter in the module": Mutant(
        RR,
        ((PICK, PICK + "    CALLS.append(pcpu)\n    if len(CALLS) % 7 == 0:\n        return -1, 500\n"),),
        "repeatable",
        "two runs of one host differ",
        "CALLS = []\n",
    ),
    "random numbers of its own": Mutant(
        RR,
        ((PICK, PICK + "    if random.random() < 0.1:\n        return -1, 500\n"),),
        "repeatable",
        "two runs of one host differ",
        "import random\n",
    ),
    "the hash of a text": Mutant(
        RR,
        ((PICK, PICK + "    if hash('salt') % 3 != hash('sugar') % 3:\n        return -1, 500 + hash('salt') % 40\n"),),
        "repeatable-elsewhere",
        "another process computes something else",
    ),
    "a write to the kernel's table": Mutant(
        RR, ((PICK, PICK + "    host.vcpu.columns['weight'][0] = 7\n"),), "no-writes", "vcpu.weight"
    ),
    "a mask that is too short": Mutant(
        RR, ((PICK, PICK + "    if pcpu > 63:\n        return 1 << pcpu, 1\n"),), "many-pcpus", "sched_pick_next"
    ),
    "a division by the number of VMs": Mutant(
        RR,
        (),
        "no-vms",
        "ZeroDivisionError",
        "@hookimpl\ndef sched_init(host, now):\n    x = 100 // host.vms\n",
    ),
    "a neighbour that is not there": Mutant(
        RR, ((PICK, PICK + "    if host.pcpu[pcpu ^ 1].current < -5:\n        return -1, 0\n"),), "one-pcpu", ""
    ),
    "a vCPU that is never run": Mutant(
        RR,
        ((PICK, PICK + "    if runq_first(host) == 2 and runq_next(host, 2) < 0:\n        return -1, 0\n"
          "    if runq_first(host) == 2:\n        return runq_next(host, 2), host.params.timeslice_ns\n"),),
        "starvation-free",
        "vCPU 0 of VM 2 was runnable for",
    ),
    "a pCPU that idles for nothing": Mutant(
        RR, ((PICK, PICK + "    if now % 3 == 0 and prev < 0:\n        return -1, 90_000\n"),), "work-conserving", ""
    ),
    "a parameter that nobody reads": Mutant(
        RR, (("host.params.timeslice_ns", "7_000_000"),), "parameters-used", "declared but ignored: timeslice_ns"
    ),
    "a claim that does not exist": Mutant(
        RR, (('"work-conserving"', '"work-conservin"'),), "claims-known", "did you mean"
    ),
    "a forgotten credit charge": Mutant(
        "scheduler/credit", (("v.credit_ns -= ran_ns", "pass"),), "weight-proportional", "is its share"
    ),
    "a storage queue that loses one request in a thousand": Mutant(
        "storage/das",
        (),
        "requests-complete",
        "were never completed",
        '''
from hvbench.policy import blk_first, blk_next, state


@state("host")
class Own:
    arrivals: int = 0


@state("request")
class Request:
    lost: int = 0


@hookimpl
def blk_insert(host, request, dev, now):
    host.own.arrivals += 1
    host.request[request].lost = 1 if host.own.arrivals % 1000 == 0 else 0


@hookimpl
def blk_dispatch(host, dev, now):
    request = blk_first(host, dev)
    while request >= 0 and host.request[request].lost == 1:
        request = blk_next(host, request)
    return request
''',
    ),
    "a disk queue served from its end": Mutant(
        "storage/das",
        (),
        "fifo",
        "was served before one that had waited longer",
        '''
from hvbench.policy import blk_first, blk_next


@hookimpl
def blk_dispatch(host, dev, now):
    request = blk_first(host, dev)
    while blk_next(host, request) >= 0:
        request = blk_next(host, request)
    return request
''',
    ),
    "a switch that floods everything": Mutant(
        "switch/bridged",
        (),
        "delivers-inside",
        "frames between other VMs left by",
        "\n\n@hookimpl\ndef net_forward(host, frame, in_port, now):\n    return -2\n",
    ),
    "a switch that loses a VM's frames": Mutant(
        "switch/bridged",
        (),
        "messages-arrive",
        "",
        "\n\n@hookimpl\ndef net_forward(host, frame, in_port, now):\n"
        "    return -1 if in_port == 0 else host.frame[frame].target_port\n",
    ),
    "a switch queue served from its end": Mutant(
        "switch/bridged",
        (),
        "fifo",
        "was served before one that had waited longer",
        "\n\nfrom hvbench.policy import net_first, net_next\n\n\n@hookimpl\ndef net_dequeue(host, port, now):\n"
        "    frame = net_first(host, port)\n    while net_next(host, frame) >= 0:\n"
        "        frame = net_next(host, frame)\n"
        "    return frame\n",
    ),
    "an admission that refuses what fits": Mutant(
        "memory/static", (("return max(0, -room)", "return 1"),), "admits-what-fits", "refuses VM 0"
    ),
    "a static partition that swaps": Mutant(
        "memory/static",
        (),
        "never-reclaims",
        "pages were",
        "\n\nfrom hvbench.policy import BY_SWAP, reclaim, set_timer\n\n\n@hookimpl\ndef mem_init(host, now):\n"
        "    set_timer(host, 0, now + 1_000_000_000)\n\n\n@hookimpl\ndef mem_timer(host, timer, now):\n"
        "    reclaim(host, 0, BY_SWAP, 20)\n",
    ),
    "a cost in another unit": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=ns(params.exit) * 10**6"),), "costs-units", "10 ms"
    ),
    "a cost that is no number": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=None"),), "costs-complete", "halt_ns is None"
    ),
    "a cost below zero": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=-5"),), "costs-finite", "cannot be cheaper"
    ),
    # schedulers
    "a neighbour that reads what another host left": Mutant(
        RR,
        ((PICK, PICK + "    CALLS.append(pcpu)\n    if len(CALLS) % 7 == 0:\n        return -1, 500\n"),),
        "independent",
        "beside another host it runs differently",
        "CALLS = []\n\n\n@hookimpl\ndef sched_init(host, now):\n    CALLS.clear()\n",
    ),
    "an integer of more than 64 bits": Mutant(
        RR,
        ((PICK, PICK + "    if (now * 6364136223846793005 + 1442695040888963407) // 4096 % 3 == 0:\n"
          "        return -1, 500\n"),),
        "modes",
        "differ in",
    ),
    "a pCPU for each vCPU of a VM": Mutant(
        RR,
        ((PICK, PICK + "    first = runq_first(host)\n"
          "    if first >= 0 and host.pcpu[host.vcpu[first].number].current < -5:\n        return -1, 0\n"),),
        "wide-vm",
        "sched_pick_next",
    ),
    "a pCPU that may not leave": Mutant(
        RR,
        (),
        "faults",
        "ZeroDivisionError",
        "@hookimpl\ndef sched_pcpu_offline(host, pcpu, now):\n    share = 100 // (host.pcpus - host.pcpus)\n",
    ),
    "a slice that may be negative": Mutant(
        RR, (("        low=1,\n", "        low=-5,\n"),), "parameters-bounds", "with timeslice_ns at -5ns"
    ),
    "tickets that are the same for all": Mutant(
        "scheduler/stride",
        (("    order_put(host, host.box.passes, vcpu, v.passed)", "    order_put(host, host.box.passes, vcpu, now)"),),
        "weights",
        "of weight",
    ),
    "a cap that parks nobody": Mutant(
        "scheduler/credit", (("and left < -cap_ns and v.parked == 0", "and left < -cap_ns and v.parked == 7"),),
        "caps",
        "has a cap of",
    ),
    "a reservation in thousandths": Mutant(
        "scheduler/rtds", (("(100 * m.vcpus)", "(1000 * m.vcpus)"),), "reservations", "has a reservation of 50 %"
    ),
    "half of each budget": Mutant(
        "scheduler/rtds", (("= m.rt_budget_ns\n", "= m.rt_budget_ns // 2\n"),), "real-time", "10 ms in every 40 ms"
    ),
    "a queue that forgets who may run where": Mutant(
        "scheduler/stride", (("and not may_run(host, vcpu, pcpu)", "and vcpu < 0"),), "affinity", "affinity mask"
    ),
    "a round robin that says it is quick": Mutant(
        RR, (('"work-conserving"', '"bounded-latency"'),), "bounded-latency", "waits"
    ),
    # memory
    "a VM that is blocked and forgotten": Mutant(
        "memory/balloon",
        (("balance(host, p.period_ns)\n", "balance(host, p.period_ns)\n    set_timer(host, 0, 1_500_000_000)\n"),),
        "progress",
        "completed nothing in the last second",
        "from hvbench.policy import block, set_timer\n\n\n"
        "@hookimpl\ndef mem_timer(host, timer, now):\n    block(host, host.vm[1].first_vcpu)\n",
    ),
    "a balloon that nobody inflates": Mutant(
        "memory/balloon", (("return balloon_size(host, vm)", "return host.vmem[vm].pages"),), "balloons", "no balloon"
    ),
    "a balloon that never deflates": Mutant(
        "memory/idle_tax",
        (("return balloon_size(host, vm)",
          "return min(balloon_size(host, vm), host.vmem[vm].pages - host.vmem[vm].balloon_target)"),),
        "gives-back",
        "pages of VM 0 are still in its balloon",
    ),
    "a ratio in thousandths": Mutant(
        "memory/overcommit", (("ratio_percent // 100", "ratio_percent // 1000"),), "overcommits", "it refuses VM"
    ),
    "a scan that merges nothing": Mutant(
        "memory/page_sharing",
        (("merge(host, g, h)", "pass"), ("merge(host, h, g)", "pass")),
        "shares",
        "no frame was saved",
        compiles=True,
    ),
    "a tax on memory that is used": Mutant(
        "memory/idle_tax",
        (("return int(max(x.slow, x.fast, current) * x.pages)",
          "return x.pages - int(max(x.slow, x.fast, current) * x.pages)"),),
        "taxes-idle-memory",
        "the idle VM holds",
    ),
    "an image whose readers are forgotten": Mutant(
        "memory/satori", (("    page.reads = 1\n", "    page.reads = 0\n"), ("if h >= 0 or read == 1:", "if h < -5:")),
        "shares-reads",
        "the second read",
    ),
    "a pool that takes nothing": Mutant(
        "memory/compression", (("    return TO_POOL", "    return TO_SWAP"),), "compresses", "0 pages were compressed"
    ),
    # storage and switches
    "a disk that waits for a second request": Mutant(
        "storage/das",
        (),
        "work-conserving",
        "a medium idled for",
        "\n\nfrom hvbench.policy import blk_first, blk_next\n\n\n@hookimpl\ndef blk_dispatch(host, dev, now):\n"
        "    request = blk_first(host, dev)\n    return request if blk_next(host, request) >= 0 else -1\n",
    ),
    "a disk that prefers who came last": Mutant(
        "storage/das",
        (),
        "starvation-free",
        "waited for",
        "\n\nfrom hvbench.policy import blk_first, blk_next\n\n\n@hookimpl\ndef blk_dispatch(host, dev, now):\n"
        "    request = blk_first(host, dev)\n    while blk_next(host, request) >= 0:\n"
        "        request = blk_next(host, request)\n    return request\n",
    ),
    "a switch that drops a frame in ten": Mutant(
        "switch/bridged",
        (),
        "lossless",
        "frames were dropped",
        "\n\n@hookimpl\ndef net_forward(host, frame, in_port, now):\n"
        "    return -1 if frame % 10 == 3 else host.frame[frame].target_port\n",
    ),
    # tables of costs
    "a cost that falls as its parameter grows": Mutant(
        "technique/hardware",
        (("halt_ns=ns(params.exit)", "halt_ns=ns(max(0, 9000 - params.exit))"),),
        "monotone",
        "instead of",
    ),
    "a hosted cost that falls as its parameter grows": Mutant(
        "host/type2",
        (("cycles(params.application,", "cycles(max(0, 9000 - params.application),"),),
        "monotone",
        "instead of",
    ),
    "a table that is never the same": Mutant(
        "technique/hardware",
        (("halt_ns=ns(params.exit)", "halt_ns=ns(params.exit) + next(CALLS)"),),
        "repeatable",
        "the second call returned another table",
        "import itertools\n\nCALLS = itertools.count()\n",
    ),
    "a tick that takes longer than its period": Mutant(
        "host/type2",
        (("host_tick_ns=params.tick_ns", "host_tick_ns=1_000"),
         ("host_tick_cost_ns=params.tick_cost_ns", "host_tick_cost_ns=9_000_000")),
        "runs",
        "",
    ),
}  # fmt: skip
