"""A trace as text: a line an operation, for programs that do not read Parquet."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from hvbench.traces.format import COLUMNS, OP_NAMES, Trace

_ROWS = 1 << 17


def write_csv(trace: Trace, out: BinaryIO) -> None:
    """Every row with every column, operations by name; the first line names the columns."""
    import pyarrow as pa
    import pyarrow.csv as pc

    kinds = {name: pa.string() if name == "op" else pa.from_numpy_dtype(kind) for name, kind in COLUMNS.items()}
    schema = pa.schema(list(kinds.items()))
    names = np.array(OP_NAMES)
    with pc.CSVWriter(out, schema, write_options=pc.WriteOptions(quoting_style="needed")) as writer:
        for start in range(0, len(trace), _ROWS):
            part = {name: values[start : start + _ROWS] for name, values in trace.columns.items()}
            arrays = [pa.array(names[part[n]] if n == "op" else part[n], type=kinds[n]) for n in COLUMNS]
            writer.write_table(pa.table(arrays, schema=schema))
