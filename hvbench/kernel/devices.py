from __future__ import annotations

from typing import Any

from hvbench.jit import jit


@jit
def device_event(host: Any, number: int) -> None:
    return


@jit
def work_done(host: Any, v: int, what: int, a: int, b: int) -> None:
    return
