"""Bare disk: a request goes to the host's own disk, with nothing between.

Overview: what a process of the host does: no adapter, no emulator, no controller of its own; the medium's latency is
that of its requests from issue to completion.

Source: none; the medium's own numbers are the workload's.

Claims: none; it is an instrument, for recordings of a host's own tasks.

Not modelled: the block layer's elevator; write caches.
"""

from __future__ import annotations

from hvbench.policy import hookimpl, local_disk

AXIS = "storage"


@hookimpl
def hvbench_storage_path(params):
    return local_disk(0)
