"""Workloads: a host and the virtual machines on it, read from a TOML file.

    format = 1

    [workload]
    name = "build"                    # [a-z0-9-]+
    class = "micro"                   # "micro" (H of seconds) or "memory" (H of 20 minutes and more)
    summary = "Four build servers share four processors"
    stresses = ["scheduler"]          # the axes it puts under load
    horizon = "5s"                    # H: the cell runs to this virtual time, never "until all have ended"
    warmup = "1s"                     # W: [0, W) is discarded
    replay = "closed"                 # "closed" (dependencies were recorded) or "open" (only times were)

    [host]
    pcpus = 4                         # threads_per_core, cores_per_llc, llcs_per_node: their places
    memory = "4GiB"                   # reserve: the hypervisor's share of it; cpu_mhz: their clock
    [host.disk]                       # the local disk (DAS); kind = "ssd" | "hdd" sets the other defaults
    [host.nic]                        # the physical network card(s), shared by guests and NAS
    [host.filer]                      # the NAS server; [host.filer.disk] its disks
    [host.array]                      # the SAN array behind its fabric; [host.array.disk] its disks

    [[vm]]
    name = "builder"
    count = 4                         # builder-0 .. builder-3
    vcpus = 2
    memory = "512MiB"
    trace = "cc-build"                # a bundled trace, or a path relative to this file ("./mine.parquet")
    tier = "server"                   # which tier of a group that was recorded together; "" = the only one
    instance = "a"                    # VM k of every [[vm]] with this word replays one common recording:
                                      # flows between its tiers go over the switch
    image = "base-idle"               # the base image it starts from; "" = none
    start = "random"                  # offset into the trace: drawn from the seed, or a duration
    [vm.guest]
    replacement = "lru"               # "lru", "clock" or "fifo"
    swap = "256MiB"

Every setting, with its unit, default and the source of the default: `hvbench workloads NAME`, which prints
what `describe_settings` returns. All errors of a file are reported at once, each with its path in the file.
"""

# ruff: noqa: RUF009  (`setting` makes a field; it is no value shared between instances)
from __future__ import annotations

import hashlib
import importlib.resources
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import define, field
from cattrs import Converter
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override
from cattrs.v import transform_error

from hvbench import units
from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

FORMAT = 1
START_RANDOM_NS = -1
_REQUIRED = attrs.NOTHING
T = TypeVar("T")


def setting(
    doc: str,
    *,
    default: Any = _REQUIRED,
    factory: Callable[[], Any] | None = None,
    key: str = "",
    unit: str = "",
    source: str = "",
    legal: tuple[str, ...] = (),
    low: float | None = None,
) -> Any:
    """An attrs field that knows its TOML key, unit, legal values and where its default comes from."""
    metadata = {"doc": doc, "key": key, "unit": unit, "source": source, "legal": legal, "low": low}
    if factory is not None:
        return field(factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


_OWN = "choice of this project"
_SSD_SOURCE = "Intel SSD DC S3500 product specification, 2013"
_HDD_SOURCE = "Seagate Barracuda 7200.12 data sheet, 2009"


@define(frozen=True)
class Disk:
    """A medium: `channels` requests in service at once, each positioning, then bytes at the bandwidth."""

    kind: str = setting(
        "kind of medium; it sets the defaults of the rest", default="ssd", legal=("ssd", "hdd")
    )
    read_latency_ns: int = setting(
        "time of a read before its bytes move (an SSD's flash access)",
        default=50_000,
        key="read_latency",
        unit="ns",
        source=f"{_SSD_SOURCE}: typical read latency 50 us",
        low=0,
    )
    write_latency_ns: int = setting(
        "time of a write before its bytes move",
        default=65_000,
        key="write_latency",
        unit="ns",
        source=f"{_SSD_SOURCE}: typical write latency 65 us",
        low=0,
    )
    seek_ns: int = setting(
        "average seek of a request that does not follow the one before it",
        default=0,
        key="seek",
        unit="ns",
        source=f"{_SSD_SOURCE}: no moving parts",
        low=0,
    )
    track_seek_ns: int = setting(
        "shortest seek, to the next track",
        default=0,
        key="track_seek",
        unit="ns",
        source=f"{_SSD_SOURCE}: no moving parts",
        low=0,
    )
    rotation_ns: int = setting(
        "time of one revolution; a request waits for half of it on average",
        default=0,
        key="rotation",
        unit="ns",
        source=f"{_SSD_SOURCE}: no moving parts",
        low=0,
    )
    bandwidth_bytes_per_s: int = setting(
        "sequential transfer rate",
        default=500_000_000,
        key="bandwidth",
        unit="bytes_per_s",
        source=f"{_SSD_SOURCE}: 500 MB/s sequential read",
        low=1,
    )
    channels: int = setting(
        "requests in service at the same time",
        default=4,
        source=f"{_SSD_SOURCE}: 75,000 reads of 4 KiB a second at 50 us each keep four busy",
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
        source=f"{_SSD_SOURCE}: the 480 GB model",
        low=1,
    )


DISK_KINDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ssd": {},
    "hdd": {
        "read_latency_ns": (0, f"{_HDD_SOURCE}: positioning is seek and rotation"),
        "write_latency_ns": (0, f"{_HDD_SOURCE}: positioning is seek and rotation"),
        "seek_ns": (8_500_000, f"{_HDD_SOURCE}: average read seek 8.5 ms"),
        "track_seek_ns": (1_000_000, f"{_HDD_SOURCE}: track-to-track seek 1 ms"),
        "rotation_ns": (8_333_333, f"{_HDD_SOURCE}: 7,200 revolutions a minute"),
        "bandwidth_bytes_per_s": (125_000_000, f"{_HDD_SOURCE}: 125 MB/s sustained"),
        "channels": (1, f"{_HDD_SOURCE}: one set of heads"),
        "capacity_bytes": (500_000_000_000, f"{_HDD_SOURCE}: the 500 GB model"),
    },
}
"""Defaults of a kind of disk that differ from the fields' own, with their sources."""


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
        source=f"{_OWN}: order of a store-and-forward hop and an interrupt on gigabit Ethernet",
        low=0,
    )
    count: int = setting("cards", default=1, source=_OWN, low=1)
    mtu_bytes: int = setting(
        "payload of one frame", default=1500, key="mtu", unit="bytes", source="IEEE 802.3", low=64
    )
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
        source=f"{_OWN}: as the host's own card",
        low=0,
    )
    service_ns: int = setting(
        "the filer's processor time for a request",
        default=20_000,
        key="service",
        unit="ns",
        source=f"{_OWN}: order of one file server call through a network stack and a file system",
        low=0,
    )
    threads: int = setting(
        "requests that it serves at once", default=8, source="Linux nfsd: 8 threads", low=1
    )
    cache_bytes: int = setting(
        "the filer's own page cache",
        default=0,
        key="cache",
        unit="bytes",
        source=f"{_OWN}: none, so that media compare alike",
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
        source=f"{_OWN}: order of a Fibre Channel switch and its cables",
        low=0,
    )
    controller_ns: int = setting(
        "the array controller's time for a request",
        default=20_000,
        key="controller",
        unit="ns",
        source=f"{_OWN}: as the filer's processor",
        low=0,
    )
    cache_bytes: int = setting(
        "the array's own cache",
        default=0,
        key="cache",
        unit="bytes",
        source=f"{_OWN}: none, so that media compare alike",
        low=0,
    )
    disk: Disk = setting("the array's disks", factory=Disk)


@define(frozen=True)
class Host:
    """The machine under the hypervisor."""

    pcpus: int = setting("physical CPUs (hardware threads)", low=1)
    memory_pages: int = setting("machine memory", key="memory", unit="pages", low=1)
    threads_per_core: int = setting("hardware threads that share a core", default=1, source=_OWN, low=1)
    cores_per_llc: int = setting(
        "cores that share a last-level cache; 0 = all of them", default=0, source=_OWN, low=0
    )
    llcs_per_node: int = setting(
        "last-level caches on a memory node; 0 = all of them", default=0, source=_OWN, low=0
    )
    reserve_share: float = setting(
        "share of the memory that the hypervisor keeps free for itself",
        default=0.06,
        key="reserve",
        unit="share",
        source="Waldspurger, OSDI 2002, section 6.3: reclamation begins below 6 % of system memory",
        low=0,
    )
    cpu_mhz: int = setting(
        "clock, for costs that sources give in cycles", default=2400, unit="mhz", source=_OWN, low=1
    )
    switch_cost_ns: int = setting(
        "direct cost of a switch between two entities of a pCPU",
        default=3_800,
        key="switch_cost",
        unit="ns",
        source="Li, Ding, Shen, ExpCS 2007: 3.8 us between two processes without data",
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
        source=f"{_OWN}: twice the refill on the same cache",
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
    guest_switch_ns: int = setting(
        "cost of a switch between two threads by the guest's own scheduler",
        default=1_200,
        key="guest_switch",
        unit="ns",
        source=f"{_OWN}: order of lmbench's lat_ctx for two small processes",
        low=0,
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
    disk: Disk = setting("the local disk (DAS)", factory=Disk)
    nic: Nic = setting("the network cards", factory=Nic)
    filer: Filer = setting("the NAS server", factory=Filer)
    array: Array = setting("the SAN array", factory=Array)


@define(frozen=True)
class Guest:
    """What the guest's own kernel does."""

    replacement: str = setting(
        "which page the guest's kernel gives up first",
        default="lru",
        legal=("lru", "clock", "fifo"),
        source="two-list LRU, as in Linux",
    )
    swap_pages: int = setting(
        "swap space on the VM's virtual disk", default=65_536, key="swap", unit="pages", source=_OWN, low=0
    )
    balloon: bool = setting("whether a balloon driver is installed", default=True, source=_OWN)


@define(frozen=True)
class VmGroup:
    """One `[[vm]]` table: `count` equal virtual machines."""

    name: str = setting("name; with a count above 1 the VMs are name-0, name-1, ...")
    memory_pages: int = setting("configured memory", key="memory", unit="pages", low=1)
    trace: str = setting("what its threads do: a bundled trace or a path relative to the file")
    count: int = setting("how many of them", default=1, source=_OWN, low=1)
    vcpus: int = setting("virtual CPUs", default=1, source=_OWN, low=1)
    weight: int = setting(
        "share of the processors under contention",
        default=256,
        source="Xen credit scheduler: default weight 256",
        low=1,
    )
    cap_percent: int = setting(
        "most it may use, in percent of one pCPU; 0 = no cap",
        default=0,
        key="cap",
        unit="percent",
        source="Xen credit scheduler: default cap 0",
        low=0,
    )
    reservation_pages: int = setting(
        "machine memory that it is guaranteed",
        default=0,
        key="reservation",
        unit="pages",
        source="ESX: default reservation 0",
        low=0,
    )
    affinity: tuple[int, ...] = setting("pCPUs it may run on; [] = all", factory=tuple)
    tier: str = setting("which tier of a recorded group it replays; empty = the only one", default="")
    instance: str = setting("VMs with the same word, by number, replay one recording together", default="")
    image: str = setting("base image it starts from; empty = none", default="base-idle")
    start_ns: int = setting(
        'offset into the trace: "random" (from the seed) or a duration',
        default=START_RANDOM_NS,
        key="start",
        unit="ns",
    )
    role: str = setting("what it is to the host", default="guest", legal=("guest",))
    guest: Guest = setting("the guest's kernel", factory=Guest)


@define(frozen=True)
class FaultTable:
    """One `[[fault]]` table: something fails at a stated time."""

    kind: str = setting(
        "what fails: one guest, the driver domain's threads, a type 2's host OS, the hypervisor, a pCPU",
        legal=("guest", "driver", "host-os", "hypervisor", "pcpu"),
    )
    at_ns: int = setting("when, in virtual time", key="at", unit="ns", low=0)
    duration_ns: int = setting(
        "how long until a driver domain has restarted or a pCPU is back; 0 = for good",
        default=0,
        key="duration",
        unit="ns",
        source=_OWN,
        low=0,
    )
    vm: str = setting("kind guest: name of the VM", default="")
    pcpu: int = setting("kind pcpu: index of the pCPU", default=0, source=_OWN, low=0)


@define(frozen=True)
class Vm:
    """One virtual machine of a workload, after counts are expanded."""

    index: int
    name: str
    instance: str
    """VMs with the same instance replay one recorded group together; unique where none is named."""
    spec: VmGroup
    trace_path: Path
    image_path: Path | None


@define(frozen=True)
class Settings:
    """The `[workload]` table."""

    name: str = setting("name, [a-z0-9-]+")
    klass: str = setting("class: time scale of what it stresses", key="class", legal=("micro", "memory"))
    horizon_ns: int = setting("H: virtual time at which a cell ends", key="horizon", unit="ns", low=1)
    warmup_ns: int = setting("W: [0, W) is discarded", key="warmup", unit="ns", low=0)
    summary: str = setting("one line for people", default="")
    stresses: tuple[str, ...] = setting("axes that it puts under load", factory=tuple)
    replay: str = setting(
        "whether operations wait for the ones before", default="closed", legal=("closed", "open")
    )


@define(frozen=True)
class Workload:
    """A parsed workload: settings, host and virtual machines, with traces found."""

    settings: Settings
    host: Host
    groups: tuple[VmGroup, ...]
    vms: tuple[Vm, ...]
    path: Path
    faults: tuple[FaultTable, ...] = ()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def klass(self) -> str:
        return self.settings.klass

    @property
    def horizon_ns(self) -> int:
        return self.settings.horizon_ns

    @property
    def warmup_ns(self) -> int:
        return self.settings.warmup_ns

    def canonical(self) -> dict[str, Any]:
        """Everything of it that can change a result, as plain JSON values; traces by their contents."""
        return {
            "format": FORMAT,
            "replay": self.settings.replay,
            "host": attrs.asdict(self.host),
            "faults": [attrs.asdict(fault) for fault in self.faults],
            "vms": [
                {
                    **attrs.asdict(vm.spec, filter=lambda a, _: a.name not in {"trace", "image", "count"}),
                    "name": vm.name,
                    "instance": vm.instance,
                    "trace": file_digest(vm.trace_path),
                    "image": file_digest(vm.image_path) if vm.image_path else "",
                }
                for vm in self.vms
            ],
        }


def file_digest(path: Path) -> str:
    """blake2b-128 of a file's bytes; remembered until the file changes."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return _file_digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _file_digest(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# --- reading -------------------------------------------------------------------------------------------


def _structure_fn(converter: Converter, cls: type[T]) -> Callable[[Any, type[T]], T]:
    """A cattrs function for `cls`: keys without unit suffixes, quantities with units, extra keys refused."""
    overrides: dict[str, Any] = {}
    for attribute in attrs.fields(cls):  # type: ignore[arg-type]
        options: dict[str, Any] = {}
        if attribute.metadata.get("key"):
            options["rename"] = attribute.metadata["key"]
        hook = _value_hook(attribute)
        if hook is not None:
            options["struct_hook"] = hook
        if options:
            overrides[attribute.name] = override(**options)
    return make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **overrides
    )


def _value_hook(attribute: attrs.Attribute[Any]) -> Callable[[Any, Any], Any] | None:
    """How one scalar setting is read; None leaves tables to cattrs."""
    unit, legal, low = (attribute.metadata[name] for name in ("unit", "legal", "low"))
    kind = attribute.type

    def read(value: Any, _: Any) -> Any:
        result: Any
        if attribute.name == "start_ns" and value == "random":
            return START_RANDOM_NS
        if kind in (int, "int"):
            if not unit and (isinstance(value, bool) or not isinstance(value, int)):
                raise UserError(f"{value!r} is not a whole number")
            result = units.parse_value(value, unit)
        elif kind in (float, "float"):
            result = units.parse_value(value, unit, whole=False)
        elif kind in (bool, "bool"):
            if not isinstance(value, bool):
                raise UserError(f"{value!r} is neither true nor false")
            result = value
        elif kind in (str, "str"):
            if not isinstance(value, str):
                raise UserError(f"{value!r} is not a text")
            result = value
        elif kind in (tuple[int, ...], "tuple[int, ...]", tuple[str, ...], "tuple[str, ...]"):
            element = int if "int" in str(kind) else str
            if not isinstance(value, list) or any(type(item) is not element for item in value):
                raise UserError(
                    f"{value!r} is not a list of {'whole numbers' if element is int else 'texts'}"
                )
            result = tuple(value)
        else:
            raise TypeError(f"no reader for {attribute.name} of type {kind}")
        if legal and result not in legal:
            raise UserError(f"{value!r} is unknown; legal: {', '.join(legal)}")
        if low is not None and result < low:
            raise UserError(f"{value!r} is below the least legal value, {low}")
        return result

    return None if kind in _TABLES or kind in {cls.__name__ for cls in _TABLES} else read


_TABLES: tuple[type, ...] = (Disk, Nic, Filer, Array, Host, Guest, FaultTable, VmGroup, Settings)


@lru_cache(maxsize=1)
def _converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    for cls in _TABLES:
        attrs.resolve_types(cls)
        converter.register_structure_hook(cls, _table_hook(converter, cls))
    return converter


def _table_hook(converter: Converter, cls: type[T]) -> Callable[[Any, Any], T]:
    structure = _structure_fn(converter, cls)

    def read(value: Any, _: Any) -> T:
        if not isinstance(value, dict):
            raise UserError(f"{value!r} is not a table")
        if cls is Disk:
            value = _with_kind_defaults(value)
        return structure(value, cls)

    return read


def _with_kind_defaults(table: Mapping[str, Any]) -> dict[str, Any]:
    """A `disk` table with the defaults of its kind filled in."""
    kind = table.get("kind", "ssd")
    if not isinstance(kind, str):
        return dict(table)
    keys = {a.name: a.metadata["key"] or a.name for a in attrs.fields(Disk)}
    preset = {keys[name]: value for name, (value, _) in DISK_KINDS.get(kind, {}).items()}
    return {**preset, **table}


def _explain(error: BaseException, _: type | None) -> str:
    """One error of cattrs in words."""
    if isinstance(error, ForbiddenExtraKeysError):
        legal = sorted(a.metadata.get("key") or a.name for a in attrs.fields(error.cl))
        return f"unknown: {', '.join(sorted(error.extra_fields))}; legal here: {', '.join(legal)}"
    if isinstance(error, KeyError):
        return "required, but missing"
    return str(error) or type(error).__name__


def _structure(value: Any, cls: type[T], where: str, errors: list[str]) -> T | None:
    """One table structured, its errors appended with their paths."""
    try:
        return _converter().structure(value, cls)
    except UserError as error:
        errors.append(f"{where}: {error}")
    except BaseValidationError as error:
        for line in transform_error(error, format_exception=_explain):
            message, _, path = line.rpartition(" @ ")
            errors.append(f"{where}{_with_keys(path.removeprefix('$'))}: {message}")
    return None


def _with_keys(path: str) -> str:
    """A path of attribute names as the keys that stand in the file: `.memory_pages` as `.memory`."""
    keys = {a.name: a.metadata["key"] for cls in _TABLES for a in attrs.fields(cls) if a.metadata["key"]}
    return re.sub(r"\w+", lambda match: keys.get(match.group(), match.group()), path)


def parse_workload(text: str, path: Path) -> Workload:
    """A workload from TOML text; `path` is where it stands, for messages and relative traces.

    Raises one UserError that lists every error with its path in the file.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    errors: list[str] = []
    extra = sorted(set(raw) - {"format", "workload", "host", "vm", "fault"})
    if extra:
        errors.append(f"$: unknown: {', '.join(extra)}; legal here: format, workload, host, vm, fault")
    if raw.get("format") != FORMAT:
        errors.append(f"format: {raw.get('format')!r} is not a known format; write format = {FORMAT}")
    settings = _structure(raw.get("workload", {}), Settings, "workload", errors)
    host = _structure(raw.get("host", {}), Host, "host", errors)
    tables = raw.get("vm", [])
    if not isinstance(tables, list) or not tables:
        errors.append("vm: at least one [[vm]] is needed")
        tables = []
    groups = [_structure(table, VmGroup, f"vm[{i}]", errors) for i, table in enumerate(tables)]
    if settings is not None:
        errors.extend(_check_settings(settings))
    if host is not None:
        errors.extend(_check_host(host))
    vms: list[Vm] = []
    for i, group in enumerate(groups):
        trace_path = _find(tables[i], "trace", f"vm[{i}]", path.parent, errors)
        image_path = _find(tables[i], "image", f"vm[{i}]", path.parent, errors, default="base-idle")
        if group is not None:
            errors.extend(_check_group(group, f"vm[{i}]", host))
            if trace_path is not None:
                vms.extend(_expand(group, len(vms), trace_path, image_path))
    errors.extend(_check_together(vms))
    stated = raw.get("fault", [])
    if not isinstance(stated, list):
        errors.append("fault: write it as [[fault]] tables")
        stated = []
    faults = [_structure(table, FaultTable, f"fault[{i}]", errors) for i, table in enumerate(stated)]
    for i, fault in enumerate(faults):
        if fault is not None:
            errors.extend(_check_fault(fault, f"fault[{i}]", vms, host))
    if errors or settings is None or host is None:
        count = f"{len(errors)} errors: " if len(errors) > 1 else ""
        raise UserError(f"{path}: {count}{'; '.join(errors)}")
    return Workload(settings, host, tuple(g for g in groups if g is not None), tuple(vms), path, tuple(f for f in faults if f))


def _check_fault(fault: FaultTable, where: str, vms: list[Vm], host: Host | None) -> Iterator[str]:
    names = [vm.name for vm in vms]
    if fault.kind == "guest" and fault.vm not in names:
        yield f"{where}.vm: no VM {fault.vm!r}{did_you_mean(fault.vm, names, always=True)}"
    if fault.kind == "pcpu" and host is not None and fault.pcpu >= host.pcpus:
        yield f"{where}.pcpu: no pCPU {fault.pcpu} on a host of {host.pcpus} (0 to {host.pcpus - 1})"
    if fault.duration_ns and fault.kind not in ("driver", "pcpu"):
        yield f"{where}.duration: a {fault.kind} does not come back; only driver and pcpu have a duration"


def _check_settings(settings: Settings) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", settings.name):
        yield f"workload.name: {settings.name!r} is not of the form [a-z0-9-]+"
    if settings.warmup_ns >= settings.horizon_ns:
        yield "workload.warmup: not below the horizon; nothing would be measured"
    for axis in settings.stresses:
        if axis not in AXES:
            yield f"workload.stresses: {axis!r} is no axis; legal: {', '.join(AXES)}"


def _check_host(host: Host) -> Iterator[str]:
    if host.pcpus % host.threads_per_core:
        yield f"host.threads_per_core: {host.threads_per_core} does not divide {host.pcpus} pcpus"
    if host.reserve_share >= 1:
        yield f"host.reserve: {host.reserve_share:g} leaves no memory; write a share below 1, like 0.06"


def _check_group(group: VmGroup, where: str, host: Host | None) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", group.name):
        yield f"{where}.name: {group.name!r} is not of the form [a-z0-9-]+"
    if group.reservation_pages > group.memory_pages:
        yield f"{where}.reservation: above the VM's memory"
    if group.cap_percent > 100 * group.vcpus:
        yield f"{where}.cap: {group.cap_percent} % is above what {group.vcpus} vCPUs can use"
    if not group.trace:
        yield f"{where}.trace: empty; name a trace"
    if group.start_ns < START_RANDOM_NS:
        yield f"{where}.start: a negative offset"
    if host is not None:
        outside = [pcpu for pcpu in group.affinity if not 0 <= pcpu < host.pcpus]
        if outside:
            yield f"{where}.affinity: no pCPU {outside[0]} on a host of {host.pcpus} (0 to {host.pcpus - 1})"


def _find(table: Any, key: str, where: str, base: Path, errors: list[str], default: str = "") -> Path | None:
    """The trace that a raw `[[vm]]` names under `key`; sought even where the rest of the table is wrong."""
    name = table.get(key, default) if isinstance(table, dict) else ""
    if not isinstance(name, str) or not name:
        return None
    try:
        return find_trace(name, base)
    except UserError as error:
        errors.append(f"{where}.{key}: {error}")
        return None


def _expand(group: VmGroup, first: int, trace_path: Path, image_path: Path | None) -> Iterator[Vm]:
    for k in range(group.count):
        name = f"{group.name}-{k}" if group.count > 1 else group.name
        instance = f"{group.instance}#{k}" if group.instance else f"vm:{name}"
        yield Vm(first + k, name, instance, group, trace_path, image_path)


def _check_together(vms: list[Vm]) -> Iterator[str]:
    seen_names: set[str] = set()
    seen_tiers: dict[tuple[str, str], str] = {}
    trace_of: dict[str, Vm] = {}
    for vm in vms:
        if vm.name in seen_names:
            yield f"vm: two VMs are named {vm.name}"
        seen_names.add(vm.name)
        other = seen_tiers.setdefault((vm.instance, vm.spec.tier), vm.name)
        if other != vm.name:
            yield f"vm: {other} and {vm.name} are both tier {vm.spec.tier!r} of instance {vm.spec.instance!r}"
        if trace_of.setdefault(vm.instance, vm).trace_path != vm.trace_path:
            first = trace_of[vm.instance]
            yield f"vm: {first.name} and {vm.name} are of one instance but replay different traces"


def find_trace(name: str, base: Path) -> Path:
    """A bundled trace by name, or a file relative to `base`; UserError with the nearest names."""
    if name.endswith(".parquet") or "/" in name:
        path = (base / name).resolve()
        if not path.is_file():
            raise UserError(f"no trace file {path}")
        return path
    folder = bundled_folder() / "traces"
    path = folder / f"{name}.parquet"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.parquet"))
        hint = did_you_mean(name, known, always=True)
        raise UserError(f"no bundled trace {name!r}{hint}; a file is written ./{name}.parquet")
    return path


def bundled_folder() -> Path:
    """The folder of the bundled workloads."""
    try:
        return Path(str(importlib.resources.files("hvbench_workloads")))
    except ModuleNotFoundError as error:
        raise UserError(
            "the bundled workloads are not installed; install hvbench (pip install -e .)"
        ) from error


def bundled_names() -> list[str]:
    """Names of the bundled workloads, sorted."""
    return sorted(path.stem for path in bundled_folder().glob("*.toml"))


def load_workload(name_or_path: str) -> Workload:
    """A bundled workload by name, or a user's by path (anything with `/` or ending in `.toml`)."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
    else:
        path = bundled_folder() / f"{name_or_path}.toml"
        if not path.is_file():
            hint = did_you_mean(name_or_path, bundled_names(), always=True)
            raise UserError(
                f"no bundled workload {name_or_path!r}{hint}; a file is written ./{name_or_path}.toml"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
    return parse_workload(text, path)


# --- describing ----------------------------------------------------------------------------------------


@define(frozen=True)
class SettingInfo:
    """One setting of a workload as people see it."""

    path: str
    value: str
    unit: str
    is_default: bool
    doc: str
    source: str


def describe_settings(record: Any, prefix: str = "") -> Iterator[SettingInfo]:
    """Every setting of a table (`Host`, `VmGroup`, `Settings`): value, unit, meaning, source."""
    kind_defaults = DISK_KINDS.get(record.kind, {}) if isinstance(record, Disk) else {}
    for attribute in attrs.fields(type(record)):
        value = getattr(record, attribute.name)
        path = prefix + (attribute.metadata["key"] or attribute.name)
        if attrs.has(type(value)):
            yield from describe_settings(value, f"{path}.")
            continue
        default, source = attribute.default, attribute.metadata["source"]
        if attribute.name in kind_defaults:
            default, source = kind_defaults[attribute.name]
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        unit = attribute.metadata["unit"]
        is_default = default is not attrs.NOTHING and value == default
        if attribute.name == "start_ns" and value == START_RANDOM_NS:
            text = "random"
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, (int, float)):
            text = units.format_value(value, unit or "count")
        elif isinstance(value, tuple):
            text = "[" + ", ".join(str(item) for item in value) + "]"
        else:
            text = str(value)
        yield SettingInfo(
            path, text, unit, is_default, attribute.metadata["doc"], source if is_default else ""
        )
