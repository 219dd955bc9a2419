"""The records of the memory side: pages, frames, objects, guests' lists."""

from __future__ import annotations
