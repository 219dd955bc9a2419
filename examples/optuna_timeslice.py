"""Which time slice of Xen's credit scheduler is best for builds and web servers together? Optuna asks, hvbench answers.

    pip install hvbench optuna
    python optuna_timeslice.py [TRIALS] [WORKLOAD,...]

Slices are drawn on a logarithmic scale from 1 to 100 ms. The score is the geometric mean slowdown, exact and the same
on every machine.
"""

from __future__ import annotations

import sys

import optuna

from hvbench import Evaluator


def search(trials: int, workloads: list[str]) -> optuna.Study:
    """Run a study; its best value is the smallest score."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=1))
    with Evaluator() as judge:

        def objective(trial: optuna.Trial) -> float:
            slice_us = trial.suggest_int("slice_us", 1_000, 100_000, log=True)
            result = judge.evaluate(f"credit:timeslice={slice_us}us", workloads)
            if result.score is None:
                raise optuna.TrialPruned("; ".join(problem.message for problem in result.problems))
            print(f"{slice_us / 1000:7.2f} ms  {result.score:.4f}", flush=True)
            return result.score

        study.optimize(objective, n_trials=trials)
    return study


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    names = sys.argv[2].split(",") if len(sys.argv) > 2 else ["build", "web"]
    found = search(number, names)
    print(f"best: {found.best_params['slice_us'] / 1000:.2f} ms, slowdown {found.best_value:.4f}")
