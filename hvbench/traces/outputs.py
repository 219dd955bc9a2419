"""Where commands on traces may write: asked before anything is computed or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.errors import UserError

SUFFIX = ".parquet"


def check_outputs(outputs: Sequence[tuple[str, Path]], inputs: Sequence[Path] = ()) -> None:
    """Raise UserError where an output (with the option that names it) is a folder, has none to lie in, or is an input.

    Two outputs cannot be one file either.
    """
    taken: dict[Path, str] = {}
    for option, output in outputs:
        if not output.parent.is_dir():
            raise UserError(f"{output}: cannot be written: there is no folder {output.parent}")
        if output.is_dir():
            raise UserError(f"{output}: is a folder; {option} names the file to write")
        for path in inputs:
            if output.exists() and path.exists() and output.samefile(path):
                raise UserError(f"{output}: is read by this command; {option} names another file")
        whole = output.resolve()
        if whole in taken:
            raise UserError(f"{output}: {taken[whole]} and {option} name one file; name two")
        taken[whole] = option


def check_trace_output(output: Path, inputs: Sequence[Path] = ()) -> None:
    """As `check_outputs`, for a trace or a demand table at -o."""
    check_outputs([("-o", output)], inputs)
    if output.suffix != SUFFIX:
        raise UserError(f"{output}: what is written is Parquet; -o names a file that ends in {SUFFIX}")
