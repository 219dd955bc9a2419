"""From sockets to flows: which messages of which threads belong to one connection.

The tracepoints for messages name a socket by a (hashed) kernel address; the one for receive-buffer
tuning, which fires within each receive, names its two ports. So every socket that ever receives gets a
name, and a socket that only sends belongs to nothing and is left out, counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from attrs import define, field

Connection = tuple[int, int, int]  # lower port, higher port, how many such connections began before


@define
class Sockets:
    """Names for sockets, from what was seen of them."""

    seen: dict[str, tuple[list[int], list[tuple[int, int]]]] = field(factory=dict)
    opened: dict[tuple[int, int], list[int]] = field(factory=dict)

    def learn(self, sockets: list[tuple[str, int, int, int]], opened: list[tuple[int, int, int]]) -> None:
        """Both lists in time order: (socket, time, own port, other port) and (time, port, port)."""
        for socket, time, own, other in sockets:
            times, ports = self.seen.setdefault(socket, ([], []))
            times.append(time)
            ports.append((own, other))
        for time, one, two in opened:
            self.opened.setdefault((min(one, two), max(one, two)), []).append(time)

    def name(self, socket: str, time: int) -> tuple[Connection, int] | None:
        """(connection, own port) of a message at `time`, or None if the socket was never identified."""
        if socket not in self.seen:
            return None
        times, ports = self.seen[socket]
        at = bisect_left(times, time)
        candidates = [ports[i] for i in (at, at - 1) if 0 <= i < len(times)]
        own, other = candidates[0]
        pair = (min(own, other), max(own, other))
        begun = self.opened.get(pair, ())
        if len(candidates) > 1 and candidates[0] != candidates[1] and begun and begun[0] > time:
            own, other = candidates[1]  # the address was used again later, by a connection not yet begun
            pair = (min(own, other), max(own, other))
            begun = self.opened.get(pair, ())
        return (*pair, bisect_right(begun, time)), own
