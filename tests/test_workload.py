"""Workload files: what is legal, what they become, and that all errors come at once."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from hvbench import machine, settings
from hvbench import workload as w
from hvbench.errors import UserError

GOOD = """
format = 1
[workload]
name = "two-tier"
class = "micro"
summary = "a web tier and its cache"
stresses = ["switch"]
horizon = "5s"
warmup = "1s"
[host]
pcpus = 4
memory = "4GiB"
reserve = "5%"
[host.disk]
kind = "hdd"
bandwidth = "100MB/s"
[[vm]]
name = "web"
count = 2
vcpus = 2
memory = "512MiB"
trace = "./t.parquet"
tier = "web"
instance = "a"
image = ""
cap = 150
[[vm]]
name = "cache"
count = 2
memory = "256MiB"
trace = "./t.parquet"
tier = "cache"
instance = "a"
image = ""
start = "20ms"
[vm.guest]
replacement = "clock"
swap = "64MiB"
"""


def parse(tmp_path: Path, text: str) -> w.Workload:
    (tmp_path / "t.parquet").write_bytes(b"a trace")
    return w.parse_workload(text, tmp_path / "two.toml")


def test_a_good_file_becomes_counted_quantities(tmp_path: Path) -> None:
    loaded = parse(tmp_path, GOOD)
    assert (loaded.name, loaded.klass, loaded.horizon_ns, loaded.warmup_ns) == (
        "two-tier",
        "micro",
        5 * 10**9,
        10**9,
    )
    assert loaded.host.memory_pages == 1024**2
    assert loaded.host.reserve_share == 0.05
    assert [vm.name for vm in loaded.vms] == ["web-0", "web-1", "cache-0", "cache-1"]
    assert [vm.index for vm in loaded.vms] == [0, 1, 2, 3]
    assert loaded.vms[2].spec.start_ns == 20_000_000
    assert loaded.vms[0].spec.start_ns == w.START_RANDOM_NS
    assert loaded.vms[2].spec.guest == w.Guest("clock", 64 * 256, True)


def test_tiers_of_one_instance_are_paired_by_number(tmp_path: Path) -> None:
    web_0, web_1, cache_0, cache_1 = parse(tmp_path, GOOD).vms
    assert web_0.instance == cache_0.instance != web_1.instance == cache_1.instance


def test_vms_without_an_instance_do_not_share_one(tmp_path: Path) -> None:
    vms = parse(tmp_path, GOOD.replace('instance = "a"\n', "")).vms
    assert len({vm.instance for vm in vms}) == 4


def test_a_kind_of_disk_sets_the_defaults_that_the_file_leaves_open(tmp_path: Path) -> None:
    disk = parse(tmp_path, GOOD).host.disk
    assert disk.seek_ns == 8_500_000
    assert disk.channels == 1
    assert disk.bandwidth_bytes_per_s == 100_000_000
    assert parse(tmp_path, GOOD).host.filer.disk.kind == "ssd"


def test_all_errors_come_at_once_with_their_paths(tmp_path: Path) -> None:
    bad = (
        GOOD.replace('memory = "4GiB"', 'memory = "4 lots"')
        .replace("vcpus = 2", "vcpus = 2\nthreads = 9")
        .replace('replacement = "clock"', 'replacement = "mru"')
        .replace('stresses = ["switch"]', 'stresses = ["swich"]')
        .replace('warmup = "1s"', 'warmup = "9s"')
        .replace('trace = "./t.parquet"\ntier = "cache"', 'trace = "./gone.parquet"\ntier = "cache"')
    )
    with pytest.raises(UserError) as caught:
        parse(tmp_path, bad)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "two.toml"))
    for words in (
        "6 errors",
        "host.memory: '4 lots'",
        "vm[0]: unknown: threads",
        "vm[1].guest.replacement: 'mru' is unknown; legal: linux, lru, clock, fifo",
        "workload.stresses: 'swich' is no axis",
        "workload.warmup",
        "vm[1].trace: no trace file",
    ):
        assert words in message, words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 1", "format = 2", "format: 2 is not a known format"),
        ("pcpus = 4", "pcpus = 0", "host.pcpus: 0 is below"),
        ("pcpus = 4", "pcpus = 4.5", "host.pcpus: 4.5 is not a whole number"),
        ("pcpus = 4", "", "host.pcpus: required, but missing"),
        ("cap = 150", "cap = 250", "vm[0].cap: 250 %"),
        ("cap = 150", "affinity = [0, 4]", "vm[0].affinity: no pCPU 4 on a host of 4"),
        ("cap = 150", 'memory_reservation = "1GiB"', "vm[0].memory_reservation: above the VM's memory"),
        ("cap = 150", 'memory_limit = "1GiB"', "vm[0].memory_limit: above the VM's memory"),
        (
            "cap = 150",
            'memory_limit = "4MiB"\nmemory_reservation = "8MiB"',
            "vm[0].memory_limit: below its memory_reservation",
        ),
        ("cap = 150", "memory_shares = -1", "vm[0].memory_shares: -1 is below the least legal value, 0"),
        (
            'trace = "./t.parquet"\ntier = "cache"',
            'trace = "./x.parquet"\ntier = "cache"',
            "vm[1].trace: no trace file",
        ),
        ('tier = "cache"', 'tier = "web"', "are both tier 'web'"),
        ('name = "cache"', 'name = "web"', "two VMs are named web-0"),
        ('name = "two-tier"', 'name = "Two Tier"', "workload.name"),
        ("[host]", "[hosts]", "top level: unknown: hosts; did you mean host; legal here: fault"),
        ("= 1\n", "= = 1\n", "not valid TOML"),
        ("[host]", "[host]\nmemry = 3", "host: unknown: memry; did you mean memory; legal here: "),
        ('memory = "4GiB"', 'memory = "-1GiB"', "host.memory: '-1GiB' is below the least legal value, 4KiB"),
        ('memory = "4GiB"', "memory = 256", "host.memory: 256 has no unit; write 256GiB, 256MiB or 256pages"),
        ('horizon = "5s"', 'horizon = "5"', "workload.horizon: 5 has no unit; write 5ms, 5us or 5ns"),
        ('memory = "512MiB"', 'memory = "5KB"', "vm[0].memory: '5KB' is not a whole number of pages"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        parse(tmp_path, GOOD.replace(old, new, 1))
    assert words in str(caught.value)


def test_what_changes_a_result_changes_the_canonical_form(tmp_path: Path) -> None:
    before = parse(tmp_path, GOOD).canonical()
    assert parse(tmp_path, GOOD.replace("a web tier", "one web tier")).canonical() == before
    assert parse(tmp_path, GOOD.replace("cap = 150", "cap = 120")).canonical() != before
    (tmp_path / "other.parquet").write_bytes(b"another trace")
    assert parse(tmp_path, GOOD.replace("./t.parquet", "./other.parquet")).canonical() != before
    (tmp_path / "same.parquet").write_bytes(b"a trace")
    assert parse(tmp_path, GOOD.replace("./t.parquet", "./same.parquet")).canonical() == before


def test_a_missing_file_and_an_unknown_name_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        w.load_workload(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    "cls", [machine.Disk, machine.Nic, machine.Filer, machine.Array, machine.Host, w.Guest, w.VmGroup, w.Settings]
)
def test_every_setting_is_documented_and_every_numeric_default_has_a_source(cls: type) -> None:
    for attribute in attrs.fields(cls):
        assert attribute.metadata["doc"], attribute.name
        numeric = type(attribute.default) in (int, float) and attribute.name != "start_ns"
        assert attribute.metadata["source"] or not numeric, attribute.name
    for kind, preset in settings.kinds_of(cls).items():
        for name, (_, source) in preset.items():
            assert name in attrs.fields_dict(cls) and source, kind


def test_settings_are_described_with_values_units_and_sources(tmp_path: Path) -> None:
    infos = {info.path: info for info in settings.describe_settings(parse(tmp_path, GOOD).host)}
    assert infos["memory"].value == "4GiB" and not infos["memory"].is_default
    assert infos["disk.seek"].value == "8.5ms" and infos["disk.seek"].is_default
    assert "Barracuda" in infos["disk.seek"].source
    assert infos["disk.bandwidth"].source == ""
