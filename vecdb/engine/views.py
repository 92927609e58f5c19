"""`VectorView`s: the vectors of an index part while it is built, and while it is searched.

Positions of a view are numbered by age and fixed for the life of the part; where a vector lies now is found through its
ordinal. While an index is built, vectors are read under short leases, so that a long build does not keep the file from
giving space back; a build whose vectors were removed under it starts again under one lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import InPlace
from vecdb.engine.scanorder import scan_order
from vecdb.engine.view import CollectionView
from vecdb.errors import PluginContractError
from vecdb.storage.indexes import IndexPart, part_ordinals
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.storage.tx import Tx
from vecdb.types import Metric, Space

Positions = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]
Matrix = npt.NDArray[np.float32]


class VectorsMovedError(Exception):
    """Vectors of a build were deleted and their room given back: it has to begin again."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the vectors of a part lie in the scan order of a space view; see `InPlace`."""

    first: int
    table: Positions | None
    gone: bool

    def of(self, positions: Positions) -> Positions:
        return positions + self.first if self.table is None else self.table[positions]


def find_places(tx: Tx, space_view: SpaceView, part: IndexPart) -> Places:
    """Return where the vectors of `part` lie; remembered with the view."""
    key = ("places", part.set)
    places: Places | None = space_view.derived.get(key)  # type: ignore[call-overload]
    if places is None:
        places = space_view.derived[key] = _places(tx, space_view, part)  # type: ignore[index]
    return places


def _places(tx: Tx, space_view: SpaceView, part: IndexPart) -> Places:
    if part.is_gapless and space_view.sealed == space_view.counts.tail_start:  # nothing was ever removed
        return Places(part.first, None, False)
    table = space_view.positions_of(tx, part_ordinals(tx, part))
    first = int(table[0])
    if first >= 0 and int(table[-1]) - first + 1 == len(table) and bool((np.diff(table) == 1).all()):
        return Places(first, None, False)
    return Places(0, table, bool((table < 0).any()))


class PartView:
    """The vectors of one part, readable during one search."""

    __slots__ = ("_part", "_places", "_space_view", "_view", "count")

    def __init__(self, view: CollectionView, space_view: SpaceView, part: IndexPart, places: Places) -> None:
        self._view = view
        self._space_view = space_view
        self._part = part
        self._places = places
        self.count = part.count

    @property
    def space(self) -> Space:
        return self._space_view.space

    @property
    def dim(self) -> int:
        return self._space_view.space.dim

    @property
    def metric(self) -> Metric:
        return self._space_view.space.metric

    @property
    def ordinals(self) -> Numbers:
        return part_ordinals(self._view.tx, self._part)

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[Positions, Matrix]]:
        for start in range(0, self.count, rows):
            positions = np.arange(start, min(self.count, start + rows), dtype=np.int64)
            there = self._places.of(positions)
            kept = there >= 0
            yield positions[kept], as_float32(self._space_view.gather(self._view.tx, there[kept]))

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        there = self._places.of(checked_positions(positions, self.count))
        if len(there) and int(there.min()) < 0:
            raise misuse("a vector was asked for that is no longer in the file")
        return as_float32(self._space_view.gather(self._view.tx, there))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[InPlace]:
        self._space_view.verify_all(self._view.tx)
        yield InPlace(scan_order(self._view, self._space_view), self._places.table, self._places.first)


class BuildView:
    """The vectors that an index is built over.

    Parameters
    ----------
    read : callable
        Opens a snapshot of the newest commit.
    collection : tuple of int and str
    space : Space
    ordinals : ndarray of uint64, shape (count,)
    known : int, default 0
        So many of the first are in the index already; they may have been removed from the file.
    """

    def __init__(
        self,
        read: Callable[[], AbstractContextManager[Snapshot]],
        collection: tuple[int, str],
        space: Space,
        ordinals: Numbers,
        known: int = 0,
    ) -> None:
        self._read = read
        self._collection = collection
        self.space = space
        self.ordinals = ordinals
        self.count = len(ordinals)
        self._known = known

    @property
    def dim(self) -> int:
        return self.space.dim

    @property
    def metric(self) -> Metric:
        return self.space.metric

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[Positions, Matrix]]:
        for start in range(0, self.count, rows):
            positions = np.arange(start, min(self.count, start + rows), dtype=np.int64)
            with self._opened() as (view, space_view):
                table = self._there(view.tx, space_view, positions)
                vectors = as_float32(space_view.gather(view.tx, table[table >= 0]))
            yield positions[table >= 0], vectors

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        wanted = checked_positions(positions, self.count)
        with self._opened() as (view, space_view):
            table = self._there(view.tx, space_view, wanted)
            if len(table) and int(table.min()) < 0:
                raise misuse("a vector was asked for that is no longer in the file")
            return as_float32(space_view.gather(view.tx, table))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[InPlace]:
        with self._opened() as (view, space_view):
            table = self._there(view.tx, space_view, np.arange(self.count, dtype=np.int64))
            space_view.verify_all(view.tx)
            yield InPlace(scan_order(view, space_view), table, 0)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[CollectionView, SpaceView]]:
        with self._read() as snapshot:
            entry = snapshot.entry(*self._collection)
            if all(space.id != self.space.id for space in entry.spaces.values()):
                raise VectorsMovedError
            view = CollectionView(snapshot, entry)
            yield view, view.space(self.space)

    def _there(self, tx: Tx, space_view: SpaceView, positions: Positions) -> Positions:
        """Return where vectors lie now, -1 for known ones that are gone; a new one that is gone ends the build."""
        table = space_view.positions_of(tx, self.ordinals[positions])
        if bool(((table < 0) & (positions >= self._known)).any()):
            raise VectorsMovedError
        return table


def as_float32(vectors: npt.NDArray[Any]) -> Matrix:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def checked_positions(positions: npt.ArrayLike, count: int) -> Positions:
    """Return positions that a plugin asks for, all of them inside the view."""
    asked = np.asarray(positions)
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise misuse(f"positions are {asked.dtype} of shape {asked.shape}, expected integers of one axis")
    if len(asked) and (int(asked.min()) < 0 or int(asked.max()) >= count):
        raise misuse(f"positions go from {int(asked.min())} to {int(asked.max())}, the view has {count}")
    return asked.astype(np.int64, copy=False)


def misuse(problem: str) -> PluginContractError:
    return PluginContractError(problem, rule="view", problem=problem)
