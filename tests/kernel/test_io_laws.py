"""Laws of storage and network on random hosts under random legal policies; compiled and interpreted alike."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.build_io import FlowSpec, IoSpec, storage_path, switch_config
from hvbench.machine import Array, Disk, Filer, Nic
from hvbench.paths import DIRECT_PATH, NATIVE_SWITCH, SwitchConfig
from hvbench.policy import blk_first, blk_next, net_first, net_next
from hvbench.state.schema import STORAGE_SLOT, SWITCH_SLOT
from tests.io_hosts import (
    MS,
    T,
    chosen,
    compute,
    forever,
    free_lists_are_whole,
    module_of,
    plugin,
    read,
    recv,
    row,
    run,
    send,
    spec_of,
    write,
)

PATHS = {n: storage_path(plugin("storage", n), plugin("storage", n).Params()) for n in ("das", "nas", "san")}
PATHS["direct"] = DIRECT_PATH
SECONDS = 1_000 * MS


@st.composite
def machines(draw):
    """Equipment: a path, a switch, small queues and windows."""
    emulated = draw(st.booleans())
    switch = SwitchConfig() if emulated else NATIVE_SWITCH
    return IoSpec(
        path=PATHS[draw(st.sampled_from(sorted(PATHS)))],
        switch=attrs.evolve(
            switch, port_queue=draw(st.integers(1, 8)), segmentation_offload=draw(st.booleans())
        ),
        disk=Disk(channels=draw(st.integers(1, 3)), seek_ns=draw(st.sampled_from([0, 4 * MS]))),
        nic=Nic(
            count=draw(st.integers(1, 2)),
            latency_ns=draw(st.sampled_from([0, 30_000, 3 * MS])),
            queue_frames=draw(st.integers(1, 300)),
        ),
        filer=Filer(cache_bytes=draw(st.sampled_from([0, 1 << 17]))),
        array=Array(cache_bytes=draw(st.sampled_from([0, 1 << 17]))),
        requests=64,
        window_bytes=draw(st.sampled_from([3_000, 20_000, 131_072])),
        send_buffer_bytes=draw(st.sampled_from([5_000, 4_194_304])),
        receive_buffer_bytes=draw(st.sampled_from([5_000, 6_291_456])),
    )


@st.composite
def programs(draw, protocols=("tcp", "udp", "unix")):
    """VMs that talk to each other and to the outside, and read and write in between.

    All messages stand in one order, and every thread does its part of them in that order: nobody waits for ever.
    """
    vms = draw(st.integers(1, 3))
    ends = st.integers(-1, vms - 1)
    flows = []
    for proto in draw(st.lists(st.sampled_from(protocols), min_size=1, max_size=4)):
        a = draw(ends)
        b = draw(ends.filter(lambda x, a=a: x >= 0 or a >= 0))
        flows.append(FlowSpec("unix" if a == b else "tcp" if proto == "unix" else proto, a, b))
    ops = {end: [] for end in range(-1, vms)}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["message", "message", "disk", "compute"]))
        if kind == "message":
            f = draw(st.integers(0, len(flows) - 1))
            end = draw(st.integers(0, 1))
            size = draw(st.sampled_from([1, 700, 1448, 9_000, 60_000]))
            flow = flows[f]
            here, there = (flow.a, flow.b) if end == 0 else (flow.b, flow.a)
            ops[here].append(send(f, end, size))
            ops[there].append(recv(f, 1 - end, size, 5 * MS))
        elif kind == "disk":
            vm = draw(st.integers(0, vms - 1))
            page, pages = draw(st.integers(0, 200)), draw(st.integers(1, 40))
            ops[vm].append(write(page, pages) if draw(st.booleans()) else read(page, pages))
        else:
            ops[draw(ends)].append(compute(draw(st.integers(1, 2 * MS))))
    group = [T(vm, (*ops[vm], forever())) for vm in range(vms)]
    group.append(T(0, (*ops[-1], forever()), outside=True))
    return [group], [flows]


def random_policies(seed: int, losses: int):
    """Legal answers drawn from a counter; `losses` of 100 frames are dropped."""
    state = [seed]

    def roll(bound):
        state[0] = (state[0] * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        return (state[0] >> 33) % bound

    def pick(first, following, host, where):
        waiting, at = [], first(host, where)
        while at >= 0:
            waiting.append(at)
            at = following(host, at)
        return waiting[roll(len(waiting))] if waiting else -1

    storage = module_of(
        "storage",
        blk_dispatch=lambda host, dev, now: pick(blk_first, blk_next, host, dev),
        blk_limit_depth=lambda host, vm, dev, now: 1 + roll(3),
        blk_select_path=lambda host, request, paths, now: roll(paths),
        blk_allow_merge=lambda host, request, other, now: roll(2),
        blk_service=lambda host, request, dev, now: roll(1000),
    )

    def net_forward(host, frame, in_port, now):
        if roll(100) < losses:
            return -1
        return -2 if roll(4) == 0 else host.frame[frame].target_port

    switch = module_of(
        "switch",
        net_forward=net_forward,
        net_enqueue=lambda host, frame, port, now: 0 if roll(100) < losses else 1,
        net_dequeue=lambda host, port, now: pick(net_first, net_next, host, port),
        net_select_uplink=lambda host, in_port, half, uplinks, now: roll(uplinks),
    )
    return [chosen(STORAGE_SLOT, "random-storage", storage), chosen(SWITCH_SLOT, "random-switch", switch)]


def finished(memory) -> bool:
    """Every thread has come to its last operation."""
    return all(int(t["op"]) == int(t["op_end"]) - 1 for t in memory.tables["thread"])


@settings(max_examples=60)
@given(machines(), programs(), st.integers(0, 2**32), st.integers(0, 25))
def test_nothing_is_lost_twice_or_made_up(io, program, seed, losses):
    """Requests, frames and bytes are conserved after each event, and everybody finishes."""
    groups, flows = program
    spec = spec_of(groups, io, flows, horizon_ns=300 * SECONDS, pcpus=2)
    memory = run(spec, random_policies(seed, losses), step=1)
    assert finished(memory)
    for number in range(row(memory, "io")["halves"]):
        h = row(memory, "half", number)
        if h["proto"] != 1:
            assert h["consumed"] == h["accepted"] and h["lost_bytes"] == h["held_bytes"] == h["unsent"] == 0
    assert row(memory, "io")["submitted"] == row(memory, "io")["completed"]
    free_lists_are_whole(memory)


@settings(max_examples=30)
@given(machines(), programs(), st.integers(0, 2**32))
def test_recordings_pass_their_seam_with_traffic_on_the_way(io, program, seed):
    groups, flows = program
    # no last operation that lasts: the recording begins again and again, and some of its messages are left behind
    looping = [[attrs.evolve(t, ops=(*t.ops[:-1], compute(MS))) for t in group] for group in groups]
    cut = [[attrs.evolve(t, ops=tuple(o for o in t.ops if o[0] != "recv")) for t in group] for group in looping]
    for groups in (looping, cut):
        memory = run(spec_of(groups, io, flows, horizon_ns=60 * MS, pcpus=2), random_policies(seed, 3), step=7)
        free_lists_are_whole(memory)


@settings(max_examples=25)
@given(machines(), programs(protocols=("tcp",)), st.integers(0, 2**32))
def test_the_same_host_runs_the_same_twice(io, program, seed):
    groups, flows = program
    spec = spec_of(groups, io, flows, horizon_ns=60 * SECONDS, pcpus=2)
    first, second = (run(spec, random_policies(seed, 5), check=False, step=10**6) for _ in range(2))
    assert [int(d) for d in first.tables["axis"]["digest"]] == [int(d) for d in second.tables["axis"]["digest"]]
    assert int(first.header["events"][0]) == int(second.header["events"][0])


def _mixed_host(path, config, horizon_ns):
    groups, flows = [], []
    for v in range(4):
        groups.append(
            [
                T(
                    v,
                    (compute(30_000), read(v), send(0, 0, 2_000), recv(0, 0, 50_000), write(3, 20), send(1, 0, 9_000)),
                ),
                T(v, (recv(0, 1, 2_000), compute(20_000), send(0, 1, 50_000)), outside=True),
                T((v + 1) % 4, (recv(1, 1, 9_000), compute(2_000), send(2, 0, 400), recv(2, 0, 400, MS))),
                T(v, (recv(2, 1, 400, MS), send(2, 1, 400))),
            ]
        )
        flows.append([FlowSpec("tcp", v, -1), FlowSpec("tcp", v, (v + 1) % 4), FlowSpec("udp", (v + 1) % 4, v)])
    nic = Nic(queue_frames=64)
    return spec_of(groups, IoSpec(path=path, switch=config, nic=nic), flows, horizon_ns=horizon_ns, pcpus=2)


@pytest.mark.parametrize(
    ("storage", "switch"),
    [("das", "bridged"), ("san", "bridged"), ("nas", "flooding"), ("idle_before_request", "bridged")],
)
def test_compiled_and_interpreted_kernels_agree_to_the_last_byte(storage, switch, kernel):
    modules = plugin("storage", storage), plugin("switch", switch)
    params = [m.Params() if hasattr(m, "Params") else None for m in modules]
    spec = _mixed_host(storage_path(modules[0], params[0]), switch_config(modules[1], params[1]), 30 * MS)
    memories = []
    for interpreted in (True, False):
        memory = build(spec)
        policies = [chosen(STORAGE_SLOT, storage, modules[0]), chosen(SWITCH_SLOT, switch, modules[1])]
        bind(memory, policies, interpreted=interpreted)
        loop = Loop(memory, interpreted)
        loop.boot()
        loop.run(10**6)
        memories.append(memory)
    first, second = memories
    assert int(first.header["error"][0]) == 0 and int(first.header["events"][0]) > 300
    assert first.header.tobytes() == second.header.tobytes()
    for name, table in first.tables.items():
        if name != "hook":
            assert np.array_equal(table, second.tables[name]), name
