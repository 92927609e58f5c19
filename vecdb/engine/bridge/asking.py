"""What a search over several spaces was asked for: checked wishes, and the query in every space it is known in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_query
from vecdb.engine import search
from vecdb.engine.bridge.answer import Bridged, answer, answer_again, merge
from vecdb.engine.bridge.calibration import CALIBRATIONS
from vecdb.engine.bridge.twostage import Candidates, Encoder, Made, Rerank, candidates_of, encode_missing, ranked_again
from vecdb.engine.bridge.twostage import rerank_wishes as rerank_wishes
from vecdb.engine.names import check_number, check_option
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import ParameterError
from vecdb.registry import PluginRegistry
from vecdb.storage.snapshot import find_space
from vecdb.types import Hits, Space

if TYPE_CHECKING:
    from vecdb.engine.guard import Warner
    from vecdb.engine.joint.nominating import Nominator

F32 = npt.NDArray[np.float32]

SPACES: Final = ("native", "reachable", "all")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a search over several spaces is to be done.

    Attributes
    ----------
    among : frozenset of str or None
        Spaces whose vectors may answer; None: all.
    strict : bool
        Refuse if some of them cannot be reached.
    calibration : str or None
    prior : float
    """

    among: frozenset[str] | None = None
    strict: bool = False
    calibration: str | None = None
    prior: float = 0.0


USUAL: Final = Wishes()


def wishes(spaces: Any, calibration: str | None, prior: float) -> Wishes:
    """Return what was wished for, checked.

    Raises
    ------
    ParameterError
    """
    if spaces is None and calibration is None and type(prior) is float and prior == 0.0:
        return USUAL
    if calibration is not None:
        check_option("calibration", calibration, CALIBRATIONS)
    check_number("prior", prior, -np.inf)
    if spaces is None or isinstance(spaces, str):
        if spaces is not None:
            check_option("spaces", spaces, SPACES)
        return Wishes(None, spaces == "all", calibration, float(prior))
    if not isinstance(spaces, Sequence) or not spaces or not all(isinstance(name, str) for name in spaces):
        raise ParameterError(
            f"spaces is {spaces!r}, expected one of {SPACES} or names of spaces",
            name="spaces",
            got=spaces,
            allowed=SPACES,
        )
    return Wishes(frozenset(spaces), True, calibration, float(prior))


def candidates(
    view: CollectionView,
    request: search.SearchRequest,
    others: Mapping[str, Any],
    wished: Wishes,
    rerank: Rerank,
    registry: PluginRegistry,
    note: Callable[[int, F32], None],
) -> Candidates:
    """Return what the first of two stages finds; parameters as in `ask`."""
    wide = max(rerank.candidates, request.k + request.offset)
    bridged = _bridged(view, request._replace(k=wide, offset=0, min_score=None), others, wished, note)
    found = candidates_of(view, bridged, merge(view, bridged, registry))
    found.request = request
    return found


def second_stage(
    found: Candidates, rerank: Rerank, encode: Encoder | None, warn: Warner | None
) -> tuple[list[Hits], Made]:
    """Embed what is missing and rank by native scores; return the hits, and the vectors that were made for them."""
    made = encode_missing(found, rerank.encode or encode)
    request = found.request
    said = None if warn is None else search.Warnings(warn, request.queries)
    warnings = [tuple if said is None else partial(said.of, place) for place in range(len(request.queries))]
    return ranked_again(found, made, warnings, (request.offset, request.offset + request.k)), made


def ask(
    view: CollectionView,
    request: search.SearchRequest,
    others: Mapping[str, Any],
    wished: Wishes,
    warn: Warner | None,
    registry: Callable[[], PluginRegistry],
    note: Callable[[int, F32], None],
) -> list[Hits]:
    """Return the hits of each query.

    Parameters
    ----------
    others : mapping of str to array_like
        The same queries in other spaces.
    note : callable
        Told the number of a space and the queries that were mapped into it.
    """
    if wished is USUAL and not others:
        hits = answer_again(view, request, warn, registry, note)
        if hits is not None:
            return hits
    return answer(view, _bridged(view, request, others, wished, note), warn, registry)


def _bridged(
    view: CollectionView,
    request: search.SearchRequest,
    others: Mapping[str, Any],
    wished: Wishes,
    note: Callable[[int, F32], None],
) -> Bridged:
    asked = {request.space.name: request.queries}
    for name, given in others.items():
        asked[name] = _other(view, name, given, len(request.queries))
    if request.without_row is not None:
        asked |= _of_record(view, request)
    for name in wished.among or ():
        find_space(view.entry, name)
    joint, among = _joint(view, wished.among, request.space, note)
    return Bridged(request, asked, among, wished.strict, wished.calibration, wished.prior, note, joint)


def _joint(
    view: CollectionView, among: frozenset[str] | None, space: Space, note: Callable[[int, F32], None]
) -> tuple[Nominator | None, frozenset[str] | None]:
    """Return the joint space among those that were named, and the names with the two that it is made of in its place.

    Raises
    ------
    ParameterError
        There are several.
    """
    spaces = {each.id: each.name for each in view.entry.spaces.values()}
    named = [each for each in view.entry.joints if spaces[each.space] in (among or ())]
    if not named or among is None or named[0].space == space.id:
        return None, among
    if len(named) > 1:
        raise ParameterError(
            f"spaces names {len(named)} joint spaces, expected one",
            name="spaces",
            got=sorted(spaces[each.space] for each in named),
        )
    from vecdb.engine.joint.nominating import Nominator  # few collections have one

    joint = named[0]
    return Nominator(joint, note), (among - {spaces[joint.space]}) | {spaces[joint.old], spaces[joint.new]}


def _other(view: CollectionView, name: str, given: Any, count: int) -> F32:
    space = find_space(view.entry, name)
    matrix, _ = as_query(given, space.dim, metric=space.metric, where=f"query for space {name!r}")
    if len(matrix) != count:
        raise ParameterError(
            f"the query has {len(matrix)} rows in space {name!r} and {count} in the other, expected as many",
            name="q",
            got=len(matrix),
            allowed=count,
        )
    return matrix


def _of_record(view: CollectionView, request: search.SearchRequest) -> dict[str, F32]:
    """Return the other vectors of the record that a search starts from: it is known in several spaces."""
    record = view.record(int(request.without_row or 0))
    found = {}
    for space in view.entry.given_spaces:
        vector = None if space.id == request.space.id else view.vector(record, space)
        if vector is not None:
            found[space.name] = as_float32(vector[None])
    return found
