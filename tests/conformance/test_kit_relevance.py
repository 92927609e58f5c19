"""The kit for relevance filters: sound ones pass, and each rule catches the one that breaks it, alone and by name."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.conformance.broken import Changed, Fitting, broken_rules
from tests.conformance.filters import FILTERS, Agreement, Outlier, Platt, Sigmoid, Threshold
from vecdb.contracts import RelevanceCapabilities
from vecdb.testing import parametrize_with_checks, planted
from vecdb.testing.relevance_checks import CHECKS, iter_relevance_checks


@parametrize_with_checks(FILTERS, "relevance filter")
def test_sound_filters_pass(relevance_filter, check):
    check(relevance_filter)


class Prepared(Fitting):
    def __init__(self, inner, prepare, **changes):
        super().__init__(inner, **changes)
        self.__dict__["prepare"] = prepare

    def fit(self, data, params):
        return self.inner.fit(self.prepare(data), params)


platt, threshold, outlier, agreement = Platt(), Threshold(), Outlier(), Agreement()
loose = Changed(platt, capabilities=RelevanceCapabilities(scope="score"))


def judging(change, inner=loose):
    """Break `relevance` of what is fitted: change(relevance, scores), or with queries."""

    def changed(made):
        def relevance(scores, queries, vectors, *, count):
            return change(made.relevance(scores, queries, vectors, count=count), scores)

        return Changed(made, relevance=relevance)

    return Fitting(inner, changed)


def base_of(array):
    lender = array.base
    return lender if isinstance(lender, np.ndarray) and lender.flags.writeable else None


def overwrite(data):
    if base_of(data.scores) is not None:
        base_of(data.scores)[0] = 0
    return data


def overwriting(found, scores):
    if base_of(scores) is not None:
        base_of(scores)[0] = 0
    return found


class KeepsItsData(Fitting):
    def fit(self, data, params):
        made, scores = self.inner.fit(data, params), data.scores
        return Changed(
            made,
            threshold=made.threshold,
            relevance=lambda *args, count: made.relevance(*args, count=count) * np.float32(scores[0, 0] != 0),
        )


class NeedsNoLabels(Fitting):
    def fit(self, data, params):
        used = ~data.ignore & (data.labels >= 0)
        if used.any() and 0 < data.labels[used].sum() < used.sum():
            return self.inner.fit(data, params)
        return Sigmoid(1.0, 0.0)


class Unsteady(Fitting):
    calls = 0

    def fit(self, data, params):
        type(self).calls += 1
        made = self.inner.fit(data, params)
        return replace(made, threshold=made.threshold + 1e-9 * self.calls)


def ignoring_nothing(data):
    return replace(data, ignore=np.isneginf(data.scores))


def without_nan(data):
    return replace(data, scores=np.nan_to_num(data.scores, neginf=-np.inf))


def with_shared_randomness(data):
    random.random()
    return data


def looking_at_queries(data):
    data.queries[0] / np.linalg.norm(data.queries[0])
    return replace(data, scores=(data.scores + np.float32(np.abs(data.queries).sum() * 1e-4)))


def upside_down(found, scores):
    return np.where(np.isneginf(scores), 0, 1 - found).astype(np.float32)


def by_rank(found, scores):
    steps = np.arange(scores.shape[1], dtype=np.float32) / 100 if scores.size else np.float32(0)
    return np.where(np.isneginf(scores), 0, found * (1 - steps)).astype(np.float32)


def of_the_batch(found, scores):
    return (found * np.float32(0.9 if len(scores) > 1 else 1)).astype(np.float32)


def in_steps_down(found, scores):
    return np.where((found > 0.9) & (found < 0.98), found - np.float32(0.05), found)


class FixedScale(Fitting):
    def fit(self, data, params):
        return Sigmoid(10.0, -5.5) if self.inner.fit(data, params) else None


class LosesBits(Fitting):
    def load(self, state):
        made = self.inner.load(state)
        return replace(made, level=made.level + 1e-4)


class LoadsAnything(Fitting):
    def load(self, state):
        try:
            return self.inner.load(state)
        except Exception:
            return Sigmoid(1.0, 0.0)


BROKEN = {
    "version 0": ("D1", Changed(platt, version=0)),
    "rescores by the query": (
        "D1",
        Changed(outlier, capabilities=replace(outlier.capabilities, transfer="rescore")),
    ),
    "keeps everything": ("F1", Fitting(platt, lambda made: replace(made, threshold=0.0))),
    "writes into its data": ("F2", Prepared(platt, overwrite)),
    "keeps a view of its data": ("F2", KeepsItsData(loose)),
    "makes up a scale": ("F3", NeedsNoLabels(platt)),
    "cleans NaN away": ("F4", Prepared(platt, without_nan)),
    "counts what is ignored": ("F5", Prepared(platt, ignoring_nothing)),
    "never twice the same": ("F6", Unsteady(platt)),
    "shared randomness": ("F7", Prepared(platt, with_shared_randomness)),
    "cannot be stopped": ("F8", Prepared(platt, lambda data: replace(data, cancel=lambda: False))),
    "per cent": ("R1", judging(lambda found, scores: found * np.float32(100))),
    "float64": ("R1", judging(lambda found, scores: found.astype(np.float64))),
    "adds results": (
        "R2",
        judging(
            lambda found, scores: (
                np.where(np.isneginf(scores), 0.6, found).astype("f4") if np.isfinite(scores).any() else found
            )
        ),
    ),
    "fails on nothing": ("R3", judging(lambda found, scores: found + 0 * found[0, 0])),
    "a dent": ("R4", judging(in_steps_down, Changed(loose, capabilities=replace(loose.capabilities, monotone=True)))),
    "by place": ("R5", judging(by_rank)),
    "of the batch": ("R6", judging(of_the_batch)),
    "looks at queries": ("R7", Prepared(platt, looking_at_queries)),
    "wants vectors": ("R7", Changed(agreement, capabilities=RelevanceCapabilities(scope="query"))),
    "writes into its input": ("R8", judging(overwriting)),
    "upside down": ("R9", judging(upside_down)),
    "keeps the scale": ("R10", FixedScale(platt)),
    "tuple in the state": (
        "S1",
        Fitting(platt, lambda made: Changed(made, state=lambda: {**made.state(), "of": (1, 2)})),
    ),
    "loses bits": ("S2", LosesBits(platt)),
    "loads anything": ("S3", LoadsAnything(platt)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_catches_the_one_that_breaks_it_and_no_other_does(name):
    number, thing = BROKEN[name]
    random.seed(1)
    found = broken_rules(thing, "relevance filter")
    if name == "wants vectors":  # then nothing works that asks it
        assert number in found
    else:
        assert found == {number}


def test_there_is_a_broken_filter_for_every_rule():
    assert {number for number, _ in BROKEN.values()} == {check.number for check in CHECKS}


def test_rules_about_claims_are_for_those_who_make_them():
    numbers = {thing.name: {check.number for check in iter_relevance_checks(thing)} for thing in FILTERS}
    assert {"R4", "R10", "F3"} <= numbers["acme.platt"]
    assert not {"R4", "R9", "R10", "F3", "F5"} & numbers["acme.outlier"]


def test_a_planted_pool_is_what_a_fit_is_promised():
    data = planted.judged()
    ends = np.isneginf(data.scores)
    assert ends.any() and np.all(np.diff(np.where(ends, -1e9, data.scores), axis=1) <= 0)
    assert data.ignore[ends].all() and (data.labels[ends] == -1).all() and (data.ordinals[ends] == 0).all()
    assert set(np.unique(data.labels)) == {-1, 0, 1}
    assert data.vectors(3).shape == (20, 8) and not data.vectors(0)[-1].any()
    np.testing.assert_allclose(np.linalg.norm(data.queries, axis=1), 1, atol=1e-5)
    bridged = planted.judged(scale=0.3, offset=0.5)
    there = ~ends
    np.testing.assert_allclose(bridged.scores[there], 0.5 + 0.3 * data.scores[there], atol=1e-6)
