"""oVirt MOM: rules shrink all guests together by 5 % steps while the host lacks free memory, and drive KSM.

Overview: every `sample_ns` host and guests report free memory; the last `history` reports are averaged. Every
`period_ns` the rules run. Below `pressure_percent` free memory each guest shrinks, by at most `step_percent` of its
size at a time, towards what it uses and a share of its size that is left free: `guest_free_percent` scaled by how
much is free on the host, or less than nothing below `critical_percent`, so that it swaps. Above it guests that were
shrunk grow again by such steps. A change of less than `ignore_ppm` of a guest is not made. KSM runs while free
memory is short or what it could share is as large as the host less that threshold; its pages_to_scan grows by
`boost_pages` a round under pressure and decays by `decay_pages` else; it sleeps less the larger the host is. The
rules set a scanner's tunables: stack `mom+ksm`.

Source: oVirt MOM, doc/balloon.rules (commit e0f3d3b: pressure_threshold 0.20, pressure_critical 0.05,
min_guest_free_percent 0.20, max_balloon_change_percent 0.05, min_balloon_change_percent 0.0025); the KSM rules of
mom-balloon.policy (oVirt site: boost 300, decay 50, npages 64 to 1250, sleep 10 ms at 16 GiB, free percent 0.20);
doc/mom-balloon+ksm.conf (policy every 10 s, statistics every 5 s, 10 samples); mom/Collectors/HostKSM.py
(shareable: the address space of the guests' processes, here their configured memory).

Claims: reclaims with balloons where guests have something to give, and gives back; both slowly, since its rules look
at averages over almost a minute and count a guest's page cache as used.

Not modelled: the quality-of-service rules and CPU and I/O rules; a guest without an agent, whose statistics the
rules lack.
"""

from __future__ import annotations

from attrs import define, frozen

from hvbench.policy import (
    HashMap,
    balance,
    hookimpl,
    map_get,
    map_put,
    param,
    set_balloon_driver,
    set_timer,
    state,
    tune_scan,
)

AXIS = "memory"
CLAIMS = frozenset({"balloons", "gives-back"})
SAMPLE, RULES = 0, 1
MOST_SAMPLES = 16
MOST_VMS = 1024
KSM_DEFAULT_PAGES = 100
"""[Linux: pages_to_scan 100]"""
PAGES_16_GIB = 16 << 18


@frozen
class Params:
    """Parameters of mom."""

    period_ns: int = param(
        10_000_000_000, unit="ns", low=1_000_000, help="how often the rules run", source="mom-balloon+ksm.conf: 10 s"
    )
    sample_ns: int = param(
        5_000_000_000,
        unit="ns",
        low=1_000_000,
        help="how often statistics are taken",
        source="mom-balloon+ksm.conf: 5 s",
    )
    history: int = param(
        10, low=1, high=MOST_SAMPLES, help="statistics that are averaged", source="mom-balloon+ksm.conf: 10"
    )
    pressure_percent: int = param(
        20, unit="percent", low=0, high=100, help="free memory below which guests shrink", source="balloon.rules: 0.20"
    )
    critical_percent: int = param(
        5,
        unit="percent",
        low=0,
        high=100,
        help="free memory up to which guests are made to swap",
        source="balloon.rules: 0.05",
    )
    guest_free_percent: int = param(
        20,
        unit="percent",
        low=0,
        high=100,
        help="share of its size that an unconstrained guest wants free",
        source="balloon.rules: min_guest_free_percent 0.20",
    )
    step_percent: int = param(
        5,
        unit="percent",
        low=1,
        high=100,
        help="largest change of a guest's size in a round",
        source="balloon.rules: 0.05",
    )
    ignore_ppm: int = param(
        2_500,
        unit="ppm",
        low=0,
        high=1_000_000,
        help="smaller changes of a guest's size are not made",
        source="balloon.rules: 0.0025",
    )
    least_percent: int = param(
        0,
        unit="percent",
        low=0,
        high=100,
        help="balloon_min: a guest keeps at least so much of its size, and its reservation",
        source="vdsm: a VM's guaranteed memory, here its memory_reservation",
    )
    ksm_free_percent: int = param(
        20, unit="percent", low=0, high=100, help="free memory below which KSM runs", source="KSM rules: 0.20"
    )
    boost_pages: int = param(
        300,
        unit="page_count",
        low=0,
        help="pages_to_scan grows so much a round",
        source="KSM rules: ksm_pages_boost 300",
    )
    decay_pages: int = param(
        50, unit="page_count", low=0, help="or falls so much", source="KSM rules: ksm_pages_decay -50"
    )
    least_scan_pages: int = param(
        64, unit="page_count", low=1, help="least pages_to_scan", source="KSM rules: ksm_npages_min 64"
    )
    most_scan_pages: int = param(
        1250, unit="page_count", low=1, help="largest pages_to_scan", source="KSM rules: ksm_npages_max 1250"
    )
    sleep_16gib_ns: int = param(
        10_000_000,
        unit="ns",
        low=1_000,
        help="KSM's sleep on a host of 16 GiB; longer in proportion on a smaller one",
        source="KSM rules: ksm_sleep_ms_baseline 10",
    )
    deflate_on_oom: bool = param(
        False,
        help="whether a guest without memory takes pages out of its balloon before it kills a process",
        source="QEMU virtio-balloon: deflate-on-oom=off",
    )


CONTAINERS = (HashMap("samples", capacity=MOST_SAMPLES * (1 + 2 * MOST_VMS)),)


@state("host")
@define
class Daemon:
    """Statistics taken so far, and what KSM's pages_to_scan was set to last."""

    samples: int = 0
    scan_pages: int = 0


@state("vmem")
@define
class Guest:
    """The size that the rules set last."""

    target: int = 0


@hookimpl
def mem_init(host, now):
    set_balloon_driver(host, host.params.deflate_on_oom)
    # targets that the rules set are taken over soon; they change only when the rules run
    balance(host, min(1_000_000_000, host.params.period_ns))
    for m in range(host.vms):
        host.vmem[m].target = host.vmem[m].pages
    host.own.scan_pages = KSM_DEFAULT_PAGES
    set_timer(host, SAMPLE, now)
    set_timer(host, RULES, now + host.params.period_ns)


@hookimpl
def mem_balloon_target(host, vm):
    x = host.vmem[vm]
    return max(0, min(x.pages, x.target))


@hookimpl
def mem_timer(host, timer, now):
    if timer == SAMPLE:
        set_timer(host, SAMPLE, now + host.params.sample_ns)
        take_sample(host)
    else:
        set_timer(host, RULES, now + host.params.period_ns)
        balloon_rules(host)
        ksm_rules(host)


def average(host, series):
    """Mean of the samples of a series that are kept: 0 is the host's free memory, 1 + 2 m and 2 + 2 m a guest's size
    and what it has free."""
    count = min(host.own.samples, host.params.history)
    total = 0
    for i in range(count):
        total += map_get(host, host.box.samples, series * MOST_SAMPLES + i, 0)
    return total // max(1, count)


def take_sample(host):
    at = host.own.samples % host.params.history
    host.own.samples += 1
    map_put(host, host.box.samples, at, host.machine[0].free)
    for m in range(host.vms):
        x = host.vmem[m]
        map_put(host, host.box.samples, (1 + 2 * m) * MOST_SAMPLES + at, x.pages - x.ballooned)
        map_put(host, host.box.samples, (2 + 2 * m) * MOST_SAMPLES + at, x.free)


def balloon_rules(host):
    p = host.params
    free = average(host, 0) / host.machine[0].frames
    short = free < p.pressure_percent / 100
    for m in range(host.vms):
        x = host.vmem[m]
        now = x.pages - x.ballooned
        used = average(host, 1 + 2 * m) - average(host, 2 + 2 * m)
        wanted = p.guest_free_percent / 100
        if short:
            if free <= p.critical_percent / 100:
                wanted = free - 0.05
            else:
                wanted = wanted * free / (p.pressure_percent / 100)
        least = max(x.reservation, x.pages * p.least_percent // 100, used + int(wanted * now))
        if short:
            size = max(now * (100 - p.step_percent) // 100, least)
            makes_sense = size <= now
        else:
            size = min(max(now * (100 + p.step_percent) // 100, least), x.pages)
            makes_sense = now < x.pages
        if makes_sense and abs(size - now) * 1_000_000 > p.ignore_ppm * now:
            x.target = size


def ksm_rules(host):
    p = host.params
    machine = host.machine[0]
    threshold = machine.frames * p.ksm_free_percent // 100
    shareable = 0
    for m in range(host.vms):
        shareable += host.vmem[m].pages
    free = average(host, 0)
    if threshold + shareable < machine.frames and free > threshold:
        tune_scan(host, 0, 0, 0)
        return
    change = p.boost_pages if free < threshold else -p.decay_pages
    host.own.scan_pages = max(p.least_scan_pages, min(p.most_scan_pages, host.own.scan_pages + change))
    tune_scan(host, 1, host.own.scan_pages, p.sleep_16gib_ns * PAGES_16_GIB // machine.frames)
