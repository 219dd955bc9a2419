"""Which modules a policy is made of: its own, and those that it takes hooks, helpers or state from.

A policy may take over another one's hooks (`from other_policy import sched_wake`), and may share helpers, marked with
`hvbench.policy.jit`, with its neighbours. All of that is part of it: of what is compiled, and of the digest by which
its results and its compiled code are known.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from hvbench.errors import UserError
from hvbench.jit import is_marked


def related(module: ModuleType) -> list[ModuleType]:
    """The module itself first, then every module outside of hvbench that it takes part of the policy from."""
    found = [module]
    for current in found:
        for value in list(vars(current).values()):
            home = sys.modules.get(getattr(value, "__module__", None) or "")
            if home is None or home in found or home.__name__.partition(".")[0] == "hvbench":
                continue
            if _is_part(value):
                found.append(home)
    return found


def _is_part(value: object) -> bool:
    if inspect.isfunction(value):
        return hasattr(value, "hvbench_impl") or is_marked(value)
    return isinstance(value, type) and hasattr(value, "__hvbench_state__")


def source_digest(module: ModuleType) -> str:
    """blake2b-128 over the sources, as they stand on disk, of all modules that a policy is made of."""
    digest = hashlib.blake2b(digest_size=16)
    for part in related(module):
        source = getattr(part, "__file__", None)
        if source is None:
            raise UserError("has no source file, so that its results could not be told from another version's")
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()
