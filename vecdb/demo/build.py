"""Fill the database with the sample, search it, delete from it. Every answer is held against plain numpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from vecdb.demo.facts import Answer, Built, Quality, Travel
from vecdb.sample import Matrix, Sample

__all__ = ["JOURNAL", "LIBRARY", "add_spaces", "answers", "fill", "qualities", "travel"]

LIBRARY = "library"
"""Collection of everything in the sample."""
JOURNAL = "journal"
"""Collection that the writer of `vecdb.demo.crash` fills until it is killed."""
TAG = "before-the-clear-out"
_BATCH = 300
_TOLERANCE = 1e-5
"""float32 vectors against a float64 product; a wrong neighbour differs by far more."""

Keep = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class _Question:
    """A query of the sample, the space to ask in, and a condition twice: for vecdb and, independently, for numpy."""

    query: str
    space: str
    where: Mapping[str, Any] | None
    keep: Keep


def _everything(metadata: Mapping[str, Any]) -> bool:
    return True


_QUESTIONS = (
    _Question("query-19", "mini6", None, _everything),
    _Question("query-19", "wl256", None, _everything),
    _Question("query-11", "mini6", None, _everything),
    _Question("query-11", "mini6", {"section": "games"}, lambda m: m.get("section") == "games"),
    _Question(
        "query-11",
        "mini6",
        {"section": "games", "installed_kb": {"$lt": 400}, "tags": {"$contains": "uitoolkit::sdl"}},
        lambda m: m.get("section") == "games" and m["installed_kb"] < 400 and "uitoolkit::sdl" in m["tags"],
    ),
    _Question(
        "query-08",
        "mini6",
        {"$or": [{"section": {"$in": ["mail", "net"]}}, {"topic": "security"}]},
        lambda m: m.get("section") in ("mail", "net") or m.get("topic") == "security",
    ),
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Documents, then texts, as aligned columns."""

    ids: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]
    texts: tuple[str | None, ...]
    vectors: dict[str, Matrix]


def _rows(data: Sample) -> _Rows:
    documents, texts = data.documents, data.texts
    return _Rows(
        ids=documents.ids + texts.ids,
        metadata=documents.metadata + texts.metadata,
        texts=(None,) * len(documents) + texts.texts,
        vectors={name: np.concatenate([documents.vectors[name], texts.vectors[name]]) for name in data.models},
    )


# --- filling ----------------------------------------------------------------------------------------------


def add_spaces(collection: vecdb.Collection, data: Sample) -> None:
    """Give the collection one space for each model of the sample."""
    for name, model in data.models.items():
        collection.add_space(name, dim=model.dim, metric="cosine", model=model.model, revision=model.version)


def fill(path: Path, data: Sample) -> Built:
    """Create the file and put the sample in, one commit a batch."""
    began = time.perf_counter()
    with vecdb.open(path, mode="x") as db:
        library = db.create_collection(LIBRARY)
        add_spaces(library, data)
        add_spaces(db.create_collection(JOURNAL), data)
        before = db.seq
        library.upsert_many(_batches(_rows(data)))
        seconds = time.perf_counter() - began
        spaces = {name: space.dim for name, space in library.spaces.items()}
        return Built(len(library), spaces, db.seq - before, seconds, path.stat().st_size)


def _batches(rows: _Rows) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows.ids), _BATCH):
        part = slice(start, start + _BATCH)
        yield {
            "ids": rows.ids[part],
            "vectors": {name: vectors[part] for name, vectors in rows.vectors.items()},
            "metadata": rows.metadata[part],
            "texts": rows.texts[part],
        }


# --- searching --------------------------------------------------------------------------------------------


def answers(db: vecdb.Database, data: Sample, k: int = 3) -> tuple[Answer, ...]:
    """Ask some questions of the sample, with and without ``where``."""
    library, rows = db.collection(LIBRARY), _rows(data)
    return tuple(_answer(library, data, rows, question, k) for question in _QUESTIONS)


def _answer(library: vecdb.Collection, data: Sample, rows: _Rows, question: _Question, k: int) -> Answer:
    row = data.queries.ids.index(question.query)
    vector = data.queries.vectors[question.space][row]
    began = time.perf_counter()
    hits = library.search(vector, k=k, space=question.space, where=question.where, exact=True)
    milliseconds = (time.perf_counter() - began) * 1e3
    allowed = np.array([question.keep(metadata) for metadata in rows.metadata])
    matches = library.count(question.where)
    return Answer(
        query=data.queries.texts[row],
        space=question.space,
        where=question.where,
        matches=matches,
        ids=tuple(str(name) for name in hits.ids),
        scores=tuple(float(score) for score in hits.scores),
        labels=tuple(_label(hit) for hit in hits),
        milliseconds=milliseconds,
        exact=matches == int(allowed.sum()) and _as_numpy_says(hits, rows, question.space, vector, allowed, k),
    )


def _label(hit: vecdb.Hit) -> str:
    if hit.text:
        return hit.text
    facts = hit.metadata or {}
    return f"package {hit.id} ({facts['section']}, {facts['installed_kb']:,} kB)"


def _as_numpy_says(
    hits: vecdb.Hits,
    rows: _Rows,
    space: str,
    vector: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.bool_],
    k: int,
) -> bool:
    """Whether the hits have the k best scores, and each hit its own score; so equal scores may change places."""
    scores = rows.vectors[space].astype(np.float64) @ vector.astype(np.float64)
    best = np.sort(scores[allowed])[::-1][:k]
    places = [rows.ids.index(str(name)) for name in hits.ids]
    return (
        len(places) == len(set(places)) == len(best)
        and bool(allowed[places].all())
        and bool(np.abs(hits.scores - best).max(initial=0) < _TOLERANCE)
        and bool(np.abs(hits.scores - scores[places]).max(initial=0) < _TOLERANCE)
    )


def qualities(db: vecdb.Database, data: Sample, k: int = 10) -> tuple[Quality, ...]:
    """Ask every question of the sample in every space, as one batch a space."""
    library, rows = db.collection(LIBRARY), _rows(data)
    return tuple(_quality(library, data, rows, space, k) for space in data.models)


def _quality(library: vecdb.Collection, data: Sample, rows: _Rows, space: str, k: int) -> Quality:
    queries, everything = data.queries, np.ones(len(rows.ids), dtype=bool)
    began = time.perf_counter()
    batch = library.search(queries.vectors[space], k=k, space=space, exact=True, include=())
    milliseconds = (time.perf_counter() - began) * 1e3
    right = list(zip(batch.ids, queries.relevant, strict=True))
    agreed = (
        _as_numpy_says(hits, rows, space, vector, everything, k)
        for hits, vector in zip(batch, queries.vectors[space], strict=True)
    )
    return Quality(
        space=space,
        queries=len(queries),
        first=sum(ids[0] in relevant for ids, relevant in right),
        in_ten=sum(not set(ids).isdisjoint(relevant) for ids, relevant in right),
        exact=sum(agreed),
        milliseconds=milliseconds,
    )


# --- the past ---------------------------------------------------------------------------------------------


def travel(db: vecdb.Database, data: Sample, query: str = "query-11", space: str = "mini6") -> Travel:
    """Delete what answers the query best, and ask again: now, and as of the tag."""
    library = db.collection(LIBRARY)
    row = data.queries.ids.index(query)
    vector = data.queries.vectors[space][row]
    where: dict[str, Any] = {"$or": [{"topic": "games"}, {"section": "games"}]}
    before, count = library.search(vector, k=10, space=space), len(library)
    seq = db.tag(TAG)
    deleted = library.delete(where=where).deleted
    now = library.search(vector, k=10, space=space)
    then = library.search(vector, k=10, space=space, as_of=TAG)
    same = then.ids == before.ids and np.array_equal(then.scores.view(np.uint32), before.scores.view(np.uint32))
    return Travel(
        tag=TAG,
        seq=seq,
        deleted=deleted,
        records_then=library.count(as_of=TAG),
        records_now=len(library),
        first_then=_label(then[0]),
        first_now=_label(now[0]),
        query=data.queries.texts[row],
        where=where,
        same=same and library.count(as_of=TAG) == count,
    )
