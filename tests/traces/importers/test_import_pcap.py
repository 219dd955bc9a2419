"""Packet captures; dpkt is the oracle for headers and payload."""

from __future__ import annotations

import gzip
import io
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from importing import FIXTURES, convert, counts, replay, shared

from hvbench.errors import UserError
from hvbench.traces.format import OPS
from hvbench.traces.importers.packets import PCAP, address_number
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

dpkt = pytest.importorskip("dpkt")


def tcp(
    source: str,
    target: str,
    ports: tuple[int, int],
    sequence: int,
    payload: bytes,
    flags: int = 0x18,
    vlan: bool = False,
) -> bytes:
    """An Ethernet frame, by dpkt."""
    segment = dpkt.tcp.TCP(sport=ports[0], dport=ports[1], seq=sequence % 2**32, flags=flags, data=payload)
    if ":" in source:
        import ipaddress

        packet = dpkt.ip6.IP6(
            src=ipaddress.ip_address(source).packed, dst=ipaddress.ip_address(target).packed, nxt=6, data=segment
        )
        packet.plen = len(segment)
        kind = 0x86DD
    else:
        pack = lambda text: bytes(map(int, text.split(".")))  # noqa: E731
        packet = dpkt.ip.IP(src=pack(source), dst=pack(target), p=6, data=segment)
        packet.len = 20 + len(segment)
        kind = 0x0800
    head = b"\2" * 6 + b"\4" * 6
    return head + (b"\x81\0\0\7" if vlan else b"") + struct.pack(">H", kind) + bytes(packet)


def pcap(
    packets: list[tuple[float, bytes]], order: str = "<", nano: bool = False, snap: int = 0, link: int = 1
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    made = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for time, data in packets:
        kept = data[:snap] if snap else data
        fraction = round((time % 1) * (1e9 if nano else 1e6))
        made += struct.pack(order + "IIII", int(time), fraction, len(kept), len(data)) + kept
    return made


def pcapng(packets: list[tuple[float, bytes]], order: str = "<", resolution: int = 9) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)

    made = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    made += block(1, struct.pack(order + "HHI", 1, 0, 0) + struct.pack(order + "HHB3xHH", 9, 1, resolution, 0, 0))
    for time, data in packets:
        ticks = round(time * 10**resolution)
        made += block(6, struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data)
    return made


A, B = "10.0.0.1", "10.0.0.2"
TALK = [
    (1.0, tcp(A, B, (5000, 80), 99, b"", flags=2)),
    (1.001, tcp(B, A, (80, 5000), 499, b"", flags=0x12)),
    (1.002, tcp(A, B, (5000, 80), 100, b"x" * 10)),
    (1.003, tcp(A, B, (5000, 80), 100, b"x" * 10)),  # again
    (1.004, tcp(B, A, (80, 5000), 500, b"y" * 300)),
    (1.005, tcp(B, A, (80, 5000), 700, b"y" * 200)),  # half of it again
    (1.006, tcp(A, B, (5000, 80), 110, b"")),
]


@pytest.mark.parametrize("make", ["<", ">", "<n", ">n", "ng<", "ng>", "snap", "vlan", "6"])
def test_a_conversation(make: str, tmp_path: Path) -> None:
    talk = TALK
    if make == "vlan":
        talk = [(t, d[:12] + b"\x81\0\0\7" + d[12:]) for t, d in TALK]
    if make == "6":
        talk = [
            (t, tcp("fd00::1" if d[29] == 1 else "fd00::2", "fd00::2" if d[29] == 1 else "fd00::1",
                    struct.unpack(">HH", d[34:38]), struct.unpack(">I", d[38:42])[0], d[54:], flags=d[47]))
            for t, d in TALK
        ]  # fmt: skip
    data = (
        pcapng(talk, make[2:])
        if make.startswith("ng")
        else pcap(talk, make[0] if make[0] in "<>" else "<", nano=make.endswith("n"), snap=60 if make == "snap" else 0)
    )
    path = tmp_path / "t.cap"
    path.write_bytes(data)
    assert load_formats().guess(path).name == "pcap"
    report, trace = convert("pcap", path, tmp_path / "x.parquet")
    c = trace.columns
    (flow,) = trace.meta["flows"]
    assert flow["proto"] == "tcp" and sorted(flow["ends"]) == ["guest", "outside"]
    client = [t["role"] for t in trace.meta["threads"]].index("outside")
    rows = [
        (int(t != client), int(o), int(n) // 1000, int(b))
        for t, o, n, b in zip(c["thread"], c["op"], c["time_ns"], c["bytes"], strict=True)
    ]
    send, recv = OPS["send"], OPS["recv"]
    # 500 to 800 and 700 to 900: 400 bytes in all; the client is the outside end
    assert sorted(rows, key=lambda row: row[0]) == [
        (0, send, 2000, 10), (0, recv, 4000, 300), (0, recv, 5000, 100),
        (1, recv, 2000, 10), (1, send, 4000, 300), (1, send, 5000, 100),
    ]  # fmt: skip
    assert any("1 TCP packets hold only bytes that were sent before" in note for note in report.notes)
    assert trace.meta["span_ns"] == 6_000_000


def test_sequence_numbers_wrap(tmp_path: Path) -> None:
    start = 2**32 - 15
    talk = [(1 + i / 1000, tcp(A, B, (5000, 80), start + 10 * i, b"z" * 10)) for i in range(5)]
    (tmp_path / "t.pcap").write_bytes(pcap(talk))
    _, trace = convert("pcap", tmp_path / "t.pcap", tmp_path / "x.parquet")
    assert trace.columns["bytes"][trace.columns["op"] == OPS["send"]].tolist() == [10] * 5


def test_addresses_can_be_virtual_machines(tmp_path: Path) -> None:
    talk = [*TALK, (1.5, tcp("8.8.8.8", A, (53, 999), 1, b"q" * 7)), (1.6, tcp("8.8.8.8", "9.9.9.9", (1, 2), 1, b"q"))]
    (tmp_path / "t.pcap").write_bytes(pcap(talk))
    report, trace = convert("pcap", tmp_path / "t.pcap", tmp_path / "x.parquet", vm=f"{A}=web,{B}=db")
    assert set(trace.meta["tiers"]) == {"web", "db"}
    assert sorted(sorted(f["ends"]) for f in trace.meta["flows"]) == [["db", "web"], ["outside", "web"]]
    assert any("1 packets between two addresses outside" in note for note in report.notes)
    with pytest.raises(UserError, match=r"'10\.0\.0' is no IP address and no MAC address"):
        convert("pcap", tmp_path / "t.pcap", tmp_path / "x.parquet", vm="10.0.0")


def test_more_connections_than_flows_share_them(tmp_path: Path) -> None:
    talk = [(1 + i / 1000, tcp(A, B, (5000 + i, 80), 1, b"z" * 10)) for i in range(20)]
    (tmp_path / "t.pcap").write_bytes(pcap(talk))
    report, trace = convert("pcap", tmp_path / "t.pcap", tmp_path / "x.parquet", flows=4)
    assert len(trace.meta["flows"]) == 4 and int(trace.columns["bytes"].sum()) == 400
    assert any("16 further connections share 4 flows" in note for note in report.notes)


def test_cut_and_damaged_captures(tmp_path: Path) -> None:
    path = tmp_path / "t.pcap"
    path.write_bytes(pcap(TALK)[:-30])
    report, trace = convert("pcap", path, tmp_path / "x.parquet")
    assert len(trace) == 6 and any("no whole record (growing?)" in note for note in report.notes)
    path.write_bytes(pcap(TALK) + b"\xff" * 64)
    with pytest.raises(UserError, match=r"at byte \d+: expected a packet, found 'a record of 4294967295 bytes'"):
        convert("pcap", path, tmp_path / "x.parquet")
    assert len(convert("pcap", path, tmp_path / "x.parquet", Settings(skip_bad=1))[1]) == 6
    path.write_bytes(pcap(TALK, link=147))
    with pytest.raises(UserError, match=r"link type 147 is not known; legal: 0, 1"):
        convert("pcap", path, tmp_path / "x.parquet")


def test_a_capture_replays(tmp_path: Path, kernel: object) -> None:
    _, trace = convert("pcap", FIXTURES / "redis.pcap.gz", tmp_path / "x.parquet")
    row = replay(trace, tmp_path, horizon="50ms")
    assert row["network_bytes_per_s"] > 0


# real files -------------------------------------------------------------------------------------------------

CAPTURES = [
    *(f"pcap-misc/{name}.pcap" for name in ("tcpdump_AoE_Linux", "tcpreplay_test", "zeek_geneve", "zeek_smb2",
                                            "zeek_smb3_multichannel", "zeek_vxlan_http")),
    "recorded-linux/redis_lo.snap96.head40k.pcap.gz", "recorded-two-vms/vm0.pcap.gz", "recorded-two-vms/vm1.pcap.gz",
]  # fmt: skip


def by_dpkt(data: bytes) -> Counter[tuple[Any, ...]]:
    """New payload bytes by (addresses, ports) of TCP, and all bytes of UDP: a plain reading, a packet at a time."""
    total: Counter[tuple[Any, ...]] = Counter()
    reached: dict[tuple[Any, ...], int] = {}
    for _, raw in dpkt.pcap.Reader(io.BytesIO(data)):
        frame = dpkt.ethernet.Ethernet(raw)
        packet = frame.data
        if isinstance(packet, dpkt.ip6.IP6) and isinstance(packet.data, dpkt.tcp.TCP):
            assert packet.src not in {key[0] for key in total}, "no bytes are sent again in the captures' IPv6"
            total[bytes(raw), 0, "", 0, "tcp"] += len(packet.data.data)
            continue
        if not isinstance(packet, dpkt.ip.IP) or packet.offset:
            continue
        inner = packet.data
        if isinstance(inner, dpkt.tcp.TCP):
            size = packet.len - 4 * packet.hl - 4 * inner.off
            key = (packet.src, inner.sport, packet.dst, inner.dport, "tcp")
            start = inner.seq + bool(inner.flags & 2)
            if key not in reached or inner.flags & 2:
                reached[key] = start
            begin = reached[key] + (start - reached[key] + 2**31) % 2**32 - 2**31
            fresh = max(0, begin + size - max(begin, reached[key]))
            reached[key] = max(reached[key], begin + size)
            total[key] += fresh
        elif isinstance(inner, dpkt.udp.UDP):
            total[packet.src, inner.sport, packet.dst, inner.dport, "udp"] += packet.len - 4 * packet.hl - 8
    return total


@pytest.mark.parametrize("name", CAPTURES)
def test_real_captures_hold_the_bytes_that_dpkt_finds(name: str, tmp_path: Path) -> None:
    path = shared(name)
    data = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    assert data[:4] in PCAP
    _, trace = convert("pcap", path, tmp_path / "x.parquet")
    sent = trace.columns["op"] == OPS["send"]
    assert counts(trace)["send"] == counts(trace)["recv"] > 0
    if "AoE" in name:
        return
    tcp_flows = np.array([flow["proto"] == "tcp" for flow in trace.meta["flows"]])
    of_tcp = sent & tcp_flows[trace.columns["flow"]]
    expected = sum(size for key, size in by_dpkt(data).items() if key[-1] == "tcp")
    assert int(trace.columns["bytes"][of_tcp].sum()) == expected


def test_addresses_are_numbers() -> None:
    assert address_number("1.2.3.4") == 0x01020304
    assert address_number("02:00:00:00:00:ff") == 0x0200000000FF
    assert address_number("::1") != address_number("::2")
