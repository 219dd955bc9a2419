"""A disk that sleeps: the probe, and the instrument that replays what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.errors import UserError
from hvbench.fidelity.pause_probe import PAUSES_MS, by_pause, medians
from hvbench.fidelity.replay import BARE_DISK, FOLDER, PAUSES, after_pauses, metadata
from hvbench.fidelity.stage import Stage
from hvbench.plugins import load_registry
from hvbench.simulate import simulate
from hvbench.traces.record.ftrace import Event
from hvbench.traces.synthetic import Script, rows

US, MS = 1_000, 1_000_000


def request(at: int, took: int, sectors: int = 32) -> list[Event]:
    return [
        Event(time, 0, 9, 9, "probe", "", f"block_rq_{what}", ("8:0", "R", 64, sectors))
        for time, what in ((at, "issue"), (at + took, "complete"))
    ]


def test_a_request_counts_for_the_pause_that_it_had() -> None:
    events = request(0, 50 * US)
    events += request(50 * US + 4 * MS, 80 * US)  # 4 ms later
    events += request(130 * US + 5 * MS, 70 * US)  # 1 ms later
    events += request(200 * US + 10 * MS, 60 * US, sectors=8)  # another size; but the disk was asked
    events += request(260 * US + 12 * MS, 90 * US)  # 2 ms after that
    found = by_pause(events, "8:0")
    assert {pause: took for pause, took in found.items() if took} == {4: [80 * US], 1: [70 * US], 2: [90 * US]}


def test_too_few_requests_are_refused() -> None:
    with pytest.raises(UserError, match=r"too few requests after a pause \(1 ms: 2, .*repeat when it is idle"):
        medians({pause: [1, 2] for pause in PAUSES_MS})


def test_the_probe_that_is_shipped_fits_the_recording_s_own() -> None:
    """After 1 ms, of the sizes that the older probe asked for."""
    latency = json.loads((FOLDER / PAUSES).read_text(encoding="ascii"))["latency_ns"]
    old = metadata()["machine"]["probe"]
    between = old["read_small_ns"] + (old["read_large_ns"] - old["read_small_ns"]) * 12 // 252
    assert latency["1"] == pytest.approx(between, rel=0.05)
    assert list(latency) == [str(pause) for pause in PAUSES_MS]


@pytest.mark.parametrize(
    ("pause", "extra"), [(0, 0), (1, 0), (3, 15_000), (4, 30_000), (6, 40_000), (32, 90_000), (99, 90_000)]
)
def test_a_request_takes_longer_after_a_pause(tmp_path: Path, pause: int, extra: int) -> None:
    """By hand: knots at 2, 4, 8, 16 and 32 ms, straight lines between; the first request is asked a second after 0."""
    script = Script("pauses")
    one = rows("blk_read", page=0, pages=8)
    # what the VM computes is part of the pause
    work = rows("compute", user_ns=US)
    chunks = [one, rows("sleep", duration_ns=pause * MS - US), work] if pause else [one, work]
    script.thread(*chunks * 50)
    stage = Stage(tmp_path, load_registry())
    path = stage.workload(
        "pauses",
        settings={"class": "micro", "warmup": "500ms", "horizon": "2s"},
        host={
            "pcpus": 1,
            "memory": "1GiB",
            "disk.read_latency": "50us",
            "disk.bandwidth": "1000000GB/s",
        },
        vms=[{"name": "a", "memory": "16MiB", "trace": stage.trace("pauses", script), "image": "", "start": "0s"}],
    )
    disk = str(BARE_DISK) + after_pauses(
        {"1": 70_000, "2": 70_000, "4": 100_000, "8": 120_000, "16": 140_000, "32": 160_000}
    )
    result = simulate(stage.cell(path, storage=disk))
    assert result.status == "ok", result.reason
    # histograms have buckets of 1/32
    assert result.metrics["io_latency_p50_ns"] == pytest.approx(50_000 + extra, rel=0.04)
