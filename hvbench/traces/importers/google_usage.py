"""Google's cluster data of 2011, table `task_usage`: a task as a VM.

    hvbench import google-usage part-00000-of-00500.csv.gz --machine-cores 32 --machine-memory 64GiB -o g.demand.parquet

Without a header, 20 columns by commas, many of them often empty: start and end (us), job, task, machine, CPU rate
(core seconds a second), canonical memory, assigned memory, unmapped and total page cache, maximum memory, disk I/O
time, local disk space, maximum CPU rate, maximum disk I/O time, CPI, MAI, sample portion, aggregation, sampled CPU.
Rates and sizes are divided by those of the largest machine, which is not disclosed: `--machine-cores` and
`--machine-memory` say what 1.0 is taken to be (1 core; without the second, memory is silent).

A VM is a task of a job. Assigned memory is what it was given, canonical memory what it used. Silent: storage (times and
not bytes) and network. `--first-vms N` reads the first N tasks only. Traps: intervals are 300 s at most and begin
anywhere; some occur twice (the first counts); times begin at 600 s; these are containers and not VMs. Source: C. Reiss,
J. Wilkes, J. Hellerstein, Google cluster-usage traces: format + schema, 2011 (version 2.1).

The result is a demand table; `--expand` makes a trace of it (docs/importing.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np

from hvbench.errors import UserError
from hvbench.policy import hookimpl
from hvbench.traces.demand import MOST_CORES
from hvbench.traces.importers.api import Batch, Format, Head, Import, option
from hvbench.traces.importers.patterns import Pattern
from hvbench.traces.importers.readings import PAGE, Readings

_FLOAT: Final = r"[-+.0-9eE]*"
LINE: Final = Pattern(
    rf"(?P<start>\d{{1,18}}),(?P<end>\d{{1,18}}),(?P<task>\d{{1,20}},\d{{1,10}}),\d*,(?P<cpu>{_FLOAT}),"
    rf"(?P<memory>{_FLOAT}),(?P<assigned>{_FLOAT})(?:,{_FLOAT}){{12}}",
    {"start": "int", "end": "int", "task": "code", "cpu": "text", "memory": "text", "assigned": "text"},
    "20 columns: start, end (us), job, task, machine, CPU rate, memory …",
    skip=r" *",
)  # fmt: skip
US: Final = 1000
LONGEST_US: Final = 600_000_000
"""An interval is 300 s; more than twice that is damaged."""


@attrs.frozen
class Options:
    machine_cores: int = option(1, help="cores of the machine that 1.0 stands for", metavar="N")
    machine_memory_bytes: int = option(
        0, unit="bytes", help="memory of the machine that 1.0 stands for (without: silent)", metavar="SIZE"
    )
    first_vms: int = option(0, help="only the first N tasks (0: all)", metavar="N")


def _floats(values: object) -> np.ndarray:
    """Text as numbers; what is empty or none is NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = values.cast(pa.string())  # type: ignore[attr-defined]
    return np.asarray(pc.if_else(pc.equal(text, ""), "nan", text).cast(pa.float64()).to_numpy())


def read(job: Import) -> Iterator[Batch]:
    import pyarrow as pa

    options = job.options
    if not 1 <= options.machine_cores <= MOST_CORES:
        raise UserError(f"--machine-cores {options.machine_cores}: has to be 1 to {MOST_CORES}")
    readings = Readings(job, options.first_vms)
    if not options.machine_memory_bytes:
        job.unsaid["memory"] = "--machine-memory SIZE says what 1.0 of it is"
    for source in job.sources():
        clock = job.clock(source)
        for lines in source.blocks():
            m = LINE.parse(job, source, lines)
            if not len(m):
                continue
            wrong = (m["end"] <= m["start"]) | (m["end"] - m["start"] > LONGEST_US)
            for row in np.flatnonzero(wrong).tolist():
                job.bad_line(source, lines, int(m.numbers[row]), "an end after the start, by 600 s at most")
            try:
                cpu, used, given = (_floats(m[name]) for name in ("cpu", "memory", "assigned"))
            except pa.ArrowInvalid as error:
                raise UserError(f"{source.name}:{lines.first}: in the block from here on: {error}") from error
            # tasks by lines: a machine's are together, and start times are sorted only roughly
            time = clock.fix(m["start"] * US)
            vms = np.array(
                [readings.vm(word.replace(",", "-"), cores=options.machine_cores) for word in m.words["task"]], np.int64
            )
            vm = np.where(wrong, -1, vms[m["task"]])
            duration = (m["end"] - m["start"]) * US
            amount = cpu * options.machine_cores * duration
            columns = {"cpu_ns": amount, "cores": np.full(len(vm), options.machine_cores)}
            if options.machine_memory_bytes:
                pages = options.machine_memory_bytes / PAGE
                columns |= {"memory_pages": used * pages, "provisioned_pages": np.maximum(given, used) * pages}
            yield readings.batch(vm, time, duration, **columns)
    if options.machine_cores == 1:
        job.note("CPU rates are shares of the largest machine: 1.0 is taken to be one core (--machine-cores)")


def sniff(head: Head) -> float:
    if not head.is_text:
        return 0.0
    match, wrong = LINE.fits([line for line in head.lines(20) if line])
    return 0.8 if match and not wrong else 0.0


@hookimpl
def hvbench_import_format() -> Format:
    return Format(
        name="google-usage",
        summary="Google's cluster data 2011, task_usage",
        read=read,
        sniff=sniff,
        extensions=(".csv",),
        options=Options,
        makes="demand",
        replay="open",
    )
