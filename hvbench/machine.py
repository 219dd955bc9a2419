# ruff: noqa: RUF009  (`setting` makes a field; it is no value shared between instances)
"""The machine under the hypervisor: its processors, memory, disks, network cards, and the servers it reaches."""

from __future__ import annotations

from typing import ClassVar

from attrs import define

from hvbench.settings import OWN, Kinds, setting

MOST_PCPUS = 512
"""Most pCPUs of a host."""

SSD_SOURCE = "Intel SSD DC S3500 product specification, 2013 (cited from memory)"
HDD_SOURCE = "Seagate Barracuda 7200.12 data sheet, 2009 (cited from memory)"

BACKINGS = ("4KiB", "2MiB")


@define(frozen=True)
class Disk:
    """A medium: `channels` requests in service at once, each positioning, then bytes at the bandwidth."""

    KINDS: ClassVar[Kinds] = {
        "ssd": {},
        "hdd": {
            "read_latency_ns": (0, f"{HDD_SOURCE}: positioning is seek and rotation"),
            "write_latency_ns": (0, f"{HDD_SOURCE}: positioning is seek and rotation"),
            "seek_ns": (8_500_000, f"{HDD_SOURCE}: average read seek 8.5 ms"),
            "track_seek_ns": (1_000_000, f"{HDD_SOURCE}: track-to-track seek 1 ms"),
            "rotation_ns": (8_333_333, f"{HDD_SOURCE}: 7,200 revolutions a minute"),
            "bandwidth_bytes_per_s": (125_000_000, f"{HDD_SOURCE}: 125 MB/s sustained"),
            "channels": (1, f"{HDD_SOURCE}: one set of heads"),
            "capacity_bytes": (500_000_000_000, f"{HDD_SOURCE}: the 500 GB model"),
        },
    }

    kind: str = setting("kind of medium; it sets the defaults of the rest", default="ssd", legal=("ssd", "hdd"))
    read_latency_ns: int = setting(
        "time of a read before its bytes move (an SSD's flash access)",
        default=50_000,
        key="read_latency",
        unit="ns",
        source=f"{SSD_SOURCE}: typical read latency 50 us",
        low=0,
    )
    write_latency_ns: int = setting(
        "time of a write before its bytes move",
        default=65_000,
        key="write_latency",
        unit="ns",
        source=f"{SSD_SOURCE}: typical write latency 65 us",
        low=0,
    )
    seek_ns: int = setting(
        "average seek of a request that does not follow the one before it",
        default=0,
        key="seek",
        unit="ns",
        source=f"{SSD_SOURCE}: no moving parts",
        low=0,
    )
    track_seek_ns: int = setting(
        "shortest seek, to the next track",
        default=0,
        key="track_seek",
        unit="ns",
        source=f"{SSD_SOURCE}: no moving parts",
        low=0,
    )
    rotation_ns: int = setting(
        "time of one revolution; a request waits for half of it on average",
        default=0,
        key="rotation",
        unit="ns",
        source=f"{SSD_SOURCE}: no moving parts",
        low=0,
    )
    bandwidth_bytes_per_s: int = setting(
        "sequential transfer rate",
        default=500_000_000,
        key="bandwidth",
        unit="bytes_per_s",
        source=f"{SSD_SOURCE}: 500 MB/s sequential read",
        low=1,
    )
    channels: int = setting(
        "requests in service at the same time",
        default=4,
        source=f"{SSD_SOURCE}: 75,000 reads of 4 KiB a second at 50 us each keep four busy",
        low=1,
    )
    queue_depth: int = setting(
        "requests that the device accepts before the controller holds them back",
        default=32,
        source="Serial ATA native command queuing: 32 tags",
        low=1,
    )
    capacity_bytes: int = setting(
        "size, over which virtual disks are laid out (seeks grow with distance)",
        default=480_000_000_000,
        key="capacity",
        unit="bytes",
        source=f"{SSD_SOURCE}: the 480 GB model",
        low=1,
    )


@define(frozen=True)
class Nic:
    """The physical network cards of the host, shared by guests' frames and NAS traffic."""

    bandwidth_bytes_per_s: int = setting(
        "rate of one card, each way",
        default=125_000_000,
        key="bandwidth",
        unit="bytes_per_s",
        source="IEEE 802.3ab: 1 Gbit/s",
        low=1,
    )
    latency_ns: int = setting(
        "one way from the card through a physical switch to the next machine",
        default=30_000,
        key="latency",
        unit="ns",
        source=f"{OWN}: order of a store-and-forward hop and an interrupt on gigabit Ethernet",
        low=0,
    )
    count: int = setting("cards", default=1, source=OWN, low=1)
    mtu_bytes: int = setting("payload of one frame", default=1500, key="mtu", unit="bytes", source="IEEE 802.3", low=64)
    queue_frames: int = setting(
        "frames that a card holds before it drops",
        default=256,
        key="queue",
        source="Linux e1000e driver: 256 transmit descriptors",
        low=1,
    )


@define(frozen=True)
class Filer:
    """The NAS server: its link, its processor, its cache and its disks."""

    bandwidth_bytes_per_s: int = setting(
        "rate of the filer's link",
        default=125_000_000,
        key="bandwidth",
        unit="bytes_per_s",
        source="IEEE 802.3ab: 1 Gbit/s",
        low=1,
    )
    latency_ns: int = setting(
        "one way between the host's card and the filer's",
        default=30_000,
        key="latency",
        unit="ns",
        source=f"{OWN}: as the host's own card",
        low=0,
    )
    service_ns: int = setting(
        "the filer's processor time for a request",
        default=20_000,
        key="service",
        unit="ns",
        source=f"{OWN}: order of one file server call through a network stack and a file system",
        low=0,
    )
    threads: int = setting("requests that it serves at once", default=8, source="Linux nfsd: 8 threads", low=1)
    cache_bytes: int = setting(
        "the filer's own page cache",
        default=0,
        key="cache",
        unit="bytes",
        source=f"{OWN}: none, so that media compare alike",
        low=0,
    )
    disk: Disk = setting("the filer's disks", factory=Disk)


@define(frozen=True)
class Array:
    """The SAN array behind its fabric."""

    bandwidth_bytes_per_s: int = setting(
        "rate of the fabric",
        default=400_000_000,
        key="bandwidth",
        unit="bytes_per_s",
        source="Fibre Channel 4GFC: 400 MB/s each way",
        low=1,
    )
    latency_ns: int = setting(
        "one way through the fabric",
        default=5_000,
        key="latency",
        unit="ns",
        source=f"{OWN}: order of a Fibre Channel switch and its cables",
        low=0,
    )
    controller_ns: int = setting(
        "the array controller's time for a request",
        default=20_000,
        key="controller",
        unit="ns",
        source=f"{OWN}: as the filer's processor",
        low=0,
    )
    cache_bytes: int = setting(
        "the array's own cache",
        default=0,
        key="cache",
        unit="bytes",
        source=f"{OWN}: none, so that media compare alike",
        low=0,
    )
    disk: Disk = setting("the array's disks", factory=Disk)


@define(frozen=True)
class Host:
    """The machine under the hypervisor."""

    pcpus: int = setting("physical CPUs (hardware threads)", low=1, high=MOST_PCPUS)
    memory_pages: int = setting("machine memory", key="memory", unit="pages", low=1)
    threads_per_core: int = setting("hardware threads that share a core", default=1, source=OWN, low=1)
    cores_per_llc: int = setting("cores that share a last-level cache; 0 = all of them", default=0, source=OWN, low=0)
    llcs_per_node: int = setting("last-level caches on a memory node; 0 = all of them", default=0, source=OWN, low=0)
    reserve_share: float = setting(
        "share of the memory that the hypervisor keeps free for itself",
        default=0.06,
        key="reserve",
        unit="share",
        source="Waldspurger, OSDI 2002, section 6.3: reclamation begins below 6 % of system memory",
        low=0,
    )
    cpu_mhz: int = setting("clock, for costs that sources give in cycles", default=2400, unit="mhz", source=OWN, low=1)
    switch_cost_ns: int = setting(
        "direct cost of a switch between two entities of a pCPU",
        default=3_800,
        key="switch_cost",
        unit="ns",
        source="Li, Ding, Shen, ExpCS 2007: 3.8 us between two processes without data (cited from memory)",
        low=0,
    )
    cache_refill_ns: int = setting(
        "refill of a whole working set that others evicted, on the same last-level cache",
        default=375_000,
        key="cache_refill",
        unit="ns",
        source="calibrated: Barham et al., SOSP 2003, figure 6, 128 domains at 5 ms",
        low=0,
    )
    cache_refill_other_ns: int = setting(
        "refill after a move to another last-level cache",
        default=750_000,
        key="cache_refill_other",
        unit="ns",
        source=f"{OWN}: twice the refill on the same cache",
        low=0,
    )
    cache_refill_tau_ns: int = setting(
        "time that others run until half of a working set is evicted",
        default=6_111_000,
        key="cache_refill_tau",
        unit="ns",
        source="calibrated: Barham et al., SOSP 2003, figure 6, 4 domains at 5 ms: 45 % gone after 5 ms",
        low=1,
    )
    guest_slice_ns: int = setting(
        "time slice of the guests' own scheduler",
        default=3_000_000,
        key="guest_slice",
        unit="ns",
        source="Linux 6.6 EEVDF: base_slice_ns 0.75 ms x (1 + log2 of 8 CPUs)",
        low=1,
    )
    hypervisor_pages: int = setting(
        "memory of the hypervisor itself",
        default=32_768,
        key="hypervisor_memory",
        unit="pages",
        source=f"{OWN}: 128 MiB",
        low=0,
    )
    swap_pages: int = setting(
        "the hypervisor's swap area; 0 = as large as the configured memory of all VMs",
        default=0,
        key="swap",
        unit="pages",
        source="ESX: a swap file as large as the VM's memory without reservation",
        low=0,
    )
    backing: str = setting(
        "pages by which the hypervisor backs guests, while free memory is high",
        default="4KiB",
        legal=BACKINGS,
        source=f"{OWN}: 4 KiB; 2MiB: as KVM with transparent huge pages, and ESX, back by default",
    )
    guest_spin_ns: int = setting(
        "how long a guest's thread spins at a held lock before it waits",
        default=0,
        key="guest_spin",
        unit="ns",
        source="glibc: a default mutex does not spin",
        low=0,
    )
    ple_window_ns: int = setting(
        "spinning for so long makes a vCPU exit (pause-loop exiting); 0 = never",
        default=1_707,
        key="ple_window",
        unit="ns",
        source="Linux KVM: ple_window 4096 cycles, at 2400 MHz",
        low=0,
    )
    guest_switch_ns: int = setting(
        "cost of a switch between two threads by the guest's own scheduler",
        default=1_200,
        key="guest_switch",
        unit="ns",
        source=f"{OWN}: order of lmbench's lat_ctx for two small processes",
        low=0,
    )
    disk: Disk = setting("the local disk (DAS)", factory=Disk)
    nic: Nic = setting("the network cards", factory=Nic)
    filer: Filer = setting("the NAS server", factory=Filer)
    array: Array = setting("the SAN array", factory=Array)
