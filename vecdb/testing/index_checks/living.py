"""Group L: building, storing, loading, growing and shrinking."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from vecdb.errors import CancelledError, CorruptionError
from vecdb.testing import datasets
from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.cases import (
    COUNT,
    SEED,
    Answer,
    Built,
    build,
    capable,
    load,
    metrics_of,
    recall_at_10,
    same_answers,
    usable,
    usual,
    usual_queries,
    usual_rows,
)
from vecdb.testing.memory import MemoryBlobs, MemoryView

_REMOVED = np.arange(0, COUNT, 3)
_ADDED_FROM = COUNT * 2 // 3


def _quiet(done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def _never() -> bool:
    return False


def _floor(index_type: Any) -> float:
    """Return the recall@10 that is owed after a change: what is declared, all of it if exact."""
    capabilities = index_type.capabilities
    return 1.0 if capabilities.exact else capabilities.min_recall_at_10 or 0.0


# --- building ---


@rule("L1", capable("deterministic"))
def check_deterministic(index_type: Any) -> None:
    """With `deterministic`, the same vectors, parameters and seed give the same answers and the same blobs."""
    for seed in (SEED, 0, (1 << 63) - 1):
        one, queries = usual(index_type, seed=seed)
        other, _ = usual(index_type, seed=seed)
        same_answers(one.answers(queries, 10), other.answers(queries, 10), f"built twice with seed {seed}")
        require(one.dumped().contents() == other.dumped().contents(), f"built twice with seed {seed}: blobs differ")


@rule("L2")
def check_builds_are_independent(index_type: Any) -> None:
    """Indexes of one type do not know of each other."""
    first, queries = usual(index_type)
    before = first.answers(queries, 10)
    second = build(index_type, usual_rows(index_type)[::-1] + 1)
    second.answers(queries, 10)
    same_answers(before, first.answers(queries, 10), "searched again after another index was built")


@rule("L3")
def check_progress(index_type: Any) -> None:
    """`progress` is called with ints `0 <= done <= total`, never falls, and ends with `done == total`."""
    calls: list[tuple[Any, Any]] = []
    build(index_type, usual_rows(index_type), progress=lambda done, total: calls.append((done, total)))
    require(calls, "progress is never called")
    for done, total in calls:
        require(type(done) is int and type(total) is int and 0 <= done <= total, f"progress({done!r}, {total!r})")
    rising = all(before[0] <= after[0] for before, after in pairwise(calls))
    require(rising, "progress goes back")
    require(calls[-1][0] == calls[-1][1], f"the last call is progress{calls[-1]}")


@rule("L4")
def check_cancel(index_type: Any) -> None:
    """A build asks `cancel`, and a true answer ends it with `CancelledError`, at the first or any later question."""
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    build(index_type, usual_rows(index_type), cancel=count)
    require(asked, "cancel is never asked")
    for yes_at in sorted({1, asked}):
        try:
            build(index_type, usual_rows(index_type), cancel=_yes_at(yes_at))
        except CancelledError:
            continue
        fail(f"the build ends in success although question {yes_at} of {asked} was answered with true")


def _yes_at(question: int) -> Callable[[], bool]:
    """Return a `cancel` that answers with true from some question on."""
    answers = iter([False] * (question - 1))
    return lambda: next(answers, True)


@rule("L5")
def check_stats(index_type: Any) -> None:
    """`stats` is a mapping of names to plain int, finite float or str values."""
    stats = usual(index_type)[0].index.stats()
    require(callable(getattr(stats, "items", None)), f"stats is {type(stats).__name__}")
    for name, value in stats.items():
        plain = type(name) is str and type(value) in (int, float, str)
        require(plain, f"stats has {name!r}: {value!r} of type {type(value).__name__}")
        require(not isinstance(value, float) or math.isfinite(value), f"stats has {name!r}: {value!r}")


# --- storing and loading ---


@rule("L6")
def check_blobs(index_type: Any) -> None:
    """`dump` writes each blob once, under 1 to 64 characters of `a-z 0-9 . _ -`, as C-contiguous bytes or arrays."""
    problems = usual(index_type)[0].dumped().problems
    require(not problems, "; ".join(problems))


@rule("L7")
def check_dump_lends_its_data(index_type: Any) -> None:
    """What was handed to the writer stays as it is: it is read until the commit."""
    built, queries = usual(index_type)
    blobs = built.dumped()
    built.answers(queries, 10)
    built.dumped()
    changed = blobs.changed()
    require(not changed, f"blob {changed[:1]} was changed after it was written")


@rule("L8")
def check_dump_changes_nothing(index_type: Any) -> None:
    """An index answers after `dump` as before it, and writes the same again."""
    built, queries = usual(index_type)
    before = built.answers(queries, 10)
    first, second = built.dumped(), built.dumped()
    require(first.contents() == second.contents(), "a second dump writes something else")
    same_answers(before, built.answers(queries, 10), "after dump")


@rule("L9")
def check_round_trip(index_type: Any) -> None:
    """A loaded index answers as the one that was dumped, in every metric, and dumps the same."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        blobs = built.dumped()
        again = load(built, blobs)
        for k in (1, 10, COUNT):
            same_answers(built.answers(queries, k), again.answers(queries, k), f"metric {metric}: loaded, k={k}")
        require(again.dumped().contents() == blobs.contents(), f"metric {metric}: a loaded index dumps other blobs")


@rule("L10")
def check_load_where_vectors_are_gone(index_type: Any) -> None:
    """An index loads over a view of which vectors were removed meanwhile; with `filtered`, it finds the others."""
    built, queries = usual(index_type)
    view = MemoryView(usual_rows(index_type), built.view.metric, removed=_REMOVED.tolist())
    again = load(built, built.dumped(), view)
    if index_type.capabilities.filtered:
        mask = np.ones(COUNT, np.bool_)
        mask[_REMOVED] = False
        _same_allowed(built.answers(queries, 10, allowed=mask), again.answers(queries, 10, allowed=mask), mask)


def _same_allowed(one: list[Answer], other: list[Answer], mask: Any) -> None:
    """Require the same allowed answers."""
    kept = [
        [Answer(answer.positions[mask[answer.positions]], answer.scores[mask[answer.positions]]) for answer in answers]
        for answers in (one, other)
    ]
    same_answers(kept[0], kept[1], "over a view with removed vectors")


@rule("L11")
def check_damage_is_reported(index_type: Any) -> None:
    """If the reader reports a damaged or missing blob, so does `load`, or the search that reads it in place."""
    built, queries = usual(index_type)
    blobs, answers = built.dumped(), built.answers(queries, 10)
    for name in blobs.names():
        for damaged, what in ((blobs.damaged(name), "damaged"), (blobs.forged(name, None), "missing")):
            try:
                found = load(built, damaged).answers(queries, 10)
            except CorruptionError:
                continue
            same_answers(answers, found, f"loaded although blob {name!r} is {what}")


# --- growing and shrinking ---


def _grown(index_type: Any, metric: Any) -> Built:
    """Return an index built over the first vectors, to which the others were added."""
    rows = usual_rows(index_type)
    part = build(index_type, rows[:_ADDED_FROM], metric)
    view = MemoryView(rows, metric)
    part.index.add(view, _ADDED_FROM, progress=_quiet, cancel=_never)
    return Built(index_type, part.index, view)


@rule("L12", capable("add"))
def check_add(index_type: Any) -> None:
    """With `add`, what was added is found as if the index had been built over everything."""
    for metric in metrics_of(index_type):
        grown, queries = _grown(index_type, metric), usual_queries(index_type)
        recall = recall_at_10(grown, queries)
        floor = _floor(index_type)
        require(recall >= floor, f"metric {metric}: recall@10 is {recall:.3f} after adding, declared {floor}")
        new = usual_rows(index_type)[_ADDED_FROM:][:20]
        found = sum(_ADDED_FROM + place in answer.positions for place, answer in enumerate(grown.answers(new, 30)))
        require(metric == "dot" or found > 0, f"metric {metric}: no added vector is found by itself")


@rule("L13", capable("add"))
def check_grown_round_trip(index_type: Any) -> None:
    """With `add`, an index that has grown is dumped and loaded like any other."""
    grown, queries = _grown(index_type, metrics_of(index_type)[0]), usual_queries(index_type)
    again = load(grown, grown.dumped())
    same_answers(grown.answers(queries, 10), again.answers(queries, 10), "grown and loaded")


@rule("L14", capable("remove"))
def check_remove(index_type: Any) -> None:
    """With `remove`, removed vectors are no candidates any more, and the others are found as before."""
    kept = np.setdiff1d(np.arange(COUNT), _REMOVED)
    mask = np.isin(np.arange(COUNT), kept)
    filtered = index_type.capabilities.filtered
    rows, queries = usual_rows(index_type), usual_queries(index_type)
    for metric in metrics_of(index_type):
        built, _ = usual(index_type, metric)
        built.index.remove(_REMOVED.astype(np.int64))
        left = MemoryView(rows, metric, removed=_REMOVED.tolist()) if filtered else built.view
        answers = built.answers(queries, 10, allowed=mask if filtered else None, view=left)
        wrong = [
            int(answer.positions[~mask[answer.positions]][0]) for answer in answers if (~mask[answer.positions]).any()
        ]
        require(not wrong, f"metric {metric}: position {wrong[:1]} is returned, which was removed")
        scores = datasets.oracle_scores(metric, queries, rows[kept])
        best = [kept[datasets.best(row, 10)] for row in scores]
        found = [np.isin(right, answer.positions).mean() for right, answer in zip(best, answers, strict=True)]
        recall, floor = float(np.mean(found)), _floor(index_type)
        require(recall >= floor - 1e-9, f"metric {metric}: recall@10 is {recall:.3f} after removing, declared {floor}")


@rule("L15", capable("encodes_segments"))
def check_segment(index_type: Any) -> None:
    """With `encodes_segments`, what `encode_segment` writes loads as an index over that segment alone."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        segment = MemoryView(datasets.gaussian(150, built.view.dim, SEED + 2), metric)
        blobs = MemoryBlobs(strict=False)
        built.index.encode_segment(segment, blobs)
        before = built.answers(queries, 10)
        loaded = load(built, blobs, segment)
        usable(loaded, queries, 10, f"metric {metric}, a segment")
        recall, floor = recall_at_10(loaded, queries), _floor(index_type)
        require(recall >= floor, f"metric {metric}: recall@10 is {recall:.3f} over a segment, declared {floor}")
        same_answers(before, built.answers(queries, 10), f"metric {metric}: after encoding a segment")
