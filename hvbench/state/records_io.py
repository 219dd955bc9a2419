"""The records of storage and network: requests, steps, stations, flow halves, frames, ports, links."""

from __future__ import annotations

from hvbench.state.layout import col, record

# states of a block request: it is in exactly one
(R_FREE, R_DELAY, R_WORK, R_QUEUED, R_SERVICE, R_NET, R_MERGED, R_DONE) = range(8)
REQUEST_STATES = (
    "free", "delayed", "on a host thread", "queued", "in service", "on the network", "merged", "completed",
)  # fmt: skip

# kinds of steps on a storage path
(S_END, S_VCPU, S_THREAD, S_STATION, S_DELAY, S_WIRE_OUT, S_WIRE_IN, S_INTERRUPT, S_PIPE) = range(9)
# which bytes a step moves: none, those that leave the guest (writes), those that come back (reads), all
MOVES_NONE, MOVES_OUT, MOVES_BACK, MOVES_ALL = range(4)

# kinds of stations
ST_QUEUE, ST_CACHE, ST_MEDIUM = range(3)

# states of a frame: it is in exactly one
(F_FREE, F_TX, F_QUEUED, F_RX, F_SENDING, F_WIRE, F_HELD, F_LOST) = range(8)
FRAME_STATES = (
    "free", "on its sender's host thread", "queued at a port", "on its receiver's host thread", "being transmitted",
    "on the wire", "held for order", "lost, to be sent again",
)  # fmt: skip
FRAME_IN_NETWORK = (F_TX, F_QUEUED, F_RX, F_SENDING, F_WIRE)

# kinds of frames
(FRAME_DATA, FRAME_ACK, FRAME_STORAGE, FRAME_COPY, FRAME_EMITTED) = range(5)

# protocols, in the order of the trace format
PROTO_TCP, PROTO_UDP, PROTO_UNIX = range(3)

# kinds of ports
PORT_VM, PORT_UPLINK = range(2)

WHY_TRACE = 0
"""Why a block request was made: a recorded block operation, `who` is its thread. Memory's reasons follow from 1."""


@record("io")
class Io:
    """State of storage and network as a whole: one row."""

    request_free: int = col("first free request, -1 for none", default=-1)
    frame_free: int = col("first free frame, -1 for none", default=-1)
    done_first: int = col("completed requests whose owner must be told: first", default=-1)
    done_last: int = col("last of them", default=-1)
    resume_first: int = col("requests whose last frame arrived: first", default=-1)
    resume_last: int = col("last of them", default=-1)
    pump_first: int = col("flow halves that may be able to send: first", default=-1)
    pump_last: int = col("last of them", default=-1)
    submitted: int = col("block requests submitted since the beginning")
    completed: int = col("block requests completed since the beginning")
    merged: int = col("block requests merged into another since the beginning")
    pages_submitted: int = col("pages of submitted block requests")
    pages_completed: int = col("pages of completed block requests")
    frames_sent: int = col("transmissions of frames since the beginning, acknowledgements apart")
    frames_delivered: int = col("frames that reached their receiver")
    frames_dropped: int = col("frames dropped by a queue, a policy or a wrong delivery")
    frames_filtered: int = col("copies of flooded frames that reached somebody else")
    frames_discarded: int = col("frames of a recording's previous pass that arrived after its seam")
    bytes_sent: int = col("payload of frames_sent")
    bytes_delivered: int = col("payload of frames_delivered")
    bytes_dropped: int = col("payload of frames_dropped")
    bytes_filtered: int = col("payload of frames_filtered")
    bytes_discarded: int = col("payload of frames_discarded")
    ports: int = col("ports of the switch: VMs first, then uplinks")
    first_uplink: int = col("first uplink's port")
    attached_uplinks: int = col("uplinks that belong to the switch; others carry storage only")
    links: int = col("links: two for each uplink")
    halves: int = col("flow halves: two for each flow")
    requests: int = col("rows of table request that are in use as a pool")
    path_first: int = col("first step of the storage path, less one", default=-1)
    path_digest: int = col("digest of the storage path: what the kernel read of the storage policy")
    switch_digest: int = col("digest of the switch's configuration")
    path_used: int = col("1: a request went along the path")
    switch_used: int = col("1: a frame went through the switch")
    depth: int = col("requests of one VM in service at a medium at once, by default", default=32)
    merge_pages: int = col("largest merged request, pages", default=320)
    exit_ns: int = col("added to each exit of storage or network: host's world switches and the like, ns")
    interrupt_ns: int = col("added to each interrupt of storage or network, ns")
    net_kick_ns: int = col("cost of handing a frame to the virtual NIC, on the vCPU, ns")
    net_interrupt_ns: int = col("cost of a received frame's interrupt, on the vCPU, ns")
    net_frame_ns: int = col("host thread's time for a frame, ns")
    net_kib_ns: int = col("host thread's time for each KiB of a frame, ns")
    net_ack_ns: int = col("host thread's time for an acknowledgement, ns")
    chunk_bytes: int = col("largest payload of a frame on virtual ports (segmentation offload)", default=65_160)
    mss_bytes: int = col("TCP payload of one physical frame", default=1448)
    datagram_bytes: int = col("UDP payload of one physical frame", default=1472)
    segment_overhead_bytes: int = col("header, preamble and gap of one physical frame", default=90)
    window_bytes: int = col("most bytes of a flow half that are unacknowledged", default=131_072)
    send_buffer_bytes: int = col("bytes that a sending socket holds", default=4_194_304)
    receive_buffer_bytes: int = col("bytes that a receiving socket holds", default=6_291_456)
    timeout_ns: int = col("retransmission time-out, ns", default=200_000_000)
    datagram_timeout_ns: int = col("time-out of a UDP receive that recorded none, ns", default=5_000_000_000)


@record("step")
class Step:
    """A step of the storage path."""

    kind: int = col("S_* kind")
    station: int = col("station that serves it, -1 for none; S_THREAD: -1 the disk's thread, 0 the NIC's", default=-1)
    ways: int = col("equal stations, from `station` on, one of which is taken", default=1)
    cost_ns: int = col("cost of a request, ns")
    kib_ns: int = col("cost of each KiB that it moves, ns")
    moves: int = col("which bytes it moves: 0 none, 1 of writes, 2 of reads, 3 all")
    guest_only: int = col("1: requests of the host itself pass it by")
    skip: int = col("ST_CACHE: step that a read which hits goes on after, -1 for none", default=-1)


@record("station")
class Station:
    """A queue with servers: a controller, a link of a fabric, a remote processor, a medium."""

    kind: int = col("0 plain, 1 with a cache, 2 a medium (policies decide its order)")
    servers: int = col("requests in service at once", default=1)
    busy: int = col("requests in service")
    queue_first: int = col("first waiting request, -1 for none", default=-1)
    queue_last: int = col("last waiting request", default=-1)
    queue_len: int = col("requests that wait")
    read_ns: int = col("time of a read before its bytes move, ns")
    write_ns: int = col("time of a write before its bytes move, ns")
    ps_per_byte: int = col("time of a byte, picoseconds")
    moves: int = col("which bytes it moves, as a step's", default=3)
    free_ns: int = col("a filer's link: when it has carried all that was sent so far")
    seek_ns: int = col("average seek, ns; 0: no moving parts")
    track_seek_ns: int = col("shortest seek, ns")
    rotation_ns: int = col("one revolution, ns")
    pages: int = col("capacity in pages", default=1)
    head_page: int = col("page after the one accessed last")
    cache_first: int = col("first line of its cache", default=-1)
    cache_sets: int = col("sets of its cache, 8 lines each; 0 for none")
    cache_hits: int = col("pages read that were in the cache, since the beginning")
    served: int = col("requests served since the beginning")
    busy_ns: int = col("service time given, since the beginning, ns")


@record("cacheline")
class CacheLine:
    """A page in a filer's or an array's cache."""

    page: int = col("which page, -1 for none", default=-1)
    used: int = col("when it was used last: a counter")


@record("request")
class Request:
    """A block request on its way from a guest (or the host) to a medium and back."""

    state: int = col("REQUEST_STATES")
    step: int = col("step of the path that it is at")
    station: int = col("station where it waits or is served, -1 for none", default=-1)
    way: int = col("which of the fabric's equal ways it takes, -1 before it was chosen", default=-1)
    write: int = col("1 write, 0 read")
    vm: int = col("VM whose virtual disk it goes to, -1 for the host's swap area", default=-1)
    vcpu: int = col("vCPU that submitted it, -1 for none", default=-1)
    sector: int = col("first 4 KiB page on the virtual disk")
    page: int = col("first 4 KiB page on the medium")
    pages: int = col("4 KiB pages")
    span: int = col("pages with all that was merged into it")
    why: int = col("reason, handed back on completion")
    who: int = col("subject, handed back on completion", default=-1)
    submitted_ns: int = col("when it was submitted")
    queued_ns: int = col("when it began to wait at its present station")
    outstanding: int = col("frames of it that are still on the network")
    lost_bytes: int = col("bytes of dropped frames, to be sent again")
    next: int = col("next in its queue or list", default=-1)
    previous: int = col("previous in its queue", default=-1)
    merged_first: int = col("first request merged into this one", default=-1)
    merged_last: int = col("last request merged into this one", default=-1)


@record("vm_io")
class VmIo:
    """Storage and network of one VM; the row after the last VM is the host's own (its swap area)."""

    storage_thread: int = col("host thread that emulates its disk, -1 for none", default=-1)
    net_thread: int = col("host thread that emulates its NIC, -1 for none", default=-1)
    disk_first_page: int = col("where its virtual disk begins on the medium")
    disk_pages: int = col("size of its virtual disk", default=1)
    in_flight: int = col("block requests submitted and not completed")
    in_service: int = col("block requests in service at a medium")
    disk_read_requests: int = col("reads completed, since the end of the warm-up")
    disk_write_requests: int = col("writes completed, since the end of the warm-up")
    disk_read_pages: int = col("pages read, since the end of the warm-up")
    disk_write_pages: int = col("pages written, since the end of the warm-up")
    disk_wait_ns: int = col("sum of block requests' latencies, since the end of the warm-up")
    net_tx_bytes: int = col("bytes handed to its virtual NIC, since the end of the warm-up")
    net_rx_bytes: int = col("bytes received, since the end of the warm-up")
    net_out_bytes: int = col("bytes of it that reached receivers outside, since the end of the warm-up")
    net_tx_frames: int = col("frames handed to its virtual NIC, retransmissions included, since the warm-up's end")
    net_rx_frames: int = col("frames received, since the end of the warm-up")
    frames_dropped: int = col("frames to or from it that were dropped, since the end of the warm-up")
    retransmissions: int = col("frames sent again, since the end of the warm-up")
    local_bytes: int = col("bytes on flows within it, since the end of the warm-up")
    receive_timeouts: int = col("receives that ended by their time-out, since the end of the warm-up")


@record("half")
class Half:
    """One direction of a flow: half 2f + e carries what end e of flow f sends."""

    proto: int = col("0 tcp, 1 udp, 2 unix")
    vm: int = col("the VM whose counters it belongs to", default=-1)
    source: int = col("sending VM, -1 outside", default=-1)
    target: int = col("receiving VM, -1 outside", default=-1)
    local: int = col("1: both ends in one VM")
    uplink: int = col("port by which the outside reaches it", default=-1)
    generation: int = col("passes of its recording")
    unsent: int = col("bytes accepted by the socket and not yet sent")
    flight: int = col("bytes sent and not acknowledged, lost ones apart")
    frames_out: int = col("frames sent and not acknowledged, lost ones included")
    next_seq: int = col("position of the next byte to send")
    window_cut_ns: int = col("when the congestion window was last cut", default=-1)
    congestion_bytes: int = col("congestion window")
    threshold_bytes: int = col("slow start threshold")
    rtt_ns: int = col("smoothed round-trip time, 0 before the first sample")
    lost_bytes: int = col("bytes dropped, to be sent again")
    lost_first: int = col("first dropped frame, -1 for none", default=-1)
    lost_last: int = col("last dropped frame", default=-1)
    expected: int = col("position of the next byte in order at the receiver")
    available: int = col("bytes in order that no receive has taken")
    held_bytes: int = col("bytes that arrived out of order")
    held_first: int = col("first frame held for order", default=-1)
    recv_first: int = col("first thread that waits in receive", default=-1)
    recv_last: int = col("last thread that waits in receive", default=-1)
    send_first: int = col("first thread that waits in send", default=-1)
    send_last: int = col("last thread that waits in send", default=-1)
    pumping: int = col("1: stands in the list of halves that may send")
    next_pump: int = col("next in that list", default=-1)
    timer_ns: int = col("when lost frames are sent again, 0 for never")
    source_vcpu: int = col("vCPU that sent last", default=-1)
    target_vcpu: int = col("vCPU that received last", default=-1)
    accepted: int = col("bytes accepted from senders in this pass")
    consumed: int = col("bytes taken by receivers in this pass")
    retransmissions: int = col("frames sent again, since the beginning")


@record("frame")
class Frame:
    """A frame, on virtual ports of up to a segmentation-offload chunk; on a link it counts as its segments."""

    state: int = col("FRAME_STATES")
    kind: int = col("0 data, 1 acknowledgement, 2 storage, 3 copy of a flooded frame, 4 emitted by a policy")
    half: int = col("flow half, -1 for none", default=-1)
    request: int = col("block request, -1 for none", default=-1)
    payload: int = col("payload, bytes")
    wire_bytes: int = col("bytes on a physical link, headers and gaps included")
    segments: int = col("physical frames that it is cut into", default=1)
    seq: int = col("position of its first byte in the half")
    generation: int = col("pass of the recording that sent it")
    in_port: int = col("port where it entered the switch, -1 for none", default=-1)
    target_port: int = col("port that its receiver is behind", default=-1)
    port: int = col("port where it is queued or served, -1 for none", default=-1)
    sent_ns: int = col("when it was sent, last time")
    queued_ns: int = col("when it was queued at its port")
    due_ns: int = col("when it reaches the wire's end")
    again: int = col("times it was sent again")
    next: int = col("next in its queue or list", default=-1)
    previous: int = col("previous in its queue", default=-1)


@record("port")
class Port:
    """A port of the switch, with the queue towards its device."""

    kind: int = col("0 a VM's, 1 an uplink")
    vm: int = col("its VM, -1 for an uplink", default=-1)
    link: int = col("an uplink's transmitting link, -1 for a VM's port", default=-1)
    thread: int = col("host thread that delivers, -1 for none", default=-1)
    limit: int = col("most frames that wait; on an uplink, most segments", default=256)
    queue_first: int = col("first waiting frame, -1 for none", default=-1)
    queue_last: int = col("last waiting frame", default=-1)
    queue_len: int = col("frames that wait")
    queue_slots: int = col("frames that wait, on an uplink segments: what `limit` bounds")
    service: int = col("frame being delivered, -1 for none", default=-1)
    frames: int = col("frames sent out of it, since the beginning")
    bytes: int = col("payload sent out of it, since the beginning")
    drops: int = col("frames that its queue did not take, since the beginning")


@record("link")
class Link:
    """One direction of a physical NIC: 2u carries what uplink u sends, 2u + 1 what comes from outside."""

    ps_per_byte: int = col("time of a byte, picoseconds")
    latency_ns: int = col("time on the wire and in physical switches, ns")
    limit: int = col("receiving side: most segments that wait, the physical switch's buffer", default=256)
    queue_first: int = col("receiving side: first waiting frame", default=-1)
    queue_last: int = col("receiving side: last waiting frame", default=-1)
    queue_len: int = col("receiving side: frames that wait")
    queue_slots: int = col("receiving side: segments that wait")
    service: int = col("frame being transmitted, -1 for none", default=-1)
    wire_first: int = col("first frame on the wire, -1 for none", default=-1)
    wire_last: int = col("last frame on the wire", default=-1)
    busy_ns: int = col("time spent transmitting, since the beginning, ns")
    frames: int = col("frames transmitted, since the beginning")
    bytes: int = col("payload transmitted, since the beginning")
    drops: int = col("receiving side: frames that found the buffer full, since the beginning")
