"""Balloon-to: one size for every VM, as an experimenter sets it by hand.

Overview: each VM is ballooned to `size_pages` and stays there, whatever memory is free.

Source: Waldspurger, OSDI 2002, figure 2: a VM of 256 MB ballooned to 128 to 224 MB.

Claims: none; it is an instrument, not a policy for a host.

Not modelled: nothing is left out.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import hookimpl, param

AXIS = "memory"


@frozen
class Params:
    """The size."""

    size_pages: int = param(65_536, unit="pages", low=1, help="size of every VM", source="the experiment's")


@hookimpl
def mem_balloon_target(host, vm):
    return min(host.params.size_pages, host.vmem[vm].pages)
