"""Checks of schedulers, most of them of a claim, each on the host that shows it best."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np

from hvbench.state.memory import HostMemory
from hvbench.state.records import RUNNABLE
from hvbench.testing import probes
from hvbench.testing.checks import Violated, check
from hvbench.testing.dice import SeededDice
from hvbench.testing.generate import cpu_story
from hvbench.testing.lab import Lab, conserving
from hvbench.testing.story import MS, S, Story
from hvbench.testing.subject import Ran
from hvbench.units import rounded_duration

SCHEDULER = ("scheduler",)
WAIT_NS = 250 * MS
"""Longest wait that starvation-freedom allows for each entity that shares a pCPU: eight of Xen credit's time slices."""
WAIT_TURNS = 10
"""Where the policy's own turns are longer: that many of them. One that draws lots needs them."""
SHARE_TURNS = 1000
"""Turns over which shares are compared: the lots of so many draws lie within 15 % of their weights."""
WASTE_SHARE = 0.001
LATENCY_NS = 10 * MS
SHARE_ERROR = {1: 0.15, 2: 0.25}
"""By the host's pCPUs: on two of them who runs on one cannot be chosen for the other."""
LAST_MASKED_PCPU = 62


@check(
    "faults",
    SCHEDULER,
    "goes on when a guest dies and a pCPU leaves",
    how="Random hosts on which guests die and pCPUs go offline, for good and for a while.",
)
def faults(lab: Lab) -> str:
    made = 0

    def change(story: Story) -> Story:
        # hosts of the CPU side only: those of storage and memory have no faults
        nonlocal made
        for number in range(made, made + 200):
            candidate = cpu_story(SeededDice(77_000 + number))
            if candidate.faults:
                made = number + 1
                return candidate
        return story

    stories = [change(lab.story(0)) for _ in range(2 * lab.effort.few)]
    for story in stories:
        reason = conserving(lab)(story)
        if reason:
            from hvbench.testing.lab import shorten

            story, reason = shorten(story, reason, conserving(lab), lab.effort.shorten_s)
            raise Violated(reason, lab.tell(story))
    return f"{len(stories)} random hosts"


@check(
    "starvation-free",
    SCHEDULER,
    "lets every runnable vCPU run within a bound",
    claim="starvation-free",
    how="""Hosts on which more entities want to run than there are pCPUs, for seconds: equals that compute, one that
    computes among some that wake all the time, a wide VM beside small ones. Nobody may be runnable for longer than
    250 ms (or ten of the policy's own turns) for each entity that shares a pCPU. The failing vCPU is named.""",
)
def starvation_free(lab: Lab) -> str:
    worst = (0, "")
    allowed = max(WAIT_NS, WAIT_TURNS * lab.turn_ns)
    for what, story in probes.crowds(4 * 4 * allowed):
        per_pcpu = -(-sum(vm.vcpus for vm in story.vms) // story.cpu.pcpus)
        longest, who = longest_wait(lab, story)
        if longest > allowed * per_pcpu:
            raise Violated(
                f"{who} was runnable for {rounded_duration(longest)} without running ({what}); "
                f"at most {rounded_duration(allowed * per_pcpu)} is allowed there",
                lab.tell(story),
            )
        worst = max(worst, (longest, f"{who}, {what}"))
    return f"longest wait {rounded_duration(worst[0])} ({worst[1]})"


def longest_wait(lab: Lab, story: Story) -> tuple[int, str]:
    """The longest time that an entity was runnable and did not run, and who it was."""
    worst = (0, 0)

    def look(memory: HostMemory) -> None:
        nonlocal worst
        now, vcpu = int(memory.header["now"][0]), memory.tables["vcpu"]
        for v in np.flatnonzero(vcpu["state"] == RUNNABLE):
            since = int(vcpu["runnable_since_ns"][v])
            worst = max(worst, (now - since, int(v)))

    ran = lab.must_run(story, lab.fast, look=look, events=20)
    row = ran.table("vcpu")[worst[1]]
    return worst[0], f"vCPU {int(row['number'])} of VM {int(row['vm'])}"


@check(
    "work-conserving",
    SCHEDULER,
    "lets no pCPU idle while somebody waits",
    claim="work-conserving",
    how="""The host is looked at after every event. The time in which a pCPU idles while an entity that may run there
    is runnable must be less than a thousandth of all CPU time.""",
)
def work_conserving(lab: Lab) -> str:
    stories = [story for _, story in probes.crowds(S // 4)]
    stories += [unbound(cpu_story(SeededDice(1_000 + n))) for n in range(2 * lab.effort.few)]
    for story in stories:
        wasted, who = wasted_ns(lab, story)
        if wasted > story.horizon_ns * story.cpu.pcpus * WASTE_SHARE:
            raise Violated(
                f"pCPUs idled for {rounded_duration(wasted)} in all while {who} was runnable", lab.tell(story)
            )
    return f"{len(stories)} hosts"


def unbound(story: Story) -> Story:
    """The story without anything that makes it right to idle: caps, affinities, faults."""
    vms = tuple(attrs.evolve(vm, cap=0, affinity=0) for vm in story.vms)
    return attrs.evolve(story, vms=vms, faults=())


def wasted_ns(lab: Lab, story: Story) -> tuple[int, str]:
    """Time of pCPUs that idled while somebody was runnable, and who that was first."""
    total = before = since = 0
    first = "nobody"

    def look(memory: HostMemory) -> None:
        nonlocal total, before, since, first
        now = int(memory.header["now"][0])
        total += before * (now - since)
        idle = int((memory.tables["pcpu"]["current"] < 0).sum() - memory.tables["pcpu"]["offline"].sum())
        before, since = min(idle, int(memory.header["runnable_count"][0])), now
        if before and first == "nobody":
            row = memory.tables["vcpu"][int(memory.header["runnable_first"][0])]
            first = f"vCPU {int(row['number'])} of VM {int(row['vm'])}"

    lab.must_run(story, lab.fast, look=look, events=1)
    return total, first


@check(
    "weight-proportional",
    SCHEDULER,
    "shares CPU time in proportion to weights",
    claim="weight-proportional",
    how="""VMs of weights 256, 512 and 1024 that always want to run, on one pCPU and, with two vCPUs each, on two. Over
    six seconds (or a thousand turns) each must get its share within 15 % (25 % on two).""",
)
def weight_proportional(lab: Lab) -> str:
    said = []
    for story in probes.weights(long_ns(lab)):
        shares = shares_of(lab.must_run(story, lab.fast))
        total = sum(vm.weight for vm in story.vms)
        for number, vm in enumerate(story.vms):
            fair = vm.weight / total
            if abs(shares[number] - fair) > SHARE_ERROR[story.cpu.pcpus] * fair:
                raise Violated(
                    f"VM {number} of weight {vm.weight} got {shares[number]:.1%} of the CPU time; {fair:.1%} is its "
                    "share",
                    lab.tell(story),
                )
        said.append(" : ".join(f"{share:.1%}" for share in shares))
    return "; ".join(said)


def long_ns(lab: Lab) -> int:
    """How long shares are measured."""
    return max(probes.LONG_NS, SHARE_TURNS * lab.turn_ns)


def shares_of(ran: Ran) -> list[float]:
    """Each VM's part of the CPU time that VMs got."""
    vcpu = ran.table("vcpu")
    times = [int(vcpu["ran_ns"][vcpu["vm"] == m].sum()) for m in range(len(ran.table("vm")))]
    return [t / max(1, sum(times)) for t in times]


@check(
    "weights",
    SCHEDULER,
    "gives more weight no less time",
    claim="weights",
    how="""The hosts of weight-proportional: a VM of larger weight must not get less than one of smaller weight (by
    2 %).""",
)
def weights(lab: Lab) -> str:
    for story in probes.weights(long_ns(lab)):
        shares = shares_of(lab.must_run(story, lab.fast))
        for number in range(1, len(shares)):
            if shares[number] < shares[number - 1] * 0.98 or shares[-1] < shares[0] * 1.1:
                heavy, light = (number, number - 1) if shares[number] < shares[number - 1] else (len(shares) - 1, 0)
                raise Violated(
                    f"VM {heavy} of weight {story.vms[heavy].weight} got {shares[heavy]:.1%}, "
                    f"VM {light} of weight {story.vms[light].weight} got {shares[light]:.1%}",
                    lab.tell(story),
                )
    return "3 VMs on 1 and on 2 pCPUs"


@check(
    "caps",
    SCHEDULER,
    "keeps a VM to its cap",
    claim="caps",
    how="""A VM with a cap of 30 % alone on two pCPUs, and one with 50 % beside one without. Over six seconds neither
    may run for more than its cap and a tenth, nor for less than half of it.""",
)
def caps(lab: Lab) -> str:
    said = []
    for story in probes.caps(long_ns(lab)):
        ran = lab.must_run(story, lab.fast)
        vcpu = ran.table("vcpu")
        used = int(vcpu["ran_ns"][vcpu["vm"] == 0].sum()) / story.horizon_ns * 100
        cap = story.vms[0].cap
        if not cap / 2 <= used <= cap * 1.1 + 1:
            raise Violated(f"VM 0 has a cap of {cap} % of a pCPU and ran for {used:.1f} %", lab.tell(story))
        said.append(f"{used:.1f} % of {cap} %")
    return ", ".join(said)


@check(
    "reservations",
    SCHEDULER,
    "gives a VM its reservation",
    claim="reservations",
    how="""A VM of weight 64 with a reservation of 50 % of a pCPU beside three of weight 1024 on one pCPU. It always
    wants to run, and must get at least nine tenths of its reservation over six seconds.""",
)
def reservations(lab: Lab) -> str:
    return _gets(lab, probes.reservation(long_ns(lab)), 0.5, "a reservation of 50 % of a pCPU")


@check(
    "real-time",
    SCHEDULER,
    "gives a VM its budget in every period",
    claim="real-time",
    how="""A VM with 10 ms in every 40 ms beside seven of weight 1024 without a budget, on one pCPU. It always wants to
    run, and must get at least nine tenths of its budget over six seconds.""",
)
def realtime(lab: Lab) -> str:
    return _gets(lab, probes.realtime(long_ns(lab)), 0.25, "10 ms in every 40 ms")


def _gets(lab: Lab, story: Story, least: float, what: str) -> str:
    share = shares_of(lab.must_run(story, lab.fast))[0]
    if share < 0.9 * least:
        raise Violated(f"VM 0 has {what} and got {share:.1%}", lab.tell(story))
    return f"{share:.1%}"


@check(
    "affinity",
    SCHEDULER,
    "runs an entity only where it may run",
    claim="affinity",
    how="Random hosts whose VMs are bound to some of the pCPUs; after each event nobody may run elsewhere.",
)
def affinity(lab: Lab) -> str:
    bound = _binder()

    def test(story: Story) -> str:
        wrong: list[str] = []

        def look(memory: HostMemory) -> None:
            for p, v in enumerate(memory.tables["pcpu"]["current"]):
                mask = int(memory.tables["vcpu"]["affinity"][v]) if v >= 0 else 0
                if mask and p <= LAST_MASKED_PCPU and not mask >> p & 1 and not wrong:
                    wrong.append(f"entity {int(v)} of affinity mask {mask:#x} ran on pCPU {p}")

        ran = lab.run(story, look=look, events=1)
        return wrong[0] if wrong else "" if ran.status == "ok" else ran.reason

    tried = lab.explore(test, 3 * lab.effort.few, bound)
    return f"{tried} random hosts"


def _binder() -> Callable[[Story], Story]:
    def bind_vms(story: Story) -> Story:
        pcpus = max(2, story.cpu.pcpus)
        vms = tuple(attrs.evolve(vm, affinity=1 << (i % pcpus)) for i, vm in enumerate(story.vms))
        return attrs.evolve(story, vms=vms, cpu=attrs.evolve(story.cpu, pcpus=pcpus), faults=())

    return bind_vms


@check(
    "bounded-latency",
    SCHEDULER,
    "runs who woke soon",
    claim="bounded-latency",
    how="""A VM that computes 100 us and sleeps 3 ms beside three that only compute, on one pCPU. Its time from wake-up
    to running is to be below 10 ms in 99 of 100 cases.""",
)
def bounded_latency(lab: Lab) -> str:
    from hvbench.readout import vm_cpu_metrics

    story = probes.interactive()
    ran = lab.must_run(story, lab.fast)
    p99 = int(vm_cpu_metrics(ran.memory, 0)["wakeup_latency_p99_ns"])
    if p99 > LATENCY_NS:
        raise Violated(
            f"VM 0 waits {rounded_duration(p99)} after a wake-up (99th percentile); 10 ms is the bound", lab.tell(story)
        )
    return f"99th percentile {rounded_duration(p99)}"
