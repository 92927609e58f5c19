"""The vectors of one space of an export: ``SPACE.npy`` with ``SPACE.rows.npy``.

They stand in the order of their age. As far as that is also the order of their records (`SpaceRows.ordered` of them,
nearly always all) they are found by record line, by binary search in the file; those after come one by one in the
file's order. The line numbers are proven to ascend that far, to exist and to be distinct before any is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vecdb.errors import SourceError
from vecdb.interchange.chunks import Block, Limits
from vecdb.interchange.lines import reading
from vecdb.interchange.manifest import SpaceFiles
from vecdb.interchange.npyfile import check_length, read_exactly, read_header
from vecdb.interchange.vectorfiles import VectorSource, open_vectors

__all__ = ["SpaceRows"]

_PIECE = 1 << 16


class SpaceRows:
    """The two files of one space, opened and checked.

    Parameters
    ----------
    directory : str
    item : SpaceFiles
    records : int
        Lines of the export.

    Attributes
    ----------
    vectors : VectorSource
    ordered : int
        How many vectors, from the first on, stand in record order.
    later : int
        How many follow them.
    """

    def __init__(self, directory: str, item: SpaceFiles, records: int) -> None:
        self.vectors: VectorSource = open_vectors(os.path.join(directory, item.vectors))
        try:
            self._check(item)
            self._lines = _LineNumbers(os.path.join(directory, item.rows), item.count, records)
        except BaseException:
            self.vectors.close()
            raise
        self.row_bytes = self.vectors.dim * self.vectors.dtype.itemsize
        self.ordered = self._lines.ordered
        self.later = item.count - self.ordered

    def _check(self, item: SpaceFiles) -> None:
        got = (self.vectors.rows, self.vectors.dim, self.vectors.dtype.name)
        expected = (item.count, item.space.dim, item.space.returned)
        if got != expected:
            raise SourceError(
                f"{self.vectors.name} holds (rows, width, type) {got}, the manifest says {expected}.",
                hint="export the collection again.",
                path=self.vectors.name,
            )

    def of_records(self, start: int, stop: int) -> Block:
        """Return those vectors of the records ``start:stop`` that stand in record order."""
        low, high = self._lines.first_not_below(start), self._lines.first_not_below(stop)
        at = None if high - low == stop - start else (self._lines.read(low, high) - start).astype(np.intp)
        return Block(self.vectors.read(low, high), at, self.vectors.name)

    def after_records(self, skip: int, limits: Limits) -> Iterator[tuple[int, list[int], Block]]:
        """Yield the vectors that follow, without the first `skip`: row of the file, record lines, vectors."""
        step = Limits(limits.rows, limits.nbytes, self.row_bytes).most_rows()
        for start in range(self.ordered + skip, self.vectors.rows, step):
            stop = min(start + step, self.vectors.rows)
            rows = self.vectors.read(start, stop)
            yield start, self._lines.read(start, stop).tolist(), Block(rows, None, self.vectors.name)

    def close(self) -> None:
        self.vectors.close()
        self._lines.close()


class _LineNumbers:
    """The record line of each vector, in a file that is searched in place: a few reads a question, nothing kept."""

    def __init__(self, path: str, count: int, records: int) -> None:
        self._path = path
        self._count = count
        with reading(path):
            self._stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self._offset = self._open()
            self.ordered = self._survey(records)
        except BaseException:
            self._stream.close()
            raise

    def _open(self) -> int:
        with reading(self._path):
            header = read_header(self._stream, self._path)
            check_length(header, os.fstat(self._stream.fileno()).st_size - header.offset, self._path)
        if header.shape != (self._count,) or header.dtype != np.dtype("<i8"):
            raise self._bad(f"it holds {header.dtype} of shape {header.shape}, expected int64 of ({self._count},)")
        return header.offset

    def _survey(self, records: int) -> int:
        """Return how many numbers ascend from the first on, and prove all to be distinct lines of the export."""
        ordered, last = 0, -1
        for start in range(0, self._count, _PIECE):
            part = self.read(start, min(start + _PIECE, self._count))
            if part.min() < 0 or part.max() >= records:
                raise self._bad(f"it names lines from {part.min():,} to {part.max():,}, there are {records:,}")
            if ordered == start:
                ascends = np.diff(part, prepend=last) > 0
                ordered += len(part) if ascends.all() else int(np.argmin(ascends))
                last = int(part[-1])
        if ordered < self._count:
            self._check_distinct()
        return ordered

    def _check_distinct(self) -> None:
        lines = np.sort(self.read(0, self._count))
        same = np.flatnonzero(lines[1:] == lines[:-1])
        if same.size:
            raise self._bad(f"it names line {int(lines[same[0]]):,} twice")

    def read(self, low: int, high: int) -> npt.NDArray[np.int64]:
        with reading(self._path):
            self._stream.seek(self._offset + 8 * low)
            return np.frombuffer(read_exactly(self._stream, 8 * (high - low), self._path), dtype="<i8")

    def first_not_below(self, line: int) -> int:
        low, high = 0, self.ordered
        while low < high:
            middle = (low + high) // 2
            if int(self.read(middle, middle + 1)[0]) < line:
                low = middle + 1
            else:
                high = middle
        return low

    def _bad(self, problem: str) -> SourceError:
        return SourceError(
            f"{self._path} does not say which record each vector belongs to: {problem}.",
            hint="export the collection again.",
            path=self._path,
        )

    def close(self) -> None:
        self._stream.close()
