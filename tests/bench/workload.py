"""How fast a bundled workload runs with all axes at work, on one core and on two."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import attrs

from hvbench import simulate
from hvbench.binding import Loop, bind
from hvbench.build import build
from hvbench.cell import Cell
from hvbench.choices import parse_choices
from hvbench.plan import cpu_spec, host_spec, io_spec, memory_spec, plan_for
from hvbench.plugins import load_registry
from hvbench.state.memory import HostMemory
from hvbench.workload import load_workload

WORKLOAD = "mixed"
CHOICES = {
    "scheduler": "credit",
    "memory": "overcommit+balloon+page-sharing",
    "storage": "das",
    "switch": "bridged",
    "technique": "hardware",
    "host": "type1",
}


def cell() -> Cell:
    """The bundled workload that stresses most, with a policy at work on every axis."""
    registry = load_registry()
    loaded = load_workload(WORKLOAD)
    choices = {axis: parse_choices(axis, text, registry)[0] for axis, text in CHOICES.items()}
    return Cell(loaded, choices, 1, loaded.horizon_ns, loaded.warmup_ns)


def host(made: Cell) -> HostMemory:
    """Its host, laid out and bound as `simulate` does it."""
    plan = plan_for(made.workload, made.seed)
    technique, place = simulate.technique_costs(made), simulate.host_costs(made)
    path, switch = simulate.io_choices(made)
    machine = made.workload.host
    spec = host_spec(plan, cpu_spec(machine, technique, place), plan.groups, made.horizon_ns, made.warmup_ns)
    spec = attrs.evolve(
        spec,
        io=io_spec(machine, path, switch, technique, place),
        memory=memory_spec(plan, plan.groups, place),
    )
    memory = build(spec)
    bind(memory, simulate.chosen_policies(made))
    return memory


def run(memory: HostMemory) -> int:
    """The event loop alone, boot included; returns the events served."""
    loop = Loop(memory, interpreted=False)
    loop.boot()
    while loop.run(1_000_000) == 0:
        pass
    return int(memory.header["events"][0])


def measure(rounds: int = 5) -> tuple[float, float, float]:
    """Best of the rounds: events/s on one core, simulated seconds a wall second, events/s on two threads."""
    made = cell()
    run(host(made))
    one = simulated = two = 0.0
    for _ in range(rounds):
        memory = host(made)
        started = time.perf_counter()
        events = run(memory)
        taken = time.perf_counter() - started
        one = max(one, events / taken)
        simulated = max(simulated, made.horizon_ns / 1e9 / taken)
        both = [host(made), host(made)]
        with ThreadPoolExecutor(2) as pool:
            started = time.perf_counter()
            served = sum(pool.map(run, both))
            two = max(two, served / (time.perf_counter() - started))
    return one, simulated, two
