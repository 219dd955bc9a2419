"""What a piece of work of a host thread is about: `what` of table work."""

from __future__ import annotations

WORK_REQUEST, WORK_FRAME_TX, WORK_FRAME_RX = 1, 2, 3
WORK_MEMORY = 16
"""Memory's kinds begin here."""
