"""rt-app's JSON: synthetic real-time tasks, as schedulers of Linux are tested with.

    hvbench import rt-app workload.json -o trace.parquet

A file is an object: `tasks`, by name, each a list of events in the order of its keys (or `phases` of them, each with a
`loop`), `loop` (-1, the default: forever), `instance` (how many of the task) and `delay` (us); and `global` with
`duration` (s, -1: until all have ended). Comments of C and trailing commas are legal, and so is a key that occurs
twice; a name may end in a number (`run0`). Events, times in us:

- `run`, `runtime` N: compute (user_ns); `sleep` N: sleep; `yield`: a context switch;
- `timer` {"ref": NAME, "period": N, "mode": "relative" or "absolute"}: sleep until N us after the timer's last expiry,
  first after the task began; one that is past does not sleep, and, if relative, counts from now. A name that begins
  with `unique` is a timer of the task's own, others are shared;
- `lock`, `unlock` NAME; `barrier` NAME: all tasks that name it meet;
- `suspend` and `resume` NAME, `wait` {"ref", "mutex"} and `signal`, `broad`, `sync`: a task waits and another wakes it;
- `mem` BYTES: written to the task's buffer (`mem_buffer_size`, 4 MiB); `iorun` BYTES: written to `io_device`, left out
  where that is /dev/null, the default.

What depends on when tasks run (a timer that is late, who waits at a condition) is worked out here on processors of
their own, one for each task; waits are edges, and replay decides. `fork` is refused. Tasks are threads of one process.
Scheduling classes, priorities and affinities have no place in a trace: what was left out is named.

Nothing here was recorded; the metadata calls it synthetic. Source: rt-app, doc/tutorial.txt; src/rt-app.c (run_event).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import numpy as np
from attrs import define, field

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.format import FLAG_WRITE, OPS
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.sources import Source

US: Final = 1000
PAGE: Final = 4096
BUFFER: Final = 4 << 20
LARGEST: Final = 16 << 20
MOST_ROWS: Final = 5_000_000
_TOKENS: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=\s*(?://[^\n]*\s*|/\*.*?\*/\s*)*[}\]])', re.DOTALL
)
"""Texts, comments, and commas before a closing bracket."""
_EVENT: Final = re.compile(
    r"(runtime|run|sleep|timer|lock|unlock|barrier|suspend|resume|iorun|mem|yield|wait|signal|broad|sync|fork)"
    r"(?:\d+|_.*)?"
)
Pairs = list[tuple[str, Any]]


@attrs.frozen
class Options:
    duration_ns: int = option(0, unit="ns", help="how long tasks go on (default: what the file says)", metavar="TIME")


class _Repeated(dict[str, Any]):
    """An object that remembers all of its keys, also those that occur twice."""

    pairs: Pairs

    def __init__(self, pairs: Pairs) -> None:
        super().__init__(pairs)
        self.pairs = pairs


@define
class _Task:
    """A task on its way: its number, what is next, its own time."""

    name: str
    thread: int
    phases: list[tuple[int, Pairs]]
    loop: int
    now: int = 0
    began: int = 0
    held: list[int] = field(factory=list)
    steps: Iterator[tuple[str, Any]] = field(factory=lambda: iter(()))
    mutex: int = -1
    """What a waiting task takes again when it is woken."""


def parse(text: str, where: str) -> _Repeated:
    """The file as JSON: without comments and trailing commas, lines kept."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)

    try:
        made = json.loads(_TOKENS.sub(blank, text), object_pairs_hook=_Repeated)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}:{error.lineno}: expected JSON as rt-app reads it: {error.msg}") from error
    if not isinstance(made, _Repeated) or not isinstance(made.get("tasks"), _Repeated):
        raise UserError(f"{where}: expected an object with `tasks`, by name")
    return made


def _whole(value: Any, what: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 40:
        raise UserError(f"{what} is {value!r}: has to be a whole number, {least} or more")
    return value


def _events(pairs: Pairs, where: str, left_out: set[str]) -> Pairs:
    """The events of a phase by kind; settings of the task are named in `left_out`."""
    found = []
    for key, value in pairs:
        match = _EVENT.fullmatch(key)
        if match is None:
            left_out.add(key)
        elif match[1] == "fork":
            raise UserError(f"{where}: the event {key!r} is not supported: list the task that it makes by itself")
        else:
            found.append((match[1], value if match[1] != "yield" else None))
    return found


def _tasks(job: Import, config: _Repeated, where: str, left_out: set[str]) -> list[_Task]:
    made = []
    for name, task in config["tasks"].pairs:
        here = f"{where}: task {name!r}"
        if not isinstance(task, _Repeated):
            raise UserError(f"{here}: expected an object of events, found {task!r}")
        own = [(key, value) for key, value in task.pairs if key not in ("phases", "loop", "instance", "delay")]
        phases = [(1, _events(own, here, left_out))]
        if isinstance(task.get("phases"), _Repeated):
            phases = []
            for phase, inner in task["phases"].pairs:
                if not isinstance(inner, _Repeated):
                    raise UserError(f"{here}, phase {phase!r}: expected an object of events, found {inner!r}")
                loop = _whole(inner.get("loop", 1), f"{here}, phase {phase!r}: loop", -1)
                events = [(key, value) for key, value in inner.pairs if key != "loop"]
                phases.append((loop, _events(events, here, left_out)))
        loop = _whole(task.get("loop", -1), f"{here}: loop", -1)
        delay = _whole(task.get("delay", 0), f"{here}: delay") * US
        for number in range(_whole(task.get("instance", 1), f"{here}: instance")):
            full = f"{name}-{number}"
            made.append(_Task(name, job.thread(full, 0), phases, loop, delay))
    return made


def _steps(task: _Task) -> Iterator[tuple[str, Any]]:
    """A task's events, one after the other, for as long as it says."""
    turn = 0
    while turn != task.loop:
        turn += 1
        for loop, events in task.phases:
            round_ = 0
            while round_ != loop:
                round_ += 1
                yield from events
                if not events:
                    break
                yield "round", None


def read(job: Import) -> Iterator[Batch]:
    for source in job.sources():
        yield from _read_one(job, source)
    job.meta["synthetic"] = True


def _read_one(job: Import, source: Source) -> Iterator[Batch]:
    raw = source.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise UserError(f"{source.name}: larger than {LARGEST >> 20} MiB: is this a task description of rt-app?")
    config = parse(raw.decode("utf-8", "replace"), source.name)
    left_out: set[str] = set()
    tasks = _tasks(job, config, source.name, left_out)
    settings = config.get("global")
    seconds = settings.get("duration", -1) if isinstance(settings, dict) else -1
    limit = max(_whole(seconds, f"{source.name}: global: duration", -1), 0) * 10**9
    end = job.options.duration_ns or limit
    if not end and any(task.loop < 0 or any(loop < 0 for loop, _ in task.phases) for task in tasks):
        raise UserError(f"{source.name}: tasks loop forever and no duration is given: --duration TIME ends them")
    made = _Play(job, source.name, settings if isinstance(settings, dict) else {}).run(tasks, end or 1 << 55)
    if left_out:
        job.note(f"settings without a place in a trace are left out: {', '.join(sorted(left_out))}")
    if not made.rows:
        return
    start = int(job.clock(source).fix(np.zeros(1, np.int64))[0])
    job.until(start + max(task.now for task in tasks))
    names = sorted({name for *_, more in made.rows for name in more})
    absent = {"object": -1, "peer": -1}
    yield rows(
        np.array([row[0] for row in made.rows], np.int8),
        np.array([row[1] for row in made.rows], np.int32),
        np.array([row[2] for row in made.rows], np.int64) + start,
        **{name: np.array([row[3].get(name, absent.get(name, 0)) for row in made.rows], np.int64) for name in names},
    )


@define
class _Play:
    """All tasks, each on a processor of its own, and the rows that they leave."""

    job: Import
    where: str
    settings: dict[str, Any]
    rows: list[tuple[int, int, int, dict[str, int]]] = field(factory=list)
    ready: list[_Task] = field(factory=list)
    waiting: dict[tuple[str, str], list[_Task]] = field(factory=dict)
    numbers: dict[tuple[str, str], int] = field(factory=dict)
    objects: dict[tuple[str, int], int] = field(factory=dict)
    timers: dict[tuple[str, int], int] = field(factory=dict)
    meet: dict[str, int] = field(factory=dict)

    def add(self, op: str, task: _Task, at: int = -1, **more: int) -> None:
        self.rows.append((OPS[op], task.thread, task.now if at < 0 else at, more))
        if len(self.rows) > MOST_ROWS:
            raise UserError(f"more than {MOST_ROWS} events of tasks: a shorter --duration makes fewer")

    def run(self, tasks: list[_Task], end: int) -> _Play:
        for task in tasks:
            for _, events in task.phases:
                for kind, value in events:
                    if kind == "barrier":
                        self.meet[str(value)] = self.meet.get(str(value), 0) + 1
            task.began = task.now
            task.steps = _steps(task)
            if task.now:
                self.add("sleep", task, 0, duration_ns=task.now)
        self.ready = list(tasks)
        idle = 0
        while self.ready:
            task = min(self.ready, key=lambda item: (item.now, item.thread))
            if task.now >= end:
                break
            kind, value = next(task.steps, ("end", None))
            before = task.now
            if kind == "end":
                self.ready.remove(task)
            elif kind != "round":
                self._step(task, kind, value)
            idle = idle + 1 if task.now == before else 0
            if idle > 100_000:
                raise UserError(
                    f"{self.where}: task {task.name!r} loops without taking time: give it a run, a sleep or a timer"
                )
        for task in tasks:
            for number in task.held:
                self.add("unlock", task, peer=number)
        return self

    def _step(self, task: _Task, kind: str, value: Any) -> None:
        if kind in ("run", "runtime"):
            spent = _whole(value, f"{self.where}: {kind}") * US
            self.add("compute", task, user_ns=spent)
            task.now += spent
        elif kind == "sleep":
            self._sleep(task, _whole(value, f"{self.where}: sleep") * US)
        elif kind == "timer":
            self._timer(task, value)
        elif kind == "yield":
            self.add("compute", task, context_switches=1)
        elif kind in ("mem", "iorun"):
            self._pages(task, kind, _whole(value, f"{self.where}: {kind}"))
        elif kind == "lock":
            self._lock(task, self._number("lock", value))
        elif kind == "unlock":
            self._unlock(task, self._number("lock", value), str(value))
        elif kind == "barrier":
            self._barrier(task, str(value))
        elif kind == "suspend":
            self._wait(task, ("task", value if isinstance(value, str) and value else task.name))
        elif kind == "resume":
            self._wake(task, ("task", str(value)), 1 << 30)
        elif kind in ("signal", "broad"):
            self._wake(task, ("condition", str(value)), 1 if kind == "signal" else 1 << 30)
        else:
            self._condition(task, kind, value)

    def _number(self, kind: str, name: Any) -> int:
        return self.numbers.setdefault((kind, str(name)), len(self.numbers))

    # waiting --------------------------------------------------------------------------------------------

    def _lock(self, task: _Task, number: int) -> None:
        if number in task.held:
            raise UserError(f"{self.where}: task {task.name!r} locks what it holds already: it would wait for itself")
        task.held.append(number)
        self.add("lock", task, peer=number)

    def _unlock(self, task: _Task, number: int, name: str) -> None:
        if number not in task.held:
            raise UserError(f"{self.where}: task {task.name!r} unlocks {name!r}, which it does not hold")
        task.held.remove(number)
        self.add("unlock", task, peer=number)

    def _condition(self, task: _Task, kind: str, value: Any) -> None:
        if not isinstance(value, dict) or "ref" not in value or "mutex" not in value:
            raise UserError(f"{self.where}: {kind} is {value!r}: has to be an object with `ref` and `mutex`")
        number = self._number("lock", value["mutex"])
        if kind == "sync":
            self._lock(task, number)
            self._wake(task, ("condition", str(value["ref"])), 1)
        if number in task.held:
            self._unlock(task, number, str(value["mutex"]))
            task.mutex = -1 if kind == "sync" else number
        self._wait(task, ("condition", str(value["ref"])))

    def _wait(self, task: _Task, what: tuple[str, str]) -> None:
        self.waiting.setdefault(what, []).append(task)
        self.ready.remove(task)

    def _wake(self, task: _Task, what: tuple[str, str], most: int) -> None:
        waiting = self.waiting.get(what, [])
        for other in waiting[:most]:
            waiting.remove(other)
            self.add("wake", task, peer=other.thread)
            self.add("wait", other)
            self.job.waited("thread_edge", task.now - other.now)
            other.now = task.now
            if other.mutex >= 0:
                self._lock(other, other.mutex)
                other.mutex = -1
            self.ready.append(other)

    def _barrier(self, task: _Task, name: str) -> None:
        """Rows only once all have met: one that is never full would hold a replay up for ever."""
        self._wait(task, ("barrier", name))
        there = self.waiting["barrier", name]
        if len(there) < self.meet[name]:
            return
        number = self._number("barrier", name)
        for other in there:
            self.add("barrier", other, peer=number, pages=self.meet[name])
            other.now = task.now
            self.ready.append(other)
        there.clear()

    # time and memory ------------------------------------------------------------------------------------

    def _sleep(self, task: _Task, ns: int) -> None:
        if ns > 0:
            self.add("sleep", task, duration_ns=ns)
            self.job.waited("timer", ns)
            task.now += ns

    def _timer(self, task: _Task, value: Any) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{self.where}: timer is {value!r}: has to be an object with `period` (us)")
        period = _whole(value.get("period"), f"{self.where}: timer: period", 1) * US
        mode = value.get("mode", "relative")
        if mode not in ("relative", "absolute"):
            raise UserError(f"{self.where}: timer: mode is {mode!r}; legal: relative, absolute")
        ref = str(value.get("ref", "unique"))
        key = (ref, task.thread if ref.startswith("unique") else -1)
        due = self.timers.get(key, task.began) + period
        self.timers[key] = due if due > task.now or mode == "absolute" else task.now
        self._sleep(task, due - task.now)

    def _pages(self, task: _Task, kind: str, size: int) -> None:
        key = (kind, task.thread if kind == "mem" else -1)
        if kind == "iorun":
            device = str(self.settings.get("io_device", "/dev/null"))
            if device == "/dev/null":
                self.job.note("iorun writes to /dev/null (io_device): left out")
                return
        if size == 0:
            return
        if key not in self.objects:
            made = self.job.object("anon", 0, 0) if kind == "mem" else self.job.object("own", 0, name=device)
            self.objects[key] = made
        if kind == "mem":
            size = min(size, _whole(self.settings.get("mem_buffer_size", BUFFER), "mem_buffer_size", 1))
        pages = -(-size // PAGE)
        self.job.reach(self.objects[key], pages)
        op = "touch" if kind == "mem" else "fwrite"
        self.add(op, task, object=self.objects[key], page=0, pages=pages, flags=FLAG_WRITE if kind == "mem" else 0)


def sniff(head: Head) -> float:
    return 0.7 if head.is_text and re.search(rb'"tasks"\s*:', head.data) and b"{" in head.data[:4096] else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="rt-app",
        summary="rt-app's JSON of synthetic real-time tasks",
        read=read,
        sniff=sniff,
        extensions=(".json",),
        options=Options,
    )
