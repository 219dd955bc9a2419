"""What a check works with: the policy, how thorough to be, stories run and failures made short."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from hvbench.binding import Chosen
from hvbench.hookspecs import Hook
from hvbench.state.memory import HostMemory
from hvbench.testing import laws_cpu, laws_io, laws_memory
from hvbench.testing.checks import Violated, where
from hvbench.testing.dice import SeededDice
from hvbench.testing.generate import story_for
from hvbench.testing.story import Story
from hvbench.testing.subject import Around, Look, Ran, Subject, default_mode, run
from hvbench.units import rounded_duration

CALLS_SHOWN = 8
TOLD_NS = 20_000_000_000
"""Of a longer run the last calls of its first 20 s are told: hooks whose calls are kept run as plain Python."""
LONGEST_TURN_NS = 100_000_000
FIRST_SEED = 1


@attrs.frozen
class Effort:
    """How much is tried: random stories a check, and seconds to make a failing one short."""

    name: str
    stories: int
    few: int
    shorten_s: float


QUICK = Effort("quick", 25, 4, 4.0)
NORMAL = Effort("normal", 120, 12, 15.0)
THOROUGH = Effort("thorough", 1500, 60, 60.0)
EFFORTS = {e.name: e for e in (QUICK, NORMAL, THOROUGH)}

Test = Callable[[Story], str]
"""Runs a story; says what went wrong, or nothing."""


@attrs.define
class Lab:
    """The place where the checks of one policy are made."""

    subject: Subject
    effort: Effort = QUICK
    seed: int = FIRST_SEED
    compiles: bool = True
    """Whether long runs may compile the policy's hooks: not worth it for a policy that is used once."""
    other: Any = None
    """Another process that runs stories, made when first needed (see hvbench.testing.other)."""
    judged: bool = True
    """Whether the check that is made now may fail: what is only reported is not made short, nor told."""
    references: tuple[Subject, ...] = ()
    """Bundled policies that the cost of a decision is set beside."""

    @property
    def fast(self) -> str:
        """The mode of runs that nobody has to look into."""
        return "compiled" if self.compiles and not is_interpreted() else ""

    @property
    def turn_ns(self) -> int:
        """The longest turn that the policy's own parameters suggest, up to 100 ms."""
        policy = self.subject.policy
        times = [int(getattr(self.subject.params, info.name)) for info in policy.params if info.unit == "ns"]
        return min(LONGEST_TURN_NS, max(times, default=0))

    def story(self, number: int) -> Story:
        """A random story for the policy's axis."""
        return story_for(self.subject.axis, SeededDice(self.seed * 1_000_003 + number))

    def run(self, story: Story, mode: str = "", **options: Any) -> Ran:
        """Run a story with the policy under test."""
        return run(self.subject, story, mode, **options)

    def must_run(self, story: Story, mode: str = "", **options: Any) -> Ran:
        """Run a story that ends well under any legal policy."""
        ran = self.run(story, mode, **options)
        if ran.status not in ("ok", "refused"):
            raise Violated(ran.reason, self.tell(story))
        return ran

    def explore(self, test: Test, stories: int, change: Callable[[Story], Story] = lambda story: story) -> int:
        """Try random stories; Violated with a short story where one fails. Returns how many were tried."""
        for number in range(stories):
            story = change(self.story(number))
            reason = test(story)
            if reason:
                if self.judged:
                    story, reason = shorten(story, reason, test, self.effort.shorten_s)
                raise Violated(reason, self.tell(story))
        if self.effort is THOROUGH:
            invent(self, test, change, stories)
        return stories

    def tell(self, story: Story) -> list[str]:
        """A story, and the last calls of hooks in it."""
        if not self.judged:
            return []
        calls: deque[str] = deque(maxlen=CALLS_SHOWN)
        try:
            self.run(attrs.evolve(story, horizon_ns=min(story.horizon_ns, TOLD_NS)), around=recorder(calls))
        except Exception as error:
            calls.append(f"then: {where(error)}")
        lines = story.describe()
        when = f" in the first {rounded_duration(TOLD_NS)}" if story.horizon_ns > TOLD_NS else ""
        return [*lines, f"the last calls of its hooks{when}:", *[f"  {call}" for call in calls]] if calls else lines


def recorder(calls: deque[str]) -> Around:
    """Keeps the hooks' calls, with their answers, as text."""

    def around(policy: Chosen, spec: Hook, call: Callable[..., int]) -> Callable[..., int]:
        names = spec.arguments

        def recorded(*values: int) -> int:
            given = dict(zip(names, values, strict=False))
            at = f"at {rounded_duration(given.pop('now'))} " if "now" in given else ""
            text = f"{at}{spec.name}({', '.join(f'{n} {v}' for n, v in given.items())})"
            calls.append(text)
            answer = call(*values)
            if spec.decides:
                calls[-1] = f"{text} -> {answer}"
            return answer

        return recorded

    return around


# what is looked at -----------------------------------------------------------------------------------------------


def legal(lab: Lab, mode: str = "") -> Test:
    """Every answer is legal, no exception, nothing stands still."""

    def test(story: Story) -> str:
        ran = lab.run(story, mode)
        return "" if ran.status in ("ok", "refused") else ran.reason

    return test


def lawful(story: Story) -> Look:
    """Looks whether the host's tables agree with each other, and nothing was lost or made up."""

    def look(memory: HostMemory) -> None:
        laws_cpu.consistent(memory)
        if story.io is not None:
            laws_io.conserved(memory)
        if story.memory is not None:
            laws_memory.conserved(memory)

    return look


def conserving(lab: Lab) -> Test:
    """The laws hold every few events, and the figures at the end add up."""

    def test(story: Story) -> str:
        try:
            ran = lab.run(story, look=lawful(story), events=40)
            if ran.status == "ok":
                laws_cpu.time_adds_up(ran.memory)
        except AssertionError as error:
            return f"a law of conservation is broken: {where(error)}"
        return "" if ran.status in ("ok", "refused") else ran.reason

    return test


# making it short -------------------------------------------------------------------------------------------------


class _OutOfTime(BaseException):
    """Ends hypothesis' search: it lets through what is no Exception."""


def kind_of(reason: str) -> str:
    """A failure without its numbers: two failures of one kind are one."""
    return re.sub(r"-?\d[\d.,]*", "#", reason)


def shorten(story: Story, reason: str, test: Test, seconds: float) -> tuple[Story, str]:
    """The shortest part of a failing story that fails in the same way, found by hypothesis; as it is without it."""
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import strategies as st
    except ImportError:
        return story, reason
    best = [(story, reason)]
    end = time.monotonic() + seconds
    kind = kind_of(reason)

    @st.composite
    def parts(draw: Any) -> Story:
        # nearly everything is kept at first; shrinking leads to 0, which leaves out or makes simple
        keep = [draw(st.integers(0, 99)) > 0 for _ in story.actions]
        simple = [draw(st.integers(0, 99)) == 0 for _ in story.actions]
        faults = [f for f in story.faults if draw(st.integers(0, 99)) > 0]
        shorter = draw(st.integers(0, 99)) == 0
        return part_of(story, keep, simple, len(faults), shorter)

    def attempt(candidate: Story) -> None:
        if time.monotonic() > end:
            raise _OutOfTime
        found = test(candidate)
        if found and kind_of(found) == kind:
            if _size(candidate) <= _size(best[0][0]):
                best[0] = (candidate, found)
            raise AssertionError(found)

    search = settings(
        max_examples=25,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        derandomize=True,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )(given(parts())(attempt))
    with contextlib.suppress(_OutOfTime, Exception):
        search()  # which ends by the failure that it has made short
    return best[0]


def _size(story: Story) -> tuple[int, int, int]:
    return len(story.actions) + len(story.faults), len(story.vms), story.horizon_ns


def part_of(story: Story, keep: list[bool], simple: list[bool], faults: int, shorter: bool) -> Story:
    """A story with some of its actions, the others simplified; VMs at the end that do nothing are left out."""
    from hvbench.testing.story import SPANS, US

    actions = []
    for action, kept, simplified in zip(story.actions, keep, simple, strict=True):
        if kept:
            actions.append(attrs.evolve(action, a=US) if simplified and action.kind in SPANS else action)
    vms = story.vms
    while not story.flows and len(vms) > 1 and all(a.vm != len(vms) - 1 for a in actions):
        vms = vms[:-1]
    listed = [f for f in story.faults[:faults] if f.kind != "guest" or f.target < len(vms)]
    horizon_ns = max(story.warmup_ns + 1, story.horizon_ns // 4) if shorter else story.horizon_ns
    return attrs.evolve(story, actions=tuple(actions), vms=vms, faults=tuple(listed), horizon_ns=horizon_ns)


def invent(lab: Lab, test: Test, change: Callable[[Story], Story], examples: int) -> None:
    """Let hypothesis make stories of its own; Violated with the shortest that fails."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from hvbench.testing.dice import DrawnDice

    failing: list[tuple[Story, str]] = []
    end = time.monotonic() + 10 * lab.effort.shorten_s

    @st.composite
    def stories(draw: Any) -> Story:
        return change(story_for(lab.subject.axis, DrawnDice(draw)))

    def attempt(story: Story) -> None:
        if time.monotonic() > end:
            raise _OutOfTime
        reason = test(story)
        if reason:
            failing.append((story, reason))
            raise AssertionError(reason)

    options = settings(
        max_examples=min(examples, 200),
        database=None,
        derandomize=True,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        options(given(stories())(attempt))()
    except (_OutOfTime, Exception):
        if failing:
            story, reason = min(failing, key=lambda found: _size(found[0]))
            raise Violated(reason, lab.tell(story)) from None


def is_interpreted() -> bool:
    """Whether nothing is compiled in this process."""
    return default_mode() == "interpreted"
