"""The yardstick job as a bare Numba loop: what the machine can do without a kernel around it.

A heap of one event a pCPU and a vCPU, a ring of runnable vCPUs; nothing is checked, measured or asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=False, nogil=True)
def loop(lengths: Any, pcpus: int, slice_ns: int, horizon_ns: int) -> Any:
    """Returns (decisions, bursts completed)."""
    vcpus = lengths.shape[0]
    time = np.empty(pcpus + vcpus, np.int64)
    what = np.empty(pcpus + vcpus, np.int64)
    ring = np.empty(vcpus, np.int64)
    runs = np.full(pcpus, -1, np.int64)
    left = lengths[:, 0, 0].copy()
    pair = np.zeros(vcpus, np.int64)
    idle = np.ones(pcpus, np.int64)
    size = 0
    head = 0
    count = vcpus
    decisions = 0
    completed = 0
    now = 0
    for v in range(vcpus):
        ring[v] = v
    while now < horizon_ns:
        for p in range(pcpus):
            if idle[p] and count > 0:
                v = ring[head]
                head = (head + 1) % vcpus
                count -= 1
                idle[p] = 0
                runs[p] = v
                decisions += 1
                at = now + min(left[v], slice_ns)
                i = size
                size += 1
                while i > 0 and time[(i - 1) >> 1] > at:
                    time[i] = time[(i - 1) >> 1]
                    what[i] = what[(i - 1) >> 1]
                    i = (i - 1) >> 1
                time[i] = at
                what[i] = p
        now = time[0]
        event = what[0]
        size -= 1
        at = time[size]
        moved = what[size]
        i = 0
        while 2 * i + 1 < size:
            c = 2 * i + 1
            if c + 1 < size and time[c + 1] < time[c]:
                c += 1
            if time[c] >= at:
                break
            time[i] = time[c]
            what[i] = what[c]
            i = c
        time[i] = at
        what[i] = moved
        if event < pcpus:
            v = runs[event]
            idle[event] = 1
            left[v] -= min(left[v], slice_ns)
            if left[v] > 0:
                ring[(head + count) % vcpus] = v
                count += 1
            else:
                completed += 1
                at = now + lengths[v, pair[v], 1]
                pair[v] = (pair[v] + 1) % lengths.shape[1]
                left[v] = lengths[v, pair[v], 0]
                i = size
                size += 1
                while i > 0 and time[(i - 1) >> 1] > at:
                    time[i] = time[(i - 1) >> 1]
                    what[i] = what[(i - 1) >> 1]
                    i = (i - 1) >> 1
                time[i] = at
                what[i] = pcpus + v
        else:
            ring[(head + count) % vcpus] = event - pcpus
            count += 1
    return decisions, completed
