"""What beginning an operation can come to."""

from __future__ import annotations

DONE, BUSY, WAITS, FAULT = range(4)
"""It took no time; it takes CPU time; the thread waits; the vCPU must block, and begin it again."""
