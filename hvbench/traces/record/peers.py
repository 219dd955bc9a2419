"""With whom a recorded program exchanged bytes: messages and bytes by peer, for the metadata."""

from __future__ import annotations

import ipaddress
from typing import Any

from hvbench.traces.format import name_hash
from hvbench.traces.record.flows import Sockets
from hvbench.traces.record.rows import Process
from hvbench.traces.record.timeline import Timeline

LOCAL = "local"
UNKNOWN = "unknown"


def by_peer(timeline: Timeline, sockets: Sockets, guests: list[Process], keep_names: bool) -> list[dict[str, Any]]:
    """Of all messages of the guests' threads: peer (a keyed hash of its address, or `local`), port that serves, bytes.

    The port that serves is the one that was connected to; of connections from before, the lower one.
    """
    called = {other for _, _, other in timeline.opened}  # the caller's own port is not yet known then
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for thread in (thread for process in guests for thread in process.threads):
        for row in thread.rows:
            if row.op not in ("send", "recv"):
                continue
            named = sockets.name(row.at["socket"], row.at["when"])
            if named is None:
                continue
            (low, high, _), own = named
            other = high if own == low else low
            serves = low if (low in called) == (high in called) else low if low in called else high
            peer = _name(timeline.addresses.get((own, other), ""), keep_names)
            entry = found.setdefault(
                (peer, serves),
                {"peer": peer, "port": serves, "sent": 0, "sent_bytes": 0, "received": 0, "received_bytes": 0},
            )
            way = "sent" if row.op == "send" else "received"
            entry[way] += 1
            entry[f"{way}_bytes"] += row.at["bytes"]
    return [found[key] for key in sorted(found)]


def _name(address: str, keep_names: bool) -> str:
    try:
        told = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return UNKNOWN
    mapped = getattr(told, "ipv4_mapped", None) or told
    if mapped.is_loopback:
        return LOCAL
    return str(mapped) if keep_names else name_hash(str(mapped))
