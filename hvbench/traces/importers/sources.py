"""Files to import, read once from front to back: decompressed, members of archives one by one, counted, digested.

gzip, xz, zstd and bzip2 are told by their first bytes, a tar by its header, whatever the file is called. Nothing is
unpacked to disk, and no more than a block of a file is held in memory. A compressed file that ends early gives what
it has (`Source.cut`): it may still be growing.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from hvbench.errors import UserError

BLOCK_BYTES: Final = 4 << 20
"""Bytes of one block of lines or records; a longer line is an error of its own."""
HEAD_BYTES: Final = 1 << 16
"""What a format may look at to recognise itself."""
_PIECE: Final = 1 << 18

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
)


@frozen
class Lines:
    """A block of whole lines: `data` ends in a newline; `first` is the number of its first line, from 1.

    `open_end`: the file's last line had no newline of its own (one was put there). It may have been cut off.
    """

    data: bytes
    first: int
    open_end: bool = False

    def split(self) -> list[bytes]:
        """The lines, without their ends."""
        return self.data.removesuffix(b"\n").split(b"\n")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@define
class RawFile:
    """The bytes of one file as they lie on disk: digested and reported to `advance` as they are read."""

    path: Path
    advance: Callable[[int], Any] = field(default=lambda count: None)
    size: int = 0
    _file: Any = None
    _digest: Any = field(factory=lambda: hashlib.blake2b(digest_size=16))

    def __attrs_post_init__(self) -> None:
        try:
            self._file = self.path.open("rb", buffering=0)
            if self.path.is_dir():
                raise IsADirectoryError(21, "is a directory")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def read(self, size: int = -1) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        self._digest.update(data)
        self.size += len(data)
        self.advance(len(data))
        return data

    def finish(self) -> str:
        """Read what is left; the digest of the whole file, blake2b-128 in hex."""
        while self.read(1 << 20):
            pass
        self._file.close()
        return str(self._digest.hexdigest())


class _AsFile(io.RawIOBase):
    """`_Readable` as the file object that decompressors and tarfile want."""

    def __init__(self, inner: _Readable) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self._inner.read(len(into))
        into[: len(data)] = data
        return len(data)


def _decompressed(kind: str, file: Any) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "xz":
        return lzma.LZMAFile(file)
    if kind == "bzip2":
        return bz2.BZ2File(file)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


@define
class Stream:
    """Bytes that can be looked at before they are read. `cut` once the compressed data ended before its time."""

    _inner: Any
    where: str
    cut: bool = False
    _buffer: bytearray = field(factory=bytearray)
    _at: int = 0
    _ended: bool = False

    def _read(self, size: int) -> bytes:
        # read1 hands out what was decompressed before the end of cut data raises
        read: Callable[[int], bytes] = getattr(self._inner, "read1", None) or self._inner.read
        return read(size)

    def _fill(self, wanted: int) -> None:
        while not self._ended and len(self._buffer) - self._at < wanted:
            try:
                data = self._read(_PIECE)
            except EOFError:
                self.cut, data = True, b""
            except (OSError, zlib.error, lzma.LZMAError) as error:
                raise UserError(f"{self.where}: the compressed data is damaged: {error}") from error
            if not data:
                self._ended = True
                return
            if self._at:
                del self._buffer[: self._at]
                self._at = 0
            self._buffer += data

    def peek(self, size: int) -> bytes:
        """Up to `size` of the next bytes, which stay unread."""
        self._fill(size)
        return bytes(memoryview(self._buffer)[self._at : self._at + size])

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        self._fill(size)
        data = bytes(memoryview(self._buffer)[self._at : self._at + size])
        self._at += len(data)
        return data


@define
class Source:
    """One stream to import: a file, or a member of an archive. `name` is how messages name it."""

    name: str
    path: Path
    member: str
    _stream: Stream
    line: int = 0
    """Lines handed out so far."""
    cut_bytes: int = 0
    """Bytes of an incomplete last record that were left out."""

    @property
    def cut(self) -> bool:
        """Whether the compressed data ended before its time."""
        return self._stream.cut

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """The first bytes, which stay unread."""
        return self._stream.peek(size)

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        return self._stream.read(size)

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[Lines]:
        """The text in blocks of whole lines of about `size` bytes."""
        rest = b""
        while True:
            data = self._stream.read(size)
            if not data:
                break
            end = data.rfind(b"\n") + 1
            if not end:
                rest += data
                if len(rest) > 16 * BLOCK_BYTES:
                    raise UserError(f"{self.name}:{self.line + 1}: a line of {len(rest)} bytes: is this text?")
                continue
            yield self._lines(rest + data[:end], False)
            rest = data[end:]
        if rest:
            yield self._lines(rest + b"\n", True)

    def _lines(self, data: bytes, open_end: bool) -> Lines:
        made = Lines(data, self.line + 1, open_end)
        self.line += data.count(b"\n")
        return made

    def records(self, dtype: Any, block: int = BLOCK_BYTES) -> Iterator[NDArray[Any]]:
        """Fixed records in blocks; an incomplete last one is left out and counted in `cut_bytes`."""
        kind = np.dtype(dtype)
        size = max(1, block // kind.itemsize) * kind.itemsize
        while data := self._stream.read(size):
            whole = len(data) // kind.itemsize
            self.cut_bytes = len(data) - whole * kind.itemsize
            if whole:
                yield np.frombuffer(data, kind, whole)


def _unwrap(raw: Any, where: str) -> Stream:
    """Bytes behind however many compressions."""
    stream = Stream(raw, where)
    for _ in range(4):
        head = stream.peek(6)
        kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
        if not kind:
            return stream
        stream = Stream(_decompressed(kind, _AsFile(stream)), where)
    raise UserError(f"{where}: compressed more than three times over")


def _is_tar(stream: Stream) -> bool:
    return stream.peek(512)[257:262] == b"ustar"


def open_sources(raw: RawFile) -> Iterator[Source]:
    """What is in a file: itself, or each regular file in an archive, in its order. Each is read before the next."""
    where = str(raw.path)
    stream = _unwrap(raw, where)
    if not _is_tar(stream):
        yield Source(where, raw.path, "", stream)
        return
    try:
        with tarfile.open(fileobj=io.BufferedReader(_AsFile(stream), 1 << 20), mode="r|") as archive:
            for member in archive:
                inner = archive.extractfile(member) if member.isfile() else None
                if inner is not None:
                    name = f"{where}!{member.name}"
                    yield Source(name, raw.path, member.name, _unwrap(inner, name))
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{where}: the archive is damaged: {error}") from error


def first_head(path: Path) -> tuple[str, bytes]:
    """Name (inside an archive: the first member's) and first bytes of what a file holds, to recognise its format."""
    raw = RawFile(path)
    try:
        for source in open_sources(raw):
            return source.member or path.name, source.head()
    finally:
        raw._file.close()
    return path.name, b""
