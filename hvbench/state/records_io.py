"""The records of storage and network: requests, stations, flows, frames, ports."""

from __future__ import annotations
