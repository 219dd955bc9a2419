"""When a guest writes dirty pages back: at a share of the memory that it can use, which a balloon lessens."""

from __future__ import annotations

import types

import pytest

from hvbench.build_memory import GuestMemory
from hvbench.policy import hookimpl
from hvbench.state.records_memory import OWN
from tests.kernel.memory_rig import SECOND, WRITE, compute, op, run, sleep, stack

PAGES = 1000
BACKGROUND = PAGES // 10


def balloon_to(size: int) -> types.ModuleType:
    """A policy that keeps every VM at a size."""
    module = types.ModuleType(f"memory_rig_balloon_to_{size}")

    def mem_balloon_target(host, vm):  # type: ignore[no-untyped-def]
        return size

    module.mem_balloon_target = hookimpl(mem_balloon_target)  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("size", "dirtied", "written_back"),
    [
        (PAGES, BACKGROUND, False),
        (PAGES, BACKGROUND + 2, True),
        # half of the memory is the balloon's: so is half of the threshold
        (PAGES // 2, BACKGROUND // 2, False),
        (PAGES // 2, BACKGROUND // 2 + 2, True),
    ],
)
def test_the_threshold_is_a_share_of_what_the_balloon_leaves(size: int, dirtied: int, written_back: bool) -> None:
    writes = [op("fwrite", 0, page, 1, WRITE) for page in range(dirtied)]
    program = [[sleep(SECOND), *writes, compute(1000), sleep(100 * SECOND)]]
    memory = run([program], [GuestMemory(PAGES)], [[(OWN, 400)]], stack(balloon_to(size)), frames=2048)
    vm = memory.tables["vmem"][0]
    assert vm["ballooned"] == PAGES - size
    assert (vm["dirty"] < dirtied) == written_back
