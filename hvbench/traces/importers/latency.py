"""Recorded latencies of block requests: an end joined with the begin of the same place, over blocks and files."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.importers.requests import Requests

MOST_OPEN: Final = 1 << 20
"""Requests whose end was not seen; beyond that the oldest are forgotten."""


def _nothing() -> NDArray[Any]:
    return np.zeros(0, np.int64)


@define
class Joined:
    """Begins and ends by `key` (device and sector, or the address of a request), in the order of the log."""

    requests: Requests
    _key: NDArray[Any] = field(factory=_nothing)
    _time: NDArray[Any] = field(factory=_nothing)

    def add(self, key: NDArray[Any], time_ns: NDArray[np.int64], begins: NDArray[np.bool_]) -> None:
        """The next rows, begins and ends mixed. An end belongs to the last begin of its key before it."""
        carried = len(self._key)
        key = np.concatenate([self._key, key])
        time = np.concatenate([self._time, time_ns])
        begin = np.concatenate([np.ones(carried, bool), begins])
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        pair = same & begin[order][:-1] & ~begin[order][1:]
        first, second = order[:-1][pair], order[1:][pair]
        took = time[second] - time[first]
        took = took[took >= 0]
        if len(took):
            self.requests.latency.add(took)
            self.requests.job.waited("disk", int(took.sum()))
        if len(time):
            self.requests.job.until(int(time.max()))
        left = begin.copy()
        left[first] = False
        # a begin that another one of its key follows was never ended
        again = same & begin[order][:-1] & begin[order][1:]
        left[order[:-1][again]] = False
        rest = np.flatnonzero(left)[-MOST_OPEN:]
        self._key, self._time = key[rest], time[rest]


def place_key(device: NDArray[Any], sector: NDArray[Any]) -> NDArray[np.int64]:
    """Device and sector as one number; two places hardly share one."""
    with np.errstate(over="ignore"):
        return device.astype(np.int64) * np.int64(0x9E3779B97F4A7C15 - (1 << 64)) ^ sector.astype(np.int64)
