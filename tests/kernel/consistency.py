"""What must hold of a host's memory between two events, whatever a policy does."""

from __future__ import annotations

from hvbench.state.memory import HostMemory
from hvbench.state.records import BLOCKED, RUNNABLE, RUNNING, T_DEAD, T_ON_VCPU, T_READY


def check(memory: HostMemory) -> None:
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
            assert e["state"] == BLOCKED, "whoever is held neither runs nor waits for a CPU"
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
