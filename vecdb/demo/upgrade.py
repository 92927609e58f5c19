"""A new model arrives: what the change is worth, a bridge, a migration half way and all the way, and back again.

The old model of the sample is the small static one. Answers are known, so every stage is measured on the same
questions; at the end every answer of the old model must be what it was, to the last bit.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import vecdb
from vecdb.demo.facts import Stage, Upgrade
from vecdb.sample import Matrix, Sample

__all__ = ["COLLECTION", "upgrade"]

COLLECTION = "upgrade"
"""Collection whose model changes; the others stay as they are."""
OLD, NEW = "wl256", "mini6"
_PAIRS = 600
"""Packages that both models have embedded: none of them answers a question."""
_K = 10


def upgrade(db: vecdb.Database, data: Sample) -> Upgrade:
    """Change the model of a collection, and change it back."""
    began = time.perf_counter()
    docs, ids, vectors = _old_collection(db, data)
    place = {id: row for row, id in enumerate(ids)}
    plan = _plan(docs, data, vectors, place)
    stages = [_stage("old model", docs, data, OLD)]
    before = _bits(docs, data)
    pairs = list(range(0, len(data.documents), max(1, len(data.documents) // _PAIRS)))
    docs.fit_transform(NEW, OLD, "procrustes", pairs=(vectors[NEW][pairs], vectors[OLD][pairs]))
    stages.append(_stage("new model, bridged", docs, data, NEW))

    def embed(records: list[vecdb.Record]) -> Matrix:
        return np.asarray(vectors[NEW][[place[str(record.id)] for record in records]], np.float32)

    migration = docs.migrate(OLD, NEW, embed, batch=128, canary=0.05, inputs="records")
    half = migration.run(len(ids) // 2)
    stages.append(_stage("new model, half embedded", docs, data, NEW))
    whole = migration.run()
    stages.append(_stage("new model, all embedded", docs, data, NEW))
    exact = _as_numpy_says(docs, data, vectors[NEW], ids)
    back = migration.rollback()
    return Upgrade(
        old=OLD,
        new=NEW,
        records=len(ids),
        decision=str(plan.decision),
        stages=tuple(stages),
        promised=float(half.measured.get("promised", 0.0)),
        found=float(half.measured.get("found", 0.0)),
        state=whole.state,
        rate=whole.rate,
        exact=exact,
        same=_bits(docs, data) == before and back.state == "rolled back",
        problems=tuple(db.check().problems),
        seconds=time.perf_counter() - began,
    )


def _old_collection(db: vecdb.Database, data: Sample) -> tuple[vecdb.Collection, tuple[str, ...], dict[str, Matrix]]:
    """Make a collection as the old model left it, with an empty space for the new one."""
    documents, texts = data.documents, data.texts
    ids = documents.ids + texts.ids
    vectors = {name: np.concatenate([documents.vectors[name], texts.vectors[name]]) for name in (OLD, NEW)}
    docs = db.create_collection(COLLECTION)
    for name in (OLD, NEW):
        model = data.models[name]
        docs.add_space(name, dim=model.dim, metric="cosine", model=model.model, revision=model.version)
    docs.upsert(ids, {OLD: vectors[OLD]}, texts=(None,) * len(documents) + texts.texts)
    return docs, ids, vectors


def _plan(docs: vecdb.Collection, data: Sample, vectors: dict[str, Matrix], place: dict[str, int]) -> Any:
    """Ask what the change is worth: with some packages and all answers embedded by both models."""
    answers = {answer for relevant in data.queries.relevant for answer in relevant}
    known = [*data.documents.ids[:_PAIRS], *sorted(answers)]
    queries = vecdb.QuerySet(
        old=data.queries.vectors[OLD],
        new=data.queries.vectors[NEW],
        relevant=[list(relevant) for relevant in data.queries.relevant],
    )
    rows = vectors[NEW][[place[id] for id in known]]
    return docs.plan_upgrade(OLD, NEW, pairs=(known, rows), queries=queries, kinds=["procrustes"], splits=3)


def _stage(label: str, docs: vecdb.Collection, data: Sample, space: str) -> Stage:
    """Ask every question in one space over whatever is embedded."""
    found = docs.search(data.queries.vectors[space], k=_K, space=space, include=())
    right = list(zip(found, data.queries.relevant, strict=True))
    origins = [hit.origin for hits in found for hit in hits]
    return Stage(
        label,
        first=sum(hits.ids[0] in relevant for hits, relevant in right),
        in_ten=sum(not set(hits.ids).isdisjoint(relevant) for hits, relevant in right),
        questions=len(right),
        native=sum(origin == "native" for origin in origins) / len(origins),
    )


def _bits(docs: vecdb.Collection, data: Sample) -> tuple[Any, ...]:
    """Return the old model's answers, to the last bit."""
    found = docs.search(data.queries.vectors[OLD], k=_K, space=OLD, spaces="native", include=())
    return tuple((tuple(hits.ids), hits.scores.tobytes()) for hits in found)


def _as_numpy_says(docs: vecdb.Collection, data: Sample, rows: Matrix, ids: tuple[str, ...]) -> bool:
    """Whether the best score of each question is that of a plain product over all new vectors."""
    found = docs.search(data.queries.vectors[NEW], k=1, space=NEW, include=())
    table = data.queries.vectors[NEW].astype(np.float64) @ rows.astype(np.float64).T
    scores = np.array([float(hits.scores[0]) for hits in found])
    return bool(np.abs(scores - table.max(axis=1)).max() < 1e-5) and len(docs) == len(ids)
