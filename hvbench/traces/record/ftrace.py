"""Parser of the kernel's ring-buffer text (`trace`, `trace_pipe`), needs no privileges.

A line is `COMM-TID (TGID) [CPU] FLAGS TIME: EVENT: ARGUMENTS`. COMM may hold anything, so lines are read from
the right. TIME is seconds with six digits (clock `mono`) or a plain count (clock `x86-tsc`); a recording with
the latter carries markers `hvbench clock=NS` from which `Clock` converts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from attrs import define, field

HEAD: Final = re.compile(
    r"^\s*(.+)-(\d+)\s+(?:\(\s*([\d-]+)\)\s+)?\[(\d+)\]\s+(?:(\S{3,6})\s+)?(\d+(?:\.\d+)?):\s+(\w+):\s?(.*)$"
)
LOST: Final = re.compile(r"LOST (\d+) EVENTS")


class Event(NamedTuple):
    """One line. `time` is ns, or ticks until `Clock` has converted it; `tgid` is 0 where it was not shown.

    `context` is "" in a task's own context, "h" in a hardware interrupt and "s" in a software interrupt.
    """

    time: int
    cpu: int
    tid: int
    tgid: int
    comm: str
    context: str
    name: str
    args: tuple[Any, ...]


def _switch(text: str) -> tuple[Any, ...] | None:
    match = _SWITCH.match(text)
    if match is None:
        return None
    prev_comm, prev, state, next_comm, following = match.groups()
    return prev_comm, int(prev), state, next_comm, int(following)


_SWITCH = re.compile(
    r"prev_comm=(.*) prev_pid=(\d+) prev_prio=\d+ prev_state=(\S+) ==> next_comm=(.*) next_pid=(\d+) next_prio"
)
_WAKING = re.compile(r"comm=(.*) pid=(\d+) prio=-?\d+ (?:success=\d+ )?target_cpu=(\d+)")
_FORK = re.compile(r"comm=(.*) pid=(\d+) child_comm=(.*) child_pid=(\d+)")
_EXEC = re.compile(r"filename=(.*) pid=(\d+) old_pid=(\d+)")
_ENTER = re.compile(r"NR (-?\d+) \(([^)]*)\)")
_EXIT = re.compile(r"NR (-?\d+) = (-?\d+)")
_FAULT = re.compile(r"address=(\S+) ip=\S+ error_code=0x([0-9a-f]+)")
_FILEMAP = re.compile(r"dev=(\d+:\d+) ino=([0-9a-f]+) ofs=(\d+)(?:-(\d+))?")
_ADDED = re.compile(r"dev (\d+:\d+) ino ([0-9a-f]+) .*ofs=(\d+) order=(\d+)")
_WRITE_END = re.compile(r"dev (\d+),(\d+) ino (\d+) pos (\d+) len (\d+) copied (\d+)")
_SYNC = re.compile(r"dev (\d+),(\d+) ino (\d+) ")
_SOCK = re.compile(
    r"sk address = (\S+), family = (\S+) protocol = (\S+), length = (\d+), error = (-?\d+), flags = 0x([0-9a-f]+)"
)
_ADJUST = re.compile(r"(?:family=(\S+) )?sport=(\d+) dport=(\d+)(?: .*?\bdaddr=(\S+))?(?:.*?\bdaddrv6=(\S+))?")
_STATE = re.compile(r"sport=(\d+) dport=(\d+) .*oldstate=(\w+) newstate=(\w+)")
_BLOCK = re.compile(r"(\d+),(\d+) (\w+) (?:\d+ )?\(.*?\) (\d+) \+ (\d+) ")
_BIO = re.compile(r"(\d+),(\d+) (\w+) (\d+) \+ (\d+) \[")
_PID = re.compile(r"comm=(.*) pid=(\d+)")


def _waking(text: str) -> tuple[Any, ...] | None:
    match = _WAKING.search(text)
    return match and (match[1], int(match[2]), int(match[3]))


def _fork(text: str) -> tuple[Any, ...] | None:
    match = _FORK.search(text)
    return match and (int(match[2]), match[3], int(match[4]))


def _exec(text: str) -> tuple[Any, ...] | None:
    match = _EXEC.search(text)
    return match and (match[1], int(match[2]), int(match[3]))


def _enter(text: str) -> tuple[Any, ...] | None:
    match = _ENTER.match(text)
    if match is None:
        return None
    return int(match[1]), tuple(int(word, 16) for word in match[2].split(",") if word.strip())


def _exit(text: str) -> tuple[Any, ...] | None:
    match = _EXIT.match(text)
    return match and (int(match[1]), int(match[2]))


def _fault(text: str) -> tuple[Any, ...] | None:
    match = _FAULT.match(text)
    if match is None or not match[1].startswith("0x"):
        return None
    return int(match[1], 16), int(match[2], 16)


def _filemap(text: str) -> tuple[Any, ...] | None:
    match = _FILEMAP.match(text)
    if match is None:
        return None
    first = int(match[3]) >> 12
    last = int(match[4]) >> 12 if match[4] else first
    return match[1], int(match[2], 16), first, last - first + 1


def _added(text: str) -> tuple[Any, ...] | None:
    match = _ADDED.match(text)
    return match and (match[1], int(match[2], 16), int(match[3]) >> 12, 1 << int(match[4]))


def _write_end(text: str) -> tuple[Any, ...] | None:
    match = _WRITE_END.match(text)
    if match is None or not int(match[6]):
        return None
    first, end = int(match[4]) >> 12, (int(match[4]) + int(match[6]) + 4095) >> 12
    return f"{match[1]}:{match[2]}", int(match[3]), first, end - first


def _sync(text: str) -> tuple[Any, ...] | None:
    match = _SYNC.match(text)
    return match and (f"{match[1]}:{match[2]}", int(match[3]))


def _sock(text: str) -> tuple[Any, ...] | None:
    match = _SOCK.match(text)
    if match is None:
        return None
    return match[1], match[2], match[3], int(match[4]), int(match[5])


def _ports(text: str) -> tuple[Any, ...] | None:
    match = _ADJUST.search(text)
    if match is None:
        return None
    six = match[1] == "AF_INET6" and match[5]
    return int(match[2]), int(match[3]), (match[5] if six else match[4]) or ""


def _state(text: str) -> tuple[Any, ...] | None:
    match = _STATE.search(text)
    return match and (int(match[1]), int(match[2]), match[3], match[4])


def _pid(text: str) -> tuple[Any, ...] | None:
    match = _PID.search(text)
    return match and (match[1], int(match[2]))


def block_request(text: str) -> tuple[Any, ...] | None:
    """Of a block event: device, what (R, W, F and flags), first sector, sectors."""
    match = _BLOCK.match(text)
    return match and (f"{match[1]}:{match[2]}", match[3], int(match[4]), int(match[5]))


def bio(text: str) -> tuple[Any, ...] | None:
    """Of a queued block I/O: device, what, first sector, sectors."""
    match = _BIO.match(text)
    return match and (f"{match[1]}:{match[2]}", match[3], int(match[4]), int(match[5]))


def _mark(text: str) -> tuple[Any, ...] | None:
    match = re.match(r"hvbench clock=(\d+)", text)
    return match and (int(match[1]),)


Reader = Callable[[str], tuple[Any, ...] | None]
"""From an event's arguments as text to values; None where they are none of its."""

ARGUMENTS: Final[dict[str, Reader]] = {
    "sched_switch": _switch,
    "sched_waking": _waking,
    "sched_wakeup_new": _waking,
    "sched_process_fork": _fork,
    "sched_process_exec": _exec,
    "sched_process_exit": _pid,
    "sys_enter": _enter,
    "sys_exit": _exit,
    "page_fault_user": _fault,
    "page_fault_kernel": _fault,
    "mm_filemap_get_pages": _filemap,
    "mm_filemap_map_pages": _filemap,
    "mm_filemap_fault": _filemap,
    "mm_filemap_add_to_page_cache": _added,
    "ext4_da_write_end": _write_end,
    "ext4_write_end": _write_end,
    "ext4_sync_file_enter": _sync,
    "sock_send_length": _sock,
    "sock_recv_length": _sock,
    "tcp_rcv_space_adjust": _ports,
    "inet_sock_set_state": _state,
    "tracing_mark_write": _mark,
}


@define
class Capture:
    """What was read from a ring buffer: events in time order, and what is missing from them."""

    events: list[Event] = field(factory=list)
    lost: int = 0
    unparsed: int = 0
    ticks: bool = False  # times are still in ticks of a counter


def parse(lines: Iterable[str], readers: Mapping[str, Reader] = ARGUMENTS) -> Capture:
    """Read ring-buffer text by the `readers` of its events; others are skipped, and not counted as unparsed."""
    capture = Capture()
    for line in lines:
        match = HEAD.match(line)
        if match is None:
            lost = LOST.search(line)
            if lost:
                capture.lost += int(lost[1])
            elif line.strip() and not line.startswith("#"):
                capture.unparsed += 1
            continue
        comm, tid, tgid, cpu, flags, stamp, name, text = match.groups()
        reader = readers.get(name)
        if reader is None:
            continue
        args = reader(text)
        if args is None:
            if not name.startswith(("tracing_mark_write", "ext4", "page_fault")):
                capture.unparsed += 1
            continue
        whole, dot, fraction = stamp.partition(".")
        if dot:
            time = int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))
        else:
            time = int(whole)
            capture.ticks = True
        context = ""
        if flags and len(flags) >= 3:
            context = {"h": "h", "H": "h", "s": "s", "z": "h", "Z": "h"}.get(flags[2], "")
        group = int(tgid) if tgid and tgid.strip("-") else 0
        capture.events.append(Event(time, int(cpu), int(tid), group, comm.strip(), context, name, args))
    capture.events.sort(key=lambda event: event.time)  # stable: the kernel's order within one instant
    return capture


@define(frozen=True)
class Clock:
    """A straight line from ticks to CLOCK_MONOTONIC ns, through a marker near each end."""

    tick0: int
    ns0: int
    ticks: int
    ns: int

    def __call__(self, tick: int) -> int:
        return self.ns0 + (tick - self.tick0) * self.ns // self.ticks

    @classmethod
    def of(cls, events: Iterable[Event]) -> Clock | None:
        """Through one marker near each end: there the one that came least late after its clock was read."""
        marks = [(event.time, event.args[0]) for event in events if event.name == "tracing_mark_write"]
        if len(marks) < 2 or marks[-1][0] <= marks[0][0]:
            return None
        rough = cls(marks[0][0], marks[0][1], marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1])

        def lag(mark: tuple[int, int]) -> int:
            return rough(mark[0]) - mark[1]

        edge = (marks[-1][0] - marks[0][0]) // 4
        first = min((mark for mark in marks if mark[0] <= marks[0][0] + edge), key=lag)
        last = min((mark for mark in marks if mark[0] >= marks[-1][0] - edge), key=lag)
        return cls(first[0], first[1], last[0] - first[0], last[1] - first[1])


def in_nanoseconds(capture: Capture) -> Iterator[Event]:
    """The events with times in ns of CLOCK_MONOTONIC; raises ValueError if the markers are missing."""
    if not capture.ticks:
        yield from capture.events
        return
    clock = Clock.of(capture.events)
    if clock is None:
        raise ValueError("the capture is in ticks, but holds no two `hvbench clock=` markers to convert them")
    for event in capture.events:
        yield event._replace(time=clock(event.time))
