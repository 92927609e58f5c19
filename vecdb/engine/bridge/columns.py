"""Ranked records of several classes as the hits that an application sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.engine.bridge.classes import VectorClass
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.types import HitColumns


class Ranked(NamedTuple):
    """The answer to one query, best first.

    Attributes
    ----------
    rows : list of int
        Record rows.
    scores, raws : ndarray of float32, shape (k,)
        Calibrated, and as the class scored them.
    classes : list of VectorClass
        Whose vector answered.
    """

    rows: list[int]
    scores: npt.NDArray[np.float32]
    raws: npt.NDArray[np.float32]
    classes: list[VectorClass]


def columns_of(view: CollectionView, request: SearchRequest, ranked: Sequence[Ranked]) -> list[HitColumns]:
    """Return the hits of each query; a record that answers several is looked up once."""
    wanted = {row for each in ranked for row in each.rows}
    stored = {row: view.record(row) for row in wanted} if request.include else {}
    ids = {row: record.id for row, record in stored.items()} if request.include else view.ids(wanted)
    nearest = 1.0 if request.space.metric == "cosine" else 0.0
    return [
        HitColumns(
            [ids[row] for row in each.rows],
            each.scores,
            nearest,
            request.space.name,
            **_contents(view, request, stored, each),
            marks=[(one.space.name, one.origin) for one in each.classes],
            raws=each.raws,
            measured=None if request.correction is None else each.raws,
        )
        for each in ranked
    ]


def _contents(view: CollectionView, request: SearchRequest, stored: dict[int, Any], ranked: Ranked) -> dict[str, Any]:
    """Return the columns that were asked for; no two hits share a value."""
    include, records = request.include, [stored[row] for row in ranked.rows] if request.include else []
    columns: dict[str, Any] = {}
    if include & {"metadata", "text"}:
        contents = [record.content() for record in records]
        columns["metadata"] = [metadata for metadata, _ in contents] if "metadata" in include else None
        columns["texts"] = [text for _, text in contents] if "text" in include else None
    if "vectors" in include:
        found = [view.vector(record, one.space) for record, one in zip(records, ranked.classes, strict=True)]
        named = zip(found, ranked.classes, strict=True)
        columns["vectors"] = [{} if vector is None else {one.space.name: vector} for vector, one in named]
    return columns
