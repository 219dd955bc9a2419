"""Importing a policy file that nobody vouches for: it must come to an end, and must not end the process.

A file that runs for longer than `LIMIT_S`, or calls `os._exit`, is stopped by an exception that names the line it
was at. What a file does in C (a crash, a signal to itself) is beyond this: `check` and `evaluate` import files in
a process of their own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

LIMIT_S = 10.0
"""Wall time that an import may take. The first import of a large library takes a few seconds."""
AGAIN_S = 0.5


class ImportEnded(BaseException):
    """Raised inside the file being imported. Not an Exception, so that `except Exception` does not swallow it."""


def _exit(code: int = 0) -> NoReturn:
    raise ImportEnded(f"it ends the process, with os._exit({code}); a policy file only defines things")


@contextmanager
def guarded(limit_s: float | None = None) -> Iterator[None]:
    """Within this, `os._exit` and running for too long are exceptions."""
    seconds = LIMIT_S if limit_s is None else limit_s
    text = f"it did not come to an end within {seconds:g} s; a policy file only defines things"
    before, os._exit = os._exit, _exit  # type: ignore[assignment]
    try:
        in_main = threading.current_thread() is threading.main_thread()
        with _by_signal(seconds, text) if in_main and hasattr(signal, "setitimer") else _by_thread(seconds, text):
            yield
    finally:
        os._exit = before


@contextmanager
def _by_signal(seconds: float, text: str) -> Iterator[None]:
    """By the alarm clock, which also ends a call that waits; again and again, if the file catches everything."""

    def ring(*_: Any) -> None:
        raise ImportEnded(text)

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@contextmanager
def _by_thread(seconds: float, text: str) -> Iterator[None]:
    """By another thread, which raises in this one as soon as it runs Python code."""
    me = threading.get_ident()
    done = threading.Event()

    class Ended(ImportEnded):
        def __str__(self) -> str:
            return text

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), ctypes.py_object(Ended))
            wait = AGAIN_S

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
