"""Measuring one space: draw a sample, find true neighbours, and hand both to the measures.

Invariant: time and memory are bounded by the sizes asked for, not by the collection; the same commit and seed give the
same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.checkup.asking import Asked, ask, index_entries
from vecdb.engine.checkup.sample import Reader, Sample, draw
from vecdb.evaluation.health.dimension import LEAST_ROWS, dimension
from vecdb.evaluation.health.hubs import hubness
from vecdb.evaluation.health.isotropy import cosines, isotropy
from vecdb.evaluation.health.recall import recall_of_scores
from vecdb.evaluation.ranking import top_k
from vecdb.health.values import IndexHealth, SpaceHealth
from vecdb.registry import PluginRegistry
from vecdb.types import Metric, Space

__all__ = ["Wishes", "examine"]

F32 = npt.NDArray[np.float32]

_NEIGHBOURS: Final = 100
"""Neighbours over which the local dimension is estimated, but never more than a tenth of the vectors."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller asked for, checked.

    Attributes
    ----------
    sample, queries, k, seed : int
    """

    sample: int
    queries: int
    k: int
    seed: int


def examine(reader: Reader, collection: str, space: Space, wishes: Wishes, registry: PluginRegistry) -> SpaceHealth:
    """Return the health of one space."""
    sample = draw(reader, space, wishes.sample, wishes.seed)
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
    points = _points(sample.rows, space.metric)
    found, _ = top_k(points, points, wishes.k, space.metric, leave_out=np.arange(len(points)))
    made = SpaceHealth(
        collection=collection,
        space=space.name,
        model=space.model,
        metric=space.metric,
        dtype=space.dtype,
        dim=space.dim,
        seq=reader.seq,
        vectors=sample.vectors,
        sampled=len(sample),
        asked=len(asked.places),
        seed=wishes.seed,
        isotropy=isotropy(points, seed=wishes.seed),
        cosines=cosines(sample.rows) if len(sample) > 1 else None,
        dimension=dimension(_distances(sample, asked, near), seed=wishes.seed),
        hubness=hubness(found, len(points), itself=True, seed=wishes.seed),
        indexes=_indexes(reader, space, asked, wishes),
        notes=tuple(_notes(sample, asked)),
    )
    return made


def _points(rows: F32, metric: Metric) -> F32:
    """Return vectors as the metric sees them: of unit length where only directions count."""
    if metric != "cosine":
        return rows
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _distances(sample: Sample, asked: Asked, near: int) -> npt.NDArray[np.float64]:
    """Return Euclidean distances to the nearest vectors, shape (q, near); of unit vectors in spaces of directions.

    The largest inner products are not the nearest vectors, so in a space of inner products neighbours are those within
    the sample.
    """
    if sample.space.metric == "dot":
        rows = sample.rows
        _, scores = top_k(rows[asked.places], rows, near, "l2", leave_out=asked.places)
        return np.where(np.isfinite(scores), -scores, np.nan).astype(np.float64)
    known = np.where(np.isfinite(asked.scores[:, :near]), asked.scores[:, :near], np.nan).astype(np.float64)
    return -known if sample.space.metric == "l2" else np.asarray(np.sqrt(np.maximum(0.0, 2.0 - 2.0 * known)))


def _indexes(reader: Reader, space: Space, asked: Asked, wishes: Wishes) -> tuple[IndexHealth, ...]:
    k = min(wishes.k, asked.scores.shape[1])
    truth = [scores[np.isfinite(scores)][:k] for scores in asked.scores]
    made = []
    for entry, curves in index_entries(reader, space):
        answers = asked.answers.get(entry.id)
        whole = answers is not None and len(answers) == len(truth)
        recall = recall_of_scores(truth, answers, k, seed=wishes.seed) if whole and answers else None
        made.append(IndexHealth(entry.kind, recall, k, curves, asked.notes.get(entry.id, "")))
    return tuple(made)


def _notes(sample: Sample, asked: Asked) -> list[str]:
    notes = []
    if len(sample) < LEAST_ROWS:
        notes.append(f"{len(sample)} vectors are too few for most measures")
    if len(sample) < sample.vectors:
        notes.append(f"measured on {len(sample):,} of {sample.vectors:,} vectors, drawn at random")
    if sample.space.metric == "dot":
        notes.append(
            "the local dimension is that of the sample: the largest inner products are not the nearest vectors"
        )
    return notes
