"""What a policy may claim: the words of `CLAIMS = frozenset({...})` in its module, by axis, and what each means.

A claim is a promise that `hvbench check` holds the policy to. What a policy does not claim is looked at as well, and
reported, never failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hvbench.nearest import did_you_mean

if TYPE_CHECKING:
    from hvbench.plugins import Policy

CLAIMS: dict[str, dict[str, str]] = {
    "scheduler": {
        "work-conserving": "no pCPU idles while an entity that may run there is runnable",
        "starvation-free": "every runnable entity runs again, within a bound that grows with entities per pCPU only",
        "weight-proportional": "VMs that always want to run get CPU time in proportion to their weights",
        "weights": "a VM of larger weight that always wants to run gets no less than one of smaller weight",
        "caps": "a VM with a cap gets no more than its cap, even on an idle host",
        "reservations": "a VM with a reservation that wants to run gets it, whatever the weights of others",
        "real-time": "a VM with a budget in every period gets it, if the budgets of all fit on the pCPUs",
        "affinity": "an entity runs only on the pCPUs of its affinity mask",
        "bounded-latency": "an entity that mostly sleeps is run soon after it woke, however many others compute",
    },
    "memory": {
        "never-reclaims": "memory that a VM was given is never taken back: no balloon, no swap, no sharing",
        "balloons": "takes memory back with the guests' balloons when the machine runs short",
        "gives-back": "a VM that wants memory gets it out of its balloon when others have freed theirs",
        "taxes-idle-memory": "of two VMs, the one that does not use its memory loses more of it",
        "overcommits": "starts VMs whose configured memory is more than the machine has",
        "shares": "pages of equal contents come to share a frame",
        "shares-reads": "a block of the base image that some VM has in memory is not read from the disk again",
        "compresses": "pages that would have been swapped out go to the pool of compressed pages, while it may grow",
    },
    "storage": {
        "fifo": "a medium serves requests in the order in which they arrived",
        "work-conserving": "no medium idles while a request waits for it",
        "starvation-free": "a request waits no longer than the requests before it take, within a constant factor",
    },
    "switch": {
        "fifo": "frames leave a port in the order in which they were queued there",
        "delivers-inside": "a frame between two VMs of the host appears at no other port, and on no uplink",
        "lossless": "drops no frame that the queues have room for",
    },
    "technique": {
        "monotone": "raising a parameter of cost never makes any cost smaller",
    },
    "host": {
        "monotone": "raising a parameter of cost never makes any cost smaller",
    },
}
"""Axis -> claim -> what it promises."""


HONOURS: dict[str, str] = {
    "weight": "weights",
    "cap": "caps",
    "reservation": "reservations",
    "pinning": "affinity",
    "realtime": "real-time",
}
"""A scheduler that honours a setting of a VM (`HONOURS` in its module) makes the claim of that name, too."""


def promises(policy: Policy) -> frozenset[str]:
    """What a policy claims, by CLAIMS or by HONOURS."""
    return policy.claims | {HONOURS[name] for name in policy.honours if name in HONOURS}


def unknown_claims(axis: str, claims: Iterable[str]) -> list[str]:
    """A sentence for each claim that the axis does not know."""
    legal = CLAIMS.get(axis, {})
    return [
        f"claims {name!r}, which means nothing on the axis {axis}{did_you_mean(name, list(legal))}; legal: "
        f"{', '.join(legal)}"
        for name in sorted(claims)
        if name not in legal
    ]
