"""A policy of several modules: helpers and hooks taken over are compiled with it, and part of its digest."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from hvbench.related import related, source_digest
from tests.builders import MS, bundled, compute, host, load_file, numbers, run, vm

PART = '''
from hvbench.policy import jit, state

@state("vcpu")
class Vcpu:
    turns: int = 0

@jit
def slice_of(host, vcpu):
    host.vcpu[vcpu].turns += 1
    return 1_000_000 * host.vcpu[vcpu].turns
'''

POLICY = '''
"""A policy of two files."""
from hvbench.policy import hookimpl, runq_first
from made_part import Vcpu, slice_of

@hookimpl
def sched_pick_next(host, pcpu, prev, now):
    vcpu = runq_first(host)
    if vcpu < 0:
        return -1, 0
    return vcpu, slice_of(host, vcpu)
'''


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "made_part.py").write_text(PART)
    (tmp_path / "made_policy.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "made_part", raising=False)
    return load_file(tmp_path / "made_policy.py")


def test_a_helper_of_another_file_is_part_of_the_policy(policy: ModuleType) -> None:
    assert [part.__name__ for part in related(policy)[1:]] == ["made_part"]


def test_its_source_is_part_of_the_digest(policy: ModuleType) -> None:
    before = source_digest(policy)
    part = Path(str(sys.modules["made_part"].__file__))
    part.write_text(PART.replace("1_000_000", "2_000_000"))
    assert source_digest(policy) != before


def test_it_runs_compiled_with_its_state(kernel: object, policy: ModuleType) -> None:
    """Two hogs with slices of 1, 2, 3 ms: after 12 ms each has had three."""
    spec = host([vm([[compute(1 << 50)]]), vm([[compute(1 << 50)]])], horizon_ns=12 * MS)
    done = run(spec, policy)
    assert done.error is None
    assert numbers(done.vcpu["ran_ns"]) == [6 * MS, 6 * MS]
    assert done.fingerprint() == run(spec, policy, "interpreted").fingerprint()


def test_what_hvbench_exports_is_no_part_of_a_policy() -> None:
    assert related(bundled("credit")) == [bundled("credit")]


def test_balance_is_made_of_cfs_and_what_it_shares_with_eevdf() -> None:
    names = [part.__name__.rpartition(".")[2] for part in related(bundled("balance"))]
    assert names == ["balance", "_linux", "cfs", "_quota"]
