"""Hashes of guest pages, and rt-app's tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from importing import convert, counts, replay, shared
from test_import_schedlog import rows_of

from hvbench.errors import UserError
from hvbench.traces.format import FLAG_COMMON, FLAG_SAMPLED, FLAG_WRITE, OPS, Trace
from hvbench.traces.importers.page_hashes import ZERO_HASH
from hvbench.traces.importers.registry import load_formats
from hvbench.traces.importers.run import Settings

ZERO = f"{ZERO_HASH:016x}"
HASHES = f"""\
# t=0.000 vm=0 changed=4
0 0 00000000000000aa
0 1 {ZERO}
0 2 00000000000000bb
0 1f {ZERO}
# t=0.000 vm=1 changed=2
1 0 00000000000000cc
1 1 00000000000000aa
# t=2.500 vm=0 changed=2
0 1 00000000000000dd
0 2 {ZERO}
"""


def test_page_hashes_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "pages.txt"
    path.write_text(HASHES)
    assert load_formats().guess(path).name == "page-hashes"
    report, trace = convert("page-hashes", path, tmp_path / "x.parquet")
    c = trace.columns
    found = [
        (int(c["thread"][i]), int(c["time_ns"][i]), int(c["page"][i]), int(c["content"][i]), int(c["flags"][i]))
        for i in np.flatnonzero(c["op"] == OPS["content"]).tolist()
    ]
    later = 2_500_000_000
    assert found == [
        (0, 0, 0, 0xAA, FLAG_COMMON),  # VM 1 has it too
        (0, 0, 2, 0xBB, 0),
        (0, later, 1, 0xDD, 0),
        (0, later, 2, 0, FLAG_COMMON),  # a page that became zero
        (1, 0, 0, 0xCC, 0),
        (1, 0, 1, 0xAA, FLAG_COMMON),
    ]
    touches = np.flatnonzero((c["op"] == OPS["touch"]) & (c["thread"] == 0))
    # pages 1 and 1f of VM 0 were never anything but zero; those that changed were written in between
    assert c["page"][touches].tolist() == [0, 2, 1, 2]
    assert c["time_ns"][touches].tolist() == [0, 0, 0, 1_250_000_000]
    assert set(c["flags"][touches].tolist()) == {FLAG_WRITE | FLAG_SAMPLED}
    assert [t["tier"] for t in trace.meta["threads"]] == ["vm0", "vm1"]
    assert trace.meta["objects"][0]["pages"] == 3 or trace.meta["objects"][0]["pages"] == 0x20
    assert trace.meta["salt"] == "unkeyed hashes of the file", "identities of recordings are keyed: never the same"
    assert report.silent == ["cpu", "storage", "network"] and trace.meta["touch_resolution_ns"] == later


def test_bad_page_hashes(tmp_path: Path) -> None:
    path = tmp_path / "pages.txt"
    path.write_text(HASHES + "0 zz 00\n")
    with pytest.raises(UserError, match=r"pages\.txt:12: expected `# t=SECONDS vm=NUMBER changed=PAGES`, or a VM"):
        convert("page-hashes", path, tmp_path / "x.parquet")
    path.write_text(HASHES + "1 2 00000000000000aa\n")
    with pytest.raises(UserError, match=r"pages\.txt:12: expected a page of VM 0, as the line"):
        convert("page-hashes", path, tmp_path / "x.parquet")
    path.write_text(HASHES.replace("vm=1 changed=2", "vm=1 changed=3"))
    report, _ = convert("page-hashes", path, tmp_path / "x.parquet")
    assert any("pages.txt:6: 3 pages changed, 2 are listed" in note for note in report.notes)
    with pytest.raises(UserError, match="--zero none: has to be a hash in hexadecimal"):
        convert("page-hashes", path, tmp_path / "x.parquet", zero="none")


def contents_at(trace: Trace, seconds: float, vms: set[int]) -> tuple[int, int]:
    """Distinct contents of all pages of some VMs then, and how many pages are zero, from the trace's rows."""
    c = trace.columns
    pages: list[int] = []
    for vm in vms:
        memory = np.zeros(65536, np.uint64)
        mine = np.flatnonzero((c["op"] == OPS["content"]) & (c["thread"] == vm) & (c["time_ns"] <= seconds * 1e9))
        memory[c["page"][mine]] = c["content"][mine]
        pages += memory.tolist()
    return len(set(pages)), pages.count(0)


def test_the_real_page_hashes(tmp_path: Path) -> None:
    path = shared("recorded-two-vms/pagehash.txt.gz")
    assert load_formats().guess(path).name == "page-hashes"
    _, trace = convert("page-hashes", path, tmp_path / "x.parquet")
    assert counts(trace)["touch"] == counts(trace)["content"] > 80_000
    told = json.loads((path.parent / "meta.json").read_text())["shared"]
    for seconds, pages, distinct, _, _, zero, _ in told:
        vms = {0, 1} if pages == 131072 else {1}
        assert contents_at(trace, seconds + 0.1, vms) == (distinct, zero), "the recording's own count, exactly"


def test_page_hashes_replay(tmp_path: Path, kernel: object) -> None:
    path = tmp_path / "pages.txt"
    path.write_text(HASHES)
    _, trace = convert("page-hashes", path, tmp_path / "x.parquet")
    assert replay(trace, tmp_path)["guest_faults"] > 0


TASKS = """\
{ /* a comment: "no": {text} */
  "tasks": {
    "a": {"loop": 2, "delay": 100, "run": 1000, "sleep": 2000, "resume": "b", "run": 500,},
    "b": {"loop": -1, "suspend": "", "lock": "m", "runtime1": 300, "unlock": "m", // the end
          "timer": {"ref": "unique", "period": 5000}, "cpus": [0]},
  },
  "global": {"duration": 1, "default_policy": "SCHED_OTHER"},
}
"""


def test_tasks_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(TASKS)
    assert load_formats().guess(path).name == "rt-app"
    report, trace = convert("rt-app", path, tmp_path / "x.parquet", Settings(keep_names=True))
    assert [t["name"] for t in trace.meta["threads"]] == ["a-0", "b-0"]
    assert rows_of(trace, 0) == [
        ("sleep", 0, 100), ("compute", 100, 1000, 0), ("sleep", 1100, 2000), ("wake", 3100, 1),
        ("compute", 3100, 500, 0), ("compute", 3600, 1000, 0), ("sleep", 4600, 2000), ("wake", 6600, 1),
        ("compute", 6600, 500, 0),
    ]  # fmt: skip
    assert rows_of(trace, 1) == [
        ("wait", 0), ("lock", 3100), ("compute", 3100, 300, 0), ("unlock", 3400), ("sleep", 3400, 1600),
        ("wait", 5000), ("lock", 6600), ("compute", 6600, 300, 0), ("unlock", 6900), ("sleep", 6900, 3100),
    ]  # fmt: skip
    assert trace.meta["synthetic"] is True and report.silent == ["memory", "storage", "network"]
    assert "settings without a place in a trace are left out: cpus" in report.notes


def test_conditions_barriers_timers_and_memory(tmp_path: Path, kernel: object) -> None:
    path = tmp_path / "w.json"
    path.write_text(
        json.dumps(
            {
                "tasks": {
                    "w": {"loop": 2, "lock": "m", "wait": {"ref": "c", "mutex": "m"}, "unlock": "m", "mem": 10000},
                    "s": {"loop": 2, "run": 700, "sync": {"ref": "c", "mutex": "n"}, "run2": 100},
                    "t": {"loop": 3, "run": 400, "broad": "c", "timer": {"period": 300, "mode": "relative"}},
                    "x": {"loop": 1, "run": 100, "barrier": "b", "iorun": 4096},
                    "y": {"loop": 1, "run": 250, "barrier": "b", "iorun": 5000},
                },
                "global": {"io_device": "/srv/data"},
            }
        )
    )
    _, trace = convert("rt-app", path, tmp_path / "x.parquet")
    assert rows_of(trace, 0)[:6] == [
        ("lock", 0), ("unlock", 0), ("wait", 0), ("lock", 400), ("unlock", 400), ("touch", 400, 0, 1)
    ]  # fmt: skip
    # the timer is late each time and counts from then: no sleep at all
    assert [row[0] for row in rows_of(trace, 2) if row[0] != "wake"] == ["compute"] * 3
    assert ("barrier", 100) in rows_of(trace, 3) and ("barrier", 250) in rows_of(trace, 4)
    assert counts(trace)["fwrite"] == 2 and sorted(o["pages"] for o in trace.meta["objects"]) == [2, 3]
    assert replay(trace, tmp_path, "20ms")["cpu_utilization"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((TASKS, "[1]"), r"w\.json: expected an object with `tasks`"),
        (("1000,", "1000 7"), r"w\.json:3: expected JSON as rt-app reads it"),
        (('"run": 1000', '"run": -5'), r"run is -5: has to be a whole number, 0 or more"),
        (('"sleep": 2000', '"fork": "b"'), r"task 'a': the event 'fork' is not supported"),
        (('"duration": 1', '"duration": -1'), r"tasks loop forever and no duration is given: --duration TIME"),
        (('"unlock": "m"', '"unlock": "q"'), r"task 'b' unlocks 'q', which it does not hold"),
        (('"unlock": "m"', '"lock2": "m"'), r"task 'b' locks what it holds already"),
        (('"period": 5000', '"per": 5000'), r"timer: period is None: has to be a whole number, 1 or more"),
        (('"loop": 2, "delay": 100, "run": 1000, "sleep": 2000', '"loop": -1'), r""),
    ],
)
def test_what_cannot_be_read(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(TASKS.replace(*change))
    if not message:  # runs of 500 us for the second of `duration`
        assert counts(convert("rt-app", path, tmp_path / "x.parquet")[1])["compute"] > 2000
        return
    with pytest.raises(UserError, match=message):
        convert("rt-app", path, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_tasks_that_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text('{"tasks": {"a": {"lock": "m", "unlock": "m"}}, "global": {"duration": 1}}')
    with pytest.raises(UserError, match="task 'a' loops without taking time"):
        convert("rt-app", path, tmp_path / "x.parquet")
