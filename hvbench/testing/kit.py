"""All checks of one policy, and the account of them: what was known, ran, passed, was not claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from hvbench.axes import DECISION_AXES
from hvbench.choices import DEFAULT
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean
from hvbench.plugins import Policy, Registry, load_registry
from hvbench.testing.checks import BAD, RAN, REGISTRY, Check, Outcome, Status

FORMAT = 1


def known_checks(axis: str) -> list[Check]:
    """The checks of an axis, in the order in which they are made."""
    from hvbench.testing import (
        check_common,
        check_cost,
        check_costs,
        check_io,
        check_memory,
        check_parameters,
        check_scheduler,
    )

    # in one order, whichever module was imported first; the figure without a verdict comes last
    modules = (check_common, check_parameters, check_scheduler, check_memory, check_io, check_costs, check_cost)
    order = {module.__name__: number for number, module in enumerate(modules)}
    mine = [c for c in REGISTRY if axis in c.axes]
    return sorted(mine, key=lambda c: order.get(c.run.__module__, len(order)))


@attrs.frozen
class Report:
    """What the kit found out about one policy."""

    policy: str
    axis: str
    origin: str
    digest: str
    claims: tuple[str, ...]
    effort: str
    outcomes: tuple[Outcome, ...]
    known: int
    wall_s: float = 0.0
    selected: bool = False
    """Whether only some checks were asked for: the account then is of those."""

    def count(self, *statuses: Status) -> int:
        """Outcomes of these statuses."""
        return sum(outcome.status in statuses for outcome in self.outcomes)

    @property
    def ran(self) -> int:
        return self.count(*RAN)

    @property
    def whole(self) -> bool:
        """Whether every check that the kit knows has an outcome, once."""
        accounted = self.ran + self.count(Status.NOT_CLAIMED, Status.NOT_APPLICABLE)
        once = len({outcome.check for outcome in self.outcomes}) == len(self.outcomes)
        return once and accounted == self.known

    @property
    def good(self) -> bool:
        """Whether the policy may be used: nothing failed, and no check is missing."""
        return self.whole and not self.count(*BAD)

    def summary(self) -> str:
        """The account in a line."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        parts = [f"{self.known} checks known", f"{self.ran} ran", f"{counts[Status.PASS]} passed"]
        parts += [
            f"{counts[status]} {status.value}" for status in Status if status is not Status.PASS and counts[status]
        ]
        text = f"{self.axis} {self.policy}: {', '.join(parts)}"
        if not self.whole:
            accounted = self.ran + self.count(Status.NOT_CLAIMED, Status.NOT_APPLICABLE)
            text += f"; {self.known - accounted} checks are UNACCOUNTED FOR: the kit itself is at fault"
        return text

    def record(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "format": FORMAT,
            **{n: getattr(self, n) for n in ("policy", "axis", "origin", "digest", "effort", "known", "ran", "wall_s")},
            "claims": list(self.claims),
            "passed": self.count(Status.PASS),
            "not_claimed": self.count(Status.NOT_CLAIMED),
            "not_applicable": self.count(Status.NOT_APPLICABLE),
            "good": self.good,
            "checks": [
                {**attrs.asdict(outcome), "status": outcome.status.value, "story": list(outcome.story)}
                for outcome in self.outcomes
            ],
        }


def selection(axis: str, wanted: Iterable[str]) -> list[Check]:
    """The checks of an axis, or those of the given ids; UserError naming the ones that exist."""
    checks, names = known_checks(axis), list(wanted)
    known = [c.id for c in checks]
    for name in names:
        if name not in known:
            raise UserError(
                f"the axis {axis} has no check {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    return [c for c in checks if not names or c.id in names]


def check_policy(
    policy: Policy,
    *,
    effort: str = "normal",
    only: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    other: Any = None,
    references: Sequence[Policy] = (),
    on_begin: Callable[[Check], None] = lambda check: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    compiles: bool = True,
) -> Report:
    """Run the kit on a policy in this process.

    `expected` maps a check that is known to fail to the reason why. `other` is a second process to share
    (hvbench.testing.other); `references` are policies whose cost stands beside this one's. A policy that may hang or
    end the process is checked by `hvbench.testing.isolation.check_apart`.
    """
    import time

    from hvbench.testing.checks import perform
    from hvbench.testing.lab import EFFORTS, Lab
    from hvbench.testing.subject import subject_of

    if effort not in EFFORTS:
        raise UserError(f"no effort {effort!r}; legal: {', '.join(EFFORTS)}")
    expected = expected or {}
    checks = selection(policy.axis, only)
    selection(policy.axis, expected)
    started = time.monotonic()
    beside = tuple(map(subject_of, references))
    lab = Lab(subject_of(policy), EFFORTS[effort], other=other, references=beside, compiles=compiles)
    outcomes = []
    try:
        for one in checks:
            on_begin(one)
            outcome = perform(one, lab, expected.get(one.id))
            outcomes.append(outcome)
            on_outcome(outcome)
    finally:
        if other is None and lab.other is not None:
            lab.other.close()
    return report_of(policy, effort, outcomes, checks, time.monotonic() - started, bool(only))


def report_of(
    policy: Policy, effort: str, outcomes: Sequence[Outcome], checks: Sequence[Check], wall_s: float, selected: bool
) -> Report:
    """The report of a policy's outcomes."""
    return Report(
        policy.name,
        policy.axis,
        policy.origin,
        policy.digest,
        tuple(sorted(policy.claims)),
        effort,
        tuple(outcomes),
        len(checks),
        wall_s,
        selected,
    )


def find_policies(name: str, axis: str | None, registry: Registry | None = None) -> list[Policy]:
    """Policies by a file's path, by `axis.name`, or by name on any axis. UserError where there is none."""
    registry = registry or load_registry()
    if name.endswith(".py") or "/" in name:
        policy = registry.load_file(Path(name))
        if axis is not None and policy.axis != axis:
            raise UserError(f"{name} is a policy of the axis {policy.axis}, not {axis}")
        return [policy]
    stated, dot, rest = name.partition(".")
    if dot and axis is None:
        return [registry.get(stated, rest)]
    if axis is not None:
        return [registry.get(axis, name)]
    found = [policy for policy in registry.policies.values() if policy.name == name]
    if not found:
        names = sorted({policy.name for policy in registry.policies.values()})
        raise UserError(f"no policy {name!r}{did_you_mean(name, names, always=True)}; a file is written ./{name}.py")
    return found


def references_for(policy: Policy, effort: str, registry: Registry | None = None) -> list[Policy]:
    """The bundled policies beside which the cost of a decision is set: all of the axis, or quickly its default."""
    if policy.axis not in DECISION_AXES:
        return []
    registry = registry or load_registry()
    bundled = [p for p in registry.axis(policy.axis) if p.origin.startswith("bundled ") and p.name != policy.name]
    return bundled if effort == "thorough" else [p for p in bundled if p.name == DEFAULT[policy.axis]]
