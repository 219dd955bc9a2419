"""Text whose lines follow a grammar, a block at a time: one regular expression, its groups as columns.

`Pattern.parse` matches all lines of a block with pyarrow (RE2, at memory speed, no Python per line), tells the lines
that are neither data nor wrong, and hands the rest to the import as bad lines. A group that took no part in a match
is empty. Kinds of groups:

- "int", "hex": int64, -1 where the group is empty (hex without 0x, up to 15 digits);
- "hex64": uint64;
- "fraction": the digits behind a decimal point, as billionths (up to 9 digits);
- "code": int64 codes into the block's `Matched.words`, equal texts have equal codes;
- "text": a pyarrow array of bytes, for lines that are looked at one by one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define, frozen
from numpy.typing import NDArray

from hvbench.traces.importers.api import Import
from hvbench.traces.importers.sources import Lines, Source

PER_SECOND: Final = 1_000_000_000
_END: Final = r"\r?\n$"


@define
class Matched:
    """Lines that matched: their numbers in the file, columns by the names of groups."""

    numbers: NDArray[np.int64]
    columns: dict[str, Any]
    words: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns


@frozen
class Pattern:
    """The grammar of a line: `regex` (RE2, named groups, a whole line without its end), what each group holds.

    `skip` matches lines that are neither data nor wrong; `expected` says in words what a line has to be.
    """

    regex: str
    kinds: dict[str, str]
    expected: str
    skip: str = ""

    def parse(self, job: Import, source: Source, lines: Lines) -> Matched:
        """The lines of a block that match."""
        import pyarrow.compute as pc

        text = line_array(lines.data)
        found = pc.extract_regex(text, pattern=f"^{self.regex}{_END}")
        valid = found.is_valid().to_numpy(zero_copy_only=False)
        if not valid.all():
            self._others(job, source, lines, text, np.flatnonzero(~valid))
            found = found.filter(found.is_valid())
        columns: dict[str, Any] = {}
        words: dict[str, list[str]] = {}
        for name, kind in self.kinds.items():
            values = found.field(name)
            if kind == "code":
                encoded = values.dictionary_encode()
                columns[name] = encoded.indices.to_numpy().astype(np.int64)
                words[name] = [word.decode("utf-8", "replace") for word in encoded.dictionary.to_pylist()]
            elif kind == "text":
                columns[name] = values
            else:
                columns[name] = _number(kind, values)
        return Matched(np.flatnonzero(valid) + lines.first, columns, words)

    def _others(self, job: Import, source: Source, lines: Lines, text: Any, rows: NDArray[np.int64]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.skip:
            legal = pc.match_substring_regex(text.take(pa.array(rows)), pattern=f"^(?:{self.skip}){_END}")
            rows = rows[~legal.to_numpy(zero_copy_only=False)]
        for row in rows.tolist():
            job.bad_line(source, lines, lines.first + row, self.expected, text[row].as_py().rstrip(b"\r\n"))

    def fits(self, lines: list[bytes]) -> tuple[int, int]:
        """How many lines match, and how many are neither that nor legal: for `sniff`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not lines:
            return 0, 0
        text = pa.array([line + b"\n" for line in lines], pa.binary())
        match = pc.match_substring_regex(text, pattern=f"^{self.regex}{_END}").to_numpy(zero_copy_only=False)
        legal = match
        if self.skip:
            also = pc.match_substring_regex(text, pattern=f"^(?:{self.skip}){_END}")
            legal = match | also.to_numpy(zero_copy_only=False)
        return int(match.sum()), int((~legal).sum())


def line_array(data: bytes) -> Any:
    """Lines of a block as a pyarrow array of bytes, with their newlines: a view, nothing is copied."""
    import pyarrow as pa

    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    offsets = np.concatenate([[0], ends + 1]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _number(kind: str, values: Any) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = values.cast(pa.string())
    if kind == "fraction":
        return pc.utf8_rpad(text, 9, "0").cast(pa.int64()).to_numpy()
    if kind in ("hex", "hex64"):
        kind_ = pa.uint64() if kind == "hex64" else pa.int64()
        text = pc.if_else(pc.equal(text, ""), "0" if kind == "hex64" else "-1",
                          pc.binary_join_element_wise("0x", text, ""))  # fmt: skip
        return text.cast(kind_).to_numpy()
    return pc.if_else(pc.equal(text, ""), "-1", text).cast(pa.int64()).to_numpy()


def seconds(whole: NDArray[np.int64], fraction: NDArray[np.int64]) -> NDArray[np.int64]:
    """Nanoseconds of a "int" and a "fraction"."""
    return whole * PER_SECOND + fraction
