"""A random sample of the living vectors of a space at one commit, in order of age.

Invariant: what was drawn stays valid while others write, because ordinals name vectors whatever moves; the hold keeps
the history that an earlier commit needs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.reading import OpenView
from vecdb.engine.view import CollectionView, Past
from vecdb.errors import CancelledError
from vecdb.storage.snapshot import Hold
from vecdb.storage.spaces import SpaceView
from vecdb.types import CancelCheck, Space

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]

_CHUNK = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Opens one commit of a collection again and again.

    Attributes
    ----------
    open_at : callable
        From a seq or tag and what is known of the past to an open view.
    hold : Hold
        Keeps history while this object lives.
    seq : int
        The commit that is read.
    past : Past
    cancel : callable, optional
    """

    open_at: Callable[[int | str | None, Past | None], OpenView]
    hold: Hold
    seq: int
    past: Past
    cancel: CancelCheck | None = None

    def open(self) -> OpenView:
        """Open the commit for one step, or raise `CancelledError` where that was asked for."""
        if self.cancel is not None and self.cancel():
            raise CancelledError("the look at the health of a space was told to stop")
        return self.open_at(self.seq, self.past)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Vectors drawn at random without replacement, the oldest first.

    Attributes
    ----------
    space : Space
    vectors : int
        Living vectors of the space at this commit.
    rows : ndarray of float32, shape (m, d)
    ordinals : ndarray of uint64, shape (m,)
    ages : ndarray of int64, shape (m,)
        Place among all living vectors in order of age, 0 for the oldest.
    records : ndarray of int64, shape (m,)
        Rows of the records that they belong to.
    """

    space: Space
    vectors: int
    rows: F32
    ordinals: Numbers
    ages: Integers
    records: Integers

    def __len__(self) -> int:
        return len(self.rows)


def draw(reader: Reader, space: Space, size: int, seed: int) -> Sample:
    """Return at most `size` vectors of a space."""
    with reader.open() as view:
        space_view = view.space(space)
        hidden = view.hidden(space_view)
        alive = np.arange(len(space_view)) if hidden is None else np.flatnonzero(~hidden)
        chosen = np.random.default_rng(seed).choice(len(alive), min(size, len(alive)), replace=False)
        ages = np.sort(chosen).astype(np.int64)
        places = alive[ages].astype(np.int64)
        ordinals = space_view.ordinals_at(view.tx, places)
        records = space_view.rows_at(view.tx, places).astype(np.int64)
        return Sample(space, len(alive), _gathered(view, space_view, places), ordinals, ages, records)


def _gathered(view: CollectionView, space_view: SpaceView, places: Integers) -> F32:
    """Return vectors as float32, a chunk at a time: what is stored in other types is turned into floats on the way."""
    made = np.empty((len(places), space_view.space.dim), np.float32)
    for start in range(0, len(places), _CHUNK):
        part = places[start : start + _CHUNK]
        made[start : start + len(part)] = space_view.gather(view.tx, part)
    return made


def shared(reader: Reader, sample: Sample, other: Space, size: int, seed: int) -> tuple[Integers, F32]:
    """Return which rows of a sample, at most `size`, belong to records with a vector in another space, and those."""
    with reader.open() as view:
        refs = [view.record(row).refs.get(other.id) for row in sample.records.tolist()]
        there = np.array([place for place, ref in enumerate(refs) if ref is not None], np.int64)
        if len(there) > size:
            there = np.sort(np.random.default_rng(seed).choice(there, size, replace=False))
        wanted = np.array([refs[place] for place in there.tolist()], np.uint64)
        space_view = view.space(other)
        return there, _gathered(view, space_view, space_view.positions_of(view.tx, wanted))


def labels(reader: Reader, sample: Sample, field: str) -> list[Any]:
    """Return the value of a metadata field, or dotted path, of each record; None where it has no single one."""
    names = field.split(".")
    found: list[Any] = []
    with reader.open() as view:
        for row in sample.records.tolist():
            value: Any = view.metadata(row)
            for name in names:
                value = value.get(name) if isinstance(value, dict) else None
            found.append(value if isinstance(value, (str, int, float, bool)) else None)
    return found


def vectors_of(reader: Reader, space: Space, keys: Sequence[bytes]) -> tuple[list[int | None], F32]:
    """Return the record row of each typed id that has a vector in the space, None for others, and the vectors."""
    with reader.open() as view:
        rows = view.find_all(keys)
        refs = [None if row is None else view.record(row).refs.get(space.id) for row in rows]
        kept = [row if ref is not None else None for row, ref in zip(rows, refs, strict=True)]
        wanted = np.array([ref for ref in refs if ref is not None], np.uint64)
        space_view = view.space(space)
        return kept, _gathered(view, space_view, space_view.positions_of(view.tx, wanted))


def births(reader: Reader, space: Space, ordinals: Sequence[int]) -> list[int | None]:
    """Return the commit that wrote each vector, None where the log does not go back so far."""
    with reader.open() as view:
        changes = view.snapshot.changes(view.number, view.snapshot.state.counters.horizon)
    before = [change.spaces.get(space.id, (0, 0))[0] for change in changes]
    places = [bisect_right(before, ordinal) - 1 for ordinal in ordinals]
    return [changes[place].seq if place >= 0 else None for place in places]
