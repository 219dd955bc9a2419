"""The bars, run once for all tests of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from hvbench.fidelity.bars import Verdict
from hvbench.fidelity.registry import BARS
from hvbench.fidelity.run import Task, prepare, run_tasks
from hvbench.fidelity.stage import Stage
from hvbench.plugins import load_registry
from hvbench.store import Store


class Runs:
    """Runs tasks of bars when they are asked for, each once."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder, load_registry())
        self.folder = folder
        self.verdicts = lru_cache(maxsize=None)(self._verdicts)

    def _verdicts(self, bar: str, model: str) -> list[Verdict]:
        task = Task(BARS[bar], model)
        with Store(self.folder / "cells.db") as store:
            return run_tasks(prepare([task], self.stage), store).verdicts[task]


@pytest.fixture(scope="session")
def runs(kernel: object, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("fidelity"))
