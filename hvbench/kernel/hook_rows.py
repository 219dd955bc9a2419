"""Rows of the hook table as plain constants: compiled code cannot look names up."""

from __future__ import annotations

from hvbench.hookspecs import row

SCHED_INIT = row("sched_init")
SCHED_VCPU_INSERT = row("sched_vcpu_insert")
SCHED_VCPU_REMOVE = row("sched_vcpu_remove")
SCHED_WAKE = row("sched_wake")
SCHED_SLEEP = row("sched_sleep")
SCHED_SELECT_PCPU = row("sched_select_pcpu")
SCHED_PICK_NEXT = row("sched_pick_next")
SCHED_RUNNING = row("sched_running")
SCHED_STOPPING = row("sched_stopping")
SCHED_YIELD = row("sched_yield")
SCHED_TICK = row("sched_tick")
SCHED_TIMER = row("sched_timer")
SCHED_MIGRATE = row("sched_migrate")
SCHED_SET_WEIGHT = row("sched_set_weight")
SCHED_SET_AFFINITY = row("sched_set_affinity")
SCHED_PCPU_ONLINE = row("sched_pcpu_online")
SCHED_PCPU_OFFLINE = row("sched_pcpu_offline")
