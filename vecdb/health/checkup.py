"""Measuring one space: draw a sample, find true neighbours, and hand both to the measures.

Invariant: time and memory are bounded by the sizes asked for, not by the collection; the same commit and seed give the
same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.checkup.asking import Asked, ask, index_entries
from vecdb.engine.checkup.sample import Reader, Sample, births, draw, labels, shared, vectors_of
from vecdb.evaluation.health.classes import Classes, classes
from vecdb.evaluation.health.dimension import LEAST_ROWS, dimension
from vecdb.evaluation.health.distributions import Duplicates, duplicates, norms, scores
from vecdb.evaluation.health.drift import Drift, drift
from vecdb.evaluation.health.evalrank import EvalRank, evalrank
from vecdb.evaluation.health.hubs import hubness
from vecdb.evaluation.health.isotropy import cosines, isotropy
from vecdb.evaluation.health.plane import OTHER, Plane, plane
from vecdb.evaluation.health.recall import recall_of_scores
from vecdb.evaluation.health.versions import Versions, versions
from vecdb.evaluation.ranking import top_k
from vecdb.health.values import IndexHealth, SpaceHealth
from vecdb.registry import PluginRegistry
from vecdb.types import Metric, Space

__all__ = ["Wishes", "examine"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_NEIGHBOURS: Final = 100
"""Neighbours over which the local dimension is estimated, but never more than a tenth of the vectors."""
_COMPONENTS: Final = 1 << 24
"""Components of the sample: 64 MB of floats, and twice as much for each copy in double precision."""
_LEAST_SAMPLE: Final = 200
_SHARED: Final = 1_000
"""Records that two spaces are compared on."""
_PAIRS: Final = 1_000
_MAPPED: Final = 800
"""Points of the map."""
_GROUPS: Final = 6
"""Labels that the map tells apart; the others are one group."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asked for, checked.

    Attributes
    ----------
    sample, queries, k, seed : int
    labels : str, optional
        A metadata field.
    pairs : sequence of (bytes, bytes)
        Typed ids.
    """

    sample: int
    queries: int
    k: int
    seed: int
    labels: str | None = None
    pairs: Sequence[tuple[bytes, bytes]] = ()


def examine(
    reader: Reader, collection: str, space: Space, others: Sequence[Space], wishes: Wishes, registry: PluginRegistry
) -> SpaceHealth:
    """Return the health of one space; `others` are the spaces that it is compared with."""
    sample = draw(reader, space, min(wishes.sample, max(_LEAST_SAMPLE, _COMPONENTS // space.dim)), wishes.seed)
    near = max(2, min(_NEIGHBOURS, sample.vectors // 10))
    asked = ask(
        reader,
        sample,
        queries=wishes.queries,
        k=max(near, wishes.k),
        recall_at=wishes.k,
        seed=wishes.seed + 1,
        registry=registry,
    )
    return _Checkup(reader, sample, asked, near, wishes).health(collection, others)


@dataclass(slots=True)
class _Checkup:
    """One look at one space: what was read, and what the measures make of it."""

    reader: Reader
    sample: Sample
    asked: Asked
    near: int
    wishes: Wishes
    notes: list[str] = field(default_factory=list)
    points: F32 = field(init=False)
    found: Integers = field(init=False)
    named: list[Any] | None = None
    """Labels, once `_classes` has read them; the map is coloured by them."""

    def __post_init__(self) -> None:
        self.points = _points(self.sample.rows, self.sample.space.metric)
        itself = np.arange(len(self.points))
        self.found, _ = top_k(self.points, self.points, self.wishes.k, self.sample.space.metric, leave_out=itself)

    def health(self, collection: str, others: Sequence[Space]) -> SpaceHealth:
        """Return everything that was found."""
        sample, space, seed = self.sample, self.sample.space, self.wishes.seed
        self._note_size()
        some = len(sample) > 1
        return SpaceHealth(
            collection=collection,
            space=space.name,
            model=space.model,
            metric=space.metric,
            dtype=space.dtype,
            dim=space.dim,
            seq=self.reader.seq,
            vectors=sample.vectors,
            sampled=len(sample),
            asked=len(self.asked.places),
            seed=seed,
            isotropy=isotropy(self.points, seed=seed),
            cosines=cosines(sample.rows) if some else None,
            dimension=dimension(self._distances(), seed=seed),
            hubness=hubness(self.found, len(self.points), itself=True),
            duplicates=self._duplicates() if some else None,
            norms=norms(sample.rows),
            scores=scores(sample.rows, self.asked.scores, space.metric, k=self.wishes.k, seed=seed),
            classes=self._classes(),
            evalrank=self._evalrank(),
            drift=self._drift(),
            versions=tuple(self._versions(others)),
            plane=self._plane(),
            indexes=tuple(self._indexes()),
            notes=tuple(self.notes),
        )

    def _note_size(self) -> None:
        sample = self.sample
        if len(sample) < LEAST_ROWS:
            self.notes.append(f"{len(sample)} vectors are too few for most measures")
        if len(sample) < sample.vectors:
            self.notes.append(f"measured on {len(sample):,} of {sample.vectors:,} vectors, drawn at random")
        if sample.space.metric == "dot" and len(sample):
            what = "local dimension and duplicates are those of the sample"
            self.notes.append(f"{what}: the largest inner products are not the nearest vectors")

    def _distances(self) -> F64:
        """Return Euclidean distances to the nearest vectors, shape (q, near); of unit vectors where directions count.

        The largest inner products are not the nearest vectors, so in a space of inner products neighbours are those
        within the sample.
        """
        metric, asked = self.sample.space.metric, self.asked
        if metric == "dot":
            rows = self.sample.rows
            _, found = top_k(rows[asked.places], rows, self.near, "l2", leave_out=asked.places)
            return np.where(np.isfinite(found), -found, np.nan).astype(np.float64)
        known = np.where(np.isfinite(asked.scores), asked.scores, np.nan)[:, : self.near].astype(np.float64)
        return -known if metric == "l2" else np.asarray(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * known)))

    def _duplicates(self) -> Duplicates | None:
        rows, asked = self.sample.rows, self.asked
        nearest = asked.nearest
        if self.sample.space.metric == "dot":
            found, _ = top_k(rows[asked.places], rows, 1, "l2", leave_out=asked.places)
            nearest = rows[found[:, 0]]
        return duplicates(rows[asked.places], nearest, rows.mean(axis=0, dtype=np.float64))

    def _classes(self) -> Classes | None:
        field_name = self.wishes.labels
        if field_name is None:
            return None
        self.named = labels(self.reader, self.sample, field_name)
        metric = self.sample.space.metric
        found = classes(field_name, self.named, self.points, self.found, metric, seed=self.wishes.seed)
        if found is None:
            self.notes.append(f"field {field_name!r} does not name two classes with two sampled vectors each")
        return found

    def _evalrank(self) -> EvalRank | None:
        pairs = list(self.wishes.pairs)
        if not pairs:
            return None
        if len(pairs) > _PAIRS:
            chosen = np.random.default_rng(self.wishes.seed).choice(len(pairs), _PAIRS, replace=False)
            pairs = [pairs[place] for place in np.sort(chosen).tolist()]
        space = self.sample.space
        rows, vectors = vectors_of(self.reader, space, [key for pair in pairs for key in pair])
        place = np.cumsum([row is not None for row in rows]) - 1
        whole = [two for two in range(0, len(rows), 2) if rows[two] is not None and rows[two + 1] is not None]
        if len(whole) < len(pairs):
            self.notes.append(f"{len(pairs) - len(whole):,} of {len(pairs):,} pairs have no two vectors here")
        first, second = np.array(whole, np.int64), np.array(whole, np.int64) + 1
        numbers = np.array([-1 if row is None else row for row in rows], np.int64)
        owners = np.stack([numbers[first], numbers[second]])
        background = self.sample.rows[~np.isin(self.sample.records, owners)]
        queries, partners = vectors[place[first]], vectors[place[second]]
        return evalrank(queries, partners, background, space.metric, owners=owners, seed=self.wishes.seed)

    def _drift(self) -> Drift | None:
        sample = self.sample
        made = drift(sample.rows, sample.ages, sample.vectors, sample.space.metric, seed=self.wishes.seed)
        if made is None:
            return None
        ends = [self._ends(window.first, window.stop) for window in made.windows]
        seqs = births(self.reader, sample.space, [int(sample.ordinals[each]) for two in ends for each in two])
        windows = []
        for place, window in enumerate(made.windows):
            first, last = seqs[2 * place], seqs[2 * place + 1]
            windows.append(window if first is None or last is None else replace(window, seq=(first, last)))
        return replace(made, windows=tuple(windows))

    def _ends(self, first: int, stop: int) -> tuple[int, int]:
        """Return the first and the last row of the sample in a stretch of ages; every window has some."""
        start, end = np.searchsorted(self.sample.ages, [first, stop]).tolist()
        return start, end - 1

    def _versions(self, others: Sequence[Space]) -> Iterator[Versions]:
        for other in others:
            places, vectors = shared(self.reader, self.sample, other, _SHARED, self.wishes.seed)
            metrics = self.sample.space.metric, other.metric
            k = self.wishes.k
            made = versions(other.name, self.sample.rows[places], vectors, metrics, k=k, seed=self.wishes.seed)
            if made is not None:
                yield made

    def _plane(self) -> Plane | None:
        count = len(self.points)
        places = np.arange(count)
        if count > _MAPPED:
            places = np.sort(np.random.default_rng(self.wishes.seed).choice(count, _MAPPED, replace=False))
        if self.named is not None:
            return plane(self.points[places], _named_groups(self.named, places), str(self.wishes.labels))
        return plane(self.points[places], _age_groups(self.sample, places), "age")

    def _indexes(self) -> Iterator[IndexHealth]:
        asked, k = self.asked, min(self.wishes.k, self.asked.scores.shape[1])
        truth = [found[np.isfinite(found)][:k] for found in asked.scores]
        for entry, curves in index_entries(self.reader, self.sample.space):
            answers = asked.answers.get(entry.id, [])
            known = truth and len(answers) == len(truth)
            recall = recall_of_scores(truth, answers, k, seed=self.wishes.seed) if known else None
            yield IndexHealth(entry.kind, recall, k, curves, asked.notes.get(entry.id, ""))


def _points(rows: F32, metric: Metric) -> F32:
    """Return vectors as the metric sees them: of unit length where only directions count."""
    if metric != "cosine":
        return rows
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _named_groups(named: Sequence[Any], places: Integers) -> tuple[str, ...]:
    """Return the label of each point, those beyond the most frequent as one."""
    counts: dict[str, int] = {}
    for label in named:
        if label is not None:
            counts[str(label)] = counts.get(str(label), 0) + 1
    kept = {*sorted(counts, key=lambda name: (-counts[name], name))[:_GROUPS]}
    return tuple(str(named[place]) if str(named[place]) in kept else OTHER for place in places.tolist())


def _age_groups(sample: Sample, places: Integers) -> tuple[str, ...]:
    """Return the quarter of time that each point came in."""
    names = ("oldest quarter", "second quarter", "third quarter", "newest quarter")
    return tuple(names[each] for each in (sample.ages[places] * 4 // max(1, sample.vectors)).tolist())
