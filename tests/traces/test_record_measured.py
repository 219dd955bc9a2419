"""What a recording measures and does not replay: block latencies, system calls by class, bytes by peer."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from hvbench.traces.check import check_trace
from hvbench.traces.format import name_hash, read_trace
from hvbench.traces.handle.measured import measured
from hvbench.traces.info import format_info, trace_info
from hvbench.traces.record import block_requests, peers, session, tracefs
from hvbench.traces.record.ftrace import in_nanoseconds, parse
from hvbench.traces.record.session import Options
from hvbench.traces.record.syscall_classes import CALLS, CLASSES, by_class
from hvbench.traces.record.syscalls import NAMES

_ROOT, _WHY = tracefs.find_tracefs()
privileged = pytest.mark.skipif(_ROOT is None, reason=f"live recording: {_WHY}")


def event(us: int, tid: int, text: str, flags: str = ".....") -> str:
    return f"  p{tid}-{tid} [000] {flags} 0.{us:06}: {text}"


def test_requests_of_the_job_are_joined_by_place() -> None:
    lines = [
        event(10, 7, "block_bio_queue: 8,0 R 100 + 8 [p7]"),
        event(12, 9, "block_rq_issue: 8,0 R 4096 () 100 + 8 none,0,0 [kworker]"),  # issued for it by another
        event(15, 9, "block_rq_issue: 8,0 W 4096 () 500 + 8 none,0,0 [p9]"),  # of somebody else
        event(20, 7, "block_rq_issue: 8,16 W 8192 () 100 + 16 none,0,0 [p7]"),  # the same sector of another disk
        event(21, 7, "block_rq_issue: 8,0 FF 0 () 0 + 0 none,0,0 [p7]"),  # a flush
        event(112, 3, "block_rq_complete: 8,0 R () 100 + 8 none,0,0 [0]", "d.h.."),
        event(115, 3, "block_rq_complete: 8,0 W () 500 + 8 none,0,0 [0]", "d.h.."),
        event(220, 3, "block_rq_complete: 8,16 W () 100 + 16 none,0,0 [0]", "d.h.."),
        event(300, 7, "block_rq_issue: 8,0 R 4096 () 900 + 8 none,0,0 [p7]"),  # never ends
    ]
    capture = parse(lines, block_requests.READERS)
    assert capture.unparsed == 0
    requests = block_requests.Requests(frozenset({7}))
    requests.add(in_nanoseconds(capture))
    about = requests.summary()
    assert (about["block_reads"], about["block_writes"], about["block_bytes"]) == (1, 1, 24 * 512)
    assert about["block_unfinished"] == 1 and about["block_requests_of_others"] == 1
    assert 95_000 < about["block_latency_p50_ns"] < 105_000 and 190_000 < about["block_latency_p99_ns"] < 210_000
    assert block_requests.Requests(frozenset()).summary() == {}


def test_calls_have_one_class() -> None:
    assert by_class([(0, 3), (1, 2), (202, 5), (999, 1), ("connect", 4), ("getuid", 1)]) == {
        "io": 5, "network": 4, "waits": 5, "other": 2,
    }  # fmt: skip
    listed = [call for calls in CLASSES.values() for call in calls.split()]
    assert len(listed) == len(set(listed)) and set(listed) <= set(CALLS.values())
    # two tables of the same numbers: what the recorder knows by itself agrees
    assert {number: CALLS[number] for number in NAMES} == NAMES


def test_names_of_peers() -> None:
    assert {peers._name(text, False) for text in ("127.0.0.1", "[::1]", "::ffff:127.0.0.2")} == {"local"}
    assert peers._name("10.1.2.3", False) == peers._name("::ffff:10.1.2.3", False) == name_hash("10.1.2.3")
    assert peers._name("10.1.2.3", True) == "10.1.2.3" and peers._name("", True) == "unknown"


@privileged
def test_a_program_that_uses_a_disk_and_a_connection(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.write(os.urandom(1 << 20))
        out.flush()
        os.fsync(out.fileno())
    probe = subprocess.run(["dd", f"if={file}", "of=/dev/null", "bs=64k", "iflag=direct"], capture_output=True)
    if probe.returncode:
        pytest.skip("no direct I/O on this file system")
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve() -> None:
        client, _ = server.accept()
        client.recv(10)
        client.sendall(b"hello back\n")
        client.close()

    threading.Thread(target=serve, daemon=True).start()
    job = f"dd if={file} of=/dev/null bs=64k iflag=direct 2>/dev/null; exec 3<>/dev/tcp/127.0.0.1/{port}; "
    job += "echo hello >&3; cat <&3"
    session.record(Options(command=["bash", "-c", job], buffer_mib=16), tmp_path / "t.parquet", lambda text: None)
    server.close()
    trace = read_trace(tmp_path / "t.parquet")
    assert check_trace(trace) == []
    about = trace.meta["recorded"]
    assert about["block_requests"] >= 1 and about["block_bytes"] >= 1 << 20
    assert 1_000 < about["block_latency_p50_ns"] <= about["block_latency_p99_ns"] < 10**10
    assert "blk_read" not in trace_info(trace).operations  # measured, never replayed
    assert trace.meta["syscalls"]["io"] > 16 and trace.meta["syscalls"]["network"] >= 2
    assert trace.meta["peers"] == [
        {"peer": "local", "port": port, "sent": 1, "sent_bytes": 6, "received": 1, "received_bytes": 11}
    ]
    text = format_info(trace_info(trace))
    assert f"peers: local port {port} 6 B sent, 11 B received" in text
    assert "block requests, latency p50" in text and "system calls: " in text


def test_a_derived_trace_says_whose_figures_they_are() -> None:
    meta = {"syscalls": {"io": 3}, "derived": [{}]}
    assert measured(meta) == ["in the recording that this was derived from:", "system calls: io 3"]
    assert measured({}) == []
