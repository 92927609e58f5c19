"""Two stages: bridged candidates, ranked by native vectors that are stored or made for the occasion.

The candidates are read at one commit; texts are embedded after the snapshot is closed, because an encoder may take its
time. A candidate that cannot be embedded (no text) keeps its calibrated score. Native scores come from the canonical
routine, so that a record that is embedded here scores as it will once its vector is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.engine.bridge.answer import Bridged, Merged
from vecdb.engine.bridge.columns import Ranked, columns_of
from vecdb.engine.names import check_count, check_option
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import ParameterError
from vecdb.scan_numpy import canonical_scores
from vecdb.types import HitColumns, Hits, Id, Plan, Space

F32 = npt.NDArray[np.float32]
Encoder = Callable[[list[str]], Any]

CANDIDATES: Final = 100
"""How many candidates the first stage hands on if nothing else is said."""
BATCH: Final = 256
"""Texts that an encoder is given at once."""
ENCODED: Final = "encoded"
"""Origin of a hit whose native vector was made in the second stage."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """How the second stage is done: so many candidates, embedded by this, their vectors stored or not."""

    encode: Encoder | None
    candidates: int = CANDIDATES
    writeback: bool = False


def rerank_wishes(
    rerank: str | None,
    encode: Encoder | None,
    candidates: int | None,
    writeback: bool,
    writable: Callable[[], object],
) -> Rerank | None:
    """Return what was wished for, checked; None: one stage.

    Raises
    ------
    ParameterError
    ReadOnlyError
        Nothing can be written back; `writable` says so.
    """
    if rerank is None:
        if encode is not None or candidates is not None or writeback:
            raise ParameterError(
                "encode, candidates and writeback belong to rerank='native'", name="rerank", got=None, allowed="native"
            )
        return None
    check_option("rerank", rerank, ("native",))
    if encode is not None and not callable(encode):
        raise ParameterError("encode is not callable", name="encode", got=repr(encode), allowed="list[str] -> array")
    count = CANDIDATES if candidates is None else check_count("candidates", candidates, 1)
    if writeback:
        writable()
    return Rerank(encode, count, bool(writeback))


@dataclass(frozen=True, slots=True)
class Made:
    """Vectors that were made for records: their ids, the versions that were read, and a row for each."""

    ids: list[Id]
    versions: list[int]
    vectors: F32


@dataclass(slots=True)
class Candidates:
    """What the first stage found, read out of the snapshot.

    Attributes
    ----------
    space : Space
        Whose vectors decide.
    request : SearchRequest
    ranked : list of Ranked
    columns : list of HitColumns
    vectors : dict of int to ndarray
        Native vectors that are stored, by record row; native hits have their scores already.
    texts : dict of int to (id, version, text)
        Of the records that have none.
    merged : Merged
    seq : int
    """

    space: Space
    request: SearchRequest
    ranked: list[Ranked]
    columns: list[HitColumns]
    vectors: dict[int, F32]
    texts: dict[int, tuple[Id, int, str | None]]
    merged: Merged
    seq: int


def candidates_of(view: CollectionView, asked: Bridged, merged: Merged) -> Candidates:
    """Return the first stage's list with all that the second needs of the snapshot."""
    request, space = asked.request, asked.request.space
    vectors: dict[int, F32] = {}
    texts: dict[int, tuple[Id, int, str | None]] = {}
    for ranked in merged.ranked:
        for row, each in zip(ranked.rows, ranked.classes, strict=True):
            if row in vectors or row in texts or _is_native(each.space, each.direct, space):
                continue
            record = view.record(row)
            vector = view.vector(record, space)
            if vector is not None:
                vectors[row] = np.array(as_float32(vector[None])[0], np.float32)
            else:
                texts[row] = (record.id, record.version, record.content()[1])
    columns = columns_of(view, request, merged.ranked)
    return Candidates(space, request, merged.ranked, columns, vectors, texts, merged, view.seq)


def _is_native(stored: Space, direct: bool, space: Space) -> bool:
    return direct and stored.id == space.id


def encode_missing(found: Candidates, encode: Encoder | None) -> Made:
    """Return native vectors of the candidates that have a text and no vector.

    Raises
    ------
    ParameterError
        There is no encoder, or it returned another number of vectors.
    DimensionError, NonFiniteError, ZeroVectorError, DTypeError
        What it returned are no vectors of the space.
    """
    space = found.space
    wanted = [(row, *found.texts[row]) for row in sorted(found.texts) if found.texts[row][2]]
    if wanted and encode is None:
        raise ParameterError(
            f"rerank='native' needs an encoder of space {space.name!r}: {len(wanted)} candidates have no vector in it",
            hint="Pass encode=, or give one with set_encoder(space, function).",
            name="encode",
            got=None,
            allowed="list[str] -> array",
        )
    vectors = np.empty((len(wanted), space.dim), np.float32)
    for start in range(0, len(wanted), BATCH):
        texts = [str(text) for _, _, _, text in wanted[start : start + BATCH]]
        vectors[start : start + len(texts)] = _encoded(encode, texts, space)
    for place, (row, *_) in enumerate(wanted):
        found.vectors[row] = vectors[place]
    return Made([id for _, id, _, _ in wanted], [version for _, _, version, _ in wanted], vectors)


def _encoded(encode: Encoder | None, texts: list[str], space: Space) -> F32:
    where = f"output of the encoder of space {space.name!r}"
    made: F32 = as_matrix(encode(texts) if encode else [], space.dim, metric=space.metric, where=where)
    if len(made) != len(texts):
        raise ParameterError(
            f"the encoder of space {space.name!r} returned {len(made)} vectors for {len(texts)} texts",
            name="encode",
            got=len(made),
            allowed=len(texts),
        )
    return made


def ranked_again(
    found: Candidates, made: Made, warnings: Sequence[Callable[[], tuple[str, ...]]], wanted: tuple[int, int]
) -> list[Hits]:
    """Return the hits of each query, best native score first.

    Parameters
    ----------
    wanted : tuple of int
        Offset, and the first place that is not shown.
    """
    request, plan = found.request, _plan(found, made)
    hits = []
    for place, (query, ranked, columns) in enumerate(zip(request.queries, found.ranked, found.columns, strict=True)):
        scores, again = _native_scores(found, query, ranked)
        order = np.lexsort((np.array(ranked.rows, np.int64), -ranked.raws, -scores))
        if request.min_score is not None:
            order = order[scores[order] >= np.float32(request.min_score)]
        shown = _picked(columns, order[wanted[0] : wanted[1]], scores, again, found.space.name)
        reason = found.merged.reason
        hits.append(
            Hits(shown, seq=found.seq, complete=reason is None, reason=reason, plan=plan, warnings=warnings[place])
        )
    return hits


def _native_scores(found: Candidates, query: F32, ranked: Ranked) -> tuple[F32, list[bool]]:
    """Return the scores to rank by, and which of them come from vectors that the first stage did not compare."""
    scores = ranked.scores.copy()
    again = [row in found.vectors for row in ranked.rows]
    places = np.flatnonzero(again)
    if len(places):
        rows = np.stack([found.vectors[ranked.rows[place]] for place in places.tolist()])
        scores[places] = canonical_scores(found.space.metric, query, rows).astype(np.float32)
    return scores, again


def _picked(
    columns: HitColumns, order: npt.NDArray[np.intp], scores: F32, again: Sequence[bool], space: str
) -> HitColumns:
    places = order.tolist()
    marks = columns.marks or [(columns.space, columns.origin)] * len(columns.ids)
    raws = columns.scores if columns.raws is None else columns.raws

    def some(values: Any) -> Any:
        return None if values is None else [values[place] for place in places]

    return columns._replace(
        ids=some(columns.ids),
        scores=scores[order],
        metadata=some(columns.metadata),
        texts=some(columns.texts),
        vectors=some(columns.vectors),
        marks=[(space, ENCODED) if again[place] else marks[place] for place in places],
        raws=raws[order],
    )


def _plan(found: Candidates, made: Made) -> Plan | None:
    if found.merged.plan is None:
        return None
    kept = sum(1 for _, _, text in found.texts.values() if not text)
    facts: Mapping[str, Any] = {
        "rerank": "native",
        "candidates": max((len(ranked.rows) for ranked in found.ranked), default=0),
        "encoded": len(made.ids),
        **({"without_text": kept} if kept else {}),
    }
    return Plan({**found.merged.plan, **facts})
