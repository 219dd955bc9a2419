"""Checks of memory policies."""

from __future__ import annotations

from typing import Any

from hvbench.kernel.guards import E_REFUSED
from hvbench.state.memory import HostMemory
from hvbench.testing import laws_memory, probes
from hvbench.testing.checks import NotApplicable, Violated, check
from hvbench.testing.lab import Lab
from hvbench.testing.story import MS, S, Story
from hvbench.testing.subject import Ran

MEMORY = ("memory",)


def _sum(ran: Ran, name: str) -> int:
    return int(ran.table("vmem")[name].sum())


def _admitted(lab: Lab, story: Story, **options: Any) -> Ran:
    """Run a story whose VMs the policy has to let in."""
    ran = lab.must_run(story, lab.fast, **options)
    if ran.status == "refused":
        missing = int(ran.memory.header["error_answer"][0])
        raise Violated(
            f"it refuses VM {int(ran.memory.header['error_extra'][0])}: {missing} pages are missing, it says",
            story.describe(),
        )
    return ran


@check(
    "admits-what-fits",
    MEMORY,
    "lets in VMs that fit into the machine",
    how="Three VMs of 1,000 pages on a machine of 8,000 frames: nobody can be said to lack memory.",
)
def admits_what_fits(lab: Lab) -> str:
    _admitted(lab, probes.memory_host((200, 200, 200), frames=8_000, horizon_ns=50 * MS))
    return "3 VMs of 1,000 pages on 8,000 frames"


@check(
    "progress",
    MEMORY,
    "lets every VM go on when memory is short",
    how="""Two VMs go through more memory than there is for three seconds. Both must complete passes in the last second,
    and the laws of memory hold.""",
)
def progress(lab: Lab) -> str:
    story = probes.pressure()
    seen: dict[int, list[int]] = {}

    def look(memory: HostMemory) -> None:
        now = int(memory.header["now"][0])
        if now <= 2 * S:
            seen[0] = [int(n) for n in memory.tables["vm"]["work_done_ns"]]

    ran = lab.must_run(story, lab.fast, look=look, events=200)
    if ran.status == "refused":
        raise NotApplicable("it lets in only what fits")
    laws_memory.conserved(ran.memory)
    stopped = [m for m, n in enumerate(seen.get(0, [])) if int(ran.table("vm")["work_done_ns"][m]) <= n]
    if stopped:
        raise Violated(f"VM {stopped[0]} completed nothing in the last second", lab.tell(story))
    return f"{_sum(ran, 'host_swap_out_pages')} pages swapped, {_sum(ran, 'ballooned')} in balloons"


@check(
    "never-reclaims",
    MEMORY,
    "takes nothing back",
    claim="never-reclaims",
    how="""Two VMs use nearly all of their memory on a machine into which they just fit, with equal contents in places.
    Nothing may be swapped, ballooned or shared.""",
)
def never_reclaims(lab: Lab) -> str:
    for same in (False, True):
        story = probes.memory_host((900, 900), frames=2_060, cached=50, same=same, horizon_ns=3 * S)
        ran = lab.must_run(story, lab.fast)
        if ran.status == "refused":
            raise Violated("it refuses VMs that fit", story.describe())
        for name, what in (("host_swap_out_pages", "swapped out"), ("ballooned", "ballooned"), ("shared", "shared")):
            if _sum(ran, name):
                raise Violated(f"{_sum(ran, name)} pages were {what}", lab.tell(story))
    return "two hosts that are nearly full"


@check(
    "overcommits",
    MEMORY,
    "starts VMs that are larger than the machine",
    claim="overcommits",
    how="Two VMs of 1,000 pages that use 200 each, on a machine of 1,700 frames.",
)
def overcommits(lab: Lab) -> str:
    _admitted(lab, probes.memory_host((200, 200), frames=1_700, horizon_ns=50 * MS))
    return "2 VMs of 1,000 pages on 1,700 frames"


@check(
    "balloons",
    MEMORY,
    "takes memory with balloons when the machine is short",
    claim="balloons",
    how="""Two guests of 1,000 pages fill a machine of 1,700 frames with memory and page cache, for two minutes
    (a daemon may average over one): balloons must inflate.""",
)
def balloons(lab: Lab) -> str:
    story = probes.memory_host((300, 800), frames=1_700, cached=500, horizon_ns=120 * S)
    ran = _admitted(lab, story)
    pages = int(ran.table("vmem")["ballooned_page_ns"].sum()) // story.horizon_ns
    if pages == 0:
        raise Violated("no balloon was ever inflated while the machine was short", lab.tell(story))
    return f"{pages} pages in balloons on average"


@check(
    "gives-back",
    MEMORY,
    "balloons deflate when others have freed memory",
    claim="gives-back",
    how="""Two VMs on a machine that is too small for both. After a minute the second frees its memory and sleeps, the
    first goes on to want all of its own: four minutes later its balloon may hold at most half of what it held.""",
)
def gives_back(lab: Lab) -> str:
    story = probes.giver_and_taker()
    most = 0

    def look(memory: HostMemory) -> None:
        nonlocal most
        most = max(most, int(memory.tables["vmem"]["ballooned"][0]))

    ran = _admitted(lab, story, look=look, events=20)
    machine, held = ran.table("machine")[0], int(ran.table("vmem")["ballooned"][0])
    if most == 0:
        raise NotApplicable("it inflates no balloon here")
    if 2 * held > most:
        raise Violated(
            f"{held} pages of VM 0 are still in its balloon (of {most} at most) although VM 1 has freed its memory and "
            f"{int(machine['free'])} frames are free, {int(machine['high'])} being enough",
            lab.tell(story),
        )
    return f"{most} pages at most, {held} at the end"


@check(
    "shares",
    MEMORY,
    "comes to share equal pages",
    claim="shares",
    how="Two VMs hold the same 300 contents and never write them again; within ten minutes frames must be saved.",
)
def shares(lab: Lab) -> str:
    story = probes.memory_host((300, 300), frames=2_200, same=True, horizon_ns=600 * S)
    ran = _admitted(lab, story)
    if int(ran.memory.header["error"][0]) == E_REFUSED or int(ran.table("machine")["saved"][0]) == 0:
        raise Violated("300 pages are equal, and no frame was saved", lab.tell(story))
    return f"{int(ran.table('machine')['saved'][0])} frames saved of 300"


@check(
    "shares-reads",
    MEMORY,
    "never reads a block of the base image that another VM has",
    claim="shares-reads",
    how="""One of two VMs reads 300 pages of the base image, the other the same pages half a second later; there is
    memory enough. The second must not read any of them from the disk.""",
)
def shares_reads(lab: Lab) -> str:
    story = probes.image_readers(frames=2_000)
    ran = _admitted(lab, story)
    avoided = [int(n) for n in ran.table("vmem")["disk_reads_avoided"]]
    if avoided != [0, 300]:
        raise Violated(f"of 300 pages that the first VM has, the second read {300 - avoided[1]}", lab.tell(story))
    return "300 pages that were not read"


@check(
    "compresses",
    MEMORY,
    "compresses what would be swapped",
    claim="compresses",
    how="""Two VMs go through more memory than there is. Pages must go to the pool, and come back from it; the frames of
    the pool are what its pages need.""",
)
def compresses(lab: Lab) -> str:
    story = probes.pressure()
    ran = _admitted(lab, story)
    laws_memory.conserved(ran.memory)
    there, back = _sum(ran, "compressed_pages"), _sum(ran, "decompressed_pages")
    if there == 0 or back == 0:
        raise Violated(f"{there} pages were compressed, {back} came back from the pool", lab.tell(story))
    return f"{there} pages compressed, {back} back without the disk"


@check(
    "taxes-idle-memory",
    MEMORY,
    "takes memory from who does not use it",
    claim="taxes-idle-memory",
    how="""Two equal VMs on a machine that is too small for both: one writes its 900 pages once, the other goes through
    them all the time. After three minutes, longer than any sampling period, the first must hold at most three fifths of
    what the second holds.""",
)
def taxes_idle_memory(lab: Lab) -> str:
    story = probes.idle_and_busy()
    ran = _admitted(lab, story)
    idle, busy = (int(n) for n in ran.table("vmem")["resident"])
    if 5 * idle > 3 * busy:
        raise Violated(f"the idle VM holds {idle} pages, the busy one {busy}", lab.tell(story))
    return f"{idle} pages idle, {busy} busy"
