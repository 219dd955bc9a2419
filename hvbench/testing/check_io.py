"""Checks of storage policies and of switches."""

from __future__ import annotations

import attrs
import numpy as np

from hvbench.build_io import FlowSpec
from hvbench.state.memory import HostMemory
from hvbench.state.records_io import PORT_UPLINK, ST_MEDIUM
from hvbench.testing import laws_io, probes
from hvbench.testing.checks import Violated, check
from hvbench.testing.lab import Lab
from hvbench.testing.story import Action, S, Story
from hvbench.units import rounded_duration

STORAGE = ("storage",)
SWITCH = ("switch",)
WAIT_NS = 2 * S
"""Longest wait of a request among twelve threads' at a disk with seeks of 4 ms: their service takes about 0.2 s."""
WASTE_SHARE = 0.001
LOAD_ROUNDS = 100


def waiting(memory: HostMemory, table: str, first: int) -> list[tuple[int, int]]:
    """A queue as (row, when it began to wait), in order of arrival."""
    rows, found = memory.tables[table], []
    while first >= 0:
        found.append((first, int(rows["queued_ns"][first])))
        first = int(rows["next"][first])
    return found


class Order:
    """Watches queues: whoever leaves must have stood before all who stay."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.before: dict[int, list[tuple[int, int]]] = {}
        self.wrong = ""

    def see(self, queue: int, now: list[tuple[int, int]]) -> None:
        """Compare a queue with what it was at the last look."""
        was, here = self.before.get(queue, []), set(now)
        self.before[queue] = now
        stayed = False
        for entry in was:
            if entry in here:
                stayed = True
            elif stayed and not self.wrong:
                self.wrong = f"{self.what} {entry[0]} was served before one that had waited longer"


# storage ----------------------------------------------------------------------------------------------------------


@check(
    "requests-complete",
    STORAGE,
    "completes every request",
    how="""Twelve threads of three VMs make 100 requests each, all at once, and stop. When the load is over no request
    may be left anywhere: one lost in a thousand is found.""",
)
def requests_complete(lab: Lab) -> str:
    story = probes.disk_load(LOAD_ROUNDS)
    ran = lab.must_run(story, lab.fast, events=2_000, look=laws_io.conserved)
    request = ran.table("request")
    left = np.flatnonzero(request["state"] != 0)
    if len(left):
        one = request[left[0]]
        raise Violated(
            f"{len(left)} requests were never completed; the first, of VM {int(one['vm'])}, has waited for "
            f"{rounded_duration(story.horizon_ns - int(one['submitted_ns']))}",
            [*story.describe()[:4], f"... {len(story.actions)} requests in all", *_calls(lab, story)],
        )
    laws_io.free_lists_are_whole(ran.memory)
    return f"{int(ran.table('io')['submitted'][0])} requests"


def _calls(lab: Lab, story: Story) -> list[str]:
    """The last calls of hooks, without the story's actions."""
    lines = lab.tell(story)
    at = next((i for i, line in enumerate(lines) if line.startswith("the last calls")), len(lines))
    return lines[at:]


@check(
    "fifo",
    STORAGE,
    "serves in order of arrival",
    claim="fifo",
    how="Under that load the queue of each medium is looked at after every event: who leaves it must have come first.",
)
def storage_fifo(lab: Lab) -> str:
    story, order = probes.disk_load(12), Order("request")

    def look(memory: HostMemory) -> None:
        for s, station in enumerate(memory.tables["station"]):
            if station["kind"] == ST_MEDIUM:
                order.see(s, waiting(memory, "request", int(station["queue_first"])))

    lab.must_run(story, lab.fast, look=look, events=1)
    if order.wrong:
        raise Violated(order.wrong, [*story.describe()[:4], *_calls(lab, story)])
    return "144 requests"


@check(
    "work-conserving",
    STORAGE,
    "leaves no medium idle while requests wait",
    claim="work-conserving",
    how="""Under that load the media are looked at after every event. The time in which one has a free server and a
    request waits must be less than a thousandth.""",
)
def storage_work_conserving(lab: Lab) -> str:
    story = probes.disk_load(12)
    wasted, since, idle = 0, 0, False

    def look(memory: HostMemory) -> None:
        nonlocal wasted, since, idle
        now = int(memory.header["now"][0])
        wasted += (now - since) if idle else 0
        station = memory.tables["station"]
        media = station[station["kind"] == ST_MEDIUM]
        idle = bool(((media["queue_len"] > 0) & (media["busy"] < media["servers"])).any())
        since = now

    lab.must_run(story, lab.fast, look=look, events=1)
    if wasted > story.horizon_ns * WASTE_SHARE:
        raise Violated(f"a medium idled for {rounded_duration(wasted)} while requests waited", _calls(lab, story))
    return f"idle for {rounded_duration(wasted)} while requests waited"


@check(
    "starvation-free",
    STORAGE,
    "lets no request wait for ever",
    claim="starvation-free",
    how="""Under that load, made again and again for ten seconds, no request may wait at a medium for more than two
    seconds.""",
)
def storage_starvation_free(lab: Lab) -> str:
    story = probes.disk_load(12, once=False, horizon_ns=10 * S)
    worst = (0, -1)

    def look(memory: HostMemory) -> None:
        nonlocal worst
        now = int(memory.header["now"][0])
        for station in memory.tables["station"]:
            if station["kind"] == ST_MEDIUM:
                for r, since in waiting(memory, "request", int(station["queue_first"])):
                    worst = max(worst, (now - since, int(memory.tables["request"]["vm"][r])))

    lab.must_run(story, lab.fast, look=look, events=100)
    if worst[0] > WAIT_NS:
        raise Violated(
            f"a request of VM {worst[1]} waited for {rounded_duration(worst[0])} at a medium", _calls(lab, story)
        )
    return f"longest wait {rounded_duration(worst[0])}"


# switch -----------------------------------------------------------------------------------------------------------


@check(
    "messages-arrive",
    SWITCH,
    "lets every message arrive",
    how="""VMs of the host talk over TCP and stop. Whatever the switch drops is sent again: at the end every byte must
    have been received, and no frame may be left anywhere.""",
)
def messages_arrive(lab: Lab) -> str:
    story = probes.messages(60)
    ran = lab.must_run(story, lab.fast, events=500, look=laws_io.conserved)
    half = ran.table("half")
    halves = int(ran.table("io")["halves"][0])
    for number in range(halves):
        h = half[number]
        if int(h["consumed"]) < int(h["accepted"]) or int(h["unsent"]) or int(h["lost_bytes"]):
            raise Violated(
                f"{int(h['accepted'] - h['consumed'])} bytes from VM {int(h['source'])} to VM {int(h['target'])} "
                "never arrived",
                _calls(lab, story),
            )
    stuck = [p for p, port in enumerate(ran.table("port")) if port["queue_len"]]
    if stuck:
        raise Violated(f"frames are left in the queue of port {stuck[0]}", _calls(lab, story))
    unfinished = [int(t["vm"]) for t in ran.table("thread") if int(t["op"]) < int(t["op_end"]) - 1]
    if unfinished:
        raise Violated(f"VM {unfinished[0]} still waits for a message", _calls(lab, story))
    return f"{int(ran.table('io')['frames_sent'][0])} frames"


@check(
    "delivers-inside",
    SWITCH,
    "shows frames between VMs to nobody else",
    claim="delivers-inside",
    how="Two pairs of VMs talk while a fourth VM does not: nothing may leave by its port or by an uplink.",
)
def delivers_inside(lab: Lab) -> str:
    story = probes.messages(20)
    ran = lab.must_run(story, lab.fast)
    talkers = {end for flow in story.flows for end in (flow.a, flow.b)}
    for p, port in enumerate(ran.table("port")):
        strange = int(port["kind"]) == PORT_UPLINK or int(port["vm"]) not in talkers
        if strange and int(port["frames"]):
            where = "an uplink" if int(port["kind"]) == PORT_UPLINK else f"the port of VM {int(port['vm'])}"
            raise Violated(
                f"{int(port['frames'])} frames between other VMs left by {where} (port {p})", _calls(lab, story)
            )
    return f"{int(ran.table('io')['frames_sent'][0])} frames"


@check(
    "lossless",
    SWITCH,
    "drops nothing that it has room for",
    claim="lossless",
    how="The same talk: queues are never full, so no frame may be dropped.",
)
def lossless(lab: Lab) -> str:
    story = probes.messages(20)
    ran = lab.must_run(story, lab.fast)
    dropped = int(ran.table("io")["frames_dropped"][0])
    if dropped:
        raise Violated(f"{dropped} of {int(ran.table('io')['frames_sent'][0])} frames were dropped", _calls(lab, story))
    return f"{int(ran.table('io')['frames_sent'][0])} frames"


@check(
    "fifo",
    SWITCH,
    "sends in order of arrival",
    claim="fifo",
    how="""Three VMs send to one: its port's queue is looked at after every event, and who leaves it must have come
    first.""",
)
def switch_fifo(lab: Lab) -> str:
    story = crossing()
    order = Order("frame")
    longest = 0

    def look(memory: HostMemory) -> None:
        nonlocal longest
        for p, port in enumerate(memory.tables["port"]):
            queue = waiting(memory, "frame", int(port["queue_first"]))
            longest = max(longest, len(queue))
            order.see(p, queue)

    lab.must_run(story, lab.fast, look=look, events=1)
    if order.wrong:
        raise Violated(order.wrong, _calls(lab, story))
    return f"queues of up to {longest} frames"


def crossing() -> Story:
    """Three VMs that send to a fourth at once, so that frames queue at its port."""
    base = probes.messages(1)
    flows = tuple(FlowSpec("tcp", v, 3) for v in range(3))
    actions = tuple(Action("message", v, 0, v, 0, 60_000) for _ in range(6) for v in range(3))
    return attrs.evolve(base, flows=flows, actions=actions)
