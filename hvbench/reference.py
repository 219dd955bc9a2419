"""The hook reference: read from the hookspecs, so that it cannot drift from them."""

from __future__ import annotations

import inspect
import re

from attrs import define

from hvbench import hookspecs
from hvbench.axes import AXES, axis_of_hook
from hvbench.errors import UserError
from hvbench.hookspecs import HOOKS
from hvbench.nearest import did_you_mean

TRACES = "traces"
"""Where hooks stand that belong to no axis: formats of traces."""
GROUPS = (*AXES, TRACES)

SECTIONS = ("When", "Arguments", "Returns", "Default", "Layers", "Reads", "Note")
_HEAD = re.compile(r"^(?P<summary>.*?\.) \[(?P<kind>decide|notify)(?P<rest>[^\]]*)\]\s*(?P<more>.*)$", re.S)
_SECTION = re.compile(rf"\b({'|'.join(SECTIONS)}): ")


@define(frozen=True)
class Described:
    """One hook, taken apart: `systems` are the callbacks of real systems that it corresponds to."""

    name: str
    axis: str
    arguments: tuple[str, ...]
    kind: str
    summary: str
    systems: tuple[str, ...]
    body: str

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"


def described() -> list[Described]:
    """Every hook, axis by axis in the order of the axes, coarse ones first."""
    coarse = [name for name, f in vars(hookspecs).items() if name.startswith("hvbench_") and hasattr(f, "hvbench_spec")]
    found = [_describe(name, axis_of_hook(name) or TRACES) for name in (*coarse, *HOOKS)]
    return sorted(found, key=lambda hook: GROUPS.index(hook.axis))


def _describe(name: str, axis: str) -> Described:
    function = getattr(hookspecs, name)
    doc = inspect.getdoc(function) or ""
    head = _HEAD.match(" ".join(doc.split("\n\n")[0].split()))
    assert head is not None, f"{name}: its docstring has no head"
    parts = [part.strip() for part in head["rest"].lstrip(",").split(";")]
    systems = tuple(part for part in parts if part and part not in ("coarse", "once a cell"))
    rest = doc.split("\n\n")[1:]
    body = "\n\n".join([head["more"], *rest] if head["more"] else rest)
    return Described(
        name, axis, tuple(inspect.signature(function).parameters), head["kind"], head["summary"], systems, body
    )


def find(name: str) -> Described:
    """One hook by name; UserError with the nearest names."""
    known = {hook.name: hook for hook in described()}
    if name not in known:
        raise UserError(f"no hook {name!r}{did_you_mean(name, list(known), always=True)}; hvbench hooks lists all")
    return known[name]


def sections(body: str) -> list[tuple[str, str]]:
    """A body as (title, text), in its order; text before the first title has the title ""."""
    text = " ".join(body.split())
    found = _SECTION.split(text)
    pairs = [("", found[0].strip())] if found[0].strip() else []
    return pairs + [(found[i], found[i + 1].strip()) for i in range(1, len(found), 2)]


def page() -> str:
    """The reference as Markdown."""
    lines = [
        "# Hooks",
        "",
        "This page is written by `make docs` from `hvbench/hookspecs.py`; `hvbench hooks NAME` shows the same in the",
        "terminal, and which bundled policies use the hook. A *decide* hook answers and has one implementation in a",
        "cell (a memory stack: see *Layers*); a *notify* hook answers nothing. An implementation may leave out",
        "arguments that it does not need.",
        "",
        "    hvbench hooks",
        "    hvbench hooks sched_pick_next",
    ]
    for axis in GROUPS:
        lines += ["", f"## {axis}"]
        for hook in described():
            if hook.axis != axis:
                continue
            lines += ["", f"### `{hook.signature}`", "", f"*{hook.kind}.* {hook.summary}"]
            if hook.systems:
                lines += ["", f"Elsewhere: {'; '.join(hook.systems)}."]
            for title, text in sections(hook.body):
                lines += ["", f"*{title}:* {text}" if title else text]
    return "\n".join(lines) + "\n"


def implementations() -> dict[str, list[str]]:
    """Hook -> bundled policies that implement it, by name."""
    from hvbench.plugins import load_registry

    found: dict[str, list[str]] = {}
    for policy in load_registry().policies.values():
        if policy.module.__name__.startswith("hvbench_plugins."):
            for hook in policy.hooks:
                found.setdefault(hook, []).append(policy.name)
    return {hook: sorted(names) for hook, names in found.items()}
