"""The nearest known names to one that is not known, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def did_you_mean(name: str, known: Sequence[str], *, always: bool = False) -> str:
    """`"; did you mean credit?"`, or with `always` and none near, `"; there are credit, null"`; else `""`."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if always:
        return f"; there are {', '.join(sorted(known))}" if known else "; there are none"
    return ""
