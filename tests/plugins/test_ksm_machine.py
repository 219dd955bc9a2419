"""The ksm policy against this machine's own KSM: real processes' pages, recorded, merged by both."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.static_memory import static_host
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import SECOND, stack

KSM = Path("/sys/kernel/mm/ksm")
PR_SET_MEMORY_MERGE = 67
PAGE = 4096
KNOBS = {"max_page_sharing": "256", "use_zero_pages": "0", "smart_scan": "0", "pages_to_scan": "5000",
         "sleep_millisecs": "10"}  # fmt: skip
PROGRAM = """
import json, re, sys
table = {i: (str(i) * 20, [i] * 30) for i in range(4000)}
text = json.dumps({k: v[0] for k, v in table.items()})
blank = bytearray(300 * 4096)
copies = [bytearray(b"hvbench%d" % i) + bytearray(4096 * 4) for i in range(50)]
print("ready", flush=True)
sys.stdin.read()
"""


def why_not() -> str:
    """Why this machine cannot be compared with, or nothing."""
    if not sys.platform.startswith("linux") or not (KSM / "run").exists():
        return "there is no /sys/kernel/mm/ksm here"
    if os.geteuid() != 0:
        return "only root may start KSM and read pages"
    if not os.access(KSM / "run", os.W_OK):
        return "/sys/kernel/mm/ksm cannot be written"
    if (KSM / "run").read_text().strip() != "0" or (KSM / "pages_shared").read_text().strip() != "0":
        return "KSM is in use on this machine"
    # asked of a child, so that this process does not change
    asked = subprocess.run([sys.executable, "-c", f"import ctypes,sys; sys.exit(-ctypes.CDLL(None).prctl("
                            f"{PR_SET_MEMORY_MERGE},1,0,0,0))"], check=False)  # fmt: skip
    return "" if asked.returncode == 0 else "the kernel has no PR_SET_MEMORY_MERGE (Linux 6.4)"


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@contextmanager
def knobs() -> Iterator[None]:
    """Set KSM's knobs; whatever happens, unmerge everything, stop it and set them back."""
    before = {name: (KSM / name).read_text() for name in KNOBS if (KSM / name).exists()}
    try:
        for name in before:
            (KSM / name).write_text(KNOBS[name])
        yield
    finally:
        (KSM / "run").write_text("2")
        (KSM / "run").write_text("0")
        for name, value in before.items():
            (KSM / name).write_text(value)


def mergeable() -> None:
    """Let all anonymous memory of the program that is about to start be merged."""
    ctypes.CDLL(None).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0)


def recorded(pid: int) -> list[int]:
    """Contents of the pages of a stopped process that KSM looks at: present, anonymous, in a mergeable mapping."""
    found = []
    mergeable_at: set[int] = set()
    start = -1
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start = int(head.split("-")[0], 16)
        elif head == "VmFlags:" and "mg" in line.split():
            mergeable_at.add(start)
    with open(f"/proc/{pid}/mem", "rb", 0) as memory, open(f"/proc/{pid}/pagemap", "rb", 0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            if first not in mergeable_at:
                continue
            pagemap.seek(first // PAGE * 8)
            entries = np.frombuffer(pagemap.read((last - first) // PAGE * 8), np.uint64)
            # bit 63: present; bit 61: of a file, or shared; KSM leaves those alone
            anonymous = (entries >> np.uint64(63) == 1) & (entries >> np.uint64(61) & np.uint64(1) == 0)
            for number in np.flatnonzero(anonymous):
                memory.seek(first + int(number) * PAGE)
                page = memory.read(PAGE)
                digest = int.from_bytes(hashlib.blake2b(page, digest_size=7).digest(), "little") or 1
                found.append(digest if any(page) else 0)
    return found


def counter(name: str) -> int:
    return int((KSM / name).read_text())


def test_the_policy_predicts_what_this_machines_ksm_does():
    programs = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=mergeable, env={"PYTHONHASHSEED": "0"},
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        for program in programs:
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        contents = [recorded(program.pid) for program in programs]
        with knobs():
            scans = counter("full_scans")
            (KSM / "run").write_text("1")
            deadline = time.monotonic() + 20
            while counter("full_scans") < scans + 4 and time.monotonic() < deadline:
                time.sleep(0.05)
            seen = {name: counter(name) for name in ("pages_shared", "pages_sharing", "full_scans")}
            assert seen["full_scans"] >= scans + 4, "KSM did not get on"
        again = [recorded(program.pid) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    # nobody ran meanwhile, so that what was recorded is what was merged
    assert [sorted(set(c)) for c in contents] == [sorted(set(c)) for c in again]
    memory = build(static_host([np.array(c, np.int64) for c in contents], horizon_ns=1000 * SECOND))
    layers = stack(("ksm", {"pages_to_scan": 1 << 20, "sleep_millisecs": 1, "smart_scan": False}))
    bind(memory, layers, interpreted=True)
    loop = Loop(memory, True)
    loop.boot()
    own = memory.slots[3].own["own"]
    while own["full_scans"][0] < 4:
        assert loop.run(1000) == 0
    rig.conserved(memory)
    predicted = {name: int(own[name][0]) for name in ("pages_shared", "pages_sharing")}
    assert sum(map(len, contents)) > 1000 and predicted["pages_sharing"] > 500
    for name, value in predicted.items():
        # a handful of pages may be held by something else when ksmd comes by
        assert seen[name] == pytest.approx(value, rel=0.01, abs=4), (seen, predicted)
