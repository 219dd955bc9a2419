"""Storage and network of a host, from the choices of a cell to the records that the kernel runs on.

`extend` adds rows, event slots and host threads to a `HostSpec` that has an `IoSpec`; `fill` writes the
records once the memory is laid out. `hvbench.build.build` calls both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.kernel.disk import PAGE_BYTES, WAYS
from hvbench.machine import Array, Disk, Filer, Nic
from hvbench.paths import DEFAULT_PATH, DEFAULT_SWITCH, Step, SwitchConfig
from hvbench.state.memory import HostMemory
from hvbench.state.records_io import (
    MOVES_ALL,
    MOVES_BACK,
    MOVES_NONE,
    MOVES_OUT,
    PORT_UPLINK,
    PORT_VM,
    PROTO_TCP,
    PROTO_UDP,
    PROTO_UNIX,
    S_DELAY,
    S_END,
    S_INTERRUPT,
    S_PIPE,
    S_STATION,
    S_THREAD,
    S_VCPU,
    S_WIRE_IN,
    S_WIRE_OUT,
    ST_CACHE,
    ST_MEDIUM,
    ST_QUEUE,
)

if TYPE_CHECKING:
    from hvbench.build import HostSpec

PROTOCOL_CODES = {"tcp": PROTO_TCP, "udp": PROTO_UDP, "unix": PROTO_UNIX}
MOVES_CODES = {"none": MOVES_NONE, "out": MOVES_OUT, "back": MOVES_BACK, "all": MOVES_ALL}
OUTSIDE = -1
TCP_HEADER_BYTES = 52
"""IP and TCP headers with time stamps: 20 + 32 (RFC 791, RFC 793, RFC 7323)."""
UDP_HEADER_BYTES = 28
FRAMING_BYTES = 38
"""Ethernet: header 14, check sequence 4, preamble 8, gap 12 (IEEE 802.3)."""
CHUNK_BYTES = 65_536
"""Largest packet before segmentation (Linux GSO_MAX_SIZE)."""
MAX_REQUEST_CHUNKS = 4


@attrs.frozen
class FlowSpec:
    """A flow of a trace group: protocol, and the VM at each end (-1: outside)."""

    proto: str
    a: int
    b: int


@attrs.frozen
class IoSpec:
    """The machine's storage and network, and the way that storage and switch policies take through them.

    `exit_ns` and `interrupt_ns` are added to each exit and each interrupt of storage and network: what the
    technique or a host OS under the hypervisor costs. `requests` bounds the block requests that exist at once.
    `uniform_threads` lays out a host thread for each VM's disk and NIC whether or not the path uses it, so that
    other entities keep their index whatever the path is.
    """

    path: tuple[Step, ...] = DEFAULT_PATH
    switch: SwitchConfig = DEFAULT_SWITCH
    disk: Disk = attrs.field(factory=Disk)
    nic: Nic = attrs.field(factory=Nic)
    filer: Filer = attrs.field(factory=Filer)
    array: Array = attrs.field(factory=Array)
    exit_ns: int = 0
    interrupt_ns: int = 0
    uniform_threads: bool = False
    requests: int = 4096
    merge_pages: int = 320
    """Linux block layer: max_sectors_kb 1280."""
    window_bytes: int = 131_072
    """Linux tcp_rmem, default."""
    send_buffer_bytes: int = 4_194_304
    """Linux tcp_wmem, maximum."""
    receive_buffer_bytes: int = 6_291_456
    """Linux tcp_rmem, maximum."""


# what policies state -------------------------------------------------------------------------------------


def storage_path(module: Any, params: Any) -> tuple[Step, ...]:
    """The path that a storage policy states, else the default. UserError for one that leads nowhere."""
    path = _stated(module, "hvbench_storage_path", params)
    if path is None:
        return DEFAULT_PATH
    name = getattr(module, "__name__", "storage policy").rpartition(".")[2]
    if not isinstance(path, (tuple, list)) or not all(isinstance(s, Step) for s in path):
        raise UserError(f"{name}: hvbench_storage_path returned {path!r}; a tuple of hvbench.policy.Step is needed")
    check_path(tuple(path), name)
    return tuple(path)


def check_path(path: tuple[Step, ...], name: str) -> None:
    """UserError for a path without exactly one medium, or that goes out on a way and does not come back."""
    media = [i for i, step in enumerate(path) if step.kind == "medium"]
    if len(media) != 1:
        raise UserError(f"{name}: its path has {len(media)} steps of kind 'medium'; it needs exactly one")
    for out, back in (("fabric_out", "fabric_in"), ("nic_out", "nic_in")):
        outs = [i for i, step in enumerate(path) if step.kind == out]
        backs = [i for i, step in enumerate(path) if step.kind == back]
        if len(outs) != len(backs) or any(i > media[0] for i in outs) or any(i < media[0] for i in backs):
            raise UserError(f"{name}: its path needs as many {back} behind the medium as {out} before it")


def switch_config(module: Any, params: Any) -> SwitchConfig:
    """The configuration that a switch policy states, else the default."""
    config = _stated(module, "hvbench_switch_config", params)
    if config is None:
        return DEFAULT_SWITCH
    if not isinstance(config, SwitchConfig):
        raise UserError(
            f"{getattr(module, '__name__', 'switch policy')}: hvbench_switch_config returned {config!r}; "
            "a hvbench.policy.SwitchConfig is needed"
        )
    return config


def _stated(module: Any, hook: str, params: Any) -> Any:
    from hvbench import hookspecs

    manager = hookspecs.plugin_manager()
    manager.register(module)
    return getattr(manager.hook, hook)(params=params)


def refusal(spec: HostSpec, names: Sequence[str]) -> str:
    """Why a host cannot be run with its switch, empty if it can: traffic to the outside needs an uplink.

    `names` are the VMs' names, in order.
    """
    if spec.io is None or spec.io.switch.uplinks:
        return ""
    talkers = {max(f.a, f.b) for group in spec.groups for f in group.flows if OUTSIDE in (f.a, f.b)}
    if not talkers:
        return ""
    who = ", ".join(names[vm] for vm in sorted(talkers))
    return f"the switch has no uplink, but {who} {'talks' if len(talkers) == 1 else 'talk'} to the outside"


# what traces say -----------------------------------------------------------------------------------------


def flows_of(meta: Mapping[str, Any], vm_of_tier: Mapping[str, int]) -> tuple[FlowSpec, ...]:
    """The flows of a trace, for an instance of it whose tiers are these VMs. The tier "outside" is outside."""
    found = []
    for flow in meta.get("flows", ()):
        a, b = (OUTSIDE if tier == "outside" else vm_of_tier[tier] for tier in flow["ends"])
        found.append(FlowSpec(flow["proto"], a, b))
    return tuple(found)


def flow_ends(meta: Mapping[str, Any], columns: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """For each row of a trace with a flow, 0 or 1: the end at which its thread is (0 elsewhere).

    That is the end of the thread's tier. Where both ends are in one tier, the process that comes first in the trace
    is end 0 and others are end 1; where a single process talks to itself, senders are end 0 and receivers end 1.
    """
    from hvbench.traces.format import OPS

    ends = np.zeros(len(columns["flow"]), np.int8)
    threads = meta["threads"]
    tiers = [t.get("tier") if t.get("role") != "outside" else "outside" for t in threads]
    processes = np.array([int(t.get("process", 0)) for t in threads], np.int64)
    for number, flow in enumerate(meta.get("flows", ())):
        rows = np.flatnonzero(columns["flow"] == number)
        if not len(rows):
            continue
        row_threads = columns["thread"][rows]
        first, second = flow["ends"]
        if first != second:
            at_second = np.array([tier == second for tier in tiers])
            ends[rows] = at_second[row_threads]
            continue
        row_processes = processes[row_threads]
        if (row_processes == row_processes[0]).all():
            ends[rows] = columns["op"][rows] == OPS["recv"]
        else:
            ends[rows] = row_processes != row_processes[0]
    return ends


def flow_operand(flow: Any, end: Any) -> Any:
    """op.x of a send or receive: the flow within its group, and the thread's end."""
    return 2 * flow + end


# laying out ------------------------------------------------------------------------------------------------


@attrs.frozen
class Plan:
    """What an IoSpec comes to on one host: records of steps and stations, threads, sizes of tables."""

    steps: tuple[dict[str, int], ...]
    stations: tuple[dict[str, int], ...]
    cache_lines: int
    storage_threads: tuple[int, ...]
    net_threads: tuple[int, ...]
    medium: Disk
    flows: int
    requests: int
    links: int


def extend(spec: HostSpec) -> HostSpec:
    """The same host with the rows, event slots and host threads that its storage and network need."""
    from hvbench.build import HostThreadSpec

    if spec.io is None:
        return spec
    plan = make_plan(spec)
    threads = list(spec.host_threads)
    for number, m in enumerate(spec.vms):
        if plan.storage_threads[number] >= 0 or spec.io.uniform_threads:
            threads.append(HostThreadSpec(number, m.weight))
    for number, m in enumerate(spec.vms):
        if plan.net_threads[number] >= 0 or spec.io.uniform_threads:
            threads.append(HostThreadSpec(number, m.weight))
    flows = plan.flows
    ports = len(spec.vms) + spec.io.nic.count
    frames = (
        64
        + 2 * flows * 64
        + ports * (max(spec.io.switch.port_queue, spec.io.nic.queue_frames) + 2)
        + spec.io.nic.count * (spec.io.nic.queue_frames + 64)
    )
    if any(s["kind"] == S_WIRE_OUT for s in plan.steps):
        frames += MAX_REQUEST_CHUNKS * plan.requests
    rows = {
        "io": 1,
        "step": len(plan.steps),
        "station": len(plan.stations),
        "cacheline": max(1, plan.cache_lines),
        "request": plan.requests,
        "vm_io": len(spec.vms) + 1,
        "half": max(1, 2 * flows),
        "frame": frames,
        "port": ports,
        "link": plan.links,
    }
    devices = plan.requests + 2 * plan.links + max(1, 2 * flows)
    return attrs.evolve(spec, host_threads=tuple(threads), devices=devices, rows={**rows, **spec.rows})


def make_plan(spec: HostSpec) -> Plan:
    """Steps, stations and threads of a host's storage and network."""
    io = spec.io
    assert io is not None
    steps, stations, lines = _lay_path(io)
    flows = [flow for group in spec.groups for flow in group.flows]
    needs_disk = any(s["kind"] == S_THREAD and s["station"] < 0 for s in steps)
    needs_nic = any(s["kind"] == S_THREAD and s["station"] >= 0 for s in steps)
    emulated = io.switch.frame_ns > 0 or io.switch.kib_ns > 0
    talks = {vm for flow in flows if flow.a != flow.b for vm in (flow.a, flow.b)}
    next_thread = sum(m.vcpus for m in spec.vms) + len(spec.host_threads)
    storage, net = [], []
    for _ in spec.vms:
        storage.append(next_thread if needs_disk else -1)
        next_thread += needs_disk or io.uniform_threads
    for number in range(len(spec.vms)):
        wanted = needs_nic or (emulated and number in talks)
        net.append(next_thread if wanted else -1)
        next_thread += wanted or io.uniform_threads
    return Plan(
        tuple(steps), tuple(stations), lines, tuple(storage), tuple(net), _medium(io), len(flows), io.requests,
        2 * io.nic.count,
    )  # fmt: skip


def _medium(io: IoSpec) -> Disk:
    at = next((step.at for step in io.path if step.kind == "medium"), "local")
    return {"local": io.disk, "filer": io.filer.disk, "array": io.array.disk}[at]


def _picoseconds(bytes_per_s: int) -> int:
    return max(1, round(1e12 / bytes_per_s))


def _lay_path(io: IoSpec) -> tuple[list[dict[str, int]], list[dict[str, int]], int]:
    """Records of a path's steps and of the stations that they lead to."""
    steps: list[dict[str, int]] = []
    stations: list[dict[str, int]] = []
    lines = 0

    def station(**fields: int) -> int:
        stations.append(fields)
        return len(stations) - 1

    def add(kind: int, **fields: int) -> None:
        steps.append({"kind": kind, "station": -1, **fields})

    for s in io.path:
        moves = MOVES_CODES[s.moves]
        costs = {"cost_ns": s.cost_ns, "kib_ns": s.kib_ns, "moves": moves}
        if s.kind == "vcpu":
            add(S_VCPU, guest_only=1, **costs)
        elif s.kind == "interrupt":
            add(S_INTERRUPT, guest_only=1, **costs)
        elif s.kind == "thread":
            add(S_THREAD, guest_only=1, **costs)
        elif s.kind == "net_thread":
            add(S_THREAD, guest_only=1, **costs | {"station": 0})
        elif s.kind == "delay":
            add(S_DELAY, **costs)
        elif s.kind == "queue":
            ps = s.kib_ns * 1000 // 1024
            at = station(
                kind=ST_QUEUE, servers=s.servers, read_ns=s.cost_ns, write_ns=s.cost_ns, ps_per_byte=ps, moves=moves
            )
            add(S_STATION, station=at)
        elif s.kind in ("fabric_out", "fabric_in"):
            moves = MOVES_OUT if s.kind == "fabric_out" else MOVES_BACK
            ps = _picoseconds(io.array.bandwidth_bytes_per_s)
            first = len(stations)
            for _ in range(s.ways):
                station(kind=ST_QUEUE, servers=1, ps_per_byte=ps, moves=moves)
            add(S_STATION, station=first, ways=s.ways)
            add(S_DELAY, cost_ns=io.array.latency_ns + s.cost_ns)
        elif s.kind == "nic_out":
            add(S_WIRE_OUT)
            at = station(ps_per_byte=_picoseconds(io.filer.bandwidth_bytes_per_s), moves=MOVES_OUT)
            add(S_PIPE, station=at)
            add(S_DELAY, cost_ns=max(0, io.filer.latency_ns - io.nic.latency_ns) + s.cost_ns)
        elif s.kind == "nic_in":
            at = station(ps_per_byte=_picoseconds(io.filer.bandwidth_bytes_per_s), moves=MOVES_BACK)
            add(S_PIPE, station=at)
            add(S_DELAY, cost_ns=max(0, io.filer.latency_ns - io.nic.latency_ns) + s.cost_ns)
            add(S_WIRE_IN)
        elif s.kind == "processor":
            filer = s.at == "filer"
            base = io.filer.service_ns if filer else io.array.controller_ns
            time = base * s.percent // 100 + s.cost_ns
            cache = io.filer.cache_bytes if filer else io.array.cache_bytes
            sets = cache // (PAGE_BYTES * WAYS)
            at = station(
                kind=ST_CACHE,
                servers=io.filer.threads if filer else s.servers,
                read_ns=time,
                write_ns=time,
                ps_per_byte=s.kib_ns * 1000 // 1024,
                moves=moves,
                cache_first=lines,
                cache_sets=sets,
            )
            lines += sets * WAYS
            add(S_STATION, station=at, skip=-2)
        elif s.kind == "medium":
            disk = _medium(io)
            at = station(
                kind=ST_MEDIUM,
                servers=min(disk.channels, disk.queue_depth),
                read_ns=disk.read_latency_ns,
                write_ns=disk.write_latency_ns,
                ps_per_byte=_picoseconds(disk.bandwidth_bytes_per_s),
                seek_ns=disk.seek_ns,
                track_seek_ns=disk.track_seek_ns,
                rotation_ns=disk.rotation_ns,
                pages=max(1, disk.capacity_bytes // PAGE_BYTES),
            )
            add(S_STATION, station=at)
            for step in steps:
                if step.get("skip") == -2:
                    step["skip"] = len(steps)
    add(S_END)
    for step in steps:
        if step.get("skip") == -2:
            step["skip"] = -1
    return steps, stations, lines


def fill(memory: HostMemory, spec: HostSpec, original: HostSpec) -> None:
    """Write the records of storage and network. `original` is the host before `extend`."""
    io = spec.io
    if io is None:
        return
    plan = make_plan(original)
    for table, records in (("step", plan.steps), ("station", plan.stations)):
        for row, fields in zip(memory.tables[table], records, strict=True):
            for name, value in fields.items():
                row[name] = value
    for table, head in (("request", "request_free"), ("frame", "frame_free")):
        rows = memory.tables[table]
        rows["next"][:-1] = np.arange(1, len(rows))
        rows["next"][-1] = -1
        memory.tables["io"][head] = 0
    _fill_vms(memory, spec, plan)
    _fill_switch(memory, spec, plan)
    _fill_flows(memory, spec)


def _fill_vms(memory: HostMemory, spec: HostSpec, plan: Plan) -> None:
    """Virtual disks lie side by side on the medium, the host's swap area behind them."""
    rows = memory.tables["vm_io"]
    share = max(1, plan.medium.capacity_bytes // PAGE_BYTES // len(rows))
    rows["disk_first_page"] = np.arange(len(rows)) * share
    rows["disk_pages"] = share
    rows["storage_thread"][:-1] = plan.storage_threads
    rows["net_thread"][:-1] = plan.net_threads


def _fill_switch(memory: HostMemory, spec: HostSpec, plan: Plan) -> None:
    io, nic = spec.io, spec.io.nic if spec.io else None
    assert io is not None and nic is not None
    vms = len(spec.vms)
    row = memory.tables["io"][0]
    mss = nic.mtu_bytes - TCP_HEADER_BYTES
    for name, value in {
        "path_digest": _digest(io.path),
        "switch_digest": _digest(io.switch),
        "ports": vms + nic.count,
        "first_uplink": vms,
        "attached_uplinks": nic.count if io.switch.uplinks else 0,
        "links": plan.links,
        "halves": 2 * plan.flows,
        "requests": plan.requests,
        "depth": plan.medium.queue_depth,
        "merge_pages": io.merge_pages,
        "exit_ns": io.exit_ns,
        "interrupt_ns": io.interrupt_ns,
        "net_kick_ns": io.switch.kick_ns,
        "net_interrupt_ns": io.switch.interrupt_ns,
        "net_frame_ns": io.switch.frame_ns,
        "net_kib_ns": io.switch.kib_ns,
        "net_ack_ns": io.switch.ack_ns,
        "mss_bytes": mss,
        "datagram_bytes": nic.mtu_bytes - UDP_HEADER_BYTES,
        "segment_overhead_bytes": TCP_HEADER_BYTES + FRAMING_BYTES,
        "chunk_bytes": CHUNK_BYTES // mss * mss if io.switch.segmentation_offload else mss,
        "window_bytes": io.window_bytes,
        "send_buffer_bytes": io.send_buffer_bytes,
        "receive_buffer_bytes": io.receive_buffer_bytes,
    }.items():
        row[name] = value
    ports = memory.tables["port"]
    ports["kind"][:vms] = PORT_VM
    ports["vm"][:vms] = np.arange(vms)
    ports["thread"][:vms] = plan.net_threads
    ports["limit"][:vms] = io.switch.port_queue
    ports["kind"][vms:] = PORT_UPLINK
    ports["link"][vms:] = 2 * np.arange(nic.count)
    ports["limit"][vms:] = nic.queue_frames
    links = memory.tables["link"]
    links["ps_per_byte"] = _picoseconds(nic.bandwidth_bytes_per_s)
    links["latency_ns"] = nic.latency_ns
    links["limit"] = nic.queue_frames


def _digest(stated: Any) -> int:
    """A number that tells what policies state apart: the first 8 bytes of blake2b over its text."""
    return int.from_bytes(hashlib.blake2b(repr(stated).encode(), digest_size=8).digest(), "little", signed=True)


def _fill_flows(memory: HostMemory, spec: HostSpec) -> None:
    io = spec.io
    assert io is not None
    halves, groups = memory.tables["half"], memory.tables["group"]
    vms = len(spec.vms)
    uplinks = max(1, io.nic.count)
    at = 0
    for number, group in enumerate(spec.groups):
        groups[number]["first_flow"], groups[number]["flows"] = at, len(group.flows)
        for flow in group.flows:
            if flow.a == OUTSIDE and flow.b == OUTSIDE:
                raise UserError(f"group {number}: a flow has both ends outside; one must be a VM")
            inside = max(flow.a, flow.b)
            for end, (source, target) in enumerate(((flow.a, flow.b), (flow.b, flow.a))):
                h = halves[2 * at + end]
                h["proto"] = PROTOCOL_CODES[flow.proto]
                h["vm"] = source if source >= 0 else target
                h["source"], h["target"] = source, target
                h["local"] = source == target
                if OUTSIDE in (source, target):
                    h["uplink"] = vms + inside % uplinks
            at += 1
