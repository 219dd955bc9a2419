"""Numbers of what storage and switch policies may ask for."""

from __future__ import annotations

from hvbench.kernel.services import O_FIRST_STORAGE, O_FIRST_SWITCH

O_SERVE_DEVICE = O_FIRST_STORAGE
O_EMIT, O_SERVE_PORT = O_FIRST_SWITCH, O_FIRST_SWITCH + 1
