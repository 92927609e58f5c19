"""The border to plugins that provide relevance filters: what breaks the contract is named, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from vecdb.contracts import RelevanceCapabilities
from vecdb.engine.relevance import border
from vecdb.engine.relevance.basis import mismatch
from vecdb.errors import CancelledError, CorruptionError, FitError, ParameterError, PluginContractError, PluginError
from vecdb.registry import Provided
from vecdb.relevance.scored import CalibratedType
from vecdb.storage.state import CollectionEntry
from vecdb.testing import planted
from vecdb.types import Space


@dataclass
class Made:
    threshold: object = 0.5
    answer: object = None

    def relevance(self, scores, queries, vectors, *, count):
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.full(scores.shape, 0.5, np.float32) if self.answer is None else self.answer

    def state(self):
        return {"x": 1}


@dataclass
class Kind:
    made: object = None
    name: str = "acme.kind"
    version: int = 1
    capabilities: RelevanceCapabilities = RelevanceCapabilities(scope="score")  # noqa: RUF009  # a frozen value
    parameters: dict = None

    def fit(self, data, params):
        if isinstance(self.made, Exception):
            raise self.made
        return self.made

    def load(self, state):
        return self.fit(None, None)


def provided(kind):
    return Provided("relevance filter", kind.name, kind, "acme", "acme-dist", "1")


SCORES = np.array([[0.9, 0.5]], np.float32)
QUERIES = np.ones((1, 3), np.float32)


def judge(made, kind=None, vectors=None):
    return border.judge(provided(kind or Kind()), made, SCORES, QUERIES, vectors, 10)


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros((1, 2)),
        np.zeros((2, 1), np.float32),
        [[0.1, 0.2]],
        np.array([[0.1, 1.5]], np.float32),
        np.array([[np.nan, 0.5]], np.float32),
        np.array([[-0.1, 0.5]], np.float32),
    ],
)
def test_answers_that_are_no_relevance_break_the_contract(answer):
    with pytest.raises(PluginContractError) as caught:
        judge(Made(answer=answer))
    assert (caught.value.plugin, caught.value.distribution) == ("acme", "acme-dist")
    assert caught.value.rule.startswith("relevance-")


@pytest.mark.parametrize("error", [ValueError("boom"), ZeroDivisionError(), KeyError("x")])
def test_whatever_a_plugin_raises_names_it(error):
    for action in (lambda: judge(Made(answer=error)), lambda: border.fit(provided(Kind(error)), planted.judged(), {})):
        with pytest.raises(PluginError, match="acme") as caught:
            action()
        assert caught.value.__cause__ is error and caught.value.distribution == "acme-dist"


def test_what_the_contract_allows_passes_through():
    for error in (FitError("few", pairs=1, needed=2), CancelledError("stop")):
        with pytest.raises(type(error)) as caught:
            border.fit(provided(Kind(error)), planted.judged(), {})
        assert caught.value is error


@pytest.mark.parametrize("threshold", [0.0, 1.5, None, 1, "0.5", float("nan"), -0.5])
def test_a_threshold_that_is_none_breaks_the_contract(threshold):
    with pytest.raises(PluginContractError, match="threshold"):
        border.checked(provided(Kind()), Made(threshold=threshold))


def test_what_is_no_filter_breaks_the_contract():
    for made in (None, 3, SimpleNamespace(threshold=0.5), SimpleNamespace(threshold=0.5, state=dict)):
        with pytest.raises(PluginContractError, match="has no method"):
            border.fit(provided(Kind(made)), planted.judged(), {})


def test_a_filter_is_given_no_more_than_its_scope():
    seen = []

    class Spy(Made):
        def relevance(self, scores, queries, vectors, *, count):
            seen.append((queries is None, vectors is None, scores.flags.writeable, count))
            return np.zeros(scores.shape, np.float32)

    judge(Spy())
    judge(Spy(), Kind(capabilities=RelevanceCapabilities(scope="query")))
    judge(Spy(), Kind(capabilities=RelevanceCapabilities(scope="vectors")), np.zeros((1, 2, 3), np.float32))
    assert seen == [(True, True, False, 10), (False, True, False, 10), (False, False, False, 10)]


def test_what_a_kind_needs_is_asked_for_before_it_is_fitted():
    data = planted.judged()
    for need, gone in (("labels", {"labels": None}), ("groups", {"groups": None}), ("sample", {"sample": None})):
        kind = Kind(Made(), capabilities=RelevanceCapabilities(scope="score", requires=frozenset({need})))
        border.fit(provided(kind), data, {})
        with pytest.raises(FitError, match=need):
            border.fit(provided(kind), replace(data, **gone), {})


def test_states_that_cannot_be_stored_and_loads_that_fail_are_told_apart():
    class Odd(Made):
        def state(self):
            return {"x": {1, 2}}

    with pytest.raises(PluginContractError, match="state"):
        border.state_of(provided(Kind()), Odd())
    with pytest.raises(CorruptionError):
        border.load(provided(Kind(ValueError("what is this"))), {})
    with pytest.raises(PluginContractError):
        border.load(provided(Kind(3)), {})


def test_parameters_are_settled_by_their_declaration():
    kind = provided(CalibratedType())
    assert border.settle(kind, {"depth": 5})["depth"] == 5
    for wrong in ({"depth": 0}, {"method": "other"}, {"speed": 1}):
        with pytest.raises(ParameterError):
            border.settle(kind, wrong)


# --- basis ------------------------------------------------------------------------------------------------


def entry(*references):
    """A collection with two spaces, and transforms numbered from 10 with so many reference rows each."""
    transforms = tuple(SimpleNamespace(set=10 + n, name=f"t{n}", reference=count) for n, count in enumerate(references))
    spaces = {name: Space(name, 3, id=id) for name, id in (("old", 1), ("new", 2))}
    return replace(CollectionEntry(1, "docs", spaces), transforms=transforms)


REFIT, RESCORE = (RelevanceCapabilities(scope="score", transfer=each) for each in ("refit", "rescore"))
NEW = Space("new", 3, id=2)


@pytest.mark.parametrize(
    ("fitted", "found", "able", "fits"),
    [
        (((2,),), ((2,),), REFIT, True),
        (((2,),), ((1, 10), (2,)), REFIT, False),
        (((2,),), ((1, 10), (2,)), RESCORE, True),
        (((2,),), ((1, 11), (2,)), RESCORE, False),  # no reference rows: nothing brings these scores to the scale
        (((2,),), ((1, 10),), RESCORE, False),  # a single class is not calibrated
        (((1, 10),), ((2,),), RESCORE, False),
        (((1, 10), (2,)), ((1, 10), (2,)), REFIT, True),
        (((1, 10),), ((1, 11),), REFIT, False),
    ],
)
def test_another_basis_is_refused_unless_scores_are_brought_to_the_old_scale(fitted, found, able, fits):
    reason = mismatch(entry(5, 0), NEW, fitted, found, able)
    assert (reason is None) == fits
    if reason is not None:
        assert "it was fitted on vectors of" in reason and "answer now" in reason


def test_what_was_dropped_is_said_to_be():
    reason = mismatch(entry(5), NEW, ((7,), (1, 99)), ((2,),), REFIT)
    assert "a space that was dropped" in reason and "a dropped transform" in reason
