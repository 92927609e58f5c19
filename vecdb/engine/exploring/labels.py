"""Labels of a metadata field spread over the nearest neighbours of one state of a space."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.engine import search
from vecdb.engine.exploring.fields import Field, field_of, key_of
from vecdb.engine.exploring.propagation import affinity, decide, propagate
from vecdb.engine.exploring.votes import brier, share
from vecdb.engine.search import Allowed, SearchRequest
from vecdb.engine.view import CollectionView, Selection
from vecdb.engine.views import as_float32
from vecdb.engine.where.condition import value_at
from vecdb.errors import CancelledError, ParameterError
from vecdb.explored import ClassifierQuality, LabelProposal, LabelProposals, Prediction, Share
from vecdb.registry import PluginRegistry
from vecdb.storage.columns import MISSING
from vecdb.types import CancelCheck, Id, Progress, Space

if TYPE_CHECKING:
    from vecdb.engine.where import Condition

Places = npt.NDArray[np.int64]

MOST_LABELS: Final = 10_000
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class Rule:
    """How labels spread; see `Collection.propagate_labels`."""

    field: str
    k: int
    alpha: float
    least: float
    holdout: float
    seed: int
    exact: bool
    recall: float | None
    threads: int
    progress: Progress | None = None
    cancel: CancelCheck | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """What came of it: the proposals, and what writing them needs of their records."""

    proposals: LabelProposals
    versions: list[int]
    changes: list[dict[str, Any]]


def spread(
    view: CollectionView, space: Space, selection: Selection | None, rule: Rule, registry: Callable[[], PluginRegistry]
) -> Spread:
    """Return proposals for the records that have a vector in `space` and no label."""
    space_view = view.space(space)
    allowed = _allowed(view, space, selection)
    places = np.arange(len(space_view)) if allowed.mask is None else np.flatnonzero(allowed.mask)
    rows = space_view.rows_at(view.tx, places.astype(np.int64)).astype(np.int64)
    known = field_of(view, rule.field)
    labels, values = _labels(known, rows, rule.field)
    neighbours, scores = neighbours_of(view, space, allowed, places, rule, registry)
    graph = affinity(neighbours, scores)
    accuracy = None
    if rule.holdout:
        accuracy = _held_out(labels, rule, lambda kept: decide(propagate(graph, kept, len(values), rule.alpha))[0])
    found, confidence = decide(propagate(graph, labels, len(values), rule.alpha))
    open_ = labels < 0
    chosen = np.flatnonzero(open_ & (found >= 0) & (confidence >= rule.least))
    ids = view.ids(rows[chosen].tolist())
    proposals = tuple(
        LabelProposal(ids[row], values[label], share_)
        for row, label, share_ in zip(
            rows[chosen].tolist(), found[chosen].tolist(), confidence[chosen].tolist(), strict=True
        )
    )
    labelled, missed = int((~open_).sum()), int(open_.sum()) - len(chosen)
    made = LabelProposals(rule.field, proposals, labelled, missed, accuracy, view.seq)
    records = [view.record(row) for row in rows[chosen].tolist()]
    changes = [
        change(record.content()[0], rule.field, each.label) for record, each in zip(records, proposals, strict=True)
    ]
    return Spread(made, [record.version for record in records], changes)


def _allowed(view: CollectionView, space: Space, selection: Selection | None) -> Allowed:
    space_view = view.space(space)
    alive = search.alive(view, space_view)
    if selection is None:
        return alive
    mask = search.positions_with(view, space_view, selection.rows)
    mask = mask if alive.mask is None else mask & alive.mask
    return Allowed(mask, int(np.count_nonzero(mask)))


def _labels(known: Field, rows: Places, path: str) -> tuple[Places, list[Any]]:
    """Return the label of each row, -1 where there is none, and their values, in the order of the rows."""
    numbers = known.numbers[rows]
    used = list(dict.fromkeys(numbers[numbers > 0].tolist()))
    if len(used) > MOST_LABELS:
        raise ParameterError(
            f"field {path!r} has {len(used)} values, expected at most {MOST_LABELS} labels", name="field", got=path
        )
    table = np.full(len(known.values), -1, np.int64)
    table[used] = np.arange(len(used))
    return table[numbers], [check_label(known.values[number], path) for number in used]


def check_label(value: Any, path: str) -> Any:
    """Return a value that may be a label: a scalar."""
    if isinstance(value, (list, dict)):
        raise ParameterError(
            f"field {path!r} holds a {type(value).__name__}, expected one value a record",
            hint="Labels are str, numbers or bools.",
            name="field",
            got=path,
            allowed="field of scalars",
        )
    return value


def neighbours_of(
    view: CollectionView,
    space: Space,
    allowed: Allowed,
    places: Places,
    rule: Rule,
    registry: Callable[[], PluginRegistry],
) -> tuple[Places, npt.NDArray[np.float64]]:
    """Return the k nearest of each vector among the others, as numbers of rows of `places`, and their scores.

    Returns
    -------
    neighbours : ndarray of int64, shape (n, k)
        -1 where there are fewer.
    scores : ndarray of float64, shape (n, k)
    """
    space_view = view.space(space)
    numbers = np.full(len(space_view), -1, np.int64)
    numbers[places] = np.arange(len(places))
    neighbours, scores = np.full((len(places), rule.k), -1, np.int64), np.zeros((len(places), rule.k))
    for start in range(0, len(places), _CHUNK):
        if rule.cancel is not None and rule.cancel():
            raise CancelledError("spreading labels was cancelled")
        part = places[start : start + _CHUNK]
        queries = as_float32(space_view.gather(view.tx, part))
        request = SearchRequest(space, queries, rule.k + 1, exact=rule.exact, recall=rule.recall, threads=rule.threads)
        found, _, _ = search.find(view, space_view, request, allowed, rule.k + 1, registry)
        for row, (own, (positions, value)) in enumerate(zip(part.tolist(), found, strict=True), start):
            others = np.flatnonzero(positions != own)[: rule.k]
            neighbours[row, : len(others)] = numbers[positions[others]]
            scores[row, : len(others)] = value[others]
        if rule.progress is not None:
            rule.progress(min(len(places), start + _CHUNK), len(places))
    return neighbours, scores


def _held_out(labels: Places, rule: Rule, decided: Callable[[Places], Places]) -> Share:
    """Hide some labels and see which come back."""
    known = np.flatnonzero(labels >= 0)
    count = round(rule.holdout * len(known))
    if not count:
        return share(0, 0)
    hidden = np.random.default_rng(rule.seed).choice(known, count, replace=False)
    kept = labels.copy()
    kept[hidden] = -1
    return share(int((decided(kept)[hidden] == labels[hidden]).sum()), count)


def change(metadata: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the top-level key of a record's metadata that a value at a path changes."""
    first, *rest = path.split(".")
    if not rest:
        return {first: value}
    inner = metadata.get(first)
    return {first: {**(inner if isinstance(inner, Mapping) else {}), **_nested(inner, rest, value)}}


def _nested(inner: Any, rest: list[str], value: Any) -> dict[str, Any]:
    return change(inner if isinstance(inner, Mapping) else {}, ".".join(rest), value)


def value_of(metadata: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None where there is none."""
    value = value_at(metadata, tuple(path.split(".")))
    return None if value is MISSING else value


def sample_of(
    view: CollectionView, space: Space, condition: Condition | None, path: str, apart: str | None, most: int, seed: int
) -> list[tuple[Id, Any, Any]]:
    """Return some of the labelled records with a vector in `space`: id, label, and the value of another field."""
    space_view = view.space(space)
    allowed = _allowed(view, space, None if condition is None else view.select(condition))
    places = np.arange(len(space_view)) if allowed.mask is None else np.flatnonzero(allowed.mask)
    if len(places) > most:
        places = np.sort(np.random.default_rng(seed).choice(places, most, replace=False))
    records = [view.record(row) for row in space_view.rows_at(view.tx, places.astype(np.int64)).tolist()]
    chosen = []
    for record in records:
        metadata = record.content()[0]
        label = check_label(value_of(metadata, path), path)
        chosen.append((record.id, label, None if apart is None else value_of(metadata, apart)))
    return chosen


def quality_of(truths: Sequence[Any], told: Sequence[Prediction], seq: int) -> ClassifierQuality:
    """Return how good predictions are; one without a voter is wrong."""
    keys = [key_of(truth) for truth in truths]
    right = sum(bool(each.neighbours) and key_of(each.label) == key for each, key in zip(told, keys, strict=True))
    counts = Counter(keys)
    errors = [brier(each, truth) for each, truth in zip(told, truths, strict=True)]
    majority = max(counts.values(), default=0) / max(1, len(keys))
    mean = math.fsum(errors) / len(errors) if errors else math.nan
    return ClassifierQuality(share(right, len(keys)), majority, mean, len(counts), seq)
