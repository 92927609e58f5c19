"""`VectorView`s: the vectors of an index part while it is built, and while it is searched.

Positions of a view are numbered by age and fixed for the life of the part; where a vector lies now is found through its
ordinal. While an index is built, vectors are read under short leases, so that a long build does not keep the file from
giving space back; a build whose vectors were removed under it starts again under one lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import InPlace
from vecdb.engine.scanorder import scan_order
from vecdb.engine.view import CollectionView
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.storage.indexes import IndexPart, part_ordinals
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.storage.state import CollectionEntry
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


class _PlacesOfParts:
    """Where the vectors of each part lie, by its set of blobs, with the epoch for which that is right."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[int, Places]] = {}

    def keep(self, sets: Container[int]) -> None:
        """Forget parts that the catalog no longer names."""
        for number in [number for number in self.of if number not in sets]:
            self.of.pop(number, None)

    def unmap(self) -> None:
        """Nothing here lies in the map."""


def find_places(view: CollectionView, space_view: SpaceView, part: IndexPart) -> Places:
    """Return where the vectors of `part` lie; remembered as long as nothing moves, whatever is written meanwhile.

    Raises
    ------
    CorruptionError
        If the part covers what cannot be there, or its ordinals are damaged.
    """
    shared = view.snapshot.state.loaded_indexes
    memory: _PlacesOfParts = shared.get("places") or shared.setdefault("places", _PlacesOfParts())
    epoch = space_view.counts.epoch
    known = memory.of.get(part.set)
    if known is None or known[0] != epoch:
        known = memory.of[part.set] = (epoch, _places(view.tx, space_view, part))
    return known[1]


def _places(tx: Tx, space_view: SpaceView, part: IndexPart) -> Places:
    if part.stop > space_view.counts.tail_start:
        raise CorruptionError(
            f"an index of space {space_view.space.name!r} covers vectors that are not sealed",
            what="index",
            where=space_view.space.name,
        )
    if part.is_gapless and space_view.sealed == space_view.counts.tail_start:  # nothing was ever removed
        return Places(part.first, None, False)
    table = space_view.positions_of(tx, part_ordinals(tx, part))
    first = int(table[0])
    if first >= 0 and int(table[-1]) - first + 1 == len(table) and bool((np.diff(table) == 1).all()):
        return Places(first, None, False)
    table.flags.writeable = False  # plugins are shown it
    return Places(0, table, bool((table < 0).any()))


class PartView(AbstractContextManager["PartView"]):
    """The vectors of one part, readable while a plugin loads or searches it: until the end of the ``with`` block."""

    __slots__ = ("_over", "_part", "_places", "_space_view", "_view", "count")

    def __init__(self, view: CollectionView, space_view: SpaceView, part: IndexPart, places: Places) -> None:
        self._view = view
        self._space_view = space_view
        self._part = part
        self._places = places
        self._over = False
        self.count = part.count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True

    def _check(self) -> None:
        """Refuse a view that a plugin kept: its memory map may be gone."""
        if self._over:
            raise misuse("a view was used after the call that it was made for")

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
        self._check()
        return part_ordinals(self._view.tx, self._part)

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[Positions, Matrix]]:
        for start in range(0, self.count, rows):
            self._check()
            positions = np.arange(start, min(self.count, start + rows), dtype=np.int64)
            there = self._places.of(positions)
            kept = there >= 0
            yield positions[kept], as_float32(self._space_view.gather(self._view.tx, there[kept]))

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        self._check()
        there = self._places.of(checked_positions(positions, self.count))
        if len(there) and int(there.min()) < 0:
            raise misuse("a vector was asked for that is no longer in the file")
        return as_float32(self._space_view.gather(self._view.tx, there))

    def verify(self, positions: npt.ArrayLike) -> None:
        self._check()
        there = self._places.of(checked_positions(positions, self.count))
        if len(there) and int(there.min()) < 0:
            raise misuse("a vector is said to have been read that is no longer in the file")
        self._space_view.verify_positions(self._view.tx, there)

    def in_place(self, *, verify: bool = True) -> AbstractContextManager[InPlace]:
        self._check()
        if verify:
            self._space_view.verify_all(self._view.tx)
        return _Lent(InPlace(scan_order(self._view, self._space_view), self._places.table, self._places.first))


class PinnedView(PartView):
    """The vectors of an index that is not stored yet, as they lie at one commit.

    Parameters
    ----------
    view, space_view
        Of that commit.
    ordinals : ndarray of uint64, shape (count,)
    table : ndarray of int64, shape (count,)
        Where each lies in the scan order, -1 for one that is gone.
    """

    __slots__ = ("_ordinals",)

    def __init__(self, view: CollectionView, space_view: SpaceView, ordinals: Numbers, table: Positions) -> None:
        self._view = view
        self._space_view = space_view
        self._places = Places(0, table, bool((table < 0).any()))
        self._over = False
        self._ordinals = ordinals
        self.count = len(ordinals)

    @property
    def ordinals(self) -> Numbers:
        self._check()
        return self._ordinals


class _Lent(AbstractContextManager[InPlace]):
    """Vectors lent for a ``with`` block whose lease somebody else holds; a generator would cost every search more."""

    __slots__ = ("_here",)

    def __init__(self, here: InPlace) -> None:
        self._here = here

    def __enter__(self) -> InPlace:
        return self._here

    def __exit__(self, *error: object) -> None:
        return None


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
        self._moved = False

    def confirm(self) -> None:
        """Raise if vectors moved under the build, whatever the plugin made of that when it was told."""
        if self._moved:
            raise VectorsMovedError

    @property
    def dim(self) -> int:
        return self.space.dim

    @property
    def metric(self) -> Metric:
        return self.space.metric

    def chunks(self, rows: int = 8_192) -> Iterator[tuple[Positions, Matrix]]:
        for start in range(0, self.count, rows):
            positions = np.arange(start, min(self.count, start + rows), dtype=np.int64)
            with self.opened() as (view, space_view):
                table = self._there(view.tx, space_view, positions)
                vectors = as_float32(space_view.gather(view.tx, table[table >= 0]))
            yield positions[table >= 0], vectors

    def gather(self, positions: npt.ArrayLike) -> Matrix:
        wanted = checked_positions(positions, self.count)
        with self.opened() as (view, space_view):
            table = self._there(view.tx, space_view, wanted)
            if len(table) and int(table.min()) < 0:
                raise misuse("a vector was asked for that is no longer in the file")
            return as_float32(space_view.gather(view.tx, table))

    def verify(self, positions: npt.ArrayLike) -> None:
        wanted = checked_positions(positions, self.count)
        with self.opened() as (view, space_view):
            table = self._there(view.tx, space_view, wanted)
            if len(table) and int(table.min()) < 0:
                raise misuse("a vector is said to have been read that is no longer in the file")
            space_view.verify_positions(view.tx, table)

    @contextlib.contextmanager
    def in_place(self, *, verify: bool = True) -> Iterator[InPlace]:
        with self.opened() as (view, space_view):
            table = self._there(view.tx, space_view, np.arange(self.count, dtype=np.int64))
            if verify:
                space_view.verify_all(view.tx)
            yield InPlace(scan_order(view, space_view), table, 0)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[CollectionView, SpaceView]]:
        """Open the newest commit for one step; raises `VectorsMovedError` if the space is gone."""
        with self._read() as snapshot:
            entry = find_entry(snapshot, self._collection)
            if entry is None or all(space.id != self.space.id for space in entry.spaces.values()):
                raise self._move()
            view = CollectionView(snapshot, entry)
            yield view, view.space(self.space)

    def _move(self) -> VectorsMovedError:
        self._moved = True
        return VectorsMovedError("vectors were removed while an index was built over them")

    def _there(self, tx: Tx, space_view: SpaceView, positions: Positions) -> Positions:
        """Return where vectors lie now, -1 for known ones that are gone; a new one that is gone ends the build."""
        table = space_view.positions_of(tx, self.ordinals[positions])
        if bool(((table < 0) & (positions >= self._known)).any()):
            raise self._move()
        return table


def find_entry(snapshot: Snapshot, collection: tuple[int, str]) -> CollectionEntry | None:
    """Return the catalog's entry of a collection, None if it was dropped."""
    entries = snapshot.state.catalog.collections.values()
    return next((entry for entry in entries if entry.id == collection[0]), None)


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
