"""Group I: what an index is given, and must live with."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.testing import datasets
from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.cases import (
    COUNT,
    SEED,
    build,
    metrics_of,
    recall_at_10,
    same_answers,
    usable,
    usual,
    usual_queries,
    usual_rows,
)
from vecdb.testing.memory import MemoryView

_WIDEST = 2_048
_ODD_BLOCKS = (1, 7, 30, 3)


def _not_only_cosine(index_type: Any) -> bool:
    return any(metric != "cosine" for metric in metrics_of(index_type))


def _cosine(index_type: Any) -> bool:
    return "cosine" in metrics_of(index_type)


@rule("I1")
def check_read_only_input(index_type: Any) -> None:
    """Queries and `allowed` may be read-only arrays."""
    built, queries = usual(index_type)
    allowed = np.ones(COUNT, np.bool_)
    for array in (queries, allowed):
        array.flags.writeable = False
    mask = allowed if index_type.capabilities.filtered else None
    built.index.search(queries, 10, allowed=mask, effort=None, view=built.view)


@rule("I2")
def check_input_is_left_alone(index_type: Any) -> None:
    """Queries, `allowed` and the parameters are not changed."""
    given = {name: param.default for name, param in index_type.parameters.items()}
    params = dict(given)
    view = MemoryView(usual_rows(index_type), metrics_of(index_type)[0])
    nothing: Any = lambda *_: False  # noqa: E731 - it is progress and cancel at once
    index = index_type.build(view, params, seed=SEED, progress=nothing, cancel=nothing)
    require(params == given, f"the parameters have become {params!r}")
    queries = usual_queries(index_type)
    allowed = np.arange(COUNT) % 2 == 0
    kept = queries.copy(), allowed.copy()
    mask = allowed if index_type.capabilities.filtered else None
    index.search(queries, 10, allowed=mask, effort=None, view=view)
    require(np.array_equal(queries, kept[0]), "search has changed the queries")
    require(np.array_equal(allowed, kept[1]), "search has changed `allowed`")


@rule("I3")
def check_one_vector(index_type: Any) -> None:
    """An index over one vector can be built, and finds it."""
    for metric in metrics_of(index_type):
        built = build(index_type, usual_rows(index_type)[:1], metric)
        usable(built, usual_queries(index_type), 5, f"metric {metric}, one vector")


@rule("I4")
def check_equal_vectors(index_type: Any) -> None:
    """Vectors may all be equal."""
    rows = np.repeat(usual_rows(index_type)[:1], 60, axis=0)
    for metric in metrics_of(index_type):
        usable(build(index_type, rows, metric), usual_queries(index_type), 10, f"metric {metric}, equal vectors")


@rule("I5")
def check_one_dimension(index_type: Any) -> None:
    """Vectors may have one component."""
    for metric in metrics_of(index_type):
        built = build(index_type, datasets.gaussian(60, 1, SEED), metric)
        usable(built, datasets.gaussian(3, 1, SEED + 1), 10, f"metric {metric}, one component")


@rule("I6")
def check_widest_vectors(index_type: Any) -> None:
    """Vectors may be as wide as `max_dim` says (tried up to 2,048), and 37 wide, which no machine word divides."""
    widest = min(index_type.capabilities.max_dim or _WIDEST, _WIDEST)
    for dim in (min(37, widest), widest):
        built = build(index_type, datasets.gaussian(60, dim, SEED))
        usable(built, datasets.gaussian(3, dim, SEED + 1), 10, f"{dim} components")


@rule("I7")
def check_half_precision(index_type: Any) -> None:
    """Vectors may be stored as float16; they are read as float32 copies, and as float16 in place."""
    floor = index_type.capabilities.min_recall_at_10 or 0.0
    for metric in metrics_of(index_type):
        built = build(index_type, usual_rows(index_type), metric, dtype="float16")
        usable(built, usual_queries(index_type), 10, f"metric {metric}, float16")
        recall = recall_at_10(built, usual_queries(index_type))
        require(recall >= floor, f"metric {metric}: recall@10 is {recall:.3f} over float16, declared {floor}")


@rule("I8")
def check_layout_of_blocks(index_type: Any) -> None:
    """Where vectors lie, and in blocks of which size, changes no answer: the file may be packed anew at any time."""
    rows, queries = usual_rows(index_type), usual_queries(index_type)
    built = build(index_type, rows)
    plain = built.answers(queries, 10)
    for scattered in (False, True):
        moved = MemoryView(rows, built.view.metric, block_rows=_ODD_BLOCKS, scattered=scattered)
        same_answers(plain, built.answers(queries, 10, view=moved), "searched over another layout")
        again = build(index_type, rows, block_rows=_ODD_BLOCKS, scattered=scattered)
        if index_type.capabilities.deterministic:
            same_answers(plain, again.answers(queries, 10), "built over another layout")
        usable(again, queries, 10, "built over another layout")


@rule("I9")
def check_extreme_lengths(index_type: Any) -> None:
    """Components may be as small as 1e-30 and as large as 1e15 beside each other; scores stay finite."""
    rows = usual_rows(index_type)
    rows[::3] *= np.float32(1e-30)
    rows[1::3] *= np.float32(1e15)
    for metric in metrics_of(index_type):
        built = build(index_type, rows, metric)
        positions, scores = map(np.asarray, built.ask(usual_queries(index_type), 10))
        if not np.isfinite(scores[positions >= 0]).all():
            fail(f"metric {metric}: the score of a candidate is not finite")
        usable(built, usual_queries(index_type), 10, f"metric {metric}, very short and very long vectors")


@rule("I10", _not_only_cosine)
def check_zero_vectors(index_type: Any) -> None:
    """Where the metric is not cosine, vectors and queries may be zero."""
    rows, queries = usual_rows(index_type), usual_queries(index_type)
    rows[::5] = 0.0
    queries[0] = 0.0
    for metric in metrics_of(index_type):
        if metric != "cosine":
            usable(build(index_type, rows, metric), queries, 10, f"metric {metric}, zero vectors")


@rule("I11", _cosine)
def check_query_length(index_type: Any) -> None:
    """Queries come as they were given; in a cosine space their length changes no candidate."""
    built, queries = usual(index_type, "cosine")
    usual_length = built.answers(queries, 10)
    for length in (1e-6, 1e6):
        answers = built.answers(queries * np.float32(length), 10)
        for one, other in zip(usual_length, answers, strict=True):
            lost = np.setdiff1d(one.positions[:9], other.positions)
            if len(lost) > 1:
                fail(f"a query {length:g} times as long finds other candidates, not {lost.tolist()}")


@rule("I12")
def check_few_vectors(index_type: Any) -> None:
    """An index can be built over any small number of vectors, from 2 to 40."""
    for count in (2, 3, 5, 10, 17, 40):
        usable(build(index_type, usual_rows(index_type)[:count]), usual_queries(index_type), 10, f"{count} vectors")
