"""Record the bundled traces again: `python workloads/record.py NAME...` or `all`.

Every trace in `workloads/traces/` was made by this script, on a Debian 12 machine with two CPUs. It needs root
(for tracefs), hvbench importable, and the programs that each recipe names; it installs nothing and says
what is missing. The recordings are ours: CC0-1.0.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hvbench.errors import UserError
from hvbench.traces.check import require_valid
from hvbench.traces.format import make_trace, write_trace
from hvbench.traces.record.builder import Selection
from hvbench.traces.record.session import Options, record

HERE: Final = Path(__file__).resolve().parent
LICENCE: Final = "CC0-1.0"
ATTRIBUTION: Final = "the hvbench project"
BASE: Final = "base-idle"
POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")

#: name -> (what it needs, recipe); a recipe gets an empty folder and answers options for the recorder
RECIPES: dict[str, tuple[tuple[str, ...], Callable[[Path], dict[str, Any]]]] = {}


Recipe = Callable[[Path], dict[str, Any]]


def recipe(name: str, *needs: str) -> Callable[[Recipe], Recipe]:
    def register(function: Recipe) -> Recipe:
        RECIPES[name] = (needs, function)
        return function

    return register


def script(folder: Path, text: str) -> list[str]:
    """A shell script in the folder, as a command."""
    path = folder / "job.sh"
    path.write_text("set -e\ncd " + str(folder) + "\n" + text)
    return ["/bin/sh", str(path)]


def tiers(outside: str = "", **patterns: str) -> Selection:
    return Selection(
        [(name, re.compile(pattern)) for name, pattern in patterns.items()],
        [re.compile(outside)] if outside else [],
    )


# ---------------------------------------------------------------- CPU


@recipe("cc-build", "gcc", "make")
def cc_build(folder: Path) -> dict[str, Any]:
    """A clean parallel build of a small C project: 40 files, make -j3."""
    draw = random.Random(7)
    (folder / "all.h").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n"
        + "".join(f"int work{i}(int x);\n" for i in range(40))
    )
    for i in range(40):
        body = []
        for j in range(draw.randint(4, 22)):
            body.append(
                f"static int f{j}(int *a, int n) {{ int s = {draw.randint(1, 99)}; for (int i = 0; i < n; i++) "
                f"{{ a[i] = a[i] * {draw.randint(3, 99)} + (s ^ i); s += a[i] >> {draw.randint(1, 7)}; "
                f'if (s % {draw.randint(5, 50)} == 0) printf("%d\\n", s); }} return s; }}\n'
            )
        calls = " + ".join(f"f{j}(a, x % 64)" for j in range(len(body)))
        (folder / f"part{i}.c").write_text(
            '#include "all.h"\n' + "".join(body) + f"int work{i}(int x) {{ int a[64] = {{0}}; return {calls}; }}\n"
        )
    (folder / "main.c").write_text(
        '#include "all.h"\nint main(void) { return (' + " + ".join(f"work{i}({i})" for i in range(40)) + ") & 1; }\n"
    )
    objects = " ".join(f"part{i}.o" for i in range(40)) + " main.o"
    (folder / "Makefile").write_text(
        f"prog: {objects}\n\t$(CC) -o $@ $^ -lm\n%.o: %.c all.h\n\t$(CC) -O1 -c -o $@ $<\nclean:\n\trm -f *.o prog\n"
    )
    return {"command": script(folder, "make -s clean\nexec make -s -j3\n"), "runs": 2, "touch_resolution_ns": 5_000_000}


@recipe("zstd-compress", "zstd")
def zstd_compress(folder: Path) -> dict[str, Any]:
    """A batch of compressions: a process per file, two at a time, over files of an installed system."""
    sources = sorted(Path("/usr/lib").rglob("*.so*"), key=lambda path: str(path))
    chosen = [p for p in sources if p.is_file() and not p.is_symlink() and 1_500_000 < p.stat().st_size < 5_000_000]
    for number, path in enumerate(chosen[:24]):
        shutil.copyfile(path, folder / f"input{number}")
    return {
        "command": script(folder, "ls input* | xargs -P 2 -n 1 zstd -q -f -12 -T1\n"),
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


@recipe("idle-daemons", sys.executable)
def idle_daemons(folder: Path) -> dict[str, Any]:
    """An idle server: two daemons that wake up ten and four times a second and look at /proc; 3 s."""
    text = (
        "import threading, time\n"
        "def daemon(period, rounds):\n"
        "    for _ in range(rounds):\n"
        "        open('/proc/loadavg').read(); open('/proc/meminfo').read()\n"
        "        time.sleep(period)\n"
        "both = [threading.Thread(target=daemon, args=a) for a in ((0.1, 28), (0.25, 11))]\n"
        "[t.start() for t in both]\n"
        "[t.join() for t in both]\n"
    )
    (folder / "daemons.py").write_text(text)
    return {"command": [sys.executable, str(folder / "daemons.py")], "runs": 2, "touch_resolution_ns": 5_000_000}


# ---------------------------------------------------------------- servers


REDIS: Final = "redis-server --port 7801 --save '' --appendonly no --logfile /dev/null --daemonize no"


@recipe("redis-bench", "redis-server", "redis-benchmark", "redis-cli")
def redis_bench(folder: Path) -> dict[str, Any]:
    """Redis under redis-benchmark over loopback TCP: pipelines of 256 sets, and sorts of a list of 2000."""
    text = f"""
{REDIS} >/dev/null &
until redis-cli -p 7801 ping >/dev/null 2>&1; do sleep 0.1; done
redis-benchmark -p 7801 -q -n 2000 -r 1000000 rpush mylist element:__rand_int__ >/dev/null
redis-benchmark -p 7801 -q -n 20000 -r 20000 -d 64 -t set >/dev/null
redis-benchmark -p 7801 -q -c 2 -n 100000000 -P 256 -r 20000 -d 64 -t set >/dev/null &
exec redis-benchmark -p 7801 -q -c 1 -n 100000000 sort mylist alpha limit 0 20 >/dev/null
"""
    return {
        "command": script(folder, text),
        "selection": tiers("^redis-benchmark", cache="^redis-server"),
        "delay_s": 2.5,
        "max_seconds": 1.5,
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


@recipe("postgres-pgbench", str(POSTGRES / "postgres"), "pgbench", "runuser")
def postgres_pgbench(folder: Path) -> dict[str, Any]:
    """PostgreSQL 15 under pgbench (TPC-B-like, scale 5, 6 clients, 300 transactions/s), with fsync."""
    data = folder / "data"
    shutil.chown(folder, "postgres")
    text = f"""
as() {{ runuser -u postgres -- "$@"; }}
rm -rf {data} {folder}/log
as {POSTGRES}/initdb -D {data} -A trust --no-sync >/dev/null
cat >> {data}/postgresql.conf <<END
port = 7802
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
shared_buffers = 32MB
logging_collector = off
END
as {POSTGRES}/postgres -D {data} 2>{folder}/log &
until as {POSTGRES}/pg_isready -q -h 127.0.0.1 -p 7802; do sleep 0.1; done
as createdb -h 127.0.0.1 -p 7802 bench
as pgbench -q -i -s 5 -h 127.0.0.1 -p 7802 bench 2>/dev/null
exec runuser -u postgres -- pgbench -n -c 6 -j 1 -T 600 -R 300 -h 127.0.0.1 -p 7802 bench >/dev/null
"""
    return {
        "command": script(folder, text),
        "selection": tiers("^pgbench", database=r"^postgres\b"),
        "delay_s": 9.0,
        "max_seconds": 1.5,
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


NGINX: Final = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
user root;
events {{ worker_connections 128; }}
http {{
  access_log {folder}/access.log; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:7803; root {folder}/www; gzip on; gzip_min_length 500; gzip_types text/plain; }}
}}
"""

WRK_FILES: Final = """
local drawn = 7
function request()
  drawn = (drawn * 1103515245 + 12345) % 2147483648
  local kind = math.floor(drawn / 65536) % {kinds}
  return wrk.format("GET", "{path}" .. kind .. "{ending}", {headers})
end
function delay()
  drawn = (drawn * 1103515245 + 12345) % 2147483648
  return 1 + math.floor(drawn / 65536) % {think_ms}
end
"""


@recipe("nginx-wrk", "nginx", "wrk")
def nginx_wrk(folder: Path) -> dict[str, Any]:
    """nginx serving files of 1 to 100 KB, text compressed on the way, to 16 clients of wrk with think times."""
    draw = random.Random(5)
    www = folder / "www"
    www.mkdir()
    words = ["guest", "page", "balloon", "frame", "credit", "switch", "request", "uplink", "vcpu", "disk"]
    for i in range(60):
        size = int(1000 * 100 ** draw.random())
        text = " ".join(draw.choice(words) + str(draw.randint(0, 999)) for _ in range(size // 8))
        (www / f"page{i}.txt").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    lua = WRK_FILES.format(kinds=60, path="/page", ending=".txt", headers='{["Accept-Encoding"]="gzip"}', think_ms=8)
    (folder / "files.lua").write_text(lua)
    text = """
nginx -c $PWD/nginx.conf &
sleep 1
exec wrk -t 1 -c 16 -d 600 -s files.lua http://127.0.0.1:7803/ >/dev/null
"""
    return {
        "command": script(folder, text),
        "selection": tiers("^wrk", web="^nginx"),
        "delay_s": 2.5,
        "max_seconds": 1.5,
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


WEBAPP: Final = '''
"""A small threaded web application: each page is put together from a few values of a cache."""
import hashlib, socket, socketserver, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

local = threading.local()


def cache(*words):
    """One command to the cache, on this thread's own connection."""
    if not hasattr(local, "file"):
        local.socket = socket.create_connection(("127.0.0.1", 7801))
        local.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local.file = local.socket.makefile("rb")
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    local.socket.sendall(b"*%d\\r\\n" % len(encoded) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in encoded))
    line = local.file.readline()
    if line[:1] == b"$" and int(line[1:]) >= 0:
        return local.file.read(int(line[1:]) + 2)[:-2]
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *args):
        pass

    def do_GET(self):
        number = int(self.path.rpartition("/")[2] or 0)
        parts = []
        for i in range(3):
            key = "part:%d" % ((number * 7 + i * 13) % 400)
            value = cache("GET", key)
            if value is None:
                value = hashlib.sha256(key.encode()).hexdigest().encode() * 20
                cache("SET", key, value)
            parts.append(value)
        cache("INCR", "hits:%d" % number)
        body = b"".join(b"<p>%s</p>\\n" % part for part in parts)
        body += hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", 7804), Handler).serve_forever()
'''


@recipe("web-cache", "redis-server", "redis-cli", "wrk")
def web_cache(folder: Path) -> dict[str, Any]:
    """A threaded Python web application that asks a Redis cache four times a page; 8 clients of wrk."""
    (folder / "webapp.py").write_text(WEBAPP)
    lua = WRK_FILES.format(kinds=200, path="/page/", ending="", headers="{}", think_ms=25)
    (folder / "pages.lua").write_text(lua)
    text = f"""
{REDIS} >/dev/null &
until redis-cli -p 7801 ping >/dev/null 2>&1; do sleep 0.1; done
{sys.executable} webapp.py &
sleep 1
exec wrk -t 1 -c 8 -d 600 -s pages.lua http://127.0.0.1:7804/ >/dev/null
"""
    return {
        "command": script(folder, text),
        "selection": tiers("^wrk", web=r"^webapp\.py", cache="^redis-server"),
        "delay_s": 4.0,
        "max_seconds": 1.5,
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


# ---------------------------------------------------------------- files


@recipe("dbench", "dbench", "/usr/share/dbench/client.txt")
def dbench(folder: Path) -> dict[str, Any]:
    """dbench, the load of a file server: 3 clients, fsync after writes, at a limited rate."""
    text = f"exec dbench -D {folder} -c /usr/share/dbench/client.txt -F -R 60 -t 60 3 >/dev/null\n"
    return {
        "command": script(folder, text),
        "delay_s": 3.0,
        "max_seconds": 1.5,
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


# ---------------------------------------------------------------- memory


MEMDB_LOAD: Final = '''
"""Fills a Redis, then has it read and write in bursts: a skewed choice of keys, phases of rest."""
import os, random, socket, time

draw = random.Random()  # each run has data of its own
run_id = os.urandom(4).hex()
link = socket.create_connection(("127.0.0.1", 7801))
answers = link.makefile("rb", 1 << 16)
KEYS = 48000
FILL = """
for k = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  redis.call("SET", "key:" .. k, string.rep(ARGV[1] .. string.format("%010d", k), 20 + k * 7919 % 130))
end
"""
USE = """
math.randomseed(tonumber(ARGV[2]))
local found = 0
for i = 1, tonumber(ARGV[4]) do
  local k = (tonumber(ARGV[3]) + math.floor(40 * (1 - math.random()) ^ -1.6)) % tonumber(ARGV[5])
  if math.random() < 0.03 then
    redis.call("SETRANGE", "key:" .. k, 18 * (i % 20), ARGV[1] .. i)
  else
    found = found + #redis.call("GETRANGE", "key:" .. k, 0, 60)
  end
end
return found
"""


def run(script, *words):
    command = [b"EVAL", script.encode(), b"0", run_id.encode(), *(b"%d" % word for word in words)]
    link.sendall(b"*%d\\r\\n" % len(command) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in command))
    answers.readline()


for start in range(0, KEYS, 4000):
    run(FILL, start, start + 3999)
    time.sleep(0.15)
begin = time.monotonic()
while True:
    phase = int(time.monotonic() - begin) // 12 % 3
    if phase == 2:
        time.sleep(1.0)
        continue
    run(USE, draw.randrange(1 << 30), draw.randint(0, 3) * KEYS // 8 if phase else 0, 25000, KEYS)
    time.sleep(draw.expovariate(4))
'''


@recipe("memdb", "redis-server", "redis-cli")
def memdb(folder: Path) -> dict[str, Any]:
    """A Redis of 80 MB that is filled, then used in bursts with a few hot ranges and phases of rest; 75 s."""
    (folder / "memload.py").write_text(MEMDB_LOAD)
    text = f"""
{REDIS} >/dev/null &
until redis-cli -p 7801 ping >/dev/null 2>&1; do sleep 0.1; done
exec {sys.executable} memload.py
"""
    return {
        "command": script(folder, text),
        "selection": tiers(r"^memload\.py", cache="^redis-server"),
        "delay_s": 0.4,
        "max_seconds": 75.0,
        "runs": 2,
        "snapshot_s": 7.5,
        "touch_resolution_ns": 50_000_000,
    }


MEMJOB: Final = '''
"""A batch job with NumPy: rounds that load a file, build large arrays, work on parts of them and rest."""
import ctypes, sys, time
import numpy as np

mark = ctypes.CDLL(None).prctl
draw = np.random.default_rng()  # each run has data of its own
keep = draw.standard_normal((16, 1 << 16))  # 8 MiB that stay
for round in range(1000):
    mark(0x68766D62, 1, 0, 0, 0)
    data = np.fromfile("input.bin", dtype=np.uint32)  # 24 MiB through the page cache
    size = int(draw.integers(2, 9)) << 20
    table = np.zeros(size)  # 16 to 64 MiB, touched as they are used
    for part in range(8):
        piece = slice(part * size // 8, (part + 1) * size // 8)
        table[piece] = np.sqrt(np.resize(data, size // 8)) + part
        table[piece] *= draw.random()
    order = np.sort(table[:: int(draw.integers(2, 6))])
    keep[round % 16] = order[: 1 << 16]
    table[: size // 3].cumsum(out=table[: size // 3])
    if round % 4 == 3:
        keep.tofile("output.bin")
    del data, order
    mark(0x68766D62, 2, 0, 0, 0)
    time.sleep(float(draw.exponential(0.7)))
    del table
'''


@recipe("memjob", sys.executable)
def memjob(folder: Path) -> dict[str, Any]:
    """A NumPy batch job in rounds: reads 24 MiB, works in 16 to 64 MiB, rests; 75 s."""
    (folder / "memjob.py").write_text(MEMJOB)
    (folder / "input.bin").write_bytes(random.Random(2).randbytes(24 << 20))
    text = f"export OPENBLAS_NUM_THREADS=1\nexec {sys.executable} memjob.py\n"
    return {
        "command": script(folder, text),
        "max_seconds": 75.0,
        "runs": 2,
        "snapshot_s": 7.5,
        "touch_resolution_ns": 20_000_000,
    }


# ---------------------------------------------------------------- running them


def missing(needs: tuple[str, ...]) -> list[str]:
    folders = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in needs if not (shutil.which(name, path=folders) or Path(name).exists())]


def record_base_idle(target: Path) -> None:
    """The memory of a Debian-like guest of 128 MiB that is idle after boot."""
    from base_image import base_image

    described = " ".join((record_base_idle.__doc__ or "").split())
    lacking = missing(("qemu-system-x86_64", "busybox", "dpkg"))
    if lacking:
        raise UserError(f"{BASE}: not installed: {', '.join(lacking)}")
    print(f"== {BASE}: {described}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hvbench-base-", dir="/var/tmp") as folder:
        meta, columns = base_image(Path(folder), BASE, described)
    trace = make_trace({**meta, "licence": LICENCE, "attribution": ATTRIBUTION}, columns)
    require_valid(trace)
    write_trace(target / f"{BASE}.parquet", trace.meta, trace.columns)
    print(f"{target / BASE}.parquet: {len(trace)} pages")


def run(name: str, target: Path) -> None:
    if name == BASE:
        record_base_idle(target)
        return
    needs, function = RECIPES[name]
    lacking = missing(needs)
    if lacking:
        raise UserError(f"{name}: not installed: {', '.join(lacking)} (Debian packages of these names or near)")
    if os.geteuid() != 0:
        raise UserError(f"{name}: recording for the bundle needs root (tracefs)")
    with tempfile.TemporaryDirectory(prefix=f"hvbench-{name}-", dir="/var/tmp") as text:
        folder = Path(text)
        folder.chmod(0o755)
        made = function(folder)
        described = " ".join((function.__doc__ or "").split())
        options = Options(name=name, described=described, licence=LICENCE, attribution=ATTRIBUTION, **made)
        print(f"== {name}: {described}", flush=True)
        record(options, target / f"{name}.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="traces to record, or `all`: " + ", ".join([*RECIPES, BASE]))
    parser.add_argument("--to", type=Path, default=HERE / "traces", help="folder (default: workloads/traces)")
    given = parser.parse_args()
    names = [*RECIPES, BASE] if given.names == ["all"] else given.names
    failed = 0
    given.to.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in RECIPES and name != BASE:
            print(f"no such trace: {name}; there are: {', '.join([*RECIPES, BASE])}", file=sys.stderr)
            failed += 1
            continue
        try:
            run(name, given.to)
        except UserError as error:
            print(str(error), file=sys.stderr)
            failed += 1
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
