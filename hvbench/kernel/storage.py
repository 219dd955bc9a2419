from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.outcome import DONE


@jit
def storage_op(host: Any, t: int, v: int) -> int:
    return DONE


@jit
def storage_init(host: Any) -> None:
    return


@jit
def storage_timer(host: Any, timer: int) -> None:
    return
