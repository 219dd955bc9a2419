"""One running QEMU guest as a recorder sees it: what it consists of, and what is switched on in it meanwhile.

Everything that is switched on has its way back in `undo` before it is tried, and `switch_off` takes all of them, the
last one first: trace events, the log file, packet dumps, the interval of the balloon's statistics.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from hvbench.errors import UserError
from hvbench.traces.record import procfs
from hvbench.traces.record.guest_memory import Memory
from hvbench.traces.record.qmp import Qmp, QmpError, QmpGone

DEVICE_EVENTS: Final = ("virtio_blk_handle_read", "virtio_blk_handle_write", "virtio_blk_req_complete")
BLOCK_EVENTS: Final = ("blk_co_preadv", "blk_co_pwritev")
PROBE_EVENT: Final = "handle_qmp_command"
"""An event that a command of one's own raises: it shows whether events reach the log, and how their lines begin."""
HEADER_BYTES: Final = 96
"""Of each frame, as much as the pcap importer looks at."""
STATISTICS_S: Final = 1
BALLOON_STATS: Final = ("stat-free-memory", "stat-available-memory", "stat-disk-caches", "stat-major-faults",
                        "stat-minor-faults", "stat-swap-in", "stat-swap-out")  # fmt: skip
NOT_REPORTED: Final = 2**64 - 1
COUNTERS: Final = ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes", "rd_total_time_ns", "wr_total_time_ns")


@define
class Guest:
    """A guest that is attached to. Times in ns of CLOCK_MONOTONIC."""

    qmp: Qmp
    name: str = ""
    tier: str = ""
    pid: int = 0
    vcpus: dict[int, int] = field(factory=dict)  # thread id -> number
    accelerator: str = "?"
    memory_bytes: int = 0
    macs: list[str] = field(factory=list)
    nics: list[tuple[str, str]] = field(factory=list)  # netdev, MAC
    balloon_path: str = ""
    memories: list[Memory] = field(factory=list)
    folder: Path = Path()
    log: Path | None = None  # where its trace events are
    layer: str = "device"
    stamps: bool = True  # the log's lines have times
    dumps: list[Path] = field(factory=list)
    sizes: dict[Path, list[tuple[int, int, int]]] = field(factory=dict)  # dump -> before, after the look; bytes then
    balloon: list[list[int]] = field(factory=list)  # time, bytes, then BALLOON_STATS (-1: not reported)
    counters: list[tuple[int, dict[str, list[int]]]] = field(factory=list)  # time, device -> COUNTERS
    count_blocks: bool = False
    schedule: dict[int, list[tuple[int, int]]] = field(factory=dict)  # vCPU -> (ran, waited to run) at begin and end
    degraded: list[str] = field(factory=list)
    undo: list[tuple[str, Callable[[], Any]]] = field(factory=list)
    ended: bool = False
    gone: bool = False  # no monitor any more
    _stamped_to: int = 0

    # what there is --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Learn what the guest consists of. Raises `UserError` if it is not a guest of this machine."""
        self.vcpus = {int(cpu["thread-id"]): int(cpu["cpu-index"]) for cpu in self.qmp.run("query-cpus-fast")}
        pids = {tid: _process_of(tid) for tid in self.vcpus}
        if not pids or 0 in pids.values():
            raise UserError(
                f"--qemu {self.qmp.path}: its vCPU threads ({', '.join(map(str, pids)) or 'none'}) do not run here: "
                "record on the machine, and in the container, that QEMU runs in"
            )
        self.pid = next(iter(pids.values()))
        with contextlib.suppress(QmpError):
            self.name = str(self.qmp.run("query-name").get("name", ""))
        with contextlib.suppress(QmpError):
            self.accelerator = "kvm" if self.qmp.run("query-kvm").get("enabled") else "tcg"
        with contextlib.suppress(QmpError):
            self.memory_bytes = int(self.qmp.run("query-memory-size-summary").get("base-memory", 0))
        for path in self._devices():
            with contextlib.suppress(QmpError):
                netdev = self.qmp.run("qom-get", path=path, property="netdev")
                mac = str(self.qmp.run("qom-get", path=path, property="mac"))
                self.macs.append(mac)
                self.nics.append((str(netdev), mac))
        self._find_memory()

    def _devices(self) -> list[str]:
        found = []
        for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
            with contextlib.suppress(QmpError):
                for item in self.qmp.run("qom-list", path=folder):
                    kind = str(item["type"])
                    if kind.startswith("child<"):
                        found.append(f"{folder}/{item['name']}")
                        if kind.startswith("child<virtio-balloon"):
                            self.balloon_path = found[-1]
        return found

    def _find_memory(self) -> None:
        with contextlib.suppress(QmpError):
            kinds = {str(item["name"]): str(item["type"]) for item in self.qmp.run("qom-list", path="/objects")}
            for item in self.qmp.run("query-memdev"):
                name = str(item.get("id", ""))
                if kinds.get(name) != "child<memory-backend-file>":
                    continue
                told = str(self.qmp.run("qom-get", path=f"/objects/{name}", property="mem-path"))
                file = Path(f"/proc/{self.pid}/cwd") / told  # as QEMU sees it
                if not file.is_file():
                    file = Path(f"/proc/{self.pid}/root") / told.lstrip("/")
                if not item.get("share"):
                    self.degraded.append(f"memory {name}: its file is not shared (share=on): no page hashes")
                elif not file.is_file():
                    self.degraded.append(f"memory {name}: its file cannot be found or opened: no page hashes")
                else:
                    try:
                        self.memories.append(Memory.open(file, int(item["size"])))
                    except OSError as error:
                        self.degraded.append(f"memory {name}: no page hashes: {error.strerror or error}")
        if not self.memories and not self.degraded:
            self.degraded.append(
                "no page hashes: its memory is not in a file (-object memory-backend-file,share=on gives them)"
            )

    # switching on and off -------------------------------------------------------------------------------

    def switch_on(self, scratch: Path) -> None:
        """Begin to record block requests, port traffic and balloon statistics, as far as it goes."""
        self.folder = Path(tempfile.mkdtemp(prefix="guest-", dir=scratch))
        owner = os.stat(f"/proc/{self.pid}").st_uid
        if owner != os.geteuid() and os.geteuid() == 0:
            os.chown(self.folder, owner, -1)  # QEMU writes there
        self._switch_on_log()
        self._switch_on_dumps()
        self._switch_on_balloon()

    def _switch_on_log(self) -> None:
        why = ""
        log = self.folder / "trace.log"
        try:
            wanted = self._disk_events()
            if not wanted:
                return
            before = _log_file(self.pid)
            self.undo.append(("the log file", lambda: self._log_to(before)))
            self._log_to(str(log))
            self._event(PROBE_EVENT)
            self.qmp.run("query-status")
            text = log.read_text(errors="replace") if log.exists() else ""
            self._quietly(self.undo.pop()[1])  # the probe's event
            if PROBE_EVENT not in text:
                why = "its trace events do not go to a log (built without the log backend?)"
            else:
                self.stamps = re.match(r"\d+@\d+\.\d+:", text) is not None
                for event in wanted:
                    self._event(event)
                self.log = log
        except (QmpError, OSError) as error:
            why = str(error)
        if why:
            self.switch_off()
            self.count_blocks = True
            self.degraded.append(
                f"block requests only as counts every {STATISTICS_S} s, their places and latencies are not known: {why}"
            )
        elif not self.stamps:
            self.degraded.append(
                "block requests to about 20 ms, without latencies: the log has no times (-msg timestamp=on gives them)"
            )

    def _log_to(self, file: str) -> None:
        said = self.qmp.human(f'logfile "{file}"')
        if said:  # the human monitor has no errors, only words
            raise QmpError(f"logfile: {said}")

    def _disk_events(self) -> tuple[str, ...]:
        """The events that tell of the guest's disks: the devices', if all are virtio-blk; none if it has no disk."""
        used = [item for item in self.qmp.run("query-block") if "inserted" in item]
        if not used:
            self.degraded.append("no disk: no block requests")
            return ()
        if all(str(item.get("qdev", "")).endswith("/virtio-backend") for item in used):
            return DEVICE_EVENTS
        self.layer = "block"
        self.degraded.append("a disk is not virtio-blk: requests as they left towards the images, without latencies")
        return BLOCK_EVENTS

    def _event(self, name: str) -> None:
        """Switch a trace event on, unless it is on already."""
        states = self.qmp.run("trace-event-get-state", name=name)
        if states and states[0].get("state") == "enabled":
            self.undo.append((f"trace event {name}", lambda: None))
            return
        self.undo.append(
            (f"trace event {name}", lambda: self.qmp.run("trace-event-set-state", name=name, enable=False))
        )
        self.qmp.run("trace-event-set-state", name=name, enable=True)

    def _switch_on_dumps(self) -> None:
        if not self.nics:
            self.degraded.append("no network device: no port traffic")
        for number, (netdev, _) in enumerate(self.nics):
            file = self.folder / f"port{number}.pcap"
            name = f"hvbench-{os.getpid()}-{number}"
            try:
                self.qmp.run(
                    "object-add",
                    **{"qom-type": "filter-dump", "id": name, "netdev": netdev, "file": str(file)},
                    maxlen=HEADER_BYTES,
                )
            except QmpError as error:
                self.degraded.append(f"network device {netdev or number}: no port traffic: {error}")
                continue
            self.undo.append((f"packet dump of {netdev}", partial(self._remove, name)))
            self.dumps.append(file)
        if self.dumps and _uses_vhost(self.pid):
            self.degraded.append("vhost-net is in use: frames that go past QEMU are not in the port traffic")

    def _remove(self, name: str) -> None:
        self.qmp.run("object-del", id=name)

    def _switch_on_balloon(self) -> None:
        try:
            self.qmp.run("query-balloon")
        except QmpError as error:
            self.degraded.append(f"no balloon statistics: {error}")
            self.balloon_path = ""
            return
        name = "guest-stats-polling-interval"
        if not self.balloon_path:
            return
        try:
            before = int(self.qmp.run("qom-get", path=self.balloon_path, property=name))
            self.undo.append(
                (
                    "the balloon's statistics",
                    lambda: self.qmp.run("qom-set", path=self.balloon_path, property=name, value=before),
                )
            )
            self.qmp.run("qom-set", path=self.balloon_path, property=name, value=STATISTICS_S)
        except QmpError as error:
            self.degraded.append(f"only the balloon's size, none of its statistics: {error}")

    def switch_off(self) -> None:
        """Take back all that was switched on; what cannot be is said in `degraded`."""
        left: list[str] = []
        while self.undo:
            what, back = self.undo.pop()
            try:
                back()
            except QmpGone:
                if not self._again():
                    left.append(what)
                    continue
                self._quietly(back)
            except QmpError as error:
                left.append(f"{what} ({error})")
        if left and not self.is_over():
            self.degraded.append(f"could not be switched off again: {', '.join(left)}")

    @staticmethod
    def _quietly(back: Callable[[], Any]) -> None:
        with contextlib.suppress(QmpError, QmpGone):
            back()

    def _again(self) -> bool:
        """Connect anew after the connection was lost; whether that worked."""
        if self.is_over():
            return False
        try:
            fresh = Qmp.open(self.qmp.path, timeout_s=2.0)
        except UserError:
            self.gone = True
            return False
        self.qmp.close()
        self.qmp.stream, self.qmp._buffer, self.gone = fresh.stream, b"", False
        return True

    # meanwhile ------------------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Whether its process has ended."""
        return procfs.read_text(f"/proc/{self.pid}/stat").rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])

    def watch(self) -> bool:
        """Whether the guest is still there; takes in what QEMU said."""
        if self.ended:
            return False
        if not self.gone:
            try:
                self.qmp.poll()
            except QmpGone:
                if self._again():
                    self.degraded.append("the connection to QEMU was lost and made again")
                elif not self.is_over():
                    self.gone = True
                    self.degraded.append("the connection to QEMU was lost: balloon and counts end there")
        self.ended = self.is_over() or self.qmp.saw("SHUTDOWN")
        self._stamp()
        self._measure()
        return not self.ended

    def _measure(self) -> None:
        """How large the packet dumps are now: that is how their clock is told (see `guest_rows.dump_offset`)."""
        for file in self.dumps:
            before = time.monotonic_ns()
            with contextlib.suppress(OSError):
                size = file.stat().st_size
                looks = self.sizes.setdefault(file, [])
                if len(looks) > 1 and looks[-1][2] == looks[-2][2] == size:
                    looks.pop()  # of looks that saw nothing new, the first and the last tell all
                looks.append((before, time.monotonic_ns(), size))

    def count(self) -> None:
        """Read what the kernel has counted of the vCPUs' time, at the begin and at the end."""
        for tid in self.vcpus:
            seen = self.schedule.setdefault(tid, [])
            if not seen or not self.is_over():
                seen.append(run_delay(tid))

    def sample(self) -> None:
        """Read what has to be asked for: the balloon, and counts of requests where there are no events."""
        if self.ended or self.gone:
            return
        now = time.monotonic_ns()
        with contextlib.suppress(QmpError, QmpGone):
            if self.balloon_path:
                row = [now, int(self.qmp.run("query-balloon").get("actual", 0))]
                stats = self.qmp.run("qom-get", path=self.balloon_path, property="guest-stats").get("stats", {})
                told = [int(stats.get(name, -1)) for name in BALLOON_STATS]
                self.balloon.append(row + [-1 if value == NOT_REPORTED else value for value in told])
        with contextlib.suppress(QmpError, QmpGone):
            if self.count_blocks:
                found = {}
                for item in self.qmp.run("query-blockstats"):
                    name = str(item.get("device") or item.get("node-name") or item.get("qdev", ""))
                    found[name] = [int(item["stats"].get(counter, 0)) for counter in COUNTERS]
                self.counters.append((now, found))

    def finish(self) -> None:
        """The last readings, before it is switched off."""
        self.sample()
        self._stamp()
        self._measure()

    def _stamp(self) -> None:
        """Give times to the lines of a log without them: those of when they were seen."""
        if self.log is None or self.stamps or not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self._stamped_to)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._stamped_to += len(whole)
        now = f"0@{time.time():.6f}:".encode()
        with (self.folder / "stamped.log").open("ab") as file:
            file.write(b"".join(now + line + b"\n" for line in whole.splitlines()))

    def events_log(self) -> Path | None:
        """The log of block requests, with times."""
        found = self.log if self.stamps or self.log is None else self.folder / "stamped.log"
        return found if found is not None and found.exists() and found.stat().st_size else None

    def clear(self) -> None:
        """Remove temporary files and close the connection."""
        self.qmp.close()
        for memory in self.memories:
            memory.close()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)


def run_delay(tid: int) -> tuple[int, int]:
    """A thread's ns on a CPU and ns runnable without one so far; zeros where the kernel does not say."""
    words = procfs.read_text(f"/proc/{tid}/schedstat").split()
    return (int(words[0]), int(words[1])) if len(words) >= 2 else (0, 0)


def _process_of(tid: int) -> int:
    for line in procfs.read_text(f"/proc/{tid}/status").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return 0


def _log_file(pid: int) -> str:
    """Where QEMU's log goes now: the file of its -D, else its standard error."""
    words = procfs.read_text(f"/proc/{pid}/cmdline").split("\0")
    for before, word in pairwise(words):
        if before in ("-D", "--D"):
            return word
    return "/dev/stderr"


def _uses_vhost(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return any(os.readlink(entry.path) == "/dev/vhost-net" for entry in os.scandir(f"/proc/{pid}/fd"))
    return False
