"""QEMU's monitor protocol (QMP) over its unix socket, as far as a recorder needs it.

A line of JSON each way: QEMU greets with `{"QMP": …}`, answers a command with `{"return": …}` or `{"error": …}`, and
says `{"event": …}` in between whenever something happens. A QMP socket serves one client at a time; to a second one
QEMU says nothing until the first has gone. Source: QEMU 7.2, docs/interop/qmp-spec.txt.

A client of its own, in place of the package `qemu.qmp`: that one is asynchronous throughout, and the recorder is not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from hvbench.errors import UserError

TIMEOUT_S: Final = 5.0
LONGEST_LINE: Final = 64 << 20
_EXAMPLE: Final = "-qmp unix:qmp.sock,server=on,wait=off"


class QmpError(UserError):
    """QEMU refused a command; the text is its own."""


class QmpGone(UserError):
    """The connection has ended."""


@define
class Qmp:
    """A connection to one monitor. `events` gathers what QEMU said by itself."""

    path: Path
    stream: socket.socket
    events: list[dict[str, Any]] = field(factory=list)
    version: str = ""
    _buffer: bytes = b""
    _number: int = 0

    @classmethod
    def open(cls, path: Path, timeout_s: float = TIMEOUT_S) -> Qmp:
        """Connect and agree. Raises `UserError` where there is no QMP monitor, or somebody else has it."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout_s)
        made = cls(path, stream)
        try:
            try:
                stream.connect(str(path))
            except FileNotFoundError as error:
                raise UserError(f"--qemu {path}: no such socket; start QEMU with {_EXAMPLE}") from error
            except ConnectionRefusedError as error:
                what = "nobody listens there: QEMU has ended" if path.is_socket() else "that is no socket"
                raise UserError(f"--qemu {path}: {what}; start QEMU with {_EXAMPLE}") from error
            except OSError as error:
                raise UserError(f"--qemu {path}: cannot be connected to: {error.strerror or error}") from error
            try:
                greeting = made._read(time.monotonic() + timeout_s)
            except QmpGone as error:
                raise UserError(f"--qemu {path}: no QMP monitor: it hung up without a greeting") from error
            if greeting is None:
                raise UserError(
                    f"--qemu {path}: no greeting within {timeout_s:g} s: no QMP monitor, or another client (libvirt?) "
                    f"holds it; a QEMU may have several: {_EXAMPLE}"
                )
            if not isinstance(greeting.get("QMP"), dict):
                raise UserError(f"--qemu {path}: not a QMP socket: it began with {json.dumps(greeting)[:60]}")
            version = greeting["QMP"].get("version", {}).get("qemu", {})
            made.version = ".".join(str(version.get(part, "?")) for part in ("major", "minor", "micro"))
            made.run("qmp_capabilities")
        except BaseException:
            stream.close()
            raise
        return made

    def run(self, command: str, **arguments: Any) -> Any:
        """What a command returned. Raises `QmpError` where QEMU refuses, `QmpGone` where it is not there any more."""
        self._number += 1
        asked = {"execute": command, "id": self._number} | ({"arguments": arguments} if arguments else {})
        try:
            self.stream.settimeout(TIMEOUT_S)
            self.stream.sendall(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            raise QmpGone(f"--qemu {self.path}: the connection was lost: {error.strerror or error}") from error
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._read(deadline)
            if answer is None:
                raise QmpGone(f"--qemu {self.path}: no answer to {command} within {TIMEOUT_S:g} s")
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id", self._number) != self._number:
                continue  # of a command that was given up
            elif "error" in answer:
                raise QmpError(f"{command}: {answer['error'].get('desc', 'refused')}")
            elif "return" in answer:
                return answer["return"]

    def human(self, line: str) -> str:
        """What QEMU's human monitor prints; "" where it did as it was told."""
        return str(self.run("human-monitor-command", **{"command-line": line})).strip()

    def poll(self) -> None:
        """Take in events that have come. Raises `QmpGone`."""
        while (said := self._read(0.0)) is not None:
            if "event" in said:
                self.events.append(said)

    def saw(self, event: str) -> bool:
        """Whether an event of this name has come."""
        return any(item.get("event") == event for item in self.events)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.close()

    def _read(self, deadline: float) -> dict[str, Any] | None:
        """The next message; None if there is none before the deadline (0: none has come yet)."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            self.stream.settimeout(max(left, 0.0))
            try:
                data = self.stream.recv(1 << 16)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError as error:
                raise QmpGone(f"--qemu {self.path}: the connection was lost: {error.strerror or error}") from error
            if not data:
                raise QmpGone(f"--qemu {self.path}: the connection was lost: QEMU closed it")
            self._buffer += data
            if len(self._buffer) > LONGEST_LINE:
                raise QmpGone(f"--qemu {self.path}: a message of more than {LONGEST_LINE >> 20} MiB")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            shown = line[:40].decode("ascii", "replace").strip()
            raise UserError(f"--qemu {self.path}: not a QMP socket: {shown!r} is no JSON object")
        return message
