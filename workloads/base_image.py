"""The base image: the memory of a small Debian-like guest, idle after boot, page by page.

A guest of 128 MiB is booted twice under QEMU (binary translation, so it runs anywhere) with Debian's cloud
kernel and an initial file system of busybox and the libraries and programs that most programs of this system
use, at their real paths; it reads them, starts a few shells and then rests. Its memory is a file of the host,
hashed once the guest is idle. Frames that hold a page of one of those files belong to that file (objects of
kind "image", so a trace that maps the same file finds it cached); all others are object 0, "kernel". A content
is common if both boots had it. Frames that the guest never touched, or that are free (its own
/proc/kpageflags says which), have no row.
"""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from hvbench.errors import UserError
from hvbench.traces.format import (
    FLAG_COMMON,
    FORMAT_VERSION,
    OPS,
    PAGE_SIZE,
    SALT,
    ZERO_PAGE,
    name_hash,
    page_identity,
)
from hvbench.traces.record import procfs

GUEST_BYTES: Final = 128 << 20
KPF_BUDDY: Final = 10  # free, in the buddy allocator: include/uapi/linux/kernel-page-flags.h
FILES: Final = (
    "/bin/busybox",
    "/usr/bin/dash",
    "/usr/bin/bash",
    "/usr/bin/sleep",
    "/usr/bin/cat",
    "/usr/bin/ls",
    "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libm.so.6",
    "/usr/lib/x86_64-linux-gnu/libtinfo.so.6.4",
    "/usr/lib/x86_64-linux-gnu/libselinux.so.1",
    "/usr/lib/x86_64-linux-gnu/libpcre2-8.so.0.11.2",
    "/usr/lib/x86_64-linux-gnu/libz.so.1.2.13",
    "/usr/lib/x86_64-linux-gnu/libzstd.so.1.5.4",
    "/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libssl.so.3",
    "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
)
LINKS: Final = {"/lib": "usr/lib", "/lib64": "usr/lib/x86_64-linux-gnu"}
INIT: Final = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox cat {files} > /dev/null
for i in 1 2 3; do
  /usr/bin/dash -c 'x=0; while [ $x -lt 2000 ]; do x=$((x+1)); done; while :; do /usr/bin/sleep 3; done' &
done
/usr/bin/bash -c 'a=(); for i in $(/bin/busybox seq 4000); do a+=($i); done; while :; do /usr/bin/sleep 5; done' &
/bin/busybox sleep 12
/bin/busybox stty -F /dev/ttyS1 raw
/bin/busybox cat /proc/kpageflags > /dev/ttyS1
echo GUEST-IDLE > /dev/console
while :; do /bin/busybox sleep 60; done
"""


def find_kernel(folder: Path) -> Path:
    """A Debian cloud kernel: installed, or in a package that apt has downloaded."""
    for path in sorted(Path("/boot").glob("vmlinuz-*cloud*")):
        return path
    for package in sorted(Path("/var/cache/apt/archives").glob("linux-image-[0-9]*cloud*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "kernel")], check=True)
        return next((folder / "kernel" / "boot").glob("vmlinuz-*"))
    raise UserError(
        "base-idle: no Debian cloud kernel: apt-get install --download-only linux-image-cloud-amd64 is enough"
    )


def archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive ("newc") of (path, mode, data)."""
    out = bytearray()
    for number, (path, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        name = path.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08x" % value for value in fields) + name
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initial_files() -> dict[str, bytes]:
    """Path -> data of the files that the guest gets, as far as they are here."""
    found = {}
    for path in FILES:
        real = Path(shutil.which("busybox") or path) if path == "/bin/busybox" else Path(path)
        if real.exists():
            found[path] = real.read_bytes()
    return found


def boot(folder: Path, number: int, kernel: Path, files: dict[str, bytes]) -> tuple[dict[int, bytes], int]:
    """Boot, wait until idle; answers the frames in use (number -> page) and how many free ones had been used."""
    entries: list[tuple[str, int, bytes]] = []
    folders = {"/proc", "/dev", "/tmp"}
    for path in files:
        folders.update(str(parent) for parent in Path(path).parents if str(parent) != "/")
    entries += [(path.strip("/"), 0o040755, b"") for path in sorted(folders)]
    entries += [(path.strip("/"), 0o120777, target.encode()) for path, target in LINKS.items()]
    entries += [(path.strip("/"), 0o100755, data) for path, data in files.items()]
    entries.append(("init", 0o100755, INIT.format(files=" ".join(files)).encode()))
    initrd = folder / "initrd.gz"
    initrd.write_bytes(gzip.compress(archive(entries), 1))
    flags = folder / f"kpageflags{number}"
    memory, console = Path(f"/dev/shm/hvbench-base-{os.getpid()}"), folder / f"console{number}"
    guest = subprocess.Popen(
        shlex.split(
            f"qemu-system-x86_64 -accel tcg -m {GUEST_BYTES >> 20} -smp 1 -nodefaults -nographic -no-reboot "
            f"-serial file:{console} -serial file:{flags} -kernel {kernel} -initrd {initrd} "
            "-append 'console=ttyS0 panic=-1 quiet' -machine pc,memory-backend=m0 "
            f"-object memory-backend-file,id=m0,size={GUEST_BYTES},mem-path={memory},share=on"
        ),
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while "GUEST-IDLE" not in procfs.read_text(console):
            if guest.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"base-idle: the guest did not come up: {procfs.read_text(console)[-300:]!r}")
            time.sleep(0.5)
        guest.send_signal(signal.SIGSTOP)
        frames = {}
        with memory.open("rb") as file:
            at = 0
            while at < GUEST_BYTES:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                for page in range(at // PAGE_SIZE, end // PAGE_SIZE):
                    frames[page] = os.pread(file.fileno(), PAGE_SIZE, page * PAGE_SIZE)
                at = end
        words = np.frombuffer(flags.read_bytes()[: GUEST_BYTES // PAGE_SIZE * 8], dtype=np.uint64)
        if len(words) < GUEST_BYTES // PAGE_SIZE * 9 // 10:
            raise UserError(f"base-idle: the guest said only which {len(words)} frames are free")
        free = set(np.flatnonzero(words & np.uint64(1 << KPF_BUDDY)).tolist())
        return {frame: page for frame, page in frames.items() if frame not in free}, len(free & frames.keys())
    finally:
        guest.kill()
        guest.wait()
        memory.unlink(missing_ok=True)


def base_image(folder: Path, name: str, described: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and columns of the base image."""
    kernel = find_kernel(folder)
    files = initial_files()
    first, _ = boot(folder, 1, kernel, files)
    second, stale = boot(folder, 2, kernel, files)
    common = {page_identity(page) for page in first.values()}
    owners: dict[int, tuple[str, int]] = {}
    for path, data in files.items():
        for page in range(-(-len(data) // PAGE_SIZE)):
            piece = data[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
            identity = page_identity(piece.ljust(PAGE_SIZE, b"\0"))
            if identity != ZERO_PAGE:
                owners.setdefault(identity, (path, page))
    objects: list[dict[str, Any]] = [
        {"kind": "anon", "pages": GUEST_BYTES // PAGE_SIZE, "process": 0, "name": "kernel"}
    ]
    index: dict[str, int] = {}
    rows: list[tuple[int, int, int, int]] = []
    taken: set[tuple[str, int]] = set()
    for frame, page in sorted(second.items()):
        identity = page_identity(page)
        owner = owners.get(identity)
        if owner is not None and owner not in taken:
            taken.add(owner)
            path, number = owner
            if path not in index:
                index[path] = len(objects)
                pages = -(-len(files[path]) // PAGE_SIZE)
                objects.append({"kind": "image", "pages": pages, "process": -1, "name_hash": name_hash(path)})
            rows.append((index[path], number, identity, FLAG_COMMON))
        else:
            flags = FLAG_COMMON if identity in common or identity == ZERO_PAGE else 0
            rows.append((0, frame, identity, flags))
    rows.sort()
    columns = {
        "thread": np.zeros(len(rows), np.int32),
        "op": np.full(len(rows), OPS["content"], np.int8),
        "object": np.array([row[0] for row in rows], np.int32),
        "page": np.array([row[1] for row in rows], np.int64),
        "pages": np.ones(len(rows), np.int32),
        "content": np.array([row[2] for row in rows], np.uint64),
        "flags": np.array([row[3] for row in rows], np.int32),
    }
    meta = {
        "format": FORMAT_VERSION,
        "kind": "base_image",
        "name": name,
        "command": described,
        "recorded_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "recorder": {"version": "1", "mode": "guest memory", "runs": 2, "guest_kernel": kernel.name},
        "machine": {**procfs.machine(), "where": "tcg"},
        "clock": "none",
        "page_size": PAGE_SIZE,
        "touch_resolution_ns": 0,
        "touch_method": "every frame that the guest had in use when it was idle",
        "stale_free_pages": stale,  # free in the guest, but once used: a real host still backs them
        "salt": SALT.hex(),
        "seed": 0,
        "span_ns": 0,
        "memory_pages": GUEST_BYTES // PAGE_SIZE,
        "threads": [{"id": 0, "process": 0, "tier": "guest", "role": "guest", "name": "kernel"}],
        "tiers": ["guest"],
        "objects": objects,
        "flows": [],
        "wait_shares": {},
        "steal_ns": 0,
        "lost_events": 0,
        "degraded": [],
        "privacy": "identities of pages only",
    }
    return meta, columns
