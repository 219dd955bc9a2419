"""Captured packets: records of pcap and pcapng files, and their headers in bulk.

`records` finds the packets of a file a block at a time; `headers` reads link, network and transport headers of a block
with NumPy. Lengths are those on the wire, not those captured: a snap length of 96 loses nothing that is needed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError
from hvbench.traces.importers.api import Import
from hvbench.traces.importers.sources import Source

PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}  # fmt: skip
"""Magic -> byte order and ns of a unit of the fraction."""
PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
BLOCK: Final = 4 << 20
LARGEST_PACKET: Final = 1 << 18
"""A record of more bytes is no packet: the file is damaged there (tcpdump's limit is 262144)."""
#: Link types: offset of the network header, offset of its type (-1: none, IP by its version).
LINKS: Final = {1: (14, 12), 0: (4, -1), 12: (0, -1), 14: (0, -1), 101: (0, -1), 113: (16, 14), 276: (20, 0)}
HEAD: Final = 96
"""Bytes of a packet that are looked at."""
IPV4, IPV6, VLAN, QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8
TCP, UDP, RAW = 6, 17, -1
SYN, ACK = 2, 16


@define
class Packets:
    """Packets of one block: where each begins in `data`, bytes captured and on the wire, ns, link type."""

    data: bytes
    at: NDArray[np.int64]
    captured: NDArray[np.int64]
    length: NDArray[np.int64]
    time: NDArray[np.int64]
    link: int


@define
class Headers:
    """Of each packet: addresses (as 64-bit numbers), ports, protocol, sequence, flags, bytes of payload."""

    source: NDArray[np.uint64]
    target: NDArray[np.uint64]
    source_port: NDArray[np.int64]
    target_port: NDArray[np.int64]
    protocol: NDArray[np.int64]
    sequence: NDArray[np.int64]
    flags: NDArray[np.int64]
    payload: NDArray[np.int64]


# records ----------------------------------------------------------------------------------------------------


def records(job: Import, source: Source) -> Iterator[Packets]:
    """The packets of a capture of either format, in blocks."""
    magic = source.head(4)
    if magic in PCAP:
        yield from _pcap(job, source, *PCAP[magic])
    elif magic == PCAPNG:
        yield from _pcapng(job, source)
    else:
        raise UserError(f"{source.name}: expected a pcap or pcapng file, it begins with {magic.hex()}")


def _pcap(job: Import, source: Source, order: str, fraction_ns: int) -> Iterator[Packets]:
    header = source.read(24)
    if len(header) < 24:
        raise UserError(f"{source.name}: ends within the header of a pcap file")
    link = struct.unpack(order + "I", header[20:])[0] & 0xFFFF
    _known_link(source, link)
    length_of = struct.Struct(order + "I").unpack_from
    rest, position = b"", 24
    damaged = False
    while not damaged and (data := source.read(BLOCK)):
        data = rest + data
        offsets: list[int] = []
        at, end = 0, len(data) - 16
        while at <= end:
            size = length_of(data, at + 8)[0]
            if size > LARGEST_PACKET:
                job.bad_record(f"{source.name} at byte {position + at}", "a packet", f"a record of {size} bytes")
                damaged = True  # nothing says where the next one begins
                break
            after = at + 16 + size
            if after > len(data):
                break
            offsets.append(at)
            at = after
        rest, position = data[at:], position + at
        if offsets:
            start = np.array(offsets, np.int64)
            head = np.frombuffer(data, np.uint8)[start[:, None] + np.arange(16)].copy().view(order + "u4")
            fields = head.astype(np.int64)
            time = fields[:, 0] * 1_000_000_000 + fields[:, 1] * fraction_ns
            yield Packets(data, start + 16, fields[:, 2], fields[:, 3], time, link)
    source.cut_bytes = 0 if damaged else len(rest)


@define
class _Interface:
    link: int
    per_second: int
    offset_s: int


def _pcapng(job: Import, source: Source) -> Iterator[Packets]:
    order = "<"
    interfaces: list[_Interface] = []
    rest, position = b"", 0
    damaged = False
    while not damaged and (data := source.read(BLOCK)):
        data = rest + data
        found: dict[int, list[tuple[int, int, int, int]]] = {}
        at = 0
        while at + 12 <= len(data):
            kind = data[at : at + 4]
            if kind == PCAPNG:
                order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
                interfaces = []
            number, size = struct.unpack_from(order + "II", data, at)
            if size < 12 or size % 4 or size > 16 * LARGEST_PACKET:
                job.bad_record(f"{source.name} at byte {position + at}", "a pcapng block", f"a block of {size} bytes")
                damaged = True
                break
            if at + size > len(data):
                break
            if number == 1:
                interfaces.append(_interface(source, data[at : at + size], order))
            elif number == 6:
                which, high, low, captured, length = struct.unpack_from(order + "5I", data, at + 8)
                if which >= len(interfaces) or captured > size - 32:
                    job.bad_record(
                        f"{source.name} at byte {position + at}", "a packet of a known interface", f"{which}"
                    )
                else:
                    interface = interfaces[which]
                    ticks = (high << 32) | low
                    time = ticks * 1_000_000_000 // interface.per_second + interface.offset_s * 1_000_000_000
                    found.setdefault(interface.link, []).append((at + 28, captured, length, time))
            elif number in (2, 3):
                job.note(f"{source.name}: packets without times (blocks of type {number}) are left out")
            at += size
        rest, position = data[at:], position + at
        for link, packets in found.items():
            columns = np.array(packets, np.int64)
            at_, captured_, length_, time_ = columns.T
            yield Packets(data, at_, captured_, length_, time_, link)
    source.cut_bytes = 0 if damaged else len(rest)


def _interface(source: Source, block: bytes, order: str) -> _Interface:
    """An interface description: link type, resolution and offset of its times."""
    link = struct.unpack_from(order + "H", block, 8)[0]
    _known_link(source, link)
    made = _Interface(link, 1_000_000, 0)
    at = 16
    while at + 4 <= len(block) - 4:
        code, size = struct.unpack_from(order + "HH", block, at)
        value = block[at + 4 : at + 4 + size]
        if code == 0:
            break
        if code == 9 and value:
            made.per_second = 1 << (value[0] & 127) if value[0] & 128 else 10 ** value[0]
        elif code == 14 and size == 8:
            made.offset_s = struct.unpack(order + "q", value)[0]
        at += 4 + size + (-size) % 4
    return made


def _known_link(source: Source, link: int) -> None:
    if link not in LINKS:
        legal = ", ".join(map(str, sorted(LINKS)))
        raise UserError(f"{source.name}: link type {link} is not known; legal: {legal} (Ethernet is 1)")


# headers ----------------------------------------------------------------------------------------------------


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Two words of an IPv6 address as one number that hardly two addresses share."""
    with np.errstate(over="ignore"):
        mixed = words[:, 0] * np.uint64(0x9E3779B97F4A7C15) + words[:, 1]
        mixed ^= mixed >> np.uint64(29)
        return mixed * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(1 << 63)


def address_number(text: str) -> int:
    """The number that stands for an address (IPv4, IPv6 or MAC); UserError if it is none."""
    import ipaddress

    parts = text.replace("-", ":").split(":")
    if len(parts) == 6 and all(len(part) == 2 for part in parts):
        return int("".join(parts), 16)
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no IP address and no MAC address") from error
    if address.version == 4:
        return int(address)
    return int(_mix(np.frombuffer(address.packed, ">u8").astype(np.uint64)[None, :])[0])


def headers(packets: Packets) -> Headers:
    """Addresses, ports and payload of each packet; what is no IP has protocol RAW and its MAC addresses."""
    count = len(packets.at)
    raw = np.frombuffer(packets.data, np.uint8)
    base = packets.at
    last = len(raw) - 1

    def byte(offset: Any) -> NDArray[np.int64]:
        return raw[np.minimum(base + offset, last)].astype(np.int64)

    def word(offset: Any) -> NDArray[np.int64]:
        return byte(offset) << 8 | byte(np.asarray(offset) + 1)

    def long(offset: Any) -> NDArray[np.int64]:
        return word(offset) << 16 | word(np.asarray(offset) + 2)

    network, kind_at = LINKS[packets.link]
    layer = np.full(count, network, np.int64)
    if kind_at >= 0:
        kind = word(kind_at)
        for _ in range(2):
            tagged = (kind == VLAN) | (kind == QINQ)
            if not tagged.any():
                break
            kind = np.where(tagged, word(layer + 2), kind)
            layer = layer + 4 * tagged
    else:
        version = byte(network) >> 4
        kind = np.where(version == 6, IPV6, IPV4)
    four = (kind == IPV4) & (packets.captured >= layer + 20)
    six = (kind == IPV6) & (packets.captured >= layer + 40)
    # IPv4, IPv6 and neither
    protocol = np.where(four, byte(layer + 9), np.where(six, byte(layer + 6), RAW))
    header = np.where(four, (byte(layer) & 15) * 4, 40)
    total = np.where(four, word(layer + 2), word(layer + 4) + 40)
    on_wire = packets.length - layer
    total = np.where((total <= header) | (total > on_wire), on_wire, total)  # 0 with segmentation offload
    transport = layer + header
    first = four & ((word(layer + 6) & 0x1FFF) == 0) | six
    ported = first & ((protocol == TCP) | (protocol == UDP)) & (packets.captured >= transport + 4)
    tcp = ported & (protocol == TCP) & (packets.captured >= transport + 14)
    protocol = np.where(four | six, np.where((protocol == TCP) & ~tcp, UDP, protocol), RAW)
    segment = np.where(tcp, (byte(transport + 12) >> 4) * 4, np.where(ported, 8, 0))
    payload = np.where(four | six, total - header - segment, packets.length - layer)
    source = np.zeros(count, np.uint64)
    target = np.zeros(count, np.uint64)
    source[four] = long(layer + 12)[four].astype(np.uint64)
    target[four] = long(layer + 16)[four].astype(np.uint64)
    if six.any():
        for into, offset in ((source, 8), (target, 24)):
            where = (base + layer + offset)[six]
            words = raw[np.minimum(where[:, None] + np.arange(16), last)].copy().view(">u8").astype(np.uint64)
            into[six] = _mix(words)
    rest = ~(four | six)
    if rest.any() and packets.link == 1:
        target[rest] = (word(0) << 32 | long(2))[rest].astype(np.uint64)
        source[rest] = (word(6) << 32 | long(8))[rest].astype(np.uint64)
    return Headers(
        source,
        target,
        np.where(ported, word(transport), 0),
        np.where(ported, word(transport + 2), 0),
        protocol,
        np.where(tcp, long(transport + 4), 0),
        np.where(tcp, byte(transport + 13), 0),
        np.maximum(payload, 0),
    )
