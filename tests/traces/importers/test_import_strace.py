"""strace: what calls say of computing, waits and who ends them, files, messages."""



from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from importing import FIXTURES, convert, counts, replay, shared
from test_import_schedlog import rows_of

from hvbench.errors import UserError
from hvbench.traces.format import OPS
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

#: By hand: 11 opens a file, reads and writes it, starts thread 12, waits for it on a futex; 12 sleeps and talks.
LOG = """\
11    100.000000 openat(AT_FDCWD, "/srv/a b, \\") = 1.dat", O_RDWR|O_CREAT, 0666) = 3 <0.000100>
11    100.000200 read(3, "x"..., 8192)       = 8192 <0.000050>
11    100.000300 pwrite64(3, "y"..., 10, 12286) = 10 <0.000300>
11    100.000700 fsync(3)                = 0 <0.002000>
11    100.002700 clone(child_stack=0x1, flags=CLONE_VM|CLONE_FILES|CLONE_THREAD) = 12 <0.000100>
12    100.002800 clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=0, tv_nsec=1000000}, NULL) = 0 <0.001000>
11    100.002900 futex(0x7f00, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>
12    100.004000 futex(0x7f00, FUTEX_WAKE_PRIVATE, 1) = 1 <0.000010>
11    100.004050 <... futex resumed>)        = 0 <0.001120>
12    100.004110 sendto(4<TCP:[10.0.0.1:80->10.0.0.2:999]>, "a", 100, 0, NULL, 0) = 100 <0.000010>
12    100.004120 recvfrom(4<TCP:[10.0.0.1:80->10.0.0.2:999]>, "b", 64, 0, NULL, NULL) = 30 <0.001000>
11    100.005000 read(9<pipe:[77]>, "", 1)    = 0 <0.003000>
12    100.005200 openat(AT_FDCWD, "/none", O_RDONLY) = -1 ENOENT (No such file or directory) <0.000020>
12    100.005300 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---
12    100.005400 +++ exited with 0 +++
11    100.008100 exit_group(0)           = ?
11    100.008200 +++ exited with 0 +++
"""


def test_a_log_worked_out_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG)
    assert load_formats().guess(path).name == "strace"
    report, trace = convert("strace", path, tmp_path / "x.parquet")
    c = trace.columns
    assert [t["process"] for t in trace.meta["threads"][:2]] == [0, 0], "a thread belongs to its parent's process"
    files = np.isin(c["op"], [OPS["fread"], OPS["fwrite"], OPS["fsync"]])
    assert list(zip(c["op"][files].tolist(), c["page"][files].tolist(), c["pages"][files].tolist(), strict=True)) == [
        (OPS["fread"], 0, 2),
        (OPS["fwrite"], 2, 2),  # bytes 12286 to 12295: pages 2 and 3
        (OPS["fsync"], 0, 0),
    ]
    assert trace.meta["objects"][0]["pages"] == 4
    main = rows_of(trace, 0)
    # user time between calls, kernel time of calls that are no waits; 300 us and 2 ms were the disk
    assert [row for row in main if row[0] in ("compute", "wait", "unknown")] == [
        ("compute", 0, 0, 100),
        ("compute", 100, 100, 50),
        ("compute", 250, 50, 0),
        ("compute", 600, 100, 0),
        ("compute", 2700, 0, 100),
        ("compute", 2800, 100, 0),
        ("wait", 2900),
        ("compute", 4020, 980, 0),
        ("unknown", 5000, 3000),
        ("compute", 8000, 100, 0),
        ("compute", 8100, 100, 0),
    ]
    assert ("sleep", 2800, 1000) in rows_of(trace, 1) and ("wake", 4000, 0) in rows_of(trace, 1)
    assert counts(trace)["send"] == counts(trace)["recv"] == 2
    assert trace.meta["waited_ns"] == {
        "timer": 1_000_000, "thread_edge": 1_120_000, "disk": 2_300_000, "network": 1_000_000, "unknown": 3_000_000
    }  # fmt: skip
    assert trace.meta["silent"] == ["memory"] and trace.meta["replay"] == "closed"
    assert int(trace.columns["syscalls"].sum()) == 13
    _, stopped = convert("strace", path, tmp_path / "y.parquet", stop_ns=40_000)
    assert int(c["user_ns"].sum() - stopped.columns["user_ns"].sum()) > 9 * 40_000
    assert any("strace's own stops" in note for note in report.notes)


def test_a_child_that_ends_is_what_its_parent_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(
        "[pid     5] 1.000000 vfork()  = 6 <0.000010>\n[pid     6] 1.000100 getpid() = 6 <0.000001>\n"
        "[pid     5] 1.000200 wait4(-1,  <unfinished ...>\n[pid     6] 1.000900 +++ exited with 0 +++\n"
        "[pid     5] 1.001000 <... wait4 resumed>[{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 6 <0.000810>\n"
    )
    _, trace = convert("strace", path, tmp_path / "x.parquet")
    assert ("wait", 200) in rows_of(trace, 0) and ("wake", 900, 0) in rows_of(trace, 1)
    assert [t["process"] for t in trace.meta["threads"]] == [0, 1]


def test_bad_lines_and_logs_without_durations(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(LOG.replace(" <0.000050>", ""))
    with pytest.raises(
        UserError, match=r"log\.txt:2: expected a duration <SECONDS> at the end \(strace -T\), found '11 "
    ):
        convert("strace", path, tmp_path / "x.parquet")
    path.write_text(LOG + "11    100.0083 gibberish\n")
    with pytest.raises(UserError, match=r"log\.txt:18: expected \[PID\] SECONDS\.USEC CALL\(ARGUMENTS\)"):
        convert("strace", path, tmp_path / "x.parquet")
    report, _ = convert("strace", path, tmp_path / "x.parquet", Settings(skip_bad=1))
    assert any("log.txt:18: left out" in note for note in report.notes)
    path.write_text(LOG + '11    100.009 read(3, "ab')
    report, _ = convert("strace", path, tmp_path / "x.parquet")
    assert any("incomplete" in note for note in report.notes)


def test_time_that_runs_backwards(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("7 100.0 getpid() = 7 <0.000010>\n7 50.0 getpid() = 7 <0.000010>\n7 50.1 getpid() = 7 <0.000010>\n")
    report, trace = convert("strace", path, tmp_path / "x.parquet")
    assert any("set back 1 times" in note for note in report.notes)
    assert trace.meta["span_ns"] == 100_010_000


def test_a_real_log_replays(tmp_path: Path, kernel: object) -> None:
    _, trace = convert("strace", FIXTURES / "sh.strace.gz", tmp_path / "x.parquet")
    assert counts(trace)["fread"] > 3 and counts(trace)["wake"] >= 1
    row = replay(trace, tmp_path)
    assert row["cpu_utilization"] > 0


@pytest.mark.parametrize("name", ["gcc.strace_f_ttt_T", "redis.strace_f_ttt_T_yy.head40k"])
def test_real_logs(name: str, tmp_path: Path) -> None:
    path = shared(f"recorded-linux/{name}.txt.gz")
    assert load_formats().guess(path).name == "strace"
    _, trace = convert("strace", path, tmp_path / "x.parquet")
    c = trace.columns
    inside = np.array([t["role"] == "guest" for t in trace.meta["threads"]])[c["thread"]]
    if name.startswith("gcc"):
        assert counts(trace)["fread"] > 1000 and counts(trace)["wait"] == 3, "gcc waited for three children"
        assert int((c["user_ns"] + c["kernel_ns"])[inside].sum()) <= 2 * trace.meta["span_ns"]
    else:
        assert len(trace.meta["flows"]) == 51, "50 clients of redis-benchmark, and its own"
        # 40,000 lines hold about 19,500 answers of 5 bytes, `+OK`, each to a request of 144 bytes
        sent = inside & (c["op"] == OPS["send"])
        got = inside & (c["op"] == OPS["recv"])
        assert set(np.unique(c["bytes"][sent]).tolist()) >= {5} and (c["bytes"][got] == 144).sum() > 15_000
