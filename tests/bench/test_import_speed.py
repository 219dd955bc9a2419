"""How fast recordings are read, on one core, in CPU time: `pytest -m bench tests/bench/test_import_speed.py -s`.

Figures are printed, and asserted against what is wanted: text 20 MB/s, fixed records 200 MB/s, captures 50 MB/s, loads
of 20 million operations a second, 300 MB of memory, 15 % of a log's size. "read" is a format's own work (to batches),
"whole" the import with sorting and writing Parquet. Inputs are made here, from seeds.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvbench.traces.format import read_trace
from hvbench.traces.importers.api import Import, read_options
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Files, import_files
from hvbench.traces.load import convert

pytestmark = pytest.mark.bench
MB = 1e6


def scheduler_log(path: Path, bytes_: int) -> None:
    """Two CPUs that switch between eight threads, which wake each other."""
    lines = []
    random = np.random.default_rng(1)
    now, size = 100_000_000, 0
    running = {0: 101, 1: 102}
    while size < bytes_:
        now += int(random.integers(20, 400))
        cpu = int(random.integers(2))
        old = running[cpu]
        new = int(random.choice([t for t in range(101, 109) if t not in running.values()]))
        stamp = f"{now // 1_000_000}.{now % 1_000_000:06d}"
        head = f"{'worker-' + str(old):>16}-{old:<7} (    100) [{cpu:03d}]"
        wake = f"{head} d....  {stamp}: sched_waking: comm=worker-{new} pid={new} prio=120 target_cpu={cpu:03d}\n"
        switch = (
            f"{head} d..2.  {stamp}: sched_switch: prev_comm=worker-{old} prev_pid={old} prev_prio=120 prev_state=S "
            f"==> next_comm=worker-{new} next_pid={new} next_prio=120\n"
        )
        running[cpu] = new
        lines += [wake, switch]
        size += len(wake) + len(switch)
    path.write_text("".join(lines))


def perf_log(path: Path, bytes_: int) -> None:
    scheduler_log(path, bytes_)
    text = path.read_text().replace("(    100) ", "").replace(" d....  ", " ").replace(" d..2.  ", " ")
    path.write_text(text.replace(": sched_", ":       sched:sched_"))


def block_csv(path: Path, bytes_: int) -> None:
    random = np.random.default_rng(2)
    count = bytes_ // 32
    times = np.cumsum(random.integers(1, 900, count))
    offsets = random.integers(1 << 24, size=count) * 4096
    ops = random.integers(2, size=count)
    path.write_text(
        "".join(
            f"{t},{'RW'[o]},{a},4096\n" for t, o, a in zip(times.tolist(), ops.tolist(), offsets.tolist(), strict=True)
        )
    )


def vscsi(path: Path, bytes_: int) -> None:
    from hvbench.traces.importers.vscsi import V1

    random = np.random.default_rng(3)
    records = np.zeros(bytes_ // V1.itemsize, V1)
    records["length"], records["ver"] = 4096, 0x100
    records["cmd"] = np.where(random.random(len(records)) < 0.5, 0x28, 0x2A)
    records["lbn"] = random.integers(1 << 26, size=len(records))
    records["us"] = np.cumsum(random.integers(1, 900, len(records)))
    path.write_bytes(records.tobytes())


def pcap(path: Path, bytes_: int) -> None:
    """Packets of 200 to 1,500 bytes on 64 connections."""
    random = np.random.default_rng(4)
    made = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    size, now = 24, 0
    reached = [0] * 64
    while size < bytes_:
        flow, length = int(random.integers(64)), int(random.integers(146, 1446))
        now += int(random.integers(1, 100))
        tcp = struct.pack(">HHIIBBHHH", 5000 + flow, 80, reached[flow] % 2**32, 0, 0x50, 0x18, 64, 0, 0)
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 40 + length, 0, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
        data = b"\2" * 6 + b"\4" * 6 + b"\x08\0" + ip + tcp + bytes(length)
        reached[flow] += length
        made.append(struct.pack("<IIII", now // 1_000_000, now % 1_000_000, len(data), len(data)) + data)
        size += 16 + len(data)
    path.write_bytes(b"".join(made))


CASES: list[tuple[str, Callable[[Path, int], None], int, float, dict[str, Any]]] = [
    ("ftrace", scheduler_log, 24_000_000, 20, {}),
    ("perf-script", perf_log, 24_000_000, 20, {}),
    ("block", block_csv, 24_000_000, 20, {"columns": "time,op,offset,size", "time_unit": "us"}),
    ("vscsi", vscsi, 64_000_000, 200, {}),
    ("pcap", pcap, 64_000_000, 50, {}),
]


def read_only(name: str, path: Path, options: dict[str, Any]) -> float:
    """CPU seconds of a format's own reading."""
    format = load_formats().get(name)
    files = Files((path,), lambda count: None)
    job = Import(format, read_options(format, options), files.sources)
    began = time.process_time()
    for _ in format.read(job):
        pass
    return time.process_time() - began


@pytest.mark.parametrize(("name", "make", "size", "rate", "options"), CASES, ids=[case[0] for case in CASES])
def test_rates(
    name: str, make: Callable[[Path, int], None], size: int, rate: float, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "input"
    make(path, size)
    read_only(name, path, options)  # compile
    read = min(read_only(name, path, options) for _ in range(3))
    began = time.process_time()
    report = import_files(load_formats().get(name), (path,), tmp_path / "x.parquet", options=options)
    whole = time.process_time() - began
    share = (tmp_path / "x.parquet").stat().st_size / path.stat().st_size
    print(
        f"\n{name}: read {size / read / MB:.0f} MB/s, whole {size / whole / MB:.0f} MB/s "
        f"({report.rows / whole / 1e6:.2f} million operations/s), Parquet {share:.1%} of the input"
    )
    assert size / read / MB >= rate
    if rate == 20:
        assert size / whole / MB >= rate
    if name in ("ftrace", "perf-script"):
        assert share <= 0.15


def test_loading(tmp_path: Path) -> None:
    vscsi(tmp_path / "v", 64_000_000)
    import_files(load_formats().get("vscsi"), (tmp_path / "v",), tmp_path / "x.parquet")
    trace = read_trace(tmp_path / "x.parquet")
    convert(trace)
    began = time.process_time()
    convert(trace)
    took = time.process_time() - began
    print(f"\nloading into the kernel's arrays: {len(trace) / took / 1e6:.1f} million operations/s")
    assert len(trace) / took >= 20e6


@pytest.mark.parametrize(
    ("name", "make", "size"), [("ftrace", scheduler_log, 60_000_000), ("vscsi", vscsi, 160_000_000)]
)
def test_memory_is_bounded(name: str, make: Callable[[Path, int], None], size: int, tmp_path: Path) -> None:
    make(tmp_path / "input", size)
    code = (
        "import re, sys; from hvbench.cli import execute; "
        f"code = execute(['import', {name!r}, {str(tmp_path / 'input')!r}, '-o', {str(tmp_path / 'x.parquet')!r}]); "
        # not ru_maxrss, which a child inherits from its parent
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak = int(done.stderr.split()[-1]) * 1024
    print(f"\n{name}, {size / MB:.0f} MB: {peak / MB:.0f} MB of memory at most")
    assert peak < 300 * MB
