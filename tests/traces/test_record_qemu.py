"""Recording guests over QMP: the protocol and its errors against a server that is no QEMU; rows; a real guest."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fake_qemu import FakeQemu

from hvbench.cli.record import record as record_command
from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.format import FLAG_COMMON, OPS, Trace, page_identity, read_trace
from hvbench.traces.info import format_info, trace_info
from hvbench.traces.record import qemu, tracefs
from hvbench.traces.record.guest import Guest
from hvbench.traces.record.guest_memory import Memory
from hvbench.traces.record.guest_rows import Parts, dump_offset, ports
from hvbench.traces.record.qmp import Qmp, QmpError, QmpGone

Make = Callable[..., FakeQemu]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[FakeQemu] = []

    def start(name: str = "box", **options: bool) -> FakeQemu:
        made.append(FakeQemu(tmp_path, name, **options))
        return made[-1]

    yield start
    for item in made:
        item.close()


def record(tmp_path: Path, *guests: FakeQemu, seconds: float = 0.3, **options: object) -> tuple[Trace, list[str]]:
    said: list[str] = []
    chosen = {"name": "t", "max_seconds": seconds, "buffer_mib": 8, **options}
    qemu.record_qemu(qemu.Options([g.path for g in guests], **chosen), tmp_path / "t.parquet", said.append)  # type: ignore[arg-type]
    return read_trace(tmp_path / "t.parquet"), said


def is_off(guest: FakeQemu) -> bool:
    """Whether everything is as it was."""
    return not guest.enabled and not guest.objects and guest.interval == 0 and guest.logs[-1] == "/dev/stderr"


def op(trace: Trace, name: str) -> np.ndarray:
    return np.flatnonzero(trace.columns["op"] == OPS[name])


def test_all_that_there_is(tmp_path: Path, make: Make) -> None:
    guest = make()
    trace, said = record(tmp_path, guest)
    assert check_trace(trace) == [] and is_off(guest)
    assert trace.meta["tiers"] == ["box"] and trace.meta["machine"]["where"] == "kvm" and trace.meta["replay"] == "open"
    c = trace.columns
    assert len(op(trace, "compute")) >= 5
    reads = op(trace, "blk_read")
    assert len(reads) >= 5 and set(c["page"][reads]) == {8} and set(c["pages"][reads]) == {16}
    # who sends is told by the card's address
    by_tier = {t["id"]: t["tier"] for t in trace.meta["threads"]}
    sends = op(trace, "send")
    assert {(by_tier[c["thread"][r]], int(c["bytes"][r])) for r in sends} == {("outside", 20), ("box", 30)}
    # two pages are not zero, they are touched at once and keep their contents
    assert c["pages"][op(trace, "touch")].sum() == 2
    values = {page_identity(b"\1" * 4096), page_identity(b"\2" * 4096)}
    assert set(c["content"][op(trace, "content")].tolist()) == values
    about = trace.meta["recorded"]["guests"][0]
    assert 1_800_000 < about["block_latency_p50_ns"] < 2_200_000
    assert about["balloon"][0][1:3] == [8 * 4096, 5000] and about["balloon"][0][-2] == -1
    assert about["vcpus"][0]["run_ns"] > 0
    assert trace.meta["lost_events"] == 0 or "lost" in str(trace.meta["degraded"]) + str(said)
    assert "% of a CPU" in said[1] and "events lost" in said[1]
    assert "balloon" in format_info(trace_info(trace))
    assert (c["time_ns"] <= trace.meta["span_ns"]).all()
    assert "10.0.0.5" not in str(trace.meta) and str(tmp_path) not in str(trace.meta)


def test_several_guests_share_contents(tmp_path: Path, make: Make) -> None:
    one, two = make("one"), make("two")
    two.memory.write_bytes(b"\1" * 4096 + b"\3" * 4096)
    trace, _ = record(tmp_path, one, two, seconds=0.3)
    assert check_trace(trace) == [] and trace.meta["tiers"] == ["one", "two"] and is_off(one) and is_off(two)
    c, rows = trace.columns, op(trace, "content")
    common = {int(v) for v in c["content"][rows[(c["flags"][rows] & FLAG_COMMON) != 0]]}
    assert common == {page_identity(b"\1" * 4096)}
    assert len({trace.meta["threads"][t]["tier"] for t in c["thread"][op(trace, "compute")]}) == 2


def test_guests_of_one_name(tmp_path: Path, make: Make) -> None:
    one, two = make("one"), make("two")
    two.name = "one"
    trace, _ = record(tmp_path, one, two, seconds=0.2, hide_names=True)
    first, second = trace.meta["tiers"]
    assert second == f"{first}-1" and "one" not in first


def test_what_changes_in_memory_is_touched_in_between(tmp_path: Path) -> None:
    file = tmp_path / "ram"
    file.write_bytes(bytes(8 * 4096))
    memory = Memory.open(file, 8 * 4096)
    memory.snapshot()
    with file.open("r+b") as out:
        out.seek(3 * 4096)
        out.write(b"a" * 8192)
    memory.snapshot()
    with file.open("r+b") as out:
        out.seek(3 * 4096)
        out.write(bytes(4096))
    memory.snapshot()
    for delta, time_ns in zip(memory.deltas, (0, 1000, 2000), strict=True):
        delta.taken_ns = time_ns
    touches, contents, *later = memory.batches(7, 0, 100, np.zeros(0, np.uint64))
    assert touches["page"].tolist() == [103, 104] and touches["time_ns"].tolist() == [0, 500]
    assert contents["content"].tolist() == [page_identity(b"a" * 4096)] * 2
    assert contents["time_ns"].tolist() == [1000] * 2
    assert later[0]["page"].tolist() == [103] and later[1]["content"].tolist() == [0]
    memory.close()


def test_the_clock_of_a_dump_is_told_by_its_growth(tmp_path: Path) -> None:
    file = tmp_path / "p.pcap"
    stamps_us = [100, 5_100, 12_000, 20_000]
    data = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    shift, looks = 7_000_000_000, []
    ends = [len(data) + 76 * (i + 1) for i in range(len(stamps_us))]
    for stamp in stamps_us:
        data += struct.pack("<IIII", 0, stamp, 60, 60) + bytes(60)
    file.write_bytes(data)
    for at in range(0, 30_000_000, 2_000_000):  # a look every 2 ms
        size = max([24, *(end for stamp, end in zip(stamps_us, ends, strict=True) if stamp * 1000 <= at)])
        looks.append((shift + at, shift + at + 1000, size))
    found, unsure = dump_offset(file, looks)
    assert abs(found - shift) <= unsure <= 2_001_000
    # without any growth seen, all that is known is that it was meanwhile
    _, unsure = dump_offset(file, [(shift, shift + 1, len(data)), (shift + 10**9, shift + 10**9 + 1, len(data))])
    assert unsure >= 10**9


def test_traffic_between_recorded_guests_counts_once(tmp_path: Path) -> None:
    """Both ports saw it; a third party, and a neighbour's address behind a router, are outside."""
    macs = {"one": "52:54:00:00:00:0a", "two": "52:54:00:00:00:0b", "gate": "52:54:00:00:00:ff"}
    told = {"one": "10.0.0.1", "two": "10.0.0.2", "gate": "9.9.9.9"}

    def dump(name: str, *frames: tuple[str, str, int]) -> Guest:
        data = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        for i, (source, target, size) in enumerate(frames):
            ether = bytes.fromhex((macs[target] + macs[source]).replace(":", "")) + b"\x08\x00"
            addresses = socket.inet_aton(told[source]) + socket.inet_aton(told[target])
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 28 + size, 0, 0, 64, 17, 0) + addresses
            raw = ether + ip + struct.pack(">HHHH", 5000, 5000, 8 + size, 0) + bytes(size)
            data += struct.pack("<IIII", 0, 1000 * i, len(raw), len(raw)) + raw
        path = tmp_path / f"{name}.pcap"
        path.write_bytes(data)
        guest = Guest(Qmp(tmp_path / "none", socket.socket(socket.AF_UNIX)), tier=name, macs=[macs[name]], dumps=[path])
        guest.sizes[path] = [(10**9, 10**9, 24), (10**9 + 10**8, 10**9 + 10**8, len(data))]
        return guest

    inner = [("one", "two", 100), ("two", "one", 50)]
    guests = [dump("one", *inner, ("one", "gate", 10)), dump("two", *inner, ("gate", "two", 7))]
    parts = Parts(10**9, 10**9, 0)
    for number, guest in enumerate(guests):
        ports(parts, guest, number, guests)
    columns = parts.columns()
    found = sorted(
        (parts.threads[columns["thread"][r]]["tier"], tuple(sorted(parts.flows[columns["flow"][r]]["ends"])),
         int(columns["bytes"][r]))
        for r in np.flatnonzero(columns["op"] == OPS["send"])
    )  # fmt: skip
    assert found == [
        ("one", ("one", "outside"), 10), ("one", ("one", "two"), 100), ("outside", ("outside", "two"), 7),
        ("two", ("one", "two"), 50),
    ]  # fmt: skip
    assert (columns["op"] == OPS["recv"]).sum() == 4
    assert {t["process"] for t in parts.threads if t["tier"] == "two"} == {1}
    assert {t["process"] for t in parts.threads if t["role"] == "outside"} == {2}


# what cannot be had -----------------------------------------------------------------------------------------------


def test_no_balloon(tmp_path: Path, make: Make) -> None:
    guest = make()
    guest.refuse["query-balloon"] = "No balloon device has been activated"
    trace, said = record(tmp_path, guest, seconds=0.2)
    assert "no balloon statistics: query-balloon: No balloon device has been activated" in trace.meta["degraded"]
    assert any("no balloon statistics" in line for line in said)
    assert "balloon" not in trace.meta["recorded"]["guests"][0] and len(op(trace, "blk_read")) and is_off(guest)


@pytest.mark.parametrize("why", ["backend", "refused"])
def test_no_trace_events(tmp_path: Path, make: Make, why: str) -> None:
    guest = make(backend=why != "backend")
    if why == "refused":
        guest.refuse["trace-event-get-state"] = "unknown event"
    trace, _ = record(tmp_path, guest, seconds=1.1)
    assert check_trace(trace) == [] and is_off(guest)
    said = next(text for text in trace.meta["degraded"] if "only as counts" in text)
    assert ("without the log backend" if why == "backend" else "unknown event") in said
    rows = op(trace, "blk_read")
    assert len(rows) >= 2 and set(trace.columns["pages"][rows]) == {8}  # 8 KiB in two
    assert trace.meta["recorded"]["guests"][0]["block_latency_mean_ns"] == 300_000


def test_a_log_without_times(tmp_path: Path, make: Make) -> None:
    trace, _ = record(tmp_path, make(stamps=False))
    assert check_trace(trace) == [] and len(op(trace, "blk_read")) >= 3
    assert any("-msg timestamp=on" in text for text in trace.meta["degraded"])
    assert "block_latency_p50_ns" not in trace.meta["recorded"]["guests"][0]


def test_no_network_and_no_file(tmp_path: Path, make: Make) -> None:
    guest = make()
    guest.refuse["object-add"] = "Vhost is not supported"
    guest.memory.unlink()
    trace, _ = record(tmp_path, guest, seconds=0.2)
    text = str(trace.meta["degraded"])
    assert "network device n0: no port traffic: object-add: Vhost is not supported" in text and "no page hashes" in text
    assert not len(op(trace, "send")) and not len(op(trace, "touch")) and is_off(guest)


def test_without_tracefs_counters_are_sampled(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "find_tracefs", lambda: (None, "not root"))
    guest = make()
    trace, _ = record(tmp_path, guest)
    assert check_trace(trace) == [] and len(op(trace, "compute")) >= 3 and is_off(guest)
    assert any("schedstat every 10 ms" in text and "not root" in text for text in trace.meta["degraded"])
    # samples that did not come are counted
    monkeypatch.setattr(qemu.Run, "pause_s", lambda self: (time.sleep(0.06), 0.08)[1])
    trace, _ = record(tmp_path, guest)
    assert trace.meta["lost_events"] >= 5
    assert any("samples of the vCPUs are missing" in text for text in trace.meta["degraded"])


def test_lost_events_are_in_the_trace(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    if tracefs.find_tracefs()[0] is None:
        pytest.skip(tracefs.find_tracefs()[1])
    monkeypatch.setattr(tracefs.Session, "lost", lambda self: 9)
    trace, said = record(tmp_path, make())
    assert trace.meta["lost_events"] == 9 and "9 events lost" in said[1]
    assert any("9 events were lost" in text for text in trace.meta["degraded"])


# ends -------------------------------------------------------------------------------------------------------------


def test_the_guest_shuts_down(tmp_path: Path, make: Make) -> None:
    guest = make()
    threading.Timer(0.5, guest.say, ["SHUTDOWN"]).start()
    begin = time.monotonic()
    trace, _ = record(tmp_path, guest, seconds=20)
    assert time.monotonic() - begin < 5 and check_trace(trace) == [] and is_off(guest)


def test_a_lost_connection_is_made_again(tmp_path: Path, make: Make) -> None:
    guest = make()
    threading.Timer(0.3, lambda: guest.clients[-1].shutdown(socket.SHUT_RDWR)).start()
    trace, _ = record(tmp_path, guest, seconds=1.2)
    assert check_trace(trace) == [] and is_off(guest)
    assert "the connection to QEMU was lost and made again" in trace.meta["degraded"]
    assert len(trace.meta["recorded"]["guests"][0]["balloon"]) >= 3


def test_a_connection_lost_while_it_is_switched_on(tmp_path: Path, make: Make) -> None:
    guest = make()
    guest.hang_up_after = "query-balloon"
    with pytest.raises(UserError, match="the connection was lost"):
        record(tmp_path, guest)
    assert is_off(guest)


def test_the_guest_is_killed(tmp_path: Path, make: Make) -> None:
    guest, other = make("one"), make("two")

    def kill() -> None:
        guest.vcpu.kill()
        guest.vcpu.wait()
        guest.stop.set()
        for client in guest.clients:
            client.close()

    threading.Timer(0.3, kill).start()
    trace, _ = record(tmp_path, guest, other, seconds=0.7)
    assert check_trace(trace) == [] and is_off(other)
    c, by_thread = trace.columns, {t["id"]: t["tier"] for t in trace.meta["threads"]}
    last = {tier: max(int(c["time_ns"][r]) for r in op(trace, "compute") if by_thread[int(c["thread"][r])] == tier)
            for tier in ("one", "two")}  # fmt: skip
    assert last["one"] < 0.55e9 < last["two"]
    assert not any("could not be switched off" in text for text in trace.meta["degraded"])


def test_a_connection_lost_for_good(tmp_path: Path, make: Make) -> None:
    guest = make()

    def cut() -> None:
        guest.server.close()
        guest.path.unlink()
        for client in guest.clients:
            client.shutdown(socket.SHUT_RDWR)

    threading.Timer(0.4, cut).start()
    trace, _ = record(tmp_path, guest, seconds=0.8)
    assert check_trace(trace) == [] and len(op(trace, "compute")) >= 5
    assert any("connection to QEMU was lost" in text for text in trace.meta["degraded"])
    left = next(text for text in trace.meta["degraded"] if "could not be switched off again" in text)
    assert "trace event virtio_blk_handle_read" in left and "packet dump of n0" in left and "log file" in left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_is_kept_and_switched_off(tmp_path: Path, make: Make, number: signal.Signals) -> None:
    guest = make()
    threading.Timer(0.6, os.kill, [os.getpid(), number]).start()
    trace, _ = record(tmp_path, guest, seconds=20)
    assert check_trace(trace) == [] and len(op(trace, "compute")) >= 5 and is_off(guest)


def test_an_error_midway_switches_off(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = make()

    def fail(self: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(qemu.Run, "begin", fail)
    with pytest.raises(OSError, match="disk full"):
        record(tmp_path, guest)
    assert is_off(guest) and not (tmp_path / "t.parquet").exists()


# not a guest ------------------------------------------------------------------------------------------------------


def _listen(path: Path, say: bytes) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(4)

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.sendall(say)
            if say:
                client.close()

    threading.Thread(target=serve, daemon=True).start()
    return server


def test_not_a_qmp_socket(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such socket; start QEMU with -qmp unix:"):
        Qmp.open(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="that is no socket"):
        Qmp.open(tmp_path / "file")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    with pytest.raises(UserError, match="nobody listens there: QEMU has ended"):
        Qmp.open(tmp_path / "dead")
    servers = [
        _listen(tmp_path / "ssh", b"SSH-2.0-OpenSSH\r\n"),
        _listen(tmp_path / "json", b'{"hello": 1}\n'),
        _listen(tmp_path / "mute", b""),
        _listen(tmp_path / "short", b"{"),
    ]
    with pytest.raises(UserError, match=r"not a QMP socket: 'SSH-2\.0-OpenSSH' is no JSON"):
        Qmp.open(tmp_path / "ssh")
    with pytest.raises(UserError, match=r'not a QMP socket: it began with \{"hello": 1\}'):
        Qmp.open(tmp_path / "json")
    with pytest.raises(UserError, match=r"no greeting within 0.2 s.*another client \(libvirt\?\)"):
        Qmp.open(tmp_path / "mute", timeout_s=0.2)
    with pytest.raises(UserError, match="hung up without a greeting"):
        Qmp.open(tmp_path / "short")
    for server in servers:
        server.close()


def test_answers_errors_and_events(make: Make) -> None:
    guest = make()
    guest.refuse["query-status"] = "no"
    qmp = Qmp.open(guest.path)
    assert qmp.version == "9.1.0" and qmp.run("query-name") == {"name": "box"} and qmp.saw("RTC_CHANGE")
    with pytest.raises(QmpError, match="query-status: no"):
        qmp.run("query-status")
    guest.say("STOP")
    time.sleep(0.05)
    qmp.poll()
    assert qmp.saw("STOP")
    guest.hang_up_after = "query-name"
    qmp.run("query-name")
    with pytest.raises(QmpGone, match="connection was lost"):
        qmp.run("query-name")


def test_vcpus_of_another_machine(tmp_path: Path, make: Make) -> None:
    guest = make()
    guest.tids = [4_194_303]
    with pytest.raises(UserError, match=r"its vCPU threads \(4194303\) do not run here"):
        record(tmp_path, guest)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--pid", "1"], "it goes without --pid"),
        (["--tier", "a=b"], "it goes without --tier"),
        (["--runs", "2"], "it goes without --runs"),
        (["--", "true"], "it goes without a command"),
        (["--qemu", "q.sock"], "the same socket is given twice"),
    ],
)
def test_arguments(tmp_path: Path, more: list[str], expected: str) -> None:
    done = CliRunner().invoke(record_command, ["--qemu", "q.sock", "-o", str(tmp_path / "x.parquet"), *more])
    assert isinstance(done.exception, UserError) and expected in str(done.exception)


# a real one -------------------------------------------------------------------------------------------------------

_GUEST = Path(os.environ.get("HVBENCH_TEST_GUEST", "/nowhere"))
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t devtmpfs d /dev
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover \
  virtio_net virtio_balloon; do insmod /m/$m.ko; done
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
echo GUEST-UP
while :; do
  dd if=/dev/urandom of=/dev/vda bs=16k count=20 conv=fsync 2>/dev/null
  dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct 2>/dev/null
  dd if=/dev/urandom of=/f bs=64k count=16 2>/dev/null
  echo hello | nc -w 1 10.0.2.100 7777 >/dev/null
done
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running guest with a QMP socket `q.sock`. HVBENCH_TEST_GUEST is a folder with an unpacked kernel
    package (boot/vmlinuz*, lib/modules), such as Debian's linux-image-cloud-amd64."""
    kernels = sorted(_GUEST.glob("boot/vmlinuz*"))
    if not kernels:
        pytest.skip("no guest kernel: HVBENCH_TEST_GUEST names a folder with an unpacked kernel package")
    for program in ("qemu-system-x86_64", "busybox", "cpio"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    folder = tmp_path_factory.mktemp("guest")
    root = folder / "root"
    for name in ("bin", "m", "proc", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for module in _GUEST.rglob("*.ko"):
        if module.stem in INIT:
            shutil.copy(module, root / "m")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in [root, *root.rglob("*")])
    with (folder / "initrd").open("wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc"], cwd=root, input=names.encode(), stdout=out, check=True,
                       stderr=subprocess.DEVNULL)  # fmt: skip
    (folder / "disk").write_bytes(bytes(8 << 20))
    command = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-m", "96", "-smp", "1", "-name", "real", "-nographic",
        "-no-reboot", "-nodefaults", "-serial", "file:console", "-kernel", str(kernels[0]), "-initrd", "initrd",
        "-append", "console=ttyS0 panic=-1 quiet", "-machine", "pc,memory-backend=m0",
        "-object", "memory-backend-file,id=m0,size=96M,mem-path=ram,share=on",
        "-drive", "file=disk,if=none,id=d0,format=raw,cache=none,aio=threads", "-device", "virtio-blk-pci,drive=d0",
        "-netdev", "user,id=n0,restrict=on,guestfwd=tcp:10.0.2.100:7777-cmd:cat", "-device", "virtio-net-pci,netdev=n0",
        "-device", "virtio-balloon-pci,id=bal", "-qmp", "unix:q.sock,server=on,wait=off", "-msg", "timestamp=on",
        "-D", "mine.log", "-trace", "enable=virtio_balloon_to_target",
    ]  # fmt: skip
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "err").open("w"))
    try:
        deadline = time.monotonic() + 60
        console = folder / "console"
        while not console.exists() or b"GUEST-UP" not in console.read_bytes():
            if child.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the guest does not boot here: {(folder / 'err').read_text()[-200:]}")
            time.sleep(0.1)
        yield folder
    finally:
        child.kill()
        child.wait()


def test_a_real_guest(tmp_path: Path, real: Path) -> None:
    said: list[str] = []
    options = qemu.Options([real / "q.sock"], name="t", max_seconds=4, snapshot_s=1.5, buffer_mib=16)
    trace = qemu.record_qemu(options, tmp_path / "t.parquet", said.append)
    assert check_trace(trace) == []
    found = trace_info(trace).operations
    expected = {"compute", "touch", "content", "blk_read", "blk_write"}
    assert expected <= set(found), (found, said)
    assert trace.meta["machine"]["where"] == "tcg"
    about = trace.meta["recorded"]["guests"][0]
    assert about["balloon"][-1][1] == 96 << 20 and about["block_latency_p50_ns"] > 1000
    # what the trace says was computed is what the kernel counted, but for the moments before and after
    computed = int(trace.columns["user_ns"].sum())
    if tracefs.find_tracefs()[0] is not None:
        assert abs(computed - about["vcpus"][0]["run_ns"]) < 0.1 * about["vcpus"][0]["run_ns"]
    # everything is as it was: its log, its events, its objects, its balloon
    qmp = Qmp.open(real / "q.sock")
    for name in ("virtio_blk_handle_read", "virtio_blk_req_complete", "handle_qmp_command"):
        assert qmp.run("trace-event-get-state", name=name)[0]["state"] == "disabled"
    assert [item["name"] for item in qmp.run("qom-list", path="/objects")] == ["type", "m0"]
    assert qmp.run("qom-get", path="/machine/peripheral/bal", property="guest-stats-polling-interval") == 0
    qmp.run("balloon", value=80 << 20)
    time.sleep(0.3)
    qmp.close()
    assert "virtio_balloon_to_target" in (real / "mine.log").read_text()
