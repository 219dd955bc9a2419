"""What the metadata keeps of the recording itself, in words: nothing of it is replayed.

`recorded` holds latencies of block requests, steal and the balloon of guests; `syscalls` counts system calls by class;
`peers` says with whom bytes were exchanged.
"""

from __future__ import annotations

from typing import Any, Final

MOST_PEERS: Final = 5


def measured(meta: dict[str, Any]) -> list[str]:
    """One sentence for each thing that was measured."""
    said: list[str] = []
    if meta.get("derived") and any(key in meta for key in ("recorded", "syscalls", "peers")):
        said.append("in the recording that this was derived from:")
    about = meta.get("recorded", {})
    said += _block(about, "")
    several = len(about.get("guests", ())) > 1
    for guest in about.get("guests", ()):
        who = f"{guest.get('tier', '?')}: " if several else ""
        said += _block(guest, who)
        for vcpu in guest.get("vcpus", ()):
            said.append(
                f"{who}vcpu {vcpu['vcpu']} ran {vcpu['run_ns'] / 1e9:.3g} s and was runnable without a CPU for "
                f"{vcpu['runq_wait_ns'] / 1e9:.3g} s"
            )
        sizes = [row[1] for row in guest.get("balloon", ())]
        if sizes:
            at = {name: i for i, name in enumerate(guest["balloon_columns"])}
            free = [row[at["free-memory"]] for row in guest["balloon"] if row[at["free-memory"]] >= 0]
            said.append(
                f"{who}balloon: {_mib(sizes[0])} at first, {_mib(min(sizes))} to {_mib(max(sizes))} over {len(sizes)} "
                "samples" + (f", free in the guest {_mib(min(free))} to {_mib(max(free))}" if free else "")
            )
    calls: dict[str, int] = meta.get("syscalls", {})
    if calls:
        most = sorted(calls.items(), key=lambda item: (-item[1], item[0]))
        said.append("system calls: " + ", ".join(f"{name} {count}" for name, count in most))
    peers = sorted(meta.get("peers", ()), key=lambda peer: -(peer["sent_bytes"] + peer["received_bytes"]))
    if peers:
        listed = [
            f"{peer['peer']} port {peer['port']} {peer['sent_bytes']} B sent, {peer['received_bytes']} B received"
            for peer in peers[:MOST_PEERS]
        ]
        more = f"; and {len(peers) - MOST_PEERS} more" if len(peers) > MOST_PEERS else ""
        said.append("peers: " + "; ".join(listed) + more)
    return said


def _block(about: dict[str, Any], who: str) -> list[str]:
    told = [
        f"{key} {_ns(about[name])}"
        for key in ("mean", "p50", "p90", "p99")
        if isinstance(about.get(name := f"block_latency_{key}_ns"), int)
    ]
    if not told:
        return []
    count = f"{about['block_requests']} block requests, " if "block_requests" in about else "block requests, "
    return [f"{who}{count}latency {', '.join(told)}"]


def _ns(value: float) -> str:
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} ns"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
