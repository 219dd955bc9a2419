"""Mean waiting times of the textbook's queues, and how sure a simulated mean is.

L. Kleinrock, "Queueing Systems", volume 1, 1975: M/M/c by Erlang's formula (section 3.5), M/D/1 by Pollaczek and
Khinchin (section 5.7). Student's quantiles come from their own distribution function, integrated numerically.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from attrs import frozen


def erlang_c(servers: int, offered: float) -> float:
    """Probability that an arrival has to wait, of `offered` erlangs on so many servers."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def wait_mmc(servers: int, utilisation: float, service: float) -> float:
    """Mean time in the queue of M/M/c, in the unit of the mean service time."""
    offered = servers * utilisation
    return erlang_c(servers, offered) * service / (servers - offered)


def wait_md1(utilisation: float, service: float) -> float:
    """Mean time in the queue of M/D/1."""
    return utilisation * service / (2 * (1 - utilisation))


@frozen
class Interval:
    """A mean with a confidence interval around it."""

    mean: float
    half: float

    def holds(self, value: float) -> bool:
        return abs(value - self.mean) <= self.half


def batch_means(batches: Sequence[float], confidence: float) -> Interval:
    """The interval of Student's t over batch means, which are taken for independent."""
    values = np.asarray(batches)
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(float(values.mean()), student_quantile(confidence, len(values) - 1) * spread)


def student_quantile(confidence: float, freedom: int) -> float:
    """The two-sided quantile of Student's t, by bisection."""
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def _within(bound: float, freedom: int) -> float:
    """Probability of Student's t between -bound and bound: Simpson's rule after t = sqrt(freedom) tan x."""
    x = np.linspace(0, math.atan(bound / math.sqrt(freedom)), 2001)
    y = np.cos(x) ** (freedom - 1)
    weights = np.full(len(x), 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    area = float((weights * y).sum()) * float(x[1]) / 3
    whole = math.sqrt(math.pi) * math.gamma(freedom / 2) / math.gamma((freedom + 1) / 2)
    return 2 * area / whole
