from __future__ import annotations

from typing import Any

from hvbench.jit import jit
from hvbench.kernel.outcome import DONE


@jit
def memory_op(host: Any, t: int, v: int) -> int:
    return DONE


@jit
def memory_init(host: Any) -> None:
    return


@jit
def memory_event(host: Any, number: int) -> None:
    return


@jit
def memory_timer(host: Any, slot: int, timer: int) -> None:
    return


@jit
def io_done(host: Any, why: int, who: int) -> None:
    return
