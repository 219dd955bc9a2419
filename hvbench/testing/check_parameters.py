"""Checks of declared parameters: each one counts, and the ends of its range are legal."""

from __future__ import annotations

from typing import Any

import attrs

from hvbench.axes import AXES, DECISION_AXES
from hvbench.costs import HostCosts, TechniqueCosts
from hvbench.errors import UserError
from hvbench.plugins import ParamInfo, bind_params, manager_of
from hvbench.testing import probes
from hvbench.testing.checks import NotApplicable, Violated, check
from hvbench.testing.lab import Lab
from hvbench.testing.story import MS, Story
from hvbench.testing.subject import Subject

MOST_NS = 100_000_000_000
"""No parameter of time is set higher than 100 s: a host of the kit never lives that long."""
OFTEN_NS = 20_000
"""Where all times are made short together, none is made shorter: a host of slices of 100 ns takes the kit a minute."""
CPU_MHZ = (2_100, 3_800)


def values_of(info: ParamInfo) -> list[Any]:
    """Values across a parameter's range without its default; those that make the least work first."""
    if info.kind is bool:
        return [not info.default]
    default = info.default
    tried: list[float] = [default * 10, default * 2]
    if info.low is not None:
        tried.append(max(info.low, default / 10_000) if info.unit == "ns" else info.low)
    if info.high is not None:
        tried.append(min(info.high, MOST_NS) if info.unit == "ns" else info.high)
    tried += [default / 2, default + 1, default / 10, default * 1000]
    if default == 0:
        tried += [1, 100, 100_000]
    legal: dict[Any, None] = {}
    for value in tried:
        made = info.kind(value)
        inside = (info.low is None or made >= info.low) and (info.high is None or made <= info.high)
        if inside and made != default and abs(made) <= MOST_NS:
            legal.setdefault(made)
    return list(legal)


def stated(subject: Subject) -> Any:
    """What a policy states as data: a path, a switch, tables of costs at two clocks."""
    if subject.axis in DECISION_AXES:
        spec = subject.spec(Story((), (), MS))
        return spec.io if subject.axis in ("storage", "switch") else None
    return tables_of(subject)


def tables_of(subject: Subject) -> tuple[TechniqueCosts | HostCosts, ...]:
    """A cost axis's tables at two clocks."""
    hook = f"hvbench_{subject.axis}_costs"
    manager = manager_of([subject.policy])
    return tuple(getattr(manager.hook, hook)(params=subject.params, cpu_mhz=mhz) for mhz in CPU_MHZ)


@check(
    "parameters-used",
    AXES,
    "every declared parameter changes something",
    how="""Each parameter is set to values across its range. At least one of them must change a decision, a path, a
    cost or a figure on one of the kit's probe workloads; else the parameter is declared and ignored.""",
)
def parameters_used(lab: Lab) -> str:
    infos = lab.subject.policy.params
    if not infos:
        raise NotApplicable("it has no parameters")
    # a parameter may count only where a switch beside it is set
    switched = [lab.subject, *(w for i in infos if i.kind is bool and (w := _with(lab.subject, i, not i.default)))]
    ignored = list(infos)
    for subject in switched:
        there = attrs.evolve(lab, subject=subject)
        base, cache = stated(subject), dict[int, Any]()
        ignored = [info for info in ignored if not _counts(there, info, base, cache)]
    if ignored and (often := _as_often_as_it_may(lab.subject)) is not None:
        # or where nothing else holds the policy back
        there = attrs.evolve(lab, subject=often)
        base, cache = stated(often), {}
        ignored = [info for info in ignored if not _counts(there, info, base, cache)]
    if ignored:
        names = ", ".join(info.name for info in ignored)
        tried = ", ".join(ignored[0].format(value) for value in values_of(ignored[0]))
        raise Violated(
            f"declared but ignored: {names}; {ignored[0].name} was set to {tried}, and nothing changed on any probe"
        )
    return f"{len(infos)} parameters"


def _as_often_as_it_may(subject: Subject) -> Subject | None:
    """The policy with each of its times at `OFTEN_NS`, or as near as legal; None where its class refuses that."""
    for info in subject.policy.params:
        if info.unit == "ns" and getattr(subject.params, info.name) > OFTEN_NS:
            made = _with(subject, info, max(OFTEN_NS, info.low or 0))
            if made is None:
                return None
            subject = made
    return subject


def _counts(lab: Lab, info: ParamInfo, base: Any, cache: dict[int, Any]) -> bool:
    others = [other for value in values_of(info) if (other := _with(lab.subject, info, value)) is not None]
    if any(stated(other) != base for other in others):
        return True
    if lab.subject.axis not in DECISION_AXES:
        return False
    # the value that is farthest away is tried everywhere first: what counts at all mostly shows there
    for other in others:
        for number, story in enumerate(probes.for_parameters(lab.subject.axis)):
            if number not in cache:
                cache[number] = lab.run(story, lab.fast).fingerprint()
            if attrs.evolve(lab, subject=other).run(story, lab.fast).fingerprint() != cache[number]:
                return True
    return False


def _with(subject: Subject, info: ParamInfo, value: Any) -> Subject | None:
    """The policy with another value of a parameter; None where its class refuses the combination."""
    settings = {
        i.name: i.format(v) for i in subject.policy.params if (v := getattr(subject.params, i.name)) != i.default
    }
    try:
        return attrs.evolve(subject, params=bind_params(subject.policy, {**settings, info.name: info.format(value)}))
    except UserError:
        return None


@check(
    "parameters-bounds",
    DECISION_AXES,
    "the ends of each parameter's range are legal",
    how="""Each parameter with a declared `low` or `high` is set to it, and random hosts are run: a value that the
    range allows must not end in an illegal answer, an exception or a virtual clock that stands still.""",
)
def parameters_bounds(lab: Lab) -> str:
    tried = 0
    for info in lab.subject.policy.params:
        for value in (info.low, info.high):
            other = None if value is None or info.kind is bool else _with(lab.subject, info, info.kind(value))
            if other is None:
                continue
            tried += 1
            for number in range(2):
                story = lab.story(number)
                # a period of a nanosecond must not take the kit a minute
                short = attrs.evolve(story, horizon_ns=min(story.horizon_ns, 5_000 if story.io is None else MS))
                there = attrs.evolve(lab, subject=other)
                ran = there.run(attrs.evolve(short, warmup_ns=0, faults=()), lab.fast)
                if ran.status in ("failed", "stalled"):
                    raise Violated(
                        f"with {info.name} at {info.format(info.kind(value))}: {ran.reason}", there.tell(short)
                    )
    if not tried:
        raise NotApplicable("no parameter has a declared range")
    return f"{tried} ends of ranges"
