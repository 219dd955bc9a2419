"""What importing, and looking at what it made, says: of wrong files, of silent axes, of windows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from importing import FIXTURES

from hvbench.cli import execute


@pytest.fixture
def demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    output = tmp_path / "vm.demand.parquet"
    assert execute(["import", str(FIXTURES / "vm.csv"), "-o", str(output)]) == 0
    capsys.readouterr()
    return output


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command line that has to fail says."""
    try:
        code = execute([str(word) for word in words])
    except SystemExit as end:  # of a command on several files
        code = int(str(end.code))
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("hvbench: ") and error.count("\n") == 1
    return error


def test_parquet_that_is_no_demand_table(demand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign, cut, trace = (tmp_path / f"{name}.parquet" for name in ("foreign", "cut", "trace"))
    pq.write_table(pa.table({"when": [1], "what": [2]}), foreign)
    cut.write_bytes(demand.read_bytes()[:-100])
    assert execute(["import", str(demand), "--expand", "--to", "20min", "-o", str(trace)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, said in (
        (foreign, "Parquet of another program (columns when, what), no demand table; `hvbench import FORMAT FILE"),
        (cut, "truncated: the file ends after "),
        (trace, f"a trace already, which needs no import; `hvbench trace info {trace}` describes it"),
    ):
        error = refused(capsys, "import", "demand", path, "-o", tmp_path / "x.parquet")
        assert f"{path}: {said}" in error and f"-o {path}" not in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_demand_table_where_a_trace_is_wanted(
    demand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"{demand}: a demand table of 1 VM, no trace; `hvbench import demand {demand} --expand -o vm.trace.parquet`"
    assert said in refused(capsys, "trace", "check", demand)
    assert said in refused(capsys, "trace", "cut", demand, "-o", tmp_path / "x.parquet")
    assert said in refused(capsys, "workload", "new", "w", "--vm", demand, "-o", tmp_path / "w.toml")
    workload = tmp_path / "w.toml"
    workload.write_text(
        'format = 1\n[workload]\nname = "w"\nsummary = "s"\n'
        'class = "micro"\nhorizon = "1s"\nwarmup = "100ms"\n[host]\npcpus = 1\nmemory = "1GiB"\n'
        f'[[vm]]\nname = "a"\nvcpus = 1\nmemory = "256MiB"\ntrace = "{demand}"\n'
    )
    execute(["run", str(workload), "--db", str(tmp_path / "w.db")])
    shown = capsys.readouterr()
    assert "a demand table of 1 VM, no trace" in shown.err + shown.out
    assert execute(["trace", "info", str(demand)]) == 0
    shown = capsys.readouterr()
    assert said in shown.out and "cores of a VM in the mean" in shown.out
    assert execute(["trace", "info", "--json", str(demand)]) == 0
    assert json.loads(capsys.readouterr().out)["vms"] == 1


def test_why_an_axis_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, table, trace = tmp_path / "job", tmp_path / "t.demand.parquet", tmp_path / "t.parquet"
    source.write_text("10 20\n30 40\n20 20\n")
    assert execute(["import", "gcd", str(source), "-o", str(table)]) == 0
    out = capsys.readouterr().out
    assert "silent        memory: --memory SIZE says what 100 % of it are\n" in out
    assert "silent        storage, network: the source says nothing about them\n" in out
    assert "3 intervals of 1 VM," in out
    assert execute(["import", "demand", str(table), "--expand", "--axes", "cpu,storage", "-o", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "silent        memory, network: left out by --axes\n" in out
    assert "silent        storage: the source says nothing about it\n" in out
    source = FIXTURES / "vm.csv"
    assert execute(["import", str(source), "--expand", "--to", "20min", "-o", str(trace)]) == 0
    assert "silent        network: the donor cc-build has no messages to borrow" in capsys.readouterr().out


def test_windows(demand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "x.parquet"
    for source in (FIXTURES / "vm.csv", demand):
        error = refused(capsys, "import", source, "--expand", "--from", "30h", "--to", "29h", "-o", output)
        assert "--from 108000s to 104400s: is no window of time; --from has to lie before" in error
    error = refused(capsys, "import", FIXTURES / "vm.csv", "--expand", "--from", "9000h", "-o", output)
    assert "vm.csv: nothing to expand" in error and "demand.parquet" not in error
    trace = tmp_path / "t.parquet"
    assert execute(["import", str(FIXTURES / "vm.csv"), "--expand", "--to", "20min", "-o", str(trace)]) == 0
    capsys.readouterr()
    error = refused(capsys, "trace", "cut", trace, "--from", "1205.024015s", "--to", "5s", "-o", output)
    assert "--from 1205s to 5s is no part of a trace of 1200s" in error


def test_info_of_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, trace = tmp_path / "b.csv", tmp_path / "b.parquet"
    log.write_text("0,r,0,4096\n7200090000,w,4096,4096\n")
    words = ["--columns", "time,op,offset,size", "--time-unit", "us"]
    assert execute(["import", "block", str(log), *words, "-o", str(trace)]) == 0
    capsys.readouterr()
    assert execute(["trace", "info", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "steal" not in out and "events lost" not in out and " on ?" not in out and "recorded " not in out
    assert "span          7200.09 s" in out and "  replay        open loop\n" in out
    assert "  silent        cpu, memory, network\n" in out and "vCPUs" not in out


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "x.dat: is empty"),
        (b"PERFILE2" + bytes(64), "perf's binary data: write it as text, `perf script"),
        (b"\x17\x08Dtracing6" + bytes(64), "`trace-cmd report FILE > x.txt`"),
        (b"\x96\xd5\x75\x21" + bytes(64), "`sadf -j FILE -- -A > x.json`"),
        (b"\xc1\x1f\xfc\xc1" + bytes(64), "`babeltrace2 FOLDER > x.txt`"),
        (b"1,R,2,x\n2,W,3,y\n", "`hvbench import block FILE --columns time,op,offset,size"),
        (b"words of a letter\n", "no format recognises it; name one"),
    ],
)
def test_files_that_nobody_recognises(
    data: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(data)
    assert said in refused(capsys, "import", path, "-o", tmp_path / "x.parquet")


def test_new_workloads_that_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "w.toml"
    for words, said in (
        (("--host", "memory=1MiB", "--vm", "cc-build"), "host.memory: 1MiB is less than VM cc-build alone has, 256MiB"),
        (("--vm", "cc-build:memory=99999TiB"), "is more than can be simulated; legal: up to 16384GiB"),
        (("--host", "memory=99999TiB", "--vm", "cc-build"), "memory of host: "),
        (("--vm", "cc-build:count=0"), "--vm cc-build:count=0: count is 0; legal: 1 and more"),
    ):
        assert said in refused(capsys, "workload", "new", "w", *words, "-o", output)
        assert not output.exists()
    words = ["--host", "memory=512MiB", "--vm", "cc-build:count=3", "-o", str(output)]
    assert execute(["workload", "new", "w", *words]) == 0
    out = capsys.readouterr().out
    assert "3 VMs of 6 vCPUs" in out and "note          the VMs have 768MiB, 1." in out


def test_a_vmtable_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vmtable.csv"
    path.write_text(f"{'a' * 24},s,d,0,300,9,5,8,Unknown,2,4\n")
    error = refused(capsys, "import", "azure", path, "-o", tmp_path / "x.parquet")
    assert f"{path}: a vmtable alone has no demand; name the readings after it" in error


def test_the_list_of_formats_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["import", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Formats: " in out and max(map(len, out.splitlines())) <= 80
