"""What storage and switch policies may read and ask for."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.access import kernel_view
from hvbench.kernel.io_requests import O_EMIT, O_SERVE_DEVICE, O_SERVE_PORT
from hvbench.kernel.services import request


@jit
def blk_first(host: Any, dev: int) -> int:
    """The request that has waited longest at station `dev`, -1 for none. O(1)."""
    if dev < 0 or dev >= len(host.station):
        return -1
    return kernel_view(host).station[dev].queue_first


@jit
def blk_next(host: Any, request: int) -> int:
    """The request that arrived next after `request` at the same station, -1 for none. O(1)."""
    if request < 0 or request >= len(host.request):
        return -1
    return host.request[request].next


@jit
def net_first(host: Any, port: int) -> int:
    """The frame that has waited longest at `port`, -1 for none. O(1)."""
    if port < 0 or port >= len(host.port):
        return -1
    return kernel_view(host).port[port].queue_first


@jit
def net_next(host: Any, frame: int) -> int:
    """The frame that arrived next after `frame` at the same port, -1 for none. O(1)."""
    if frame < 0 or frame >= len(host.frame):
        return -1
    return host.frame[frame].next


@jit
def serve_device(host: Any, dev: int) -> None:
    """Have blk_dispatch asked again for medium `dev`, which it had left idle. [blk_mq_run_hw_queues]"""
    request(host, O_SERVE_DEVICE, dev, 0, 0, 0)


@jit
def serve_port(host: Any, port: int) -> None:
    """Have net_dequeue asked again for `port`, which it had left idle. [qdisc_watchdog, netif_schedule]"""
    request(host, O_SERVE_PORT, port, 0, 0, 0)


@jit
def emit_frame(host: Any, port: int, size_bytes: int) -> None:
    """Send a frame of the policy's own out of `port`. [Open vSwitch packet_out]"""
    request(host, O_EMIT, port, size_bytes, 0, 0)
