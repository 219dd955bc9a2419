"""Bare disk: a request goes to the host's own disk, with nothing between; after a pause the disk answers later.

Overview: what a process of the host does: no adapter, no emulator, no controller of its own; the medium's latency is
that of its requests from issue to completion. A virtual machine's disk is software: a thread of the machine below,
which sleeps when nothing is asked of it, on a processor that sleeps deeper the longer that lasts. What a request takes
longer after a pause of 2, 4, 8, 16 and 32 ms than after one of 1 ms are parameters, with straight lines between; a
longer pause counts as 32 ms.

Source: none; the medium's own numbers are the workload's, `python -m hvbench.fidelity.pause_probe` measures the rest.

Claims: none; it is an instrument, for recordings of a host's own tasks.

Not modelled: the block layer's elevator; write caches; how the pauses before the last one count.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import hookimpl, local_disk, param, state

AXIS = "storage"
MS = 1_000_000
_PROBE = "python -m hvbench.fidelity.pause_probe"


@frozen
class Params:
    """What a pause adds to a request's time."""

    after_2ms_ns: int = param(0, unit="ns", low=0, help="after a pause of 2 ms", source=_PROBE)
    after_4ms_ns: int = param(0, unit="ns", low=0, help="after a pause of 4 ms", source=_PROBE)
    after_8ms_ns: int = param(0, unit="ns", low=0, help="after a pause of 8 ms", source=_PROBE)
    after_16ms_ns: int = param(0, unit="ns", low=0, help="after a pause of 16 ms", source=_PROBE)
    after_32ms_ns: int = param(0, unit="ns", low=0, help="after a pause of 32 ms or more", source=_PROBE)


@state("host")
@define
class Idle:
    """Requests at the disk, and when the last one left."""

    in_service: int = 0
    idle_since_ns: int = 0


@hookimpl
def hvbench_storage_path(params):
    return local_disk(0)


def between(pause_ns, ms, low, high):
    """What a pause from `ms` to twice that adds."""
    return low + (high - low) * (pause_ns - ms * MS) // (ms * MS)


@hookimpl
def blk_service(host, request, dev, now):
    own = host.own
    pause = now - own.idle_since_ns if own.in_service == 0 else 0
    own.in_service += 1
    p = host.params
    if pause < MS:
        return 0
    if pause < 2 * MS:
        return between(pause, 1, 0, p.after_2ms_ns)
    if pause < 4 * MS:
        return between(pause, 2, p.after_2ms_ns, p.after_4ms_ns)
    if pause < 8 * MS:
        return between(pause, 4, p.after_4ms_ns, p.after_8ms_ns)
    if pause < 16 * MS:
        return between(pause, 8, p.after_8ms_ns, p.after_16ms_ns)
    if pause < 32 * MS:
        return between(pause, 16, p.after_16ms_ns, p.after_32ms_ns)
    return p.after_32ms_ns


@hookimpl
def blk_complete(host, request, dev, now):
    host.own.in_service -= 1
    host.own.idle_since_ns = now
