"""An export directory as the source of an import.

Before anything is stored, sizes and SHA-256 of all files are compared with the manifest, the shapes of the arrays with
its counts, and the spaces with those the collection has. A damaged or changed export therefore stores nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import ExistsError, SourceError
from vecdb.interchange.chunks import Block, Chunk, Limits
from vecdb.interchange.codec import loads, place
from vecdb.interchange.lines import fingerprint_file, reading, real_lines
from vecdb.interchange.manifest import MANIFEST, RECORDS, Manifest, SpaceFiles, digest_file, read_manifest
from vecdb.interchange.npyfile import check_length, read_exactly, read_header
from vecdb.interchange.sources import Sources
from vecdb.interchange.vectorfiles import VectorSource, open_vectors
from vecdb.types import Space

if TYPE_CHECKING:
    from vecdb import Collection

__all__ = ["ExportRecords", "is_export", "open_export", "verify_export"]

_OBJECT_COST = 4
_IDENTITY = ("dim", "metric", "dtype", "model", "revision", "role")


def is_export(source: Any) -> bool:
    """Whether a source is a directory; the only directories that can be imported are exports."""
    return isinstance(source, str | os.PathLike) and os.path.isdir(source)


def open_export(collection: Collection, directory: str) -> Sources:
    """Verify an export, create the spaces the collection does not have, and return what is to be read."""
    manifest = read_manifest(directory)
    verify_export(directory, manifest)
    records = ExportRecords(directory, manifest)
    try:
        known = collection.spaces
        for item in manifest.spaces:
            if item.space.name in known:
                _check_same(item.space, known[item.space.name], collection.name)
        for item in manifest.spaces:
            if item.space.name not in known:
                _add_space(collection, item.space)
    except BaseException:
        records.close()
        raise
    return Sources(records)


def verify_export(directory: str, manifest: Manifest) -> None:
    """Compare every file with the size and checksum of the manifest.

    Raises
    ------
    SourceError
        Naming the first file that is missing, of another size, or changed.
    """
    for name, expected in manifest.files.items():
        path = os.path.join(directory, name)
        if os.path.islink(path) or not os.path.isfile(path):
            raise SourceError(f"{path} is missing, or is not a plain file.", hint="copy the export again.", path=path)
        if os.path.getsize(path) != expected[0]:
            raise SourceError(
                f"{path} has {os.path.getsize(path):,} bytes, the manifest says {expected[0]:,}.",
                hint="the file is cut off or changed; copy the export again.",
                path=path,
            )
    for name, expected in manifest.files.items():
        path = os.path.join(directory, name)
        if digest_file(path) != expected:
            raise SourceError(
                f"{path} has another SHA-256 than the manifest says.",
                hint="the file was damaged or changed; copy the export again.",
                path=path,
            )


def _check_same(given: Space, there: Space, collection: str) -> None:
    differing = [key for key in _IDENTITY if getattr(given, key) != getattr(there, key)]
    if differing:
        facts = "; ".join(f"{key} {getattr(there, key)!r}, export {getattr(given, key)!r}" for key in differing)
        raise ExistsError(
            f"collection {collection!r} already has a space {given.name!r} with another identity: {facts}.",
            hint="import into another collection, or rename the space there.",
            kind="space",
            name=given.name,
        )


def _add_space(collection: Collection, space: Space) -> None:
    identity = {key: getattr(space, key) for key in _IDENTITY}
    collection.add_space(space.name, **identity)


class ExportRecords:
    """The records of an export with their vectors."""

    def __init__(self, directory: str, manifest: Manifest) -> None:
        self.name = os.path.join(directory, RECORDS)
        self.rows: int | None = manifest.records
        self._manifest = os.path.join(directory, MANIFEST)
        self._count = manifest.records
        self._spaces: dict[str, _SpaceRows] = {}
        try:
            for item in manifest.spaces:
                self._spaces[item.space.name] = _SpaceRows(directory, item, manifest.records)
        except BaseException:
            self.close()
            raise

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        row_bytes = limits.row_bytes + sum(item.row_bytes for item in self._spaces.values())
        lines: list[tuple[int, bytes]] = []
        cost = 0
        first = start
        for row, (number, line) in enumerate(real_lines(self.name)):
            self._check_row(row, number)
            if row < start:
                continue
            lines.append((number, line))
            cost += len(line) * _OBJECT_COST + row_bytes
            if len(lines) >= limits.rows or cost >= limits.nbytes:
                yield self._chunk(first, lines)
                first, cost, lines = row + 1, 0, []
        if lines:
            yield self._chunk(first, lines)
            first += len(lines)
        if first != self._count:
            raise self._miscounted(f"{first:,}")

    def _check_row(self, row: int, number: int) -> None:
        if row >= self._count:
            raise self._miscounted(f"more than {self._count:,}", number)

    def _miscounted(self, got: str, line: int | None = None) -> SourceError:
        return SourceError(
            f"{self.name} holds {got} records, the manifest says {self._count:,}.",
            hint="export the collection again.",
            path=self.name,
            line=line,
        )

    def _chunk(self, first: int, lines: list[tuple[int, bytes]]) -> Chunk:
        records = [self._record(number, line) for number, line in lines]
        blocks = {space: rows.read(first, first + len(lines)) for space, rows in self._spaces.items()}
        return Chunk(
            first,
            [record["id"] for record in records],
            [record["metadata"] for record in records],
            [record.get("text") for record in records],
            {space: block for space, block in blocks.items() if block.rows.size},
            [number for number, _ in lines],
        )

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        record = loads(line, path=self.name, number=number)
        if not isinstance(record, dict) or not {"id", "metadata"} <= set(record):
            raise SourceError(
                f"{place(self.name, number)} is not a record with id and metadata.",
                hint="export the collection again.",
                path=self.name,
                line=number,
            )
        return record

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        source = self._spaces[column].vectors
        return source.dim, source.dtype

    def count(self) -> int:
        return self._count

    def fingerprint(self) -> Any:
        return fingerprint_file(self._manifest)

    def close(self) -> None:
        for rows in self._spaces.values():
            rows.close()


class _SpaceRows:
    """The vectors of one space, found by record line: ``SPACE.npy`` with ``SPACE.rows.npy``."""

    def __init__(self, directory: str, item: SpaceFiles, records: int) -> None:
        self.vectors: VectorSource = open_vectors(os.path.join(directory, item.vectors))
        try:
            self._check(item)
            self._rows = _RowNumbers(os.path.join(directory, item.rows), item.count, records)
        except BaseException:
            self.vectors.close()
            raise
        self.row_bytes = self.vectors.dim * self.vectors.dtype.itemsize

    def _check(self, item: SpaceFiles) -> None:
        got = (self.vectors.rows, self.vectors.dim, self.vectors.dtype.name)
        expected = (item.count, item.space.dim, item.space.dtype)
        if got != expected:
            raise SourceError(
                f"{self.vectors.name} holds (rows, width, type) {got}, the manifest says {expected}.",
                hint="export the collection again.",
                path=self.vectors.name,
            )

    def read(self, start: int, stop: int) -> Block:
        """Return the vectors of the records ``start:stop``."""
        at, low, high = self._rows.between(start, stop)
        rows = self.vectors.read(low, high)
        return Block(rows, None if high - low == stop - start else at.astype(np.intp), self.vectors.name)

    def close(self) -> None:
        self.vectors.close()
        self._rows.close()


class _RowNumbers:
    """Ascending record lines in a file, searched in place: a few reads a question, nothing kept."""

    def __init__(self, path: str, count: int, records: int) -> None:
        self._path = path
        self._count = count
        self._records = records
        self._last: tuple[int, int] | None = None
        with reading(path):
            self._stream = open(path, "rb")  # noqa: SIM115 - closed by close()
            try:
                header = read_header(self._stream, path)
                check_length(header, os.fstat(self._stream.fileno()).st_size - header.offset, path)
                if header.shape != (count,) or header.dtype != np.dtype("<i8"):
                    raise self._bad(f"it holds {header.dtype} of shape {header.shape}, expected int64 of ({count},)")
            except BaseException:
                self._stream.close()
                raise
        self._offset = header.offset

    def read(self, low: int, high: int) -> npt.NDArray[np.int64]:
        with reading(self._path):
            self._stream.seek(self._offset + 8 * low)
            return np.frombuffer(read_exactly(self._stream, 8 * (high - low), self._path), dtype="<i8")

    def first_not_below(self, row: int) -> int:
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if int(self.read(middle, middle + 1)[0]) < row:
                low = middle + 1
            else:
                high = middle
        return low

    def between(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], int, int]:
        """Return the lines of ``start:stop`` that have a vector, counted from `start`, and their range in the file.

        In a damaged file the binary search may end anywhere, so the range must also follow the one before.
        """
        low, high = self.first_not_below(start), self.first_not_below(stop)
        at = self.read(low, high) - start
        ascending = not at.size or (at[0] >= 0 and at[-1] < stop - start and bool((np.diff(at) > 0).all()))
        follows = low == 0 if start == 0 else self._last in (None, (start, low))
        complete = stop < self._records or high == self._count
        if not (ascending and follows and complete):
            raise self._bad(f"the numbers for the records {start:,} to {stop - 1:,} do not ascend")
        self._last = (stop, high)
        return at, low, high

    def _bad(self, problem: str) -> SourceError:
        return SourceError(
            f"{self._path} does not say which record each vector belongs to: {problem}.",
            hint="export the collection again.",
            path=self._path,
        )

    def close(self) -> None:
        self._stream.close()
