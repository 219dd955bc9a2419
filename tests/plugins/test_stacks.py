"""Named stacks: what they stand for, what they refuse, and that the order of layers matters as documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.build_memory import GuestMemory
from hvbench.cell import Cell
from hvbench.choices import DEFAULT, parse_choice, parse_choices
from hvbench.errors import UserError
from hvbench.plugins import Registry, load_registry
from hvbench.stacks import layers_of
from hvbench.state.records_memory import ANON
from hvbench.worker import cell_of, spec_of
from hvbench.workload import load_workload
from tests.kernel import memory_rig as rig
from tests.kernel.memory_rig import MS, SECOND, policy, sleep, stack, touch

STACK = '''
"""My order.

Overview: an example.
"""

import attrs

from hvbench.policy import Layer, hookimpl, param

AXIS = "memory"


@attrs.frozen
class Params:
    tax_percent: int = param(50, unit="percent", help="tax", source="here", low=0, high=99)


@hookimpl
def hvbench_memory_stack(params):
    return %s
'''


def written(folder: Path, layers: str) -> Path:
    path = folder / "mine.py"
    path.write_text(STACK % layers)
    return path


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def names(choice):
    return [p.name for p, _ in choice.policies]


def test_esx_is_share_balloon_swap_in_that_order(registry):
    choice = parse_choice("memory", "esx", registry)
    found = names(choice)
    assert choice.label == "esx"
    order = [found.index(name) for name in ("page-sharing", "idle-tax", "overcommit", "esx-states")]
    assert order == sorted(order) and found[-1] == "esx-states"


def test_a_named_stacks_parameters_reach_its_layers_and_its_label(registry):
    choice = parse_choice("memory", "esx:minfree=true:tax=0%", registry)
    params = {p.name: v for p, v in choice.policies}
    assert params["idle-tax"].tax_percent == 0 and params["esx-states"].minfree is True
    assert choice.label == "esx:minfree=true:tax=0%"
    assert parse_choice("memory", choice.label, registry).canonical() == choice.canonical()


def test_a_sweep_over_a_named_stack_gives_a_choice_each(registry):
    labels = [c.label for c in parse_choices("memory", "esx:tax={0,75}%", registry)]
    assert labels == ["esx:tax=0%", "esx"]


def test_all_has_named_stacks_too(registry):
    assert "esx" in [c.label for c in parse_choices("memory", "all", registry)]


def test_a_stack_from_a_file_stacks_with_others_like_any_policy(registry, tmp_path):
    path = written(tmp_path, '(Layer("idle-tax", {"tax_percent": params.tax_percent}), Layer("overcommit"))')
    choice = parse_choice("memory", f"page-sharing+{path}:tax=20%", registry)
    assert names(choice) == ["page-sharing", "idle-tax", "overcommit"]
    assert choice.policies[1][1].tax_percent == 20
    assert choice.label == "page-sharing+mine:tax=20%"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("()", "hvbench_memory_stack returned (); a tuple of hvbench.policy.Layer is needed"),
        ('("idle-tax",)', "a tuple of hvbench.policy.Layer is needed"),
        ('(Layer("idel-tax"),)', "no memory policy 'idel-tax'"),
        ('(Layer("esx"),)', "its layer esx is a named stack itself"),
        ('(Layer("idle-tax", {"tax": 5}),)', "its layer idle-tax has no parameter 'tax'"),
        ('(Layer("idle-tax", {"tax_percent": 100}),)', "is above the greatest legal value"),
        ('(Layer("balloon"), Layer("balloon"))', "has balloon twice"),
        ('tuple(Layer("balloon") for _ in range(9))', "has 9 layers; 8 at most"),
    ],
)
def test_a_wrong_stack_is_refused_by_name(registry, tmp_path, layers, message):
    with pytest.raises(UserError) as error:
        parse_choice("memory", str(written(tmp_path, layers)), registry)
    assert message in str(error.value)


def test_a_stack_has_no_hooks_of_its_own(registry, tmp_path):
    path = written(tmp_path, '(Layer("balloon"),)')
    path.write_text(path.read_text() + "\n\n@hookimpl\ndef mem_init(host):\n    pass\n")
    with pytest.raises(UserError, match="names other memory policies"):
        parse_choice("memory", str(path), registry)


def test_layers_of_gives_policies_and_parameters(registry):
    found = layers_of(registry.get("memory", "esx"), policy("esx").Params(tax_percent=10), registry)
    assert {p.name: v for p, v in found}["idle-tax"].tax_percent == 10


def test_a_named_stack_crosses_to_a_worker_under_its_name(registry):
    choices = {axis: parse_choice(axis, text, registry) for axis, text in DEFAULT.items()}
    choices["memory"] = parse_choice("memory", "esx:tax=5%", registry)
    cell = Cell(load_workload("tight-batch"), choices, 1, SECOND, 0)
    there = cell_of(spec_of(cell), registry)
    assert there.labels == cell.labels and there.key == cell.key


# order -----------------------------------------------------------------------------------------------------------


def pressed(*layers):
    """Two VMs that hold cache and idle memory on a machine that is 10 % too small, filled slowly."""
    ops = [x for p in range(0, 900, 30) for x in (touch(0, p, 30, write=True), sleep(200 * MS))]
    memory = rig.run(
        [[[*ops, sleep(1000 * SECOND)]]] * 2,
        [GuestMemory(1000)] * 2,
        [[(ANON, 900)]] * 2,
        stack(*layers),
        frames=1700,
        host_swap_pages=2000,
        horizon_ns=20 * SECOND,
    )
    return memory.tables["vmem"]


SWAP_ALWAYS = '''
from hvbench.policy import BY_SWAP, hookimpl, reclaim

@hookimpl
def mem_reclaim(host, pages, state):
    reclaim(host, -1, BY_SWAP, pages)
    return pages
'''


def test_who_stands_above_is_asked_first(tmp_path):
    """balloon over a swapper that acts in every state leaves it nothing to do in soft; below it nothing is left."""
    import importlib.util

    path = tmp_path / "swap_always.py"
    path.write_text(SWAP_ALWAYS)
    spec = importlib.util.spec_from_file_location("swap_always", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first = pressed("balloon", module)
    last = pressed(module, "balloon")
    assert first["host_swap_out_pages"].sum() < last["host_swap_out_pages"].sum()


def test_the_last_layer_that_sets_thresholds_counts():
    def thresholds(*layers):
        memory, _ = rig.host(
            [[[sleep(SECOND)]]], [GuestMemory(1000)], [[(ANON, 10)]], stack(*layers), frames=100_000
        )
        machine = memory.tables["machine"][0]
        return [int(machine[n]) for n in ("high", "clear", "soft", "hard", "low")]

    assert thresholds("balloon") == [6000, 0, 4000, 2000, 1000]
    six = ("esx-states", {"minfree": True})
    # minFree of a host below 4 GiB is 6 % of it
    assert thresholds("balloon", six) == [24_000, 6000, 3840, 1920, 960]
    assert thresholds(six, "balloon") == [6000, 0, 4000, 2000, 1000]


def test_minfree_is_a_sliding_scale():
    gib = 1 << 18
    module = policy("esx-states")
    assert module.minfree_ppm(4 * gib) == 60_000
    assert module.minfree_ppm(12 * gib) == (4 * 60_000 + 8 * 40_000) // 12
    # 28 GiB: 0.24 + 0.32 + 0.32 GiB = 899 MiB, the figure that VMware's documents give
    assert module.minfree_ppm(28 * gib) * 28 * 1024 // 1_000_000 in (900, 901, 899)
    assert module.minfree_ppm(100 * gib) == (88 + 72) * 10_000 // 100


def test_large_pages_are_shared_only_from_clear_on():
    """Two VMs of equal large pages: nothing is merged while memory is free, all of it once it is not."""

    def merged(frames):
        same = [[touch(0, 0, 600), sleep(1000 * SECOND)]]
        memory = rig.run(
            [same, same],
            [GuestMemory(1024)] * 2,
            [[(ANON, 600)]] * 2,
            stack(
                ("page-sharing", {**rig.FAST_SCAN, "scan_time_ns": 200 * MS, "period_ns": 20 * MS}),
                ("esx-states", {"minfree": True}),
            ),
            frames=frames,
            horizon_ns=2 * SECOND,
            large_backing=True,
        )
        return int(memory.tables["vmem"]["merges"].sum()), int(memory.tables["vmem"]["extents_split_share"].sum())

    assert merged(20_000)[1] == 0
    merges, splits = merged(1750)
    assert merges > 500 and splits > 0
