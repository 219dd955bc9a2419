"""Delimited text, a block at a time: quick where every line is as it should be, exact where one is not.

`Table.parse` hands a block to pyarrow's CSV reader. Where that refuses it, the block is read again line by line,
which is slow, tolerates what the import tolerates and names the line that is wrong. Both give the same columns.

Kinds of columns: "int" (whole numbers), "decimal" (numbers with a fraction, as integers of `10**-DIGITS`, exactly, the
digits beyond cut off), "float", "text". A name that begins with "-" is a column that is there and not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from hvbench.traces.importers.api import Import
from hvbench.traces.importers.sources import Lines, Source

DIGITS: Final = 9
_INT: Final = re.compile(rb"\s*([+-]?\d{1,18})\s*")
_DECIMAL: Final = re.compile(rb"\s*([+-]?)(\d{0,18})(?:\.(\d*))?\s*")
_GREATEST: Final = (1 << 63) - 1

Columns = dict[str, NDArray[Any]]


@define
class Column:
    """One column: its name (also in messages) and kind; `what` says in words what is expected."""

    name: str
    kind: str = "int"
    what: str = ""

    @property
    def expected(self) -> str:
        words = {"int": "a whole number", "decimal": "a number", "float": "a number", "text": "text"}
        return f"{self.what or self.name} ({words[self.kind]})"


@define
class Table:
    """How the lines of a file are laid out. `extra` columns beyond the declared ones are legal and not read."""

    columns: list[Column]
    delimiter: str = ","
    extra: bool = False
    is_header: Callable[[bytes, int], bool] = field(default=lambda line, number: line.startswith(b"#"))
    """Lines (and their numbers in the file) that are neither data nor wrong."""
    quick: bool = True

    def parse(self, job: Import, source: Source, lines: Lines) -> tuple[Columns, NDArray[np.int64]]:
        """The columns of a block's data lines, and each line's number in the file."""
        data = lines.data
        skipped = 0
        while data and self.is_header(data[: data.find(b"\n") + 1], lines.first + skipped):
            data = data[data.find(b"\n") + 1 :]
            skipped += 1
        if self.quick and data:
            made = self._quick(data)
            if made is not None:
                count = len(next(iter(made.values())))
                return made, np.arange(count) + lines.first + skipped
        return self._exact(job, source, lines)

    def _quick(self, data: bytes) -> Columns | None:
        import pyarrow as pa
        from pyarrow import csv

        kinds = {
            "int": pa.int64(), "decimal": pa.decimal128(38, DIGITS), "float": pa.float64(),
            "text": pa.dictionary(pa.int32(), pa.string()),
        }  # fmt: skip
        used = {column.name: kinds[column.kind] for column in self.columns if not column.name.startswith("-")}
        try:
            table = csv.read_csv(
                pa.BufferReader(data),
                read_options=csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=[c.name for c in self.columns]
                ),
                parse_options=csv.ParseOptions(delimiter=self.delimiter, quote_char=False, ignore_empty_lines=False),
                convert_options=csv.ConvertOptions(
                    column_types=used, include_columns=list(used), null_values=[], strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != data.count(b"\n"):
            return None
        made: Columns = {}
        for column in self.columns:
            if column.name.startswith("-"):
                continue
            values = table.column(column.name).combine_chunks()
            if values.null_count:
                return None
            if column.kind == "decimal":
                # two 64-bit words a value, the lower first; the upper one is the sign's where it fits
                words = np.frombuffer(values.buffers()[1], "<i8")[2 * values.offset :][: 2 * len(values)]
                if not np.array_equal(words[1::2], words[::2] >> 63):
                    return None
                made[column.name] = words[::2].copy()
            elif column.kind == "text":
                texts = np.array(values.dictionary.to_pylist() or [""], dtype=object)
                made[column.name] = texts[values.indices.to_numpy()]
            else:
                made[column.name] = values.to_numpy()
                if column.kind == "float" and not np.isfinite(made[column.name]).all():
                    return None  # read line by line, which names it
        return made

    def _exact(self, job: Import, source: Source, lines: Lines) -> tuple[Columns, NDArray[np.int64]]:
        found: list[list[Any]] = []
        numbers: list[int] = []
        delimiter = self.delimiter.encode()
        for number, line in enumerate(lines.split(), lines.first):
            bare = line.rstrip(b"\r")
            if self.is_header(bare, number) or not bare.strip():
                continue
            parts = bare.split() if delimiter == b" " else bare.split(delimiter)
            if len(parts) < len(self.columns) or (len(parts) > len(self.columns) and not self.extra):
                names = ", ".join(column.name.lstrip("-") for column in self.columns)
                job.bad_line(source, lines, number, f"{len(self.columns)} columns ({names})", bare)
                continue
            values = []
            for column, part in zip(self.columns, parts, strict=False):
                if column.name.startswith("-"):
                    continue
                value = _value(column.kind, part)
                if value is None:
                    job.bad_line(source, lines, number, column.expected, bare)
                    break
                values.append(value)
            else:
                found.append(values)
                numbers.append(number)
        made: Columns = {}
        for i, column in enumerate(c for c in self.columns if not c.name.startswith("-")):
            kind: Any = {"int": np.int64, "decimal": np.int64, "float": np.float64, "text": object}[column.kind]
            made[column.name] = np.array([row[i] for row in found], dtype=kind)
        return made, np.array(numbers, np.int64)


def _value(kind: str, part: bytes) -> Any:
    """One field's value; None where it is none."""
    if kind == "text":
        return part.decode("utf-8", "replace").strip()
    if kind == "float":
        try:
            value = float(part)
        except ValueError:
            return None
        return value if np.isfinite(value) else None
    if kind == "int":
        match = _INT.fullmatch(part)
        return int(match[1]) if match else None
    match = _DECIMAL.fullmatch(part)
    if match is None or not (match[2] or match[3]):
        return None
    fraction = (match[3] or b"")[:DIGITS].ljust(DIGITS, b"0")
    whole = int(match[2] or b"0") * 10**DIGITS + int(fraction)
    return None if whole > _GREATEST else -whole if match[1] == b"-" else whole
