"""The bundled switch policies: what tells their configurations apart."""

from __future__ import annotations

import attrs
import pytest

from hvbench.build_io import FlowSpec, IoSpec, refusal, switch_config
from hvbench.paths import DEFAULT_SWITCH, DIRECT_PATH
from hvbench.state.schema import SWITCH_SLOT
from tests.io_hosts import MS, T, chosen, forever, plugin, recv, row, run, send, spec_of

SIZE = 300_000


def config_of(name: str, **params):
    module = plugin("switch", name)
    return switch_config(module, module.Params(**params) if hasattr(module, "Params") else None)


def inside(config, policies=(), size=SIZE):
    group = [T(0, (send(0, 0, size), forever())), T(1, (recv(0, 1, size), forever()))]
    io = IoSpec(path=DIRECT_PATH, switch=config)
    return run(spec_of([group], io, [[FlowSpec("tcp", 0, 1)]]), policies)


def test_bridged_is_what_a_policy_without_a_configuration_gets():
    assert config_of("bridged") == DEFAULT_SWITCH == config_of("flooding")


def test_internal_costs_the_same_inside_and_has_no_uplink():
    internal, bridged = config_of("internal"), config_of("bridged")
    assert attrs.evolve(internal, uplinks=True) == bridged
    a, b = inside(internal), inside(bridged)
    assert int(a.header["events"][0]) == int(b.header["events"][0])
    assert row(a, "half")["consumed"] == SIZE


def test_internal_names_the_vm_that_talks_to_the_outside():
    group = [T(1, (send(0, 0, 1), forever())), T(1, (recv(0, 1, 1), forever()), outside=True)]
    spec = spec_of([[T(0, (forever(),))], group], IoSpec(switch=config_of("internal")), [[], [FlowSpec("tcp", 1, -1)]])
    assert "shop" in refusal(spec, ["idle", "shop"])


@pytest.mark.parametrize("name", ["bridged", "internal"])
@pytest.mark.parametrize("field", ["kick_ns", "interrupt_ns", "frame_ns", "kib_ns"])
def test_every_cost_of_a_switch_costs_cpu(name, field):
    dear = config_of(name, **{field: getattr(config_of(name), field) + 1_000})
    assert _cpu(inside(dear)) > _cpu(inside(config_of(name)))


def _cpu(memory) -> int:
    return int(memory.tables["vcpu"]["ran_ns"].sum())


def test_a_short_port_queue_drops():
    def burst(queue):
        groups = [[T(v, (send(0, 0, SIZE), forever())), T(3, (recv(0, 1, SIZE), forever()))] for v in range(3)]
        io = IoSpec(switch=config_of("bridged", port_queue=queue, segmentation_offload=False))
        memory = run(
            spec_of(groups, io, [[FlowSpec("tcp", v, 3)] for v in range(3)], pcpus=8, horizon_ns=9_000 * MS),
            check=False,
        )
        assert [row(memory, "half", 2 * v)["consumed"] for v in range(3)] == [SIZE] * 3
        return row(memory, "port", 3)["drops"]

    assert burst(2) > 0 == burst(256)


def test_the_hub_wakes_everybody_and_delivers_once():
    hub = plugin("switch", "flooding")
    memory = inside(config_of("flooding"), [chosen(SWITCH_SLOT, "flooding", hub)])
    bridged = inside(config_of("bridged"))
    assert row(memory, "half")["consumed"] == SIZE
    assert row(memory, "link", 0)["bytes"] == SIZE and row(bridged, "link", 0)["bytes"] == 0
    assert set(hub.CONTROL.worst_on) == {"web"}
