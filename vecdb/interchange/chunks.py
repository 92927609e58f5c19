"""What an import carries from a source to the collection: some consecutive records at a time.

A `RecordSource` yields `Chunk` values whose size is bounded by `Limits`; the vectors of a chunk come with it (columns
of a table, fields of a JSON line) or are read from a `VectorSource` by the chunk's row range. Invariant: row numbers
count the records of the source from 0 and do not depend on how it was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vecdb.errors import DimensionError, DTypeError, VecdbError
from vecdb.types import Id

__all__ = ["Block", "Chunk", "Fields", "Limits", "NumberedRecords", "RecordSource", "stack"]


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field or column means what.

    Attributes
    ----------
    id : str or None
        None numbers the records from 0.
    text : str or None
        None: records get no text.
    metadata : tuple of str or None
        None takes every field that has no other meaning; an empty tuple takes none.
    vectors : mapping of str to str
        Space name to the field that holds its vectors.
    nulls : bool
        Keep null as the value None; False leaves the field out.
    """

    id: str | None = "id"
    text: str | None = None
    metadata: tuple[str, ...] | None = None
    vectors: Mapping[str, str] = field(default_factory=dict)
    nulls: bool = True

    def special(self) -> set[str]:
        return {name for name in (self.id, self.text, *self.vectors.values()) if name is not None}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a chunk is full: `rows` records, or `nbytes` counting `row_bytes` for the vectors each record brings."""

    rows: int
    nbytes: int
    row_bytes: int = 0

    def most_rows(self) -> int:
        return max(1, min(self.rows, self.nbytes // max(1, self.row_bytes)))


@dataclass(frozen=True, slots=True)
class Block:
    """The vectors that a chunk's records have in one space.

    Attributes
    ----------
    rows : ndarray of a number type, shape (m, d)
    at : ndarray of int or None
        Which records of the chunk have them, ascending; None: all.
    where : str
        File or column, for messages.
    """

    rows: npt.NDArray[Any]
    at: npt.NDArray[np.intp] | None
    where: str

    def spread(self, count: int) -> npt.NDArray[Any] | list[npt.NDArray[Any] | None]:
        """Return the rows as `upsert` takes them: an array, or a list with None where there is no vector."""
        if self.at is None:
            return self.rows
        out: list[npt.NDArray[Any] | None] = [None] * count
        for place, row in zip(self.at.tolist(), self.rows, strict=True):
            out[place] = row
        return out

    @contextmanager
    def places_in_errors(self) -> Iterator[None]:
        """Let an error about row i of the block name the record's place in the chunk."""
        try:
            yield
        except VecdbError as error:
            if self.at is None:
                raise
            raise error.__class__(error.message, hint=error.hint, **self._moved(error)) from error

    def _moved(self, error: VecdbError) -> dict[str, Any]:
        data = {name: getattr(error, name) for name in error.fields}
        for name in set(data) & {"row", "position", "first", "second"}:
            if self.at is not None and type(data[name]) is int and 0 <= data[name] < len(self.at):
                data[name] = int(self.at[data[name]])
        return data

    def after(self, count: int) -> Block:
        """Return the block of the records from place `count` on."""
        if self.at is None:
            return Block(self.rows[count:], None, self.where)
        begin = int(np.searchsorted(self.at, count))
        return Block(self.rows[begin:], self.at[begin:] - count, self.where)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of a source.

    Attributes
    ----------
    first : int
        Row number of the first record.
    ids : list of str or int
    metadata : list of dict or None
    texts : list of (str or None) or None
    vectors : dict of str to Block
    lines : list of int or None
        Line numbers, where the source is a text file.
    later : str or None
        The vector file, where the chunk brings nothing but further vectors of one space for records of chunks before
        it; `first` then counts the rows of that file.
    """

    first: int
    ids: list[Id]
    metadata: list[dict[str, Any]] | None = None
    texts: list[str | None] | None = None
    vectors: dict[str, Block] = field(default_factory=dict)
    lines: list[int] | None = None
    later: str | None = None

    def after(self, count: int) -> Chunk:
        """Return the chunk without its first `count` records."""
        return Chunk(
            self.first + count,
            self.ids[count:],
            None if self.metadata is None else self.metadata[count:],
            None if self.texts is None else self.texts[count:],
            {space: block.after(count) for space, block in self.vectors.items()},
            None if self.lines is None else self.lines[count:],
            self.later,
        )


class RecordSource(Protocol):
    """Records in a fixed order."""

    name: str
    rows: int | None
    """How many there are, or None where only reading them all would tell."""

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        """Yield the records from row `start` on, then, counted on, rows of vectors that come later (`Chunk.later`)."""

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        """Return width and element type of the vectors in a column, from the first record that has one."""

    def count(self) -> int:
        """Return how many records there are, reading the source if need be."""

    def fingerprint(self) -> Any:
        """Return JSON that changes when the content does; None for what is in memory only."""

    def close(self) -> None: ...


class NumberedRecords:
    """Records that are nothing but ids: the numbers 0 to n - 1, or ids given as a sequence."""

    def __init__(self, rows: int, ids: Sequence[Id] | npt.NDArray[Any] | None = None) -> None:
        self.name = "ids" if ids is not None else "rows"
        self.rows: int | None = rows
        self._rows = rows
        self._ids = ids

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        step = limits.most_rows()
        for first in range(start, self._rows, step):
            yield Chunk(first, self._some(first, min(first + step, self._rows)))

    def _some(self, start: int, stop: int) -> list[Id]:
        if self._ids is None:
            return list(range(start, stop))
        part = self._ids[start:stop]
        return part.tolist() if isinstance(part, np.ndarray) else list(part)

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        raise DTypeError(f"there are no records with a field {column!r}.", hint="name a vector file.", where=column)

    def count(self) -> int:
        return self._rows

    def fingerprint(self) -> Any:
        return {"rows": self._rows} if self._ids is None else None

    def close(self) -> None:
        """Nothing is held open."""


def stack(values: Sequence[Any], where: str, first: int) -> Block:
    """Make a block of a column of sequences.

    Parameters
    ----------
    values : sequence of (None or array_like of float, shape (d,))
        None: this record has no vector.
    where : str
        For messages.
    first : int
        Row number of the first value, for messages.

    Raises
    ------
    DimensionError
        Rows of different widths, or a value that is no sequence.
    DTypeError
        Values that are not numbers.
    """
    at = [place for place, value in enumerate(values) if value is not None]
    rows = [_row(values[place], where, first + place) for place in at]
    for place, row in zip(at, rows, strict=True):
        if row.shape != rows[0].shape:
            raise DimensionError(
                f"{where}: row {first + place:,} has {row.shape[0]} numbers, row {first + at[0]:,} has "
                f"{rows[0].shape[0]}.",
                hint="all vectors of a space have the same width.",
                expected=rows[0].shape[0],
                got=row.shape[0],
                where=where,
            )
    matrix = np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
    return Block(matrix, None if len(at) == len(values) else np.array(at, dtype=np.intp), where)


def _row(value: Any, where: str, number: int) -> npt.NDArray[Any]:
    try:
        row = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _not_numbers(where, number, type(value).__name__) from error
    if row.ndim != 1 or not row.size:
        raise DimensionError(
            f"{where}: row {number:,} has shape {row.shape}, expected a list of numbers.",
            hint="one record has one vector a space.",
            expected="(d,)",
            got=row.shape,
            where=where,
        )
    if row.dtype.kind not in "fiu":
        raise _not_numbers(where, number, str(row.dtype))
    return row


def _not_numbers(where: str, number: int, got: str) -> DTypeError:
    return DTypeError(
        f"{where}: row {number:,} holds {got}, expected numbers.",
        hint="a vector is a list of plain numbers; null means that the record has none.",
        expected="numbers",
        got=got,
        where=where,
    )
