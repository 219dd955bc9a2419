"""Checks of every policy that decides: legality, laws, determinism, modes, extreme hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from hvbench.axes import AXES, DECISION_AXES
from hvbench.binding import Chosen, Loop, bind
from hvbench.build import build
from hvbench.hookspecs import Hook
from hvbench.testing import probes
from hvbench.testing.checks import NotApplicable, Violated, check
from hvbench.testing.claims import unknown_claims
from hvbench.testing.lab import Lab, conserving, is_interpreted, legal
from hvbench.testing.story import MS, Action, Story, VmStory
from hvbench.testing.subject import Ran, difference, drive, phase

KERNEL_TABLES = (
    "vcpu", "pcpu", "vm", "thread", "vmem", "machine", "page", "request", "frame", "port", "station", "event", "cost",
)  # fmt: skip
"""Tables that no service of a policy changes before its hook has returned: requests wait in the outbox."""
MOST_ROWS = 4096
MOST_CALLS = 400


@check(
    "claims-known",
    AXES,
    "claims only what the axis has a word for",
    how="Each name in CLAIMS is one of the axis's claims (see below). A misspelt claim would never be checked.",
)
def claims_known(lab: Lab) -> str:
    policy = lab.subject.policy
    unknown = unknown_claims(policy.axis, policy.claims)
    if unknown:
        raise Violated("; ".join(unknown))
    return f"claims {', '.join(sorted(policy.claims)) or 'nothing'}"


@check(
    "legal",
    DECISION_AXES,
    "answers legally on random hosts",
    how="""Random small hosts with everything that guests do. Every answer must be one that the hook's contract
    allows, no hook may raise, and virtual time must go on. A failing run is made short by hypothesis.""",
)
def legality(lab: Lab) -> str:
    tried = lab.explore(legal(lab), lab.effort.stories)
    return f"{tried} random hosts"


@check(
    "conservation",
    DECISION_AXES,
    "nothing is lost or made up",
    how="""On random hosts the tables are looked at every few events: run states and queues agree, requests, frames,
    bytes, pages and machine frames are all in one place, and at the end every nanosecond is accounted for once.""",
)
def conservation(lab: Lab) -> str:
    tried = lab.explore(conserving(lab), max(8, lab.effort.stories // 3))
    return f"{tried} random hosts"


@check(
    "no-writes",
    DECISION_AXES,
    "changes nothing of the kernel's by itself",
    how="""The kernel's tables are compared before and after each hook: a policy changes its own fields and asks for the
    rest through services. Checked where hooks run as Python; compiled hooks cannot write them at all.""",
)
def no_writes(lab: Lab) -> str:
    calls = 0
    stories = [*probes.short(lab.subject.axis), *map(lab.story, range(lab.effort.few))]
    for story in stories:
        story = attrs.evolve(story, horizon_ns=min(story.horizon_ns, 500 * MS))
        seen: list[str] = []
        holder: list[Any] = []

        def around(
            policy: Chosen, spec: Hook, call: Callable[..., int], seen: list[str] = seen, holder: list[Any] = holder
        ) -> Callable[..., int]:
            def compared(*values: int) -> int:
                nonlocal calls
                calls += 1
                if calls > MOST_CALLS:
                    return call(*values)
                tables = holder[0].tables
                before = {n: tables[n].copy() for n in KERNEL_TABLES if len(tables[n]) < MOST_ROWS}
                answer = call(*values)
                for name, was in before.items():
                    # column by column: what lies between the fields of a row is nobody's
                    changed = [c for c in was.dtype.names or () if not np.array_equal(was[c], tables[name][c])]
                    if changed and not seen:
                        seen.append(f"{spec.name} changed {name}.{changed[0]}, which belongs to the kernel")
                return answer

            return compared

        memory = build(lab.subject.spec(story))
        holder.append(memory)
        mode = "interpreted" if is_interpreted() else "plain"
        bind(memory, lab.subject.chosen(), interpreted=is_interpreted(), plain_python=True, around=around)
        try:
            ran = drive(memory, mode, None, 0)
        finally:
            holder.clear()
        if seen or ran.status == "failed":
            raise Violated(seen[0] if seen else ran.reason, story.describe())
    return f"{min(calls, MOST_CALLS)} calls on {len(stories)} hosts"


# the same inputs, the same bits -----------------------------------------------------------------------------------


@check(
    "repeatable",
    DECISION_AXES,
    "the same host runs the same twice",
    how="""A host is run twice in one process. State that is kept in the module instead of in @state fields, a
    random generator of one's own, or a clock makes the second run another one.""",
)
def repeatable(lab: Lab) -> str:
    def test(story: Story) -> str:
        found = difference(lab.run(story).fingerprint(), lab.run(story).fingerprint())
        return f"two runs of one host differ in {found}" if found else ""

    tried = lab.explore(test, lab.effort.few * 2)
    return f"{tried} random hosts, twice"


@check(
    "independent",
    DECISION_AXES,
    "two hosts at once do not disturb each other",
    how="Two hosts are run in turns, a few events each, and must come out as each of them does alone.",
)
def independent(lab: Lab) -> str:
    for number in range(0, 2 * lab.effort.few, 2):
        stories = [lab.story(number), lab.story(number + 1)]
        alone = [lab.run(story).fingerprint() for story in stories]
        memories = [build(lab.subject.spec(story)) for story in stories]
        for memory in memories:
            bind(memory, lab.subject.chosen(), interpreted=is_interpreted(), plain_python=True)
        loops = [Loop(memory, is_interpreted()) for memory in memories]
        together = [r.fingerprint() for r in _in_turns(memories, loops)]
        for one, other, story in zip(alone, together, stories, strict=True):
            found = difference(one, other)
            if found:
                raise Violated(f"beside another host it runs differently: {found}", story.describe())
    return f"{lab.effort.few} pairs of hosts"


def _in_turns(memories: list[Any], loops: list[Loop]) -> list[Ran]:
    from hvbench.kernel.guards import E_REFUSED
    from hvbench.simulate import verdict

    phase("run")
    for loop in loops:
        loop.boot()
    open_loops = list(loops)
    while open_loops:
        open_loops = [loop for loop in open_loops if loop.run(7) == 0]
    phase("idle")
    made = []
    for memory in memories:
        if int(memory.header["error"][0]) == E_REFUSED:
            made.append(Ran(memory, "refused", "a VM was not admitted"))
        else:
            made.append(Ran(memory, *(verdict(memory) or ("ok", ""))))
    return made


@check(
    "repeatable-elsewhere",
    DECISION_AXES,
    "another process computes the same",
    how="""The same hosts in a second process with another hash seed, in reverse order. The order of a set, a
    hash, an address or the environment must not count.""",
)
def repeatable_elsewhere(lab: Lab) -> str:
    from hvbench.testing.other import OtherProcess

    numbers = list(range(lab.effort.few))
    here = {n: lab.run(lab.story(n)).fingerprint() for n in numbers}
    if lab.other is None:
        lab.other = OtherProcess()
    there = lab.other.fingerprints(lab.subject, lab.seed, numbers[::-1])
    for n in numbers:
        found = difference(here[n], there[n])
        if found:
            raise Violated(f"another process computes something else: {found}", lab.story(n).describe())
    return f"{len(numbers)} hosts"


@check(
    "modes",
    DECISION_AXES,
    "compiled, plain and interpreted are the same",
    how="""The same hosts with hooks compiled, as plain Python under the compiled kernel, and with everything
    interpreted. Integers beyond 64 bits are the usual reason for a difference. A hook that cannot be compiled runs
    as plain Python: the check then names it and says why.""",
)
def modes(lab: Lab) -> str:
    if is_interpreted():
        raise NotApplicable("HVBENCH_INTERPRET is set: nothing is compiled")
    notes: dict[str, None] = {}

    def test(story: Story) -> str:
        compiled = lab.run(story, "compiled")
        notes.update(dict.fromkeys(compiled.memory.notes))
        first = compiled.fingerprint()
        short = story.horizon_ns <= MS
        for mode in ("plain", "interpreted") if short else ("plain",):
            found = difference(first, lab.run(story, mode).fingerprint())
            if found and compiled.status == "failed":
                return compiled.reason
            if found:
                return f"compiled and {mode} differ in {found}"
        return ""

    def small(story: Story) -> Story:
        return attrs.evolve(story, horizon_ns=min(story.horizon_ns, 60_000) if story.io is None else story.horizon_ns)

    tried = lab.explore(test, lab.effort.few, small)
    return f"{tried} random hosts" + ("; not compiled: " + "; ".join(notes) if notes else "")


# extreme hosts ----------------------------------------------------------------------------------------------------


def _extreme(lab: Lab, change: Callable[[Story], Story], stories: int) -> str:
    tried = lab.explore(conserving(lab), stories, change)
    return f"{tried} random hosts"


@check(
    "one-pcpu",
    DECISION_AXES,
    "runs on a host of one pCPU",
    how="Random hosts, cut down to one pCPU: nobody to steal from, nowhere to migrate to.",
)
def one_pcpu(lab: Lab) -> str:
    def change(story: Story) -> Story:
        faults = tuple(f for f in story.faults if f.kind != "pcpu")
        return attrs.evolve(story, cpu=attrs.evolve(story.cpu, pcpus=1), faults=faults)

    return _extreme(lab, change, lab.effort.few)


@check(
    "many-pcpus",
    DECISION_AXES,
    "runs on a host of 256 pCPUs",
    how="""Random hosts with 256 pCPUs in 128 cores and 16 caches, and for schedulers one with 320 busy vCPUs: bit
    masks of 64 are too short here.""",
)
def many_pcpus(lab: Lab) -> str:
    def change(story: Story) -> Story:
        cpu = attrs.evolve(story.cpu, pcpus=256, threads_per_core=2, cores_per_llc=8)
        return attrs.evolve(story, cpu=cpu, horizon_ns=min(story.horizon_ns, 10 * MS), faults=())

    if lab.subject.axis == "scheduler":
        story = probes.wide_host()
        reason = conserving(lab)(story)
        if reason:
            raise Violated(reason, [*story.describe()[:3], "... and so on for 20 VMs, which keep 320 vCPUs busy"])
    return _extreme(lab, change, max(2, lab.effort.few // 2))


@check(
    "no-vms",
    DECISION_AXES,
    "runs on a host without VMs",
    how="""A host of two pCPUs and nothing to run. Timers of the policy go on; it must neither divide by the number of
    VMs nor keep virtual time from moving.""",
)
def no_vms(lab: Lab) -> str:
    story = Story((), (), 10 * MS, attrs.evolve(lab.story(0).cpu, pcpus=2))
    ran = lab.run(story)
    if ran.status == "failed" or (ran.status == "stalled" and "nothing can happen" not in ran.reason):
        raise Violated(ran.reason, lab.tell(story))
    return "two pCPUs, no VM"


@check(
    "wide-vm",
    DECISION_AXES,
    "runs a VM with more vCPUs than there are pCPUs",
    how="One VM of eight vCPUs and eight busy threads on two pCPUs, and on one.",
)
def wide_vm(lab: Lab) -> str:
    base = lab.story(0)
    for pcpus in (2, 1):
        work = tuple(Action("compute", 0, t, 7_000 + 900 * t) for t in range(8))
        naps = tuple(Action("sleep", 0, t, 3_000 + 500 * t) for t in range(8))
        pages = base.vms[0].pages
        story = Story(
            (VmStory(vcpus=8, threads=8, pages=pages),),
            (*work, Action("barrier", 0), *naps),
            2 * MS,
            attrs.evolve(base.cpu, pcpus=pcpus),
            io=base.io,
            memory=base.memory,
        )
        reason = conserving(lab)(story)
        if reason:
            raise Violated(reason, lab.tell(story))
    return "8 vCPUs on 2 pCPUs and on 1"
