"""What devices and host threads have finished: dispatch to storage, network and memory, and telling who waits."""

from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.memory import io_done, memory_work
from hvbench.kernel.network import (
    frame_received,
    frame_sent,
    link_event,
    network_request,
    retransmission_event,
)
from hvbench.kernel.services import O_FIRST_SWITCH
from hvbench.kernel.storage import (
    free_request,
    go_on,
    request_event,
    resume_all,
    storage_request,
    take_completed,
)
from hvbench.kernel.threads import end_wait
from hvbench.kernel.work_kinds import WORK_FRAME_RX, WORK_FRAME_TX, WORK_MEMORY, WORK_REQUEST
from hvbench.state.records_io import WHY_TRACE


@jit
def device_event(host: Any, number: int) -> None:
    """Something of a device is due: a request's delay or service, a link, a retransmission timer."""
    io = host.io[0]
    if number < io.requests:
        request_event(host, number)
    elif number < io.requests + 2 * io.links:
        link_event(host, number - io.requests)
    else:
        retransmission_event(host, number - io.requests - 2 * io.links)
    resume_all(host)
    tell_owners(host)


@jit
def work_done(host: Any, v: int, what: int, a: int, b: int) -> None:
    """Host thread `v` has paid for a piece of work: do what it was for."""
    if what == WORK_REQUEST:
        go_on(host, a)
        tell_owners(host)
    elif what == WORK_FRAME_TX:
        frame_sent(host, a)
    elif what == WORK_FRAME_RX:
        frame_received(host, a, b)
    elif what >= WORK_MEMORY:
        memory_work(host, what, a, b)


@jit
def tell_owners(host: Any) -> None:
    """Completed block requests: the recorded thread that waits goes on, or the memory side hears of it."""
    r = take_completed(host)
    while r >= 0:
        q = host.request[r]
        why = q.why
        who = q.who
        free_request(host, r)
        if why == WHY_TRACE:
            end_wait(host, who, -1)
        else:
            io_done(host, why, who)
        r = take_completed(host)


@jit
def io_request(host: Any, at: int) -> None:
    """A request in the outbox of the storage or the switch policy."""
    if host.outbox[at].what >= O_FIRST_SWITCH:
        network_request(host, at)
    else:
        storage_request(host, at)
