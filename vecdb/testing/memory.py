"""A vector view and blobs in memory, for tests of plugins: nothing of the engine or the storage is involved.

Both can be stricter than the engine: what is lent can be overwritten when the loan ends, a view can be closed, and
blobs are compared with what they were when they were written.
Contracts: `vecdb.contracts.index` and `vecdb.contracts.blobs`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.contracts.blobs import Data, MadeRows
from vecdb.contracts.index import InPlace
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.types import Metric, Space

__all__ = ["MemoryBlobs", "MemoryView"]

_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_PIECE = 32
"""Rows in a piece of stored rows: few, so that a search meets several pieces."""


class MemoryView:
    """Vectors in memory as an index is given them.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Copied.
    metric : {"cosine", "dot", "l2"}, default "cosine"
    dtype : {"float32", "float16"}, default "float32"
        How they are "stored"; what an index reads is rounded to it.
    block_rows : sequence of int, default (64,)
        Sizes of the blocks of `in_place`, used in turn.
    scattered : bool, default False
        Lay the rows among others that are not covered, so that `InPlace.places` is needed. Otherwise they follow each
        other, behind a few that are not covered.
    removed : iterable of int, optional
        Positions whose vectors are gone; they make the view scattered.
    spoil : bool, default False
        Overwrite what `in_place` lent with NaN when its ``with`` block ends.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.float32],
        metric: Metric = "cosine",
        *,
        dtype: Any = "float32",
        block_rows: Sequence[int] = (64,),
        scattered: bool = False,
        removed: Iterable[int] = (),
        spoil: bool = False,
    ) -> None:
        self._rows = np.array(rows, dtype=dtype, order="C")
        self._space = Space("kit", self._rows.shape[1], metric, dtype, model="kit", id=1)
        self._gone = np.zeros(len(self._rows), np.bool_)
        self._gone[list(removed)] = True
        self._block_rows = tuple(block_rows)
        self._scattered = scattered or bool(self._gone.any())
        self._spoil = spoil
        self._closed = False

    @property
    def space(self) -> Space:
        """The space of the vectors."""
        return self._space

    @property
    def count(self) -> int:
        """Number of positions, those of removed vectors included."""
        return len(self._rows)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._space.dim

    @property
    def metric(self) -> Metric:
        """Metric of the space."""
        return self._space.metric

    @property
    def ordinals(self) -> npt.NDArray[np.uint64]:
        """Lasting numbers, with gaps as deletions leave them; shape (count,), read-only."""
        numbers = np.arange(self.count, dtype=np.uint64) * np.uint64(3) + np.uint64(1_000_000)
        numbers.flags.writeable = False
        return numbers

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield (positions, float32 copies) of the vectors that are there, at most `rows` at once."""
        there = np.flatnonzero(~self._gone)
        for start in range(0, len(there), max(1, rows)):
            self._check_open()
            positions = there[start : start + max(1, rows)].astype(np.int64)
            yield positions, self._rows[positions].astype(np.float32)

    def gather(self, positions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return float32 copies of the vectors at `positions`.

        Raises
        ------
        PluginContractError
            A position outside the view or of a removed vector; the view is closed.
        """
        self._check_open()
        wanted = np.asarray(positions, dtype=np.int64)
        if wanted.ndim != 1 or (wanted.size and (wanted.min() < 0 or wanted.max() >= self.count)):
            raise _broken("gather", f"positions {wanted!r} are asked for, expected 0 to {self.count - 1} in one row")
        if self._gone[wanted].any():
            raise _broken("gather", f"position {int(wanted[self._gone[wanted]][0])} is asked for, which was removed")
        return self._rows[wanted].astype(np.float32)

    def verify(self, positions: npt.ArrayLike) -> None:
        """Refuse what no index may say that it read: positions outside the view, vectors that are gone."""
        self.gather(positions)

    @contextmanager
    def in_place(self, *, verify: bool = True) -> Iterator[InPlace]:
        """Lend copies of the vectors as read-only blocks, until the ``with`` block ends."""
        self._check_open()
        stored, places, first = self._laid_out()
        matrices, bases = self._cut(stored)
        scales = [_scales(self.metric, matrix) for matrix in matrices]
        try:
            yield InPlace(VectorBlocks.from_parts(self.metric, self.dim, matrices, scales), places, first)
        finally:
            for base in bases if self._spoil else ():
                base[...] = np.nan

    def close(self) -> None:
        """End the view: whatever is asked of it from now on is an error."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise _broken("view", "a view is used after the call it was lent to")

    def _laid_out(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None, int]:
        """Return the rows as they lie in the file, where each position lies, and where the first one lies."""
        if not self._scattered:
            strangers = self._strangers(5)
            return np.concatenate([strangers, self._rows, strangers]), None, len(strangers)
        there = np.flatnonzero(~self._gone)
        # Behind every third row lies one that is not covered.
        places = np.full(self.count, -1, np.int64)
        places[there] = np.arange(len(there)) + np.arange(len(there)) // 3 + 2
        stored = self._strangers(int(places.max(initial=1)) + 3)
        stored[places[there]] = self._rows[there]
        return stored, places, 0

    def _strangers(self, count: int) -> npt.NDArray[Any]:
        """Return rows that are not covered, like those that are."""
        like = self._rows[np.arange(count) % self.count]
        return np.asarray(np.roll(like, 1, axis=1) + self._rows.dtype.type(1))

    def _cut(self, stored: npt.NDArray[Any]) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
        """Return read-only blocks and the writable arrays behind them."""
        bases, start, turn = [], 0, 0
        while start < len(stored):
            size = self._block_rows[turn % len(self._block_rows)]
            bases.append(stored[start : start + size].copy())
            start, turn = start + size, turn + 1
        matrices = [base.view() for base in bases]
        for matrix in matrices:
            matrix.flags.writeable = False
        return matrices, bases


class MemoryBlobs:
    """Named blobs in memory: writer and reader in one, with a checksum for each, and damage on request.

    Parameters
    ----------
    strict : bool, default True
        Refuse what a writer must refuse. Otherwise it is stored as well as can be and listed in `problems`.
    """

    def __init__(self, strict: bool = True) -> None:
        self.problems: list[str] = []
        self._strict = strict
        self._data: dict[str, bytes] = {}
        self._sums: dict[str, int] = {}
        self._lent: dict[str, memoryview] = {}

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> MemoryBlobs:
        """Return sound blobs with these contents, as if a plugin had written them."""
        blobs = cls(strict=False)
        for name, data in contents.items():
            blobs.write(name, data)
        return blobs

    # --- what a writer has ---

    def write(self, name: str, data: Data) -> None:
        """Store `data` under `name`.

        Raises
        ------
        PluginContractError
            An unusable or repeated name, or data that is not contiguous bytes.
        """
        view = np.empty(0, np.uint8).data
        if str(name) != name or not _NAME.fullmatch(name):
            self._refuse(f"a blob is called {name!r}, expected 1 to 64 characters of a-z 0-9 . _ -")
        if name in self._data:
            self._refuse(f"blob {name!r} is written twice")
        try:
            view = memoryview(data)  # type: ignore[arg-type]  # arrays have a buffer, but their stubs say so late
        except (TypeError, ValueError):
            self._refuse(f"blob {name!r} is {type(data).__name__}, expected bytes or an array of plain numbers")
        if not view.c_contiguous or "O" in view.format:
            self._refuse(f"blob {name!r} is not C-contiguous, or holds objects")
        self._lent[name] = view
        self._data[name] = bytes(view)
        self._sums[name] = zlib.crc32(self._data[name])

    def write_rows(self, name: str, rows: npt.NDArray[Any] | MadeRows) -> None:
        """Store rows under `name`; errors as in `write`, and for anything but rows. Rows to be made are made twice."""
        if isinstance(rows, MadeRows):
            return self._write_made(name, rows)
        given: object = rows
        if not isinstance(given, np.ndarray) or given.ndim != 2 or not 1 <= given.shape[1] * given.itemsize <= 1 << 20:
            self._refuse(f"blob {name!r} is given as rows, but is no array of two axes and usable width")
        return self.write(name, rows)

    def _write_made(self, name: str, rows: MadeRows) -> None:
        """Store rows in parts, the last first, as whoever makes them must expect."""
        if not 1 <= rows.row_bytes <= 1 << 20 or rows.count < 0:
            self._refuse(f"blob {name!r} has rows of {rows.row_bytes} bytes, expected 1 to {1 << 20}")
        spans = [(first, min(rows.count, first + _PIECE)) for first in range(0, rows.count, _PIECE)]
        parts = {first: bytes(rows.make(first, stop)) for first, stop in reversed(spans)}
        for first, stop in spans:
            if len(parts[first]) != (stop - first) * rows.row_bytes:
                self._refuse(f"rows {first} to {stop} of blob {name!r} have {len(parts[first])} bytes")
            if bytes(rows.make(first, stop)) != parts[first]:
                self._refuse(f"rows {first} to {stop} of blob {name!r} are not the same when they are made again")
        self.write(name, b"".join(parts[first] for first, _ in spans))

    def _refuse(self, problem: str) -> None:
        if self._strict:
            raise _broken("blobs", problem)
        self.problems.append(problem)

    def changed(self) -> list[str]:
        """Return the blobs whose data were changed by the plugin after they were written."""
        return [name for name, view in self._lent.items() if bytes(view) != self._data[name]]

    # --- what a reader has ---

    def names(self) -> Sequence[str]:
        """Return the names, in the order they were written."""
        return list(self._data)

    def size(self, name: str) -> int:
        """Return the length of a blob; CorruptionError if there is none."""
        return len(self._found(name))

    def read(self, name: str) -> bytes:
        """Return a blob; CorruptionError if it is missing or damaged."""
        data = self._found(name)
        if zlib.crc32(data) != self._sums[name]:
            raise CorruptionError(f"blob {name!r} is damaged", what="index blob", where=name)
        return data

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a blob as a read-only array; CorruptionError if it is missing, damaged or of another size."""
        data = self.read(name)
        item = np.dtype(dtype)
        if item.hasobject or item.itemsize == 0 or sum(axis < 0 for axis in shape) > 1:
            raise _broken("blobs", f"blob {name!r} is asked for as {item} {shape}")
        known = int(np.prod([axis for axis in shape if axis >= 0], dtype=object)) * item.itemsize
        fits = known > 0 and len(data) % known == 0 if -1 in shape else len(data) == known
        if not fits:
            problem = f"blob {name!r} has {len(data)} bytes, expected {item} {shape}"
            raise CorruptionError(problem, what="index blob", where=name)
        return np.frombuffer(data, item).reshape(shape)

    def rows(self, name: str, dtype: npt.DTypeLike, width: int, count: int) -> MappedRows:
        """Return a blob as rows in pieces of 32; damage shows when they are verified, as it does in the engine."""
        item = np.dtype(dtype)
        data = self._found(name)
        if item.hasobject or width < 1 or len(data) != count * width * item.itemsize:
            problem = f"blob {name!r} has {len(data)} bytes, expected {count} rows of {width} {item}"
            raise CorruptionError(problem, what="index blob", where=name)
        array = np.frombuffer(data, item).reshape(count, width)
        pieces = [_aligned(array[start : start + _PIECE]) for start in range(0, count, _PIECE)]
        return MappedRows(pieces, _PIECE.bit_length() - 1, item, width, _Proof(self, name))

    # --- damage ---

    def contents(self) -> dict[str, bytes]:
        """Return name and bytes of every blob."""
        return dict(self._data)

    def damaged(self, name: str) -> MemoryBlobs:
        """Return blobs in which one was changed under its checksum: reading or verifying it is a CorruptionError."""
        other = MemoryBlobs.of(self._data)
        other._data[name] = bytes(byte ^ 0xFF for byte in self._data[name])
        other._sums[name] = zlib.crc32(self._data[name]) ^ (not self._data[name])
        return other

    def forged(self, name: str, data: bytes | None) -> MemoryBlobs:
        """Return blobs in which one holds something else with a matching checksum; None: it is missing."""
        contents = {key: (data if key == name else value) for key, value in self._data.items()}
        return MemoryBlobs.of({key: value for key, value in contents.items() if value is not None})

    def _found(self, name: str) -> bytes:
        if name not in self._data:
            raise CorruptionError(f"blob {name!r} is missing", what="index blob", where=name)
        return self._data[name]


class _Proof:
    """The proof of one blob of rows in memory."""

    def __init__(self, blobs: MemoryBlobs, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self.sound = False

    def verify(self) -> None:
        self._blobs.read(self._name)
        self.sound = True

    def verify_rows(self, rows: npt.NDArray[np.int64]) -> None:
        if len(rows):
            self.verify()


def _aligned(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy that begins on a 64-byte boundary, as stored rows do."""
    room = np.empty(rows.nbytes + 64, np.uint8)
    start = -room.__array_interface__["data"][0] % 64
    copy = room[start : start + rows.nbytes].view(rows.dtype).reshape(rows.shape)
    copy[...] = rows
    return copy


def _scales(metric: Metric, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the number per row that `VectorBlocks` carries, from its definition."""
    squares = np.square(rows.astype(np.float64)).sum(axis=1)
    if metric == "l2":
        return np.asarray(squares, np.float32)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.sqrt(squares) if metric == "dot" else 1.0 / np.sqrt(squares), np.float32)


def _broken(rule: str, problem: str) -> PluginContractError:
    return PluginContractError(problem, rule=rule, problem=problem)
