"""rt-app's JSON: synthetic real-time tasks, as schedulers of Linux are tested with.

    hvbench import rt-app workload.json -o trace.parquet

A file is an object: `tasks`, by name, each a list of events in the order of its keys (or `phases` of them, each with a
`loop`), `loop` (-1: forever) and `instance` (how many of the task); and `global` with `duration` (s, -1: until all have
ended). Comments of C and trailing commas are legal, and so is a key that occurs twice; a name may end in a number
(`run0`). Events, times in us:

- `run`, `runtime` N: compute (user_ns); `sleep` N: sleep;
- `timer` {"period": N, "mode": "absolute" or "relative"}: sleep until N us after the last expiry ("absolute") or after
  the loop began; one that is past does not sleep;
- `lock`, `unlock` NAME: a lock; `barrier` NAME: all tasks that name it meet;
- `suspend` [NAME], `resume` NAME: a task waits (under its own name, if it says none) and another wakes all who do;
- `iorun` BYTES: written to a file; `mem` BYTES: written to memory of its own; `yield`: one context switch.

What depends on when tasks run (a timer that is late, a wait that was not needed) is worked out here on processors of
their own, one for each task; waits are edges, and replay decides. Conditions (`wait`, `signal`, `broad`, `sync`) and
`fork` are not supported, and said. Each task is a thread of one process. Scheduling classes, priorities and CPU
affinity are not part of a trace; how many settings were left out is said. All amounts are as written: the metadata calls it synthetic.

Nothing here was recorded. Source: rt-app, doc/tutorial.txt and src/rt-app_parse_config.c.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
from attrs import define, field

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.format import FLAG_WRITE, OPS
from hvbench.traces.importers.api import Batch, Format, Head, Import, option, rows
from hvbench.traces.importers.sources import Source

US: Final = 1000
PAGE: Final = 4096
LARGEST: Final = 16 << 20
MOST_ROWS: Final = 5_000_000
_TOKENS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=\s*(?://[^\n]*\s*|/\*.*?\*/\s*)*[}\]])', re.DOTALL)
_EVENT: Final = re.compile(
    r"(runtime|run|sleep|timer|lock|unlock|barrier|suspend|resume|iorun|mem|yield|wait|signal|broad|sync|fork)(?:\d+|_.*)?"
)
_REFUSED: Final = ("wait", "signal", "broad", "sync", "fork")
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
    expiry: dict[str, int] = field(factory=dict)
    steps: Iterator[tuple[str, Any]] = field(factory=lambda: iter(()))
    waits_for: str = ""


@define
class _Made:
    rows: list[tuple[int, int, int, dict[str, int]]] = field(factory=list)

    def add(self, op: str, task: _Task, **more: int) -> None:
        self.rows.append((OPS[op], task.thread, task.now, more))
        if len(self.rows) > MOST_ROWS:
            raise UserError(f"more than {MOST_ROWS} events of tasks: a shorter --duration makes fewer")


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
        elif match[1] in _REFUSED:
            raise UserError(f"{where}: the event {key!r} is not supported: what it waits for has no place in a trace")
        else:
            found.append((match[1], value if match[1] != "yield" else None))
    return found


def _tasks(job: Import, config: _Repeated, where: str, left_out: set[str]) -> list[_Task]:
    made = []
    for name, task in config["tasks"].pairs:
        here = f"{where}: task {name!r}"
        if not isinstance(task, _Repeated):
            raise UserError(f"{here}: expected an object of events, found {task!r}")
        own = [(key, value) for key, value in task.pairs if key not in ("phases", "loop", "instance")]
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
        for number in range(_whole(task.get("instance", 1), f"{here}: instance")):
            full = f"{name}-{number}"
            made.append(_Task(name, job.thread(full, 0), phases, loop))
    return made


def _steps(task: _Task) -> Iterator[tuple[str, Any]]:
    """A task's events, one after the other, for as long as it says."""
    turn = 0
    while turn != task.loop:
        turn += 1
        task.began = task.now
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
    end = job.options.duration_ns or (_whole(seconds, f"{source.name}: global: duration", -1) * 10**9 if seconds != -1 else 0)
    if not end and any(task.loop < 0 or any(loop < 0 for loop, _ in task.phases) for task in tasks):
        raise UserError(f"{source.name}: tasks loop forever and no duration is given: --duration TIME ends them")
    made = _run(job, tasks, end or 1 << 55, source.name)
    if left_out:
        job.note(f"settings without a place in a trace are left out: {', '.join(sorted(left_out))}")
    if not made.rows:
        return
    import numpy as np

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


def _run(job: Import, tasks: list[_Task], end: int, where: str) -> _Made:
    """All tasks, each on a processor of its own; who is suspended goes on when he is resumed."""
    made = _Made()
    numbers: dict[tuple[str, str], int] = {}
    objects: dict[tuple[str, int], int] = {}
    meet = {
        str(value): sum(any(item == ("barrier", value) for _, events in task.phases for item in events) for task in tasks)
        for task in tasks for _, events in task.phases for kind, value in events if kind == "barrier"
    }  # fmt: skip
    barred: dict[str, list[_Task]] = {}
    suspended: dict[str, list[_Task]] = {}
    ready = list(tasks)
    for task in tasks:
        task.steps = _steps(task)
    idle = 0
    while ready:
        task = min(ready, key=lambda item: (item.now, item.thread))
        if task.now >= end:
            break
        kind, value = next(task.steps, ("end", None))
        before = task.now
        if kind == "end":
            ready.remove(task)
        elif kind in ("run", "runtime"):
            spent = _whole(value, f"{where}: {kind}") * US
            made.add("compute", task, user_ns=spent)
            task.now += spent
        elif kind == "sleep":
            _sleep(job, made, task, _whole(value, f"{where}: sleep") * US)
        elif kind == "timer":
            _timer(job, made, task, value, where)
        elif kind in ("lock", "unlock"):
            made.add(kind, task, peer=numbers.setdefault(("lock", str(value)), len(numbers)))
        elif kind == "yield":
            made.add("compute", task, context_switches=1)
        elif kind in ("mem", "iorun"):
            _pages(job, made, task, kind, _whole(value, f"{where}: {kind}"), objects)
        elif kind == "barrier":
            number = numbers.setdefault(("barrier", str(value)), len(numbers))
            made.add("barrier", task, peer=number, pages=meet[str(value)])
            barred.setdefault(str(value), []).append(task)
            ready.remove(task)
            if len(barred[str(value)]) == meet[str(value)]:
                for other in barred.pop(str(value)):
                    other.now = task.now
                    ready.append(other)
        elif kind == "suspend":
            task.waits_for = value if isinstance(value, str) and value else task.name
            suspended.setdefault(task.waits_for, []).append(task)
            ready.remove(task)
        elif kind == "resume":
            for other in suspended.pop(str(value), []):
                made.add("wake", task, peer=other.thread)
                begin, other.now = other.now, max(other.now, task.now)
                made.rows.append((OPS["wait"], other.thread, begin, {}))
                job.waited("thread_edge", other.now - begin)
                ready.append(other)
        idle = idle + 1 if task.now == before else 0
        if idle > 100_000:
            raise UserError(f"{where}: task {task.name!r} loops without taking time: give it a run, a sleep or a timer")
    return made


def _sleep(job: Import, made: _Made, task: _Task, ns: int) -> None:
    if ns > 0:
        made.add("sleep", task, duration_ns=ns)
        job.waited("timer", ns)
        task.now += ns


def _timer(job: Import, made: _Made, task: _Task, value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where}: timer is {value!r}: has to be an object with `period` (us)")
    period = _whole(value.get("period"), f"{where}: timer: period", 1) * US
    mode = value.get("mode", "relative")
    if mode not in ("relative", "absolute"):
        raise UserError(f"{where}: timer: mode is {mode!r}; legal: relative, absolute")
    ref = str(value.get("ref", ""))
    last = task.expiry.get(ref, task.began)
    due = last + period
    # a relative timer that is late counts from now, an absolute one from where it was due
    task.expiry[ref] = due if due > task.now or mode == "absolute" else task.now
    _sleep(job, made, task, due - task.now)


def _pages(job: Import, made: _Made, task: _Task, kind: str, size: int, objects: dict[tuple[str, int], int]) -> None:
    """`mem`: a task's own memory is written; `iorun`: one file."""
    if size == 0:
        return
    key = (kind, task.thread if kind == "mem" else -1)
    if key not in objects:
        objects[key] = job.object("anon", 0, 0) if kind == "mem" else job.object("own", 0, name="iorun")
    pages = -(-size // PAGE)
    job.reach(objects[key], pages)
    if kind == "mem":
        made.add("touch", task, object=objects[key], page=0, pages=pages, flags=FLAG_WRITE)
    else:
        made.add("fwrite", task, object=objects[key], page=0, pages=pages)


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
