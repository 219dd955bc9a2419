"""A workload of the kit as a list of actions: what VMs do, one after the other; a host is laid out from it.

A story can be printed, made shorter by leaving actions out, and laid out again: every action is whole (who waits is
woken, what is locked is unlocked, what is sent is received), so that any part of a story is a story.
"""

from __future__ import annotations

import attrs

from hvbench.build import CpuSpec, FaultSpec, GroupSpec, HostSpec, ThreadSpec, VmSpec, no_privileged
from hvbench.build_io import FlowSpec, IoSpec
from hvbench.build_memory import GuestMemory, MemoryObject, MemorySpec
from hvbench.state import schema
from hvbench.state.records_memory import ANON, IMAGE, OWN
from hvbench.traces.format import FLAG_COMMON, FLAG_WRITE, OPS
from hvbench.units import format_duration

US, MS, S = 1_000, 1_000_000, 1_000_000_000
BARRIER_LOCK = 2
ONE_PCPU = CpuSpec(pcpus=1)
SECTORS_PER_PAGE = 8
LONG_ENOUGH_NS = 1 << 50
Row = tuple[str, int, int, int, int]
"""An operation: name, x, a, b, flags."""
OBJECT_KINDS = (ANON, IMAGE, OWN)
OBJECT_NAMES = ("anonymous memory", "an image file", "an own file")

SPANS = frozenset({"compute", "sleep", "outside", "lock", "mark"})
"""Actions whose `a` is a time."""


MOST_LINES = 40
"""Actions of a story that are printed: its beginning and its end."""


@attrs.frozen
class Action:
    """What thread `thread` of VM `vm` does. `a`, `b`, `c` mean what `_OPS` and `describe` say for its kind."""

    kind: str
    vm: int
    thread: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    write: bool = False

    def describe(self) -> str:
        """The action as a sentence's end."""
        text = {
            "compute": f"computes {format_duration(self.a)}",
            "sleep": f"sleeps {format_duration(self.a)}",
            "outside": f"waits {format_duration(self.a)} for something outside",
            "wake": f"wakes thread {self.a}, which waits for it",
            "lock": f"computes {format_duration(self.a)} under lock {self.b}",
            "barrier": "meets all threads of its VM at a barrier",
            "mark": f"serves a request in {format_duration(self.a)}",
            "read": f"reads {self.b} pages of its disk from page {self.a} on",
            "write": f"writes {self.b} pages of its disk from page {self.a} on",
            "message": f"sends {self.c} bytes on flow {self.a} from end {self.b}",
            "touch": f"{'writes' if self.write else 'reads'} {self.c} pages of {self._object()} from {self.b} on",
            "fread": f"reads {self.c} pages of {self._object()} from page {self.b} on",
            "fwrite": f"writes {self.c} pages of {self._object()} from page {self.b} on",
            "fsync": f"syncs {self._object()}",
            "free": f"frees {self.c} pages of {self._object()} from page {self.b} on",
            "content": f"page {self.b} of {self._object()} has content {self.c}",
            "exit": "its process exits",
        }[self.kind]
        return f"VM {self.vm} thread {self.thread} {text}"

    def _object(self) -> str:
        return OBJECT_NAMES[self.a] if self.a < len(OBJECT_NAMES) else f"object {self.a}"


@attrs.frozen
class VmStory:
    """A VM's shape. `ends_with_ns` of computing close each pass of its first thread, so that a pass takes time."""

    vcpus: int = 1
    threads: int = 1
    weight: int = 256
    cap: int = 0
    reservation: int = 0
    affinity: int = 0
    rt_period_ns: int = 0
    rt_budget_ns: int = 0
    start_ns: int = 0
    ends_with_ns: int = 5_000
    pages: int = 0
    replacement: str = "linux"


@attrs.frozen
class MemoryStory:
    """The machine's memory: frames, swap, pages of each VM's three objects."""

    frames: int
    object_pages: int = 40
    host_swap_pages: int = 600
    guest_swap_pages: int = 100
    balance_ns: int = 5 * MS
    large_backing: bool = False


@attrs.frozen
class Story:
    """A host, VMs, and what they do. Without `once` they do it over and over."""

    vms: tuple[VmStory, ...]
    actions: tuple[Action, ...]
    horizon_ns: int
    cpu: CpuSpec = ONE_PCPU
    warmup_ns: int = 0
    seed: int = 0
    flows: tuple[FlowSpec, ...] = ()
    io: IoSpec | None = None
    memory: MemoryStory | None = None
    faults: tuple[FaultSpec, ...] = ()
    once: bool = False

    def describe(self) -> list[str]:
        """The story as lines: the host, the VMs, the actions."""
        lines = [f"host: {self.cpu.pcpus} pCPUs for {format_duration(self.horizon_ns)}, seed {self.seed}"]
        if self.memory is not None:
            lines[0] += f", {self.memory.frames} frames of memory, {self.memory.host_swap_pages} pages of swap"
        for number, vm in enumerate(self.vms):
            parts = [f"{vm.vcpus} vCPUs", f"{vm.threads} threads"]
            parts += [f"weight {vm.weight}"] if vm.weight != 256 else []
            parts += [f"cap {vm.cap} %"] if vm.cap else []
            parts += [f"reservation {vm.reservation} %"] if vm.reservation else []
            if vm.rt_period_ns:
                parts.append(f"{format_duration(vm.rt_budget_ns)} in every {format_duration(vm.rt_period_ns)}")
            parts += [f"affinity mask {vm.affinity:#x}"] if vm.affinity else []
            parts += [f"{vm.pages} pages"] if self.memory is not None else []
            begin = f" starts at {format_duration(vm.start_ns)}" if vm.start_ns else ""
            lines.append(f"VM {number}: {', '.join(parts)}{begin}")
        for number, flow in enumerate(self.flows):
            ends = ["outside" if end < 0 else f"VM {end}" for end in (flow.a, flow.b)]
            lines.append(f"flow {number}: {flow.proto} between {ends[0]} and {ends[1]}")
        for fault in self.faults:
            until = f" until {format_duration(fault.until_ns)}" if fault.until_ns else ""
            lines.append(f"fault: {fault.kind} {fault.target} from {format_duration(fault.at_ns)}{until}")
        numbered = [f"{i + 1}. {action.describe()}" for i, action in enumerate(self.actions)]
        if len(numbered) > MOST_LINES:
            left_out = len(numbered) - MOST_LINES
            half = MOST_LINES // 2
            numbered[half : half + left_out] = [f"... {left_out} more actions"]
        lines += numbered
        passes = ", ".join(f"VM {i} {format_duration(vm.ends_with_ns)}" for i, vm in enumerate(self.vms))
        if self.vms and not self.once:
            lines.append(f"and each VM computes and begins again: {passes}")
        return lines

    def spec(self) -> HostSpec:
        """The host that the story describes."""
        programs = [[_Program(v, t) for t in range(vm.threads)] for v, vm in enumerate(self.vms)]
        outside = _Program(0, -1) if any(f.a < 0 or f.b < 0 for f in self.flows) else None
        for action in self.actions:
            _extend(programs, outside, self.flows, action)
        last: Row = ("sleep", -1, LONG_ENOUGH_NS, 0, 0)
        for vm, threads in zip(self.vms, programs, strict=True):
            threads[0].ops.append(("compute", -1, vm.ends_with_ns, 0, 0))
            for program in threads if self.once else ():
                program.ops.append(last)
        if outside is not None:
            outside.ops.append(last if self.once else ("compute", -1, 5_000, 0, 0))
        # flows belong to a group: whoever talks is of one trace
        together = [[p for threads in programs for p in threads]] if self.flows else programs
        if outside is not None:
            together[0].append(outside)
        rows: list[Row] = []
        groups = []
        for number, listed in enumerate(together):
            made = []
            for program in listed:
                made.append(ThreadSpec(program.vm, len(rows), len(rows) + len(program.ops), outside=program.thread < 0))
                rows += program.ops
            start_ns = 0 if self.flows else self.vms[number].start_ns
            groups.append(
                GroupSpec(
                    tuple(made), start_ns=start_ns, locks=BARRIER_LOCK + 1, flows=self.flows if number == 0 else ()
                )
            )
        table = schema.TABLES["op"].layout.zeros(max(1, len(rows)))
        for at, (name, x, a, b, flags) in enumerate(rows):
            table[at] = (OPS[name], flags, x, a, b)
        return HostSpec(
            cpu=self.cpu,
            vms=tuple(
                VmSpec(
                    vm.vcpus,
                    0 if self.flows else v,
                    vm.weight,
                    vm.cap,
                    vm.reservation,
                    vm.affinity,
                    vm.pages,
                    rt_period_ns=vm.rt_period_ns,
                    rt_budget_ns=vm.rt_budget_ns,
                )
                for v, vm in enumerate(self.vms)
            ),
            groups=tuple(groups),
            ops=table,
            privileged=no_privileged(),
            horizon_ns=self.horizon_ns,
            warmup_ns=self.warmup_ns,
            seed=self.seed,
            faults=self.faults,
            io=self.io if self.io is not None or self.memory is None else IoSpec(),
            memory=self._memory_spec(),
        )

    def _memory_spec(self) -> MemorySpec | None:
        if self.memory is None:
            return None
        m = self.memory
        objects = tuple(
            tuple(
                MemoryObject(kind, m.object_pages, v, 0 if kind == ANON else -1, 0 if kind == ANON else 1000 + i)
                for i, kind in enumerate(OBJECT_KINDS)
            )
            for v in range(len(self.vms))
        )
        return MemorySpec(
            frames=m.frames,
            vms=tuple(
                GuestMemory(vm.pages, replacement=vm.replacement, swap_pages=m.guest_swap_pages) for vm in self.vms
            ),
            # all of one group where VMs talk: its threads name objects of the first VM only
            objects=(tuple(x for own in objects for x in own),) if self.flows else objects,
            hypervisor_pages=16,
            vm_overhead_pages=4,
            host_swap_pages=m.host_swap_pages,
            large_backing=m.large_backing,
            balance_ns=m.balance_ns,
            flush_ns=7 * MS,
        )


@attrs.define
class _Program:
    """A thread's operations while they are put together; thread -1 is outside of the host."""

    vm: int
    thread: int
    ops: list[Row] = attrs.field(factory=list)


def _extend(
    programs: list[list[_Program]], outside: _Program | None, flows: tuple[FlowSpec, ...], action: Action
) -> None:
    """Append an action's operations to the threads that take part in it."""
    threads = programs[action.vm]
    mine = threads[action.thread % len(threads)].ops
    kind, a, b, c = action.kind, action.a, action.b, action.c
    if kind == "compute":
        mine.append(("compute", -1, a, b, 0))
    elif kind in ("sleep", "outside"):
        mine.append((kind, -1, a, 0, 0))
    elif kind == "wake":
        # threads are numbered within their group, where VMs talk over all VMs
        first = sum(len(x) for x in programs[: action.vm]) if flows else 0
        peer = a % len(threads)
        mine.append(("wake", first + peer, 0, 0, 0))
        threads[peer].ops.append(("wait", -1, 0, 0, 0))
    elif kind == "lock":
        mine += [("lock", b, 0, 0, 0), ("compute", -1, a, 0, 0), ("unlock", b, 0, 0, 0)]
    elif kind == "barrier":
        for program in threads:
            program.ops.append(("barrier", BARRIER_LOCK, 0, len(threads), 0))
    elif kind == "mark":
        mine += [("mark_begin", -1, 0, 0, 0), ("compute", -1, a, 0, 0), ("mark_end", -1, 0, 0, 0)]
    elif kind in ("read", "write"):
        mine.append((f"blk_{kind}", -1, a * SECTORS_PER_PAGE, b * SECTORS_PER_PAGE, 0))
    elif kind == "message":
        flow = flows[a]
        ends = (flow.a, flow.b) if b == 0 else (flow.b, flow.a)
        here, there = (outside if end < 0 else programs[end][0] for end in ends)
        assert here is not None and there is not None
        here.ops.append(("send", 2 * a + b, c, 0, 0))
        there.ops.append(("recv", 2 * a + 1 - b, c, 5 * MS if flow.proto == "udp" else 0, 0))
    elif kind == "exit":
        mine.append(("exit", -1, 0, 0, 0))
    else:
        _memory_op(mine, kind, a + (len(OBJECT_KINDS) * action.vm if flows else 0), b, c, action.write)


def _memory_op(ops: list[Row], kind: str, x: int, b: int, c: int, write: bool) -> None:
    flags = FLAG_WRITE if write and kind == "touch" else 0
    if kind == "content":
        ops.append(("content", x, b, c, FLAG_COMMON if write else 0))
    elif kind == "fsync":
        ops.append(("fsync", x, 0, 0, 0))
    elif kind == "touch" and x % len(OBJECT_KINDS) != 0:
        ops.append(("mtouch", x, b, c, flags))
    else:
        ops.append((kind, x, b, c, flags))
