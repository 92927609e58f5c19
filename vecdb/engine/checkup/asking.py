"""True neighbours of sampled vectors among all vectors, and what each index finds of them.

Batches of queries, each under a lease of its own; scores are canonical on both sides, so that a candidate as good as
the k-th best counts as found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine import indexed
from vecdb.engine.checkup.sample import Reader, Sample
from vecdb.engine.parts import Usable, load_all
from vecdb.engine.recall import as_curve
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.indexes import IndexEntry
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_BATCH: Final = 128
_WORK: Final = 2.5e11
"""Products of components that asking may cost, some seconds; beyond it fewer queries are asked."""
_LEAST: Final = 100


@dataclass(slots=True)
class Asked:
    """What was found for sampled vectors, each without itself.

    Attributes
    ----------
    places : ndarray of int64, shape (q,)
        Which rows of the sample were asked.
    scores : ndarray of float32, shape (q, k)
        Of the true neighbours, best first; minus infinity where there are fewer.
    nearest : ndarray of float32, shape (q, d)
        The nearest vector of each.
    answers : dict of int to list of ndarray
        By the number of an index, scores of what it finds with its default effort, without the query itself.
    notes : dict of int to str
        Why an index could not be asked.
    """

    places: npt.NDArray[np.int64]
    scores: F32
    nearest: F32
    answers: dict[int, list[F32]] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Curve:
    """Recall by effort of an index as it was measured when it was built.

    Attributes
    ----------
    k : int
    queries : int
    source : str
        What was asked: "members" of the index, "held out" or "recorded" queries.
    points : tuple of (int, float)
        Effort and mean recall.
    """

    k: int
    queries: int
    source: str
    points: tuple[tuple[int, float], ...]


def affordable(sample: Sample, wanted: int) -> int:
    """Return how many queries are asked: fewer of very large spaces, but never fewer than a hundred."""
    fits = int(_WORK / max(1, sample.vectors * sample.space.dim))
    return min(len(sample), wanted, max(_LEAST, fits))


def ask(
    reader: Reader, sample: Sample, *, queries: int, k: int, recall_at: int, seed: int, registry: PluginRegistry
) -> Asked:
    """Ask for the `k` true neighbours of some rows of a sample, and every index for `recall_at` of them."""
    k = min(k, max(0, sample.vectors - 1))
    count = affordable(sample, queries) if k else 0
    places = np.sort(np.random.default_rng(seed).choice(len(sample), count, replace=False)).astype(np.int64)
    asked = Asked(places, np.full((count, k), -np.inf, np.float32), np.zeros((count, sample.space.dim), np.float32))
    for start in range(0, count, _BATCH):
        with reader.open() as view:
            _Batch(view, sample, places[start : start + _BATCH]).fill(asked, start, k, recall_at, registry)
    return asked


class _Batch:
    """One batch of queries at the commit that is read."""

    def __init__(self, view: CollectionView, sample: Sample, places: npt.NDArray[np.int64]) -> None:
        self.view = view
        self.space_view: SpaceView = view.space(sample.space)
        self.queries = np.ascontiguousarray(sample.rows[places])
        self.own = self.space_view.positions_of(view.tx, sample.ordinals[places])
        hidden = view.hidden(self.space_view)
        self.mask: Bools | None = None if hidden is None else ~hidden
        self.count = sample.vectors
        self.blocks = scan_order(view, self.space_view)

    def fill(self, asked: Asked, start: int, k: int, recall_at: int, registry: PluginRegistry) -> None:
        """Write the neighbours of the batch, and the answers of indexes, into what was asked."""
        verify(self.view, self.space_view, self.mask, self.count)
        found, _ = scan(self.blocks, self.queries, k + 1, allowed=self.mask, matches=self.count)
        first = []
        for place, (positions, scores) in enumerate(found):
            others = positions != self.own[place]
            kept = scores[others][:k]
            asked.scores[start + place, : len(kept)] = kept
            first.append(int(positions[others][0]))
        asked.nearest[start : start + len(first)] = self.space_view.gather(self.view.tx, np.array(first, np.int64))
        for entry in _indexes(self.view, self.space_view.space):
            self._ask(entry, asked, min(recall_at, k), registry)

    def _ask(self, entry: IndexEntry, asked: Asked, k: int, registry: PluginRegistry) -> None:
        usable = load_all(self.view, self.space_view, entry, registry)
        if not usable.parts:
            asked.notes[entry.id] = usable.notes[0] if usable.notes else "it has no parts yet"
            return
        asked.answers.setdefault(entry.id, []).extend(self._answers(usable, k))

    def _answers(self, usable: Usable, k: int) -> Iterator[F32]:
        question = indexed.Question(
            self.view, self.space_view, self.blocks, self.queries, k + 1, self.mask, self.count, None
        )
        found, _ = indexed.search(question, usable)
        for place, (positions, scores) in enumerate(found):
            yield scores[positions != self.own[place]][:k]


def _indexes(view: CollectionView, space: Space) -> list[IndexEntry]:
    return [entry for entry in view.entry.indexes if entry.space == space.id]


def index_entries(reader: Reader, space: Space) -> list[tuple[IndexEntry, tuple[Curve, ...]]]:
    """Return the indexes of a space and the curves measured of the largest part of each."""
    with reader.open() as view:
        return [(entry, _curves(entry)) for entry in _indexes(view, space)]


def _curves(entry: IndexEntry) -> tuple[Curve, ...]:
    known = [part for part in entry.parts if part.measured.curves]
    if not known:
        return ()
    made = []
    for stored in max(known, key=lambda part: part.count).measured.curves:
        curve = as_curve(stored)
        points = tuple(zip(curve.efforts.tolist(), curve.recalls.tolist(), strict=True))
        made.append(Curve(stored.k, stored.queries, stored.source, points))
    return tuple(made)
