"""What `Collection.search` asks of this room: wishes checked, queries settled, hits chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vecdb.engine import queries, search
from vecdb.engine.exploring import choosing
from vecdb.engine.exploring.choosing import Interests
from vecdb.engine.exploring.examples import is_several, settle, without
from vecdb.engine.exploring.wishes import Wishes
from vecdb.engine.exploring.wishes import wishes as wishes
from vecdb.engine.queries import Asked
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView
from vecdb.errors import ParameterError
from vecdb.explored import Mixture
from vecdb.types import Hits, Id, Space

__all__ = ["Start", "answer", "refuse_mixtures", "start", "wishes"]


@dataclass(frozen=True, slots=True)
class Start:
    """Where a search starts from: its queries, and record rows that are no answers."""

    wished: Wishes
    asked: tuple[Asked, ...]
    without: tuple[int, ...] = ()
    interests: Interests | None = None
    """Examples that are not one query: each cluster of them asks for its part of the list."""


def start(view: CollectionView, space: Space, q: Any, like: Any, wished: Wishes, *, text: bool) -> Start:
    """Return the queries of a search, made of what was given: a query, records to be like, examples."""
    if wished.positive or wished.negative:
        if like is not None:
            raise ParameterError(
                "like= and examples are two ways to start", hint="Put the id into positive=.", name="like", got=like
            )
        found = settle(view, space, q, wished, text=text)
        several = q is None and len(found.positive) > 1 and isinstance(wished.spread, Mixture)
        interests = Interests(found.positive, found.negative, wished.weights[1:]) if several else None
        return Start(wished, (found.asked,), found.rows, interests)
    if is_several(like):
        if q is not None:
            raise ParameterError("search takes either a query or like=", hint="Give one of the two.", name="q")
        each = tuple(queries.settle(view, space, None, id, text=False) for id in _several(like))
        return Start(wished, tuple(Asked(one.matrix, False, one.space, one.row) for one in each))
    return Start(wished, (queries.settle(view, space, q, like, text=text),))


def _several(like: Any) -> list[Id]:
    named: list[Id] = like.tolist() if isinstance(like, np.ndarray) else list(like)
    if not named:
        raise ParameterError(
            "like names no record", hint="Pass an id, or a list of ids.", name="like", got=[], allowed="ids"
        )
    return named


def answer(
    view: CollectionView,
    request: SearchRequest,
    start: Start,
    ask: Callable[[tuple[Any, ...], SearchRequest], list[Hits]],
    how: tuple[Any, ...],
) -> tuple[list[Hits], SearchRequest]:
    """Return the hits of each query, and the request with the queries that they answer.

    Parameters
    ----------
    request : SearchRequest
        Of the first of `start.asked`.
    ask : callable
        Answers a request, given how.
    how : tuple
        Which spaces may answer, and what else bridging is told.
    """
    if start.without:
        rest = without(view, search.selected(view, request), start.without)
        request = request._replace(selection=rest, known_as=None)
    steady = (how[0] == "native" or not view.entry.transforms) and request.correction is None
    if start.interests is not None and isinstance(start.wished.spread, Mixture):
        return [choosing.blended(view, request, start.wished.spread, start.interests, partial(ask, how))], request
    asking = choosing.Asking(partial(ask, how), partial(ask, ("native", None, 0.0)), steady)
    found: list[Hits] = []
    asked = []
    for one in start.asked:
        own = request._replace(space=one.space, queries=one.matrix, without_row=one.row)
        if start.wished.feedback is not None:
            own = choosing.fed_back(view, own, start.wished.feedback, asking.native)
        found += choosing.answer(view, own, start.wished, asking)
        asked.append(own.queries)
    alike = len({one.space.id for one in start.asked}) == 1
    return found, request._replace(queries=np.concatenate(asked)) if alike else request


def refuse_mixtures(start: Start, others: Mapping[str, Any], twice: object, scored: object) -> None:
    """Refuse what does not combine.

    That is a second stage, queries in several spaces that are changed in one, and scores of several kinds before one
    correction or filter (`scored`, its name).

    Raises
    ------
    ParameterError
    """
    wished = start.wished
    if start.interests is not None and wished.feedback is not None:
        raise ParameterError(
            "a mixture of several examples does not combine with feedback", name="feedback", got=True, allowed=None
        )
    if scored is not None and (start.interests is not None or len({one.space.id for one in start.asked}) > 1):
        raise ParameterError(
            "a correction or a relevance filter is for the scores of one query in one space",
            hint="Leave relevance= and correction= out, or ask one after the other.",
            name="relevance",
            got=scored,
            allowed=None,
        )
    if twice is not None and (wished.chooses or len(start.asked) > 1 or start.without):
        raise ParameterError(
            "rerank='native' does not combine with examples, several like=, feedback, diversify or group_by",
            hint="Search without rerank.",
            name="rerank",
            got="native",
            allowed="None",
        )
    moved = wished.feedback is not None or not wished.starts_from_query
    if others and (moved or (wished.group_by is not None and len(start.asked[0].matrix) > 1)):
        raise ParameterError(
            "a query in several spaces does not combine with examples or feedback, nor several of them with group_by",
            hint="Give the query in one space.",
            name="q",
            got=sorted(others),
            allowed="one space",
        )
