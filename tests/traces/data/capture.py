"""Makes the raw captures of this folder again (needs root): python tests/traces/data/capture.py

build.txt.gz     a shell that compiles a file, with a pipe, a sleep and a background job
messages.txt.gz  a server and a client that exchange messages over loopback TCP, 30 requests on 2 connections
"""

from __future__ import annotations

import gzip
import os
import signal
import sys
import tempfile
from pathlib import Path

from hvbench.traces.record.session import start_stopped
from hvbench.traces.record.tracefs import Session, find_tracefs

HERE = Path(__file__).resolve().parent

BUILD = """
cd {folder}
echo 'int f(int x) {{ return x * 3; }}' > a.c
gcc -O1 -pipe -c a.c -o a.o
sleep 0.05 &
cat a.c a.c | wc -c > size
sync size
wait
"""

SERVER = """
import socket, threading, sys
listener = socket.create_server(("127.0.0.1", 7811))
open("ready", "w").close()
def serve(link):
    while True:
        data = link.recv(4096)
        if not data:
            return
        link.sendall(data * 40)
threads = []
for _ in range(2):
    link, _ = listener.accept()
    threads.append(threading.Thread(target=serve, args=(link,)))
    threads[-1].start()
for thread in threads:
    thread.join()
"""

CLIENT = """
import os, socket, time
while not os.path.exists("ready"):
    time.sleep(0.01)
links = [socket.create_connection(("127.0.0.1", 7811)) for _ in range(2)]
for i in range(30):
    link = links[i % 2]
    link.sendall(b"x" * 100)
    left = 4000
    while left:
        left -= len(link.recv(left))
    time.sleep(0.001)
"""


def capture(name: str, command: list[str], without: tuple[str, ...] = ()) -> None:
    root, why = find_tracefs()
    if root is None:
        sys.exit(why)
    with Session(root, 32 * 1024) as session:
        child = start_stopped(command)
        session.follow(child.pid)
        session.start()
        os.kill(child.pid, signal.SIGCONT)
        child.wait()
        session.stop()
        with gzip.GzipFile(HERE / f"{name}.txt.gz", "wb", 9, mtime=0) as file:
            for line in session.lines():
                if any(part in line for part in without):
                    continue
                file.write(line.encode("utf-8", "surrogateescape"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        capture("build", ["sh", "-c", BUILD.format(folder=folder)])
        Path(folder, "srv.py").write_text(SERVER)
        Path(folder, "cli.py").write_text(CLIENT)
        python = f"exec {os.path.realpath(sys.executable)} -I -S"
        # Starting an interpreter is thousands of events that the test of messages does not need.
        job = f"cd {folder}; ({python} srv.py) & ({python} cli.py); wait"
        capture("messages", ["dash", "-c", job], without=("page_fault_", "mm_filemap_", "NR 257", "NR 262", "NR 8 "))


if __name__ == "__main__":
    main()
