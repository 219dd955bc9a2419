"""Make the validation recording again: a contended job on all CPUs, every task's scheduling, every block request.

    python -m hvbench.fidelity.contended_record -o FOLDER [--seconds 6]      # as root, tracefs

Writes the trace, `contended.parquet`, and `contended-waits.json`: what waiting and latency really were. Before the job
a probe asks the idle device, one request at a time, how long it takes; that describes the medium. The numbers that the
bar `replay` is judged by are printed, for numbers.toml.
"""

from __future__ import annotations

import argparse
import mmap
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvbench.errors import UserError
from hvbench.fidelity.contended_convert import READERS, Recording, convert, probe_latency, save
from hvbench.traces.record.ftrace import Event, in_nanoseconds, parse
from hvbench.traces.record.tracefs import Session, find_tracefs

EVENTS = {
    "sched:sched_switch": "who ran when",
    "sched:sched_waking": "what ended each wait",
    "sched:sched_wakeup": "when a task came to its run queue",
    "sched:sched_wakeup_new": "the same of new tasks",
    "sched:sched_process_fork": "whose task is whose child",
    "block:block_rq_issue": "block requests",
    "block:block_rq_complete": "block requests",
}
BUFFER_KIB = 32_768
PROBES = 200
PROBE_SIZES = {"small": 4 << 10, "large": 256 << 10}


def capture(session: Session, work: Callable[[], None]) -> list[Event]:
    """The events while `work` runs. Raises UserError where some were lost."""
    session.start()
    work()
    session.stop()
    if session.lost():
        raise UserError(f"{session.lost()} events were lost: the buffer of {BUFFER_KIB} KiB a CPU is too small")
    found = parse(session.lines(), READERS)
    return list(in_nanoseconds(found))


def probe(folder: Path) -> None:
    """Reads and writes of two sizes, one at a time, past the page cache."""
    path = folder / "probe"
    size = 64 << 20
    path.write_bytes(os.urandom(1 << 20) * (size >> 20))
    os.sync()
    file = os.open(path, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, max(PROBE_SIZES.values()))
    page[:] = os.urandom(len(page))
    place = random.Random(0)
    for _ in range(PROBES):
        for length in PROBE_SIZES.values():
            at = place.randrange(size // length) * length
            os.preadv(file, [memoryview(page)[:length]], at)
            os.pwrite(file, memoryview(page)[:length], at)
            time.sleep(0.001)
    os.close(file)


def tasks() -> dict[int, dict[str, Any]]:
    """Every thread of the machine: name, nice value, autogroup, whether it is the kernel's."""
    found = {}
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            words = rest.split()
            group = (task.parent.parent / "autogroup").read_text().split()
            kernel = bool(int(words[6]) & 0x00200000)  # PF_KTHREAD, include/linux/sched.h
        except OSError:
            continue
        found[int(task.name)] = {
            "name": name,
            "nice": int(words[16]),
            "group": "" if kernel or not group else group[0].strip("/"),
        }
    return found


def run_delays(job: int) -> dict[int, int]:
    """What the kernel itself counts as waiting on a run queue, ns, by thread of a session."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == job:
                found[int(process.name)] = int((process / "schedstat").read_text().split()[1])
        except OSError:
            continue
    return found


def describe(folder: Path) -> dict[str, Any]:
    """The machine and its scheduler's constants, with where each is known from."""
    config = _config()
    release = platform.release()
    version = tuple(int(word) for word in release.split("-")[0].split(".")[:2])
    autogroup = Path("/proc/sys/kernel/sched_autogroup_enabled")
    models = {"CONFIG_PREEMPT_LAZY": "lazy", "CONFIG_PREEMPT": "full", "CONFIG_PREEMPT_VOLUNTARY": "voluntary"}
    return {
        "kernel": release,
        "cpus": os.cpu_count(),
        "hz": int(config.get("CONFIG_HZ", "250")),
        "preemption": next((word for key, word in models.items() if config.get(key) == "y"), "none"),
        # kernel/sched/fair.c: sysctl_sched_base_slice; /sys/kernel/debug/sched was not readable
        "base_slice_ns": 700_000 if version >= (6, 15) else 750_000,
        "base_slice_from": "the kernel's default of its version; scaled by 1 + log2 of the CPUs",
        "autogroup": autogroup.exists() and autogroup.read_text().strip() == "1",
        "device": _device(folder),
    }


def _config() -> dict[str, str]:
    import gzip

    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        if path.exists():
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
            return dict(line.split("=", 1) for line in text.splitlines() if line.startswith("CONFIG_"))
    raise UserError("this kernel's configuration is not to be found in /proc/config.gz or /boot: HZ is not known")


def device_number(folder: Path) -> str:
    """The disk that a folder is on, as events name it."""
    device = folder.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def _device(folder: Path) -> dict[str, str]:
    made = {"number": device_number(folder)}
    queue = Path(f"/sys/dev/block/{made['number']}/queue")
    for name in ("write_cache", "scheduler", "nr_requests", "rotational"):
        if (queue / name).exists():
            made[name] = (queue / name).read_text().strip()
    return made


def record(folder: Path, seconds: float) -> Recording:
    """Probe the device, then record the job. Raises UserError where tracing is not possible."""
    root, reason = find_tracefs()
    if root is None:
        raise UserError(reason)
    about = describe(folder)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with Session(root, BUFFER_KIB, {k: v for k, v in EVENTS.items() if k.startswith("block")}, ()) as session:
            asked = capture(session, lambda: probe(Path(scratch)))
            about["probe"] = probe_latency(asked, about["device"]["number"], PROBE_SIZES)
        with Session(root, BUFFER_KIB, EVENTS, tuple(EVENTS)) as session:
            job = subprocess.Popen(
                [sys.executable, "-m", "hvbench.fidelity.contended_job", scratch],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            assert job.stdin is not None and job.stdout is not None
            try:
                job.stdout.readline()
                known, before = tasks(), run_delays(job.pid)
                go = job.stdin

                after: dict[int, int] = {}

                def work() -> None:
                    go.write("go\n")
                    go.flush()
                    time.sleep(seconds)
                    after.update(run_delays(job.pid))

                steal = _steal_ns()
                events = capture(session, work)
                steal = _steal_ns() - steal
                known = {**tasks(), **known}
            finally:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
    delays = {tid: after[tid] - delay for tid, delay in before.items() if tid in after}
    return Recording(events, known, set(before), delays, {**about, "steal_ns": steal})


def _steal_ns() -> int:
    """What other guests of the machine below took from all CPUs so far."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(words[8]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Record the contended job of the bar `replay`.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the trace and its waits")
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        print(save(convert(record(given.output, given.seconds)), given.output))
    except UserError as error:
        sys.exit(f"contended_record: {error}")


if __name__ == "__main__":
    main()
