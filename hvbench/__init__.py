"""hvbench: a benchmark of hypervisor policies on one fixed, simulated host."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
