"""Workloads written from a few words: what is chosen, what is refused, and that they run at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from hvbench.authoring import Draft, complete, settings_of, vm_of, write
from hvbench.cli.workload import workload as workload_command
from hvbench.errors import UserError
from hvbench.traces.format import read_trace
from hvbench.traces.synthetic import Script, rows
from hvbench.workload import load_workload

HEADER = (
    "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%];\t"
    "Memory capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\t"
    "Disk write throughput [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput [KB/s]\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    script = Script("loop")
    region = script.region(64)
    script.thread(
        rows("touch", object=region, page=0, pages=64),
        rows("compute", 50, user_ns=10_000_000),
        rows("sleep", duration_ns=9**8),
    )
    script.save(tmp_path / "loop.parquet")
    return tmp_path


def new(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(workload_command, ["new", *words])
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_settings_as_words() -> None:
    made = settings_of("pcpus=4,memory=4GiB,nic.bandwidth=1Gbit/s,affinity=[0,1],balloon=false", "--host")
    assert made == {
        "pcpus": 4,
        "memory": "4GiB",
        "nic": {"bandwidth": "1Gbit/s"},
        "affinity": [0, 1],
        "balloon": False,
    }
    assert vm_of("./a.parquet:weight=512") == {"weight": 512, "trace": "./a.parquet"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pcpus", "--host: 'pcpus' has to be KEY=VALUE, such as memory=2GiB"),
        ("pcpus=1,pcpus=2", "--host: pcpus is given twice"),
        ("nic=1,nic.bandwidth=2", "--host: nic.bandwidth stands in nic, which is a value"),
    ],
)
def test_words_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_of(text, "--host")
    assert str(caught.value) == said


def test_what_is_left_open_is_chosen(folder: Path) -> None:
    made = tomllib.loads(
        complete(Draft("mine", folder / "mine.toml", vms=[vm_of("./loop.parquet"), vm_of("cc-build:count=2")]))
    )
    assert [vm["name"] for vm in made["vm"]] == ["loop", "cc-build"]
    assert made["vm"][0]["memory"] == "256MiB" and made["vm"][0]["vcpus"] == 1
    assert made["vm"][0]["trace"] == "./loop.parquet" and made["vm"][1]["trace"] == "cc-build"
    assert made["host"] == {"memory": "1GiB", "pcpus": 4}
    # one pass of the longest trace (cc-build, 1.2 s) as warm-up
    assert (made["workload"]["warmup"], made["workload"]["horizon"]) == ("2s", "6s")
    assert (made["workload"]["class"], made["workload"]["replay"]) == ("micro", "closed")


def test_tiers_that_were_recorded_together_stay_together(folder: Path) -> None:
    text = complete(Draft("shop", folder / "shop.toml", vms=[vm_of("web-cache"), vm_of("web-cache")]))
    made = tomllib.loads(text)["vm"]
    assert [(vm["name"], vm["tier"], vm["instance"]) for vm in made] == [
        ("web", "web", "group-0"),
        ("cache", "cache", "group-0"),
        ("web-2", "web", "group-1"),
        ("cache-2", "cache", "group-1"),
    ]


def test_it_runs_at_once(folder: Path) -> None:
    code, text = new(
        "mine",
        "--host",
        "pcpus=1,memory=1GiB",
        "--vm",
        "./loop.parquet:count=2,image=''",
        "--set",
        "horizon=1s,warmup=100ms",
    )
    assert code == 0, text
    assert "mine.toml: 2 VMs of 2 vCPUs on 1 pCPU, 512MiB on 1GiB, 1s; try: hvbench run ./mine.toml" in text
    done = subprocess.run(
        [sys.executable, "-m", "hvbench", "run", "./mine.toml"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HVBENCH_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loop-0" in done.stdout and "loop-1" in done.stdout


def test_nothing_is_written_over_and_nothing_half(folder: Path) -> None:
    assert new("mine", "--vm", "./loop.parquet")[0] == 0
    before = (folder / "mine.toml").read_text()
    for words, said in (
        (("mine", "--vm", "./loop.parquet"), "mine.toml: is there already; give --force, or another name"),
        (("mine", "--vm", "./loop.parquet:vcpu=2", "--force"), "vcpu"),
        (("mine", "--vm", "./none.parquet", "--force"), "no trace file"),
        (("other",), "a workload without VMs: give --vm TRACE, or --from-bitbrains FOLDER"),
        (("other", "--vm", ":vcpus=2"), "--vm :vcpus=2: has to be TRACE[:KEY=VALUE,...]"),
        (("other", "--vm", "base-idle"), "a base image, which no VM can do"),
        (("Other Name", "--vm", "./loop.parquet"), "'Other Name' is not of the form [a-z0-9-]+"),
        (("other", "--from-bitbrains", ".", "--window", "long"), "--window long: 'long'"),
        (("other", "--from-bitbrains", "."), ".: holds no *.csv"),
    ):
        code, text = new(*words)
        assert code != 0 and said in text, text
    assert (folder / "mine.toml").read_text() == before
    assert sorted(path.name for path in folder.iterdir()) == ["loop.parquet", "mine.toml"]
    assert new("mine", "--vm", "./loop.parquet:weight=512", "--force")[0] == 0
    assert load_workload("./mine.toml").vms[0].spec.weight == 512


def write_archive(folder: Path, vms: int) -> None:
    """VMs with a sample every 300 s for an hour; VM 1 is there for its first half only."""
    folder.mkdir()
    for vm in range(vms):
        lines = [HEADER]
        for i in range(6 if vm == 1 else 12):
            lines.append(
                f"{1_376_314_800 + 300 * i};\t2;\t5200;\t52;\t{5 + vm};\t{4 << 20};\t{(100 + 50 * i) << 10};"
                "\t4;\t8;\t0;\t0\n"
            )
        (folder / f"{vm}.csv").write_text("".join(lines))


def test_vms_of_an_archive(folder: Path) -> None:
    write_archive(folder / "rnd", 4)
    code, text = new("rnd", "--from-bitbrains", "rnd", "--vms", "3", "--window", "40min", "--attribution", "me & co")
    assert code == 0, text
    made = load_workload("./rnd.toml")
    assert sorted(vm.name for vm in made.vms) == ["vm-0", "vm-2", "vm-3"]  # VM 1 is not there through the window
    assert (made.klass, made.horizon_ns, made.settings.replay) == ("memory", 2400 * 10**9, "open")
    assert {vm.spec.vcpus for vm in made.vms} == {2}
    assert "# Data: me & co" in (folder / "rnd.toml").read_text()
    for vm in made.vms:
        trace = read_trace(vm.trace_path)
        c = trace.columns
        # 8 intervals of 300 s: 5 % and more of two cores, to the nanosecond
        share = 5 + int(vm.name[3:])
        assert int(c["user_ns"].sum() + c["kernel_ns"].sum()) == 8 * 300 * 10**9 * 2 * share // 100
        assert trace.meta["expanded"]["donor"] == "cc-build" and trace.meta["attribution"] == "me & co"
        # 4 GiB scaled to 512 MiB
        assert trace.meta["derived"][-1]["how"] == {"memory": 0.125} and vm.spec.memory_pages == 131_072
    assert new("rnd2", "--from-bitbrains", "rnd", "--vms", "4", "--window", "40min")[1].endswith(
        "3 of 4 VMs have samples through the 40min from 0ns on; 4 were asked for"
    )
    assert not (folder / "rnd2-traces").exists()


def test_a_draft_is_checked_before_it_is_written(folder: Path) -> None:
    draft = Draft("mine", folder / "mine.toml", host={"pcpus": 0}, vms=[vm_of("./loop.parquet")])
    with pytest.raises(UserError, match=r"host\.pcpus"):
        write(draft)
    assert not draft.path.exists()
