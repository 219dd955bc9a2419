"""Lottery: shares on average, compensation for unused quanta, the same draws every time."""

from __future__ import annotations

import pytest

from tests.builders import MS, US, S, bundled, compute, host, numbers, run, sleep, vm
from tests.plugins.scheduling import FOREVER, assert_proportional, assert_same_bits, hogs, turns

LOTTERY = bundled("lottery")


def test_weights_1_to_8(kernel: object) -> None:
    """20,000 draws: the smallest share, 1 in 36, has a coefficient of variation of sqrt(35/20000), 4.2 %."""
    weights = [256 * share for share in range(1, 9)]
    assert_proportional(run(hogs(weights, horizon_ns=20 * S), LOTTERY, quantum_ns=MS), weights, 3 * 0.042)


@pytest.mark.parametrize("entities", [1, 2, 3, 5, 8, 13, 21])
def test_every_ticket_is_somebodys(entities: int) -> None:
    """2,000 draws among so many with weights 1, 2, 1, 2 ...: no entity is beyond five standard deviations."""
    weights = [256 * (1 + number % 2) for number in range(entities)]
    done = run(hogs(weights, horizon_ns=20 * MS), LOTTERY, "interpreted", quantum_ns=10 * US)
    assert done.error is None, done.reason
    for weight, ran_ns in zip(weights, numbers(done.vcpu["ran_ns"]), strict=True):
        share = weight / sum(weights)
        assert ran_ns / (20 * MS) == pytest.approx(share, abs=5 * (share * (1 - share) / 2000) ** 0.5)


def test_the_spread_is_that_of_a_lottery() -> None:
    """Wins of one of two equal VMs in 100 draws, over 40 seeds: binomial, so a variance of 25 (not 0, as in turn)."""
    wins = []
    for seed in range(40):
        spec = host([vm([[FOREVER]]), vm([[FOREVER]])], horizon_ns=MS, seed=seed)
        wins.append(run(spec, LOTTERY, "interpreted", quantum_ns=10 * US).vcpu["ran_ns"][0] / (10 * US))
    mean = sum(wins) / len(wins)
    variance = sum((w - mean) ** 2 for w in wins) / (len(wins) - 1)
    assert mean == pytest.approx(50, abs=3)
    assert 25 / 2 < variance < 25 * 2


def test_draws_follow_the_seed() -> None:
    def order(seed: int) -> list[tuple[int, int]]:
        return turns(host([vm([[FOREVER]]) for _ in range(4)], horizon_ns=MS, seed=seed), LOTTERY, quantum_ns=10 * US)

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize(("compensation", "share"), [(True, 1 / 2), (False, 1 / 6)])
def test_a_compensation_ticket_makes_up_for_unused_quanta(compensation: bool, share: float) -> None:
    """The example of section 3.4: B uses a fifth of its quanta. Compensated, both have half; else it has 1 in 6."""
    # asleep for 1 ns only: it competes in every lottery but the one right after its turn
    b = vm([[compute(2 * US), sleep(1)] * 4000])
    spec = host([vm([[FOREVER]]), b], horizon_ns=8 * MS)
    # that one lottery A wins alone; so with probability p of B in the others B has 2 p / (10 + 12 p) of the time
    done = run(spec, LOTTERY, "interpreted", quantum_ns=10 * US, compensation=compensation)
    won = 5 / 6 if compensation else 1 / 2
    turns_of_a = 1 / won  # A's turns for each of B's: one while it sleeps, and those that it wins before B does
    expected = 2 / (2 + 10 * turns_of_a)
    assert done.vcpu["ran_ns"][1] / (8 * MS) == pytest.approx(expected, rel=0.08)
    assert share > expected  # what it would be were B never asleep


def test_a_pinned_vm_is_drawn_on_its_pcpu_only() -> None:
    tenants = [vm([[FOREVER]], affinity=0b10), vm([[FOREVER]]), vm([[FOREVER]])]
    spec = host(tenants, pcpus=2, horizon_ns=2 * MS)
    done = run(spec, LOTTERY, "interpreted", quantum_ns=10 * US)
    assert done.vcpu["pcpu"][0] == 1 and done.vcpu["migrations"][0] == 0
    assert numbers(done.pcpu["idle_ns"]) == [0, 0]


@pytest.mark.parametrize("pcpus", [1, 3])
def test_same_bits_in_both_modes(kernel: object, pcpus: int) -> None:
    assert_same_bits(LOTTERY, pcpus, quantum_ns=2 * MS)
