"""hvbench: a benchmark of hypervisor policies on one fixed, simulated host.

`hvbench.evaluate` scores a policy for a program that searches for policies; see `hvbench.evaluation`. Policies import
`hvbench.policy`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvbench.evaluation import Evaluator, Limits, Problem, Result, evaluate

__version__ = "0.1.0.dev0"

__all__ = ["Evaluator", "Limits", "Problem", "Result", "__version__", "evaluate"]


def __getattr__(name: str) -> Any:
    """The judge's names, imported when they are asked for: the command line starts without them."""
    if name in __all__:
        from hvbench import evaluation

        return getattr(evaluation, name)
    raise AttributeError(f"module 'hvbench' has no attribute {name!r}")
