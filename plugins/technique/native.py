"""No virtualization technique at all: the baseline that the others' costs are stated against.

Overview: every privileged operation costs what it cost when it was recorded.

Source: by definition.

Claims: none; a baseline, not a competitor in means.

Not modelled: nothing is left out.
"""

from __future__ import annotations

from hvbench.costs import TechniqueCosts
from hvbench.policy import hookimpl

AXIS = "technique"


@hookimpl
def hvbench_technique_costs(params, cpu_mhz):
    return TechniqueCosts()
