"""Averages from elsewhere: Azure, PlanetLab, GCD, Google, sadf, Prometheus; each as a demand table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pytest
from importing import FIXTURES, counts, replay, shared
from test_import_demand import table

from hvbench.errors import UserError
from hvbench.traces.check import check_trace
from hvbench.traces.demand import Demand
from hvbench.traces.expand import Choice, expand_file
from hvbench.traces.format import read_trace
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

S = 10**9
FIVE = 300 * S
GIB_PAGES = (1 << 30) // 4096


def column(demand: Demand, name: str, vm: int = 0) -> list[int]:
    return [int(value) for value in demand.of(vm)[name]]


def guessed(path: Path) -> str:
    return load_formats().guess(path).name


# Azure ------------------------------------------------------------------------------------------------------

A, B, C = "a" * 24, "b" * 24, "c" * 24
VMTABLE = f"{A},s,d,0,2591700,99.3,3.4,10.1,Interactive,2,3.5\n{B},s,d,0,100,99.3,3.4,10.1,Unknown,>24,>64\n"
READINGS = f"0,{A},1.0,50.0,25.0\n0,{B},0,0,10\n0,{C},1,2,3\n300,{A},0,100,100\n300,{A},0,1,2\n300,{B},0,0,nan\n"


def test_azure_readings_and_vmtable(tmp_path: Path) -> None:
    sizes, readings = tmp_path / "vmtable.csv", tmp_path / "readings.csv"
    sizes.write_text(VMTABLE)
    readings.write_text(READINGS.replace(",nan", ",20.5"))
    assert guessed(sizes) == guessed(readings) == "azure"
    out = tmp_path / "x.parquet"
    report, demand = table("azure", [sizes, readings], out, Settings(keep_names=True))
    assert [(vm["name"], vm["cores"]) for vm in demand.meta["vms"]] == [(A, 2), (B, 24), (C, 1)]
    assert column(demand, "cpu_ns") == [2 * 75 * S, 2 * FIVE], "percent of both cores; the second of 300 s is dropped"
    assert column(demand, "time_ns") == [0, FIVE] and column(demand, "duration_ns") == [FIVE, FIVE]
    assert column(demand, "cpu_ns", 1) == [24 * 30 * S, round(24 * 61.5 * S)]
    assert column(demand, "provisioned_pages") == [GIB_PAGES * 7 // 2] * 2 and column(demand, "memory_pages") == [
        -1,
        -1,
    ]
    assert column(demand, "provisioned_pages", 2) == [-1]
    assert report.silent == ["memory", "storage", "network"]
    for said in (
        "1 VM is in no vmtable: 1 core each",
        "ranges (V2): the lower end",
        "1 samples of a time that another",
    ):
        assert any(said in note for note in report.notes), said
    _, demand = table("azure", [sizes, readings], out, value="max", first_vms=1)
    assert len(demand.meta["vms"]) == 1 and column(demand, "cpu_ns") == [2 * 150 * S, 2 * FIVE]
    with pytest.raises(UserError, match=r"vmtable\.csv: vmtable has to be named before the readings"):
        table("azure", [readings, sizes], out)
    readings.write_text(READINGS)
    with pytest.raises(UserError, match=r"readings\.csv:6: expected average in % \(a number\), found '300,bbb"):
        table("azure", readings, out)
    sizes.write_text("1,2,3\n")
    with pytest.raises(UserError, match=r"vmtable\.csv:1: expected a reading \(5 columns\), a line of vmtable \(11\)"):
        table("azure", sizes, out)
    sizes.write_text(VMTABLE.replace(",2,3.5", ",many,3.5"))
    with pytest.raises(UserError, match=r"vmtable\.csv:1: expected cores and GB of memory in the last two columns"):
        table("azure", sizes, out)


def test_azure_vms_in_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("interval,1633748,223811\n1,50.0,1.5\n2,100,2.5\n")
    assert guessed(path) == "azure"
    _, demand = table("azure", path, tmp_path / "x.parquet")
    assert column(demand, "cpu_ns") == [150 * S, FIVE] and column(demand, "cpu_ns", 1) == [4_500_000_000, 7_500_000_000]
    assert column(demand, "time_ns") == [0, FIVE]


@pytest.mark.parametrize("names", [("vmtable.csv.gz", "vm_cpu_readings-file-1-of-125.csv.gz")])
def test_the_real_azure_sample(names: tuple[str, str], tmp_path: Path) -> None:
    paths = [shared(f"azure-vm-sample/{name}") for name in names]
    assert {guessed(path) for path in paths} == {"azure"}
    _, demand = table("azure", paths, tmp_path / "x.parquet")
    assert len(demand.columns["vm"]) == 100 and (demand.columns["cpu_ns"] >= 0).all()


@pytest.mark.parametrize("name", ["azure_v1_avg_100", "azure_v1_max_100"])
def test_the_real_azure_hundred(name: str, tmp_path: Path) -> None:
    path = shared(f"azure-v1-100vm/{name}.csv.gz")
    _, demand = table("azure", path, tmp_path / "x.parquet")
    assert len(demand.columns["vm"]) == 8004 * 100 and len(demand.meta["vms"]) == 100
    first = np.asarray(csv.read_csv(path).column(1)) / 100 * FIVE
    assert np.abs(demand.of(0)["cpu_ns"] - first).max() <= 1


# percentages ------------------------------------------------------------------------------------------------


def test_planetlab_and_gcd(tmp_path: Path, kernel: object) -> None:
    path = tmp_path / "host_a"
    path.write_text("0\n50\n100\n7\n")
    assert guessed(path) == "planetlab"
    report, demand = table("planetlab", path, tmp_path / "x.parquet", cores=2)
    assert column(demand, "cpu_ns") == [0, FIVE, 2 * FIVE, 42 * S]
    assert report.span_ns == 4 * FIVE and report.silent == ["memory", "storage", "network"]
    path.write_text("12.5 7.25\n110.5 101\n 3 0\n")
    assert guessed(path) == "gcd"
    report, demand = table("gcd", path, tmp_path / "x.parquet", memory_bytes=1 << 30)
    assert column(demand, "cpu_ns") == [37_500_000_000, 331_500_000_000, 9 * S]
    assert column(demand, "memory_pages") == [19005, GIB_PAGES, 0]
    assert any("1 samples with more memory" in note for note in report.notes)
    assert table("gcd", path, tmp_path / "x.parquet")[0].silent == ["memory", "storage", "network"]
    path.write_text("12\nx\n")
    with pytest.raises(UserError, match=r"host_a:2: expected CPU in % \(a whole number\), found 'x'"):
        table("planetlab", path, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="--cores 0: has to be 1 to 4096"):
        table("planetlab", path, tmp_path / "x.parquet", cores=0)
    path.write_text("12\n30\n2")
    _, demand = table("planetlab", path, tmp_path / "x.demand.parquet")
    assert column(demand, "cpu_ns") == [36 * S, 90 * S, 6 * S]


def test_the_real_percentages(tmp_path: Path) -> None:
    folder = shared("planetlab/sample/20110303")
    files = sorted(folder.iterdir())
    _, demand = table("planetlab", files, tmp_path / "x.parquet")
    for number, path in enumerate(files):
        assert guessed(path) == "planetlab"
        values = [int(line) for line in path.read_text().split()]
        assert len(values) == 288 and column(demand, "cpu_ns", number) == [3 * S * value for value in values]
    archive = shared("google2011-gcd-vms/GCD_VMs.tar.gz")
    assert guessed(archive) == "gcd"
    _, demand = table("gcd", archive, tmp_path / "y.parquet", memory_bytes=1 << 34)
    assert len(demand.meta["vms"]) == 1600 and len(demand.columns["vm"]) == 1600 * 288
    # its README: mean CPU 21.84 %, mean memory 19.55 %
    assert demand.columns["cpu_ns"].mean() / FIVE == pytest.approx(0.2184, abs=0.0002)
    assert demand.columns["memory_pages"].mean() / (1 << 22) == pytest.approx(0.1955, abs=0.002)


def test_the_real_planetlab_archive(tmp_path: Path) -> None:
    archive = shared("planetlab/planetlab-10days.tar.xz")
    assert guessed(archive) == "planetlab"
    _, demand = table("planetlab", archive, tmp_path / "x.parquet")
    assert len(demand.meta["vms"]) == 11746 and len(demand.columns["vm"]) == 11746 * 288


# Google -----------------------------------------------------------------------------------------------------

USAGE = (
    "600000000,900000000,3418309,0,4155527081,0.0625,0.03,0.06,0,0.001,0.03,0,0.0001,0.1,,2.9,0.01,0,0,0.02\n"
    "900000000,1200000000,3418309,0,4155527081,0.125,0.05,,0,0.001,0.03,0,0.0001,0.1,,,,0,0,\n"
    "900000000,1200000000,3418309,0,4155527081,0.5,0.05,,0,0.001,0.03,0,0.0001,0.1,,,,0,0,\n"
    "600000000,700000000,3418309,1,329150663,1e-05,,0.01,0,0.001,0.03,0,0.0001,0.1,,2.9,0.01,0,0,0.02\n"
)


def test_google_usage(tmp_path: Path) -> None:
    path = tmp_path / "part-0.csv"
    path.write_text(USAGE)
    assert guessed(path) == "google-usage"
    report, demand = table(
        "google-usage", path, tmp_path / "x.parquet", Settings(keep_names=True), machine_cores=16,
        machine_memory_bytes=1 << 34,
    )  # fmt: skip
    assert [vm["name"] for vm in demand.meta["vms"]] == ["3418309-0", "3418309-1"]
    assert column(demand, "cpu_ns") == [FIVE, 2 * FIVE] and column(demand, "time_ns") == [0, FIVE]
    assert column(demand, "cpu_ns", 1) == [16_000_000] and column(demand, "duration_ns", 1) == [100 * S]
    assert column(demand, "memory_pages") == [125829, 209715] and column(demand, "memory_pages", 1) == [-1]
    assert column(demand, "provisioned_pages") == [251658, -1]
    assert any("1 samples of a time that another" in note for note in report.notes)
    assert report.silent == ["storage", "network"]
    assert table("google-usage", path, tmp_path / "x.parquet")[0].silent == ["memory", "storage", "network"]
    path.write_text(USAGE + "7,5,1,0,1,0,0,0,0,0,0,0,0,0,,2,0,0,0,0\n")
    with pytest.raises(UserError, match=r"part-0\.csv:5: expected an end after the start, by 600 s at most"):
        table("google-usage", path, tmp_path / "x.parquet")
    path.write_text(USAGE + "600000000,700000000,3418309,1\n")
    with pytest.raises(UserError, match=r"part-0\.csv:5: expected 20 columns: start, end \(us\), job, task"):
        table("google-usage", path, tmp_path / "x.parquet")


# sadf -------------------------------------------------------------------------------------------------------

SADF = """\
# hostname;interval;timestamp;CPU;%user;%nice;%system;%iowait;%steal;%idle
h;10;2026-11-22 05:49:10 UTC;-1;20.00;0.00;5.00;5.00;10.00;60.00
h;10;2026-11-22 05:49:10 UTC;0;1;1;1;1;1;95
h;10;2026-11-22 05:49:10 UTC;1;1;1;1;1;1;95
h;10;2026-11-22 05:49:20 UTC;-1;100.00;0.00;0.00;0.00;0.00;0.00
h;-1;2026-11-22 05:49:40 UTC;LINUX-RESTART	(4 CPU)
h;10;2026-11-22 05:49:45 UTC;-1;50.00;0.00;0.00;0.00;0.00;50.00
# hostname;interval;timestamp;DEV;tps;rkB/s;wkB/s;dkB/s;areq-sz;aqu-sz;await;%util
h;10;2026-11-22 05:49:10 UTC;sda;1;10;2;0;0;0;0;0
h;10;2026-11-22 05:49:10 UTC;sda1;1;10;2;0;0;0;0;0
h;10;2026-11-22 05:49:10 UTC;dm-0;1;10;2;0;0;0;0;0
# hostname;interval;timestamp;IFACE;rxpck/s;txpck/s;rxkB/s;txkB/s;rxcmp/s;txcmp/s;rxmcst/s;%ifutil
h;10;2026-11-22 05:49:10 UTC;lo;1;1;99;99;0;0;0;0
h;10;2026-11-22 05:49:10 UTC;eth0;1;1;3;4;0;0;0;0
# hostname;interval;timestamp;kbmemfree;kbavail;kbmemused;%memused
h;10;2026-11-22 05:49:20 UTC;1000;0;3000;1.20
"""


def test_sadf_text_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "sar.txt"
    path.write_text(SADF)
    assert guessed(path) == "sadf"
    report, demand = table("sadf", path, tmp_path / "x.parquet")
    assert column(demand, "time_ns") == [0, 10 * S, 40 * S], "a line is of the interval before it; 5 s after a restart"
    assert column(demand, "duration_ns") == [10 * S, 10 * S, 5 * S]
    assert column(demand, "cores") == [2, 1, 1]
    assert column(demand, "cpu_ns") == [5 * S, 10 * S, 5 * S // 2], "steal and iowait are no CPU time"
    assert column(demand, "read_bytes") == [10 * 1024 * 10, -1, -1], "a partition's and a mapped disk's are the disk's"
    assert column(demand, "received_bytes") == [30720, -1, -1] and column(demand, "sent_bytes") == [40960, -1, -1]
    assert column(demand, "memory_pages") == [-1, 750, -1] and column(demand, "provisioned_pages") == [-1, 1000, -1]
    assert any("1 intervals reach back beyond" in note for note in report.notes)
    path.write_text(SADF + "h;10;2026-11-22 05:49 UTC;5\n")
    with pytest.raises(UserError, match=r"sar\.txt:17: expected HOST;INTERVAL;YYYY-MM-DD HH:MM:SS UTC;VALUES"):
        table("sadf", path, tmp_path / "x.parquet")
    path.write_text(SADF + "h;10;2026-11-22 05:49:20 UTC;1000;x;3000;1.20\n")
    with pytest.raises(UserError, match=r"sar\.txt:17: expected kbmemfree; kbavail; kbmemused; %memused \(numbers\)"):
        table("sadf", path, tmp_path / "x.parquet")
    path.write_text(SADF + "h;10;2026-11")
    assert any("incomplete" in note for note in table("sadf", path, tmp_path / "x.parquet")[0].notes)


def test_damaged_json(tmp_path: Path) -> None:
    path = tmp_path / "sar.json"
    whole = json.dumps({"sysstat": {"hosts": [{"nodename": "h", "number-of-cpus": 2, "statistics": [
        {"timestamp": {"date": "2026-11-22", "time": f"05:49:{10 * i:02d}", "interval": 10},
         "cpu-load": [{"cpu": "all", "idle": 50.0, "iowait": 0.0, "steal": 0.0}]} for i in range(3)]}]}})  # fmt: skip
    path.write_text(whole)
    _, demand = table("sadf", path, tmp_path / "x.parquet")
    assert column(demand, "cpu_ns") == [10 * S] * 3
    path.write_text(whole[:-60])
    report, demand = table("sadf", path, tmp_path / "x.parquet")
    assert len(demand.columns["vm"]) == 2 and any("the JSON ends early" in note for note in report.notes)
    path.write_text(whole.replace('"idle"', "idle"))
    with pytest.raises(UserError, match=r"sar\.json: not JSON: "):
        table("sadf", path, tmp_path / "x.parquet")
    path.write_text(whole.replace('"date": "2026-11-22"', '"day": 3', 1))
    with pytest.raises(
        UserError, match=r"statistics 0 of h: expected a timestamp and statistics as sadf -j writes them"
    ):
        table("sadf", path, tmp_path / "x.parquet")
    assert len(table("sadf", path, tmp_path / "x.parquet", Settings(skip_bad=1))[1].columns["vm"]) == 2


@pytest.mark.parametrize(
    "pair",
    [("recorded-linux/sar_4s.sadf_d.csv", "recorded-linux/sar_4s.sadf.json"),
     ("sysstat/expected.sadf-d", "sysstat/expected.sadf-j")],
    ids=["recorded", "sysstat"],
)  # fmt: skip
def test_real_sadf_files_say_the_same_in_both_forms(pair: tuple[str, str], tmp_path: Path) -> None:
    text, made = (shared(name) for name in pair)
    assert guessed(text) == guessed(made) == "sadf"
    _, one = table("sadf", text, tmp_path / "x.parquet")
    report, two = table("sadf", made, tmp_path / "y.parquet")
    assert len(one.columns["vm"]) > 2 and report.silent == []
    for name in one.columns:
        assert one.columns[name].tolist() == two.columns[name].tolist(), name


# Prometheus -------------------------------------------------------------------------------------------------


def answer(*series: tuple[dict[str, str], list[tuple[float, str]]]) -> str:
    result = [{"metric": labels, "values": [list(pair) for pair in values]} for labels, values in series]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def libvirt(name: str, values: list[str], **labels: str) -> Any:
    labels = {"__name__": f"libvirt_domain_{name}", "domain": "web", **labels}
    return labels, [(1700000000 + 30 * i, value) for i, value in enumerate(values)]


def test_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(
        answer(
            libvirt("info_cpu_time_seconds_total", ["100", "115.5", "NaN", "2", "32"]),
            libvirt("block_stats_read_bytes_total", ["0", "10", "10", "5", "25"], target_device="vda"),
            libvirt("block_stats_read_bytes_total", ["7", "8", "9", "10", "11"], target_device="vdb"),
            libvirt("info_virtual_cpus", ["2", "2", "2", "4", "4"]),
            libvirt("info_memory_usage_bytes", ["8192", "4096", "4096", "4096", "0"]),
            libvirt("info_vstate", ["1", "1", "1", "1", "1"]),
        )
    )
    assert guessed(path) == "prometheus"
    report, demand = table("prometheus", path, tmp_path / "x.parquet", Settings(keep_names=True))
    assert demand.meta["vms"] == [{"name": "web", "cores": 4}]
    assert column(demand, "time_ns") == [0, 30 * S, 60 * S, 90 * S]
    # NaN leaves a gap of two steps: what was used in it is unknown when; then 2 s to 32 s
    assert column(demand, "cpu_ns") == [15_500_000_000, -1, -1, 30 * S]
    assert column(demand, "read_bytes") == [11, 1, 6, 21], "added up over disks; a counter that falls began anew"
    assert column(demand, "cores") == [2, 2, 2, 4] and column(demand, "memory_pages") == [2, 1, 1, 1]
    assert report.silent == ["network"]
    assert any("1 series of libvirt_domain_info_vstate are not read" in note for note in report.notes)
    assert any("2 times a counter fell" in note for note in report.notes)


def test_prometheus_expressions_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(answer(({"pod": "a", "namespace": "b"}, [(0, "0.5"), (60, "2"), (120, "1")])))
    _, demand = table("prometheus", path, tmp_path / "x.parquet", kind="cpu-cores", label="pod")
    assert column(demand, "cpu_ns") == [30 * S, 120 * S]
    with pytest.raises(UserError, match=r"no interval of any VM in it .1 series of no name are not read"):
        table("prometheus", path, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="a series has no label vm; it has pod, namespace: --label"):
        table("prometheus", path, tmp_path / "x.parquet", kind="cpu-cores", label="vm")
    path.write_text(json.dumps({"status": "error", "errorType": "bad_data", "error": "invalid step"}))
    with pytest.raises(UserError, match="Prometheus answered with an error: invalid step"):
        table("prometheus", path, tmp_path / "x.parquet")
    path.write_text(answer(({"pod": "a"}, [(0, "x"), (60, "2")])))
    with pytest.raises(UserError, match=r'q\.json: a result: expected \{"metric": '):
        table("prometheus", path, tmp_path / "x.parquet")
    path.write_text(answer(({"pod": "a"}, [(60, "1"), (0, "2")])))
    with pytest.raises(UserError, match=r"expected times that rise"):
        table("prometheus", path, tmp_path / "x.parquet", kind="cpu-cores")
    path.write_text(
        answer(({"pod": "a", "x": "1"}, [(0, "1"), (60, "2")]), ({"pod": "a", "x": "2"}, [(30, "1"), (90, "2")]))
    )
    with pytest.raises(UserError, match="VM 'a': its series were sampled at different times"):
        table("prometheus", path, tmp_path / "x.parquet", kind="cpu-cores")


# all the way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["host.sadf.json", "azure.csv"])
def test_tables_expand_and_replay(name: str, tmp_path: Path, kernel: object) -> None:
    path = FIXTURES / name
    _, demand = table(guessed(path), path, tmp_path / "d.parquet")
    expand_file(tmp_path / "d.parquet", tmp_path / "x.parquet", Choice(vms=("0",)))
    trace = read_trace(tmp_path / "x.parquet")
    assert check_trace(trace) == [] and counts(trace)["compute"] > 1
    asked = int(np.maximum(demand.of(0)["cpu_ns"], 0).sum())
    assert int((trace.columns["user_ns"] + trace.columns["kernel_ns"]).sum()) == pytest.approx(asked, rel=0.01)
    assert replay(trace, tmp_path, "2s")["status"] == "ok"
