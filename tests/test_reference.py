"""The hook reference: complete, true to the sources, and written anew when they change."""

from __future__ import annotations

import inspect

import pytest

from hvbench import hookspecs, reference
from hvbench.errors import UserError
from tests.builders import ROOT


def test_every_hook_is_described() -> None:
    declared = {n for n, f in vars(hookspecs).items() if inspect.isfunction(f) and hasattr(f, "hvbench_spec")}
    assert {hook.name for hook in reference.described()} == declared


@pytest.mark.parametrize("hook", reference.described(), ids=lambda hook: hook.name)
def test_nothing_of_a_docstring_is_lost(hook: reference.Described) -> None:
    doc = inspect.getdoc(getattr(hookspecs, hook.name)) or ""
    said = " ".join([hook.summary, *hook.systems, *(f"{t} {x}" for t, x in reference.sections(hook.body))])

    def words(text: str) -> set[str]:
        for mark in "[];:,.()`":
            text = text.replace(mark, " ")
        return set(text.split())

    assert words(doc) - words(said) <= {"decide", "notify", "coarse", "once", "a", "cell"}


def test_sections_are_taken_apart_in_order() -> None:
    found = reference.sections("Free text. When: now.\nReturns: 1 or\n0. Default: 0.")
    assert found == [("", "Free text."), ("When", "now."), ("Returns", "1 or 0."), ("Default", "0.")]


def test_the_nearest_hook_is_named() -> None:
    with pytest.raises(UserError, match=r"no hook 'sched_picknext'.*sched_pick_next"):
        reference.find("sched_picknext")


def test_the_page_is_what_the_sources_say() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    assert page == reference.page(), "run: make docs"


def test_bundled_policies_are_named_under_their_hooks() -> None:
    used = reference.implementations()
    assert "credit" in used["sched_pick_next"]
    assert set(used) <= {hook.name for hook in reference.described()}
