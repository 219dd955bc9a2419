"""A second process that runs stories: `python -m hvbench.testing.other`, a request and an answer a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hvbench.testing.subject import Subject

HASH_SEED = "4242"


class OtherProcess:
    """The process, started when first needed, used for any number of policies."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hvbench.testing.other"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def fingerprints(self, subject: Subject, seed: int, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the process makes of these stories of a policy; RuntimeError where it died."""
        policy = subject.policy
        request = {
            "axis": policy.axis,
            "name": policy.name,
            "path": str(policy.path.resolve()) if policy.path is not None else None,
            "seed": seed,
            "numbers": list(numbers),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise RuntimeError(f"the second process ended with exit code {self._process.wait(5)}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"in the second process: {answer['error']}")
        return {int(number): found for number, found in answer["found"].items()}

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more."""
    from hvbench.plugins import Registry, load_registry
    from hvbench.testing.lab import Lab
    from hvbench.testing.subject import subject_of

    for line in requests:
        request = json.loads(line)
        try:
            if request["path"] is not None:
                policy = Registry().load_file(Path(request["path"]))
            else:
                policy = load_registry().get(request["axis"], request["name"])
            lab = Lab(subject_of(policy), seed=request["seed"])
            found = {n: lab.run(lab.story(n)).fingerprint() for n in request["numbers"]}
            answer: dict[str, Any] = {"found": found}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    real = os.fdopen(os.dup(1), "w")
    # whatever a policy prints must not mix with the answers
    os.dup2(2, 1)
    serve(sys.stdin, real)
