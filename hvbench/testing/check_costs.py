"""Checks of techniques and hosts: their tables of costs."""

from __future__ import annotations

import math
from typing import Any

import attrs

from hvbench.axes import COST_AXES
from hvbench.costs import HostCosts, TechniqueCosts
from hvbench.plugins import ParamInfo, params_dict
from hvbench.testing.check_parameters import CPU_MHZ, tables_of, values_of
from hvbench.testing.checks import NotApplicable, Violated, check
from hvbench.testing.lab import Lab
from hvbench.testing.story import MS, US, Action, Story, VmStory
from hvbench.testing.subject import Subject

TABLE = {"technique": TechniqueCosts, "host": HostCosts}
MOST_NS = 10 * MS
"""No single operation of the sources costs more: a value above is taken for one of another unit."""
MOST_PPM = 100_000_000
SIGNED = frozenset({"port_ios_ns", "syscalls_ns", "page_faults_ns", "pt_updates_ns", "kernel_factor_ppm"})
"""Costs that may be less than native: binary translation and batched hypercalls save some of them."""
PERIODS = frozenset({"host_tick_ns"})


def _table(lab: Lab) -> Any:
    table = tables_of(lab.subject)[0]
    kind = TABLE[lab.subject.axis]
    if not isinstance(table, kind):
        raise Violated(f"hvbench_{lab.subject.axis}_costs returned {table!r}; {kind.__name__} is needed")
    return table


def _fields(table: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(table, field.name)) for field in attrs.fields(type(table))]


@check(
    "costs-complete",
    COST_AXES,
    "returns a whole table of costs",
    how="The hook returns TechniqueCosts or HostCosts with a whole number, or true and false, in every field.",
)
def costs_complete(lab: Lab) -> str:
    table = _table(lab)
    for name, value in _fields(table):
        wanted = type(attrs.fields_dict(type(table))[name].default)
        if type(value) is not wanted:
            raise Violated(f"{name} is {value!r}; it must be of type {wanted.__name__}")
    return f"{len(_fields(table))} costs"


@check(
    "costs-finite",
    COST_AXES,
    "costs are finite, and not below native where that is impossible",
    how="""Every cost at two clocks is a finite number; only privileged operations and kernel time may be cheaper than
    native, and no factor takes away all of the time.""",
)
def costs_finite(lab: Lab) -> str:
    _table(lab)
    for table in tables_of(lab.subject):
        for name, value in _fields(table):
            if isinstance(value, float) and not math.isfinite(value):
                raise Violated(f"{name} is {value}")
            if value < 0 and name not in SIGNED:
                raise Violated(f"{name} is {value}; it cannot be cheaper than native")
            if name.endswith("_ppm") and not -1_000_000 < value <= MOST_PPM:
                raise Violated(f"{name} is {value}; legal: above -1000000 (no time at all), up to {MOST_PPM}")
    return f"at {CPU_MHZ[0]} and {CPU_MHZ[1]} MHz"


@check(
    "costs-units",
    COST_AXES,
    "costs are nanoseconds, and cycles follow the clock",
    how="""No operation costs more than 10 ms, as it would with cycles or microseconds mistaken; and on a faster clock a
    cost stays as it is (stated in time) or becomes smaller in proportion (stated in cycles).""",
)
def costs_units(lab: Lab) -> str:
    _table(lab)
    slow, fast = tables_of(lab.subject)
    scaled = 0
    for (name, one), (_, other) in zip(_fields(slow), _fields(fast), strict=True):
        if not name.endswith("_ns") or name in PERIODS:
            if one != other:
                raise Violated(f"{name} is {one} at {CPU_MHZ[0]} MHz and {other} at {CPU_MHZ[1]} MHz; it is no time")
            continue
        if abs(one) > MOST_NS:
            raise Violated(f"{name} is {one} ns, more than 10 ms for one operation; is it in another unit?")
        # a sum of stated times and stated cycles lies between the two
        least = one * CPU_MHZ[0] / CPU_MHZ[1]
        low, high = min(one, least) - 4, max(one, least) + 4
        if not low <= other <= high:
            raise Violated(
                f"{name} is {one} ns at {CPU_MHZ[0]} MHz and {other} ns at {CPU_MHZ[1]} MHz; it must not grow with the "
                "clock: use hvbench.costs.cycles for cycles"
            )
        scaled += one != other
    return f"{scaled} of them follow the clock"


@check(
    "repeatable",
    COST_AXES,
    "returns the same table twice",
    how="The hook is called twice with the same parameters, and once after others.",
)
def repeatable_table(lab: Lab) -> str:
    first = tables_of(lab.subject)
    for info in lab.subject.policy.params[:3]:
        for value in values_of(info)[:1]:
            tables_of(_with(lab.subject, info, value))
    if tables_of(lab.subject) != first:
        raise Violated("the second call returned another table")
    return "two calls"


@check(
    "monotone",
    COST_AXES,
    "a larger parameter makes no cost smaller",
    claim="monotone",
    how="Every parameter that is a number is doubled and taken ten times; no cost may become smaller.",
)
def monotone(lab: Lab) -> str:
    numbers = [info for info in lab.subject.policy.params if info.kind is not bool and info.name not in ("tick_ns",)]
    if not numbers:
        raise NotApplicable("it has no parameters of cost")
    now = tables_of(lab.subject)
    for info in numbers:
        for value in (v for v in values_of(info) if v > info.default):
            for table, base in zip(tables_of(_with(lab.subject, info, value)), now, strict=True):
                for (name, one), (_, was) in zip(_fields(table), _fields(base), strict=True):
                    if one < was and name not in PERIODS:
                        raise Violated(f"with {info.name} at {info.format(value)} {name} is {one} instead of {was}")
    return f"{len(numbers)} parameters"


def _with(subject: Subject, info: ParamInfo, value: Any) -> Subject:
    params = type(subject.params)(**{**params_dict(subject.params), info.name: value})
    return attrs.evolve(subject, params=params)


@check(
    "runs",
    COST_AXES,
    "a host with these costs runs, and conserves time",
    how="""A host of two VMs with the table's costs runs 20 ms under the default policies; the laws of time
    hold. A guest must get something done.""",
)
def runs(lab: Lab) -> str:
    from hvbench.plan import cpu_spec
    from hvbench.testing.lab import lawful
    from hvbench.workload import Host

    table = _table(lab)
    technique = table if isinstance(table, TechniqueCosts) else TechniqueCosts()
    place = table if isinstance(table, HostCosts) else HostCosts()
    machine = Host(pcpus=2, memory_pages=1 << 18)
    vms = (VmStory(ends_with_ns=200 * US), VmStory(vcpus=2, threads=2, ends_with_ns=500 * US))
    actions = (Action("sleep", 0, 0, 100 * US), Action("wake", 1, 0, 1), Action("compute", 1, 1, 50 * US))
    story = Story(vms, actions, 20 * MS, cpu_spec(machine, technique, place))
    ran = lab.must_run(story, look=lawful(story), events=20)
    from hvbench.testing import laws_cpu

    laws_cpu.time_adds_up(ran.memory)
    done = int(ran.table("vm")["work_done_ns"].sum())
    if done == 0:
        raise Violated("no guest got anything done in 20 ms", story.describe())
    return f"{done / (2 * story.horizon_ns):.0%} of the time is guests' work"
