"""Flows: bytes that arrive, in order and once, whatever the switch does to their frames."""

from __future__ import annotations

import attrs
import pytest

from hvbench.binding import Loop, bind
from hvbench.build import CpuSpec, FaultSpec, build
from hvbench.build_io import FlowSpec, IoSpec, flow_ends, flows_of, refusal, switch_config
from hvbench.errors import UserError
from hvbench.hookspecs import row as hook_row
from hvbench.kernel.guards import E_PORT_RANGE, E_RANGE
from hvbench.machine import Nic
from hvbench.paths import DIRECT_PATH, NATIVE_SWITCH, SwitchConfig
from hvbench.policy import emit_frame, net_first, net_next, serve_port, set_timer
from hvbench.state.records import W_RECV, W_SEND
from hvbench.state.schema import SWITCH_SLOT
from hvbench.traces.format import OPS
from tests.io_hosts import (
    MS,
    T,
    chosen,
    compute,
    forever,
    free_lists_are_whole,
    module_of,
    plugin,
    recv,
    row,
    run,
    send,
    sleep,
    spec_of,
)

OUT = [FlowSpec("tcp", 0, -1)]
IN_HOST = [FlowSpec("tcp", 0, 1)]
NATIVE = IoSpec(switch=NATIVE_SWITCH)


def switch(**hooks):
    return chosen(SWITCH_SLOT, "test", module_of("switch", **hooks))


def bulk(size, io=NATIVE, policies=(), outside=False, **options):
    """One transfer of `size` bytes from VM 0 to VM 1 or to the outside."""
    receiver = T(0 if outside else 1, (recv(0, 1, size), forever()), outside=outside)
    group = [T(0, (send(0, 0, size), forever())), receiver]
    return run(spec_of([group], io, [OUT if outside else IN_HOST], **options), policies)


def one_in_ten():
    """A switch that drops every tenth frame."""

    def net_enqueue(host, frame, port, now):
        return 0 if host.io[0].frames_sent % 10 == 3 else 1

    return switch(net_enqueue=net_enqueue)


# bytes arrive ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1448, 1449, 70_000, 3_000_001])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("io", [NATIVE, IoSpec()], ids=["native", "emulated"])
def test_all_bytes_arrive_once(size, outside, io):
    memory = bulk(size, io, outside=outside)
    half = row(memory, "half", 0)
    assert half["consumed"] == size == half["expected"]
    assert half["unsent"] == half["flight"] == half["lost_bytes"] == half["available"] == 0
    assert row(memory, "io")["frames_dropped"] == 0
    free_lists_are_whole(memory)


def test_a_receive_waits_for_its_last_byte():
    group = [
        T(0, (send(0, 0, 100), sleep(7 * MS), send(0, 0, 100), forever())),
        T(1, (("mark_begin", -1, 0, 0), recv(0, 1, 150), ("mark_end", -1, 0, 0), recv(0, 1, 50), forever())),
    ]
    memory = run(spec_of([group], NATIVE, [IN_HOST]))
    assert int(memory.tables["vm"]["marks"][1]) == 1
    assert row(memory, "half")["consumed"] == 200
    assert row(memory, "thread", 1)["op"] - row(memory, "thread", 1)["op_first"] == 4


def test_what_the_host_sees_is_what_the_metrics_say():
    memory = bulk(1_000_000, IoSpec())
    sender, receiver = row(memory, "vm_io", 0), row(memory, "vm_io", 1)
    assert sender["net_tx_bytes"] == receiver["net_rx_bytes"] == 1_000_000
    assert sender["net_tx_frames"] == receiver["net_rx_frames"] == row(memory, "io")["frames_delivered"]


def test_a_message_within_a_vm_wakes_a_halted_vcpu_by_an_interrupt():
    threads = [T(0, (recv(0, 1, 5_000), forever())), T(0, (compute(1000), send(0, 0, 5_000), forever()))]
    cpu = CpuSpec(pcpus=4, ipi_cost_ns=700, wake_cost_ns=500)
    memory = run(spec_of([threads], IoSpec(), [[FlowSpec("unix", 0, 0)]], vcpus=2, cpu=cpu))
    assert sorted(memory.tables["vcpu"]["overhead_ns"].tolist())[-2:] == [500, 700]


def test_flows_within_a_vm_never_touch_the_switch():
    group = [T(0, (recv(0, 1, 5_000), forever())), T(0, (compute(1000), send(0, 0, 5_000), forever()))]
    memory = run(spec_of([group], IoSpec(), [[FlowSpec("unix", 0, 0)]]))
    assert row(memory, "io")["frames_sent"] == 0
    assert row(memory, "half")["consumed"] == 5_000 == row(memory, "vm_io")["local_bytes"]
    assert int(memory.tables["axis"]["asks"][2]) == 0, "the switch was not asked anything"


def test_several_receivers_are_served_in_order_of_arrival():
    marked = (("mark_begin", -1, 0, 0), recv(0, 1, 100), ("mark_end", -1, 0, 0), forever())
    group = [
        T(0, (sleep(MS), send(0, 0, 100), sleep(MS), send(0, 0, 100), forever())),
        T(1, marked),
        T(1, (sleep(1000), *marked)),
    ]
    done = []
    run(
        spec_of([group], NATIVE, [IN_HOST], vcpus=2),
        step=1,
        watch=lambda m: done.append([int(n) for n in m.tables["thread"]["op"] - m.tables["thread"]["op_first"]]),
    )
    first = next(i for i, ops in enumerate(done) if ops[1] >= 3)
    second = next(i for i, ops in enumerate(done) if ops[2] >= 4)
    assert first < second


# time and CPU ------------------------------------------------------------------------------------------------


def test_a_transfer_to_the_outside_fills_the_link():
    memory = bulk(20_000_000, outside=True)
    link = row(memory, "link", 0)
    frames = -(-20_000_000 // 1448)
    wire_ns = (20_000_000 + frames * 90) * 8
    assert link["busy_ns"] == pytest.approx(wire_ns, rel=0.001), "8 ns a byte, 90 bytes a segment beside its payload"
    rate_events = row(memory, "half")["rtt_ns"]
    assert rate_events < 3 * MS


def test_a_message_to_the_outside_and_back_takes_two_latencies():
    nic = Nic(latency_ns=400_000, bandwidth_bytes_per_s=10**12)
    group = [
        T(0, (("mark_begin", -1, 0, 0), send(0, 0, 100), recv(0, 0, 100), ("mark_end", -1, 0, 0), forever())),
        T(0, (recv(0, 1, 100), send(0, 1, 100), forever()), outside=True),
    ]
    done = []
    run(
        spec_of([group], attrs.evolve(NATIVE, nic=nic), [OUT]),
        step=1,
        watch=lambda m: done.append((int(m.header["now"][0]), int(m.tables["vm"]["marks"][0]))),
    )
    at = next(now for now, marks in done if marks)
    assert 800_000 <= at < 800_010


def test_host_threads_pay_for_frames_on_both_sides():
    config = SwitchConfig(frame_ns=1_000, kib_ns=100, ack_ns=0, kick_ns=0, interrupt_ns=0)
    memory = bulk(1024, IoSpec(path=DIRECT_PATH, switch=config))
    assert [row(memory, "vcpu", v)["ran_ns"] for v in (2, 3)] == [1_100, 1_100]
    assert [row(memory, "vcpu", v)["vm"] for v in (2, 3)] == [0, 1]


def test_kicks_and_interrupts_are_paid_by_the_guests():
    quiet = SwitchConfig(kick_ns=0, interrupt_ns=0, frame_ns=0, kib_ns=0, ack_ns=0)
    dear = attrs.evolve(quiet, kick_ns=5_000, interrupt_ns=3_000)
    a, b = (bulk(100, IoSpec(switch=s)) for s in (quiet, dear))
    # the sender's kick and the interrupt of its acknowledgement; the receiver's interrupt
    assert row(b, "vcpu", 0)["ran_ns"] - row(a, "vcpu", 0)["ran_ns"] == 8_000
    assert row(b, "vcpu", 1)["ran_ns"] - row(a, "vcpu", 1)["ran_ns"] == 3_000


def test_offload_saves_frames_and_time():
    with_it, without = (
        bulk(2_000_000, IoSpec(path=DIRECT_PATH, switch=SwitchConfig(segmentation_offload=on))) for on in (True, False)
    )
    assert row(without, "io")["frames_sent"] == -(-2_000_000 // 1448)
    assert row(with_it, "io")["frames_sent"] < row(without, "io")["frames_sent"] / 10
    assert row(with_it, "vcpu", 2)["ran_ns"] < row(without, "vcpu", 2)["ran_ns"] / 2


# windows -----------------------------------------------------------------------------------------------------


def test_no_more_than_a_window_is_ever_unacknowledged():
    seen = []
    io = attrs.evolve(NATIVE, window_bytes=20_000, nic=Nic(latency_ns=MS))
    group = [T(0, (send(0, 0, 500_000), forever())), T(0, (recv(0, 1, 500_000), forever()), outside=True)]
    memory = run(
        spec_of([group], io, [OUT]),
        step=1,
        watch=lambda m: seen.append(int(m.tables["half"]["flight"][0])),
    )
    assert 10_000 < max(seen) <= 20_000
    assert row(memory, "half")["consumed"] == 500_000


def test_a_small_window_on_a_long_way_limits_the_rate():
    def rounds(window):
        io = attrs.evolve(NATIVE, window_bytes=window, nic=Nic(latency_ns=5 * MS))
        return row(bulk(10_000_000, io, outside=True), "half")["consumed"] or row(
            bulk(10_000_000, io, outside=True), "half"
        )["expected"]

    # one window per round trip of 10 ms, for a second
    assert rounds(20_000) == pytest.approx(20_000 * 100, rel=0.15)
    assert rounds(40_000) == pytest.approx(40_000 * 100, rel=0.15)


def test_a_sender_waits_while_nobody_reads():
    io = attrs.evolve(NATIVE, send_buffer_bytes=50_000, receive_buffer_bytes=30_000)
    group = [T(0, (send(0, 0, 1_000_000), forever())), T(1, (sleep(500 * MS), recv(0, 1, 1_000_000), forever()))]
    before = []

    def watch(m):
        if int(m.header["now"][0]) < 500 * MS:
            before.append((int(m.tables["half"]["accepted"][0]), int(m.tables["thread"]["waits_for"][0])))

    memory = run(spec_of([group], io, [IN_HOST]), step=1, watch=watch)
    accepted, waits_for = before[-1]
    assert accepted == 80_000 and waits_for == W_SEND
    assert row(memory, "half")["consumed"] == 1_000_000


def test_a_frame_is_at_most_a_third_of_the_window():
    io = attrs.evolve(NATIVE, window_bytes=30_000)
    memory = bulk(3_000_000, io)
    assert row(memory, "io")["frames_sent"] >= 300


# losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("io", [NATIVE, IoSpec()], ids=["native", "emulated"])
def test_a_switch_that_drops_one_frame_in_ten_finishes_every_transfer(outside, io):
    memory = bulk(2_000_000, io, [one_in_ten()], outside=outside, horizon_ns=60_000 * MS)
    half = row(memory, "half")
    assert half["consumed"] == 2_000_000
    assert row(memory, "vm_io")["frames_dropped"] == half["retransmissions"] > 0
    free_lists_are_whole(memory)


def test_requests_and_answers_go_on_under_losses():
    turns = 30
    group = [
        T(0, (*[op for _ in range(turns) for op in (send(0, 0, 300), recv(0, 0, 9_000))], forever())),
        T(0, (*[op for _ in range(turns) for op in (recv(0, 1, 300), send(0, 1, 9_000))], forever()), outside=True),
    ]
    memory = run(spec_of([group], NATIVE, [OUT], horizon_ns=60_000 * MS), [one_in_ten()])
    assert row(memory, "half", 1)["consumed"] == turns * 9_000


def _drop_once(number):
    def net_enqueue(host, frame, port, now):
        return 0 if host.frame[frame].seq == number * 1448 and host.frame[frame].again == 0 else 1

    return switch(net_enqueue=net_enqueue)


def _finished_at(size, policy, io):
    done = []
    group = [T(0, (send(0, 0, size), forever())), T(0, (recv(0, 1, size), forever()), outside=True)]
    run(
        spec_of([group], io, [OUT], horizon_ns=5_000 * MS),
        [policy] if policy else [],
        step=1,
        watch=lambda m: done.append((int(m.header["now"][0]), int(m.tables["half"]["consumed"][0]))),
    )
    return next(now for now, consumed in done if consumed == size)


def test_a_loss_amid_others_costs_a_round_trip_and_the_last_one_the_time_out():
    io = attrs.evolve(IoSpec(switch=attrs.evolve(NATIVE_SWITCH, segmentation_offload=False)), nic=Nic(latency_ns=MS))
    frames = 8
    size = frames * 1448
    clean = _finished_at(size, None, io)
    last = _finished_at(size, _drop_once(frames - 1), io)
    assert last - clean == pytest.approx(200 * MS, rel=0.02)
    # the acknowledgement of the next frame comes back after a round trip of 2 ms, and tells of the loss
    middle = _finished_at(size, _drop_once(3), io)
    assert middle - clean == pytest.approx(2 * MS, rel=0.05)


def test_a_loss_halves_the_window_once():
    io = attrs.evolve(NATIVE, nic=Nic(latency_ns=2 * MS))
    seen = []
    group = [T(0, (send(0, 0, 2_000_000), forever())), T(0, (recv(0, 1, 2_000_000), forever()), outside=True)]

    def net_enqueue(host, frame, port, now):
        return 0 if host.frame[frame].again == 0 and 600_000 <= host.frame[frame].seq < 700_000 else 1

    run(
        spec_of([group], io, [OUT], horizon_ns=3_000 * MS),
        [switch(net_enqueue=net_enqueue)],
        step=1,
        watch=lambda m: seen.append(int(m.tables["half"]["congestion_bytes"][0])),
    )
    at_most = seen.index(max(seen))
    assert min(seen[at_most:]) == pytest.approx(max(seen) / 2, rel=0.1), "several frames of one window were lost"
    assert seen[-1] > min(seen[at_most:]), "it grows again"


def test_bytes_behind_a_hole_are_not_read_before_it_is_filled():
    io = IoSpec(switch=attrs.evolve(NATIVE_SWITCH, segmentation_offload=False), nic=Nic(latency_ns=MS))
    group = [
        T(0, (send(0, 0, 8 * 1448), forever())),
        T(0, (*[recv(0, 1, 1448) for _ in range(8)], forever()), outside=True),
    ]
    early = []

    def watch(m):
        if int(m.header["now"][0]) < 2 * MS:
            early.append((int(m.tables["half"]["consumed"][0]), int(m.tables["half"]["held_bytes"][0])))

    memory = run(spec_of([group], io, [OUT]), [_drop_once(2)], step=1, watch=watch)
    assert row(memory, "half")["consumed"] == 8 * 1448
    assert early[-1] == (2 * 1448, 5 * 1448)


def test_a_full_uplink_drops_and_everybody_still_finishes():
    nic = Nic(queue_frames=8)
    groups, flows = [], []
    for v in range(4):
        groups.append([T(v, (send(0, 0, 400_000), forever())), T(v, (recv(0, 1, 400_000), forever()), outside=True)])
        flows.append([FlowSpec("tcp", v, -1)])
    memory = run(spec_of(groups, attrs.evolve(NATIVE, nic=nic), flows, horizon_ns=20_000 * MS))
    assert row(memory, "port", 4)["drops"] > 0
    assert [row(memory, "half", 2 * v)["consumed"] for v in range(4)] == [400_000] * 4


def test_the_physical_switch_drops_what_comes_in_too_fast():
    nic = Nic(queue_frames=8)
    groups, flows = [], []
    for v in range(4):
        groups.append([T(v, (recv(0, 0, 400_000), forever())), T(v, (send(0, 1, 400_000), forever()), outside=True)])
        flows.append([FlowSpec("tcp", v, -1)])
    memory = run(spec_of(groups, attrs.evolve(NATIVE, nic=nic), flows, horizon_ns=20_000 * MS))
    assert row(memory, "link", 1)["drops"] > 0
    assert [row(memory, "half", 2 * v + 1)["consumed"] for v in range(4)] == [400_000] * 4


# datagrams ---------------------------------------------------------------------------------------------------


def _datagrams(timeout_ns, policy):
    group = [
        T(0, (send(0, 0, 500), sleep(50 * MS), send(0, 0, 500), forever())),
        T(1, (recv(0, 1, 500, timeout_ns), recv(0, 1, 500, timeout_ns), forever())),
    ]
    memory = run(
        spec_of([group], NATIVE, [[FlowSpec("udp", 0, 1)]], horizon_ns=20_000 * MS),
        [policy] if policy else [],
    )
    return memory


def test_datagrams_arrive_without_acknowledgements():
    memory = _datagrams(0, None)
    assert row(memory, "half")["consumed"] == 1000
    assert row(memory, "vm_io", 0)["receive_timeouts"] == 0
    assert int(memory.header["events"][0]) < 30


def test_a_lost_datagram_is_never_sent_again_and_its_receive_times_out():
    def net_enqueue(host, frame, port, now):
        return 0 if now < 10 * MS else 1

    memory = _datagrams(30 * MS, switch(net_enqueue=net_enqueue))
    assert row(memory, "vm_io", 0)["receive_timeouts"] == 1
    assert row(memory, "half")["consumed"] == 500
    assert row(memory, "io")["frames_sent"] == 2
    assert row(memory, "thread", 1)["op"] - row(memory, "thread", 1)["op_first"] == 2


def test_a_receive_that_recorded_no_time_out_still_ends():
    def net_enqueue(host, frame, port, now):
        return 0

    memory = _datagrams(0, switch(net_enqueue=net_enqueue))
    assert row(memory, "vm_io", 0)["receive_timeouts"] == 2


def test_outside_receivers_of_datagrams_time_out_as_well():
    def net_enqueue(host, frame, port, now):
        return 0

    group = [
        T(0, (send(0, 0, 500), forever())),
        T(0, (recv(0, 1, 500, 9 * MS), send(0, 1, 100), forever()), outside=True),
    ]
    memory = run(
        spec_of([group], NATIVE, [[FlowSpec("udp", 0, -1)]]), [switch(net_enqueue=net_enqueue)]
    )
    assert row(memory, "half", 1)["accepted"] == 100


# the seam ----------------------------------------------------------------------------------------------------


def test_a_recording_begins_anew_with_empty_flows():
    """The receiver leaves half of each message; nothing of it may reach the next pass."""
    group = [
        T(0, (send(0, 0, 60_000), compute(1000))),
        T(0, (recv(0, 1, 1_000), sleep(3 * MS)), outside=True),
    ]
    io = attrs.evolve(NATIVE, nic=Nic(latency_ns=2 * MS))
    memory = run(spec_of([group], io, [OUT], horizon_ns=200 * MS))
    half = row(memory, "half")
    assert half["generation"] > 20
    assert half["accepted"] <= 60_000 and half["expected"] <= 60_000
    assert row(memory, "io")["frames_discarded"] > 0
    free_lists_are_whole(memory)


def test_losses_do_not_outlive_the_seam():
    def net_enqueue(host, frame, port, now):
        return 0

    group = [T(0, (send(0, 0, 60_000), compute(MS))), T(1, (compute(MS),))]
    memory = run(spec_of([group], NATIVE, [IN_HOST], horizon_ns=500 * MS), [switch(net_enqueue=net_enqueue)])
    half = row(memory, "half")
    assert half["generation"] > 100
    assert half["retransmissions"] == 0, "each pass is shorter than the time-out"
    assert half["lost_bytes"] <= 60_000
    free_lists_are_whole(memory)


# policies ----------------------------------------------------------------------------------------------------


def test_ports_are_announced_before_anything_moves():
    added = []

    def net_port_add(host, port, now):
        added.append((port, host.port[port].kind, now))

    bulk(100, attrs.evolve(NATIVE, nic=Nic(count=2)), [switch(net_port_add=net_port_add)])
    assert added == [(0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0)]


def test_a_dead_vms_port_goes():
    gone = []

    def net_port_del(host, port, now):
        gone.append((port, now))

    spec = spec_of([[T(0, (forever(),)), T(1, (forever(),))]], NATIVE, [IN_HOST])
    spec = attrs.evolve(spec, faults=(FaultSpec(kind="guest", target=1, at_ns=7 * MS, until_ns=0),))
    run(spec, [switch(net_port_del=net_port_del)])
    assert gone == [(1, 7 * MS)]


def test_flooding_copies_to_every_other_port_and_delivers_once():
    io = attrs.evolve(NATIVE, nic=Nic(count=2))
    group = [
        T(0, (send(0, 0, 10_000), forever())),
        T(1, (recv(0, 1, 10_000), forever())),
        T(2, (forever(),)),
    ]
    memory = run(spec_of([group], io, [IN_HOST]), [chosen(SWITCH_SLOT, "flooding", plugin("switch", "flooding"))])
    state = row(memory, "io")
    assert row(memory, "half")["consumed"] == 10_000
    assert state["frames_filtered"] == 3 * state["frames_delivered"], "VM 2 and two uplinks see each frame"
    assert row(memory, "vm_io", 2)["net_rx_frames"] == 0


def test_flooding_costs_nothing_on_an_idle_uplink_and_much_on_a_busy_one():
    def outside_time(policies, inside):
        groups = [[T(0, (send(0, 0, 3_000_000), forever())), T(0, (recv(0, 1, 3_000_000), forever()), outside=True)]]
        flows = [[FlowSpec("tcp", 0, -1)]]
        if inside:
            groups.append([T(1, (send(0, 0, 20_000_000), forever())), T(2, (recv(0, 1, 20_000_000), forever()))])
            flows.append([FlowSpec("tcp", 1, 2)])
        done = []
        run(
            spec_of(groups, IoSpec(), flows, horizon_ns=3_000 * MS),
            policies,
            check=False,
            step=1,
            watch=lambda m: done.append((int(m.header["now"][0]), int(m.tables["half"]["consumed"][0]))),
        )
        return next((now for now, consumed in done if consumed == 3_000_000), 10_000 * MS)

    hub = [chosen(SWITCH_SLOT, "flooding", plugin("switch", "flooding"))]
    assert outside_time(hub, False) == pytest.approx(outside_time([], False), rel=0.05)
    assert outside_time(hub, True) > 1.2 * outside_time([], True)


def test_a_frame_sent_to_the_wrong_port_is_lost_not_delivered():
    def net_forward(host, frame, in_port, now):
        return 2 if host.frame[frame].again == 0 else host.frame[frame].target_port

    group = [T(0, (send(0, 0, 500), forever())), T(1, (recv(0, 1, 500), forever())), T(2, (forever(),))]
    memory = run(spec_of([group], NATIVE, [IN_HOST]), [switch(net_forward=net_forward)])
    assert row(memory, "half")["consumed"] == 500
    assert row(memory, "io")["frames_dropped"] == 1


def test_a_policy_may_pace_a_port():
    """One frame a millisecond out of each port, with net_dequeue, a timer and serve_port."""

    def net_dequeue(host, port, now):
        if now % MS != 0:
            set_timer(host, port, now - now % MS + MS)
            return -1
        if host.port[port].frames * MS > now:
            set_timer(host, port, now + MS)
            return -1
        return net_first(host, port)

    def net_timer(host, timer, now):
        serve_port(host, timer)

    io = IoSpec(switch=attrs.evolve(NATIVE_SWITCH, segmentation_offload=False))
    memory = bulk(20 * 1448, io, [switch(net_dequeue=net_dequeue, net_timer=net_timer)])
    assert row(memory, "half")["consumed"] == 20 * 1448
    assert row(memory, "half")["rtt_ns"] > MS


def test_a_policy_may_send_the_newest_first():
    def net_dequeue(host, port, now):
        last = f = net_first(host, port)
        while f >= 0:
            last = f
            f = net_next(host, f)
        return last

    io = IoSpec(switch=SwitchConfig(segmentation_offload=False))
    memory = bulk(500_000, io, [switch(net_dequeue=net_dequeue)])
    assert row(memory, "half")["consumed"] == 500_000, "the receiver puts them in order"


def test_a_policy_may_emit_frames():
    def net_init(host, now):
        set_timer(host, 0, 3 * MS)

    def net_timer(host, timer, now):
        emit_frame(host, 1, 1000)
        emit_frame(host, 2, 60)

    memory = bulk(100, NATIVE, [switch(net_init=net_init, net_timer=net_timer)])
    assert row(memory, "link", 0)["bytes"] == 60
    assert row(memory, "io")["bytes_delivered"] == 100 + 1060


@pytest.mark.parametrize(
    ("hook", "body", "code"),
    [
        ("net_forward(host, frame, in_port, now)", "return 3", E_PORT_RANGE),
        ("net_forward(host, frame, in_port, now)", "return -3", E_PORT_RANGE),
        ("net_dequeue(host, port, now)", "return 10**9", E_PORT_RANGE),
        ("net_select_uplink(host, in_port, half, uplinks, now)", "return uplinks", E_PORT_RANGE),
        ("net_enqueue(host, frame, port, now)", "emit_frame(host, 7, 100); return 1", E_PORT_RANGE),
        ("net_enqueue(host, frame, port, now)", "emit_frame(host, 1, 0); return 1", E_RANGE),
    ],
)
def test_illegal_answers_end_the_cell_by_name(hook, body, code):
    scope = {"emit_frame": emit_frame}
    exec(f"def {hook}:\n    {body}\n", scope)
    name = hook.split("(")[0]
    flows = [FlowSpec("tcp", 0, 1), FlowSpec("tcp", 0, -1)]
    group = [T(0, (send(1, 0, 10), send(0, 0, 10), forever())), T(1, (recv(0, 1, 10), forever()))]
    memory = build(spec_of([group], NATIVE, [flows]))
    bind(memory, [switch(**{name: scope[name]})], interpreted=True)
    loop = Loop(memory, True)
    loop.boot()
    loop.run(10**5)
    assert int(memory.header["error"][0]) == code
    assert int(memory.header["error_hook"][0]) == hook_row(name)


def test_uplinks_are_chosen_by_port_unless_the_policy_says_otherwise():
    groups = [
        [T(v, (send(0, 0, 5_000), forever())), T(v, (recv(0, 1, 5_000), forever()), outside=True)] for v in range(4)
    ]
    flows = [[FlowSpec("tcp", v, -1)] for v in range(4)]
    io = attrs.evolve(NATIVE, nic=Nic(count=2))

    def net_select_uplink(host, in_port, half, uplinks, now):
        return uplinks - 1

    by_port, last = (run(spec_of(groups, io, flows), p) for p in ([], [switch(net_select_uplink=net_select_uplink)]))
    assert [row(by_port, "link", i)["bytes"] for i in (0, 2)] == [10_000, 10_000]
    assert [row(last, "link", i)["bytes"] for i in (0, 2)] == [0, 20_000]


# configurations and recordings -----------------------------------------------------------------------------


def test_an_internal_switch_refuses_what_talks_to_the_outside():
    module = plugin("switch", "internal")
    internal = IoSpec(switch=switch_config(module, module.Params()))
    talks = [T(0, (send(0, 0, 1), forever())), T(0, (recv(0, 1, 1), forever()), outside=True)]
    assert "talker talks to the outside" in refusal(spec_of([talks], internal, [OUT]), ["talker"])
    stays = [T(0, (send(0, 0, 1000), forever())), T(1, (recv(0, 1, 1000), forever()))]
    spec = spec_of([stays], internal, [IN_HOST])
    assert refusal(spec, ["a", "b"]) == ""
    assert row(run(spec), "half")["consumed"] == 1000
    assert refusal(spec_of([talks], IoSpec(), [OUT]), ["talker"]) == ""


def test_a_flow_with_both_ends_outside_is_refused():
    with pytest.raises(UserError, match="both ends outside"):
        build(spec_of([[T(0, (forever(),))]], NATIVE, [[FlowSpec("tcp", -1, -1)]]))


def test_ends_of_a_recordings_flows():
    import numpy as np

    meta = {
        "threads": [
            {"id": 0, "process": 0, "tier": "web"},
            {"id": 1, "process": 1, "tier": "db"},
            {"id": 2, "process": 2, "tier": "outside", "role": "outside"},
            {"id": 3, "process": 3, "tier": "web"},
        ],
        "flows": [
            {"proto": "tcp", "ends": ["web", "db"]},
            {"proto": "tcp", "ends": ["outside", "web"]},
            {"proto": "unix", "ends": ["web", "web"]},
            {"proto": "unix", "ends": ["db", "db"]},
        ],
    }
    s, r = OPS["send"], OPS["recv"]
    rows = [(0, s, 0), (1, r, 0), (2, s, 1), (0, r, 1), (0, s, 2), (3, r, 2), (3, s, 2), (1, s, 3), (1, r, 3)]
    thread, op, flow = (np.array(c) for c in zip(*rows, strict=True))
    ends = flow_ends(meta, {"thread": thread, "op": op, "flow": flow})
    assert ends.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 1]
    assert flows_of(meta, {"web": 4, "db": 2}) == (
        FlowSpec("tcp", 4, 2),
        FlowSpec("tcp", -1, 4),
        FlowSpec("unix", 4, 4),
        FlowSpec("unix", 2, 2),
    )


def test_a_thread_that_waits_says_what_for():
    memory = run(spec_of([[T(0, (recv(0, 1, 5), forever())), T(1, (forever(),))]], NATIVE, [[FlowSpec("tcp", 1, 0)]]))
    assert row(memory, "thread")["waits_for"] == W_RECV
