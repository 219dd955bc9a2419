"""The trace format, version 1: what it holds, and how it is read and written.

A trace is one Parquet file (zstd): a row is one operation of one thread, rows are sorted by thread and,
within a thread, by the order in which the thread did them. What does not fit a row (threads, objects,
flows, where and how it was recorded) is a JSON object in the schema's metadata under the key `hvbench`.

`read_trace` checks only what is needed to hand out well-typed columns; what the rows *mean* is checked by
`hvbench.traces.check`. All times are integer nanoseconds, all pages are 4 KiB, all sizes are bytes.

Beyond the columns: an `alloc` is accounting, a page may be touched before the row that allocates it. An anonymous
object with `shared` in the metadata is shared memory: processes other than its own may touch it. Pages of an
"image" file have the content that their file's `name_hash` and their index stand for, common to all VMs, unless a
content row says otherwise; a page without any content row holds something of its own. Marks of clients carry
the flow of their request, as requests on several flows overlap. `warm` lists the file pages that were mapped
when the recording began, as [object, first page, pages]: they are in the guest's page cache when a VM starts.
A thread with `replay` = "open" is background load: its operations begin at their recorded times.
`kept_waits` says what is known of the waits that are kept as durations.

A *base image* (metadata `kind` = "base_image") is a trace whose rows are only `content` rows: the memory
of an idle guest, from which every VM starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define
from numpy.typing import NDArray

from hvbench.errors import UserError

FORMAT_VERSION: Final = 1
PAGE_SIZE: Final = 4096
METADATA_KEY: Final = b"hvbench"

#: Key of every content identity of format version 1. Identities under different salts never compare
#: equal, so it changes only with the version.
SALT: Final = bytes.fromhex("68766265 6e636820 74726163 65207631")
#: The identity of a page of zeroes is 0 and not its hash, so that it can be recognised without the salt.
ZERO_PAGE: Final = 0

OP_NAMES: Final = (
    "compute", "alloc", "free", "exit", "touch", "mtouch", "fread", "fwrite", "fsync", "content",
    "blk_read", "blk_write", "send", "recv", "wait", "wake", "sleep", "outside", "unknown",
    "lock", "unlock", "barrier", "mark_begin", "mark_end",
)  # fmt: skip
#: Operation name -> code, in the order of `OP_NAMES`. The codes are part of the format.
OPS: Final[dict[str, int]] = {name: code for code, name in enumerate(OP_NAMES)}
#: Code of the operation that open-loop replay puts before what is due at a recorded time; never in a file.
UNTIL: Final = len(OP_NAMES)

FLAG_WRITE: Final = 1
FLAG_SAMPLED: Final = 2  # reconstructed by a rule, not seen
FLAG_COMMON: Final = 4  # the content is common to independent runs; else it is private to the VM
FLAG_BLOCKS: Final = 1  # a lock or barrier: who finds it held waits at once, whatever the guest's spinning
ALL_FLAGS: Final = FLAG_WRITE | FLAG_SAMPLED | FLAG_COMMON

#: The privileged operations that are counted per compute, in the order of their columns.
PRIVILEGED: Final = (
    "syscalls", "page_faults", "pt_updates", "context_switches", "timer_programs", "ipis", "port_ios",
)  # fmt: skip

#: Column -> NumPy type, in file order. `op` is a dictionary of strings in the file and its code here.
COLUMNS: Final[dict[str, np.dtype[Any]]] = {
    "thread": np.dtype("i4"),
    "op": np.dtype("i1"),
    "time_ns": np.dtype("i8"),
    "user_ns": np.dtype("i8"),
    "kernel_ns": np.dtype("i8"),
    **{name: np.dtype("i4") for name in PRIVILEGED},
    "object": np.dtype("i4"),
    "page": np.dtype("i8"),
    "pages": np.dtype("i4"),
    "flags": np.dtype("i4"),
    "content": np.dtype("u8"),
    "flow": np.dtype("i4"),
    "bytes": np.dtype("i8"),
    "peer": np.dtype("i4"),
    "duration_ns": np.dtype("i8"),
}
#: What stands in a column that an operation does not use (all others: 0).
ABSENT: Final[dict[str, int]] = {"object": -1, "flow": -1, "peer": -1}

ROLES: Final = ("guest", "outside")
OBJECT_KINDS: Final = ("anon", "image", "own")
PROTOCOLS: Final = ("tcp", "udp", "unix")
OUTSIDE: Final = "outside"


class TraceError(UserError):
    """A trace that cannot be used: which file, what is wrong, what to do."""


@define(frozen=True)
class Trace:
    """A trace in memory.

    `columns` has every column of `COLUMNS`, of its type and of one length; `op` holds codes (`OPS`).
    `digest` is blake2b-128 over metadata and columns: equal digests mean equal replays, however the file
    was compressed.
    """

    meta: dict[str, Any]
    columns: dict[str, NDArray[Any]]
    digest: str
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.columns["op"])

    @property
    def name(self) -> str:
        return str(self.meta.get("name") or (self.path.stem if self.path else "trace"))

    @property
    def is_base_image(self) -> bool:
        return self.meta.get("kind") == "base_image"


def page_identity(page: bytes | memoryview) -> int:
    """The content identity of a page: 0 for zeroes, else keyed blake2b-64 as an unsigned integer."""
    if page == _ZEROES:
        return ZERO_PAGE
    digest = hashlib.blake2b(page, digest_size=8, key=SALT).digest()
    return int.from_bytes(digest, "little") or 1


_ZEROES = bytes(PAGE_SIZE)


def name_hash(name: str) -> str:
    """A name (program, file path) that can be compared and not read: 64 bits of keyed blake2b, in hex."""
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8, key=SALT).hexdigest()


def empty_columns(rows: int) -> dict[str, NDArray[Any]]:
    """Columns of `rows` rows with the absent meaning in every cell."""
    return {name: np.full(rows, ABSENT.get(name, 0), dtype=kind) for name, kind in COLUMNS.items()}


def canonical_meta(meta: dict[str, Any]) -> bytes:
    """Metadata as the one byte string that is stored and digested."""
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def trace_digest(meta: dict[str, Any], columns: dict[str, NDArray[Any]]) -> str:
    """blake2b-128, in hex, over the canonical metadata and the decoded columns (little-endian)."""
    digest = hashlib.blake2b(canonical_meta(meta), digest_size=16)
    for name, kind in COLUMNS.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(columns[name], dtype=kind.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def make_trace(meta: dict[str, Any], columns: dict[str, Any], path: Path | None = None) -> Trace:
    """A `Trace` from columns of any integer type; a missing column is filled with its absent meaning.

    Raises `TraceError` for unknown columns, unequal lengths or values that do not fit their type.
    """
    rows = len(columns["op"])
    full = empty_columns(rows)
    for name, values in columns.items():
        if name not in COLUMNS:
            raise TraceError(f"no such trace column: {name}; there are: {', '.join(COLUMNS)}")
        given = np.asarray(values)
        if len(given) != rows:
            raise TraceError(f"trace column {name} has {len(given)} rows, column op has {rows}")
        kind = COLUMNS[name]
        cast = given.astype(kind)
        if given.dtype != kind and not np.array_equal(cast.astype(object), given.astype(object)):
            raise TraceError(f"trace column {name} has values that do not fit {kind.name}")
        full[name] = cast
    return Trace(meta=meta, columns=full, digest=trace_digest(meta, full), path=path)


def write_trace(path: Path | str, meta: dict[str, Any], columns: dict[str, Any]) -> Trace:
    """Write a trace atomically: a temporary file beside `path`, then renamed. Returns what was written."""
    path = Path(path)
    meta = {"format": FORMAT_VERSION, **meta}
    trace = make_trace(meta, columns, path)
    with TraceWriter(path, meta, level=19) as writer:
        writer.add(trace.columns)
    return trace


#: Delta coding makes the clock and the page indices several times smaller; repeated small values are
#: smaller as dictionaries.
_DELTA: Final = {"time_ns", "page"}
_PLAIN: Final = {"content"}


class TraceWriter:
    """Writes a trace piece by piece, atomically: a temporary file beside `path`, renamed when the block ends well.

    Pieces come in the order of the rows, columns that a piece leaves out are filled with their absent meaning.
    """

    def __init__(self, path: Path, meta: dict[str, Any], level: int = 12) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._names = pa.array(OP_NAMES, type=pa.string())
        kinds = {name: pa.from_numpy_dtype(kind) for name, kind in COLUMNS.items()}
        kinds["op"] = pa.dictionary(pa.int32(), pa.string())
        fields = [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]
        self._schema = pa.schema(fields, metadata={METADATA_KEY: canonical_meta(meta)})
        try:
            fd, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".tmp", dir=path.parent)
        except OSError as error:
            raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from error
        self._temporary = Path(temporary)
        self._file = os.fdopen(fd, "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=level,
            use_dictionary=[name for name in COLUMNS if name not in _DELTA | _PLAIN],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED") | dict.fromkeys(_PLAIN, "PLAIN"),
        )

    def add(self, columns: dict[str, NDArray[Any]]) -> None:
        """Append rows; a column that is left out has its absent meaning."""
        import pyarrow as pa

        count = len(columns["op"])
        arrays = []
        for name, kind in COLUMNS.items():
            if name == "op":
                codes = pa.array(columns["op"].astype(np.int32))
                arrays.append(pa.DictionaryArray.from_arrays(codes, self._names))
            else:
                given = columns.get(name)
                values = np.full(count, ABSENT.get(name, 0), kind) if given is None else given.astype(kind, copy=False)
                arrays.append(pa.array(values))
        self._writer.write_table(pa.table(arrays, schema=self._schema), row_group_size=1 << 20)

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            self._writer.close()
            self._file.close()
            if kind is None:
                os.chmod(self._temporary, 0o644)
                os.replace(self._temporary, self.path)
        except OSError as failed:
            raise TraceError(f"{self.path}: cannot be written: {failed.strerror or failed}") from failed
        finally:
            self._temporary.unlink(missing_ok=True)


def read_trace(path: Path | str) -> Trace:
    """Read a trace; raises `TraceError` with one line that says what is wrong with the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    _check_frame(path)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            meta = _metadata(path, schema.metadata or {})
            missing = [name for name in COLUMNS if name not in schema.names]
            if missing:
                raise TraceError(f"{path}: columns are missing: {', '.join(missing)}")
            table = file.read(columns=list(COLUMNS))
    except TraceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TraceError(f"{path}: cannot be read as Parquet, the file is damaged: {reason}") from error

    columns: dict[str, NDArray[Any]] = {}
    for name, kind in COLUMNS.items():
        values = table.column(name)
        if values.null_count:
            raise TraceError(f"{path}: column {name} has {values.null_count} empty cells; none are allowed")
        if name == "op":
            columns[name] = _op_codes(path, values)
            continue
        if not pa.types.is_integer(values.type):
            raise TraceError(f"{path}: column {name} is of type {values.type}; it has to be {kind.name}")
        try:
            columns[name] = values.cast(pa.from_numpy_dtype(kind)).to_numpy()
        except pa.ArrowInvalid as error:
            raise TraceError(f"{path}: column {name} has values that do not fit {kind.name}") from error
    return Trace(meta=meta, columns=columns, digest=trace_digest(meta, columns), path=path)


def _check_frame(path: Path) -> None:
    """Tell apart a missing file, one that is not Parquet and one that was cut off."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4))
            tail = file.read(4)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head != b"PAR1":
        raise TraceError(f"{path}: not a Parquet file; a trace is one, made by `hvbench record`")
    if tail != b"PAR1" or size < 12:
        raise TraceError(f"{path}: truncated: the file ends after {size} bytes without its footer; copy it again")


def _metadata(path: Path, raw: dict[bytes, bytes]) -> dict[str, Any]:
    text = raw.get(METADATA_KEY)
    if text is None:
        raise TraceError(f"{path}: a Parquet file, but not an hvbench trace: it has no `hvbench` metadata")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: the `hvbench` metadata is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise TraceError(f"{path}: the `hvbench` metadata is not a JSON object")
    version = meta.get("format")
    if version != FORMAT_VERSION:
        raise TraceError(
            f"{path}: trace format version {version!r}; this hvbench reads version {FORMAT_VERSION}: record it again"
        )
    return meta


def _op_codes(path: Path, values: Any) -> NDArray[Any]:
    """Operation names to codes, whatever dictionary the file used."""
    import pyarrow as pa

    array = values.combine_chunks()
    if not pa.types.is_dictionary(array.type):
        if not pa.types.is_string(array.type):
            raise TraceError(f"{path}: column op is of type {array.type}; it has to be a dictionary of strings")
        array = array.dictionary_encode()
    names = array.dictionary.to_pylist()
    codes = np.array([OPS.get(name, -1) for name in names] or [-1], dtype=np.int8)
    indices = array.indices.to_numpy()
    result = codes[indices] if len(indices) else np.zeros(0, dtype=np.int8)
    bad = np.flatnonzero(result < 0)
    if len(bad):
        row = int(bad[0])
        name = names[int(indices[row])]
        raise TraceError(f"{path}: row {row}: unknown operation {name!r}; there are: {', '.join(OP_NAMES)}")
    return result
