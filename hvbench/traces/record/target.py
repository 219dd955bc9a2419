"""What is recorded: a command that is started, processes that run already, or a control group."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Final, Protocol

from attrs import define, field

from hvbench.errors import UserError
from hvbench.traces.record import procfs

CGROUPS: Final = Path("/sys/fs/cgroup")


class Target(Protocol):
    """Who is recorded."""

    waits: bool
    """Whether it stands still until `go`."""

    def pids(self) -> list[int]:
        """The processes that belong to it now."""

    def alive(self) -> bool:
        """Whether there is still something to record."""

    def go(self) -> None:
        """Let it begin."""

    def end(self) -> None:
        """It is over: end what was started for the recording, and nothing else."""


@define
class Launched:
    """A command that was started for the recording, stopped until `go`; ended with it."""

    child: subprocess.Popen[bytes]
    waits: bool = True

    def pids(self) -> list[int]:
        return procfs.tree(self.child.pid)

    def alive(self) -> bool:
        return self.child.poll() is None

    def go(self) -> None:
        os.kill(self.child.pid, signal.SIGCONT)

    def end(self) -> None:
        from hvbench.traces.record.session import end_tree

        end_tree(self.child)


@define
class Attached:
    """Processes that run already, with all that they start; they go on when the recording ends."""

    roots: list[int]
    waits: bool = False

    def pids(self) -> list[int]:
        return list(dict.fromkeys(pid for root in self.roots for pid in procfs.tree(root)))

    def alive(self) -> bool:
        return any(_running(pid) for pid in self.roots)

    def go(self) -> None:
        pass

    def end(self) -> None:
        pass


@define
class Group:
    """A control group of version 1 or 2, with the groups below it; who joins it later belongs to it too."""

    folder: Path
    waits: bool = False
    _last: list[int] = field(factory=list)

    def pids(self) -> list[int]:
        found: dict[int, None] = {}
        for folder, _, files in os.walk(self.folder):
            if "cgroup.procs" in files:
                for word in procfs.read_text(Path(folder) / "cgroup.procs").split():
                    if word != "0":
                        found[int(word)] = None
        mine = os.getpid()
        self._last = [pid for pid in found if pid != mine]
        return self._last

    def alive(self) -> bool:
        return bool(self.pids())

    def go(self) -> None:
        pass

    def end(self) -> None:
        pass


def _running(pid: int) -> bool:
    return procfs.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"], ["X"])


def attached(pids: list[int]) -> Attached:
    """Processes by number. Raises UserError for one that is not there or is the recorder's own."""
    for pid in pids:
        if not _running(pid):
            raise UserError(f"--pid {pid}: no such process; `ps` or `pgrep NAME` shows those that run")
        if pid in (os.getpid(), 1):
            raise UserError(f"--pid {pid}: that is {'the recorder itself' if pid != 1 else 'all there is'}")
    return Attached(list(pids))


def group(path: str) -> Group:
    """A control group by its path below /sys/fs/cgroup (or below one of version 1's controllers). Raises UserError."""
    relative = path.lstrip("/")
    places = [Path(path)] if path.startswith(str(CGROUPS)) else []
    places += [
        CGROUPS / relative,
        *(CGROUPS / name / relative for name in ("unified", "pids", "cpu,cpuacct", "memory")),
    ]
    for place in places:
        if (place / "cgroup.procs").is_file():
            made = Group(place)
            if not made.pids():
                raise UserError(f"--cgroup {path}: {place} holds no process to record")
            return made
    raise UserError(
        f"--cgroup {path}: no such control group below {CGROUPS}; /proc/PID/cgroup names the one of a process"
    )
