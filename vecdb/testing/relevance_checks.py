"""The rules of the relevance contract as checks; docs/reference/relevance-contract.md numbers them as here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import RelevanceData
from vecdb.errors import ArgumentError, FitError
from vecdb.testing import fitting, planted
from vecdb.testing.checks import Check, applying, collect, require, rule

__all__ = ["iter_relevance_checks"]

Matrix = npt.NDArray[np.float32]
_CLOSE = 1e-5


def _able(name: str) -> Any:
    return lambda thing: bool(getattr(thing.capabilities, name))


def _labelled(thing: Any) -> bool:
    return "labels" in thing.capabilities.requires


def _given(thing: Any, data: RelevanceData) -> RelevanceData:
    """Return the data as the engine gives it to this type: without vectors unless they are in its scope."""
    return data if thing.capabilities.scope == "vectors" else replace(data, vectors=None)


def _default(thing: Any, **changes: Any) -> Any:
    return thing.fit(_given(thing, planted.judged(**changes)), fitting.defaults(thing))


def _fits(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield a filter for each choice of the parameters, with words for it."""
    for number, params in enumerate(fitting.variants(thing)):
        try:
            yield f"(fitted with {params})", thing.fit(_given(thing, planted.judged()), params)
        except FitError:
            if number == 0:
                raise


def _pool(seed: int = 5, **changes: Any) -> tuple[Matrix, Matrix, Matrix]:
    """Return scores, queries and vectors of candidates that no fit has seen; every third query has two fewer."""
    data: Any = planted.judged(queries=12, seed=seed, **changes)
    vectors = np.stack([data.vectors(row) for row in range(len(data.queries))])
    return data.scores, data.queries, planted.read_only(vectors)


def _judge(thing: Any, fitted: Any, scores: Matrix, queries: Matrix, vectors: Matrix) -> Any:
    """Ask a filter, with no more than its scope allows."""
    scope = thing.capabilities.scope
    return fitted.relevance(
        scores,
        None if scope == "score" else queries,
        vectors if scope == "vectors" else None,
        count=10_000,
    )


# --- D: what it says of itself ----------------------------------------------------------------------------


@rule("D1")
def check_relevance_descriptor(thing: Any) -> None:
    """Name, version, capabilities and parameters are what the contract names, and known values."""
    fitting.check_descriptor("relevance filter", thing)


# --- F: fitting -------------------------------------------------------------------------------------------


@rule("F1")
def check_fit_returns_a_filter(thing: Any) -> None:
    """`fit` returns an object with `relevance`, `state` and a threshold above 0 and at most 1."""
    for words, fitted in _fits(thing):
        for name in ("relevance", "state"):
            require(callable(getattr(fitted, name, None)), f"the filter has no method {name} {words}")
        threshold = fitted.threshold
        right = isinstance(threshold, float) and 0.0 < threshold <= 1.0
        require(right, f"threshold is {threshold!r}, expected a float above 0 and at most 1 {words}")


@rule("F2")
def check_fit_leaves_its_data_alone(thing: Any) -> None:
    """`fit` reads its data only: they are read-only, and what it keeps of them are copies."""
    data: Any = planted.judged()
    names = ("queries", "scores", "labels", "ignore", "missed", "sample", "groups")
    lent = {name: np.array(getattr(data, name)) for name in names}
    views: dict[str, Any] = {name: array.view() for name, array in lent.items()}
    for view in views.values():
        view.flags.writeable = False
    fitted = thing.fit(_given(thing, replace(data, **views)), fitting.defaults(thing))
    changed = [name for name, array in lent.items() if not np.array_equal(array, getattr(data, name))]
    require(not changed, f"{', '.join(changed)} of its data changed during the fit")
    pool = _pool()
    before = _judge(thing, fitted, *pool)
    for array in lent.values():
        array[...] = 0
    require(np.array_equal(before, _judge(thing, fitted, *pool)), "it changes when the data it was fitted on do")


@rule("F3", _labelled)
def check_fit_refuses_too_few_labels(thing: Any) -> None:
    """With no judged candidate, only relevant ones, or none that is, `fit` raises `FitError` with counts."""
    data = planted.judged()
    for label, words in ((-1, "not judged"), (0, "not relevant"), (1, "relevant")):
        labels = planted.read_only(np.full(data.scores.shape, label, np.int8))
        spoilt = _given(thing, replace(data, labels=labels, missed=None))
        fitting.too_few(
            lambda spoilt=spoilt: thing.fit(spoilt, fitting.defaults(thing)),  # type: ignore[misc]
            f"a fit on candidates that are all {words}",
        )


@rule("F4")
def check_fit_refuses_nan(thing: Any) -> None:
    """A NaN in the scores is refused (`NonFiniteError`, `FitError`), never fitted."""
    data = planted.judged()
    scores = np.array(data.scores)
    scores[4, 2] = np.nan
    spoilt = _given(thing, replace(data, scores=planted.read_only(scores)))
    fitting.refuses(lambda: thing.fit(spoilt, fitting.defaults(thing)), "NaN in the scores", ArgumentError)


@rule("F5", _labelled)
def check_fit_passes_over_what_is_ignored(thing: Any) -> None:
    """What is ignored or not judged counts as neither relevant nor not: its label changes nothing."""
    data: Any = planted.judged()
    labels = np.array(data.labels)
    labels[data.ignore & np.isfinite(data.scores)] ^= 1
    one = thing.fit(_given(thing, data), fitting.defaults(thing))
    again = replace(data, labels=planted.read_only(labels), rng=planted.judged().rng)
    other = thing.fit(_given(thing, again), fitting.defaults(thing))
    pool = _pool()
    far = np.abs(_judge(thing, one, *pool) - _judge(thing, other, *pool)).max()
    require(far <= _CLOSE, f"labels of ignored candidates change the relevance of others by {far:.1e}")


@rule("F6", _able("deterministic"))
def check_fit_is_deterministic(thing: Any) -> None:
    """The same data, parameters and seed give the same state."""
    fitting.fits_alike(lambda: _default(thing))


@rule("F7")
def check_fit_uses_its_own_generator(thing: Any) -> None:
    """Randomness comes from `RelevanceData.rng`, never from the generators that a process shares."""
    fitting.leaves_random_state(lambda: _default(thing))


@rule("F8")
def check_fit_can_be_cancelled(thing: Any) -> None:
    """`fit` asks `RelevanceData.cancel` at least once, and raises `CancelledError` when told to stop."""
    data = _given(thing, replace(planted.judged(), cancel=lambda: True))
    fitting.cancels(lambda: thing.fit(data, fitting.defaults(thing)))


# --- R: relevance -----------------------------------------------------------------------------------------


@rule("R1")
def check_relevance_is_between_0_and_1(thing: Any) -> None:
    """`relevance` returns new finite float32 numbers between 0 and 1, one for each candidate."""
    for words, fitted in _fits(thing):
        scores, queries, vectors = _pool()
        found = _judge(thing, fitted, scores, queries, vectors)
        require(isinstance(found, np.ndarray), f"relevance returned {type(found).__name__} {words}")
        require(found.dtype == np.float32, f"relevance returned {found.dtype}, expected float32 {words}")
        require(found.shape == scores.shape, f"relevance has shape {found.shape}, expected {scores.shape} {words}")
        require(bool(((found >= 0) & (found <= 1)).all()), f"relevance is not between 0 and 1 {words}")
        require(not np.shares_memory(found, scores), f"relevance returned its input {words}")


@rule("R2")
def check_relevance_never_adds_results(thing: Any) -> None:
    """Where there is no candidate (score -inf) the relevance is 0, so that a filter only takes away."""
    for words, fitted in _fits(thing):
        scores, queries, vectors = _pool()
        found = _judge(thing, fitted, scores, queries, vectors)
        require(not found[np.isneginf(scores)].any(), f"a place without a candidate has a relevance above 0 {words}")


@rule("R3")
def check_relevance_of_nothing(thing: Any) -> None:
    """No query, no candidate, and queries of which none has a candidate give empty answers or zeros."""
    for words, fitted in _fits(thing):
        width = planted.judged().queries.shape[1]
        for shape in ((0, 5), (3, 0), (0, 0), (2, 4)):
            scores = planted.read_only(np.full(shape, -np.inf, np.float32))
            queries = planted.read_only(planted.unit(np.ones((shape[0], width))))
            found = _judge(thing, fitted, scores, queries, planted.read_only(np.zeros((*shape, width), np.float32)))
            require(found.shape == shape, f"relevance of shape {shape} has shape {found.shape} {words}")
            require(not found.any(), f"without candidates the relevance is above 0 {words}")


@rule("R4", _able("monotone"))
def check_relevance_is_monotone_in_the_score(thing: Any) -> None:
    """With `monotone`, a candidate of a higher score is never less relevant to the same query."""
    for words, fitted in _fits(thing):
        scores, queries, vectors = _pool()
        for step in (1.0, 3.0, 0.01):
            wide = planted.read_only(np.float32(step) * scores)
            found = _judge(thing, fitted, wide, queries, vectors)  # scores do not increase along a row
            rises = np.diff(found.astype(np.float64), axis=1).max()
            require(rises <= 1e-6, f"a lower score is {rises:.1e} more relevant {words}")


@rule("R5")
def check_relevance_does_not_depend_on_the_order(thing: Any) -> None:
    """Candidates in another order have the same relevance each."""
    order = np.random.default_rng(2).permutation(20)
    for words, fitted in _fits(thing):
        scores, queries, vectors = _pool()
        before = _judge(thing, fitted, scores, queries, vectors)
        turned = planted.read_only(scores[:, order]), queries, planted.read_only(vectors[:, order])
        after = _judge(thing, fitted, *turned)
        far = float(np.abs(after - before[:, order]).max())
        require(far <= _CLOSE, f"in another order the relevance differs by {far:.1e} {words}")


@rule("R6")
def check_relevance_takes_each_query_by_itself(thing: Any) -> None:
    """A query's candidates have the same relevance whatever other queries are asked with it."""
    for words, fitted in _fits(thing):
        pool = _pool()
        together = _judge(thing, fitted, *pool)
        for row in range(4):
            alone = _judge(thing, fitted, *(planted.read_only(array[row : row + 1]) for array in pool))
            far = float(np.abs(alone - together[row : row + 1]).max())
            require(far <= _CLOSE, f"a query alone is judged otherwise than in company, by {far:.1e} {words}")


@rule("R7")
def check_relevance_keeps_to_its_scope(thing: Any) -> None:
    """With the scope "score" it is fitted and asked without vectors, with "query" without those of candidates."""
    scores, queries, vectors = _pool()
    found = _judge(thing, _default(thing), scores, queries, vectors)
    if thing.capabilities.scope == "score":
        data = planted.judged()
        blank = replace(data, queries=planted.read_only(np.zeros_like(data.queries)), vectors=None, sample=None)
        other = thing.fit(blank, fitting.defaults(thing))
        far = float(np.abs(found - _judge(thing, other, scores, queries, vectors)).max())
        require(far <= _CLOSE, f"fitted without queries it judges scores otherwise, by {far:.1e}")


@rule("R8")
def check_relevance_leaves_its_input_alone(thing: Any) -> None:
    """`relevance` takes read-only arrays, changes none, and gives the same answer and state afterwards."""
    fitted = _default(thing)
    digest = fitting.digest(fitted)
    lent = [np.array(array) for array in _pool()]
    views = [array.view() for array in lent]
    for view in views:
        view.flags.writeable = False
    before = [array.copy() for array in lent]
    first = np.array(_judge(thing, fitted, views[0], views[1], views[2]))
    same = all(np.array_equal(one, other) for one, other in zip(before, lent, strict=True))
    require(same, "relevance changed the arrays it was given")
    again = _judge(thing, fitted, views[0], views[1], views[2])
    require(np.array_equal(first, again), "asked again it answers otherwise")
    require(digest == fitting.digest(fitted), "asking it changes its state")


@rule("R9", _labelled)
def check_relevance_is_higher_for_the_relevant(thing: Any) -> None:
    """Of candidates that it has not seen, relevant ones are on average judged more relevant than others."""
    data: Any = planted.judged(queries=12, seed=5)
    found = _judge(thing, _default(thing), *_pool()).astype(np.float64)
    judged = ~data.ignore & (data.labels >= 0)
    yes, no = found[judged & (data.labels == 1)].mean(), found[judged & (data.labels == 0)].mean()
    require(yes > no + 0.05, f"relevant candidates have relevance {yes:.2f} on average, others {no:.2f}")


@rule("R10", lambda thing: thing.capabilities.transfer == "refit" and _labelled(thing))
def check_refit_follows_the_scale(thing: Any) -> None:
    """With the transfer "refit", a fit on the same queries with scores of another scale decides alike there."""
    bridge: dict[str, Any] = {"scale": 0.3, "offset": 0.5}
    native, bridged = _default(thing), _default(thing, **bridge)
    one = _judge(thing, native, *_pool()) >= native.threshold
    other = _judge(thing, bridged, *_pool(**bridge)) >= bridged.threshold
    alike = float((one == other).mean())
    require(alike >= 0.9, f"fitted again on bridged scores it decides alike for {alike:.0%} of candidates only")


# --- S: state ---------------------------------------------------------------------------------------------


@rule("S1")
def check_state_is_plain(thing: Any) -> None:
    """`state` returns a dict of plain values and arrays, the same at every call: nothing that would have to be run."""
    for _, fitted in _fits(thing):
        fitting.stores_plainly(fitted)


@rule("S2")
def check_state_gives_the_filter_back(thing: Any) -> None:
    """`load` of a state gives a filter that judges, and is stored, as the one it came from, bit for bit."""
    for words, fitted in _fits(thing):
        again = thing.load(fitting.restored(fitted.state()))
        same = np.array_equal(_judge(thing, fitted, *_pool()), _judge(thing, again, *_pool()))
        require(same, f"the loaded filter judges otherwise {words}")
        require(fitted.threshold == again.threshold, f"the loaded filter has another threshold {words}")
        require(fitting.digest(fitted) == fitting.digest(again), f"its state is another one {words}")


@rule("S3")
def check_damaged_state_is_refused(thing: Any) -> None:
    """`load` of anything else raises `CorruptionError`: parts missing, of another type or shape, or not finite."""
    fitting.refuses_damage(thing, _default(thing).state())


CHECKS = collect(globals().values())


def iter_relevance_checks(thing: Any) -> Iterator[Check]:
    """Yield the checks for a kind of relevance filter, chosen by the capabilities that it declares."""
    return applying(CHECKS, thing)
