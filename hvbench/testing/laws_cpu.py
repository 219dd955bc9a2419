"""Laws of the CPU side: what must hold of a host's memory between two events, and of its figures at the end."""

from __future__ import annotations

from hvbench.state.memory import HostMemory
from hvbench.state.records import BLOCKED, COSTOPPED, RUNNABLE, RUNNING, T_DEAD, T_ON_VCPU, T_READY


def consistent(memory: HostMemory) -> None:
    """Run states, the arrival-ordered list, idle pCPUs, guest queues and the heap agree with each other."""
    header = memory.header[0]
    if header["error"]:
        return
    _entities(memory)
    _pcpus(memory)
    _threads(memory)
    _heap(memory)


def _entities(memory: HostMemory) -> None:
    header, vcpu = memory.header[0], memory.tables["vcpu"]
    listed, v, before = [], int(header["runnable_first"]), -1
    while v >= 0:
        assert int(vcpu["previous_runnable"][v]) == before
        listed.append(v)
        assert len(listed) <= len(vcpu), "the list runs in a circle"
        before, v = v, int(vcpu["next_runnable"][v])
    assert int(header["runnable_last"]) == before
    assert len(listed) == header["runnable_count"]
    assert set(listed) == {int(i) for i in (vcpu["state"] == RUNNABLE).nonzero()[0]}
    for e in vcpu:
        if e["hold"]:
            assert e["state"] in (BLOCKED, COSTOPPED), "whoever is held neither runs nor waits for a CPU"
        co_stopped = e["costop"] == 1 and e["hold"] == 1 and e["wake_pending"] == 1
        assert (e["state"] == COSTOPPED) == co_stopped, "co-stopped is who has work and is stopped for siblings only"
        assert min(e["debt_ns"], e["overhead_left_ns"], e["ready_ns"], e["ran_ns"]) >= 0


def _pcpus(memory: HostMemory) -> None:
    header, vcpu, pcpu = memory.header[0], memory.tables["vcpu"], memory.tables["pcpu"]
    assert header["resched_first"] == -1 and header["outbox_len"] == 0
    runs = {}
    for p, row in enumerate(pcpu):
        assert row["resched"] == 0
        assert row["idle"] == (row["current"] < 0 and not row["offline"])
        bit = int(memory.tables["idle"]["bits"][p >> 5]) >> (p & 31) & 1
        assert bit == row["idle"]
        if row["current"] >= 0:
            assert not row["offline"], "nothing runs on a pCPU that has left"
            runs[int(row["current"])] = p
    assert len(runs) == header["running"]
    assert set(runs) == {int(i) for i in (vcpu["state"] == RUNNING).nonzero()[0]}
    for v, p in runs.items():
        assert vcpu["pcpu"][v] == p


def _threads(memory: HostMemory) -> None:
    vcpu, thread = memory.tables["vcpu"], memory.tables["thread"]
    queued: dict[int, int] = {}
    for v, e in enumerate(vcpu):
        t, length = int(e["queue_first"]), 0
        while t >= 0:
            assert t not in queued, "a thread stands in two queues"
            queued[t] = v
            assert thread["state"][t] == T_READY
            length += 1
            last, t = t, int(thread["next_ready"][t])
            if t < 0:
                assert int(e["queue_last"]) == last
        assert length == e["queue_len"]
        if e["current_thread"] >= 0:
            on = thread[int(e["current_thread"])]
            assert on["state"] == T_ON_VCPU and on["vcpu"] == v
    for t, row in enumerate(thread):
        if not row["outside"] and row["state"] != T_DEAD:
            assert (row["state"] == T_READY) == (t in queued)
            assert (row["state"] == T_ON_VCPU) == any(vcpu["current_thread"] == t)


def _heap(memory: HostMemory) -> None:
    length = int(memory.header["heap_len"][0])
    event = memory.tables["event"][:length]
    for at in range(length):
        assert memory.tables["position"]["at"][event["slot"][at]] == at
        assert event["time_ns"][at] >= memory.header["now"][0]
        if at:
            up = event[(at - 1) // 2]
            assert (up["time_ns"], up["order"]) < (event["time_ns"][at], event["order"][at])
    assert (memory.tables["position"]["at"] >= 0).sum() == length


def time_adds_up(memory: HostMemory) -> None:
    """At the end of a cell: every nanosecond of a pCPU and of an entity is accounted for, once."""
    header, t = memory.header[0], memory.tables
    measured = int(header["horizon_ns"] - header["warmup_ns"])
    pcpu, vcpu, vm = t["pcpu"], t["vcpu"], t["vm"]
    for p in pcpu:
        assert int(p["guest_ns"] + p["refill_ns"] + p["hypervisor_ns"] + p["idle_ns"]) == measured
        assert min(p["guest_ns"], p["refill_ns"], p["hypervisor_ns"], p["idle_ns"]) >= 0
    for e in vcpu:
        assert 0 <= int(e["run_measured_ns"] + e["ready_ns"]) <= measured
    busy = pcpu["guest_ns"] + pcpu["refill_ns"] + pcpu["hypervisor_ns"]
    assert int(vcpu["run_measured_ns"].sum()) == int(busy.sum())
    assert int(vcpu["overhead_ns"].sum()) == int(pcpu["hypervisor_ns"].sum())
    assert int(pcpu["dispatches"].sum()) == int(vcpu["dispatches"].sum())
    if not (vcpu["vm"] < 0).any():
        # what is done for the host itself belongs to no VM
        assert int(vm["overhead_ns"].sum()) == int(pcpu["hypervisor_ns"].sum())
        assert int(vm["refill_ns"].sum()) == int(pcpu["refill_ns"].sum())
