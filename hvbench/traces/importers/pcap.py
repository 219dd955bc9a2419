"""Packet captures: pcap (microseconds or nanoseconds, either byte order) and pcapng.

    tcpdump -i any -s 96 -w capture.pcap
    hvbench import pcap capture.pcap --vm 10.0.0.5 -o trace.parquet

Headers only are read: Ethernet (with VLAN tags), Linux cooked and raw IP; IPv4, IPv6, TCP, UDP. Each connection
becomes a flow, each packet with payload a send at one end and a receive at the other. TCP bytes count once: what was
sent again does not count. Other IP protocols, and frames that are no IP (by their MAC addresses), are datagrams.
Tunnels count as their outer packets.

`--vm ADDRESS=NAME` says which addresses (IP or MAC) are virtual machines, each a tier; the others are outside.
Without it the serving end of every connection (who was sent the SYN; else the lower port; else who was sent the first
packet) is the one VM, and the other end is outside. Connections with both ends outside, or in one VM, are left out.

Traps: time stamps are CLOCK_REALTIME and may run backwards; segmentation offload makes packets of up to 64 KiB, IP
length 0 included; a capture at one place knows when a packet passed there, not when it was sent. There is no compute:
replayed open-loop. Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, RFC 791, 8200, 9293."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.format import OPS, OUTSIDE
from hvbench.traces.importers.api import GUEST, Batch, Format, Head, Import, option
from hvbench.traces.importers.packets import (
    ACK,
    PCAP,
    PCAPNG,
    SYN,
    TCP,
    Headers,
    address_number,
    headers,
    records,
)

FLOWS: Final = 4096
_HALF: Final = 1 << 31


@attrs.frozen
class Options:
    vm: str = option("", help="addresses that are VMs, by commas", metavar="ADDRESS[=NAME],…")
    flows: int = option(FLOWS, help="flows at most; further connections share them", metavar="N")


@define
class _Flow:
    """A connection: its flow, and the threads at its two ends (of the lower key first)."""

    flow: int
    threads: tuple[int, int]


@define
class Capture:
    """One import of captures."""

    job: Import
    vms: dict[int, str]
    most: int
    known: dict[int, int] = field(factory=dict)
    """Mixed key of a connection -> its number; -1 for one that is left out."""
    listed: list[_Flow] = field(factory=list)
    shared: dict[tuple[str, str, bool], list[int]] = field(factory=dict)
    reached: NDArray[np.int64] = field(factory=lambda: np.full((64, 2), -1, np.int64))
    """Of each connection and end: the sequence number that its bytes have reached."""
    again: int = 0
    left_out: int = 0
    folded: int = 0

    def batch(self, h: Headers, time: NDArray[np.int64]) -> Iterator[Batch]:
        """Rows of a block of packets."""
        one = h.source ^ (h.source_port.astype(np.uint64) << np.uint64(48))
        two = h.target ^ (h.target_port.astype(np.uint64) << np.uint64(48))
        # which end sends: the connection's key has the smaller one first
        swap = one > two
        low, high = np.where(swap, two, one), np.where(swap, one, two)
        with np.errstate(over="ignore"):
            mixed = low * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
            mixed = (mixed + high) * np.uint64(0xD6E8FEB86659FD93)
            mixed ^= mixed >> np.uint64(32)
            key = (mixed * np.uint64(0xD6E8FEB86659FD93)) ^ (h.protocol + 2).astype(np.uint64)
        distinct, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        numbers = np.empty(len(distinct), np.int64)
        for i in np.argsort(first, kind="stable").tolist():
            found = self.known.get(int(distinct[i]))
            numbers[i] = (
                self._meet(int(distinct[i]), h, int(first[i]), bool(swap[first[i]])) if found is None else found
            )
        flow = numbers[inverse.reshape(-1)]
        self.left_out += int((flow < 0).sum())
        end = swap.astype(np.int64)  # 0: the end with the smaller key sends
        bytes_ = self._fresh(h, flow, end)
        rows = np.flatnonzero((flow >= 0) & (bytes_ > 0))
        if not len(rows):
            return
        threads = np.array([item.threads for item in self.listed], np.int32)
        flows = np.array([item.flow for item in self.listed], np.int32)
        mine, side = flow[rows], end[rows]
        for op, at in (("send", side), ("recv", 1 - side)):
            yield {
                "thread": threads[mine, at],
                "op": np.full(len(rows), OPS[op], np.int8),
                "time_ns": time[rows],
                "flow": flows[mine],
                "bytes": bytes_[rows],
            }

    def _meet(self, key: int, h: Headers, row: int, swapped: bool) -> int:
        """A connection seen for the first time: its number, -1 where it is left out."""
        sender = self._tier(int(h.source[row]))
        receiver = self._tier(int(h.target[row]))
        if not self.vms:
            by_port = int(h.source_port[row]) < int(h.target_port[row])
            serves = by_port
            if h.protocol[row] == TCP and h.flags[row] & SYN:
                serves = bool(h.flags[row] & ACK)
            sender, receiver = (GUEST, OUTSIDE) if serves else (OUTSIDE, GUEST)
        number = -1
        if sender != receiver:
            tcp = bool(h.protocol[row] == TCP)
            ends = (receiver, sender) if swapped else (sender, receiver)
            shared = self.shared.setdefault((*ends, tcp), [])
            if len(self.job.flows) < self.most or not shared:
                flow = self.job.flow("tcp" if tcp else "udp", ends)
                threads = tuple(self.job.thread(f"flow {flow}", self._process(tier), tier) for tier in ends)
                made = _Flow(flow, (threads[0], threads[1]))
                shared.append(len(self.listed))
            else:
                self.folded += 1
                made = self.listed[shared[self.folded % len(shared)]]
            number = len(self.listed)
            self.listed.append(made)
            if number >= len(self.reached):
                self.reached = np.concatenate([self.reached, np.full_like(self.reached, -1)])
        self.known[key] = number
        return number

    def _tier(self, address: int) -> str:
        return self.vms.get(address, OUTSIDE)

    def _process(self, tier: str) -> int:
        return 0 if tier == OUTSIDE else 1 + (list(dict.fromkeys(self.vms.values())) or [GUEST]).index(tier)

    def _fresh(self, h: Headers, flow: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Payload that was not sent before, of each packet."""
        result = h.payload.copy()
        rows = np.flatnonzero((h.protocol == TCP) & (flow >= 0))
        if not len(rows):
            return result
        half = 2 * flow[rows] + end[rows]
        order = rows[np.argsort(half, kind="stable")]
        half = 2 * flow[order] + end[order]
        starts = np.flatnonzero(np.append(True, half[1:] != half[:-1]))
        lengths = np.diff(np.append(starts, len(order)))
        reached = self.reached.reshape(-1)
        sequence = h.sequence[order] + ((h.flags[order] & SYN) != 0)
        base = reached[half[starts]]
        base = np.where((base < 0) | ((h.flags[order[starts]] & SYN) != 0), sequence[starts], base)
        # sequence numbers wrap at 32 bits: as distances from where the connection was when the block began
        distance = (sequence - np.repeat(base, lengths) + _HALF) % (2 * _HALF) - _HALF
        stop = distance + h.payload[order]
        # the running maximum within each half: a step between halves keeps them apart
        step = np.repeat(np.arange(len(starts)) << 34, lengths)
        running = np.maximum.accumulate(np.maximum(stop, 0) + step) - step
        before = np.empty_like(running)
        before[1:] = running[:-1]
        before[starts] = 0
        fresh = np.maximum(0, stop - np.maximum(before, distance))
        self.again += int(((fresh == 0) & (h.payload[order] > 0)).sum())
        result[order] = fresh
        ends = starts + lengths - 1
        reached[half[starts]] = (base + running[ends]) % (2 * _HALF)
        self.reached = reached.reshape(-1, 2)
        return result


def _vms(text: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for item in text.split(","):
        if item.strip():
            address, _, name = item.strip().partition("=")
            if name == OUTSIDE:
                raise UserError(f"--vm {item}: {OUTSIDE} is the name of the world outside")
            found[address_number(address)] = name or f"vm-{len(set(found.values()))}"
    return found


def sniff(head: Head) -> float:
    return 1.0 if head.data[:4] in PCAP or head.data[:4] == PCAPNG else 0.0


def read(job: Import) -> Iterator[Batch]:
    if not 1 <= job.options.flows <= 1 << 20:
        raise UserError(f"--flows {job.options.flows}: has to be 1 to {1 << 20}")
    capture = Capture(job, _vms(job.options.vm), job.options.flows)
    for source in job.sources():
        clock = job.clock(source)
        for packets in records(job, source):
            time = clock.fix(packets.time)
            job.until(int(time.max()))
            yield from capture.batch(headers(packets), time)
    if capture.again:
        job.note(f"{capture.again} TCP packets hold only bytes that were sent before: left out")
    if capture.left_out:
        job.note(f"{capture.left_out} packets between two addresses outside, or within one VM, are left out")
    if capture.folded:
        job.note(f"{capture.folded} further connections share {capture.most} flows: --flows N makes more")


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="pcap",
        summary="packet captures, pcap and pcapng",
        read=read,
        sniff=sniff,
        extensions=(".pcap", ".pcapng", ".cap"),
        options=Options,
        clock="realtime",
        replay="open",
    )
