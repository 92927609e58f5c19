"""Lines of a text file, plain or gzip, read with bounded memory.

Invariant: never more than one line of at most `MAX_LINE` bytes and one decompressor window is held, whatever the file
declares about itself, so a compressed bomb ends in a `SourceError` and not in the machine's memory.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from vecdb.errors import FileAccessError, SourceError, VecdbError

__all__ = ["MAX_LINE", "count_lines", "fingerprint_file", "open_bytes", "reading", "real_lines"]

MAX_LINE = 32 << 20
"""Bytes in one line: a record of 1 MB of metadata plus vectors written as decimal numbers stays below it."""

_BUFFER = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Map what can go wrong while a file is read to typed errors that name it."""
    try:
        yield
    except VecdbError:  # FileAccessError is an OSError too
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"{path} is damaged or cut off: {str(error).rstrip('.')}.", hint="copy or create it again.", path=path
        ) from error
    except OSError as error:
        raise access_error(path, error) from error


def access_error(path: str, error: OSError) -> FileAccessError:
    hint = "check the name." if isinstance(error, FileNotFoundError) else "check that you may read it."
    return FileAccessError(f"cannot read {path}: {error.strerror or error}.", hint=hint, path=path)


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading; gzip is recognised by its first bytes, not by its name."""
    raw = io.BufferedReader(io.FileIO(path), _BUFFER)
    if raw.peek(2)[:2] != _GZIP_MAGIC:
        return raw
    return io.BufferedReader(_OwningGzip(raw), _BUFFER)


class _OwningGzip(gzip.GzipFile):
    """A GzipFile that closes the file below it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        super().__init__(fileobj=raw, mode="rb")

    def close(self) -> None:
        super().close()
        self._raw.close()


def real_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield ``(line number from 1, bytes)`` of each line that is not blank.

    Raises
    ------
    SourceError
        A line longer than `MAX_LINE`, or a damaged gzip stream.
    FileAccessError
        The file cannot be read.
    """
    with reading(path), open_bytes(path) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), 1):
            if len(line) > MAX_LINE:
                raise SourceError(
                    f"{path}, line {number:,}, is longer than {MAX_LINE:,} bytes.",
                    hint="each record must stand on a line of its own.",
                    path=path,
                    line=number,
                )
            if not line.isspace():
                yield number, line


def count_lines(path: str) -> int:
    """Return how many lines of the file are not blank."""
    return sum(1 for _ in real_lines(path))


def fingerprint_file(path: str) -> dict[str, int]:
    """Return what tells two states of a file apart: size, time of change, and a checksum of both ends."""
    with reading(path), open(path, "rb") as stream:
        status = os.fstat(stream.fileno())
        ends = zlib.crc32(stream.read(1 << 16))
        stream.seek(max(0, status.st_size - (1 << 16)))
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ends": zlib.crc32(stream.read(1 << 16), ends)}
