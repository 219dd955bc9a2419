"""Balloon commands: the first VM's size, as an operator sets it: one at a time, another later.

Overview: a VM has all of its memory until `first_at_ns`, then `first_size_pages`, and from `second_at_ns` on
`second_size_pages`. The guest's driver moves 256 pages at a time, one step behind the other, without a pause.

Source: QEMU's monitor command `balloon`; Linux 6.1, drivers/virtio/virtio_balloon.c: update_balloon_size_func queues
itself again until the size is reached, VIRTIO_BALLOON_ARRAY_PFNS_MAX 256.

Claims: none; it is an instrument, not a policy for a host.

Not modelled: nothing is left out.
"""

from __future__ import annotations

from attrs import frozen

from hvbench.policy import balance, hookimpl, param, set_balloon_driver

AXIS = "memory"


@frozen
class Params:
    """What is commanded when."""

    first_at_ns: int = param(0, unit="ns", low=0, help="time of the first command", source="the experiment's")
    first_size_pages: int = param(65_536, unit="pages", low=1, help="size from then on", source="the experiment's")
    second_at_ns: int = param(0, unit="ns", low=0, help="time of the second command", source="the experiment's")
    second_size_pages: int = param(65_536, unit="pages", low=1, help="size from then on", source="the experiment's")
    rate: int = param(
        1_000_000_000,
        unit="pages_per_s",
        low=1,
        high=1_000_000_000,
        help="pages a second that the driver moves: no pause, so that its CPU time is what it takes",
        source="Linux 6.1, drivers/virtio/virtio_balloon.c: update_balloon_size_func",
    )
    period_ns: int = param(
        10_000_000, unit="ns", low=1, help="a command is obeyed so soon", source="choice of this project"
    )


@hookimpl
def mem_init(host):
    set_balloon_driver(host, 0, host.params.rate)
    balance(host, host.params.period_ns)


@hookimpl
def mem_balloon_target(host, vm, now):
    p = host.params
    pages = host.vmem[vm].pages
    if vm > 0 or now < p.first_at_ns:
        return pages
    if now < p.second_at_ns:
        return min(pages, p.first_size_pages)
    return min(pages, p.second_size_pages)
