"""Broken copies of the bundled policies: the kit catches each by the name of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen

from hvbench.plugins import Registry
from hvbench.testing.checks import Outcome, Status
from hvbench.testing.kit import check_policy

ROOT = Path(__file__).resolve().parent.parent.parent


@frozen
class Mutant:
    """A bundled file, what is changed in it (old, new), the check that finds it, and what it says."""

    file: str
    changes: tuple[tuple[str, str], ...]
    check: str
    says: str = ""
    more: str = ""


RR = "scheduler/round_robin"
PICK = "def sched_pick_next(host, pcpu, prev, now):\n"
MUTANTS = {
    "an answer that is illegal one time in many": Mutant(
        RR, ((PICK, PICK + "    if now % 97 == 13:\n        return host.vcpus, 1000\n"),), "legal", "answered"
    ),
    "an exception now and then": Mutant(
        RR, ((PICK, PICK + "    if now % 97 == 13:\n        raise ValueError('odd')\n"),), "legal", "ValueError: odd"
    ),
    "a counter in the module": Mutant(
        RR,
        ((PICK, PICK + "    CALLS.append(pcpu)\n    if len(CALLS) % 7 == 0:\n        return -1, 500\n"),),
        "repeatable",
        "two runs of one host differ",
        "CALLS = []\n",
    ),
    "random numbers of its own": Mutant(
        RR,
        ((PICK, PICK + "    if random.random() < 0.1:\n        return -1, 500\n"),),
        "repeatable",
        "two runs of one host differ",
        "import random\n",
    ),
    "the hash of a text": Mutant(
        RR,
        ((PICK, PICK + "    if hash('salt') % 3 != hash('sugar') % 3:\n        return -1, 500 + hash('salt') % 40\n"),),
        "repeatable-elsewhere",
        "another process computes something else",
    ),
    "a write to the kernel's table": Mutant(
        RR, ((PICK, PICK + "    host.vcpu.columns['weight'][0] = 7\n"),), "no-writes", "vcpu.weight"
    ),
    "a mask that is too short": Mutant(
        RR, ((PICK, PICK + "    if pcpu > 63:\n        return 1 << pcpu, 1\n"),), "many-pcpus", "sched_pick_next"
    ),
    "a division by the number of VMs": Mutant(
        RR,
        (),
        "no-vms",
        "ZeroDivisionError",
        "@hookimpl\ndef sched_init(host, now):\n    x = 100 // host.vms\n",
    ),
    "a neighbour that is not there": Mutant(
        RR, ((PICK, PICK + "    if host.pcpu[pcpu ^ 1].current < -5:\n        return -1, 0\n"),), "one-pcpu", ""
    ),
    "a vCPU that is never run": Mutant(
        RR,
        ((PICK, PICK + "    if runq_first(host) == 2 and runq_next(host, 2) < 0:\n        return -1, 0\n"
          "    if runq_first(host) == 2:\n        return runq_next(host, 2), host.params.timeslice_ns\n"),),
        "starvation-free",
        "vCPU 0 of VM 2 was runnable for",
    ),
    "a pCPU that idles for nothing": Mutant(
        RR, ((PICK, PICK + "    if now % 3 == 0 and prev < 0:\n        return -1, 90_000\n"),), "work-conserving", ""
    ),
    "a parameter that nobody reads": Mutant(
        RR, (("host.params.timeslice_ns", "7_000_000"),), "parameters-used", "declared but ignored: timeslice_ns"
    ),
    "a claim that does not exist": Mutant(
        RR, (('"work-conserving"', '"work-conservin"'),), "claims-known", "did you mean"
    ),
    "a forgotten credit charge": Mutant(
        "scheduler/credit", (("v.credit_ns -= ran_ns", "pass"),), "weight-proportional", "is its share"
    ),
    "a storage queue that loses one request in a thousand": Mutant(
        "storage/das",
        (),
        "requests-complete",
        "were never completed",
        '''
from hvbench.policy import blk_first, blk_next, state


@state("host")
class Own:
    arrivals: int = 0


@state("request")
class Request:
    lost: int = 0


@hookimpl
def blk_insert(host, request, dev, now):
    host.own.arrivals += 1
    host.request[request].lost = 1 if host.own.arrivals % 1000 == 0 else 0


@hookimpl
def blk_dispatch(host, dev, now):
    request = blk_first(host, dev)
    while request >= 0 and host.request[request].lost == 1:
        request = blk_next(host, request)
    return request
''',
    ),
    "a disk queue served from its end": Mutant(
        "storage/das",
        (),
        "fifo",
        "was served before one that had waited longer",
        '''
from hvbench.policy import blk_first, blk_next


@hookimpl
def blk_dispatch(host, dev, now):
    request = blk_first(host, dev)
    while blk_next(host, request) >= 0:
        request = blk_next(host, request)
    return request
''',
    ),
    "a switch that floods everything": Mutant(
        "switch/bridged",
        (),
        "delivers-inside",
        "frames between other VMs left by",
        "\n\n@hookimpl\ndef net_forward(host, frame, in_port, now):\n    return -2\n",
    ),
    "a switch that loses a VM's frames": Mutant(
        "switch/bridged",
        (),
        "messages-arrive",
        "",
        "\n\n@hookimpl\ndef net_forward(host, frame, in_port, now):\n"
        "    return -1 if in_port == 0 else host.frame[frame].target_port\n",
    ),
    "a switch queue served from its end": Mutant(
        "switch/bridged",
        (),
        "fifo",
        "was served before one that had waited longer",
        "\n\nfrom hvbench.policy import net_first, net_next\n\n\n@hookimpl\ndef net_dequeue(host, port, now):\n"
        "    frame = net_first(host, port)\n    while net_next(host, frame) >= 0:\n"
        "        frame = net_next(host, frame)\n"
        "    return frame\n",
    ),
    "an admission that refuses what fits": Mutant(
        "memory/static", (("return max(0, -room)", "return 1"),), "admits-what-fits", "refuses VM 0"
    ),
    "a static partition that swaps": Mutant(
        "memory/static",
        (),
        "never-reclaims",
        "pages were",
        "\n\nfrom hvbench.policy import BY_SWAP, reclaim, set_timer\n\n\n@hookimpl\ndef mem_init(host, now):\n"
        "    set_timer(host, 0, now + 1_000_000_000)\n\n\n@hookimpl\ndef mem_timer(host, timer, now):\n"
        "    reclaim(host, 0, BY_SWAP, 20)\n",
    ),
    "a cost in another unit": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=ns(params.exit) * 10**6"),), "costs-units", "10 ms"
    ),
    "a cost that is no number": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=None"),), "costs-complete", "halt_ns is None"
    ),
    "a cost below zero": Mutant(
        "technique/hardware", (("halt_ns=ns(params.exit)", "halt_ns=-5"),), "costs-finite", "cannot be cheaper"
    ),
}  # fmt: skip


def outcome_of(folder: Path, mutant: Mutant) -> Outcome:
    """The named check of a mutant, in plain Python: it is used once."""
    source = (ROOT / "plugins" / f"{mutant.file}.py").read_text()
    for old, new in mutant.changes:
        assert old in source, f"{mutant.file} has no {old!r} any more"
        source = source.replace(old, new)
    if "runq_next" in source and "import" in source and mutant.file == RR:
        source = source.replace("import hookimpl", "import hookimpl, runq_next", 1)
    path = folder / f"{Path(mutant.file).name}_mutant.py"
    path.write_text(source + "\n\n" + mutant.more)
    report = check_policy(Registry().load_file(path), effort="quick", only=[mutant.check], compiles=False)
    return report.outcomes[0]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_name(tmp_path: Path, kernel: object, name: str) -> None:
    mutant = MUTANTS[name]
    outcome = outcome_of(tmp_path, mutant)
    assert outcome.status is Status.FAIL, outcome
    assert mutant.says in outcome.detail
    if not mutant.check.startswith(("costs", "claims", "parameters")):
        assert outcome.story, "a failure shows the host on which it happened"


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS.values()}))
def test_what_is_not_mutated_passes_the_same_checks(tmp_path: Path, kernel: object, file: str) -> None:
    checks = sorted({mutant.check for mutant in MUTANTS.values() if mutant.file == file})
    for check in checks:
        assert outcome_of(tmp_path, Mutant(file, (), check)).status is Status.PASS, check
