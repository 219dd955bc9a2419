"""Control: the path of DAS, but the disk idles 10 ms before each request.

Overview: each request's service at the medium takes `idle_ns` longer.

Source: none; deliberately bad, to show that the storage axis measures something.

Claims: none.

Not modelled: nothing.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import Control, hookimpl, param

AXIS = "storage"
CONTROL = Control(worst_on={"files": "slowdown_geomean"}, why="every request waits ten milliseconds for nothing")


@frozen
class Params:
    """How long it idles."""

    idle_ns: int = param(10_000_000, unit="ns", low=0, help="idle time before each request", source="deliberately bad")


@hookimpl
def blk_service(host, request, dev, now):
    return host.params.idle_ns
