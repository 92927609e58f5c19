"""Hits picked from more candidates: their columns cut, and filled with what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.explored import Group
from vecdb.storage.format import StoredRecord
from vecdb.storage.idkeys import id_key
from vecdb.types import HitColumns, Hits, Id, Plan

Ask = Callable[[SearchRequest], list[Hits]]
"""Answers a request: native or bridged, exactly or by an index, as the search was asked for."""


def lean(request: SearchRequest, k: int) -> SearchRequest:
    """Return a request for the best k candidates without what they hold."""
    return request._replace(k=k, offset=0, include=frozenset())


def rows_of(view: CollectionView, ids: Sequence[Id]) -> npt.NDArray[np.int64]:
    """Return the record rows of hits."""
    return np.array([view.find(id_key(id)) for id in ids], np.int64)


def joined(parts: Sequence[HitColumns]) -> HitColumns:
    """Return the columns of several lists of one search, one behind the other."""
    first = parts[0]
    marks = [mark for part in parts for mark in part.marks or [(part.space, part.origin)] * len(part.ids)]
    raws = [part.scores if part.raws is None else part.raws for part in parts]
    measured = [part.scores if part.measured is None else part.measured for part in parts]
    return first._replace(
        ids=[id for part in parts for id in part.ids],
        scores=np.concatenate([part.scores for part in parts]),
        marks=marks,
        raws=np.concatenate(raws),
        measured=None if first.measured is None else np.concatenate(measured),
    )


def filled(view: CollectionView, request: SearchRequest, columns: HitColumns) -> HitColumns:
    """Return the columns with what was asked for of each record; no two hits share a value."""
    include = request.include
    if not include:
        return columns
    records = [view.record(row) for row in rows_of(view, columns.ids).tolist()]
    contents = [record.content() for record in records] if include & {"metadata", "text"} else []
    return columns._replace(
        metadata=[metadata for metadata, _ in contents] if "metadata" in include else None,
        texts=[text for _, text in contents] if "text" in include else None,
        vectors=_vectors(view, columns, records) if "vectors" in include else None,
    )


def _vectors(view: CollectionView, columns: HitColumns, records: Sequence[StoredRecord]) -> list[Any]:
    marks = columns.marks or [(columns.space, columns.origin)] * len(records)
    spaces = [view.entry.spaces[name] for name, _ in marks]
    found = [view.vector(record, space) for record, space in zip(records, spaces, strict=True)]
    return [{} if vector is None else {space.name: vector} for space, vector in zip(spaces, found, strict=True)]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What became of the candidates of one query, and what the plan says of it."""

    columns: HitColumns
    facts: dict[str, Any]
    groups: tuple[Group, ...] | None = None
    reason: str | None = None


def as_hits(view: CollectionView, request: SearchRequest, candidates: Hits, chosen: Chosen) -> Hits:
    """Return the hits of one query, whose candidates say all the rest."""
    plan = None if candidates.plan is None else Plan({**candidates.plan, **chosen.facts})
    reason = candidates.reason if chosen.reason is None else chosen.reason
    hits = Hits(
        filled(view, request, chosen.columns),
        seq=candidates.seq,
        complete=reason is None,
        reason=reason,
        plan=plan,
        warnings=lambda: candidates.warnings,
    )
    hits.groups = chosen.groups
    return hits


def within(hits: Hits, limit: int) -> Hits:
    """Return the best `limit` of hits that are one more, if there are more."""
    if len(hits) <= limit:
        return hits
    reason = f"more than {limit} records score enough"
    best = hits.columns.take(range(limit))
    return Hits(best, seq=hits.seq, complete=False, reason=reason, plan=hits.plan, warnings=lambda: hits.warnings)
