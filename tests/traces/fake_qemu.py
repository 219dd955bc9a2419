"""A QEMU that is none: a QMP server on a unix socket, with a vCPU that is a shell."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

MAC = "52:54:00:00:00:01"


def frame(source: str, target: str, payload: bytes, to_guest: bool, port: int = 4000) -> bytes:
    """An Ethernet frame with UDP in IPv4 between the guest and somebody."""
    macs = bytes.fromhex(MAC.replace(":", "")), bytes.fromhex("525400ffffff")
    ether = (macs[0] + macs[1] if to_guest else macs[1] + macs[0]) + b"\x08\x00"
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0,
                     socket.inet_aton(source), socket.inet_aton(target))  # fmt: skip
    return ether + ip + struct.pack(">HHHH", port, 53, 8 + len(payload), 0) + payload


class FakeQemu:
    """Answers what the recorder asks. `refuse` maps commands to errors; `log` is what an events log looks like."""

    def __init__(self, folder: Path, name: str = "box", *, stamps: bool = True, backend: bool = True) -> None:
        self.path = folder / f"{name}.sock"
        self.name, self.stamps, self.backend = name, stamps, backend
        self.refuse: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.enabled: set[str] = set()
        self.objects: dict[str, Path] = {}
        self.interval = 0
        self.logs: list[str] = []
        self.memory = folder / f"{name}.ram"
        self.memory.write_bytes(b"\1" * 4096 + bytes(4096) + b"\2" * 4096 + bytes(5 * 4096))
        self.hang_up_after = ""  # a command after which the connection ends
        self.stop = threading.Event()
        self.began = time.monotonic_ns() // 1000
        busy = "while :; do i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 0.01; done"
        self.vcpu = subprocess.Popen(["sh", "-c", busy])
        self.tids = [self.vcpu.pid]
        self.counter = 0
        self.clients: list[socket.socket] = []
        self._worker = threading.Thread(target=self._devices, daemon=True)
        self._worker.start()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(self.path))
        self.server.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def _devices(self) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(FileNotFoundError):  # the recorder has gone, and its folder too
                self._io()
            time.sleep(0.01)

    def _io(self) -> None:
        """A request of each kind, and a frame each way, where somebody looks."""
        self.counter += 1
        if self.logs and self.backend and self.logs[-1].endswith("trace.log"):
            now = time.time()
            if "virtio_blk_handle_read" in self.enabled:
                self._log(now, f"virtio_blk_handle_read vdev 0x1 req 0x{self.counter:x} sector 8 nsectors 16")
                self._log(now + 0.002, f"virtio_blk_req_complete vdev 0x1 req 0x{self.counter:x} status 0")
        stamp = time.monotonic_ns() // 1000 - self.began  # a guest's own clock
        for file in list(self.objects.values()):
            data = b"".join(
                struct.pack("<IIII", 1000 + stamp // 10**6, stamp % 10**6, len(part), len(part)) + part
                for part in (
                    frame("10.0.0.9", "10.0.0.5", b"x" * 20, True),
                    frame("10.0.0.5", "10.0.0.9", b"y" * 30, False),
                )
            )
            with file.open("ab") as out:
                out.write(data)

    def _log(self, now: float, text: str) -> None:
        with open(self.logs[-1], "a") as out:
            out.write((f"77@{now:.6f}:" if self.stamps else "") + text + "\n")

    def _serve(self) -> None:
        while not self.stop.is_set():
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            self.clients.append(client)
            threading.Thread(target=self._client, args=(client,), daemon=True).start()

    def _client(self, client: socket.socket) -> None:
        client.sendall(b'{"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 0}}, "capabilities": []}}\r\n')
        with client, client.makefile("rb") as lines:
            for line in lines:
                asked = json.loads(line)
                command, arguments = asked["execute"], asked.get("arguments", {})
                self.asked.append((command, arguments))
                if "handle_qmp_command" in self.enabled and self.backend and self.logs:
                    self._log(time.time(), f"handle_qmp_command mon 0x1 req: {command}")
                try:
                    if command in self.refuse:
                        raise ValueError(self.refuse[command])
                    answer = {"return": self.answer(command, arguments)}
                except ValueError as error:
                    answer = {"error": {"class": "GenericError", "desc": str(error)}}
                client.sendall(b'{"event": "RTC_CHANGE", "data": {}}\r\n')
                client.sendall(json.dumps({**answer, "id": asked["id"]}).encode() + b"\r\n")
                if self.hang_up_after == command:
                    self.hang_up_after = ""
                    client.shutdown(socket.SHUT_RDWR)
                    return

    def answer(self, command: str, a: dict[str, Any]) -> Any:
        if command == "human-monitor-command":
            self.logs.append(re.fullmatch(r'logfile "(.*)"', a["command-line"])[1])  # type: ignore[index]
            return ""
        if command == "trace-event-get-state":
            return [{"name": a["name"], "state": "enabled" if a["name"] in self.enabled else "disabled"}]
        if command == "trace-event-set-state":
            (self.enabled.add if a["enable"] else self.enabled.discard)(a["name"])
            return {}
        if command == "object-add":
            Path(a["file"]).write_bytes(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
            self.objects[a["id"]] = Path(a["file"])
            return {}
        if command == "object-del":
            del self.objects[a["id"]]
            return {}
        if command == "qom-set":
            self.interval = a["value"]
            return {}
        if command == "qom-list":
            return {
                "/machine/peripheral": [{"name": "type", "type": "string"},
                                        {"name": "bal", "type": "child<virtio-balloon-pci>"}],
                "/machine/peripheral-anon": [{"name": "device[0]", "type": "child<virtio-net-pci>"}],
                "/objects": [{"name": "m0", "type": "child<memory-backend-file>"}],
            }[a["path"]]  # fmt: skip
        stats = {"stat-free-memory": 5000, "stat-swap-in": 2**64 - 1}
        if command == "qom-get":
            found = {
                ("/machine/peripheral-anon/device[0]", "netdev"): "n0",
                ("/machine/peripheral-anon/device[0]", "mac"): MAC,
                ("/objects/m0", "mem-path"): str(self.memory),
                ("/machine/peripheral/bal", "guest-stats-polling-interval"): self.interval,
                ("/machine/peripheral/bal", "guest-stats"): {"stats": stats},
            }.get((a["path"], a["property"]))
            if found is None:
                raise ValueError(f"Property '{a['property']}' not found")
            return found
        self.counter += 1
        counts = {"rd_operations": 2 * self.counter, "rd_bytes": 8192 * self.counter, "wr_operations": 0, "wr_bytes": 0,
                  "rd_total_time_ns": 600_000 * self.counter, "wr_total_time_ns": 0}  # fmt: skip
        return {
            "qmp_capabilities": {},
            "query-status": {},
            "query-name": {"name": self.name},
            "query-kvm": {"enabled": True},
            "query-memory-size-summary": {"base-memory": 8 * 4096},
            "query-cpus-fast": [{"thread-id": tid, "cpu-index": i} for i, tid in enumerate(self.tids)],
            "query-memdev": [{"id": "m0", "size": 8 * 4096, "share": True}],
            "query-block": [{"inserted": {}, "qdev": "/machine/peripheral-anon/device[1]/virtio-backend"}],
            "query-blockstats": [{"device": "d0", "stats": counts}],
            "query-balloon": {"actual": 8 * 4096},
        }[command]

    def say(self, event: str) -> None:
        """An event to all clients."""
        for client in self.clients:
            client.sendall(json.dumps({"event": event, "data": {}}).encode() + b"\r\n")

    def close(self) -> None:
        self.stop.set()
        self.vcpu.kill()
        self.vcpu.wait()
        self.server.close()
        for client in self.clients:
            client.close()
