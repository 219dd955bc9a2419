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
from hvbench.traces.record.builder import Selection
from hvbench.traces.record.session import Options, record

HERE: Final = Path(__file__).resolve().parent
LICENCE: Final = "CC0-1.0"
ATTRIBUTION: Final = "the hvbench project"
POSTGRES: Final = Path("/usr/lib/postgresql/15/bin")

#: name -> (what it needs, recipe); a recipe gets an empty folder and answers options for the recorder
RECIPES: dict[str, tuple[tuple[str, ...], Callable[[Path], dict[str, Any]]]] = {}


def recipe(name: str, *needs: str) -> Callable[[Callable[[Path], dict[str, Any]]], Callable[[Path], dict[str, Any]]]:
    def register(function: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
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
    chosen = [p for p in sources if p.is_file() and not p.is_symlink() and 1_000_000 < p.stat().st_size < 4_000_000]
    for number, path in enumerate(chosen[:16]):
        shutil.copyfile(path, folder / f"input{number}")
    return {
        "command": script(folder, "ls input* | xargs -P 2 -n 1 zstd -q -f -9 -T1\n"),
        "runs": 2,
        "touch_resolution_ns": 5_000_000,
    }


# ---------------------------------------------------------------- servers


REDIS: Final = "redis-server --port 7801 --save '' --appendonly no --logfile /dev/null --daemonize no"


@recipe("redis-bench", "redis-server", "redis-benchmark", "redis-cli")
def redis_bench(folder: Path) -> dict[str, Any]:
    """Redis under redis-benchmark over loopback TCP: pipelines of 128 sets, and sorts of a list of 2000."""
    text = f"""
{REDIS} >/dev/null &
until redis-cli -p 7801 ping >/dev/null 2>&1; do sleep 0.1; done
redis-benchmark -p 7801 -q -n 2000 -r 1000000 rpush mylist element:__rand_int__ >/dev/null
redis-benchmark -p 7801 -q -n 20000 -r 20000 -d 64 -t set >/dev/null
redis-benchmark -p 7801 -q -c 3 -n 100000000 -P 128 -r 20000 -d 64 -t set >/dev/null &
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


# ---------------------------------------------------------------- running them


def missing(needs: tuple[str, ...]) -> list[str]:
    folders = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in needs if not (shutil.which(name, path=folders) or Path(name).exists())]


def run(name: str, target: Path) -> None:
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
    parser.add_argument("names", nargs="+", help="traces to record, or `all`: " + ", ".join(RECIPES))
    parser.add_argument("--to", type=Path, default=HERE / "traces", help="folder (default: workloads/traces)")
    given = parser.parse_args()
    names = list(RECIPES) if given.names == ["all"] else given.names
    failed = 0
    given.to.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in RECIPES:
            print(f"no such trace: {name}; there are: {', '.join(RECIPES)}", file=sys.stderr)
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
