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
    replacement = "linux"             # "linux" (two lists), "lru", "clock" or "fifo"
    swap = "256MiB"
    [vm.realtime]                     # rtds and sedf: budget of each vCPU in every period
    period = "10ms"
    budget = "4ms"
    [vm.warp]                         # bvt: put ahead when woken
    ahead = "20ms"
    limit = "5ms"

    [[fault]]                         # what fails, and when
    kind = "driver"                   # "guest" (with vm = NAME), "driver", "host-os", "hypervisor", "pcpu"
    at = "2s"
    duration = "500ms"                # until a driver domain or a pCPU is back

Every setting, with its unit, default and the source of the default: `hvbench workloads NAME`, which prints
what `hvbench.settings.describe_settings` returns. All errors of a file are reported at once, each with its
path in the file.
"""

# ruff: noqa: RUF009  (`setting` makes a field; it is no value shared between instances)
from __future__ import annotations

import hashlib
import importlib.resources
import re
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
from attrs import define

from hvbench.axes import AXES
from hvbench.errors import UserError
from hvbench.machine import BACKINGS, Host
from hvbench.nearest import did_you_mean
from hvbench.settings import OWN, read_table, setting, unknown_keys

FORMAT = 1
MOST_VMS = 1024
MOST_VCPUS = 4096
LONGEST_NS = 1 << 53
"""About 104 days: every horizon and start, so that sums of times stay within 64 bits."""
DEFAULT_WEIGHT = 256
HOSTS_SPIN_NS = -1
"""A guest that spins as long as the host's setting says."""
START_RANDOM_NS = -1
"""A start offset that the seed draws."""


@define(frozen=True)
class Guest:
    """What the guest's own kernel does."""

    replacement: str = setting(
        "which page the guest's kernel gives up first",
        default="linux",
        legal=("linux", "lru", "clock", "fifo"),
        source="linux: active and inactive lists, as in Linux's mm/vmscan.c; others for parity with simulators",
    )
    swap_pages: int = setting(
        "swap space on the VM's virtual disk", default=65_536, key="swap", unit="pages", source=OWN, low=0
    )
    balloon: bool = setting("whether a balloon driver is installed", default=True, source=OWN)
    spin_ns: int = setting(
        'how long its threads spin at a held lock before they halt; "host" = guest_spin of the host',
        default=HOSTS_SPIN_NS,
        key="spin",
        unit="ns",
        words={"host": HOSTS_SPIN_NS},
        source="choice of this project; pv ticketlocks: 2^15 loops (Linux 3.12, arch/x86/include/asm/spinlock.h)",
    )
    tick_ns: int = setting(
        "period of its timer tick while a vCPU is busy (1/HZ), whose interrupt the hypervisor delivers; 0 = tickless",
        default=4_000_000,
        key="tick",
        unit="ns",
        low=0,
        source="Linux 6.12, kernel/Kconfig.hz: HZ_250; idle vCPUs have none (NO_HZ_IDLE)",
    )


@define(frozen=True)
class Realtime:
    """What real-time schedulers guarantee each vCPU of a VM; without a period they use their own defaults."""

    period_ns: int = setting(
        "period, and relative deadline, of each vCPU; 0 = the scheduler's default",
        default=0,
        key="period",
        unit="ns",
        source=OWN,
        low=0,
        high=LONGEST_NS,
    )
    budget_ns: int = setting(
        "CPU time that each vCPU is guaranteed in a period (SEDF calls it the slice)",
        default=0,
        key="budget",
        unit="ns",
        source=OWN,
        low=0,
        high=LONGEST_NS,
    )
    extratime: bool = setting(
        "whether it may also run on time that nobody was guaranteed",
        default=True,
        source="Xen 4.11, xen/common/sched_rt.c: extratime is on by default",
    )
    latency_ns: int = setting(
        "SEDF: period that it is scaled to after a long block; 0 = not scaled",
        default=0,
        key="latency",
        unit="ns",
        source="Xen 3.0, xen/common/sched_sedf.c: latency 0",
        low=0,
        high=LONGEST_NS,
    )


@define(frozen=True)
class Warp:
    """BVT: how a VM borrows against its future share when it is woken."""

    ahead_ns: int = setting(
        "how far it is put ahead of others, in its own CPU time at weight 256; 0 = never",
        default=0,
        key="ahead",
        unit="ns",
        source="Xen 2.0, xen/common/sched_bvt.c: warp 0",
        low=0,
        high=LONGEST_NS,
    )
    limit_ns: int = setting(
        "longest time that it stays ahead",
        default=0,
        key="limit",
        unit="ns",
        source="Xen 2.0, xen/common/sched_bvt.c: warpl 0",
        low=0,
        high=LONGEST_NS,
    )
    rest_ns: int = setting(
        "least time between falling back from a warp and the next one",
        default=0,
        key="rest",
        unit="ns",
        source="Xen 2.0, xen/common/sched_bvt.c: warpu 0",
        low=0,
        high=LONGEST_NS,
    )


@define(frozen=True)
class VmGroup:
    """One `[[vm]]` table: `count` equal virtual machines."""

    name: str = setting("name; with a count above 1 the VMs are name-0, name-1, ...")
    memory_pages: int = setting("configured memory", key="memory", unit="pages", low=1)
    trace: str = setting("what its threads do: a bundled trace or a path relative to the file")
    count: int = setting("how many of them", default=1, source=OWN, low=1, high=MOST_VMS)
    vcpus: int = setting("virtual CPUs", default=1, source=OWN, low=1, high=MOST_VCPUS)
    weight: int = setting(
        "share of the processors under contention",
        default=DEFAULT_WEIGHT,
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
    cpu_reservation_percent: int = setting(
        "CPU time that it is guaranteed when it wants it, in percent of one pCPU, over its vCPUs together",
        default=0,
        key="cpu_reservation",
        unit="percent",
        source="ESX: default CPU reservation 0",
        low=0,
    )
    memory_reservation_pages: int = setting(
        "machine memory that it is guaranteed",
        default=0,
        key="memory_reservation",
        unit="pages",
        source="ESX: default reservation 0",
        low=0,
    )
    memory_limit_pages: int = setting(
        "machine memory that it may have at most; 0 = as much as its configured memory",
        default=0,
        key="memory_limit",
        unit="pages",
        source="ESX: default limit none",
        low=0,
    )
    memory_shares: int = setting(
        "its claim to machine memory beside the other VMs'; 0 = 10 a MiB of its configured memory",
        default=0,
        source='ESX: "normal" shares, 10 a MB',
        low=0,
        high=1_000_000,
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
        words={"random": START_RANDOM_NS},
    )
    backing: str = setting(
        "pages by which the hypervisor backs it",
        default="host",
        legal=("host", *BACKINGS),
        source=f"{OWN}: as the host's setting says",
    )
    role: str = setting("what it is to the host", default="guest", legal=("guest",))
    guest: Guest = setting("the guest's kernel", factory=Guest)
    realtime: Realtime = setting("what real-time schedulers guarantee it", factory=Realtime)
    warp: Warp = setting("how far BVT puts it ahead when it is woken", factory=Warp)


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
        source=OWN,
        low=0,
    )
    vm: str = setting("kind guest: name of the VM", default="")
    pcpu: int = setting("kind pcpu: index of the pCPU", default=0, source=OWN, low=0)


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
    horizon_ns: int = setting("H: virtual time at which a cell ends", key="horizon", unit="ns", low=1, high=LONGEST_NS)
    warmup_ns: int = setting("W: [0, W) is discarded", key="warmup", unit="ns", low=0)
    summary: str = setting("one line for people", default="")
    stresses: tuple[str, ...] = setting("axes that it puts under load", factory=tuple)
    replay: str = setting("whether operations wait for the ones before", default="closed", legal=("closed", "open"))


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


def parse_workload(text: str, path: Path) -> Workload:
    """A workload from TOML text; `path` is where it stands, for messages and relative traces.

    Raises one UserError that lists every error with its path in the file.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    errors: list[str] = []
    legal = ("format", "workload", "host", "vm", "fault")
    if set(raw) - set(legal):
        errors.append(f"the file's top level: {unknown_keys(set(raw) - set(legal), legal)}")
    if raw.get("format") != FORMAT:
        errors.append(f"format: {raw.get('format')!r} is not a known format; write format = {FORMAT}")
    settings = read_table(raw.get("workload", {}), Settings, "workload", errors)
    host = read_table(raw.get("host", {}), Host, "host", errors)
    tables = raw.get("vm", [])
    if not isinstance(tables, list) or not tables:
        errors.append("vm: at least one [[vm]] is needed")
        tables = []
    groups = [read_table(table, VmGroup, f"vm[{i}]", errors) for i, table in enumerate(tables)]
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
    faults = [read_table(table, FaultTable, f"fault[{i}]", errors) for i, table in enumerate(stated)]
    for i, fault in enumerate(faults):
        if fault is not None:
            errors.extend(_check_fault(fault, f"fault[{i}]", vms, host))
    if errors or settings is None or host is None:
        count = f"{len(errors)} errors: " if len(errors) > 1 else ""
        raise UserError(f"{path}: {count}{'; '.join(errors)}")
    kept = tuple(group for group in groups if group is not None)
    return Workload(settings, host, kept, tuple(vms), path, tuple(fault for fault in faults if fault is not None))


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
    if group.memory_reservation_pages > group.memory_pages:
        yield f"{where}.memory_reservation: above the VM's memory"
    if group.memory_limit_pages and group.memory_limit_pages < group.memory_reservation_pages:
        yield f"{where}.memory_limit: below its memory_reservation"
    if group.memory_limit_pages > group.memory_pages:
        yield f"{where}.memory_limit: above the VM's memory"
    if group.cap_percent > 100 * group.vcpus:
        yield f"{where}.cap: {group.cap_percent} % is above what {group.vcpus} vCPUs can use"
    if group.cpu_reservation_percent > 100 * group.vcpus:
        yield f"{where}.cpu_reservation: {group.cpu_reservation_percent} % is above what {group.vcpus} vCPUs can use"
    if 0 < group.cap_percent < group.cpu_reservation_percent:
        yield f"{where}.cpu_reservation: above its cap of {group.cap_percent} %"
    if group.realtime.budget_ns > group.realtime.period_ns:
        yield f"{where}.realtime.budget: above the period; a vCPU cannot run longer than time passes"
    if group.realtime.period_ns and not group.realtime.budget_ns:
        yield f"{where}.realtime.budget: missing; a period without a budget guarantees nothing"
    if not group.trace:
        yield f"{where}.trace: empty; name a trace"
    if group.start_ns < START_RANDOM_NS:
        yield f"{where}.start: a negative offset"
    if group.start_ns > LONGEST_NS:
        yield f"{where}.start: above {LONGEST_NS} ns"
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
        path = base / name
        if not is_file(path):
            raise UserError(f"no trace file {path}")
        return path.resolve()
    folder = bundled_folder() / "traces"
    path = folder / f"{name}.parquet"
    if not is_file(path):
        known = sorted(p.stem for p in folder.glob("*.parquet"))
        hint = did_you_mean(name, known, always=True)
        raise UserError(f"no bundled trace {name!r}{hint}; a file is written ./{name}.parquet")
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def bundled_folder() -> Path:
    """The folder of the bundled workloads."""
    try:
        return Path(str(importlib.resources.files("hvbench_workloads")))
    except ModuleNotFoundError as error:
        raise UserError("the bundled workloads are not installed; install hvbench (pip install -e .)") from error


def bundled_names() -> list[str]:
    """Names of the bundled workloads, sorted."""
    return sorted(path.stem for path in bundled_folder().glob("*.toml"))


def load_workload(name_or_path: str) -> Workload:
    """A bundled workload by name, or a user's by path (anything with `/` or ending in `.toml`)."""
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
    else:
        path = bundled_folder() / f"{name_or_path}.toml"
        if not is_file(path):
            hint = did_you_mean(name_or_path, bundled_names(), always=True)
            raise UserError(f"no bundled workload {name_or_path!r}{hint}; a file is written ./{name_or_path}.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r}: no name of a file: {error}") from error
    return parse_workload(text, path)
